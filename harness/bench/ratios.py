"""Who is faster: every two implementations of a spec and operation, paired by block, with the verdict. Of the last run in a journal.

A block that was cut off and resumed is two: what ran before the cut did not run beside what ran after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from harness.bench.journal import read
from harness.bench.statistics import Estimate, noise_floor, paired, verdicts
from harness.bench.table import finished, mismatched, pair, step_seconds

if TYPE_CHECKING:
    import pandas as pd

GROUP = ("spec", "spec_hash", "operation", "device", "dtype", "precision", "batch_size")  # what is compared with each other
COLUMNS = (*GROUP, "base", "implementation", "ratio", "low", "high", "blocks", "floor", "p", "verdict", "more_blocks", "text")
Blocks = dict[int, float]  # {block, numbered anew: seconds a step, the median over its rounds}
Members = dict[tuple[str, int], Blocks]  # {(implementation, replica): ...}


def ratios(journal: Path) -> pd.DataFrame:
    """One row a pair: seconds of `implementation` over those of `base`, 95 % interval, noise floor (of the A/A control), verdict.

    `p` is adjusted for all rows, which are judged together; `more_blocks`: how many it takes to tell, where it cannot be told.
    """
    import pandas as pd

    found = [one for group, members in groups(journal).items() for one in _pairs(group, members)]
    judged = verdicts([ratio for _, ratio, _ in found], [floor for *_, floor in found], least=0.0)
    rows = [
        {**head, "ratio": ratio.value, "low": ratio.low, "high": ratio.high, "blocks": ratio.n, "floor": floor, "p": verdict.p,
         "verdict": verdict.word, "more_blocks": verdict.more, "text": str(verdict)}
        for (head, ratio, floor), verdict in zip(found, judged, strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"more_blocks": "Int64"})


def groups(journal: Path) -> dict[tuple, Members]:
    """What was measured, without whatever belongs to a mismatch. The same number in two members: they ran in the same block and sitting."""
    rows = read(journal).last_run
    void = mismatched(finished(rows))
    sitting = 0  # a "resume" begins the next
    numbers: dict[tuple[int, int], int] = {}  # of a block in a sitting
    found: dict[tuple, Members] = {}
    for row in rows:
        sitting += row["row"] == "resume"
        if row["row"] == "finish" and row["pass"] == "time" and row["state"] == "ok" and pair(row["cell"]) not in void:
            cell, number = row["cell"], numbers.setdefault((row["block"], sitting), len(numbers))
            members = found.setdefault(tuple(cell[name] for name in GROUP), {})
            members.setdefault((cell["implementation"], cell["replica"]), {})[number] = median(step_seconds(row))
    return found


def control(members: Members) -> Estimate | None:
    """The A/A ratio: an implementation's twin over itself."""
    for (name, replica), blocks in members.items():
        if replica and (name, 0) in members:
            return paired(members[name, 0], blocks)
    return None


def _pairs(group: tuple, members: Members) -> Iterator[tuple[dict, Estimate, float]]:
    import impls

    floor, known = noise_floor(control(members)), list(impls.available())
    names = [name for name, replica in members if not replica]
    names.sort(key=lambda name: (known.index(name) if name in known else len(known), name))
    for base, new in combinations(names, 2):
        if ratio := paired(members[base, 0], members[new, 0]):
            yield {**dict(zip(GROUP, group, strict=True)), "base": base, "implementation": new}, ratio, floor
