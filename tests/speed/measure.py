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
from functools import cache, partial
from pathlib import Path
from statistics import median

import impls
from harness.bench.cells import Cell
from harness.bench.station import Station
from harness.processes import ROOT, THREAD_VARIABLES, cpus
from specs import Spec
from tests.speed.contestants import SEED, implementation_of, spec_of

ROUNDS = 12  # of each contestant in a block
WARM_UP = 24  # rounds of the loop by hand before those that count: about as many as bench takes, since both train on, and NumPy is
# slower by 1 % once the moments of dead units have decayed to subnormal numbers
TURNS = 15  # of bench and the loop by hand in a block
WORKER_TURNS = TURNS // 2  # three processes take as long as two in twice as many
REPEATS = 5  # of a command in a block
PAUSE_S = 0.03  # between two rounds, in which the threads of the last go to sleep
SILENCE_S = 240.0


class Child:
    """A contestant's process. As a context manager."""

    def __init__(self, contestant: str, which: str, steps: int, use: list[int] | None = None):
        use = use or cpus()
        self.contestant = contestant
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.speed.child", contestant, which, str(steps), ",".join(map(str, use))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment(contestant, len(use)),
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


def environment(contestant: str, threads: int | None = None) -> dict[str, str]:
    """Of its process, as a worker of the harness has it."""
    own = impls.load(name).environment if (name := implementation_of(contestant)) else ()
    given = dict.fromkeys(THREAD_VARIABLES, str(threads or len(cpus())))
    return {**os.environ, **given, **dict(own), "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}


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


def harness(name: str, which: str, seed: int) -> dict[str, float]:
    """One block: what bench measures and the loop by hand, in turn, of one model in one process (`same.py`)."""
    words = [name, which, ",".join(map(str, cpus())), str(TURNS), str(seed)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.speed.same", *words], env=environment(name), capture_output=True, text=True, timeout=2 * SILENCE_S
    )
    if done.returncode:
        raise RuntimeError(f"harness:{name}: {done.stderr.strip()[-400:]}")
    turns = [json.loads(line) for line in done.stdout.splitlines()]
    return middle({f"harness:{name}": [one["bench"] for one in turns], name: [one["by hand"] for one in turns]})


def worker(name: str, which: str, seed: int) -> dict[str, float]:
    """One block: what bench measures in its worker, and the loop by hand in two other processes, in turn.

    The two differ by what any two processes do. Which of the three starts first, and so has the choice of the memory, changes.
    """
    steps, order = steps_a_round(name, which), random.Random(seed)
    with ExitStack() as stack:
        start: dict[str, Callable] = {
            f"worker:{name}": lambda: partial(bench_once, *stack.enter_context(benched(name, which))),
            f"another:{name}": lambda: partial(hand_once, stack.enter_context(Child(name, which, steps))),
            name: lambda: partial(hand_once, stack.enter_context(Child(name, which, steps))),
        }
        ready = {one: start[one]() for one in order.sample(list(start), len(start))}
        found: dict[str, list[float]] = {one: [] for one in start}
        for _ in range(WORKER_TURNS):
            for one in order.sample(list(start), len(start)):
                time.sleep(PAUSE_S)
                found[one].append(ready[one]())
    return middle(found)


def bench_once(station: Station, cell: Cell) -> float:
    return median(step_seconds(timed(station, cell)))


def hand_once(child: Child) -> float:
    return median(child.rounds(WARM_UP + ROUNDS)[WARM_UP:])


def middle(found: dict[str, list[float]]) -> dict[str, float]:
    """Of the turns, the one whose ratio of the first to the last is the median: a machine that changes its pace within a turn spoils it."""
    first, *_, last = found.values()
    turn = sorted(range(len(first)), key=lambda k: first[k] / last[k])[len(first) // 2]
    return {name: seconds[turn] for name, seconds in found.items()}


def cell_of(name: str, spec: Spec) -> Cell:
    return Cell(spec.name, spec.hash, name, "train", "cpu", "float32", "highest", spec.training.batch_size)


@contextmanager
def benched(name: str, which: str) -> Iterator[tuple[Station, Cell]]:
    """A worker of bench that is ready to be timed, and once was."""
    spec = spec_of(which)
    cell = cell_of(name, spec)
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
