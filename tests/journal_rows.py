"""Rows of a journal, whole: what a test does not name has a plain value."""

from harness.bench.journal import Journal
from harness.bench.schema import kind

AT = "2026-01-02T03:05:00.000+00:00"
CELL = {
    "spec": "vae", "spec_hash": "5" * 64, "implementation": "numpy", "operation": "train",
    "device": "cpu", "dtype": "float32", "precision": "highest", "batch_size": 10, "replica": 0,
}  # fmt: skip
MACHINE = {"cpu": "Test CPU", "cores": 2, "memory_bytes": 2**34, "architecture": "x86_64", "gpu": []}
TIMED = {
    "certificate": "abc", "code_hash": "c0de", "versions": {}, "margin": 0.1, "import_s": None, "build_s": None, "first_call_s": None,
    "steps_per_round": 4, "rounds_s": [0.4], "wait_s": 1e-6, "warm_up": None, "compiles": None, "transfers": None, "quiet": None,
    "energy": None, "affinity": [0], "threads": 1, "facts": {},
}  # fmt: skip
OF_CELL = {"cell": CELL, "block": 0, "at": AT}
PLAIN = {
    "run": {"made": AT, "command": "isoform bench", "seed": 11, "level": "quick", "plan": None, "machine": MACHINE, "versions": {},
            "affinity": [0, 1], "threads": 2, "specs": {}, "note": "no ranking", "stop": None, "joined": False},
    "resume": {"made": AT},
    "state": {"block": 0, "spec": "vae", "when": "before", "at": AT, "load": [0.0], "memory_available": 2**30, "swap_used": 0,
              "pressure": {}},
    "start": {"pass": "time", **OF_CELL},
    "failed": {"pass": "time", **OF_CELL},
    "timed": {**OF_CELL, "reason": None, **TIMED},
    "remembered": {**OF_CELL, "reason": None, "certificate": "abc", "host_peak": None, "alloc_peak": None, "device_reserved_peak": None,
                   "device_used_peak": None, "planned_peak": None, "reasons": {}},
    "selftest": {"implementation": "numpy", "device": "cpu", "column": "host_peak", "expected": 2**26, "got": 2**26, "reason": None,
                 "at": AT},
    "reached": {**OF_CELL, "reason": None, "certificate": "abc", "code_hash": "c0de", "versions": {}, "seed": 1, "target": 20.0,
                "loss": 19.0, "steps": 100, "seconds": 1.5},
    "end": {"at": AT, "stopped": "blocks: 3 blocks, as the level asks"},
}  # fmt: skip


class Whole(Journal):
    """A journal that completes what it is given."""

    def write(self, row: str, **fields: object) -> None:
        if row == "finish":
            fields = {"pass": "time", "state": "ok", **fields}
        super().write(row, **PLAIN[kind({"row": row, **fields})] | fields)
