"""Native noise: what is N(0, 1) and independent passes, and each usual mistake does not."""

from types import SimpleNamespace

import numpy as np
import pytest

from harness.verify import draws
from harness.verify.compare import Comparisons

N, D_Z = 32, 4


def failed(make, seeds_differ=True):
    """The comparisons that a way of drawing fails."""

    def native_noise(n, steps, seed):
        return make(np.random.default_rng(seed), steps, n).astype(np.float64)

    model = SimpleNamespace(spec=SimpleNamespace(d_z=D_Z), dtype="float64", native_noise=native_noise)
    record = Comparisons()
    draws.check_noise(model, record, N)
    assert len(record.made) == draws.COUNT
    return {one.what.removeprefix("native noise: ") for one in record.made if not one.passed}


honest = lambda rng, steps, n: rng.standard_normal((steps, n, D_Z))


def pool(rng, steps, n):
    return honest(rng, 64, n)[np.arange(steps) % 64]


def sign_reused(rng, steps, n):
    one = honest(rng, steps, n)
    one[1::2] = -one[0 : 2 * (steps // 2) : 2]
    return one


def antithetic(rng, steps, n):
    half = honest(rng, steps, n // 2)
    return np.concatenate([half, -half], axis=1)


def correlated_latents(rng, steps, n):
    one = honest(rng, steps, n)
    for k in range(1, D_Z):
        one[..., k] = 0.6 * one[..., k - 1] + 0.8 * one[..., k]
    return one


def correlated_steps(rng, steps, n):
    one = honest(rng, steps, n)
    for k in range(1, steps):
        one[k] = 0.6 * one[k - 1] + 0.8 * one[k]
    return one


def common_scale(rng, steps, n):
    """Uncorrelated, but large together: rows of one scale."""
    return honest(rng, steps, n) * np.sqrt(rng.chisquare(5, (1, n, 1)) / 5)


def unseeded(rng, steps, n):
    return honest(np.random.default_rng(), steps, n)


WRONG = {
    "zeros": lambda rng, steps, n: np.zeros((steps, n, D_Z)),
    "uniform": lambda rng, steps, n: rng.uniform(-np.sqrt(3), np.sqrt(3), (steps, n, D_Z)),
    "shifted": lambda rng, steps, n: honest(rng, steps, n) + 0.05,
    "scaled": lambda rng, steps, n: 1.05 * honest(rng, steps, n),
    "one step for all": lambda rng, steps, n: np.repeat(honest(rng, 1, n), steps, axis=0),
    "one row for all": lambda rng, steps, n: np.repeat(honest(rng, steps, 1), n, axis=1),
    "transposed": lambda rng, steps, n: honest(rng, n, steps),
    "one seed": lambda rng, steps, n: honest(np.random.default_rng(0), steps, n),
    **{f.__name__: f for f in (pool, sign_reused, antithetic, correlated_latents, correlated_steps, common_scale, unseeded)},
}


def test_honest_noise_passes():
    assert not failed(honest)


@pytest.mark.parametrize("name", WRONG)
def test_noise_that_is_something_else_fails(name):
    assert failed(WRONG[name])


@pytest.mark.parametrize("shape", [(3, 2000), (40, 300), (128, 800), (4, 40)])
def test_correlations_of_independent_rows_stay_below_their_bound(shape):
    rng = np.random.default_rng(1)
    above = sum(found > allowed for found, allowed in (draws.correlation(rng.standard_normal(shape)) for _ in range(300)))
    assert above == 0
    for _ in range(20):  # the bound is no looser than it must be: half as much again is seen
        table = rng.standard_normal(shape)
        _, allowed = draws.correlation(table)
        r = min(1.8 * allowed, 0.99)
        table[1] = r * table[0] + np.sqrt(1 - r**2) * table[1]
        assert draws.correlation(table)[0] > allowed
