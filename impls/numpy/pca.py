"""Principal component analysis (Pearson 1901; Hotelling 1933), in NumPy.

    fit     x  -> mean, components, explained_variance   leading eigenpairs of the covariance (divisor n - 1)
    encode  x  -> z                                      z = (x - mean) components^T
    decode  z  -> x_hat                                  x_hat = z components + mean
"""
import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array
from scipy.linalg import eigh, get_blas_funcs

from specs import Spec


class PCA:
    def __init__(self, spec: Spec):
        self.spec = spec
        self.mean = self.components = self.explained_variance = None

    def fit(self, x: Float[Array, "n d_x"]) -> None:
        self.mean = np.mean(x, axis=0)
        centred = x - self.mean
        # API: SciPy's product, as eigh is: the threads of NumPy's own BLAS would spin beside it. The upper triangle, in half the time
        covariance = get_blas_funcs("syrk", (centred,))(1 / (x.shape[0] - 1), centred.T)
        values, vectors = eigh(  # API: numpy.linalg finds all of them; ascending, vectors in columns
            covariance, lower=False, subset_by_index=(x.shape[1] - self.spec.d_z, x.shape[1] - 1), overwrite_a=True, check_finite=False
        )
        leading = np.ascontiguousarray(np.flip(vectors, axis=1).T)
        self.components = orient(leading)
        self.explained_variance = np.flip(values, axis=0)

    def encode(self, x: Float[Array, "n d_x"]) -> Float[Array, "n d_z"]:
        return (x - self.mean) @ self.components.T

    def decode(self, z: Float[Array, "n d_z"]) -> Float[Array, "n d_x"]:
        return z @ self.components + self.mean


def orient(rows: Float[Array, "d_z d_x"]) -> Float[Array, "d_z d_x"]:
    """An eigenvector's sign is free: make the entry of largest magnitude positive."""
    largest = np.argmax(np.abs(rows), axis=1)
    return rows * np.sign(rows[np.arange(rows.shape[0]), largest])[:, None]


def latent(model: PCA, x: Float[Array, "n d_x"]) -> dict[str, Float[Array, "n d_z"]]:
    return {"z": model.encode(x)}


def x_hat(model: PCA, z: Float[Array, "n d_z"]) -> Float[Array, "n d_x"]:
    return model.decode(z)
