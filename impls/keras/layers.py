"""Layers, activations and likelihoods, in Keras 3 (any backend).

    Dense          x            -> y           y = x w + b
    MLP            x            -> h           Dense and activation, once per width
    bernoulli_nll  logits, x    -> (n,)        -log Bernoulli(x; sigmoid logits), nats, stable for large logits
    gaussian_nll   logits, x    -> (n,)        -log N(x; logits, variance), nats
    data_mean      logits       -> x_hat       the likelihood's mean
"""
import math
from typing import Any as Array

import keras
from jaxtyping import Float
from keras import ops

from specs import Spec

ACTIVATIONS = {
    "identity": lambda x: x,
    "relu": ops.relu,
    "tanh": lambda x: x - ops.tanh_shrink(x),  # API: ops.tanh computes float64 in float32 on JAX; this one, x - tanh(x), does not
    "softplus": lambda x: -ops.log_sigmoid(-x),  # API: ops.softplus is linear above 20 on PyTorch, off by 2e-9
    "gelu": lambda x: 0.5 * x * (1.0 + ops.erf(math.sqrt(0.5) * x)),  # API: ops.gelu(approximate=False) is off by 5e-9 on TF
}


class Dense(keras.layers.Dense):
    def __init__(self, d_in: int, d_out: int):
        super().__init__(d_out)
        self.build((None, d_in))  # API: a layer takes d_in from its first input, unless it is built by hand

    def call(self, x: Float[Array, "n d_in"]) -> Float[Array, "n d_out"]:  # API: its own call multiplies float64 in float32 on PyTorch
        return x @ self.kernel.value + self.bias.value


class MLP(keras.layers.Layer):
    def __init__(self, d_in: int, widths: tuple[int, ...], activation: str):
        super().__init__()
        sizes = (d_in, *widths)
        self.layers = [Dense(sizes[i], sizes[i + 1]) for i in range(len(widths))]
        self.activation = ACTIVATIONS[activation]
        self.built = True

    def call(self, h: Float[Array, "n d_in"]) -> Float[Array, "n d_h"]:
        for layer in self.layers:
            h = self.activation(layer(h))
        return h


def bernoulli_nll(logits: Float[Array, "n d_x"], x: Float[Array, "n d_x"]) -> Float[Array, " n"]:
    return ops.sum(ops.binary_crossentropy(x, logits, from_logits=True), axis=-1)  # API: from probabilities it clips at 1e-7


def gaussian_nll(logits: Float[Array, "n d_x"], x: Float[Array, "n d_x"], variance: float) -> Float[Array, " n"]:
    return 0.5 * ops.sum((x - logits) ** 2 / variance + math.log(2 * math.pi * variance), axis=-1)


def nll(spec: Spec, logits: Float[Array, "n d_x"], x: Float[Array, "n d_x"]) -> Float[Array, " n"]:
    return bernoulli_nll(logits, x) if spec.likelihood == "bernoulli" else gaussian_nll(logits, x, spec.variance)


def data_mean(spec: Spec, logits: Float[Array, "n d_x"]) -> Float[Array, "n d_x"]:
    return ops.sigmoid(logits) if spec.likelihood == "bernoulli" else logits


def mean(values: Float[Array, "n ..."]) -> Float[Array, "..."]:
    """Over the first axis. API: ops.mean computes float64 in float32 on JAX and PyTorch."""
    return ops.divide(ops.sum(values, axis=0), ops.shape(values)[0])
