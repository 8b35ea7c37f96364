"""Linear autoencoder (Baldi & Hornik 1989), in Keras 3 (any backend).

    encode  x      -> z               z = x w + b
    decode  z      -> x_hat           x_hat = z w' + b'
    terms   x      -> reconstruction  per example, squared error, summed over features
    loss    terms  -> scalar          mean over the batch
    latent  x      -> z               by name
    x_hat   z      -> x_hat           the decoder itself
"""
from typing import Any as Array

import keras
from jaxtyping import Float
from keras import ops

from impls.keras.layers import Dense, mean
from specs import Spec


class LinearAE(keras.Model):
    def __init__(self, spec: Spec):
        super().__init__()
        self.spec = spec
        self.z = Dense(spec.d_x, spec.d_z)
        self.x_hat = Dense(spec.d_z, spec.d_x)

    def encode(self, x: Float[Array, "n d_x"]) -> Float[Array, "n d_z"]:
        return self.z(x)

    def decode(self, z: Float[Array, "n d_z"]) -> Float[Array, "n d_x"]:
        return self.x_hat(z)

    def call(self, batch: dict[str, Array]) -> dict[str, Float[Array, " n"]]:  # API: what fit() runs
        return terms(self, **batch)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True) -> Float[Array, ""]:
        return loss(self.spec, y_pred)  # API: what fit() minimizes; y_pred is what call() returns


def terms(model: LinearAE, x: Float[Array, "n d_x"]) -> dict[str, Float[Array, " n"]]:
    z = model.encode(x)
    x_hat = model.decode(z)
    return {"reconstruction": ops.sum((x - x_hat) ** 2, axis=-1)}


def loss(spec: Spec, terms: dict[str, Float[Array, " n"]]) -> Float[Array, ""]:
    return mean(terms["reconstruction"])


def latent(model: LinearAE, x: Float[Array, "n d_x"]) -> dict[str, Float[Array, "n d_z"]]:
    return {"z": model.encode(x)}


def x_hat(model: LinearAE, z: Float[Array, "n d_z"]) -> Float[Array, "n d_x"]:
    return model.decode(z)
