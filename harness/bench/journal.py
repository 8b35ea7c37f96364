"""The journal of a bench: JSON, one row a line, only ever appended to, by one at a time, on the disk before the next measurement starts."""

import errno
import json
import os
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harness.bench.schema import MIGRATIONS, VERSION, migrated, problem
from harness.errors import UserError

if sys.platform != "win32":
    import fcntl

MACHINE = ("cpu", "cores", "architecture", "gpu")  # of its card: what makes another machine of it
LOCKED = (errno.EWOULDBLOCK, errno.EACCES)  # by another; whatever else goes wrong says that this file system has no locks
ANEW = "measure again: isoform bench --out ANOTHER_FOLDER"


class Journal:
    """Opens a journal for appending, or starts one. `with Journal(path) as journal: journal.write("run", level="quick")`.

    Raises UserError where it cannot be opened, and where another one is open on it, in whichever process.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self.file = path.open("a+b", buffering=0)
            self._lock()
            self._end_last_line()
        except OSError as error:
            raise _cannot("open", path, error) from None

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, row: str, **fields: object) -> None:
        """Append one row. It is on the disk when this returns; on a full disk, what fitted of it is taken back."""
        line = json.dumps({"schema": VERSION, "row": row, **fields}, allow_nan=False).encode() + b"\n"
        if wrong := problem(line):
            raise ValueError(f"a row '{row}' that no reader would take: {wrong}")
        before = self.file.seek(0, os.SEEK_END)
        try:
            if self.file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self.file.fileno())
        except OSError as error:
            self.file.truncate(before)
            raise _cannot("write to", self.path, error) from None

    def _lock(self) -> None:
        """Until it is closed or this process ends, even by kill -9: what this process starts does not inherit the file (PEP 446)."""
        if sys.platform == "win32":
            return
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in LOCKED:
                self.file.close()
                raise UserError(
                    f"{self.path}: another isoform is writing this journal\n  mend: wait for it, or use another --out FOLDER"
                ) from None

    def _end_last_line(self) -> None:
        """A line that was cut off in the middle is no row: take it away, or the next row would be lost with it."""
        self.file.seek(0)
        content = self.file.read()
        self.file.truncate(content.rfind(b"\n") + 1)


@dataclass(frozen=True)
class Content:
    """`rows` of a journal, and a `warning` where its last line was cut off, else None."""

    rows: list[dict]
    warning: str | None

    @property
    def runs(self) -> list[list[dict]]:
        """The rows of each run, its "run" row first."""
        starts = [k for k, row in enumerate(self.rows) if row["row"] == "run"]
        return [self.rows[start:end] for start, end in zip(starts, [*starts[1:], None], strict=False)]  # of none, none

    @property
    def last_runs(self) -> list[list[dict]]:
        """The last run; or, where `isoform merge` has joined some, each of these."""
        runs = self.runs
        return [run for run in runs if run[0]["joined"]] if runs and runs[-1][0]["joined"] else runs[-1:]

    @property
    def last_run(self) -> list[dict]:
        """The rows of the last run; earlier ones in the same folder stay in the file. Runs that `isoform merge` has joined are one."""
        last = self.last_runs
        return _as_one(last) if len(last) > 1 else [row for run in last for row in run]


def _as_one(runs: list[list[dict]]) -> list[dict]:
    """Blocks of different runs are different blocks: they are numbered on."""
    heads = [run[0] for run in runs]
    plans = [head["plan"] for head in heads if head["plan"]]
    lists = ("implementations", "batch_sizes", "operations")
    whole: dict = {name: list(dict.fromkeys(one for plan in plans for one in plan[name])) for name in lists}
    whole["specs"] = {name: hash for plan in plans for name, hash in plan["specs"].items()}
    plan = plans[-1] | whole if plans else None
    specs = {hash: spec for head in heads for hash, spec in head["specs"].items()}
    command = "\n".join(head["command"] for head in heads)
    rows = [heads[-1] | {"plan": plan, "specs": specs, "command": command}]
    after = 0
    for run in runs:
        blocks = [row["block"] for row in run if "block" in row]
        rows += [row | {"block": row["block"] + after} if "block" in row else row for row in run[1:]]
        after += max(blocks, default=-1) + 1
    return rows


def read(path: Path) -> Content:
    """Raises UserError for a file that cannot be read, has another schema version, or is damaged before its last line; and for one that
    holds runs of two machines, or what two have written at once."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _cannot("read", path, error) from None
    *lines, tail = content.split(b"\n")
    rows = [_row(line, path, number) for number, line in enumerate(lines, 1)]
    _of_one_machine(rows, path)
    _ended_once(rows, path)
    cut = f"{path}: the last line is cut off (line {len(lines) + 1}); what it held is lost, the rest is read"
    return Content(rows, cut if tail else None)


def _of_one_machine(rows: list[dict], path: Path) -> None:
    cards = [row["machine"] for row in rows if row["row"] == "run"]
    if others := [card for card in cards if differs(card, cards[0])]:
        raise UserError(
            f"{path} holds runs of two machines\n"
            f"  expected: one, since times of two machines are not comparable\n"
            f"  got:      {cards[0].get('name', cards[0])} and {others[0].get('name', others[0])}: {differs(others[0], cards[0])}\n"
            f"  likely:   two journals were put one after the other\n"
            f"  mend:     keep each machine's in a folder of its own: results/<machine>/<date>"
        )


def _ended_once(rows: list[dict], path: Path) -> None:
    ended: dict[str, int] = {}  # by pass, cell and block, of one run: the line
    for number, row in enumerate(rows, 1):
        if row["row"] == "run":
            ended = {}
        if row["row"] != "finish":
            continue
        one = json.dumps([row["pass"], row["cell"], row["block"]], sort_keys=True)
        if one in ended:
            cell = row["cell"]
            raise UserError(
                f"{path}, line {number}: a second outcome of {cell['implementation']}, {cell['spec']} {cell['operation']}, "
                f"pass '{row['pass']}', block {row['block']}\n"
                f"  expected: one in a run; the first is in line {ended[one]}\n"
                f"  likely:   two isoforms have written this journal at once, or lines were copied into it\n"
                f"  mend:     {ANEW}"
            )
        ended[one] = number


def differs(one: dict, other: dict) -> str:
    """In what two machines' cards differ that decides their speed; empty where in nothing."""
    return "; ".join(f"{name} {other.get(name)} and {one.get(name)}" for name in MACHINE if one.get(name) != other.get(name))


def _row(line: bytes, path: Path, number: int) -> dict:
    try:
        row = json.loads(line)
        version = row["schema"]
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{path}, line {number}: not a row of a journal\n"
            f'  expected: a JSON object such as {{"schema": {VERSION}, "row": "run", ...}}\n'
            f"  got:      {line[:60].decode(errors='replace')}\n"
            f"  mend:     take that line away, or {ANEW}"
        ) from None
    if version != VERSION and version not in MIGRATIONS:
        raise UserError(
            f"{path}, line {number}: a journal of schema version {version}\n"
            f"  expected: version {VERSION}, which this isoform writes, or what it still reads: {', '.join(map(str, MIGRATIONS))}\n"
            f"  mend:     use the isoform that wrote it, or {ANEW}"
        )
    if version != VERSION:
        row = migrated(row)
        line = json.dumps(row).encode()
    if wrong := problem(line):
        raise UserError(
            f"{path}, line {number}: not a row that bench writes\n"
            f"  got:      {wrong}\n"
            f"  likely:   it was edited, or written by another program\n"
            f"  expected: as in `isoform schema journal`\n"
            f"  mend:     take that line away, or {ANEW}"
        )
    return row


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _cannot(verb: str, path: Path, error: OSError) -> UserError:
    mend = "a folder that exists and can be written to, on a disk with room: --out FOLDER"
    if verb == "read":
        mend = f"measure first: isoform bench --out {path.parent}"
    return UserError(f"cannot {verb} the journal {path}: {error.strerror or error}\n  mend: {mend}")
