"""Adam (Kingma & Ba 2015, Algorithm 1), in NumPy: bias-corrected moments, epsilon outside the root."""
import math

import numpy as np
from numpy import ndarray as Array

from specs.schema import Adam as AdamSpec

PIECE = 1 << 16  # entries at a time: what one pass over them leaves in the cache, the next finds there


class Adam:
    """Of all parameters in one flat array."""

    def __init__(self, spec: AdamSpec, p: Array):
        self.spec = spec
        self.step = 0
        self.m, self.v = np.zeros_like(p), np.zeros_like(p)
        self.work = np.empty_like(p[:PIECE])

    def update(self, p: Array, g: Array) -> None:
        """One step, in place."""
        self.step += 1
        for start in range(0, p.size, PIECE):
            piece = slice(start, start + PIECE)
            self.update_piece(p[piece], g[piece], self.m[piece], self.v[piece], self.work[: p.size - start])

    def update_piece(self, p: Array, g: Array, m: Array, v: Array, d: Array) -> None:
        """`d`: a work array. The bias correction of v is taken out of the root, and that of m into the rate: two passes less."""
        s = self.spec
        correction = math.sqrt(1 - s.beta2**self.step)
        np.multiply(g, 1 - s.beta1, out=d)
        m *= s.beta1
        m += d
        np.square(g, out=d)
        d *= 1 - s.beta2
        v *= s.beta2
        v += d
        np.sqrt(v, out=d)
        d += s.epsilon * correction
        np.divide(m, d, out=d)
        d *= s.learning_rate * correction / (1 - s.beta1**self.step)
        p -= d
