"""Write a report: everything into a folder beside, then moved into place, so that a failure leaves nothing half-written."""

import contextlib
import shutil
import tempfile
from pathlib import Path

from harness.errors import UserError
from harness.report.content import Content, answer, load

PARTS = ("tables", "figures", "report.md")


def write(folder: Path) -> Path:
    """Raises UserError: verify.json missing or broken, folder not writable or full."""
    content = load(folder)
    temporary = None
    try:
        temporary = Path(tempfile.mkdtemp(prefix=".report-", dir=folder))
        _fill(content, temporary)
        for part in PARTS:
            _replace(temporary / part, folder / part)
    except OSError as error:
        raise UserError(
            f"cannot write the report into {folder}: {error.strerror or error}\n  mend: make room, or copy the folder elsewhere"
        ) from None
    finally:
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder / "report.md"


def _replace(new: Path, old: Path) -> None:
    if old.is_dir():
        shutil.rmtree(old)
    new.replace(old)


def _fill(content: Content, folder: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from harness.report.figures import draw

    (folder / "tables").mkdir()
    (folder / "figures").mkdir()
    for name, table in tables(content).items():
        table.to_csv(folder / "tables" / f"{name}.csv", index=False)
    figures = draw(content)
    for name, figure in figures.items():
        figure.savefig(folder / "figures" / f"{name}.png", dpi=130)
        figure.savefig(folder / "figures" / f"{name}.svg", metadata={"Date": None})
    (folder / "report.md").write_text(render(content, list(figures)), encoding="utf-8")


def tables(content: Content) -> dict:
    """{name: DataFrame} of the CSV files."""
    made = {"equivalence": content.equivalence, "checks": content.checks}
    if not content.cells.empty:
        made |= {"cells": content.cells, "measurements": content.long}
    return made


def render(content: Content, figures: list[str]) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"number": number, "seconds": seconds, "mib": mib, "cell": escape, "missing": missing, "interval": interval}
    cells = content.cells.to_dict("records")
    return environment.get_template("report.md.j2").render(
        content=content,
        verify=content.verify,
        answer=answer(content),
        cells=[cell for cell in cells if cell["state"] != "n-a"],
        not_for=[cell for cell in cells if cell["state"] == "n-a"],
        runs=content.runs,
        figures=figures,
        failures=[message for row in content.verify["rows"] for message in row["failures"]],
        reasons=_memory_reasons(cells),
    )


def _memory_reasons(cells: list[dict]) -> dict[str, list[str]]:
    """{column: reasons for its N/A, each once}."""
    found: dict[str, dict[str, None]] = {}
    for cell in cells:
        if cell["state"] == "ok" and cell["operation"] in ("train", "fit"):
            for column, reason in (cell["memory_reasons"] or {}).items():
                found.setdefault(column, {})[f"{cell['implementation'].split('-')[0]}: {reason}"] = None
    return {column: list(reasons) for column, reasons in found.items()}


def missing(value: float | None) -> bool:
    return value is None or value != value


def number(value: float) -> str:
    """Three significant figures, grouped: 12 300."""
    if missing(value):
        return "N/A"
    with contextlib.suppress(ValueError):
        return f"{float(f'{value:.3g}'):,.0f}".replace(",", " ") if value >= 100 else f"{value:.3g}"
    return str(value)


def seconds(value: float) -> str:
    """In the unit that suits: s, ms or us."""
    if missing(value):
        return "N/A"
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-6:.3g} us"


WIDEST = 4  # ends of an interval, one over the other


def interval(cell: dict) -> str:
    """The interval of rows a second, or that it cannot be told: one block has none, and a few noisy ones one that says nothing."""
    if missing(cell["samples_low"]):
        return "cannot tell: one block"
    if cell["samples_high"] > WIDEST * cell["samples_low"]:
        return f"cannot tell: wider than a factor of {WIDEST}"
    return f"{number(cell['samples_low'])} to {number(cell['samples_high'])}"


def mib(value: float) -> str:
    return "N/A" if missing(value) else f"{value / 2**20:.1f}"


def escape(text: object) -> str:
    """For a cell of a Markdown table."""
    return str(text).replace("|", "\\|").replace("\n", " ")
