"""Files that are whole or not there."""

import contextlib
import os
import tempfile
from pathlib import Path

from harness.errors import UserError


def results_folder(path: Path) -> Path:
    """Make the folder, and see that it can be written to, before hours are spent on what goes into it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(
            f"cannot write to the results folder {path}: {error.strerror or error}\n"
            f"  expected: a folder that can be made and written to, on a disk with room\n"
            f"  mend:     give another one with --out FOLDER"
        ) from None
    return path


def write_text(path: Path, text: str) -> None:
    """Write under another name, then rename: a reader sees the old file or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise UserError(
            f"cannot write {path}: {error.strerror or error}\n  mend: make room, or give another folder with --out FOLDER"
        ) from None
