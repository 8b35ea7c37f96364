"""What the parent takes of a core while a worker is timed: `isoform bench` in a terminal of its own, watched from outside."""

import contextlib
import json
import os
import pty
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.speed.contestants import FOLDER

EVERY_S = 0.1


def share(implementation: str = "torch") -> float:
    """CPU seconds a second, user and system, between the start and the finish row of each timed cell."""
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = pty.openpty()  # the progress bar is drawn as for a person
        asked = ["--spec", str(FOLDER / "vae.toml"), "--impl", implementation, "--level", "quick", "--out", folder]
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / "isoform"), "bench", *asked], stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        threading.Thread(target=drain, args=(ours,), daemon=True).start()
        return watched(process, Path(folder) / "journal.jsonl")


def drain(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # Linux: the other end is closed
        while os.read(descriptor, 1 << 16):
            pass


def watched(process: subprocess.Popen, journal: Path) -> float:
    cpu, wall, before = 0.0, 0.0, None
    while process.poll() is None:
        timing, now = under_way(journal), (time.perf_counter(), cpu_seconds(process.pid))
        if timing and before:
            wall, cpu = wall + now[0] - before[0], cpu + now[1] - before[1]
        before = now if timing else None
        time.sleep(EVERY_S)
    if not wall:
        raise RuntimeError("bench has timed nothing that could be watched")
    return cpu / wall


def under_way(journal: Path) -> bool:
    """Whether the journal's last row is the start of a timed cell."""
    if not journal.exists():
        return False
    *_, last = journal.read_bytes().splitlines() or [b""]
    with contextlib.suppress(ValueError):  # half a row
        row = json.loads(last)
        return row.get("row") == "start" and row.get("pass") == "time"
    return False


def cpu_seconds(pid: int) -> float:
    """Of the process itself, all its threads, none of its children."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
