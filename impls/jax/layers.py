"""Layers, activations and likelihoods, in JAX with Flax NNX.

    Dense          x            -> y           y = x w + b
    MLP            x            -> h           Dense and activation, once per width
    bernoulli_nll  logits, x    -> (n,)        -log Bernoulli(x; sigmoid logits), nats, stable for large logits
    gaussian_nll   logits, x    -> (n,)        -log N(x; logits, variance), nats
    data_mean      logits       -> x_hat       the likelihood's mean
"""
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from specs import Spec

ACTIVATIONS = {
    "identity": lambda x: x,
    "relu": jax.nn.relu,  # API: its derivative at 0 is 0; that of jnp.maximum(x, 0) is 1/2
    "tanh": jnp.tanh,
    "softplus": jax.nn.softplus,  # API: logaddexp(x, 0), exact everywhere
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),  # API: the tanh approximation by default
}


Dense = nnx.Linear  # API: kernel is (d_in, d_out), as w; random numbers come from an explicit rngs


class MLP(nnx.Module):
    def __init__(self, d_in: int, widths: tuple[int, ...], activation: str, *, rngs: nnx.Rngs):
        sizes = (d_in, *widths)
        self.layers = nnx.List(Dense(sizes[i], sizes[i + 1], rngs=rngs) for i in range(len(widths)))
        self.activation = ACTIVATIONS[activation]

    def __call__(self, h: Float[Array, "n d_in"]) -> Float[Array, "n d_h"]:
        for layer in self.layers:
            h = self.activation(layer(h))
        return h


def bernoulli_nll(logits: Float[Array, "n d_x"], x: Float[Array, "n d_x"]) -> Float[Array, " n"]:
    return jnp.sum(jax.nn.softplus(logits) - x * logits, axis=-1)  # API: written out; XLA fuses it


def gaussian_nll(logits: Float[Array, "n d_x"], x: Float[Array, "n d_x"], variance: float) -> Float[Array, " n"]:
    return 0.5 * jnp.sum((x - logits) ** 2 / variance + math.log(2 * math.pi * variance), axis=-1)


def nll(spec: Spec, logits: Float[Array, "n d_x"], x: Float[Array, "n d_x"]) -> Float[Array, " n"]:
    return bernoulli_nll(logits, x) if spec.likelihood == "bernoulli" else gaussian_nll(logits, x, spec.variance)


def data_mean(spec: Spec, logits: Float[Array, "n d_x"]) -> Float[Array, "n d_x"]:
    return jax.nn.sigmoid(logits) if spec.likelihood == "bernoulli" else logits
