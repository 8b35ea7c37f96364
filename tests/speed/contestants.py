"""Whatever can be timed, by name, each with `steps`, `run` and `block`; made in a process of its own (`child.py`).

numpy, torch, ...      an implementation, by `impls.load(name).build(spec)` and its timed triple
loop:torch             its `train` over batches that come from the host, with their noise, checks and copies
bare:torch, ...        the same step by hand, with nothing of ours (`bare/`)
products:numpy, ...    the step's matrix products alone
slow:torch             an implementation with a planted delay, for the tests of this measurement
"""

import importlib
import time
from pathlib import Path

import numpy as np

import impls
import specs
from harness import data
from specs import Spec
from specs.noise import batches
from specs.parameters import initial

FOLDER = Path(__file__).parent
SEED = 1
DTYPE = "float32"
BARE = {
    "jax": ("in_jax", "Bare"),
    "jax-scan": ("in_jax", "Scan"),
    "torch": ("in_torch", "Bare"),
    "tensorflow": ("in_tensorflow", "Bare"),
    "tensorflow-xla": ("in_tensorflow", "Compiled"),
}
DELAY = 4.0  # steps, planted after each


def spec_of(which: str) -> Spec:
    """ "vae" or "pca": the file beside this one."""
    return specs.load(str(FOLDER / f"{which}.toml"))


def implementation_of(contestant: str) -> str | None:
    """The implementation whose environment a contestant's process needs, or None."""
    kind, _, name = contestant.rpartition(":")
    return name if kind in ("", "loop", "slow") else None


def make(contestant: str, which: str, steps: int):
    spec = spec_of(which)
    kind, _, name = contestant.rpartition(":")
    if kind == "products":
        module = importlib.import_module(f"tests.speed.bare.in_{name}")
        return module.Products(importlib.import_module("tests.speed.bare.in_numpy").products(spec), steps)
    if kind == "bare":
        return bare(name, spec, steps)
    return {"": Timed, "loop": Loop, "slow": Slow}[kind](name, spec, steps)


def bare(name: str, spec: Spec, steps: int, dtype: str = DTYPE):
    x = rows(spec, dtype)
    if name == "sklearn":
        return importlib.import_module("tests.speed.bare.in_numpy").ScikitLearn(spec, x, steps)
    file, owner = BARE[name]
    module = importlib.import_module(f"tests.speed.bare.{file}")
    return getattr(module, owner)(initial(spec, dtype), x, steps, SEED, spec.optimizer)


def rows(spec: Spec, dtype: str = DTYPE) -> np.ndarray:
    """One batch, or for PCA everything."""
    train = data.load(spec).train
    return (train[: spec.training.batch_size] if spec.trains else train).astype(dtype)


class Timed:
    def __init__(self, name: str, spec: Spec, steps: int):
        self.model = impls.load(name).build(spec, dtype=DTYPE)
        self.model.prepare({"x": rows(spec)}, steps, "train" if spec.trains else "fit", SEED)
        self.run, self.block = self.model.run, self.model.block


class Slow(Timed):
    def __init__(self, name: str, spec: Spec, steps: int):
        super().__init__(name, spec, steps)
        self.right = self.model.run
        self.run = self.slowly

    def slowly(self) -> None:
        start = time.perf_counter()
        self.right()
        self.model.block()
        end = time.perf_counter() + DELAY * (time.perf_counter() - start)
        while time.perf_counter() < end:
            pass


class Loop:
    def __init__(self, name: str, spec: Spec, steps: int):
        self.model, self.spec, self.steps = impls.load(name).build(spec, dtype=DTYPE), spec, steps
        self.x = data.load(spec).train.astype(DTYPE)

    def run(self) -> None:
        self.losses = self.model.train(batches(self.spec, self.x, self.steps, DTYPE))

    def block(self) -> None:
        """`train` has returned losses: it is done."""
