"""Time to quality: steps and seconds until the test loss is as low as the reference's is half-way through the spec's training.

A step that costs half is worth nothing if it takes twice as many. Each seed has initial parameters, an order of batches and noise of
its own, the noise drawn by the framework; each is a block, with a fresh process an implementation, in random order.
Its journal is quality.jsonl.
"""

from __future__ import annotations

import contextlib
import random
import secrets
import shlex
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import impls
from harness import data, machine
from harness.bench import cells as planning
from harness.bench.cells import CELL_FIELDS, Cell, Entry
from harness.bench.journal import Journal, now, read
from harness.bench.schedule import NO_CACHES, SILENCE_S, refuse_another_machine
from harness.bench.station import Outcome, Station
from harness.bench.table import finished
from harness.bench.training import test_loss
from harness.processes import cpus
from impls import Implementation
from specs import Spec
from specs.noise import batches

if TYPE_CHECKING:
    import pandas as pd

NAME = "quality.jsonl"
SEEDS = 5
TIMES_MOST = 10  # as many steps as the spec trains, before a seed is given up
MEASURED = ("seed", "target", "loss", "steps", "seconds")
COLUMNS = (*(name for name in CELL_FIELDS if name not in ("operation", "replica")), *MEASURED, "state", "reason", "certificate")


def target_of(spec: Spec) -> float:
    """Nats an example: the test loss of the NumPy reference in float64 half-way through the spec's training."""
    model, sets = impls.load("numpy").build(spec, dtype="float64"), data.load(spec)
    model.train(batches(spec, sets.train, max(spec.training.steps // 2, 1)))
    return test_loss(model, sets.test)


def measure(
    specs: Iterable[Spec],
    implementations: Iterable[Implementation],
    *,
    dtype: str,
    device: str,
    folder: Path,
    seeds: int = SEEDS,
    target: float | None = None,
    command: str | None = None,
    on_event: Callable[[dict], None] = lambda event: None,
    silence_s: float = SILENCE_S,
) -> Path:
    """Train everything to the target, and return the journal's path. Events and errors are those of `schedule.bench`."""
    specs, implementations = list(specs), list(implementations)
    entries = [entry for entry in planning.cells(specs, implementations, ("train",), dtype=dtype, device=device)]
    path, draw = folder / NAME, random.Random(seed := secrets.randbelow(2**32))
    refuse_another_machine(path, machine.card())
    plan = {"specs": {spec.name: spec.hash for spec in specs}, "implementations": [one.name for one in implementations]}
    plan |= {"dtype": dtype, "device": device, "batch_sizes": [], "operations": ["train"]}
    head = {
        "command": command or shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "level": "quality",
        "machine": machine.card(),
        "versions": machine.versions(),
        "specs": {spec.hash: spec.model_dump(mode="json") for spec in specs},
    }
    pending = [entry for entry in entries if entry.state == "pending"]
    on_event({"event": "plan", "total": len(entries) - len(pending) + seeds * len(pending)})
    with Journal(path) as journal:
        fixed = {"affinity": cpus(), "threads": len(cpus()), "note": None, "stop": None, "joined": False}
        journal.write("run", made=now(), seed=seed, plan=plan, **head, **fixed)

        def finish(block: int, cell: Cell, outcome: Outcome) -> None:
            fields = {"pass": "quality", "cell": cell.row(), "block": block, "at": now(), "state": outcome.state, "reason": outcome.reason}
            journal.write("finish", **fields | outcome.measured)
            on_event({"event": "cell", "cell": cell.row(), "state": outcome.state})

        for entry in entries:
            if entry.state != "pending":
                finish(0, entry.cell, Outcome(entry.state, entry.reason))
        targets = {spec.name: target if target is not None else target_of(spec) for spec in specs if spec.trains}
        for block in range(seeds):
            for entry in draw.sample(pending, len(pending)):
                spec = next(spec for spec in specs if spec.name == entry.cell.spec)
                journal.write("start", **{"pass": "quality"}, cell=entry.cell.row(), block=block, at=now())
                finish(block, entry.cell, _train(entry, spec, implementations, block, targets[spec.name], silence_s))
        journal.write("end", at=now(), stopped=f"seeds: {seeds}, as asked")
        on_event({"event": "end", "stopped": f"seeds: {seeds}, as asked"})
    return path


def _train(entry: Entry, spec: Spec, implementations: list[Implementation], block: int, target: float, silence_s: float) -> Outcome:
    implementation = next(one for one in implementations if one.name == entry.cell.implementation)
    with contextlib.closing(Station(implementation, spec, [entry.cell], NO_CACHES, block + 1, silence_s)) as station:
        lost = station.open()
        return lost.get(entry.cell) or station.reach(entry.cell, target, TIMES_MOST * spec.training.steps)


def table(journal: Path) -> pd.DataFrame:
    """One row a seed of the last run: its cell, seed, target and loss in nats an example, steps, seconds, state, reason, certificate."""
    import pandas as pd

    rows = [{**row["cell"], **{name: row.get(name) for name in (*MEASURED, "state", "reason", "certificate")}} for row in _rows(journal)]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(("target", "loss", "steps", "seconds"), float))


def _rows(journal: Path) -> list[dict]:
    """A mismatch at one seed takes the numbers from all."""
    rows = [row for row in finished(read(journal).last_run) if row["pass"] == "quality"] if journal.exists() else []
    void = {(row["cell"]["spec"], row["cell"]["implementation"]): row["reason"] for row in rows if row["state"] == "mismatch"}
    hide = dict.fromkeys((*MEASURED, "certificate"))
    pair = lambda row: (row["cell"]["spec"], row["cell"]["implementation"])
    return [row | hide | {"state": "mismatch", "reason": void[pair(row)]} if pair(row) in void else row for row in rows]
