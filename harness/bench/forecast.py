"""What a bench would take: cells, minutes, bytes. Minutes are learnt from the last run on this machine, if there was one."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median

from harness import machine
from harness.bench import cells as planning
from harness.bench.cells import REMEMBERED, Entry
from harness.bench.journal import differs, read
from harness.bench.stopping import AT_LEAST, LEVELS, Stop
from harness.errors import UserError
from impls import Implementation
from specs import Spec
from specs.parameters import shapes

RESULTS = Path("results")
ROW_BYTES, ROUND_BYTES = 2000, 22  # of a finish row and its start row, and of each round in it; where no run has told
COPIES = 4  # of every parameter: itself, its gradient, two moments


@dataclass(frozen=True)
class Pace:
    """Seconds, as medians of a run: to get a worker ready, to measure a cell, to measure the memory of one."""

    ready: float
    cell: float
    memory: float
    row_bytes: float
    journal: Path


@dataclass(frozen=True)
class Forecast:
    entries: list[Entry]
    stop: Stop
    minutes: tuple[float, float] | None  # with as many blocks as the level asks for, and with the most
    journal_bytes: float
    array_bytes: float  # of the largest worker: parameters, moments, gradients, a batch and what a step makes of it
    pace: Pace | None


def forecast(
    specs: Iterable[Spec],
    implementations: Iterable[Implementation],
    *,
    level: str,
    dtype: str,
    device: str,
    batch_sizes: tuple[int, ...] = (),
    operations: tuple[str, ...] = (),
    target: float | None = None,
    budget_s: float | None = None,
) -> Forecast:
    """As `schedule.bench` would do it. A budget bounds the minutes, once there are blocks enough for an interval."""
    specs, wanted = list(specs), operations or LEVELS[level].operations
    entries = planning.cells(specs, implementations, wanted, dtype=dtype, device=device, batch_sizes=batch_sizes)
    pending = [entry.cell for entry in entries if entry.state == "pending"]
    pace, stop = learn(RESULTS), LEVELS[level].stop(target, budget_s)
    alive = {spec.name: {cell.implementation for cell in pending if cell.spec == spec.name} for spec in specs}
    stations = sum(len(names) + 1 for names in alive.values() if names)  # and a twin each
    each_block = sum(1 + 1 / len(alive[cell.spec]) for cell in pending)
    remembered = sum(cell.operation in REMEMBERED for cell in pending)

    def seconds(blocks: int) -> float:
        block_s, most = stations * pace.ready + each_block * pace.cell, math.inf if budget_s is None else budget_s
        return max(min(blocks * block_s, most), AT_LEAST * block_s) + remembered * pace.memory

    rows = stop.blocks * each_block + remembered
    row_bytes = pace.row_bytes if pace else ROW_BYTES + ROUND_BYTES * LEVELS[level].rounds
    largest = max((arrays(spec, cell.batch_size, dtype) for spec in specs for cell in pending if cell.spec == spec.name), default=0.0)
    minutes = (seconds(stop.blocks) / 60, seconds(stop.most) / 60) if pace else None
    return Forecast(entries, stop, minutes, rows * row_bytes, largest, pace)


def arrays(spec: Spec, rows: int, dtype: str) -> float:
    """Bytes of the arrays that a training step of NumPy's would hold."""
    width = {"float64": 8, "float32": 4}[dtype]
    parameters = sum(_size(shape) for shape in shapes(spec).values())
    activations = 2 * spec.d_x + 2 * sum(spec.hidden) + 4 * spec.d_z
    return float(width) * (COPIES * parameters + rows * (spec.d_x + 2 * activations))


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def learn(results: Path) -> Pace | None:
    """From the newest run below `results` that was made on this machine and has come to its end."""
    here, found = machine.card(), []
    for path in results.glob("*/*/journal.jsonl"):
        try:
            run = read(path).last_run
        except UserError:
            continue  # damaged, or of another version: it has nothing to teach
        if run and run[-1]["row"] == "end" and not differs(run[0]["machine"], here):
            found.append((run[0]["made"], path, run))
    return _pace(*max(found, key=lambda one: one[0])[1:]) if found else None


def _pace(path: Path, run: list[dict]) -> Pace | None:
    begun: dict[str, datetime] = {}
    taken: dict[str, list[float]] = {"time": [], "memory": []}
    ready, block_began, lengths = [], None, []
    for row in run:
        if row["row"] == "state":
            block_began = _at(row) if row["when"] == "before" else None
        elif row["row"] == "start":
            begun[_key(row)] = _at(row)
            if block_began:
                stations = {(one["cell"]["implementation"], one["cell"]["replica"]) for one in run if _same_block(one, row)}
                ready.append((_at(row) - block_began).total_seconds() / max(len(stations), 1))
                block_began = None
        elif row["row"] == "finish" and row["state"] == "ok" and _key(row) in begun:
            taken[row["pass"]].append((_at(row) - begun[_key(row)]).total_seconds())
            lengths.append(len(json.dumps(row)) + len(json.dumps(row["cell"])))
    if not (ready and taken["time"]):
        return None
    return Pace(median(ready), median(taken["time"]), median(taken["memory"] or [0.0]), median(lengths), path)


def _same_block(one: dict, row: dict) -> bool:
    same = ("pass", "block")
    return one["row"] == "start" and all(one[name] == row[name] for name in same) and one["cell"]["spec"] == row["cell"]["spec"]


def _key(row: dict) -> str:
    return json.dumps([row["pass"], row["block"], row["cell"]], sort_keys=True)


def _at(row: dict) -> datetime:
    return datetime.fromisoformat(row["at"])
