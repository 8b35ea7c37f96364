"""Is native noise N(0, 1), and independent from entry to entry, row to row and step to step? Tests of hypotheses, at fixed seeds."""

import numpy as np

from harness.verify.compare import Comparisons
from impls import Model

ALPHA = 1e-4  # of each test
MOST = 200_000  # draws
STEPS = 100  # so that a pool that is drawn once and used again shows
SEED = 11
COUNT = 5 + 3 + 6  # shape, dtype, twice for bitwise, repetition; three of the law; six of independence


def check_noise(model: Model, record: Comparisons, n: int) -> None:
    """COUNT comparisons of what `native_noise(n, ...)` gives. Such a test has no margin: it passes or fails."""
    from scipy import stats

    d_z = model.spec.d_z
    steps = int(np.clip(MOST // (n * d_z), 3, STEPS))
    noise = model.native_noise(n, steps, SEED)
    record.same("native noise: shape", noise.shape, (steps, n, d_z))
    record.same("native noise: dtype", noise.dtype.name, model.dtype)
    record.bitwise("native noise: same seed again", model.native_noise(n, steps, SEED), noise)
    other = model.native_noise(n, steps, SEED + 1)
    draws = np.concatenate([noise.ravel(), other.ravel()]).astype(np.float64)
    new = len(np.unique(np.abs(draws))) / len(draws)  # not 1: in float32 there are generators with 2^23 values
    record.same("native noise: no value comes again, nor its opposite", new > 0.9, True)
    mean = 2 * stats.norm.sf(abs(draws.mean()) * np.sqrt(len(draws)))
    square = stats.chi2(len(draws))
    variance = 2 * min(square.cdf((draws**2).sum()), square.sf((draws**2).sum()))
    for name, p in (("mean", mean), ("variance", variance), ("Kolmogorov-Smirnov", stats.kstest(draws, "norm").pvalue)):
        record.same(f"native noise: {name}, p = {p:.2g}, above {ALPHA}", p > ALPHA, True)
    size = np.abs(noise.astype(np.float64))
    size = stats.norm.ppf((stats.rankdata(size).reshape(size.shape) - 0.5) / size.size)  # normal scores: a correlation's law is known
    for what, values in (("values", noise.astype(np.float64)), ("sizes", size)):
        for axis, name in enumerate(("steps", "rows", "latents")):
            table = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
            found, allowed = correlation(table)
            record.same(f"native noise: {what} of {name} correlate by {found:.2g}, at most {allowed:.2g}", found <= allowed, True)


def correlation(table: np.ndarray) -> tuple[float, float]:
    """(largest absolute correlation of two rows, what chance allows: Fisher 1921, with Bonferroni's correction)."""
    from scipy import stats

    k, samples = table.shape
    if k < 2 or samples < 30:
        return 0.0, 1.0
    with np.errstate(invalid="ignore", divide="ignore"):  # constant rows have no correlation: NaN, which is not at most anything
        found = np.abs(np.corrcoef(table) - np.eye(k)).max()
    return float(found), float(np.tanh(stats.norm.isf(ALPHA / (k * (k - 1))) / np.sqrt(samples - 3)))
