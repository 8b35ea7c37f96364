"""Linear autoencoder (Baldi & Hornik 1989), in Equinox.

    encode  x      -> z               z = x w + b
    decode  z      -> x_hat           x_hat = z w' + b'
    terms   x      -> reconstruction  per example, squared error, summed over features
    loss    terms  -> scalar          mean over the batch
    latent  x      -> z               by name
    x_hat   z      -> x_hat           the decoder itself
"""
import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from specs import Spec


class LinearAE(eqx.Module):
    z: eqx.nn.Linear  # API: a model is a dataclass, and a pytree; weight is (d_out, d_in), the transpose of w
    x_hat: eqx.nn.Linear

    def __init__(self, spec: Spec, dtype: str):
        key = jax.random.key(0)
        self.z = eqx.nn.Linear(spec.d_x, spec.d_z, dtype=dtype, key=key)
        self.x_hat = eqx.nn.Linear(spec.d_z, spec.d_x, dtype=dtype, key=key)

    def encode(self, x: Float[Array, "n d_x"]) -> Float[Array, "n d_z"]:
        return jax.vmap(self.z)(x)  # API: layers take one example

    def decode(self, z: Float[Array, "n d_z"]) -> Float[Array, "n d_x"]:
        return jax.vmap(self.x_hat)(z)


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
