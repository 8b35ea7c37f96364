"""The parent's side: each framework in fresh processes, in turn; then one table, a row a framework, operation, dtype and size."""

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from harness import machine
from harness.bench.journal import now
from harness.bench.statistics import estimate
from harness.errors import UserError, WorkerDied
from harness.files import write_text
from harness.hardware.energy import counter
from harness.processes import Worker, cpus
from impls import Implementation
from impls.instrument import DTYPES

SCHEMA = 1
PROCESSES = 3
SIZES = {
    "matmul": (128, 512, 1024, 2048),
    "lu": (512, 2048),
    "triad": (2**23,),
    "dispatch": (1,),
    "to_device": (2**23,),
    "to_host": (2**23,),
}
# On a device larger ones too: small ones are over before it is busy, and its caches hold what a CPU's do not.
SIZES_ON_DEVICE = {"matmul": (*SIZES["matmul"], 4096), "lu": (*SIZES["lu"], 4096), "triad": (2**26,)}
UNITS = {"matmul": "FLOP/s", "lu": "FLOP/s", "triad": "B/s", "dispatch": "s", "to_device": "B/s", "to_host": "B/s"}
ONCE = {"dispatch": "float32", "to_device": "float64", "to_host": "float64", "triad": "float64"}  # in one dtype only
FILE = "machine.json"
SILENCE_S = 300.0  # longer, and the process is taken for hanging
Case = tuple[str, str, int]  # dtype, operation, size
Key = tuple[str, str, str, int]  # implementation, dtype, operation, size


@dataclass(frozen=True)
class Row:
    """`value` in `unit`, with the 95 % interval over processes; or None and the reason."""

    framework: str
    operation: str
    dtype: str
    size: int
    unit: str
    value: float | None
    low: float | None
    high: float | None
    reason: str | None


def cases(device: str) -> dict[str, list[tuple[str, int]]]:
    wanted = SIZES if device == "cpu" else SIZES | SIZES_ON_DEVICE
    return {
        dtype: [(operation, size) for operation, sizes in wanted.items() for size in sizes if ONCE.get(operation, dtype) == dtype]
        for dtype in DTYPES
    }


def measure(implementations: Iterable[Implementation], device: str, on_event: Callable[[dict], None]) -> list[Row]:
    """`on_event` is given {"event": "plan", "total": n}, then {"event": "row", "implementation": name}, at most n times."""
    chosen = [one for one in implementations if one.instrument]
    planned = {one.name: [(dtype, *case) for dtype, some in cases(device).items() for case in some] for one in chosen}
    on_event({"event": "plan", "total": sum(map(len, planned.values())) * PROCESSES})
    found: dict[Key, list[dict]] = {(name, *case): [] for name, some in planned.items() for case in some}
    lost: dict[Key, str] = {}
    for one in chosen:
        if one.missing:
            lost |= {(one.name, *case): f"not installed: {one.install}" for case in planned[one.name]}
    for _ in range(PROCESSES):
        for one in chosen:
            without = {*lost, *(key for key, values in found.items() if values and values[0]["reason"])}
            asked = [case for case in planned[one.name] if (one.name, *case) not in without]
            lost |= _examine(one, device, asked, found, on_event)
    return [_row(key, values, lost.get(key)) for key, values in found.items()]


def _examine(
    one: Implementation, device: str, asked: list[Case], found: dict[Key, list[dict]], on_event: Callable[[dict], None]
) -> dict[Key, str]:
    """One process; where it dies, another for what comes after the case that it died of. Returns {case that is lost: reason}."""
    lost: dict[Key, str] = {}
    while asked:
        left = list(asked)
        try:
            with Worker(one) as worker:
                for event in worker.request("hardware", SILENCE_S, cases=asked, device=device):
                    if event["event"] == "row":
                        found[one.name, *left.pop(0)].append(event)
                        on_event({"event": "row", "implementation": one.name})
                    elif event["event"] == "error":
                        return lost | {(one.name, *case): event["message"] for case in left}
        except WorkerDied as death:
            if lost:  # the second: it does not start, or dies of everything
                return lost | {(one.name, *case): str(death) for case in left}
            lost[one.name, *left.pop(0)] = str(death)
        asked = left
    return lost


def _row(key: Key, values: list[dict], lost: str | None) -> Row:
    name, dtype, operation, size = key
    head = (name, operation, dtype, size, UNITS[operation])
    if lost or values[0]["reason"]:
        return Row(*head, None, None, None, lost or values[0]["reason"])
    seconds = [one["seconds"] for one in values]
    if UNITS[operation] == "s":
        whole = estimate(seconds)
    else:
        whole = estimate([values[0]["work"] / one for one in seconds])
    return Row(*head, whole.value, whole.low, whole.high, None)


def card(rows: list[Row], device: str, command: str) -> dict:
    return {
        "schema": SCHEMA,
        "made": now(),
        "command": command,
        "machine": machine.card(),
        "versions": machine.versions(),
        "device": device,
        "threads": len(cpus()),
        "clock_mhz": clock(),
        "cache_bytes": cache() if device == "cpu" else None,
        "energy": energy(device),
        "state": machine.state(),
        "rows": [asdict(row) for row in rows],
    }


def write(content: dict, folder: Path) -> Path:
    path = folder / FILE
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
    return path


def read(folder: Path) -> dict | None:
    """The card in a results folder, None if there is none. Raises UserError if it is damaged or of another schema."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        complete = content["schema"] == SCHEMA and all(row["unit"] for row in content["rows"])
    except (OSError, ValueError, KeyError, TypeError):
        complete = False
    if not complete:
        raise UserError(f"{path} is not a whole card of schema {SCHEMA}\n  mend: isoform machine --out {folder}")
    return content


def cache() -> int | None:
    """Size of the last cache that the first CPU of this process sees, or None."""
    sizes = []
    for path in Path(f"/sys/devices/system/cpu/cpu{cpus()[0]}/cache").glob("index*/size"):
        with suppress(OSError, ValueError, KeyError):
            text = path.read_text().strip()
            sizes.append(int(text[:-1]) * {"K": 2**10, "M": 2**20}[text[-1]])
    return max(sizes, default=None)


def clock() -> dict[str, float] | None:
    with suppress(Exception):  # psutil raises one or the other where the system tells nothing
        if found := psutil.cpu_freq():
            return {"current": found.current, "min": found.min, "max": found.max}
    return None


def energy(device: str) -> str:
    """Which counter of energy can be read here, or why none."""
    read, name = counter(device)
    return name if read else f"N/A: {name}"
