"""Layers, activations and likelihoods, in NumPy, each with its derivative by hand.

    Dense          x            -> y           y = x w + b
    MLP            x            -> h           Dense and activation, once per width
    bernoulli_nll  logits, x    -> (n,)        -log Bernoulli(x; sigmoid logits), nats, stable for large logits
    gaussian_nll   logits, x    -> (n,)        -log N(x; logits, variance), nats
    data_mean      logits       -> x_hat       the likelihood's mean
"""
import math

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array
from scipy.special import erf, expit

from specs import Spec


def softplus(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))  # API: logaddexp is 22 times slower in float32


def normal_cdf(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    return 0.5 * (1 + erf(x * math.sqrt(0.5)))


ACTIVATIONS = {  # value from x; derivative from x and the value h
    "identity": (lambda x: x, lambda x, h: np.ones_like(x)),
    "relu": (lambda x: np.maximum(x, 0), lambda x, h: (x > 0).astype(x.dtype)),  # 0 at the tie
    "tanh": (np.tanh, lambda x, h: 1 - h**2),
    "softplus": (softplus, lambda x, h: -np.expm1(-h)),  # 1 / (1 + exp(-x))
    "gelu": (lambda x: x * normal_cdf(x), lambda x, h: normal_cdf(x) + x * np.exp(-0.5 * x**2) / math.sqrt(2 * math.pi)),
}


class Dense:
    def __init__(self, d_in: int, d_out: int):
        (self.w, self.d_w), (self.b, self.d_b) = np.zeros((2, d_in, d_out)), np.zeros((2, d_out))

    def __call__(self, x: Float[Array, "n d_in"]) -> Float[Array, "n d_out"]:
        self.x = x
        return x @ self.w + self.b

    def backward(self, d_y: Float[Array, "n d_out"], first: bool = False) -> Float[Array, "n d_in"] | None:
        np.matmul(self.x.T, d_y, out=self.d_w)  # in place: a new array of this size has pages to be cleared first
        np.sum(d_y, axis=0, out=self.d_b)
        return None if first else d_y @ self.w.T  # the data need no gradient


class MLP:
    def __init__(self, d_in: int, widths: tuple[int, ...], activation: str):
        sizes = (d_in, *widths)
        self.layers = [Dense(sizes[i], sizes[i + 1]) for i in range(len(widths))]
        self.activation, self.derivative = ACTIVATIONS[activation]

    def __call__(self, h: Float[Array, "n d_in"]) -> Float[Array, "n d_h"]:
        self.values = []
        for layer in self.layers:
            a = layer(h)
            h = self.activation(a)
            self.values.append((a, h))
        return h

    def backward(self, d_h: Float[Array, "n d_h"], first: bool = False) -> Float[Array, "n d_in"] | None:
        for layer, (a, h) in zip(reversed(self.layers), reversed(self.values), strict=True):
            d_h = layer.backward(d_h * self.derivative(a, h), first and layer is self.layers[0])
        return d_h


def bernoulli_nll(logits: Float[Array, "n d_x"], x: Float[Array, "n d_x"]) -> Float[Array, " n"]:
    return np.sum(softplus(logits) - x * logits, axis=-1)


def gaussian_nll(logits: Float[Array, "n d_x"], x: Float[Array, "n d_x"], variance: float) -> Float[Array, " n"]:
    return 0.5 * np.sum((x - logits) ** 2 / variance + math.log(2 * math.pi * variance), axis=-1)


def nll(spec: Spec, logits: Float[Array, "n d_x"], x: Float[Array, "n d_x"]) -> Float[Array, " n"]:
    return bernoulli_nll(logits, x) if spec.likelihood == "bernoulli" else gaussian_nll(logits, x, spec.variance)


def d_nll(spec: Spec, logits: Float[Array, "n d_x"], x: Float[Array, "n d_x"]) -> tuple[Float[Array, " n"], Float[Array, "n d_x"]]:
    if spec.likelihood == "gaussian":  # the value and the derivative: both take the same exponentials
        return gaussian_nll(logits, x, spec.variance), (logits - x) / spec.variance
    s = softplus(logits)
    return np.sum(s - x * logits, axis=-1), -np.expm1(-s) - x


def data_mean(spec: Spec, logits: Float[Array, "n d_x"]) -> Float[Array, "n d_x"]:
    return expit(logits) if spec.likelihood == "bernoulli" else logits
