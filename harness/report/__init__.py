"""Report: the page, the tables and the figures of a results folder. `build(folder)` returns the page's path."""

from pathlib import Path


def build(folder: Path) -> Path:
    """Write report.md, tables/*.csv and figures/*.png, *.svg beside verify.json and journal.jsonl. Raises UserError."""
    from harness.report.page import write

    return write(Path(folder))
