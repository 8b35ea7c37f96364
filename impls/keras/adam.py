"""Adam (Kingma & Ba 2015, Algorithm 1), in Keras 3 (any backend).

    correction   beta, t                      -> 1 - beta^t   of a moment that started at zero
    update_step  gradient, variable           -> variable     variable - learning_rate m_hat / (sqrt(v_hat) + epsilon)
"""
import math
from typing import Any as Array

import keras
from jaxtyping import Float
from keras import ops


class Adam(keras.optimizers.Optimizer):
    """API: keras.optimizers.Adam is another formula: its epsilon is the paper's "epsilon hat" (section 2, last lines).

    There epsilon is added to sqrt(v) before the bias correction, so early steps see it up to 1/sqrt(1 - beta2) = 32 times larger.
    """

    def __init__(self, learning_rate: float, beta1: float, beta2: float, epsilon: float):
        super().__init__(learning_rate=lambda: learning_rate)  # API: a number would become a variable of floatx, float32
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon

    def build(self, variables: list[keras.Variable]) -> None:
        super().build(variables)
        self.m, self.v = self.add_optimizer_variables(variables, ("m", "v"))

    def update_step(self, gradient: Float[Array, "..."], variable: keras.Variable, learning_rate: float) -> None:
        i = self._get_variable_index(variable)
        t = ops.cast(self.iterations + 1, variable.dtype)
        m = self.beta1 * self.m[i].value + (1 - self.beta1) * gradient
        v = self.beta2 * self.v[i].value + (1 - self.beta2) * gradient**2
        m_hat, v_hat = m / correction(self.beta1, t), v / correction(self.beta2, t)
        self.assign(self.m[i], m)
        self.assign(self.v[i], v)
        self.assign_sub(variable, learning_rate * m_hat / (ops.sqrt(v_hat) + self.epsilon))


def correction(beta: float, t: Float[Array, ""]) -> Float[Array, ""]:
    """By expm1: in float32, 1 - 0.999^t loses three digits at t = 1."""
    return -ops.expm1(t * math.log(beta)) if beta else ops.ones_like(t)
