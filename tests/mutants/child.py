"""Run verify on mutants of one implementation: `python -m tests.mutants.child NAME`, a request a line on stdin.

The framework is imported once; each mutant runs in a fork of this process, so nothing of one is left for the next.
"""

import importlib
import importlib.abc
import importlib.util
import json
import os
import pickle
import signal
import sys
import tempfile
import time
from pathlib import Path

# cheap checks that see most come first; the rest only for those that two of these do not kill
PLAN = (
    ("quick", "float64", (2, 3, 1, 6, 5, 10, 12, 15, 4)),
    ("ci", "float64", (14, 11, 13, 10, 12, 15)),
    ("quick", "float32", (1, 5, 7)),
)
ENOUGH = 2  # checks that must kill a mutant
LIMIT_S = 300


class Planted(importlib.abc.MetaPathFinder):
    """Loads one module from another file: a real file, since tf.function reads a function's source anew."""

    def __init__(self, module: str, path: Path):
        self.module, self.path = module, path

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        return importlib.util.spec_from_file_location(name, self.path) if name == self.module else None


def main(name: str) -> None:
    import impls

    implementation = impls.load(name)
    for requirement in implementation.requires:
        importlib.import_module(requirement)
    importlib.import_module("sklearn.datasets")
    importlib.import_module("scipy.stats")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        answers.write(json.dumps(forked(implementation, request)) + "\n")
        answers.flush()


def forked(implementation: object, request: dict) -> dict:
    """{"killed_by": [[check, dtype, spec, what], ...], "seconds": ...} of one mutant."""
    start, (receiver, sender) = time.perf_counter(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(receiver)
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 2)
            signal.alarm(LIMIT_S)
            found = examine(implementation, request)
            with os.fdopen(sender, "wb") as file:
                pickle.dump(found, file)
        finally:
            os._exit(0)
    os.close(sender)
    with os.fdopen(receiver, "rb") as file:
        content = file.read()
    _, status = os.waitpid(pid, 0)
    killed = pickle.loads(content) if content else [["-", "-", "-", f"process ended with status {status}"]] * ENOUGH
    return {"killed_by": killed, "seconds": round(time.perf_counter() - start, 2)}


def examine(implementation: object, request: dict) -> list[list]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / request["file"]
        path.write_text(request["source"], encoding="utf-8")
        sys.meta_path.insert(0, Planted(request["module"], path))
        import specs
        from harness.verify import ladder
        from harness.verify.context import Context

        killed: list[list] = []
        for level, dtype, numbers in PLAN:
            due = {check.number: check for check in ladder.due(level, dtype)}
            for number in numbers:
                for name in request["specs"]:
                    spec = specs.load(name)
                    if number not in due or implementation.reason_against(spec) or any(k[0] == number for k in killed):
                        continue
                    what = outcome(ladder, due[number], Context, (implementation, spec, dtype, level))
                    if what:
                        killed.append([number, dtype, name, what])
                if len(killed) >= ENOUGH:
                    return killed
        return killed


def outcome(ladder: object, check: object, context_class: type, arguments: tuple) -> str | None:
    """Why the check fails, or None."""
    implementation, spec, dtype, level = arguments
    try:
        result = ladder.perform(check, context_class(implementation, spec, dtype, level=level))
    except Exception as error:  # noqa: BLE001 - a mutant may raise anything, also while it is built
        return f"{type(error).__name__}: {error}"[:200]
    if result.state != "fail":
        return None
    return f"{result.what}: error {result.error:.2g}" if result.what else (result.reason or "")[:200]


if __name__ == "__main__":
    main(sys.argv[1])
