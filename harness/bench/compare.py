"""Two runs held against each other: is the new one slower than the base?

Times that were stored prove little where a machine is shared: it was another hour. So what looks slower is measured once more before
it counts (`confirm`). The base is not, so that a whole hour that was slow can still look like the code: a gate that must not cry wolf
measures both side by side (`gate`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from harness.bench.cells import Cell
from harness.bench.journal import read
from harness.bench.ratios import GROUP, control, groups
from harness.bench.schedule import NOT_RUN
from harness.bench.statistics import Estimate, noise_floor, unpaired, verdicts
from harness.bench.table import finished, mismatched, pair
from harness.errors import CANNOT_TELL, FAILED, NOTHING_RAN, OK, UserError

SAME = ("cpu", "cores", "memory_bytes", "architecture", "gpu")  # of the machine's card
TIMES_FLOOR = 2  # a regression is larger than what the runs' own controls have shown, and so many times
SLOWER, NOT_AGAIN, UNCONFIRMED, FAILS, NOT_COMPARED = "slower", "not slower again", "unconfirmed", "fails", "not compared"
UNASKED = ("not asked for", "it is not in the new run's plan")
INTERRUPTED = ("interrupted", "the run has ended before it had a number; the same command with --resume goes on with it")
OLD_BASE = "the base was measured earlier, and not again; `isoform gate BASE_REV` measures both in one job"
NOTHING = Estimate(math.nan, math.nan, math.nan, math.nan, 0, math.nan)


@dataclass(frozen=True)
class Row:
    """One cell of the base. `ratio`: seconds a step, new over base; `again`: the same of the rerun. NaN where there is none.

    `reason`: why there is no ratio, or why the verdict is worth less than it says.
    """

    cell: Cell
    ratio: Estimate
    floor: float
    verdict: str
    text: str
    again: Estimate = NOTHING
    reason: str | None = None


def compare(base: Path, new: Path) -> list[Row]:
    """Every cell of the base: those that both have, judged together; those that fail in the new run, or that it has not come to; and those
    that it was not asked for. Raises UserError where the two cannot be compared.
    """
    one, two = journal_of(base), journal_of(new)
    same_machine(one, two)
    old, fresh, failed = groups(one), groups(two), failures(two)
    found = [
        (_cell(group, name), unpaired(list(old[group][name, 0].values()), list(members[name, 0].values())), _floor(old[group], members))
        for group, members in fresh.items()
        for name, replica in members
        if not replica and (name, 0) in old.get(group, {})
    ]
    had = [_cell(group, name) for group, members in old.items() for name, replica in members if not replica]
    lacking = [cell for cell in had if (cell.implementation, 0) not in fresh.get(_group(cell), {})]
    heads = [run[0] for run in read(two).last_runs]
    why = {cell: failed.get(cell) or (INTERRUPTED if any(planned(cell, head) for head in heads) else UNASKED) for cell in lacking}
    if not found and set(why.values()) <= {UNASKED}:
        raise UserError(
            f"{base} and {new} have no cell in common\n"
            f"  expected: the same spec (by its hash), implementation, operation, device, dtype and batch size in both\n"
            f"  base has: {_named(old)}\n"
            f"  new has:  {_named(fresh)}",
            NOTHING_RAN,
        )
    judged = verdicts([ratio for _, ratio, _ in found], [floor for *_, floor in found], times=TIMES_FLOOR)
    compared = [Row(*one, verdict.word, str(verdict)) for one, verdict in zip(found, judged, strict=True)]
    return compared + [_lost(cell, *known) for cell, known in why.items()]


def planned(cell: Cell, head: dict) -> bool:
    """Was the run with this head asked for the cell, which its spec has? A journal of version 1 does not tell: no."""
    plan = head["plan"]
    if not plan or (cell.device, cell.dtype) != (plan["device"], plan["dtype"]):
        return False
    own = head["specs"].get(cell.spec_hash, {}).get("training", {}).get("batch_size", cell.batch_size)
    return (
        plan["specs"].get(cell.spec) == cell.spec_hash
        and cell.implementation in plan["implementations"]
        and cell.operation in plan["operations"]
        and (cell.operation == "fit" or cell.batch_size in (plan["batch_sizes"] or [own]))
    )


def confirmed(rows: list[Row], base: Path, new: Path, rerun: Callable[[list[Cell], Path], dict[Cell, Path | str]] | None) -> list[Row]:
    """The rows, with what looks slower measured once more: only what is slower both times is a regression.

    `rerun(cells, new)` gives for each cell the journal in which it was measured again, or the reason why it was not. Both times are held
    against the same base, which is said.
    """
    suspects = [row for row in rows if row.verdict == SLOWER]
    if not suspects:
        return rows
    asked = dict.fromkeys([row.cell for row in suspects], "no rerun was asked for (--no-rerun)")
    again = rerun([row.cell for row in suspects], journal_of(new)) if rerun else asked
    old, found, reasons = groups(journal_of(base)), {}, {}
    for cell, place in again.items():
        members = {} if isinstance(place, str) else groups(place).get(_group(cell), {})
        if (cell.implementation, 0) in members:
            before = old[_group(cell)]
            values = [list(one[cell.implementation, 0].values()) for one in (before, members)]
            found[cell] = unpaired(*values), _floor(before, members)
        else:
            reasons[cell] = place if isinstance(place, str) else "{}: {}".format(*failures(place).get(cell, ("interrupted", "no number")))
    judged = verdicts([ratio for ratio, _ in found.values()], [floor for _, floor in found.values()], times=TIMES_FLOOR)
    words = {cell: verdict.word for cell, verdict in zip(found, judged, strict=True)}
    return [_settled(row, found, words, reasons) if row in suspects else row for row in rows]


def _settled(row: Row, found: dict[Cell, tuple[Estimate, float]], words: dict[Cell, str], reasons: dict[Cell, str]) -> Row:
    if row.cell in reasons:
        return replace(row, verdict=UNCONFIRMED, text="slower, but unconfirmed", reason=reasons[row.cell])
    again = found[row.cell][0]
    if words[row.cell] == SLOWER:
        return replace(row, text=f"slower, twice: {again.value:.3g} once more", again=again, reason=OLD_BASE)
    return replace(row, verdict=NOT_AGAIN, text=f"not slower again: {again.value:.3g} once more", again=again)


def exit_code(rows: list[Row]) -> int:
    words = {row.verdict for row in rows}
    if words & {SLOWER, FAILS}:
        return FAILED
    if words <= {NOT_COMPARED}:
        return NOTHING_RAN
    return CANNOT_TELL if words & {"cannot tell", UNCONFIRMED} else OK


def journal_of(path: Path) -> Path:
    """Of a results folder, or the journal itself."""
    return path / "journal.jsonl" if path.is_dir() else path


def same_machine(base: Path, new: Path) -> None:
    cards = []
    for path in (base, new):
        if not (rows := read(path).last_run):
            raise UserError(f"{path}: no run in it\n  mend: measure first: isoform bench --out {path.parent}", NOTHING_RAN)
        cards.append(rows[0]["machine"])
    if differs := [f"{name} {cards[0].get(name)} and {cards[1].get(name)}" for name in SAME if cards[0].get(name) != cards[1].get(name)]:
        raise UserError(
            f"{base} and {new} are of two machines: {'; '.join(differs)}\n"
            f"  times of two machines prove nothing about two versions; measure both on one: isoform bench --out FOLDER",
            NOTHING_RAN,
        )


def failures(journal: Path) -> dict[Cell, tuple[str, str]]:
    """{cell: (state, reason)} of what was begun and has no number: how it ended, or that it did not."""
    rows = read(journal).last_run
    void = mismatched(finished(rows))
    measured = {_cell(group, name) for group, members in groups(journal).items() for name, replica in members if not replica}
    found: dict[Cell, tuple[str, str]] = {}
    for row in rows:
        if row["row"] not in ("start", "finish") or row["pass"] != "time" or row["cell"]["replica"]:
            continue
        cell = Cell(**row["cell"])
        if cell in measured:
            continue
        if pair(row["cell"]) in void:
            found[cell] = ("mismatch", void[pair(row["cell"])])
        elif row["row"] == "finish":
            found[cell] = (row["state"], row["reason"])
        else:
            found.setdefault(cell, INTERRUPTED)
    return found


def _lost(cell: Cell, state: str, reason: str) -> Row:
    word = NOT_COMPARED if state in (*NOT_RUN, UNASKED[0]) else FAILS
    return Row(cell, NOTHING, math.nan, word, word, reason=f"{state}: {reason}")


def _cell(group: tuple, name: str) -> Cell:
    return Cell(**dict(zip(GROUP, group, strict=True)), implementation=name)


def _group(cell: Cell) -> tuple:
    return tuple(getattr(cell, name) for name in GROUP)


def _floor(base: dict, new: dict) -> float:
    floors = [noise_floor(control(members)) for members in (base, new)]
    known = [floor for floor in floors if not math.isnan(floor)]
    return max(known) if known else math.nan


def _named(found: dict) -> str:
    cells = sorted({f"{group[0]} ({group[1][:8]}) {group[2]} {name}" for group, members in found.items() for name, replica in members})
    return ", ".join(cells[:6]) + (", ..." if len(cells) > 6 else "") if cells else "nothing that was measured"


def as_dicts(rows: list[Row]) -> list[dict]:
    """For JSON: what is not known is None."""
    plain = lambda value: None if isinstance(value, float) and math.isnan(value) else value
    flat = lambda one: {name: plain(value) for name, value in asdict(one).items()}
    known = lambda row: {"ratio": row.ratio.value, "low": row.ratio.low, "high": row.ratio.high, "floor": row.floor}
    return [
        {
            **row.cell.row(),
            **{name: plain(value) for name, value in known(row).items()},
            "verdict": row.verdict,
            "text": row.text,
            "reason": row.reason,
            "again": flat(row.again) if row.again.n else None,
        }
        for row in rows
    ]
