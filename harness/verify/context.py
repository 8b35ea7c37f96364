"""What a check is given: the implementation under test, the spec, the data, the reference, and a place for its comparisons."""

import hashlib
import os
import pickle
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

import impls
from harness import data
from harness.verify.compare import Comparisons
from impls import Implementation, Model
from specs import Spec
from specs.noise import batch, batches
from specs.parameters import initial

T = TypeVar("T")
STEPS = {"quick": 60, "ci": 200, "report": 1000}  # of a float64 trajectory and of an optimizer tape


@dataclass
class Context:
    implementation: Implementation
    spec: Spec
    dtype: str
    device: str = "cpu"
    precision: str = "highest"
    level: str = "ci"
    record: Comparisons = field(default_factory=Comparisons)
    shelf: Path | None = None  # a folder that the workers of one run share

    def __post_init__(self) -> None:
        self.data = data.load(self.spec)
        self.rows = self.spec.training.batch_size
        self.models: dict[str, Model] = {}

    @property
    def steps(self) -> int:
        return STEPS[self.level]

    @property
    def itself(self) -> bool:
        """True where the implementation is the reference, which then is compared with the oracle."""
        return self.implementation.name == "numpy"

    @property
    def gates(self):
        return self.spec.gates

    def build(self, spec: Spec | None = None, variant: str | None = None) -> Model:
        """A newly built model of the implementation under test."""
        return self.implementation.build(spec or self.spec, device=self.device, dtype=self.dtype, precision=self.precision, variant=variant)

    def fresh(self, spec: Spec | None = None, variant: str | None = None) -> Model:
        """A model at its initial parameters with a new optimizer. Compiling takes most of verify's time, so it is built once
        for each spec and variant and reset for each caller: only the last one given out may be used."""
        spec = spec or self.spec
        key = f"{spec.model} {spec.hash} {variant}"
        if key not in self.models:
            self.models[key] = self.build(spec, variant)
        model = self.models[key]
        start = initial(spec, self.dtype)
        zeros = {name: np.zeros_like(value) for name, value in start.items()}
        model.set_parameters(start)
        model.set_optimizer_state({"step": 0, "m": zeros, "v": zeros})
        return model

    def shared(self, spec: Spec | None = None) -> Model:
        """A model that checks share, for what does not depend on its state: they set the parameters that they need."""
        spec = spec or self.spec
        key = f"{spec.model} {spec.hash} None"
        if key not in self.models:
            self.models[key] = self.build(spec)
        return self.models[key]

    def reference(self, spec: Spec | None = None) -> Model:
        """The NumPy reference, in float64."""
        return impls.load("numpy").build(spec or self.spec, dtype="float64")

    def once(self, what: str, make: Callable[[], T]) -> T:
        """make(): something that depends on the spec and dtype alone, and that the first worker of a run to need it leaves
        on the shelf for the others. `what` names it and all else that it depends on."""
        if self.shelf is None:
            return make()
        path = self.shelf / hashlib.sha256(f"{self.spec.hash} {self.dtype} {what}".encode()).hexdigest()
        if path.exists():
            return pickle.loads(path.read_bytes())
        found = make()
        descriptor, name = tempfile.mkstemp(dir=self.shelf)
        with os.fdopen(descriptor, "wb") as file:
            pickle.dump(found, file)
        os.replace(name, path)  # whole or not at all: another worker may be looking
        return found

    def batch(self, n: int | None = None, step: int = 0) -> dict[str, np.ndarray]:
        """The first rows of the training data (tiled where n is larger), with the noise of `step`."""
        n = n or self.rows
        rows = np.arange(step * n, step * n + n) % len(self.data.train)
        return batch(self.spec, self.data.train[rows], step, self.dtype)

    def batches(self, steps: int, spec: Spec | None = None):
        return batches(spec or self.spec, self.data.train, steps, self.dtype, self.rows)

    def draw(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([self.spec.seed, 6, *key])
