"""Linear autoencoder (Baldi & Hornik 1989), in JAX with Flax NNX.

    encode  x      -> z               z = x w + b
    decode  z      -> x_hat           x_hat = z w' + b'
    terms   x      -> reconstruction  per example, squared error, summed over features
    loss    terms  -> scalar          mean over the batch
    latent  x      -> z               by name
    x_hat   z      -> x_hat           the decoder itself
"""
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from impls.jax.layers import Dense
from specs import Spec


class LinearAE(nnx.Module):
    def __init__(self, spec: Spec, *, rngs: nnx.Rngs):
        self.spec = spec
        self.z = Dense(spec.d_x, spec.d_z, rngs=rngs)
        self.x_hat = Dense(spec.d_z, spec.d_x, rngs=rngs)

    def encode(self, x: Float[Array, "n d_x"]) -> Float[Array, "n d_z"]:
        return self.z(x)

    def decode(self, z: Float[Array, "n d_z"]) -> Float[Array, "n d_x"]:
        return self.x_hat(z)


def terms(model: LinearAE, x: Float[Array, "n d_x"]) -> dict[str, Float[Array, " n"]]:
    z = model.encode(x)
    x_hat = model.decode(z)
    return {"reconstruction": jnp.sum((x - x_hat) ** 2, axis=-1)}


def loss(spec: Spec, terms: dict[str, Float[Array, " n"]]) -> Float[Array, ""]:
    return jnp.mean(terms["reconstruction"])


def latent(model: LinearAE, x: Float[Array, "n d_x"]) -> dict[str, Float[Array, "n d_z"]]:
    return {"z": model.encode(x)}


def x_hat(model: LinearAE, z: Float[Array, "n d_z"]) -> Float[Array, "n d_x"]:
    return model.decode(z)
