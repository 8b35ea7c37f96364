"""What looks slower is measured once more, where that is possible: on the machine and with the code that the new run was made with.

The base is not: its code need not be here. `isoform gate` lays out both and measures them in one job.
"""

from collections.abc import Callable
from pathlib import Path

import impls
from harness import machine
from harness.bench import schedule
from harness.bench.cells import Cell
from harness.bench.compare import SAME
from harness.bench.journal import read
from harness.bench.table import finished
from harness.verify.certificate import code_hash
from specs import Spec

TOGETHER = ("spec", "spec_hash", "implementation", "device", "dtype", "precision")  # cells that one bench measures


def rerun(cells: list[Cell], new: Path, folder: Path, on_event: Callable[[dict], None] = lambda event: None) -> dict[Cell, Path | str]:
    """{cell: the journal, within the folder, of a run of its own; or why there is none}. As many blocks as the run in `new` has had."""
    rows = read(new).last_run
    found: dict[Cell, Path | str] = {}
    groups: dict[tuple, list[Cell]] = {}
    for cell in cells:
        if reason := not_here(cell, rows):
            found[cell] = reason
        else:
            groups.setdefault(tuple(getattr(cell, name) for name in TOGETHER), []).append(cell)
    for number, group in enumerate(groups.values()):
        first = group[0]
        path = schedule.bench(
            [Spec.model_validate(rows[0]["specs"][first.spec_hash])],
            [impls.load(first.implementation)],
            level=rows[0]["level"],
            dtype=first.dtype,
            device=first.device,
            batch_sizes=sorted({cell.batch_size for cell in group if cell.operation != "fit"}),
            operations=sorted({cell.operation for cell in group}),
            folder=folder,
            name=f"rerun-{number}.jsonl",
            on_event=on_event,
        )
        found |= dict.fromkeys(group, path)
    return found


def not_here(cell: Cell, rows: list[dict]) -> str | None:
    """Why a cell of a run cannot be measured again as it was, or None."""
    run, here = rows[0], machine.card()
    if other := [name for name in SAME if run["machine"].get(name) != here.get(name)]:
        return f"this is another machine ({', '.join(other)})"
    if cell.spec_hash not in run["specs"]:
        return "its journal does not hold the spec"
    if cell.implementation not in impls.available():
        return "there is no such implementation here"
    if cell.precision != "highest":
        return f"bench has no precision '{cell.precision}'"
    implementation = impls.load(cell.implementation)
    if implementation.missing:
        return f"{', '.join(implementation.missing)} is not installed here"
    if run["versions"] != machine.versions():
        return "other versions are installed here"
    mine = [row for row in finished(rows) if row["pass"] == "time" and row["state"] == "ok" and Cell(**row["cell"]) == cell]
    if {row["code_hash"] for row in mine} != {code_hash(implementation)}:
        return "the code has changed since"
    return None
