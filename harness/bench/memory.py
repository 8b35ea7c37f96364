"""The worker's side of the memory pass: one cell in a process of its own, its peaks in bytes, and why one is not known."""

import ctypes
import gc
import importlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from harness.bench.measure import batch_of, build, import_framework
from impls import Implementation
from specs import Spec

STEPS = 5
KNOWN = 64 << 20  # bytes of a self-test
MANY = 32  # of them on a device, where the first also makes a context
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
COLUMNS = ("host_peak", "alloc_peak", "device_reserved_peak", "device_used_peak", "planned_peak")


def handle(implementation: Implementation, request: dict, emit: Callable[..., None]) -> None:
    """One event, "measured": the five columns in bytes or None, and {column: reason} for each None. Of a self-test: see there."""
    if request["phase"] == "selftest":
        selftest(implementation, request, emit)
        return
    spec, cell = Spec.model_validate_json(request["spec"]), request["cell"]
    import_framework(implementation, spec)
    batch = batch_of(spec, cell)
    used_before, why_no_used = device_used(cell["device"])
    held = []

    def work() -> None:
        model = build(implementation, spec, cell)
        model.prepare(batch, STEPS, cell["operation"], request["seed"])
        model.run()
        model.block()
        held.append(model)

    peak, why_no_peak = host_peak(work)
    used_after, _ = device_used(cell["device"])
    counted = held[0].memory()
    silent = f"{implementation.name} keeps no count of its memory on {cell['device']}"
    values = {
        "host_peak": (peak, why_no_peak),
        "alloc_peak": (counted.get("alloc_peak"), silent),
        "device_reserved_peak": (counted.get("device_reserved_peak"), "no device: runs on the CPU" if cell["device"] == "cpu" else silent),
        "device_used_peak": (None if used_before is None else max(used_after - used_before, 0), why_no_used),
        "planned_peak": (counted.get("planned_peak"), "no compiler plans the memory of a step here, or none tells"),
    }
    emit(
        "measured",
        **{name: values[name][0] for name in COLUMNS},
        reasons={name: values[name][1] for name in COLUMNS if values[name][0] is None},
    )


def selftest(implementation: Implementation, request: dict, emit: Callable[..., None]) -> None:
    """Is what the framework allocates what is read back? One event, "measured": `got` bytes of the `expected`, or None and the `reason`.

    On a CPU by the resident set, on a device by NVML. Once before it counts, so that nothing is imported within.
    """
    import_framework(implementation)
    copied, device, source = getattr(implementation.backend_module(), "copied", None), request["device"], np.ones(KNOWN, np.uint8)
    got, reason = None, f"the backend of {implementation.name} has no copied()"
    if copied:
        copied(source, device)
    if copied and device == "cpu":
        kept: list = []
        got, reason = host_peak(lambda: kept.append(copied(source, device)))
    elif copied:
        before, _ = device_used(device)
        kept = [copied(source, device) for _ in range(MANY)]  # an allocator takes more than it is asked for, but of the whole a small part
        after, reason = device_used(device)
        got = None if before is None else round((after - before) / len(kept))
    emit("measured", expected=KNOWN, got=got, reason=reason)


def host_peak(work: Callable[[], None]) -> tuple[int | None, str | None]:
    """(bytes by which the resident set rose at most while `work` ran, None), or (None, why it cannot be told)."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # else freed memory that is still resident would be taken for nothing
    try:
        CLEAR.write_text("5")  # the peak is now the present level
        level = resident("VmRSS")
    except (OSError, KeyError) as error:
        work()
        return None, f"needs Linux with /proc/self/clear_refs: {error}"
    work()
    return max(resident("VmHWM") - level, 0), None


def resident(field: str) -> int:
    """A field of /proc/self/status, in bytes."""
    fields = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(fields[field].split()[0]) * 1024


def device_used(device: str) -> tuple[int | None, str | None]:
    """(bytes in use on all NVIDIA devices, by whomever, None), or (None, why not).

    What an allocator has taken it keeps: the end is the peak.
    """
    if device != "cuda":
        return None, "no device: runs on the CPU" if device == "cpu" else f"NVML knows no device '{device}'"
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(k) for k in range(nvml.nvmlDeviceGetCount())]
        return sum(nvml.nvmlDeviceGetMemoryInfo(handle).used for handle in handles), None
    except ImportError:
        return None, "pynvml is not installed: python -m pip install nvidia-ml-py"
    except Exception as error:  # noqa: BLE001 - NVML raises errors of its own; none may cost the other columns
        return None, f"NVML does not answer: {error}"
