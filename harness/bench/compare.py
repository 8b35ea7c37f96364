"""Two runs held against each other: is the new one slower than the base?"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.bench.journal import read
from harness.bench.ratios import GROUP, control, groups
from harness.bench.statistics import noise_floor, unpaired, verdicts
from harness.errors import CANNOT_TELL, FAILED, NOTHING_RAN, OK, UserError

SAME = ("cpu", "cores", "memory_bytes", "architecture", "gpu")  # of the machine's card
TIMES_FLOOR = 2  # a regression is larger than what the runs' own controls have shown, and so many times


@dataclass(frozen=True)
class Row:
    """One cell that both runs have. `ratio`: seconds a step, new over base."""

    spec: str
    operation: str
    implementation: str
    dtype: str
    batch_size: int
    ratio: float
    low: float
    high: float
    floor: float
    verdict: str
    text: str


def compare(base: Path, new: Path) -> list[Row]:
    """Every cell that both have, judged together. Raises UserError where the two cannot be compared at all."""
    one, two = journal_of(base), journal_of(new)
    same_machine(one, two)
    old, fresh = groups(one), groups(two)
    found = [
        (group, name, unpaired(list(old[group][name, 0].values()), list(members[name, 0].values())), _floor(old[group], members))
        for group, members in fresh.items()
        for name, replica in members
        if not replica and (name, 0) in old.get(group, {})
    ]
    if not found:
        raise UserError(
            f"{base} and {new} have no cell in common\n"
            f"  expected: the same spec (by its hash), implementation, operation, device, dtype and batch size in both\n"
            f"  base has: {_named(old)}\n"
            f"  new has:  {_named(fresh)}",
            NOTHING_RAN,
        )
    judged = verdicts([ratio for *_, ratio, _ in found], [TIMES_FLOOR * floor for *_, floor in found])
    rows = []
    for (group, name, ratio, floor), verdict in zip(found, judged, strict=True):
        of = dict(zip(GROUP, group, strict=True))
        head = (of["spec"], of["operation"], name, of["dtype"], of["batch_size"])
        rows.append(Row(*head, ratio.value, ratio.low, ratio.high, floor, verdict.word, str(verdict)))
    return rows


def exit_code(rows: list[Row]) -> int:
    words = {row.verdict for row in rows}
    return FAILED if "slower" in words else CANNOT_TELL if "cannot tell" in words else OK


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


def _floor(base: dict, new: dict) -> float:
    floors = [noise_floor(control(members)) for members in (base, new)]
    known = [floor for floor in floors if not math.isnan(floor)]
    return max(known) if known else math.nan


def _named(found: dict) -> str:
    cells = sorted({f"{group[0]} ({group[1][:8]}) {group[2]} {name}" for group, members in found.items() for name, replica in members})
    return ", ".join(cells[:6]) + (", ..." if len(cells) > 6 else "") if cells else "nothing that was measured"


def as_dicts(rows: list[Row]) -> list[dict]:
    """For JSON: what is not known is None."""
    return [{key: None if value != value else value for key, value in asdict(row).items()} for row in rows]
