"""Linear autoencoder (Baldi & Hornik 1989), in NumPy, gradients by hand.

    encode  x      -> z               z = x w + b
    decode  z      -> x_hat           x_hat = z w' + b'
    terms   x      -> reconstruction  per example, squared error, summed over features
    loss    terms  -> scalar          mean over the batch
    latent  x      -> z               by name
    x_hat   z      -> x_hat           the decoder itself
"""
from typing import Any as Array  # ndarray, but a mean is one of NumPy's scalars

import numpy as np
from jaxtyping import Float

from impls.numpy.layers import Dense
from specs import Spec


class LinearAE:
    def __init__(self, spec: Spec):
        self.spec = spec
        self.z = Dense(spec.d_x, spec.d_z)
        self.x_hat = Dense(spec.d_z, spec.d_x)

    def encode(self, x: Float[Array, "n d_x"]) -> Float[Array, "n d_z"]:
        return self.z(x)

    def decode(self, z: Float[Array, "n d_z"]) -> Float[Array, "n d_x"]:
        return self.x_hat(z)


def terms(model: LinearAE, x: Float[Array, "n d_x"]) -> dict[str, Float[Array, " n"]]:
    z = model.encode(x)
    x_hat = model.decode(z)
    return {"reconstruction": np.sum((x - x_hat) ** 2, axis=-1)}


def loss(spec: Spec, terms: dict[str, Float[Array, " n"]]) -> Float[Array, ""]:
    return np.mean(terms["reconstruction"])


def backward(model: LinearAE, x: Float[Array, "n d_x"]) -> dict[str, Float[Array, " n"]]:
    z = model.encode(x)  # API: no autograd; the layers keep what their own backward needs
    x_hat = model.decode(z)
    d_x_hat = 2 * (x_hat - x) / x.shape[0]
    d_z = model.x_hat.backward(d_x_hat)
    model.z.backward(d_z, first=True)
    return {"reconstruction": np.sum((x - x_hat) ** 2, axis=-1)}


def latent(model: LinearAE, x: Float[Array, "n d_x"]) -> dict[str, Float[Array, "n d_z"]]:
    return {"z": model.encode(x)}


def x_hat(model: LinearAE, z: Float[Array, "n d_z"]) -> Float[Array, "n d_x"]:
    return model.decode(z)
