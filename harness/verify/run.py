"""The parent's side of verify: workers side by side, their events, the table and the file of certificates."""

import json
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from harness import machine
from harness.errors import WorkerDied
from harness.files import write_text
from harness.processes import Worker, cpus
from harness.verify.table import failures
from impls import Implementation
from specs import Spec

SILENCE_S = 240  # a check that says nothing for so long hangs
# JAX compiles for each build, each spec and each dtype: what two of them have in common it may take from its own cache
COMPILE_ONCE = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
Event = Callable[[dict], None]


@dataclass
class Pair:
    """One spec, implementation and dtype, and what came of it."""

    spec: Spec
    implementation: Implementation
    dtype: str
    device: str
    precision: str
    state: str = "pending"
    reason: str | None = None
    checks: list[dict] = field(default_factory=list)
    certificate: dict | None = None

    def row(self) -> dict:
        compared = [check for check in self.checks if check["margin"] is not None]
        worst = max(compared, key=lambda check: check["margin"], default=None)
        return {
            "spec": self.spec.name,
            "implementation": self.implementation.name,
            "dtype": self.dtype,
            "device": self.device,
            "precision": self.precision,
            "state": self.state,
            "reason": self.reason,
            "margin": worst and worst["margin"],
            "worst": worst and {"check": worst["number"], "what": worst["what"], "error": worst["error"], "gate": worst["gate"]},
            "comparisons": sum(check["comparisons"] for check in self.checks),
            "certificate": self.certificate["id"] if self.certificate and self.state == "pass" else None,
            "failures": failures(self),
        }


def plan(specs: list[Spec], implementations: list[Implementation], dtypes: list[str], device: str, precision: str) -> list[Pair]:
    """Every combination, those that do not apply or are not installed with their state and reason."""
    pairs = []
    for implementation in implementations:
        for spec in specs:
            for dtype in dtypes:
                pair = Pair(spec, implementation, dtype, device, precision)
                if reason := implementation.reason_against(spec):
                    pair.state, pair.reason = "n-a", reason
                elif implementation.missing:
                    pair.state = "not-installed"
                    pair.reason = f"needs {', '.join(implementation.missing)}: {implementation.install}"
                pairs.append(pair)
    return pairs


def verify(pairs: list[Pair], level: str, on_event: Event = lambda event: None, silence_s: float = SILENCE_S) -> None:
    """Fill in `pairs`: one worker an implementation, as many at once as there are CPUs, each on a CPU of its own."""
    by_implementation: dict[str, list[Pair]] = {}
    for pair in pairs:
        if pair.state == "pending":
            by_implementation.setdefault(pair.implementation.name, []).append(pair)
    free, lock, stop = cpus(), threading.Lock(), threading.Event()
    live: list[Worker] = []

    def drive(mine: list[Pair], shelf: str) -> None:
        with lock:
            cpu = free.pop()
        try:
            _drive(mine, level, cpu, on_event, silence_s, shelf, live, stop)
        finally:
            with lock:
                free.append(cpu)

    # those that compile first: they take longest, and must not be left alone at the end
    slow = ("compile", "scan", "step", "jax")
    order = sorted(by_implementation.values(), key=lambda mine: mine[0].implementation.variant not in slow)
    order.sort(key=lambda mine: mine[0].implementation.variant != "compile")
    with tempfile.TemporaryDirectory() as shelf, ThreadPoolExecutor(max_workers=len(cpus())) as pool:
        planned = [pool.submit(drive, mine, shelf) for mine in order]
        try:
            for done in planned:
                done.result()
        except BaseException:  # Ctrl-C above all: nobody waits for what nobody will see
            stop.set()
            for one in planned:
                one.cancel()
            for worker in live:
                worker.kill()
            raise


def _drive(
    mine: list[Pair], level: str, cpu: int, on_event: Event, silence_s: float, shelf: str, live: list[Worker], stop: threading.Event
) -> None:
    """One pair after another in one worker, which is in `live` for whoever wants to end it, after `stop`."""
    worker = None
    for pair in mine:
        if stop.is_set():
            return
        try:
            if worker is None:
                worker = Worker(pair.implementation, use_cpus=[cpu], environment=COMPILE_ONCE | {"JAX_COMPILATION_CACHE_DIR": shelf})
                live.append(worker)
            _one(worker, pair, level, on_event, silence_s, shelf)
        except WorkerDied as death:
            last = pair.checks[-1]["number"] if pair.checks else 0
            pair.state = death.state
            pair.reason = f"after check {last}: {death.detail}" if death.detail else f"after check {last}"
            if worker:
                worker.close()
            worker = None  # the next pair gets a fresh one
        on_event(
            {"event": "pair", "spec": pair.spec.name, "implementation": pair.implementation.name, "dtype": pair.dtype, "state": pair.state}
        )
    if worker:
        worker.close()


def _one(worker: Worker, pair: Pair, level: str, on_event: Event, silence_s: float, shelf: str) -> None:
    request = {"spec": pair.spec.model_dump_json(), "dtype": pair.dtype, "device": pair.device, "precision": pair.precision, "shelf": shelf}
    for event in worker.request("verify", silence_s=silence_s, level=level, **request):
        if event["event"] == "check":
            pair.checks.append({key: value for key, value in event.items() if key != "event"})
        elif event["event"] == "certificate":
            pair.certificate = event["certificate"]
            pair.state = "pass" if pair.certificate["passed"] else "fail"
            failed = [f"{check['number']} ({check['name']})" for check in pair.checks if check["state"] == "fail"]
            pair.reason = f"failed: {', '.join(failed)}" if failed else None
        elif event["event"] == "error":
            pair.state, pair.reason = event["kind"], event["message"]
        on_event(event | {"spec": pair.spec.name, "implementation": pair.implementation.name})


def content(pairs: list[Pair], level: str, command: str, seconds: float) -> dict:
    """What verify.json holds."""
    return {
        "schema": 1,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "level": level,
        "machine": machine.card(),
        "versions": machine.versions(),
        "seconds": round(seconds, 1),
        "rows": [pair.row() for pair in pairs],
        "certificates": [pair.certificate for pair in pairs if pair.certificate],
    }


def write(found: dict, folder: Path, name: str = "verify.json") -> Path:
    path = folder / name
    write_text(path, json.dumps(found, indent=1) + "\n")
    return path
