"""Is the working tree slower than a revision of it? Both are measured now, interleaved in one job: stored times prove nothing.

A cell is slower if the whole interval of its ratio is above 1, the ratio exceeds max(5 %, 2 x what the control differs from itself),
and fresh blocks of this cell say so again. It is not slower if a slowdown of `SIZE` would have shown. Else it cannot be told.
"""

from __future__ import annotations

import math
import secrets
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic

from harness import machine
from harness.bench import trees
from harness.bench.cells import Cell, Entry
from harness.bench.cells import cells as planned
from harness.bench.compare import TIMES_FLOOR
from harness.bench.interleave import ROUNDS, SIDES, VISITS, Interleaved, Samples, Side
from harness.bench.journal import now
from harness.bench.schedule import SILENCE_S
from harness.bench.statistics import LEAST, Estimate, estimate, noise_floor, verdicts
from harness.bench.stopping import LEVELS
from harness.errors import CANNOT_TELL, FAILED, NOTHING_RAN, OK, UserError
from harness.processes import ROOT, cpus
from impls import Implementation
from specs import Spec, given

SCHEMA = 1
SIZE = 0.10  # a slowdown that the gate has to see; where it could not, it says so
BLOCKS = LEVELS["ci"].blocks
TIMES_MOST = 2  # as many blocks, for cells that cannot be told yet
BUDGET_S = 20 * 60.0  # of either pass: no block that would end later
SLOWER, NOT_SLOWER, FASTER, UNKNOWN = "slower", "not slower", "faster", "cannot tell"
NOT_AGAIN, FAILS, NOT_COMPARED = "not slower again", "fails", "not compared"


@dataclass(frozen=True)
class Plan:
    """`sha`: the base; `changed`: files of the working tree that differ from HEAD; `entries`: state "pending" is what will be measured."""

    sha: str
    head: str
    changed: list[str]
    sides: dict[str, Side]
    specs: list[Spec]
    implementations: list[Implementation]
    entries: list[Entry]

    @property
    def cells(self) -> list[Cell]:
        return [entry.cell for entry in self.entries if entry.state == "pending"]


@dataclass(frozen=True)
class Judged:
    """One pass over one cell. `ratio`: seconds a step, head over base; `control`: of a side over itself. NaN is None in JSON."""

    word: str
    ratio: Estimate
    control: Estimate
    floor: float
    p: float  # adjusted for all cells of the pass


@dataclass(frozen=True)
class Row:
    """A cell and its outcome. `first`: with all cells; `again`: with those that looked slower. `samples`: those of both passes."""

    cell: Cell
    word: str
    reason: str | None
    first: Judged | None = None
    again: Judged | None = None
    samples: tuple[Samples, ...] = ()


def plan(
    revision: str,
    folder: Path,
    specs: Iterable[Spec],
    implementations: Iterable[Implementation],
    operations: Iterable[str],
    dtype: str,
    device: str,
    batch_sizes: Iterable[int] = (),
    repository: Path = ROOT,
) -> Plan:
    """Lay out both trees in a folder and see what they have in common. Raises UserError."""
    specs, implementations, wanted = list(specs), list(implementations), list(operations)
    sha = trees.commit(revision, repository)
    roots = {"base": trees.of_revision(sha, folder / "base", repository), "head": trees.of_working_tree(folder / "head", repository)}
    facts = {side: trees.facts(root, [_place(spec) for spec in specs]) for side, root in roots.items()}
    entries = planned(specs, implementations, wanted, dtype=dtype, device=device, batch_sizes=tuple(batch_sizes))
    if not entries:
        raise UserError(
            f"no spec of {', '.join(spec.name for spec in specs)} has an operation {' or '.join(wanted)}\n"
            f"  mend: another --operation, or another --spec"
        )
    entries = [entry if entry.state != "pending" else _common(entry, specs, facts) for entry in entries]
    sides = {side: Side(root, facts[side].environments) for side, root in roots.items()}
    return Plan(sha, trees.commit("HEAD", repository), trees.changed(repository), sides, specs, implementations, entries)


def _place(spec: Spec) -> str:
    """By what each tree finds it: a shipped spec by its name, another by its full path."""
    return given(spec) if given(spec) == spec.name else str(Path(given(spec)).resolve())


def _common(entry: Entry, specs: list[Spec], facts: dict[str, trees.Facts]) -> Entry:
    cell, reason = entry.cell, None
    place = next(_place(spec) for spec in specs if (spec.name, spec.hash) == (cell.spec, cell.spec_hash))
    for side, known in facts.items():
        if (found := known.specs[place]) != cell.spec_hash:
            reason = (
                f"the {side} has no such spec" if found is None else f"the {side} has another spec of this name, with the hash {found[:8]}"
            )
        elif cell.implementation not in known.environments:
            reason = f"the {side} has no such implementation"
    return Entry(cell, NOT_COMPARED, reason) if reason else entry


def gate(
    plan: Plan,
    *,
    blocks: int = BLOCKS,
    budget_s: float = BUDGET_S,
    seed: int | None = None,
    on_event: Callable[[dict], None] = lambda event: None,
    silence_s: float = SILENCE_S,
) -> tuple[list[Row], int]:
    """Measure and judge every cell of the plan, and measure again what looks slower. Returns the rows, and the seed of the random order.

    `on_event` is given {"event": "pass", "cells": n, "blocks": n}, {"event": "more", "cells": n} for a block that is added, and
    {"event": "cell", ...} for each cell and block. Raises UserError where the plan has nothing in common.
    """
    if not plan.cells:
        raise UserError(_nothing(plan), NOTHING_RAN)
    seed = secrets.randbelow(2**32) if seed is None else seed

    def measured(cells: list[Cell], seed: int) -> tuple[dict[Cell, Judged], dict[Cell, Samples]]:
        one = Interleaved(plan.sides, plan.specs, plan.implementations, seed, on_event, silence_s)
        on_event({"event": "pass", "cells": len(cells), "blocks": blocks})
        return _pass(one, cells, blocks, budget_s, on_event), one.samples

    first, samples = measured(plan.cells, seed)
    suspects = [cell for cell, judged in first.items() if judged.word == SLOWER]
    again, more = measured(suspects, seed + 1) if suspects else ({}, {})
    rows = [_row(entry, first.get(entry.cell), again.get(entry.cell), samples, more) for entry in plan.entries]
    return rows, seed


def _pass(one: Interleaved, cells: list[Cell], blocks: int, budget_s: float, on_event: Callable[[dict], None]) -> dict[Cell, Judged]:
    """Blocks of all cells, then more of those that cannot be told yet."""
    start, longest, left = monotonic(), 0.0, cells
    for k in range(TIMES_MOST * blocks):
        if k >= blocks:
            judged = judge({cell: one.of(cell) for cell in cells})
            left = [cell for cell in left if cell in judged and judged[cell].word == UNKNOWN]
        left = [cell for cell in left if not _void(one.samples, cell)]
        begun = monotonic()
        if not left or begun - start + longest > budget_s:
            break
        if k >= blocks:
            on_event({"event": "more", "cells": len(left)})
        one.block(left)
        longest = max(longest, monotonic() - begun)
    return judge({cell: one.of(cell) for cell in cells if not _void(one.samples, cell)})


def judge(samples: dict[Cell, Samples]) -> dict[Cell, Judged]:
    """Of the cells of which at least half of the blocks are whole, together."""
    enough = {cell: one for cell, one in samples.items() if one.blocks and len(one.blocks) >= _failed(one)}
    ratios = {cell: estimate([block.ratio for block in one.blocks]) for cell, one in enough.items()}
    controls = {cell: estimate([block.control for block in one.blocks]) for cell, one in enough.items()}
    floors = {cell: noise_floor(control) for cell, control in controls.items()}
    found = verdicts(list(ratios.values()), list(floors.values()), times=TIMES_FLOOR)
    return {
        cell: Judged(_word(ratios[cell], floors[cell], verdict.word), ratios[cell], controls[cell], floors[cell], verdict.p)
        for cell, verdict in zip(enough, found, strict=True)
    }


def _word(ratio: Estimate, floor: float, word: str) -> str:
    if word in (SLOWER, FASTER):
        return word
    seen = TIMES_FLOOR * floor <= SIZE and ratio.high <= 1 + SIZE  # NaN is neither
    return NOT_SLOWER if seen else UNKNOWN


def _failed(one: Samples) -> int:
    return max(len(found) for found in one.failures.values())


def _void(samples: dict[Cell, Samples], cell: Cell) -> str | None:
    """The side that was shown to compute something else, or never to work, in whichever operation: no number of this pair is given."""
    mine = _of_pair(samples, cell)
    return next((side for side in reversed(SIDES) if any(one.final(side) for one in mine)), None)  # head's is the worse news


def _of_pair(samples: dict[Cell, Samples], cell: Cell) -> list[Samples]:
    """Of all operations and sizes of the cell's spec and implementation."""
    pair = lambda one: (one.spec, one.spec_hash, one.implementation)
    return [known for other, known in samples.items() if pair(other) == pair(cell)]


def _row(entry: Entry, first: Judged | None, again: Judged | None, samples: dict[Cell, Samples], more: dict[Cell, Samples]) -> Row:
    cell = entry.cell
    if entry.state != "pending":
        return Row(cell, NOT_COMPARED, entry.reason if entry.state == NOT_COMPARED else f"{entry.state}: {entry.reason}")
    for known in (more, samples):
        if (known is samples or cell in known) and (side := _void(known, cell)):
            return _broken(cell, side, known)
    if first is None or (first.word == SLOWER and again is None):
        known = samples if first is None else more
        one = known.get(cell, Samples())
        if not any(one.failures.values()):
            return Row(cell, UNKNOWN, "the budget has ended before a block of it")
        side = max(reversed(SIDES), key=lambda name: len(one.failures[name]))
        return _broken(cell, side, known)
    of = tuple(one[cell] for one in (samples, more) if cell in one)
    if again is None:
        return Row(cell, first.word, None, first, None, of)
    word = {SLOWER: SLOWER, UNKNOWN: UNKNOWN}.get(again.word, NOT_AGAIN)
    return Row(cell, word, None, first, again, of)


def _broken(cell: Cell, side: str, samples: dict[Cell, Samples]) -> Row:
    """Without a number, and without what was measured before."""
    found = [one.final(side) or one.failures[side][0] for one in _of_pair(samples, cell) if one.failures[side]]
    outcome = next((one for one in found if one.state == "mismatch"), found[0])
    return Row(cell, FAILS if side == "head" else NOT_COMPARED, f"{side}: {outcome.state}: {outcome.reason}")


def exit_code(rows: list[Row]) -> int:
    words = {row.word for row in rows}
    if words & {SLOWER, FAILS}:
        return FAILED
    if words <= {NOT_COMPARED}:
        return NOTHING_RAN
    return CANNOT_TELL if UNKNOWN in words else OK


def _nothing(plan: Plan) -> str:
    reasons = dict.fromkeys(f"{entry.cell.implementation}, {entry.cell.spec}: {entry.reason}" for entry in plan.entries)
    return "\n".join([f"the base {plan.sha[:12]} and the working tree have no cell in common", *(f"  {reason}" for reason in reasons)])


def content(plan: Plan, rows: list[Row], *, command: str, revision: str, seed: int, blocks: int, seconds: float) -> dict:
    """JSON-ready. Every figure stands beside the ids of the certificates that were renewed in the processes that were timed."""
    return {
        "schema": SCHEMA,
        "made": now(),
        "command": command,
        "base": {"revision": revision, "commit": plan.sha},
        "head": {"commit": plan.head, "changed": plan.changed},
        "machine": machine.card(),
        "versions": machine.versions(),
        "affinity": cpus(),
        "rule": {"least": LEAST, "times_floor": TIMES_FLOOR, "size": SIZE, "blocks": blocks, "visits": VISITS, "rounds": ROUNDS},
        "seed": seed,
        "seconds": round(seconds, 1),
        "exit_code": exit_code(rows),
        "rows": [_plain(row) for row in rows],
    }


def _plain(row: Row) -> dict:
    passes = [None if one is None else _known(asdict(one)) for one in (row.first, row.again)]
    measured = [[asdict(block) for block in one.blocks] for one in row.samples]
    return {
        "cell": row.cell.row(), "verdict": row.word, "reason": row.reason, "first": passes[0], "again": passes[1], "blocks": measured
    }  # fmt: skip


def _known(value: object) -> object:
    """NaN is None in JSON."""
    if isinstance(value, dict):
        return {key: _known(one) for key, one in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def run(revision: str, *, command: str, repository: Path = ROOT, blocks: int = BLOCKS, chosen: dict, **how) -> dict:
    """Plan, gate and content, on trees in a temporary folder. `chosen`: what `plan` takes; `how`: what `gate` takes."""
    start = monotonic()
    with tempfile.TemporaryDirectory(prefix="isoform-") as folder:
        made = plan(revision, Path(folder), **chosen, repository=repository)
        rows, seed = gate(made, blocks=blocks, **how)
    return content(made, rows, command=command, revision=revision, seed=seed, blocks=blocks, seconds=monotonic() - start)
