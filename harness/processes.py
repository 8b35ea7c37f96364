"""The harness's side of a worker: start it with the right environment, talk to it, notice its death, end it."""

import contextlib
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from harness.errors import WorkerDied
from impls import Implementation

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS")
ROOT = Path(__file__).parent.parent
VMSTAT = Path("/proc/vmstat")


def cpus() -> list[int]:
    """CPUs that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def oom_kills() -> int:
    """Processes that the kernel has ended for want of memory since the machine has started; 0 where it does not tell."""
    with contextlib.suppress(OSError):
        if found := re.search(r"^oom_kill (\d+)$", VMSTAT.read_text(), re.MULTILINE):
            return int(found[1])
    return 0


class Worker:
    """A worker process. Use as a context manager; `request` yields its events and raises WorkerDied.

    `root`: the folder whose `harness`, `impls` and `specs` it runs, where these are not our own.
    """

    def __init__(
        self,
        implementation: Implementation,
        use_cpus: list[int] | None = None,
        environment: dict[str, str] | None = None,
        root: Path | None = None,
    ):
        self.name = implementation.name
        chosen = use_cpus or cpus()
        variables = {
            **os.environ,
            **dict.fromkeys(THREAD_VARIABLES, str(len(chosen))),
            **dict(implementation.environment),
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # else the first of several takes three quarters of a device's memory
            "PYTHONPATH": os.pathsep.join(filter(None, [str(root or ROOT), os.environ.get("PYTHONPATH", "")])),
            **(environment or {}),
        }
        self.stderr, self.oom_kills = tempfile.TemporaryFile(), oom_kills()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "harness.worker", self.name, ",".join(map(str, chosen))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            env=variables,
            cwd=root,  # Python looks there first
            start_new_session=True,  # so that the whole process group can be ended
        )
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.process.stdout, selectors.EVENT_READ)
        self.buffer = b""
        self.ready = self._event(time.monotonic() + 60)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def request(self, task: str, silence_s: float = 300, **fields: object) -> Iterator[dict]:
        """Send a request; yield its events up to and including the last. `silence_s`: longest wait for the next event."""
        try:
            self.process.stdin.write(json.dumps({"task": task, **fields}).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None
        while True:
            event = self._event(time.monotonic() + silence_s)
            yield event
            if event["event"] in ("done", "error"):
                return

    def _event(self, deadline: float) -> dict:
        while b"\n" not in self.buffer:
            wait = deadline - time.monotonic()
            if wait <= 0 or not self.selector.select(wait):
                self.kill()
                raise WorkerDied("timeout", f"no answer in time; last words: {self.last_words()}")
            chunk = os.read(self.process.stdout.fileno(), 1 << 16)
            if not chunk:
                raise self._died()
            self.buffer += chunk
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def _died(self) -> WorkerDied:
        try:
            code = self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self.process.wait()
        if code == -signal.SIGKILL and oom_kills() > self.oom_kills:
            return WorkerDied("oom-host", "the kernel has ended it: the machine was out of memory")
        state = f"crash:{signal.Signals(-code).name}" if code < 0 else f"crash:exit {code}"
        return WorkerDied(state, self.last_words())

    def last_words(self, lines: int = 3) -> str:
        """The end of what the worker wrote on stderr."""
        self.stderr.seek(0)
        text = self.stderr.read().decode(errors="replace").strip().splitlines()
        return " | ".join(text[-lines:])

    def kill(self) -> None:
        """End the whole process group at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()
        self.selector.close()
        self.process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.stderr.close()
