"""Adam (Kingma & Ba 2015, Algorithm 1), in NumPy: bias-corrected moments, epsilon outside the root."""
import math

import numpy as np
from numpy import ndarray as Array

from specs.schema import Adam as AdamSpec

PIECE = 1 << 16  # entries at a time: what one pass over them leaves in the cache, the next finds there


class Adam:
    def __init__(self, spec: AdamSpec, parameters: dict[str, Array]):
        self.spec = spec
        self.step = 0
        self.m = {name: np.zeros_like(value) for name, value in parameters.items()}
        self.v = {name: np.zeros_like(value) for name, value in parameters.items()}

    def update(self, parameters: dict[str, Array], gradients: dict[str, Array]) -> None:
        """One step, in place."""
        self.step += 1
        for name, g in gradients.items():
            tensors = [array.ravel() for array in (parameters[name], g, self.m[name], self.v[name])]
            work = np.empty_like(tensors[0][:PIECE])
            for start in range(0, g.size, PIECE):
                self.update_piece(*(tensor[start : start + PIECE] for tensor in tensors), work[: g.size - start])

    def update_piece(self, p: Array, g: Array, m: Array, v: Array, d: Array) -> None:
        """`d`: a work array. The bias correction of v is taken out of the root, and that of m into the rate: two passes less."""
        s = self.spec
        correction = math.sqrt(1 - s.beta2**self.step)
        np.subtract(g, m, out=d)
        d *= 1 - s.beta1
        m += d
        np.square(g, out=d)
        d -= v
        d *= 1 - s.beta2
        v += d
        np.sqrt(v, out=d)
        d += s.epsilon * correction
        np.divide(m, d, out=d)
        d *= s.learning_rate * correction / (1 - s.beta1**self.step)
        p -= d
