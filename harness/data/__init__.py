"""Data sets by a spec's [data] table, as float64 rows (n, d_x). `load(spec).train`, `.test`."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from specs.schema import Digits, LinearGaussian, RandomBernoulli, Spec


@dataclass(frozen=True)
class LinearModel:
    """Probabilistic PCA (Tipping & Bishop 1999, eq. 2): x = W z + mean + noise, z ~ N(0, I), noise ~ N(0, noise_variance I)."""

    w: np.ndarray  # (d_x, rank)
    mean: np.ndarray  # (d_x,)
    noise_variance: float

    @property
    def covariance(self) -> np.ndarray:
        """Of x, (d_x, d_x)."""
        return self.w @ self.w.T + self.noise_variance * np.eye(len(self.mean))


@dataclass(frozen=True)
class DataSet:
    train: np.ndarray  # (n, d_x)
    test: np.ndarray  # (m, d_x)
    truth: LinearModel | None = None  # what the rows were drawn from, where that is known


def load(spec: Spec) -> DataSet:
    return MAKERS[type(spec.data)](spec.data)


@cache
def digits(data: Digits) -> DataSet:
    """scikit-learn's 8x8 digits over 16, in a fixed random split."""
    from sklearn.datasets import load_digits

    x = load_digits().data / 16
    return _split(x[np.random.default_rng(0).permutation(len(x))], data)


@cache
def linear_gaussian(data: LinearGaussian) -> DataSet:
    """Draws from a `LinearModel`."""
    rng = np.random.default_rng([data.seed, 3])
    directions, _ = np.linalg.qr(rng.standard_normal((data.features, data.rank)))
    w = directions * np.linspace(3, 1, data.rank)  # distinct, so that the principal axes are
    truth = LinearModel(w, rng.uniform(-1, 1, data.features), data.noise_variance)
    n = data.train + data.test
    noise = np.sqrt(data.noise_variance) * rng.standard_normal((n, data.features))
    return _split(rng.standard_normal((n, data.rank)) @ w.T + truth.mean + noise, data, truth)


@cache
def random_bernoulli(data: RandomBernoulli) -> DataSet:
    rng = np.random.default_rng([data.seed, 4])
    size = (data.train + data.test, int(np.prod(data.shape)))
    return _split((rng.random(size) < data.probability).astype(float), data)


def _split(x: np.ndarray, data: Digits | LinearGaussian | RandomBernoulli, truth: LinearModel | None = None) -> DataSet:
    if len(x) != data.train + data.test:
        raise ValueError(f"data set '{data.name}' has {len(x)} rows, the schema says {data.train} + {data.test}")
    x.flags.writeable = False  # cached: nobody may change it for the next one
    return DataSet(x[: data.train], x[data.train :], truth)


MAKERS = {Digits: digits, LinearGaussian: linear_gaussian, RandomBernoulli: random_bernoulli}
