"""Report: the page, the tables and the figures of a results folder. `build(folder)` returns the path of report.html."""

from pathlib import Path


def build(folder: Path) -> Path:
    """Write report.html, report.md, tables/ (CSV, Parquet) and figures/ (SVG, PDF, PNG) beside verify.json and journal.jsonl; returns
    the path of report.html. Raises UserError."""
    from harness.report.page import write

    return write(Path(folder))
