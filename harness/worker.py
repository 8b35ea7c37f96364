"""One implementation in a process of its own: the only place of the harness where a framework is imported.

Started as `python -m harness.worker IMPLEMENTATION [CPU,CPU...]` by `harness.processes.Worker`, or by anybody's scheduler.
Reads one JSON request a line on stdin, {"task": "verify", ...}, and answers with JSON events, one a line, on stdout;
the last event of a request is {"event": "done"} or {"event": "error", "kind": ..., "message": ...}.
Whatever else a framework prints goes to stderr.
"""

import ctypes
import importlib
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable

# task -> module with handle(implementation, request, emit); imported when first asked for
TASKS = {
    "verify": "harness.verify.ladder",
    "measure": "harness.bench.measure",
    "memory": "harness.bench.memory",
    "quality": "harness.bench.training",
    "doctor": "harness.doctor",
    "hardware": "harness.hardware.measure",
}


def main(arguments: list[str]) -> None:
    name, *cpus = arguments
    if cpus and cpus[0]:
        os.sched_setaffinity(0, {int(cpu) for cpu in cpus[0].split(",")})  # before any import that sizes a thread pool
    die_with_parent()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr

    def emit(event: str, **fields: object) -> None:
        answers.write(json.dumps({"event": event, **fields}) + "\n")
        answers.flush()

    emit("ready", pid=os.getpid())
    for line in sys.stdin:
        request = json.loads(line)
        answer(name, request, emit)


def answer(name: str, request: dict, emit: Callable[..., None]) -> None:
    """Handle one request; an exception becomes an event, so that the worker lives on."""
    import impls

    try:
        module = importlib.import_module(TASKS[request["task"]])
        module.handle(impls.load(name), request, emit)
        emit("done")
    except impls.MissingFramework as error:
        emit("error", kind="not-installed", message=str(error))
    except (impls.DeviceAbsent, impls.Unsupported) as error:
        emit("error", kind="unsupported", message=str(error))
    except MemoryError as error:
        emit("error", kind="oom-host", message=str(error))
    except Exception as error:  # noqa: BLE001 - an implementation may raise anything; it is reported, with its traceback
        kind = kind_of(error, (request.get("cell") or (request.get("cells") or [request])[0]).get("device", "cpu"))
        emit("error", kind=kind, message=f"{type(error).__name__}: {error}", traceback=traceback.format_exc())


NO_MEMORY = re.compile(r"out of memory|OOM when allocating|can't allocate memory|RESOURCE_EXHAUSTED", re.IGNORECASE)


def kind_of(error: Exception, device: str) -> str:
    """Frameworks say in words of their own that memory has run out."""
    if not NO_MEMORY.search(f"{type(error).__name__}: {error}"):
        return "error"
    return "oom-host" if device == "cpu" else "oom-device"


def limit_memory(device: str) -> None:
    """On a CPU, what does not fit is to be refused: else the kernel ends whichever process it likes. A device's driver reserves at will."""
    if device == "cpu" and sys.platform == "linux":
        import resource

        import psutil

        most = psutil.Process().memory_info().rss + psutil.virtual_memory().available
        resource.setrlimit(resource.RLIMIT_DATA, (most, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def die_with_parent() -> None:
    """Linux: a worker must not outlive a harness that was killed."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
