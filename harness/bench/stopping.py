"""When do the blocks end? At least as many as the level asks for; then for as long as something is to be gained, and may be afforded.

More blocks are added for the cells of an operation of a spec, all of them, since ratios are paired by block:
- one for each of the level's blocks in which one of them was disturbed: a disturbed block is told, measured once more, and kept;
- until every 95 % interval of theirs is narrow enough: half of it at most `target` of the value.
Never more than `most`, and none that would end after `budget_s`.

To look at the width after each block costs coverage: a run ends sooner where its spread happens to be found too small, and has its nominal
coverage in the limit of many blocks only (Chow and Robbins, "On the asymptotic theory of fixed-width sequential confidence intervals for
the mean", Annals of Mathematical Statistics 36, 1965). The fewer the blocks of the first look, the more: hence `ENOUGH`. The tests simulate
how much.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from time import monotonic

from harness.bench.cells import TIMED, Cell
from harness.bench.quiet import disturbed
from harness.bench.statistics import estimate

AT_LEAST = 2  # blocks, whatever the budget: one has no interval
ENOUGH = 5  # blocks before the first look at the widths, where there is a target: a spread of fewer is too often far too small
RECENT = 2  # blocks, by which it is told how long another takes: the first ones take longer, since their starts are timed
TIMES_MOST = 3  # as many blocks as the level asks for, where a target was named


@dataclass(frozen=True)
class Stop:
    blocks: int
    most: int
    target: float | None
    budget_s: float | None


@dataclass(frozen=True)
class Level:
    blocks: int
    rounds: int  # timed ones, in each process
    cold_blocks: int  # blocks in which import, build and first call are timed; in the others workers start side by side
    operations: tuple[str, ...] = TIMED
    note: str | None = None
    memory: bool = True
    twin_drawn: bool = True  # at random; else of the first implementation in the usual order, NumPy, whose processes start fastest
    more: int = 0  # blocks besides, for those that were disturbed and towards the target
    target: float | None = None

    def stop(self, target: float | None = None, budget_s: float | None = None) -> Stop:
        most = self.blocks + self.more if target is None else TIMES_MOST * self.blocks
        target = self.target if target is None else target
        blocks = self.blocks if target is None else max(self.blocks, ENOUGH)
        return Stop(blocks, max(blocks, most), target, budget_s)


FIRST = ("train", "fit", "encode", "decode")  # what a first look is at: a loss is half a training step, and to generate is to decode
LEVELS = {
    "quick": Level(blocks=3, rounds=10, cold_blocks=1, operations=FIRST, note="no ranking", twin_drawn=False),
    "ci": Level(blocks=5, rounds=15, cold_blocks=5, more=2, target=0.10),
    "report": Level(blocks=10, rounds=25, cold_blocks=3, more=5, target=0.05),
    "sweep": Level(blocks=3, rounds=10, cold_blocks=0, operations=("train", "fit"), note="no ranking", memory=False, twin_drawn=False),
}


class Stopping:
    """Is told of every cell that was timed, and says which are due in a block; `why`, once none is."""

    def __init__(self, rule: Stop):
        self.rule, self.started = rule, monotonic()
        self.lengths: list[float] = []  # of the blocks so far, in seconds
        self.why: str | None = None
        self.seconds: dict[Cell, list[float]] = {}  # a step, a value a block
        self.disturbed: dict[tuple, set[int]] = {}  # blocks, by group
        self.last = self.started

    def note(self, cell: Cell, block: int, measured: dict) -> None:
        self.seconds.setdefault(cell, []).append(median(measured["rounds_s"]) / measured["steps_per_round"])
        if disturbed(measured.get("quiet")):
            self.disturbed.setdefault(group(cell), set()).add(block)

    def due(self, block: int, cells: list[Cell]) -> list[Cell]:
        """Of these cells, those that the block with this number is to measure; none, and the run has its blocks."""
        rule, now = self.rule, monotonic()
        self.lengths, self.last = [*self.lengths, now - self.last], now
        found = cells if block < rule.blocks else self._more(block, cells) if block < rule.most else []
        spent = now - self.started
        if found and rule.budget_s is not None and block >= AT_LEAST and spent + max(self.lengths[-RECENT:]) > rule.budget_s:
            self.why = f"budget: after {block} blocks and {spent / 60:.1f} of {rule.budget_s / 60:.1f} minutes another would not fit"
            return []
        if not found:
            self.why = self._why(block, cells)
        return found

    def _more(self, block: int, cells: list[Cell]) -> list[Cell]:
        groups = {group(cell) for cell in cells}
        again = {one for one in groups if len(self._spoilt(one)) > block - self.rule.blocks}
        return [cell for cell in cells if group(cell) in again | self._wide(cells)]

    def _spoilt(self, one: tuple) -> list[int]:
        return [block for block in self.disturbed.get(one, ()) if block < self.rule.blocks]

    def _wide(self, cells: Iterable[Cell]) -> set[tuple]:
        """Groups that are short of the target."""
        if self.rule.target is None:
            return set()
        return {group(cell) for cell in cells if len(self.seconds.get(cell, ())) > 1 and self._half(cell) > self.rule.target}

    def _half(self, cell: Cell) -> float:
        whole = estimate(self.seconds[cell])
        return math.sqrt(whole.high / whole.low) - 1

    def _why(self, block: int, cells: list[Cell]) -> str:
        told = f"{block} blocks"
        if self.rule.target is None:
            return f"blocks: {told}, as the level asks"
        measured = [cell for cell in cells if len(self.seconds.get(cell, ())) > 1]
        wide = [cell for cell in measured if self._half(cell) > self.rule.target]
        if not wide:
            return f"target: after {told} every 95 % interval is within {100 * self.rule.target:.0f} % of its value"
        return (
            f"blocks: {told}, the most that there may be; {len(wide)} of {len(measured)} intervals are wider than "
            f"{100 * self.rule.target:.0f} % either way"
        )


def group(cell: Cell) -> tuple:
    """What is measured side by side, so that it can be compared."""
    return cell.spec, cell.spec_hash, cell.operation, cell.device, cell.dtype, cell.precision, cell.batch_size
