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
from collections.abc import Iterator
from pathlib import Path

# (level, dtype, checks): what is cheap and sees most comes first, the rest only for those that two of these do not kill.
# 0 is the renewal of the certificate, on the model about to be timed.
PLAN = (
    ("quick", "float64", (2, 3, 1, 6, 5)),
    ("ci", "float64", (14,)),
    ("renewal", "float32", (0,)),
    ("quick", "float64", (15, 10, 12, 4)),
    ("ci", "float64", (11, 13, 15)),
    ("quick", "float32", (1, 5, 7)),
)
ENOUGH = 2  # checks that must kill a mutant
LIMIT_S = 900


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
    with tempfile.TemporaryDirectory() as shelf:  # not for NumPy: a mutant of the reference is its own reference
        for line in sys.stdin:
            request = json.loads(line) | {"shelf": None if name == "numpy" else shelf}
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
        return list(killers(implementation, request))


def killers(implementation: object, request: dict) -> Iterator[list]:
    """Each check that fails, on the first spec where it does, until there are enough."""
    import specs
    from harness.verify import ladder
    from harness.verify.context import Context
    from harness.verify.renew import renew

    killed, contexts = set(), {}
    for level, dtype, numbers in PLAN:
        due = {check.number: check for check in ladder.due(level, dtype)}
        for number in numbers:
            if number and number not in due:
                continue
            for spec in map(specs.load, request["specs"]):
                if number in killed or len(killed) >= ENOUGH or implementation.reason_against(spec):
                    continue
                key = (spec.name, dtype, level)
                try:
                    if key not in contexts:
                        contexts[key] = Context(implementation, spec, dtype, level=level)
                        contexts[key].shelf = request["shelf"] and Path(request["shelf"])
                    if number:
                        result = ladder.perform(due[number], contexts[key])
                        what = f"{result.what or result.reason}: error {result.error}" if result.state == "fail" else None
                    else:
                        renewed = renew(contexts[key].build())
                        what = None if renewed["passed"] else renewed["message"]
                except Exception as error:  # noqa: BLE001 - a mutant may raise anything, also while it is built
                    what = f"{type(error).__name__}: {error}"[:200]
                if what:
                    killed.add(number)
                    yield [number, dtype, spec.name, what[:200]]


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(sys.argv[2])})  # before any import that sizes a thread pool
    main(sys.argv[1])
