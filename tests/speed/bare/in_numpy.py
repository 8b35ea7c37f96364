"""What is bare in NumPy: the matrix products of one training step at their real shapes, into arrays that are there already; and the
covariance method of scikit-learn's PCA."""

import numpy as np
from scipy.linalg import eigh, get_blas_funcs
from sklearn.decomposition import PCA

from specs.parameters import layers


def products(spec, dtype="float32"):
    """The pairs (a, b) of a step's products: forward, and backward for the weights and, but in the first layer, for the input."""
    n, rng = spec.training.batch_size, np.random.default_rng(0)
    sizes = [(d_in, d_out) for _, d_in, d_out in layers(spec)]
    pairs = []
    for k, (d_in, d_out) in enumerate(sizes):
        x, w, d_y = (rng.standard_normal(shape).astype(dtype) for shape in ((n, d_in), (d_in, d_out), (n, d_out)))
        pairs += [(x, w), (x.T, d_y)] + ([(d_y, w.T)] if k else [])
    return pairs


class Products:
    def __init__(self, pairs, steps):
        self.work = [(a, b, a @ b) for a, b in pairs]
        self.steps = steps

    def run(self):
        for _ in range(self.steps):
            for a, b, out in self.work:
                np.matmul(a, b, out=out)

    def block(self):
        pass


class ScikitLearn:
    def __init__(self, spec, x, steps):
        self.pca, self.x, self.steps = PCA(spec.d_z, svd_solver="covariance_eigh"), x, steps

    def run(self):
        for _ in range(self.steps):
            self.pca.fit(self.x)

    def block(self):
        pass

    def parameters(self):
        return {"components": self.pca.components_, "explained_variance": self.pca.explained_variance_, "mean": self.pca.mean_}


def fit_parts(x, d_z):
    """{what: a call of it}, of a PCA by the covariance."""
    covariance = x.T @ x
    last = (x.shape[1] - d_z, x.shape[1] - 1)
    syrk = get_blas_funcs("syrk", (x,))
    return {
        "product: syrk": lambda: syrk(1.0, x.T),
        "eigenvectors: a subset": lambda: eigh(covariance, subset_by_index=last, check_finite=False),
    }
