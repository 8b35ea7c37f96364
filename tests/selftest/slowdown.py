"""Real work, planted in NumPy's step of training: so much of it that a step takes a given share longer, found by measuring."""

import json
import subprocess
import sys
from pathlib import Path

# Appended to impls/numpy/backend.py, or to a copy of it: every timed step of training also takes the exponential of so many numbers.
SOURCE = """

PLANTED = np.full({elements}, 0.5, np.float32)  # planted by tests/selftest: {share:.0%} more work in a step
_timed_train = Trainable.timed_train


def timed_train(self, batch):
    step = _timed_train(self, batch)

    def slower():
        np.exp(PLANTED)
        return step()

    return slower


Trainable.timed_train = timed_train
"""

FIRST = 10_000  # elements of the first guess
CALIBRATE = """
import json, sys
from statistics import median
from time import perf_counter
import numpy as np
import impls, specs
from harness import data

spec, share, elements, steps = specs.load(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), 60
model = impls.load("numpy").build(spec)
model.prepare({"x": np.resize(data.load(spec).train, (spec.training.batch_size, spec.d_x))}, 1, "train", 0)

def seconds(extra):
    start = perf_counter()
    for _ in range(steps):
        if extra is not None:
            np.exp(extra)
        model.run()
    model.block()
    return perf_counter() - start

def cost(n):  # of that many exponentials, as a share of a step, both in turn
    extra = np.full(n, 0.5, np.float32)
    pairs = [(seconds(None), seconds(extra)) for _ in range(60)]
    return median(slow / plain for plain, slow in pairs) - 1

for _ in range(3):
    elements = max(1, round(elements * share / cost(elements)))
print(json.dumps({"elements": elements, "share": cost(elements)}))
"""


def calibrated(tree: Path, spec: str, share: float) -> dict:
    """{"elements": how many, "share": what they were measured to cost} in that tree's NumPy."""
    command = [sys.executable, "-c", CALIBRATE, spec, str(share), str(FIRST)]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=200)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


def plant(backend: Path, elements: int, share: float) -> None:
    """Into the source of NumPy's backend."""
    backend.write_text(backend.read_text(encoding="utf-8") + SOURCE.format(elements=elements, share=share), encoding="utf-8")
