"""Autoencoder (Hinton & Salakhutdinov 2006), in NumPy, gradients by hand.

    encode  x      -> z               latent code
    decode  z      -> logits          p(x|z), by the spec's likelihood
    terms   x      -> reconstruction  per example, nats
    loss    terms  -> scalar          mean over the batch
    latent  x      -> z               by name
    x_hat   z      -> x_hat           mean of p(x|z)
"""
from typing import Any as Array  # ndarray, but a mean is one of NumPy's scalars

import numpy as np
from jaxtyping import Float

from impls.numpy.layers import MLP, Dense, d_nll, data_mean, nll
from specs import Spec


class AE:
    def __init__(self, spec: Spec):
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


def terms(model: AE, x: Float[Array, "n d_x"]) -> dict[str, Float[Array, " n"]]:
    z = model.encode(x)
    logits = model.decode(z)
    return {"reconstruction": nll(model.spec, logits, x)}


def loss(spec: Spec, terms: dict[str, Float[Array, " n"]]) -> Float[Array, ""]:
    return np.mean(terms["reconstruction"])


def backward(model: AE, x: Float[Array, "n d_x"]) -> dict[str, Float[Array, " n"]]:
    z = model.encode(x)  # API: no autograd; the layers keep what their own backward needs
    logits = model.decode(z)
    reconstruction, d_logits = d_nll(model.spec, logits, x)
    d_z = model.decoder.backward(model.logits.backward(d_logits / x.shape[0]))
    d_h = model.z.backward(d_z)
    model.encoder.backward(d_h, first=True)
    return {"reconstruction": reconstruction}


def latent(model: AE, x: Float[Array, "n d_x"]) -> dict[str, Float[Array, "n d_z"]]:
    return {"z": model.encode(x)}


def x_hat(model: AE, z: Float[Array, "n d_z"]) -> Float[Array, "n d_x"]:
    return data_mean(model.spec, model.decode(z))
