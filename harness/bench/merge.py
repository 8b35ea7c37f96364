"""Several journals of one machine made one: from jobs that a scheduler has run side by side or one after the other.

The unit of exchange is a journal, the unit of work a run in it. The order in which they are given does not matter, nor whether one is given
twice, or as far as it had come when it was copied, nor whether some were merged before: the same runs make the same bytes.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from harness.bench.journal import differs, read
from harness.bench.schema import VERSION
from harness.errors import NOTHING_RAN, UserError

ALIKE = ("level", "versions")  # of runs that may be one


def merge(paths: Iterable[Path]) -> str:
    """The text of the merged journal. Raises UserError: one that cannot be read, no run at all, another machine, level or versions, two
    continuations of one run."""
    found: dict[str, tuple[Path, list[dict]]] = {}
    for path in paths:
        for run in read(path).runs:
            one = identity(run)
            found[one] = _longer(found.get(one, (path, run)), (path, run))
    if not found:
        raise UserError("there is no run in any of them\n  mend: measure first: isoform bench --out FOLDER", NOTHING_RAN)
    order = sorted(found, key=lambda one: (found[one][1][0]["made"], one))
    first_path, first = found[order[0]]
    for path, run in (found[one] for one in order[1:]):
        if different := differs(run[0]["machine"], first[0]["machine"]):
            raise UserError(
                f"{first_path} and {path} are of two machines: {different}\n"
                f"  times of two machines are not comparable; merge those of each machine by themselves"
            )
        for name in ALIKE:
            if run[0][name] != first[0][name]:
                raise UserError(
                    f"{first_path} and {path} have another {name}\n  expected: {first[0][name]}\n  got:      {run[0][name]}\n"
                    f"  mend:     measure both alike, or keep them apart"
                )
    rows = [row for one in order for row in _joined(found[one][1])]
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)


def identity(run: list[dict]) -> str:
    """Of a run, whether it was joined before or not, and however far it has come: that of its first row (when, seed, command, plan)."""
    return hashlib.sha256(json.dumps(run[0] | {"joined": False}, sort_keys=True).encode()).hexdigest()


def _longer(one: tuple[Path, list[dict]], two: tuple[Path, list[dict]]) -> tuple[Path, list[dict]]:
    """Of two copies of one run. A journal is only appended to, so the shorter must be the beginning of the longer."""
    short, long = sorted((one, two), key=lambda found: len(found[1]))
    if short[1][1:] != long[1][1 : len(short[1])]:
        raise UserError(
            f"{one[0]} and {two[0]} hold one run, made {one[1][0]['made']}, that goes on in two ways\n"
            f"  expected: copies of one journal, the shorter the beginning of the longer\n"
            f"  likely:   it was resumed from two copies, or one of them was edited\n"
            f"  mend:     leave one of them out"
        )
    return long


def _joined(run: list[dict]) -> list[dict]:
    return [run[0] | {"joined": True, "schema": VERSION}, *run[1:]]
