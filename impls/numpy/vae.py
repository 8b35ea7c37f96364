"""Variational autoencoder (Kingma & Welling 2014), in NumPy, gradients by hand.

    encode          x               -> mu, logvar           q(z|x) = N(mu, diag exp logvar)
    reparameterize  mu, logvar, eps -> z                    z = mu + exp(logvar/2) * eps
    decode          z               -> logits               p(x|z), by the spec's likelihood
    kl              mu, logvar      -> (n,)                 KL(q(z|x) || N(0, I)), nats
    terms           x, eps          -> reconstruction, kl   per example, nats
    loss            terms           -> scalar               mean over the batch of reconstruction + beta kl
    latent          x               -> mu, logvar           by name
    x_hat           z               -> x_hat                mean of p(x|z)
"""
from typing import Any as Array  # ndarray, but a mean is one of NumPy's scalars

import numpy as np
from jaxtyping import Float

from impls.numpy.layers import MLP, Dense, d_nll, data_mean, nll
from specs import Spec


class VAE:
    def __init__(self, spec: Spec):
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


def reparameterize(
    mu: Float[Array, "n d_z"], logvar: Float[Array, "n d_z"], eps: Float[Array, "n d_z"]
) -> Float[Array, "n d_z"]:
    return mu + np.exp(0.5 * logvar) * eps


def kl(mu: Float[Array, "n d_z"], logvar: Float[Array, "n d_z"]) -> Float[Array, " n"]:
    return 0.5 * np.sum(np.exp(logvar) + mu**2 - 1.0 - logvar, axis=-1)


def terms(model: VAE, x: Float[Array, "n d_x"], eps: Float[Array, "n d_z"]) -> dict[str, Float[Array, " n"]]:
    mu, logvar = model.encode(x)
    z = reparameterize(mu, logvar, eps)
    logits = model.decode(z)
    return {"reconstruction": nll(model.spec, logits, x), "kl": kl(mu, logvar)}


def loss(spec: Spec, terms: dict[str, Float[Array, " n"]]) -> Float[Array, ""]:
    return np.mean(terms["reconstruction"] + spec.beta * terms["kl"])


def backward(model: VAE, x: Float[Array, "n d_x"], eps: Float[Array, "n d_z"]) -> dict[str, Float[Array, " n"]]:
    mu, logvar = model.encode(x)  # API: no autograd; the layers keep what their own backward needs
    z = reparameterize(mu, logvar, eps)
    logits = model.decode(z)
    n, beta = x.shape[0], model.spec.beta
    reconstruction, d_logits = d_nll(model.spec, logits, x)
    d_z = model.decoder.backward(model.logits.backward(d_logits / n))
    d_mu = d_z + beta * mu / n
    d_logvar = d_z * 0.5 * np.exp(0.5 * logvar) * eps + beta * 0.5 * (np.exp(logvar) - 1.0) / n
    d_h = model.mu.backward(d_mu) + model.logvar.backward(d_logvar)
    model.encoder.backward(d_h, first=True)
    return {"reconstruction": reconstruction, "kl": kl(mu, logvar)}


def latent(model: VAE, x: Float[Array, "n d_x"]) -> dict[str, Float[Array, "n d_z"]]:
    mu, logvar = model.encode(x)
    return {"mu": mu, "logvar": logvar}


def x_hat(model: VAE, z: Float[Array, "n d_z"]) -> Float[Array, "n d_x"]:
    return data_mean(model.spec, model.decode(z))
