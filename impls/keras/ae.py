"""Autoencoder (Hinton & Salakhutdinov 2006), in Keras 3 (any backend).

    encode  x      -> z               latent code
    decode  z      -> logits          p(x|z), by the spec's likelihood
    terms   x      -> reconstruction  per example, nats
    loss    terms  -> scalar          mean over the batch
    latent  x      -> z               by name
    x_hat   z      -> x_hat           mean of p(x|z)
"""
from typing import Any as Array

import keras
from jaxtyping import Float

from impls.keras.layers import MLP, Dense, data_mean, mean, nll
from specs import Spec


class AE(keras.Model):
    def __init__(self, spec: Spec):
        super().__init__()
        self.spec = spec
        self.encoder = MLP(spec.d_x, spec.hidden, spec.activation)
        self.z = Dense(spec.d_h, spec.d_z)
        self.decoder = MLP(spec.d_z, spec.hidden[::-1], spec.activation)
        self.logits = Dense(spec.d_g, spec.d_x)

    def encode(self, x: Float[Array, "n d_x"]) -> Float[Array, "n d_z"]:
        h = self.encoder(x)
        return self.z(h)

    def decode(self, z: Float[Array, "n d_z"]) -> Float[Array, "n d_x"]:
        h = self.decoder(z)
        return self.logits(h)

    def call(self, batch: dict[str, Array]) -> dict[str, Float[Array, " n"]]:  # API: what fit() runs
        return terms(self, **batch)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True) -> Float[Array, ""]:
        return loss(self.spec, y_pred)  # API: what fit() minimizes; y_pred is what call() returns


def terms(model: AE, x: Float[Array, "n d_x"]) -> dict[str, Float[Array, " n"]]:
    z = model.encode(x)
    logits = model.decode(z)
    return {"reconstruction": nll(model.spec, logits, x)}


def loss(spec: Spec, terms: dict[str, Float[Array, " n"]]) -> Float[Array, ""]:
    return mean(terms["reconstruction"])


def latent(model: AE, x: Float[Array, "n d_x"]) -> dict[str, Float[Array, "n d_z"]]:
    return {"z": model.encode(x)}


def x_hat(model: AE, z: Float[Array, "n d_z"]) -> Float[Array, "n d_x"]:
    return data_mean(model.spec, model.decode(z))
