"""How quiet was the machine while a cell was timed? Counters of the kernel before and after, of the very CPUs that the worker may use."""

import importlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import psutil

from harness.processes import cpus

STAT, VMSTAT = Path("/proc/stat"), Path("/proc/vmstat")
THROTTLE = "/sys/devices/system/cpu"
TICK_S = 1 / os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 0.01
SHARE = 0.10  # of the CPUs' time that may go to others, or be stolen by the machine's host, before a measurement is called disturbed
TICKS = 5  # and no less than so many: the kernel counts in ticks, and a short window has few


@dataclass(frozen=True)
class Counters:
    """Seconds since the machine has started; None where the system does not tell."""

    at: float
    own_s: float  # CPU time of this process, all threads
    busy_s: float | None  # of our CPUs, by whomever
    stolen_s: float | None  # that the host has given to other machines
    swapped: int | None  # pages
    throttled: int | None  # times that the hardware has slowed a CPU down


def counters() -> Counters:
    own = os.times()
    busy, stolen = _cpu_times()
    return Counters(perf_counter(), own.user + own.system, busy, stolen, _swapped(), _throttled())


def between(before: Counters, after: Counters, device: str = "cpu") -> dict:
    """{"window_s", "foreign", "stolen": shares of our CPUs' time, "swapped": pages, "throttled": times, "foreign_gpu": processes}."""
    window = after.at - before.at
    whole = window * len(cpus())

    def share(name: str, less: float = 0.0) -> float | None:
        one, two = getattr(before, name), getattr(after, name)
        if one is None or two is None:
            return None
        over = two - one - less
        return round(max(over, 0.0) / whole, 4) if over >= TICKS * TICK_S else 0.0

    def rise(name: str) -> int | None:
        one, two = getattr(before, name), getattr(after, name)
        return None if one is None or two is None else max(two - one, 0)

    return {
        "window_s": round(window, 4),
        "foreign": share("busy_s", after.own_s - before.own_s),
        "stolen": share("stolen_s"),
        "swapped": rise("swapped"),
        "throttled": rise("throttled"),
        "foreign_gpu": foreign_gpu() if device == "cuda" else None,
    }


def disturbed(found: dict | None) -> list[str]:
    """What was not as it should be, in words; empty where all was quiet, or nothing is known."""
    if not found:
        return []
    told = {
        "foreign": f"other processes took {100 * (found['foreign'] or 0):.0f} % of the CPUs",
        "stolen": f"the host took {100 * (found['stolen'] or 0):.0f} % of the CPUs away",
    }
    why = [text for name, text in told.items() if (found[name] or 0) > SHARE]
    if found["swapped"]:
        why.append(f"{found['swapped']} pages were swapped")
    if found["throttled"]:
        why.append(f"a CPU was throttled {found['throttled']} times")
    if found["foreign_gpu"]:
        why.append(f"{found['foreign_gpu']} other processes were on the GPU")
    return why


def _cpu_times() -> tuple[float | None, float | None]:
    """(seconds in which our CPUs were busy, seconds that were stolen from them)."""
    ours = {f"cpu{one}" for one in cpus()}
    try:
        lines = [line.split() for line in STAT.read_text().splitlines()]
    except OSError:
        return None, None
    found = [[int(number) for number in line[1:]] for line in lines if line[0] in ours]
    if len(found) != len(ours):
        return None, None
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(sum, zip(*(line[:8] for line in found), strict=True))
    return (user + nice + system + irq + softirq) * TICK_S, steal * TICK_S


def _swapped() -> int | None:
    with suppress(OSError, ValueError, KeyError):
        fields = dict(line.split() for line in VMSTAT.read_text().splitlines())
        return int(fields["pswpin"]) + int(fields["pswpout"])
    return None


def _throttled() -> int | None:
    found = []
    for path in Path(THROTTLE).glob("cpu*/thermal_throttle/core_throttle_count"):
        with suppress(OSError, ValueError):
            found.append(int(path.read_text()))
    return sum(found) if found else None


def foreign_gpu() -> int | None:
    """Processes on any NVIDIA GPU besides this one and its siblings, which wait while it works; None where NVML does not tell."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(k) for k in range(nvml.nvmlDeviceGetCount())]
        running = {process.pid for handle in handles for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle)}
    except nvml.NVMLError:
        return None
    return sum(not _ours(pid) for pid in running)


def _ours(pid: int) -> bool:
    """This process, or another child of the process that has started it."""
    with suppress(psutil.NoSuchProcess):
        return pid == os.getpid() or psutil.Process(pid).ppid() == os.getppid()
    return False
