"""This machine: what it is, which versions are installed, and how busy it is. Imports no framework."""

import os
import platform
import re
import shutil
import subprocess
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path

import psutil

from harness.processes import cpus

DISTRIBUTIONS = (
    "isoform",
    "numpy",
    "scipy",
    "scikit-learn",
    "torch",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "keras",
    "tensorflow",
    "tensorflow-cpu",
)


@cache
def card() -> dict:
    """What decides how fast it is. `name` is fit for a folder, such as "amd-epyc-2cpu"; no host name and no path is in it."""
    cpu, gpu = cpu_model(), gpus()
    return {
        "name": slug(cpu, len(cpus()), gpu),
        "cpu": cpu,
        "cores": len(cpus()),  # logical ones that this process may use
        "cores_physical": psutil.cpu_count(logical=False),
        "memory_bytes": psutil.virtual_memory().total,
        "os": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "gpu": gpu,
    }


def versions() -> dict[str, str]:
    """{distribution: version} of what is installed of the frameworks and of what they stand on."""
    found = {}
    for name in DISTRIBUTIONS:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def state() -> dict:
    """How busy the machine is now. `pressure`: share of the last 10 s, in percent, in which some process waited (PSI), or None."""
    load = os.getloadavg()
    return {
        "load": [round(value, 2) for value in load],  # over 1, 5 and 15 minutes
        "memory_available": psutil.virtual_memory().available,
        "swap_used": psutil.swap_memory().used,
        "pressure": {name: pressure(name) for name in ("cpu", "memory", "io")},
    }


def cpu_model() -> str:
    with suppress(OSError):
        if found := re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            return found[1].strip()
    return platform.processor() or platform.machine()


def gpus() -> list[str]:
    """Names of the NVIDIA GPUs that the driver lists."""
    if not shutil.which("nvidia-smi"):
        return []
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.strip().splitlines()
    return []


def slug(cpu: str, cores: int, gpu: list[str]) -> str:
    """A short name for a folder: Intel(R) Xeon(R) Gold 6130 CPU @ 2.10GHz, 8 -> intel-xeon-gold-6130-8cpu."""
    plain = re.sub(r"\((R|TM)\)|@.*|\b(CPU|Processor|\d+-Core)\b", " ", cpu, flags=re.IGNORECASE)
    parts = [plain, f"{cores}cpu", *gpu[:1]]
    return re.sub(r"[^a-z0-9]+", "-", " ".join(parts).lower()).strip("-")


def pressure(resource: str) -> float | None:
    """The `some avg10` of /proc/pressure/<resource>; None where the kernel keeps or shows none."""
    with suppress(OSError):
        if found := re.search(r"some avg10=([\d.]+)", Path(f"/proc/pressure/{resource}").read_text()):
            return float(found[1])
    return None
