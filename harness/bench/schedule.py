"""The parent's side of bench: blocks, random order, one measurement at a time, every outcome in the journal at once.

When the blocks end is for `stopping` to say; what a worker's process is and what its death costs, for `station`.
"""

import contextlib
import random
import secrets
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from itertools import count, islice
from pathlib import Path

import impls
from harness import machine
from harness.bench import cells as planning
from harness.bench.cells import REMEMBERED, Cell, Entry
from harness.bench.journal import Journal, differs, now, read
from harness.bench.station import Outcome, Station
from harness.bench.stopping import LEVELS, Level, Stopping
from harness.errors import FAILED, NOTHING_RAN, OK, UserError
from harness.processes import cpus
from impls import Implementation
from specs import Spec

NOT_RUN = ("n-a", "not-installed", "unsupported")
FINAL = (*NOT_RUN, "mismatch", "timeout")  # states in which trying again in the next block is of no use
SILENCE_S = 300  # a worker that says nothing for so long hangs
TOGETHER = 2  # workers that prepare at a time where their start is not timed

# A first call shows the compiler at work only where no other process has left it anything.
NO_CACHES = {"TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1", "JAX_ENABLE_COMPILATION_CACHE": "false"}


def bench(
    specs: Iterable[Spec],
    implementations: Iterable[Implementation],
    *,
    level: str,
    dtype: str,
    device: str,
    folder: Path,
    batch_sizes: Sequence[int] = (),
    operations: Sequence[str] = (),
    name: str = "journal.jsonl",
    target: float | None = None,
    budget_s: float | None = None,
    seed: int | None = None,
    command: str | None = None,
    on_event: Callable[[dict], None] = lambda event: None,
    silence_s: float = SILENCE_S,
    resume: bool = False,
) -> Path:
    """Measure everything and return the path of the journal, to which it has been appended row by row.

    `batch_sizes`, `operations`: by default each spec's own, and the level's. `target`, `budget_s`: see `stopping`.
    `resume`: go on with the folder's last run, which must be of the same plan on the same machine; nothing that has ended is repeated.
    `on_event` is given {"event": "plan", "total": n}, then n times {"event": "cell", "cell": {...}, "state": str}.
    Raises UserError if the journal cannot be written or resumed, or another isoform is writing it. An implementation that fails is a row,
    never an exception.
    """
    specs, implementations, operations = list(specs), list(implementations), operations or LEVELS[level].operations
    entries = planning.cells(specs, implementations, operations, dtype=dtype, device=device, batch_sizes=batch_sizes)
    path, rule = Path(folder) / name, LEVELS[level].stop(target, budget_s)
    same = {
        "level": level,
        "plan": {
            "specs": {spec.name: spec.hash for spec in specs},
            "implementations": [one.name for one in implementations],
            **{"dtype": dtype, "device": device, "batch_sizes": list(batch_sizes), "operations": list(operations)},
        },
        "machine": machine.card(),
        "versions": machine.versions(),
        "affinity": cpus(),
        "threads": len(cpus()),
    }
    refuse_another_machine(path, machine.card())
    if resume:
        resumed(path, same)  # else a message, before there is a journal
    with Journal(path) as journal, tempfile.TemporaryDirectory(prefix="isoform-") as caches:
        before = resumed(path, same) if resume else []  # once more: from here on nobody else writes
        seed = before[0]["seed"] if before else secrets.randbelow(2**32) if seed is None else seed
        if before:
            journal.write("resume", made=now())
        else:
            command = command or shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
            in_full = {spec.hash: spec.model_dump(mode="json") for spec in specs}
            head = {"specs": in_full, "note": LEVELS[level].note, "stop": asdict(rule), "joined": False}
            journal.write("run", made=now(), command=command, seed=seed, **same, **head)
        one = Bench(specs, implementations, entries, LEVELS[level], Stopping(rule), journal, seed, caches, on_event, silence_s)
        one.remember_rows(before)
        one.run()
        journal.write("end", at=now(), stopped=one.stopping.why)
        on_event({"event": "end", "stopped": one.stopping.why})
    return path


def refuse_another_machine(path: Path, here: dict) -> None:
    """A journal is of one machine. Raises UserError."""
    runs = read(path).runs if path.exists() else []
    if runs and (different := differs(here, runs[-1][0]["machine"])):
        raise UserError(
            f"{path} is of another machine: {different}\n"
            f"  expected: runs of one machine in a journal, since times of two are not comparable\n"
            f"  mend:     another folder: --out FOLDER"
        )


def resumed(path: Path, same: dict) -> list[dict]:
    """The rows of the last run in a journal. Raises UserError if there is none, if it was another one, or merged of several."""
    again = "measure anew, without --resume, or into another folder: --out FOLDER"
    if not path.exists() or not (rows := read(path).last_run):
        raise UserError(f"{path}: there is no run to resume\n  mend: {again}")
    if rows[0]["joined"]:
        raise UserError(f"{path}: a merged run cannot be resumed\n  mend: resume it in its own folder, then merge once more; or {again}")
    for name, value in same.items():
        if (found := rows[0].get(name)) != value:
            raise UserError(
                f"{path}: the run cannot be resumed, it has another {name}\n  expected: {found}\n  got:      {value}\n  mend: {again}"
            )
    return rows


def exit_code(path: Path) -> int:
    """Of the journal's last run: whether anything was measured, and whether anything failed."""
    states = {row["state"] for row in read(path).last_run if row["row"] == "finish"}
    if states <= set(NOT_RUN):
        return NOTHING_RAN
    return OK if states <= {"ok", *NOT_RUN} else FAILED


class Bench:
    def __init__(
        self,
        specs: list[Spec],
        implementations: list[Implementation],
        entries: list[Entry],
        level: Level,
        stopping: Stopping,
        journal: Journal,
        seed: int,
        caches: str,
        on_event: Callable[[dict], None],
        silence_s: float,
    ):
        self.specs, self.implementations, self.entries, self.level, self.stopping = specs, implementations, entries, level, stopping
        self.journal, self.seed, self.caches, self.on_event, self.silence_s = journal, seed, caches, on_event, silence_s
        self.draw = random.Random(seed)
        self.states: dict[Cell, str] = {}  # of the latest block
        self.certificates: dict[Cell, str] = {}
        self.ended: set[tuple[str, int, Cell]] = set()  # pass, block and cell
        self.selftested: set[str] = set()

    def remember_rows(self, rows: list[dict]) -> None:
        """What an earlier part of this run has finished is not done again."""
        self.selftested |= {row["implementation"] for row in rows if row["row"] == "selftest"}
        for row in rows:
            if row["row"] == "finish":
                self.note(row["pass"], row["block"], Cell(**row["cell"]), row["state"], row)

    def note(self, which: str, block: int, cell: Cell, state: str, measured: dict) -> None:
        self.ended.add((which, block, cell))
        if which == "time":
            self.states[cell] = state
            if state == "ok" and measured.get("certificate"):
                self.certificates[cell] = measured["certificate"]
                self.stopping.note(cell, block, measured)
        if state == "mismatch":
            self.certificates.pop(cell, None)

    def run(self) -> None:
        pending = [entry.cell for entry in self.entries if entry.state == "pending"]
        remembered = [cell for cell in pending if cell.operation in REMEMBERED and self.level.memory]
        pending += self.twins(pending)
        standing = [entry for entry in self.entries if entry.state != "pending" and ("time", 0, entry.cell) not in self.ended]
        remembered = [cell for cell in remembered if ("memory", 0, cell) not in self.ended]
        left = sum(("time", block, cell) not in self.ended for block in range(self.level.blocks) for cell in pending)
        self.on_event({"event": "plan", "total": len(standing) + left + len(remembered)})
        for entry in standing:
            self.finish("time", 0, entry.cell, Outcome(entry.state, entry.reason))
        for block in count():
            due = self.stopping.due(block, pending)
            if not due:
                break
            if block >= self.level.blocks:
                self.on_event({"event": "more", "cells": len(due)})
            self.one_block(block, [cell for cell in due if ("time", block, cell) not in self.ended])
        self.memory_pass(remembered)

    def one_block(self, block: int, cells: list[Cell]) -> None:
        for spec in self.draw.sample(self.specs, len(self.specs)):
            if mine := [cell for cell in cells if (cell.spec, cell.spec_hash) == (spec.name, spec.hash)]:
                self.journal.write("state", block=block, spec=spec.name, when="before", at=now(), **machine.state())
                self.time_block(block, spec, mine)
                self.journal.write("state", block=block, spec=spec.name, when="after", at=now(), **machine.state())

    def twins(self, pending: list[Cell]) -> list[Cell]:
        """For each spec the cells of one implementation once more, drawn at random where the level says so: what differs is noise."""
        place = {name: k for k, name in enumerate(impls.available())}
        names: dict[tuple[str, str], set[str]] = {}
        for cell in pending:
            names.setdefault((cell.spec, cell.spec_hash), set()).add(cell.implementation)
        pick = self.draw.choice if self.level.twin_drawn else lambda some: min(some, key=lambda name: place.get(name, len(place)))
        chosen = {spec: pick(sorted(some)) for spec, some in names.items()}
        return [replace(cell, replica=1) for cell in pending if chosen[cell.spec, cell.spec_hash] == cell.implementation]

    # The time pass. All processes of a block are alive at once; only one at a time is asked for anything that is timed.

    def time_block(self, block: int, spec: Spec, cells: list[Cell]) -> None:
        for cell in [cell for cell in cells if self.states.get(cell) in FINAL]:
            self.on_event({"event": "cell", "cell": cell.row(), "state": self.states[cell]})
            cells.remove(cell)
        cold = block < self.level.cold_blocks
        with contextlib.ExitStack() as stack:
            several = len({cell.batch_size for cell in cells if cell.operation != "fit"}) > 1
            stations = [
                self.station(spec, mine, self.caches_for(block, mine[0], several)) for mine in self.by_implementation(cells, several)
            ]
            for station in stations:
                stack.callback(station.close)
            if not cold:
                self.prepare_together(block, stations)
            for station in stations:
                self.ready(block, station)
            order = [(station, cell) for station in stations for cell in station.cells]
            self.draw.shuffle(order)
            for station, cell in order:
                self.ready(block, station)  # again, where its process has died since
                if cell in station.cells:
                    self.time_cell(block, station, cell, cold)

    def by_implementation(self, cells: list[Cell], several: bool) -> list[list[Cell]]:
        """In random order; a twin is one of its own, and so is each batch size where there are several: a compiler that has seen
        one may compile the next in another way."""
        found: dict[tuple[str, int, int], list[Cell]] = {}
        for cell in cells:
            found.setdefault((cell.implementation, cell.replica, cell.batch_size if several else 0), []).append(cell)
        return self.draw.sample(list(found.values()), len(found))

    def station(self, spec: Spec, cells: list[Cell], environment: dict[str, str]) -> Station:
        implementation = next(one for one in self.implementations if one.name == cells[0].implementation)
        return Station(implementation, spec, cells, environment, self.seed, self.silence_s)

    def caches_for(self, block: int, cell: Cell, several: bool) -> dict[str, str]:
        """None where the start is timed; but in the last of these blocks, and from there on, a place of this spec and implementation alone,
        which is empty at first."""
        last = self.level.cold_blocks - 1 if self.level.cold_blocks < self.level.blocks else self.level.cold_blocks
        if block < self.level.cold_blocks and block != last:
            return NO_CACHES
        place = Path(self.caches) / f"{cell.spec}-{cell.spec_hash[:8]}-{cell.implementation}-{cell.replica}-{cell.batch_size * several}"
        return {
            "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "0",
            "TORCHINDUCTOR_CACHE_DIR": str(place / "torch"),
            "JAX_ENABLE_COMPILATION_CACHE": "true",
            "JAX_COMPILATION_CACHE_DIR": str(place / "jax"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }

    def prepare_together(self, block: int, stations: list[Station]) -> None:
        for station in stations:
            self.lose(block, station.open())
        opened = [station for station in stations if station.cells]
        with ThreadPoolExecutor(TOGETHER) as pool:
            for lost in pool.map(Station.prepare, opened):
                self.lose(block, lost)

    def ready(self, block: int, station: Station) -> None:
        """Have it prepared, in a fresh process if need be, or without cells."""
        while station.cells and not station.prepared:
            self.lose(block, station.open())
            if station.worker:
                self.lose(block, station.prepare())

    def lose(self, block: int, lost: dict[Cell, Outcome]) -> None:
        for cell, outcome in lost.items():
            self.finish("time", block, cell, outcome)

    def time_cell(self, block: int, station: Station, cell: Cell, cold: bool) -> None:
        self.begin("time", block, cell)
        outcome = station.time(cell, self.level.rounds, energy=block < max(self.level.cold_blocks, 1))
        if outcome.state == "ok" and (not cold or station.reopened):  # opened again, it finds what the process before has compiled
            outcome.measured.update(import_s=None, build_s=None, first_call_s=None)
        self.finish("time", block, cell, outcome)

    # The memory pass: a process for each cell, and only for what was certified and timed.

    def memory_pass(self, cells: list[Cell]) -> None:
        for cell in [cell for cell in cells if cell not in self.certificates]:
            self.on_event({"event": "cell", "cell": cell.row(), "state": self.states[cell]})
        certified = iter(counted := [cell for cell in cells if cell in self.certificates])
        self.selftests(counted)
        while some := list(islice(certified, self.together(counted))):
            self.remember(some)

    def selftests(self, cells: list[Cell]) -> None:
        """Of each implementation whose memory is measured, unless an earlier part of this run has done it."""
        asked = iter({cell.implementation: cell for cell in cells if cell.implementation not in self.selftested}.values())
        while some := list(islice(asked, self.together(cells))):
            with contextlib.ExitStack() as stack, ThreadPoolExecutor(TOGETHER) as pool:
                stations = [stack.enter_context(contextlib.closing(self.remembering(cell))) for cell in some]
                lost = [station.open() for station in stations]  # from this thread: a worker dies with the one that has started it
                tests = pool.map(lambda one: one[1].get(one[2]) or one[0].selftest(one[2].device), zip(stations, lost, some, strict=True))
                for cell, outcome in zip(some, tests, strict=True):
                    got = {"expected": 0, "got": None, "reason": outcome.reason} | outcome.measured
                    column = "host_peak" if cell.device == "cpu" else "device_used_peak"
                    self.journal.write("selftest", implementation=cell.implementation, device=cell.device, column=column, at=now(), **got)

    @staticmethod
    def together(cells: list[Cell]) -> int:
        """Processes whose memory is measured at a time: NVML tells what is in use on a device, not by whom."""
        return TOGETHER if all(cell.device == "cpu" for cell in cells) else 1

    def remembering(self, cell: Cell) -> Station:
        return self.station(self.spec_of(cell), [cell], NO_CACHES)

    def spec_of(self, cell: Cell) -> Spec:
        return next(spec for spec in self.specs if (spec.name, spec.hash) == (cell.spec, cell.spec_hash))

    def remember(self, cells: list[Cell]) -> None:
        with contextlib.ExitStack() as stack, ThreadPoolExecutor(TOGETHER) as pool:
            opened = []
            for cell in cells:
                self.begin("memory", 0, cell)
                station = stack.enter_context(contextlib.closing(self.remembering(cell)))
                for outcome in station.open().values():
                    self.finish("memory", 0, cell, outcome)
                if station.worker:
                    opened.append((station, cell))
            for (_, cell), outcome in zip(opened, pool.map(lambda pair: pair[0].remember(pair[1]), opened), strict=True):
                self.finish("memory", 0, cell, outcome, certificate=self.certificates[cell])

    # The journal.

    def begin(self, which: str, block: int, cell: Cell) -> None:
        self.journal.write("start", **{"pass": which}, cell=cell.row(), block=block, at=now())

    def finish(self, which: str, block: int, cell: Cell, outcome: Outcome, **known: object) -> None:
        self.note(which, block, cell, outcome.state, outcome.measured)
        fields = {"pass": which, "cell": cell.row(), "block": block, "at": now(), "state": outcome.state, "reason": outcome.reason}
        self.journal.write("finish", **fields, **known, **outcome.measured)
        self.on_event({"event": "cell", "cell": cell.row(), "state": outcome.state})
