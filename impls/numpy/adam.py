"""Adam (Kingma & Ba 2015, Algorithm 1), in NumPy: bias-corrected moments, epsilon outside the root."""
import numpy as np
from numpy import ndarray as Array

from specs.schema import Adam as AdamSpec


class Adam:
    def __init__(self, spec: AdamSpec, parameters: dict[str, Array]):
        self.spec = spec
        self.step = 0
        self.m = {name: np.zeros_like(value) for name, value in parameters.items()}
        self.v = {name: np.zeros_like(value) for name, value in parameters.items()}

    def update(self, parameters: dict[str, Array], gradients: dict[str, Array]) -> None:
        """One step, in place."""
        s = self.spec
        self.step += 1
        for name, g in gradients.items():
            m, v = self.m[name], self.v[name]
            m += (1 - s.beta1) * (g - m)
            v += (1 - s.beta2) * (g**2 - v)
            m_hat = m / (1 - s.beta1**self.step)
            v_hat = v / (1 - s.beta2**self.step)
            parameters[name] -= s.learning_rate * m_hat / (np.sqrt(v_hat) + s.epsilon)
