"""Write a report: everything into a folder beside, then moved into place, so that a failure leaves nothing half-written."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UserError
from harness.report import derived, machine
from harness.report.captions import every
from harness.report.content import BOUND, MEMORY, RATE, SPREAD, START, START_ENDS, STEP, WORK, Content, load
from harness.report.formats import FILTERS, missing
from harness.report.view import cell_key, view

if TYPE_CHECKING:
    import pandas as pd

PARTS = ("tables", "figures", "report.md", "report.html")


def write(folder: Path) -> Path:
    """Returns the path of report.html. Raises UserError: verify.json missing or broken, folder not writable or full. What was there
    before then stays."""
    content = load(folder)
    temporary = None
    try:
        temporary = Path(tempfile.mkdtemp(prefix=".report-", dir=folder))
        _fill(content, temporary)
        _into_place(temporary, folder)
    except OSError as error:
        raise UserError(
            f"cannot write the report into {folder}: {error.strerror or error}\n"
            f"  mend: make room, or copy the folder to where you may write: isoform report THE_COPY"
        ) from None
    finally:
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder / "report.html"


def _into_place(new: Path, folder: Path) -> None:
    """All parts, or none: what was there before is kept aside until the last is in place."""
    aside = new / "before"
    aside.mkdir()
    try:
        for part in PARTS:
            if (folder / part).exists():
                (folder / part).rename(aside / part)
            (new / part).rename(folder / part)
    except OSError:
        for part in PARTS:
            if not (new / part).exists():
                (folder / part).rename(new / part)
            if (aside / part).exists():
                (aside / part).rename(folder / part)
        raise


def _fill(content: Content, folder: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    from harness.report.figures import save
    from harness.report.html_page import html

    (folder / "tables").mkdir()
    (folder / "figures").mkdir()
    for name, table in tables(content).items():
        table.to_csv(folder / "tables" / f"{name}.csv", index=False)
        parquet.write_table(pyarrow.Table.from_pandas(table, preserve_index=False), folder / "tables" / f"{name}.parquet")
    figures = save(content, folder / "figures")
    (folder / "report.md").write_text(render(content, figures), encoding="utf-8")
    (folder / "report.html").write_text(html(content, folder / "figures"), encoding="utf-8")


def tables(content: Content) -> dict[str, pd.DataFrame]:
    """{name: table} of the CSV and Parquet files. Seconds, rows a second and bytes, unrounded; empty where there is no value."""
    from harness.bench.cells import CELL_FIELDS

    made = {"equivalence": content.equivalence, "checks": content.checks}
    if content.card:
        made["machine"] = machine.table(content.card)
    if content.cells.empty:
        return made
    head = [*CELL_FIELDS, "state", "reason", "certificate"]
    reasons = ["; ".join(f"{name}: {why}" for name, why in one.items()) for one in content.cells["memory_reasons"]]
    held = [derived.reconciled(cell) for cell in content.cells.to_dict("records")]
    more = {"noise": content.noise, "break_even": content.even, "rules": content.rules, "curves": content.curves,
            "slopes": content.slopes, "quality": content.quality}  # fmt: skip
    return made | {
        "speed": content.cells[[*head, "margin", "blocks", "group_blocks", "rounds", *RATE, *STEP, *SPREAD, *BOUND, *WORK]],
        "times": content.cells[[*head, *START, *START_ENDS, "cold_processes", *STEP]],
        "memory": content.cells[[*head, *MEMORY]].assign(
            missing_because=reasons,
            **{name: [one[name] for one in held] for name in derived.HELD[:-1]},
        ),
        "ratios": content.ratios,
        "measurements": content.long,
        **{name: table for name, table in more.items() if len(table)},
    }


def render(content: Content, figures: list[str] | None = None) -> str:
    """report.md. `figures`: the names of those that were drawn; by default all that it could show."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= FILTERS
    environment.tests["missing"] = missing
    known = every(content.dtypes)
    captions = {name: known[name][0] for name in (known if figures is None else figures)}
    return environment.get_template("report.md.j2").render(**view(content), captions=captions, key=cell_key)
