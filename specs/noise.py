"""Batch order and noise, drawn once in NumPy and given to every implementation alike."""

from collections.abc import Iterator
from itertools import count

import numpy as np

from specs.errors import SpecError
from specs.schema import Spec

AHEAD = 16  # steps whose noise is drawn at once: just after a step, with the caches full of its arrays, a draw takes three times as long


def order(spec: Spec, n: int, batch_size: int | None = None) -> Iterator[np.ndarray]:
    """Row indices of one batch after another, for ever: each epoch is a fresh permutation, its remainder dropped."""
    size = batch_size or spec.training.batch_size
    if size > n:
        raise SpecError(f"spec {spec.name}: a batch of {size} rows cannot be drawn from {n} rows without repeats")
    rng = np.random.default_rng([spec.seed, 1])
    while True:
        rows = rng.permutation(n)
        for start in range(0, n - size + 1, size):
            yield rows[start : start + size]


def eps(spec: Spec, n: int, step: int, dtype: str = "float64") -> np.ndarray:
    """Standard normal noise (n, d_z) of one step."""
    return np.random.default_rng([spec.seed, 2, step]).standard_normal((n, spec.d_z)).astype(dtype)


def batch(spec: Spec, x: np.ndarray, step: int = 0, dtype: str = "float64") -> dict[str, np.ndarray]:
    """The rows `x` as a batch of this spec: with noise where the model needs it."""
    made = {"x": np.ascontiguousarray(x, dtype)}
    if spec.noisy:
        made["eps"] = eps(spec, len(x), step, dtype)
    return made


def batches(
    spec: Spec, x: np.ndarray, steps: int, dtype: str = "float64", batch_size: int | None = None
) -> Iterator[dict[str, np.ndarray]]:
    """`steps` training batches from the rows of `x` (n, d_x)."""
    rows, n = order(spec, len(x), batch_size), batch_size or spec.training.batch_size
    noise = _ahead(spec, n, dtype)
    for _ in range(steps):
        made = {"x": np.ascontiguousarray(x.take(next(rows), axis=0), dtype)}
        yield made | {"eps": next(noise)} if spec.noisy else made


def _ahead(spec: Spec, n: int, dtype: str) -> Iterator[np.ndarray]:
    for first in count(0, AHEAD):
        yield from [eps(spec, n, step, dtype) for step in range(first, first + AHEAD)]
