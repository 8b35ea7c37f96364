"""Principal component analysis (Pearson 1901; Hotelling 1933), in Keras 3 (any backend).

    fit     x  -> mean, components, explained_variance   leading eigenpairs of the covariance (divisor n - 1)
    encode  x  -> z                                      z = (x - mean) components^T
    decode  z  -> x_hat                                  x_hat = z components + mean
"""
from typing import Any as Array

import keras
from jaxtyping import Float
from keras import ops

from impls.keras.layers import mean
from specs import Spec


class PCA(keras.layers.Layer):
    def __init__(self, spec: Spec):
        super().__init__()
        self.spec = spec
        self.mean = self.add_weight(shape=(spec.d_x,), trainable=False)  # API: what a compiled function assigns must be a variable
        self.components = self.add_weight(shape=(spec.d_z, spec.d_x), trainable=False)
        self.explained_variance = self.add_weight(shape=(spec.d_z,), trainable=False)

    def fit(self, x: Float[Array, "n d_x"]) -> None:
        self.mean.assign(mean(x))
        centred = x - self.mean.value
        covariance = ops.transpose(centred) @ centred / (x.shape[0] - 1)
        values, vectors = ops.linalg.eigh(covariance)  # ascending, vectors in columns
        leading = ops.transpose(ops.flip(vectors[:, -self.spec.d_z :], axis=1))
        self.components.assign(orient(leading))
        self.explained_variance.assign(ops.flip(values[-self.spec.d_z :], axis=0))

    def encode(self, x: Float[Array, "n d_x"]) -> Float[Array, "n d_z"]:
        return (x - self.mean.value) @ ops.transpose(self.components.value)

    def decode(self, z: Float[Array, "n d_z"]) -> Float[Array, "n d_x"]:
        return z @ self.components.value + self.mean.value


def orient(rows: Float[Array, "d_z d_x"]) -> Float[Array, "d_z d_x"]:
    """An eigenvector's sign is free: make the entry of largest magnitude positive."""
    largest = ops.argmax(ops.abs(rows), axis=1, keepdims=True)  # API: not every backend takes rows[i, j] with arrays of indices
    return rows * ops.sign(ops.take_along_axis(rows, largest, axis=1))


def latent(model: PCA, x: Float[Array, "n d_x"]) -> dict[str, Float[Array, "n d_z"]]:
    return {"z": model.encode(x)}


def x_hat(model: PCA, z: Float[Array, "n d_z"]) -> Float[Array, "n d_x"]:
    return model.decode(z)
