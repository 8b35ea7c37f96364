"""The data: what they are said to be, by tests of hypotheses at fixed seeds and by scikit-learn's own arrays."""

import numpy as np
import pytest
from scipy import stats
from sklearn.datasets import load_digits

import specs
from harness import data
from specs import Spec

LINEAR = {"name": "linear_gaussian", "features": 9, "rank": 3, "noise_variance": 0.25, "train": 40_000, "test": 10, "seed": 4}
BERNOULLI = {"name": "random_bernoulli", "shape": [3, 5, 7], "probability": 0.3, "train": 2000, "test": 100}


def spec_of(content: dict) -> Spec:
    return Spec.model_validate({"name": "some", "model": "pca", "architecture": {"latent": 2}, "data": content})


def test_digits_are_scikit_learns_scaled_to_1_and_split_without_overlap():
    found = data.load(specs.load("vae"))
    whole = np.concatenate([found.train, found.test])
    assert whole.min() == 0 and whole.max() == 1 and whole.shape == (1797, 64) and len(found.train) == 1437
    order = lambda x: x[np.lexsort(x.T)]
    np.testing.assert_array_equal(order(16 * whole), order(load_digits().data))  # every row once, so that no row is in both parts
    assert len(set(load_digits().target[:1437])) == 10 and not np.array_equal(16 * found.train, load_digits().data[:1437])


def drawn_from(x: np.ndarray, model: data.LinearModel) -> bool:
    """Whitened by the model, its rows are N(0, I): by their means, their covariance and their squared norms, chi^2."""
    n, d = x.shape
    white = np.linalg.solve(np.linalg.cholesky(model.covariance), (x - model.mean).T)
    centred = np.abs(white.mean(1)).max() < 5 / np.sqrt(n)
    round = np.abs(np.cov(white) - np.eye(d)).max() < 5 * np.sqrt(2 / n)
    return bool(centred and round and stats.kstest((white**2).sum(0), stats.chi2(d).cdf).pvalue > 1e-3)


def test_linear_gaussian_rows_come_from_the_model_that_is_told():
    found = data.load(spec_of(LINEAR))
    truth = found.truth
    assert truth is not None and truth.w.shape == (9, 3) and np.linalg.matrix_rank(truth.w) == 3 and truth.noise_variance == 0.25
    assert drawn_from(found.train, truth)
    wrong = [(1.05 * truth.w, truth.mean, 0.25), (truth.w, truth.mean + 0.05, 0.25), (truth.w, truth.mean, 0.27)]
    assert not any(drawn_from(found.train, data.LinearModel(*one)) for one in wrong)


def test_random_bernoulli_has_its_rate_in_every_column():
    x = data.load(spec_of(BERNOULLI)).train
    assert x.shape == (2000, 105) and set(np.unique(x)) == {0.0, 1.0}
    ones = x.sum(0).astype(int)
    assert min(stats.binomtest(int(k), len(x), 0.3).pvalue for k in ones) > 1e-3 / len(ones)


@pytest.mark.parametrize("content", [LINEAR, BERNOULLI, {"name": "digits"}])
def test_data_are_the_same_each_time_and_nobody_can_change_them(content):
    first = data.load(spec_of(content))
    for maker in (data.digits, data.linear_gaussian, data.random_bernoulli):
        maker.cache_clear()
    again = data.load(spec_of(content))
    np.testing.assert_array_equal(first.train, again.train)
    with pytest.raises(ValueError, match="read-only"):
        again.train[0, 0] = 7
