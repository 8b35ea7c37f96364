"""NumPy on the card."""

from collections.abc import Callable

import numpy as np
from scipy.linalg import lu_factor

from impls.instrument import Base


class Instrument(Base):
    triad_arrays = 5  # a product and a sum: NumPy does not fuse them

    def reason_against(self, operation: str) -> str | None:
        return "NumPy has no bfloat16" if self.dtype == "bfloat16" else super().reason_against(operation)

    def random(self, *shape: int) -> np.ndarray:
        return np.random.default_rng(0).standard_normal(shape).astype(self.dtype)

    def matmul(self, a: np.ndarray, b: np.ndarray) -> Callable:
        out = np.empty((a.shape[0], b.shape[1]), a.dtype)
        return lambda: np.matmul(a, b, out=out)

    def lu(self, a: np.ndarray) -> Callable:
        return lambda: lu_factor(a, check_finite=False)

    def triad(self, a: np.ndarray, b: np.ndarray) -> Callable:
        out, three = np.empty_like(a), a.dtype.type(3)

        def run() -> np.ndarray:
            np.multiply(b, three, out=out)
            return np.add(a, out, out=out)

        return run

    def add_one(self, x: np.ndarray) -> Callable:
        return lambda: x + x.dtype.type(1)
