"""Joules, where the machine counts them: NVML's counter of a GPU (mJ), RAPL's of a CPU package (uJ)."""

import importlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import perf_counter

POWERCAP = Path("/sys/class/powercap")
WINDOW_S = 5.0  # the counters move in steps of up to a tenth of a second


def counter(device: str) -> tuple[Callable[[], float] | None, str]:
    """(joules so far, name of the counter), or (None, why there is none). Of everything on the package or board, by whomever."""
    return _nvml() if device == "cuda" else _rapl()


def per_step(round_of: Callable[[], None], steps: int, device: str) -> dict:
    """{"joules_per_step", "counter", "window_s", "reason"} over rounds of `steps` steps for WINDOW_S seconds; None where not known."""
    read, name = counter(device)
    if read is None:
        return {"joules_per_step": None, "counter": None, "window_s": None, "reason": name}
    start, before, rounds = perf_counter(), read(), 0
    while not rounds or perf_counter() < start + WINDOW_S:
        round_of()
        rounds += 1
    joules, window = read() - before, perf_counter() - start
    if joules <= 0:
        return {"joules_per_step": None, "counter": name, "window_s": window, "reason": f"{name} did not move, or went back"}
    return {"joules_per_step": joules / (rounds * steps), "counter": name, "window_s": window, "reason": None}


def _rapl() -> tuple[Callable[[], float] | None, str]:
    packages = [path for path in sorted(POWERCAP.glob("*-rapl:[0-9]")) if _readable(path / "energy_uj")]
    if not packages:
        return None, "no RAPL counter can be read: the CPU has none, the machine is virtual, or it is root's"
    seen: dict[Path, tuple[int, int]] = {}  # reading, and how often it has begun anew

    def joules() -> float:
        total = 0
        for path in packages:
            now, before = int((path / "energy_uj").read_text()), seen.get(path, (0, 0))
            seen[path] = now, before[1] + (now < before[0])
            total += now + seen[path][1] * int((path / "max_energy_range_uj").read_text())
        return total / 1e6

    return joules, "RAPL"


def _readable(path: Path) -> bool:
    with suppress(OSError, ValueError):
        return int(path.read_text()) >= 0
    return False


def _nvml() -> tuple[Callable[[], float] | None, str]:
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None, "pynvml is not installed: python -m pip install nvidia-ml-py"
    try:
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByIndex(0)
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except nvml.NVMLError as error:
        return None, f"NVML counts no energy here: {error}"
    return lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3, "NVML"
