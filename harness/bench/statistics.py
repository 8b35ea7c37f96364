"""Intervals, ratios and verdicts. The unit is a process: one value each, the median over its rounds. Rounds are never pooled.

Student's t on logarithms, so that a ratio and its inverse have the same verdict: Kalibera and Jones, "Rigorous benchmarking in
reasonable time" (ISMM 2013), sections 5 and 7, with means over processes of medians over rounds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95  # of every interval
ALPHA = 0.01  # of a verdict "faster" or "slower": it is wrong of at most this share of pairs that do not differ
EQUAL = 0.05  # what differs by less, as far as its interval reaches, is equal for all that anybody needs to know
LEAST = 0.05  # a difference below this share is no regression, on machines such as these
ROUNDING = 1e-12  # what differs by less does not differ
MOST_MORE = 1000  # blocks that "cannot tell" asks for at most


@dataclass(frozen=True)
class Estimate:
    """A positive quantity over `n` processes. `low` and `high` are NaN where n is 1. `sd` and `p` are of logarithms; p of value = 1."""

    value: float
    low: float
    high: float
    sd: float
    n: int
    p: float


@dataclass(frozen=True)
class Verdict:
    """`word`: faster, slower, equal within noise or cannot tell; `more`: blocks that it takes to tell, None where told or unknown."""

    word: str
    p: float  # Benjamini and Hochberg's, of all that were judged together
    more: int | None = None

    def __str__(self) -> str:
        if self.word != "cannot tell" or self.more is None:
            return self.word
        return f"cannot tell (needs {'more than ' if self.more >= MOST_MORE else ''}{self.more} more blocks)"


def estimate(values: Sequence[float]) -> Estimate:
    """Geometric mean of positive values, one a process, and its interval."""
    logs = np.log(np.asarray(values, float))
    n, sd = len(logs), float(logs.std(ddof=1)) if len(logs) > 1 else math.nan
    if n == 1:
        return Estimate(float(np.exp(logs[0])), math.nan, math.nan, sd, 1, math.nan)
    if sd < ROUNDING:  # SciPy has no interval then
        value, p = float(np.exp(logs[0])), float(abs(logs[0]) < ROUNDING)
        return Estimate(value, value, value, sd, n, p)
    test = stats.ttest_1samp(logs, 0)
    interval = test.confidence_interval(CONFIDENCE)
    low, high = np.exp([interval.low, interval.high])
    return Estimate(float(np.exp(logs.mean())), float(low), float(high), sd, n, float(test.pvalue))


def paired(base: Mapping[int, float], new: Mapping[int, float]) -> Estimate | None:
    """new / base from {block: seconds}: of the blocks that have both, since those ran side by side. None where there is none."""
    common = sorted(set(base) & set(new))
    return estimate([new[block] / base[block] for block in common]) if common else None


def unpaired(base: Sequence[float], new: Sequence[float]) -> Estimate:
    """new / base of two runs that did not run side by side: Welch's interval, the wider for it."""
    one, two = np.log(np.asarray(base, float)), np.log(np.asarray(new, float))
    value, n = float(np.exp(two.mean() - one.mean())), min(len(one), len(two))
    if n == 1 or max(one.std(), two.std()) < ROUNDING:
        return Estimate(value, math.nan, math.nan, math.nan, n, math.nan)
    test = stats.ttest_ind(two, one, equal_var=False)
    interval = test.confidence_interval(CONFIDENCE)
    sd = math.sqrt((one.var(ddof=1) + two.var(ddof=1)) / 2) * math.sqrt(2)  # of a difference, as where they are paired
    return Estimate(value, math.exp(interval.low), math.exp(interval.high), sd, n, float(test.pvalue))


def noise_floor(twin: Estimate | None) -> float:
    """The share by which an implementation may have differed from itself: the far end of an A/A interval. NaN where that cannot be told."""
    if twin is None or math.isnan(twin.low):
        return math.nan
    return math.expm1(max(abs(math.log(twin.low)), abs(math.log(twin.high))))


def verdicts(ratios: Sequence[Estimate], floors: Sequence[float], least: float = LEAST, times: float = 1.0) -> list[Verdict]:
    """One verdict a ratio of seconds, new / base, judged together; `floors`: the noise floor that holds for each.

    Slower or faster: p, adjusted for their number (Benjamini and Hochberg 1995), is at most ALPHA, the interval excludes 1, and the
    difference exceeds max(least, times * floor). Equal: the whole interval is within EQUAL, and so is the floor: what one thing may
    differ from itself by more than EQUAL shows no two to be equal. Else, or where no floor is known, it cannot be told.
    """
    known = [k for k, one in enumerate(ratios) if not math.isnan(one.p)]
    p, alphas = np.full(len(ratios), math.nan), np.full(len(ratios), math.nan)
    if known:
        raw = np.array([ratios[k].p for k in known])
        p[known], alphas[known] = stats.false_discovery_control(raw), thresholds(raw)
    each = zip(ratios, p.tolist(), floors, alphas.tolist(), strict=True)
    return [_verdict(ratio, p, floor, max(least, times * floor), alpha) for ratio, p, floor, alpha in each]


def thresholds(p: np.ndarray) -> np.ndarray:
    """For each p the largest that Benjamini and Hochberg would find at ALPHA, the others staying as they are."""
    n, found = len(p), []
    for k in range(n):
        others = np.sort(np.delete(p, k))
        before = np.flatnonzero(others <= ALPHA * np.arange(2, n + 1) / n)  # found too, were this one the smallest
        found.append(ALPHA * (before[-1] + 2 if len(before) else 1) / n)
    return np.array(found)


def _verdict(ratio: Estimate, p: float, floor: float, least: float, alpha: float) -> Verdict:
    if math.isnan(floor):
        return Verdict("cannot tell", p)
    if p <= ALPHA and abs(math.log(ratio.value)) > math.log1p(least) and not ratio.low <= 1 <= ratio.high:
        return Verdict("slower" if ratio.value > 1 else "faster", p)
    if floor <= EQUAL and max(-math.log(ratio.low), math.log(ratio.high)) <= math.log1p(EQUAL):  # NaN is not
        return Verdict("equal within noise", p)
    return Verdict("cannot tell", p, more_blocks(ratio, floor, least, alpha))


def more_blocks(ratio: Estimate, floor: float = 0.0, least: float = LEAST, alpha: float = ALPHA) -> int | None:
    """How many more, effect and spread staying as they are, until there is a verdict. `alpha`: what p must reach, of so many together.

    None where that is not known: of one block, and of a difference that can neither count nor be equal by this floor.
    """
    effect = abs(math.log(ratio.value))
    differ, equal = effect > math.log1p(least), floor <= EQUAL and effect <= math.log1p(EQUAL)
    if math.isnan(ratio.sd) or not (differ or equal):
        return None
    n = np.arange(ratio.n + 1, ratio.n + MOST_MORE + 1)
    spread = ratio.sd / np.sqrt(n)
    differs = differ & (stats.t.ppf(1 - alpha / 2, n - 1) * spread < effect)
    equals = equal & (effect + stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * spread < math.log1p(EQUAL))
    enough = np.flatnonzero(differs | equals)
    return int(n[enough[0]] - ratio.n) if len(enough) else MOST_MORE
