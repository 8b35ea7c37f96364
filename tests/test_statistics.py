"""The statistics: against SciPy where it has the same, and by simulation where truth is known."""

import math

import numpy as np
import pytest
from scipy import stats

from harness.bench.statistics import (
    ALPHA,
    EQUAL,
    LEAST,
    MOST_MORE,
    Estimate,
    estimate,
    more_blocks,
    noise_floor,
    paired,
    unpaired,
    verdicts,
)
from harness.bench.stopping import LEVELS

BLOCKS, WITHIN, BETWEEN, SHARED = 10, 0.10, 0.02, 0.05  # spreads of log seconds: of rounds, of processes, of a block's moment
RNG = np.random.default_rng(11)


def simulated(runs: int, processes: int, rounds: int = 25, effect: float = 0.0, shared: np.ndarray | float = 0.0) -> np.ndarray:
    """(runs, processes) medians over rounds of seconds with nested noise: a process is slower as a whole, its rounds are skewed."""
    process = BETWEEN * RNG.standard_normal((runs, processes, 1))
    noise = WITHIN * RNG.gamma(2, 1, (runs, processes, rounds))  # a round can be disturbed, never helped
    return np.exp(effect + np.median(noise + process, axis=2) + shared)


def test_an_interval_is_scipys():
    values = [0.1, 0.2, 0.4, 0.3]
    got, logs = estimate(values), np.log(values)
    low, high = stats.t.interval(0.95, 3, logs.mean(), stats.sem(logs))
    assert got.value == pytest.approx(stats.gmean(values)) and [got.low, got.high] == pytest.approx([math.exp(low), math.exp(high)])
    assert estimate([2.0]).n == 1 and math.isnan(estimate([2.0]).low)
    assert (estimate([2.0, 2.0]).low, estimate([2.0, 2.0]).p, estimate([1.0, 1.0]).p) == (2.0, 0.0, 1.0)


def test_ratios_are_taken_within_blocks():
    base, new = {0: 1.0, 1: 2.0, 2: 8.0}, {1: 3.0, 2: 12.0, 3: 1.0}
    got = paired(base, new)
    assert got.value == pytest.approx(1.5) and got.n == 2 and got.high - got.low < 1e-9
    assert paired({0: 1.0}, {1: 1.0}) is None


def test_two_runs_are_compared_by_welch():
    base, new = [1.0, 1.1, 0.9], [2.0, 2.1, 1.8, 2.4]
    got, theirs = unpaired(base, new), stats.ttest_ind(np.log(new), np.log(base), equal_var=False)
    assert got.p == pytest.approx(theirs.pvalue) and got.low < got.value < got.high
    assert math.isnan(unpaired([1.0], new).low)


@pytest.mark.parametrize("processes", [3, 5, 10, 30])
def test_nominal_95_percent_intervals_cover_93_to_97(processes):
    truth = math.exp(np.log(simulated(1, 400_000)).mean())
    found = [estimate(run) for run in simulated(2000, processes)]
    assert 0.93 <= np.mean([one.low <= truth <= one.high for one in found]) <= 0.97


@pytest.mark.parametrize("cells", [1, 30])
def test_at_most_1_percent_of_pairs_that_do_not_differ_are_called_different(cells):
    """With floor and least off: what keeps the promise is the level alone, for one pair and for any in a table of many."""
    wrong, tables = 0, 1500 // cells
    for _ in range(tables):
        shared = SHARED * RNG.standard_normal((cells, BLOCKS))
        base, new = simulated(cells, BLOCKS, shared=shared), simulated(cells, BLOCKS, shared=shared)
        ratios = [paired(dict(enumerate(one)), dict(enumerate(two))) for one, two in zip(base, new, strict=True)]
        wrong += sum(one.word in ("faster", "slower") for one in verdicts(ratios, [0.0] * cells, least=0.0))
    assert wrong / (tables * cells) <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / (tables * cells))  # and the simulation's own error


def test_rounds_that_are_pooled_would_cry_wolf():
    """The control of the one above: with rounds taken for replicates, many more than 1 % of equal pairs would differ."""
    rounds = [BETWEEN * RNG.standard_normal((2, BLOCKS, 1)) + 0.02 * RNG.standard_normal((2, BLOCKS, 25)) for _ in range(400)]
    assert np.mean([stats.ttest_ind(one[0].ravel(), one[1].ravel()).pvalue <= 0.05 for one in rounds]) > 0.4


@pytest.mark.parametrize("effect, word", [(1.10, "slower"), (1 / 1.10, "faster"), (1.0, "equal within noise")])
def test_what_differs_is_found(effect, word):
    found = []
    for _ in range(200):
        shared = SHARED * RNG.standard_normal((1, 2 * BLOCKS))
        base, new = simulated(1, 2 * BLOCKS, shared=shared), simulated(1, 2 * BLOCKS, effect=math.log(effect), shared=shared)
        found += verdicts([paired(dict(enumerate(base[0])), dict(enumerate(new[0])))], [0.0])
    assert np.mean([one.word == word for one in found]) > 0.9


@pytest.mark.parametrize("processes, pairs, share", [(None, 1, 0.33), (0.024, 1, 0.81), (0.015, 1, 0.997), (0.016, 28, 0.81)])
def test_how_often_five_percent_more_is_found_at_level_report(processes, pairs, share):
    """With the floor of a twin that was measured beside it, as in a run. What harness/bench/README.md says of it.

    `processes`: standard deviation of the logarithms of their times; None: the noise above, which makes it 0.038. `pairs`: judged together,
    of which no other differs: 28 are those of eight implementations.
    """
    effects, blocks, found = np.array([0.0, math.log(1.05), 0.0]), LEVELS["report"].blocks, []
    assert blocks == BLOCKS
    for _ in range(400):
        shared = SHARED * RNG.standard_normal((1, blocks))
        if processes is None:
            three = np.concatenate([simulated(1, blocks, effect=effect, shared=shared) for effect in effects])
        else:
            three = np.exp(effects[:, None] + processes * RNG.standard_normal((3, blocks)) + shared)
        one, two, twin = (dict(enumerate(seconds)) for seconds in three)
        together = [paired(one, two), *[Estimate(1.0, 0.99, 1.01, 0.01, blocks, 0.99)] * (pairs - 1)]
        found += verdicts(together, [noise_floor(paired(one, twin))] * pairs, least=0.0)[:1]
    within = 3 * math.sqrt(share * (1 - share) / len(found))  # what a simulation of so many runs may be off
    assert np.mean([one.word == "slower" for one in found]) == pytest.approx(share, abs=within)
    assert not any(one.word == "faster" for one in found)


def of(value, spread, n=10):
    half = stats.t.ppf(0.975, n - 1) * spread / math.sqrt(n)
    t = abs(math.log(value)) / (spread / math.sqrt(n))
    return Estimate(value, value * math.exp(-half), value * math.exp(half), spread, n, 2 * stats.t.sf(t, n - 1))


def judged(*ratios, floor=0.0):
    return verdicts(ratios, [floor] * len(ratios))


def test_a_verdict_has_its_reasons():
    words = [str(one) for one in judged(of(1.5, 0.05), of(1 / 1.5, 0.05), of(1.01, 0.01), of(1.04, 0.001))]
    assert words == ["slower", "faster", "equal within noise", "equal within noise"]
    assert str(judged(of(1.2, 0.01), floor=0.3)[0]) == "cannot tell"  # no more than one thing differs from itself
    assert judged(of(1.001, 0.01), floor=EQUAL)[0].word == "equal within noise"
    assert judged(of(1.5, 0.01), floor=math.nan)[0].word == "cannot tell"  # nobody knows the noise
    assert judged(estimate([1.5]))[0].more is None and str(judged(estimate([1.5]))[0]) == "cannot tell"
    one, many = judged(of(1.2, 0.15))[0], judged(of(1.2, 0.15), *[of(1.0001, 0.15)] * 30)[0]
    assert one.word == "slower" and many.word == "cannot tell" and many.p > one.p


def test_nothing_is_equal_by_more_than_one_thing_differs_from_itself():
    """However tight the interval. A gate below the noise floor is refused."""
    for value in (1.001, 1.04, 1.0):
        (one,) = judged(of(value, 0.01), floor=0.20)
        assert one.word == "cannot tell" and one.more is None and str(one) == "cannot tell"  # no number of blocks is known to help
    (wide,) = judged(of(1.001, 0.5), floor=0.20)
    assert wide.more is None
    assert verdicts([of(1.03, 0.001)], [0.20], least=0.0)[0].word == "cannot tell"
    assert verdicts([of(1.3, 0.5)], [0.20], least=0.0)[0].more > 1  # but far beyond the floor it can still be slower


def test_several_floors_are_asked_of_a_difference_but_one_of_what_is_equal():
    told = lambda value, times: verdicts([of(value, 0.001)], [0.04], times=times)[0].word
    assert told(1.06, 1.0) == "slower" and told(1.06, 2.0) == "cannot tell"
    assert told(1.001, 1.0) == told(1.001, 2.0) == "equal within noise"


@pytest.mark.parametrize("value, spread", [(1.10, 0.2), (1.0, 0.2), (1.02, 0.1)])
def test_as_many_more_blocks_as_it_asks_for_are_enough_and_no_fewer(value, spread):
    ratio = of(value, spread, n=5)
    assert judged(ratio)[0].word == "cannot tell"
    more = more_blocks(ratio)
    assert judged(of(value, spread, n=5 + more))[0].word != "cannot tell"
    assert judged(of(value, spread, n=5 + more - 1))[0].word == "cannot tell"


@pytest.mark.parametrize("others", [[0.99] * 29, [1e-6] * 12 + [0.4] * 17, [1e-6] * 29, [0.006, 0.007, 0.008, 0.5]])
def test_as_many_more_blocks_are_enough_among_many_pairs_and_no_fewer(others):
    """The others staying as they are: p is adjusted for all of them."""
    rest = [Estimate(1.0, 0.5, 2.0, 1.0, 5, p) for p in others]
    first = verdicts([of(1.10, 0.1, n=5), *rest], [0.0] * (1 + len(rest)))[0]
    told = lambda n: verdicts([of(1.10, 0.1, n=n), *rest], [0.0] * (1 + len(rest)))[0].word
    assert first.word == "cannot tell" and told(5 + first.more) == "slower" and told(5 + first.more - 1) == "cannot tell"


def test_what_lies_on_the_margin_is_never_told():
    assert more_blocks(of(1 + 0.9999 * LEAST, 0.2)) == MOST_MORE


def test_the_floor_is_the_far_end_of_what_differs_from_itself():
    assert noise_floor(of(0.9, 0.05)) == pytest.approx(1 / of(0.9, 0.05).low - 1)
    assert noise_floor(of(1.1, 0.05)) == pytest.approx(of(1.1, 0.05).high - 1)
    assert math.isnan(noise_floor(None)) and math.isnan(noise_floor(estimate([1.0])))
