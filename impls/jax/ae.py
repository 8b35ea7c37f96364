"""Autoencoder (Hinton & Salakhutdinov 2006), in JAX with Flax NNX.

    encode  x      -> z               latent code
    decode  z      -> logits          p(x|z), by the spec's likelihood
    terms   x      -> reconstruction  per example, nats
    loss    terms  -> scalar          mean over the batch
    latent  x      -> z               by name
    x_hat   z      -> x_hat           mean of p(x|z)
"""
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from impls.jax.layers import MLP, Dense, data_mean, nll
from specs import Spec


class AE(nnx.Module):
    def __init__(self, spec: Spec, *, rngs: nnx.Rngs):
        self.spec = spec
        self.encoder = MLP(spec.d_x, spec.hidden, spec.activation, rngs=rngs)
        self.z = Dense(spec.d_h, spec.d_z, rngs=rngs)
        self.decoder = MLP(spec.d_z, spec.hidden[::-1], spec.activation, rngs=rngs)
        self.logits = Dense(spec.d_g, spec.d_x, rngs=rngs)

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
    return jnp.mean(terms["reconstruction"])


def latent(model: AE, x: Float[Array, "n d_x"]) -> dict[str, Float[Array, "n d_z"]]:
    return {"z": model.encode(x)}


def x_hat(model: AE, z: Float[Array, "n d_z"]) -> Float[Array, "n d_x"]:
    return data_mean(model.spec, model.decode(z))
