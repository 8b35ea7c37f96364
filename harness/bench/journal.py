"""The journal of a bench: JSON, one row a line, only ever appended to, on the disk before the next measurement starts."""

import errno
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harness.bench.schema import MIGRATIONS, VERSION, migrated, problem
from harness.errors import UserError


class Journal:
    """Opens a journal for appending, or starts one. `with Journal(path) as journal: journal.write("run", level="quick")`."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self.file = path.open("a+b", buffering=0)
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
    def last_run(self) -> list[dict]:
        """The rows from the last "run" row on. Earlier runs in the same folder stay in the file."""
        starts = [k for k, row in enumerate(self.rows) if row["row"] == "run"]
        return self.rows[starts[-1] :] if starts else []


def read(path: Path) -> Content:
    """Raises UserError for a file that cannot be read, has another schema version, or is damaged before its last line."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _cannot("read", path, error) from None
    *lines, tail = content.split(b"\n")
    rows = [_row(line, path, number) for number, line in enumerate(lines, 1)]
    cut = f"{path}: the last line is cut off (line {len(lines) + 1}); what it held is lost, the rest is read"
    return Content(rows, cut if tail else None)


def _row(line: bytes, path: Path, number: int) -> dict:
    mend = "measure again: isoform bench --out ANOTHER_FOLDER"
    try:
        row = json.loads(line)
        version = row["schema"]
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{path}, line {number}: not a row of a journal\n"
            f'  expected: a JSON object such as {{"schema": {VERSION}, "row": "run", ...}}\n'
            f"  got:      {line[:60].decode(errors='replace')}\n"
            f"  mend:     take that line away, or {mend}"
        ) from None
    if version != VERSION and version not in MIGRATIONS:
        raise UserError(
            f"{path}, line {number}: a journal of schema version {version}\n"
            f"  expected: version {VERSION}, which this isoform writes, or what it still reads: {', '.join(map(str, MIGRATIONS))}\n"
            f"  mend:     use the isoform that wrote it, or {mend}"
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
            f"  mend:     take that line away, or {mend}"
        )
    return row


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _cannot(verb: str, path: Path, error: OSError) -> UserError:
    mend = "a folder that exists and can be written to, on a disk with room: --out FOLDER"
    if verb == "read":
        mend = f"measure first: isoform bench --out {path.parent}"
    return UserError(f"cannot {verb} the journal {path}: {error.strerror or error}\n  mend: {mend}")
