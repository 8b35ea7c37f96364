"""Principal component analysis (Pearson 1901; Hotelling 1933), in JAX.

    fit     x  -> mean, components, explained_variance   leading eigenpairs of the covariance (divisor n - 1)
    encode  x  -> z                                      z = (x - mean) components^T
    decode  z  -> x_hat                                  x_hat = z components + mean
"""
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from specs import Spec


class PCA:
    def __init__(self, spec: Spec):
        self.spec = spec
        self.mean = self.components = self.explained_variance = None

    def fit(self, x: Float[Array, "n d_x"]) -> None:
        self.mean = jnp.mean(x, axis=0)
        centred = x - self.mean
        covariance = centred.T @ centred / (x.shape[0] - 1)
        values, vectors = jnp.linalg.eigh(covariance)  # ascending, vectors in columns
        leading = jnp.flip(vectors[:, -self.spec.d_z :], axis=1).T
        self.components = orient(leading)
        self.explained_variance = jnp.flip(values[-self.spec.d_z :], axis=0)

    def encode(self, x: Float[Array, "n d_x"]) -> Float[Array, "n d_z"]:
        return (x - self.mean) @ self.components.T

    def decode(self, z: Float[Array, "n d_z"]) -> Float[Array, "n d_x"]:
        return z @ self.components + self.mean


def orient(rows: Float[Array, "d_z d_x"]) -> Float[Array, "d_z d_x"]:
    """An eigenvector's sign is free: make the entry of largest magnitude positive."""
    largest = jnp.argmax(jnp.abs(rows), axis=1)
    return rows * jnp.sign(rows[jnp.arange(rows.shape[0]), largest])[:, None]


def latent(model: PCA, x: Float[Array, "n d_x"]) -> dict[str, Float[Array, "n d_z"]]:
    return {"z": model.encode(x)}


def x_hat(model: PCA, z: Float[Array, "n d_z"]) -> Float[Array, "n d_x"]:
    return model.decode(z)
