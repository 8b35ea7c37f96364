"""The parent's side: blocks of fresh processes, whose rounds alternate in random order."""

from __future__ import annotations

import json
import os
import random
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from statistics import median

import impls
from harness.bench.cells import Cell
from harness.bench.station import Station
from harness.processes import ROOT, THREAD_VARIABLES, cpus
from tests.speed.contestants import SEED, implementation_of, spec_of

ROUNDS = 12  # of each contestant in a block
WARM_UP = 24  # rounds of the loop by hand before those that count: about as many as bench takes, since both train on, and NumPy is
# slower by 1 % once the moments of dead units have decayed to subnormal numbers
PAUSE_S = 0.03  # between two rounds, in which the threads of the last go to sleep
SILENCE_S = 240.0


class Child:
    """A contestant's process. As a context manager."""

    def __init__(self, contestant: str, which: str, steps: int, use: list[int] | None = None):
        own = impls.load(name).environment if (name := implementation_of(contestant)) else ()
        use = use or cpus()
        variables = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(len(use))), **dict(own), "PYTHONPATH": str(ROOT)}
        self.contestant = contestant
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.speed.child", contestant, which, str(steps), ",".join(map(str, use))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=variables | {"TF_CPP_MIN_LOG_LEVEL": "2"},
        )  # fmt: skip
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.process.stdout, selectors.EVENT_READ)

    def __enter__(self) -> Child:
        self.answer()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.selector.close()

    def answer(self):
        if not self.selector.select(SILENCE_S):
            raise RuntimeError(f"{self.contestant}: no answer within {SILENCE_S:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.contestant}: its process has died with code {self.process.wait()}; run it by hand to see why")
        return json.loads(line)

    def rounds(self, count: int) -> list[float]:
        """Seconds a step."""
        self.process.stdin.write(f"{count}\n".encode())
        self.process.stdin.flush()
        return self.answer()


def pair(names: tuple[str, ...], which: str, steps: int, seed: int, use: list[int] | None = None) -> dict[str, float]:
    """One block: {contestant: median seconds a step}."""
    order = random.Random(seed)
    children = [Child(name, which, steps, use) for name in order.sample(names, len(names))]
    found: dict[str, list[float]] = {name: [] for name in names}
    try:
        for one in children:
            one.answer()
        for _ in range(ROUNDS):
            for one in order.sample(children, len(children)):
                time.sleep(PAUSE_S)
                found[one.contestant] += one.rounds(1)
    finally:
        for one in children:
            one.close()
    return {name: median(seconds) for name, seconds in found.items()}


def harness(name: str, which: str, seed: int, turns: int = 7) -> dict[str, float]:
    """One block: what bench measures in a worker of its own, and the loop by hand with as many steps a round, in turn.

    Of the turns, the one whose ratio is the median: a machine that changes its pace within a turn spoils that one alone. Which of the
    two processes starts first, and so has the choice of the memory, changes from block to block.
    """
    steps, own, by_hand = steps_a_round(name, which), [], []
    first = seed // 2 % 2
    with ExitStack() as stack:
        if first:
            child = stack.enter_context(Child(name, which, steps))
        station, cell = stack.enter_context(benched(name, which))
        if not first:
            child = stack.enter_context(Child(name, which, steps))
        for turn in range(turns):
            pieces: list[Callable[[], None]] = [
                lambda: own.append(median(step_seconds(timed(station, cell)))),
                lambda: by_hand.append(median(child.rounds(WARM_UP + ROUNDS)[WARM_UP:])),
            ]
            for piece in pieces[:: 1 if (turn + seed) % 2 else -1]:
                time.sleep(PAUSE_S)
                piece()
    _, *middle = sorted((a / b, a, b) for a, b in zip(own, by_hand, strict=True))[turns // 2]
    return dict(zip((f"harness:{name}", name), middle, strict=True))


@contextmanager
def benched(name: str, which: str) -> Iterator[tuple[Station, Cell]]:
    """A worker of bench that is ready to be timed, and once was."""
    spec = spec_of(which)
    cell = Cell(spec.name, spec.hash, name, "train", "cpu", "float32", "highest", spec.training.batch_size)
    station = Station(impls.load(name), spec, [cell], {}, SEED, SILENCE_S)
    try:
        if lost := station.open() or station.prepare():
            raise RuntimeError(f"bench has not prepared {name}: {next(iter(lost.values())).reason}")
        timed(station, cell)
        yield station, cell
    finally:
        station.close()


@cache
def steps_a_round(name: str, which: str) -> int:
    """As bench finds them."""
    with benched(name, which) as (station, cell):
        return timed(station, cell)["steps_per_round"]


def timed(station: Station, cell: Cell) -> dict:
    station.cells = [cell]
    outcome = station.time(cell, ROUNDS)
    if outcome.state != "ok":
        raise RuntimeError(f"bench has not timed {cell.implementation}: {outcome.reason}")
    return outcome.measured


def step_seconds(measured: dict) -> list[float]:
    return [seconds / measured["steps_per_round"] for seconds in measured["rounds_s"]]


def command(words: list[str]) -> float:
    """Seconds of one run of `isoform`, as a user starts it."""
    start = time.perf_counter()
    subprocess.run([str(Path(sys.executable).parent / "isoform"), *words], check=True, capture_output=True, timeout=60)
    return time.perf_counter() - start
