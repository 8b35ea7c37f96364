"""Variational autoencoder (Kingma & Welling 2014), in Keras 3 (any backend).

    encode          x               -> mu, logvar           q(z|x) = N(mu, diag exp logvar)
    reparameterize  mu, logvar, eps -> z                    z = mu + exp(logvar/2) * eps
    decode          z               -> logits               p(x|z), by the spec's likelihood
    kl              mu, logvar      -> (n,)                 KL(q(z|x) || N(0, I)), nats
    terms           x, eps          -> reconstruction, kl   per example, nats
    loss            terms           -> scalar               mean over the batch of reconstruction + beta kl
    latent          x               -> mu, logvar           by name
    x_hat           z               -> x_hat                mean of p(x|z)
"""
from typing import Any as Array

import keras
from jaxtyping import Float
from keras import ops

from impls.keras.layers import MLP, Dense, data_mean, mean, nll
from specs import Spec


class VAE(keras.Model):
    def __init__(self, spec: Spec):
        super().__init__()
        self.spec = spec
        self.encoder = MLP(spec.d_x, spec.hidden, spec.activation)
        self.mu = Dense(spec.d_h, spec.d_z)
        self.logvar = Dense(spec.d_h, spec.d_z)
        self.decoder = MLP(spec.d_z, spec.hidden[::-1], spec.activation)
        self.logits = Dense(spec.d_g, spec.d_x)

    def encode(self, x: Float[Array, "n d_x"]) -> tuple[Float[Array, "n d_z"], Float[Array, "n d_z"]]:
        h = self.encoder(x)
        return self.mu(h), self.logvar(h)

    def decode(self, z: Float[Array, "n d_z"]) -> Float[Array, "n d_x"]:
        h = self.decoder(z)
        return self.logits(h)

    def call(self, batch: dict[str, Array]) -> dict[str, Float[Array, " n"]]:  # API: what fit() runs
        return terms(self, **batch)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True) -> Float[Array, ""]:
        return loss(self.spec, y_pred)  # API: what fit() minimizes; y_pred is what call() returns


def reparameterize(
    mu: Float[Array, "n d_z"], logvar: Float[Array, "n d_z"], eps: Float[Array, "n d_z"]
) -> Float[Array, "n d_z"]:
    return mu + ops.exp(0.5 * logvar) * eps


def kl(mu: Float[Array, "n d_z"], logvar: Float[Array, "n d_z"]) -> Float[Array, " n"]:
    return 0.5 * ops.sum(ops.exp(logvar) + mu**2 - 1.0 - logvar, axis=-1)


def terms(model: VAE, x: Float[Array, "n d_x"], eps: Float[Array, "n d_z"]) -> dict[str, Float[Array, " n"]]:
    mu, logvar = model.encode(x)
    z = reparameterize(mu, logvar, eps)
    logits = model.decode(z)
    return {"reconstruction": nll(model.spec, logits, x), "kl": kl(mu, logvar)}


def loss(spec: Spec, terms: dict[str, Float[Array, " n"]]) -> Float[Array, ""]:
    return mean(terms["reconstruction"] + spec.beta * terms["kl"])


def latent(model: VAE, x: Float[Array, "n d_x"]) -> dict[str, Float[Array, "n d_z"]]:
    mu, logvar = model.encode(x)
    return {"mu": mu, "logvar": logvar}


def x_hat(model: VAE, z: Float[Array, "n d_z"]) -> Float[Array, "n d_x"]:
    return data_mean(model.spec, model.decode(z))
