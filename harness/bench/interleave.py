"""Two trees measured side by side, base and head, so finely that what happens to the machine happens to both.

A block is three fresh processes of one implementation: base, head, and one of the two once more, the control (A/A). All are alive at
once, the idle ones blocked on a read, and are asked for a few rounds in turn, again and again: in random order, then in that order
backwards, so that a drift adds to all alike. The ratio of a block is the median over these visits; the replicates are the blocks.
Before a visit we wait, for a while, until nothing else runs; a visit that was disturbed all the same is told, made once more, and kept.
"""

import contextlib
import math
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from time import monotonic, sleep

from harness.bench import quiet
from harness.bench.cells import Cell
from harness.bench.schedule import FINAL, SILENCE_S, TOGETHER
from harness.bench.station import Outcome, Station
from impls import Implementation
from specs import Spec

SIDES = ("base", "head")
VISITS, ROUNDS = 4, 5  # of each process in a block; timed rounds in each visit
LOOK_S, PATIENCE_S = 0.2, 20.0  # one look at what else runs; how long to wait in a block for that to end


@dataclass(frozen=True)
class Side:
    """A tree, and {implementation: environment} as its own code has it."""

    root: Path
    environments: dict[str, dict[str, str]]


@dataclass(frozen=True)
class Block:
    """One cell, whole. `seconds`: a step, one value a visit, by role: base, head and twin. `twin`: the side that is there twice.

    `disturbed`: by visit, what else went on, None where nothing did; `waited_s`: for quiet, before the visits.
    """

    number: int
    twin: str
    seconds: dict[str, list[float]]
    certificates: dict[str, str]
    disturbed: list[str | None]
    waited_s: float

    @property
    def ratio(self) -> float:
        return self._ratio("head", "base")

    @property
    def control(self) -> float:
        return self._ratio("twin", self.twin)

    def _ratio(self, new: str, base: str) -> float:
        pairs = zip(self.seconds[new], self.seconds[base], strict=True)
        return math.exp(median(math.log(one / other) for one, other in pairs))


@dataclass
class Samples:
    """What is known of one cell. `failures`: by side, how it failed, for each block in which it did."""

    blocks: list[Block] = field(default_factory=list)
    failures: dict[str, list[Outcome]] = field(default_factory=lambda: {side: [] for side in SIDES})

    def final(self, side: str) -> Outcome | None:
        """A failure after which trying again is of no use."""
        return next((outcome for outcome in self.failures[side] if outcome.state in FINAL), None)


class Interleaved:
    """`block(cells)` measures one block of each. `on_event` is given {"event": "cell", "cell": {...}, "state": str} for each."""

    def __init__(
        self,
        sides: dict[str, Side],
        specs: list[Spec],
        implementations: list[Implementation],
        seed: int,
        on_event: Callable[[dict], None] = lambda event: None,
        silence_s: float = SILENCE_S,
    ):
        self.sides, self.seed, self.on_event, self.silence_s = sides, seed, on_event, silence_s
        self.specs = {(spec.name, spec.hash): spec for spec in specs}
        self.implementations = {one.name: one for one in implementations}
        self.draw, self.number, self.patience_s = random.Random(seed), 0, PATIENCE_S
        self.samples: dict[Cell, Samples] = {}

    def block(self, cells: list[Cell]) -> None:
        together: dict[tuple, list[Cell]] = {}
        for cell in cells:
            together.setdefault((cell.spec, cell.spec_hash, cell.implementation), []).append(cell)
        for group in self.draw.sample(list(together.values()), len(together)):
            self._measure(self.draw.sample(group, len(group)))
        self.number += 1

    def _measure(self, cells: list[Cell]) -> None:
        twin = self.draw.choice(SIDES)
        side_of = {"base": "base", "head": "head", "twin": twin}
        with contextlib.ExitStack() as stack:
            stations: dict[str, Station] = {}
            for role in self.draw.sample(list(side_of), len(side_of)):
                stations[role] = self._station(side_of[role], cells)
                stack.callback(stations[role].close)
            self._prepare(stations, side_of)
            for cell in cells:
                for role, station in stations.items():
                    self._ready(station, side_of[role])  # again, where its process has died since
                if all(cell in station.cells for station in stations.values()):
                    self._visit(cell, stations, side_of)
                self.on_event({"event": "cell", "cell": cell.row(), "state": self._state(cell)})

    def _station(self, side: str, cells: list[Cell]) -> Station:
        implementation, spec = self.implementations[cells[0].implementation], self.specs[cells[0].spec, cells[0].spec_hash]
        its = replace(implementation, environment=tuple(self.sides[side].environments[implementation.name].items()))
        return Station(its, spec, list(cells), {}, self.seed, self.silence_s, root=self.sides[side].root)

    def _prepare(self, stations: dict[str, Station], side_of: dict[str, str]) -> None:
        """Side by side: how long a start takes is not what is compared."""
        for role, station in stations.items():
            self._lose(side_of[role], station.open())
        opened = [(side_of[role], station) for role, station in stations.items() if station.worker]
        with ThreadPoolExecutor(TOGETHER) as pool:
            for (side, _), lost in zip(opened, pool.map(lambda one: one[1].prepare(), opened), strict=True):
                self._lose(side, lost)

    def _ready(self, station: Station, side: str) -> None:
        while station.cells and not station.prepared:
            self._lose(side, station.open())
            if station.worker:
                self._lose(side, station.prepare())

    def _visit(self, cell: Cell, stations: dict[str, Station], side_of: dict[str, str]) -> None:
        seconds: dict[str, list[float]] = {role: [] for role in stations}
        certificates: dict[str, str] = {}
        disturbed: list[str | None] = []
        order: list[str] = []
        waited = 0.0
        while len(disturbed) < VISITS or (disturbed.count(None) < VISITS and len(disturbed) < 2 * VISITS):
            order = order[::-1] if len(disturbed) % 2 else self.draw.sample(list(stations), len(stations))
            waited += wait_for_quiet(self.patience_s - waited)
            disturbed.append(None)
            for role in order:
                outcome = stations[role].time(cell, ROUNDS)
                if outcome.state != "ok":
                    self._lose(side_of[role], {cell: outcome})
                    for station in stations.values():
                        station.cells = [other for other in station.cells if other != cell]
                    return
                seconds[role].append(median(outcome.measured["rounds_s"]) / outcome.measured["steps_per_round"])
                certificates[role] = outcome.measured["certificate"]
                disturbed[-1] = disturbed[-1] or "; ".join(quiet.disturbed(outcome.measured["quiet"])) or None
        if waited >= self.patience_s:
            self.patience_s /= 4  # in vain: what is busy for good is not waited for again and again
        self.of(cell).blocks.append(Block(self.number, side_of["twin"], seconds, certificates, disturbed, round(waited, 1)))

    def of(self, cell: Cell) -> Samples:
        return self.samples.setdefault(cell, Samples())

    def _lose(self, side: str, lost: dict[Cell, Outcome]) -> None:
        for cell, outcome in lost.items():
            self.of(cell).failures[side].append(outcome)

    def _state(self, cell: Cell) -> str:
        known = self.of(cell)
        if known.blocks and known.blocks[-1].number == self.number:
            return "ok"
        return next((known.failures[side][-1].state for side in SIDES if known.failures[side]), "error")


def wait_for_quiet(patience_s: float) -> float:
    """Wait until other processes leave our CPUs alone, or patience ends. Returns the seconds waited."""
    start = monotonic()
    while monotonic() - start < patience_s:
        before = quiet.counters()
        sleep(LOOK_S)
        if not quiet.disturbed(quiet.between(before, quiet.counters())):
            break
    return monotonic() - start
