"""Write a report: everything into a folder beside, then moved into place, so that a failure leaves nothing half-written."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError
from harness.report.answer import answer
from harness.report.content import BOUND, MEMORY, RATE, SPREAD, START, STEP, Content, load

if TYPE_CHECKING:
    import pandas as pd

PARTS = ("tables", "figures", "report.md")


def write(folder: Path) -> Path:
    """Raises UserError: verify.json missing or broken, folder not writable or full. What was there before then stays."""
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
    return folder / "report.md"


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
    from harness.report.figures import save

    (folder / "tables").mkdir()
    (folder / "figures").mkdir()
    for name, table in tables(content).items():
        table.to_csv(folder / "tables" / f"{name}.csv", index=False)
    save(content, folder / "figures")
    (folder / "report.md").write_text(render(content), encoding="utf-8")


def tables(content: Content) -> dict[str, pd.DataFrame]:
    """{name: table} of the CSV files. Seconds, rows a second and bytes, unrounded; empty where there is no value."""
    from harness.bench.cells import CELL_FIELDS

    made = {"equivalence": content.equivalence, "checks": content.checks}
    if content.cells.empty:
        return made
    head = [*CELL_FIELDS, "state", "reason", "certificate"]
    reasons = ["; ".join(f"{name}: {why}" for name, why in one.items()) for one in content.cells["memory_reasons"]]
    return made | {
        "speed": content.cells[[*head, "margin", "blocks", "rounds", *RATE, *STEP, *SPREAD, *BOUND]],
        "times": content.cells[[*head, *START, "step_s"]],
        "memory": content.cells[[*head, *MEMORY]].assign(missing_because=reasons),
        "ratios": content.ratios,
        "measurements": content.long,
    }


def render(content: Content) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {
        "number": number,
        "seconds": seconds,
        "mib": mib,
        "cell": escape,
        "words": words,
        "interval": interval,
        "percent": percent,
        "share": share,
    }
    cells = content.cells.to_dict("records")
    measured = content.runs[-1] if content.runs else content.verify
    return environment.get_template("report.md.j2").render(
        content=content,
        verify=content.verify,
        machine=measured["machine"],
        versions=measured["versions"],
        elsewhere=differences(content.verify["machine"], measured["machine"]),
        answer=answer(content),
        cells=cells,
        reasons=cell_reasons(cells),
        runs=content.runs,
        failures=[message for row in content.verify["rows"] for message in row.get("failures", [])],
        missing_memory=memory_reasons(cells),
        rankings=rankings(content),
    )


def differences(verified: dict, timed: dict) -> str:
    """In what the machine that was verified on differs from the one that was timed, as "cores 2 and 64"; empty where in nothing."""
    names = [name for name in timed if verified.get(name) != timed[name] and name != "name"]
    return "; ".join(f"{name} {words(verified.get(name))} and {words(timed[name])}" for name in names)


def rankings(content: Content) -> list[dict]:
    """{"spec", "operation", "fastest", "floor", "rows"} of what is trained or fitted; in the rows each other implementation's time over
    the fastest's. None at level quick."""
    if content.cells.empty or content.runs[-1].get("note"):
        return []
    found = []
    for (spec, operation), cells in content.cells[content.cells["state"] == "ok"].groupby(["spec", "operation"], sort=False):
        if operation in ("train", "fit") and len(cells) > 1:
            fastest = cells.sort_values("step_s")["implementation"].iloc[0]
            pairs = content.ratios[(content.ratios["spec"] == spec) & (content.ratios["operation"] == operation)]
            rows = sorted(against(pairs, fastest), key=lambda row: row["ratio"])
            found.append({"spec": spec, "operation": operation, "fastest": fastest, "floor": pairs["floor"].max(), "rows": rows})
    return found


TURNED = {"faster": "slower", "slower": "faster"}


def against(pairs: pd.DataFrame, base: str) -> list[dict]:
    """The rows of a table of ratios that have `base` in them, turned so that it is the base."""
    rows = pairs[pairs["base"] == base].to_dict("records")
    for row in pairs[pairs["implementation"] == base].to_dict("records"):
        text = TURNED.get(row["text"], row["text"])
        turned = {"implementation": row["base"], "ratio": 1 / row["ratio"], "low": 1 / row["high"], "high": 1 / row["low"], "text": text}
        rows.append({**row, **turned, "base": base})
    return rows


def cell_reasons(cells: list[dict]) -> list[str]:
    """Each reason once, with the cells that it holds for."""
    found: dict[tuple, dict[str, list[str]]] = {}
    for cell in cells:
        if not missing(cell["reason"]):
            specs = found.setdefault((cell["implementation"], cell["state"], cell["reason"]), {})
            specs.setdefault(cell["spec"], []).append(cell["operation"])
    return [
        f"{name}, {'; '.join(f'{spec} ' + ', '.join(done) for spec, done in specs.items())}: "
        f"{'' if state == 'ok' else f'{state}: '}{reason}"
        for (name, state, reason), specs in found.items()
    ]


def memory_reasons(cells: list[dict]) -> dict[str, list[str]]:
    """{column: reasons for its N/A, each once, with the implementations that it holds for}."""
    found: dict[str, dict[str, dict[str, None]]] = {}
    for cell in cells:
        if cell["state"] == "ok" and cell["operation"] in ("train", "fit"):
            for column, reason in cell["memory_reasons"].items():
                found.setdefault(column, {}).setdefault(reason, {})[cell["implementation"]] = None
    return {column: [f"{reason} ({', '.join(names)})" for reason, names in reasons.items()] for column, reasons in found.items()}


def missing(value: Any) -> bool:
    return value is None or value != value


def number(value: float) -> str:
    """Three significant figures, grouped: 12 300."""
    if missing(value):
        return "N/A"
    return f"{float(f'{value:.3g}'):,.0f}".replace(",", " ") if value >= 100 else f"{value:.3g}"


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


def percent(value: float) -> str:
    return "unknown" if missing(value) else f"{100 * value:.2g} %"


def share(value: float) -> str:
    return "N/A" if missing(value) else f"{100 * value:.2g} %"


def mib(value: float) -> str:
    return "N/A" if missing(value) else f"{value / 2**20:.1f}"


def words(value: object) -> str:
    """A value of the machine's card; a list is read out."""
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def escape(text: object) -> str:
    """For a cell of a Markdown table."""
    return str(text).replace("|", "\\|").replace("\n", " ")
