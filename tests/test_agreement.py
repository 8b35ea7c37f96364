"""Rank order of two runs: against SciPy's Kendall tau where every pair is told apart, and what is left out where not."""

import pytest
from scipy.stats import kendalltau

from harness.bench.agreement import order
from tests.journal_rows import CELL, Whole
from tests.test_compare import NOISE, compare, run

NAMES = ("numpy", "torch", "jax", "jax-scan")


def measured(folder, seconds, blocks=8):
    """{implementation: seconds a step}, with numpy's twin for the noise floor."""
    folder.mkdir()
    with Whole(folder / "journal.jsonl") as journal:
        journal.write("run")
        for k, (name, value) in enumerate([*seconds.items(), ("numpy", seconds["numpy"])]):
            cell = {**CELL, "implementation": name, "replica": int(k == len(seconds))}
            for block in range(blocks):
                journal.write("finish", cell=cell, block=block, rounds_s=[value * NOISE[(block + 3 * k) % 8]] * 3)
    return folder / "journal.jsonl"


@pytest.mark.parametrize("then", [(1, 2, 3, 4), (2, 1, 3, 4), (4, 3, 2, 1), (3, 1, 4, 2)])
def test_it_is_kendalls_tau_where_all_are_told_apart(tmp_path, then):
    first = (1, 2, 3, 4)
    found = order(*(measured(tmp_path / str(k), dict(zip(NAMES, of, strict=True))) for k, of in enumerate((first, then))))
    assert found.tau == pytest.approx(kendalltau(first, then).statistic)
    assert found.agreed + len(found.reversed) == 6 and found.left_out == 0
    assert all("jax" in line or "torch" in line for line in found.reversed)


def test_what_both_call_equal_is_left_out_and_what_one_tells_apart_is_not(tmp_path):
    one = measured(tmp_path / "one", {"numpy": 1, "torch": 1.001, "jax": 2})
    two = measured(tmp_path / "two", {"numpy": 1.001, "torch": 1, "jax": 2})
    three = measured(tmp_path / "three", {"numpy": 1, "torch": 0.8, "jax": 2})
    same, turned = order(one, two), order(one, three)
    assert (same.tau, same.agreed, same.left_out) == (1, 2, 1)
    assert turned.tau == pytest.approx(1 / 3) and "torch over numpy" in turned.reversed[0]


def test_one_implementation_has_no_order(tmp_path):
    base, new = run(tmp_path / "base"), run(tmp_path / "new")
    assert order(base / "journal.jsonl", new / "journal.jsonl").tau is None
    assert "neither run tells" in compare(base, new).stderr


def test_compare_says_it(tmp_path):
    one, two = (measured(tmp_path / name, {"numpy": 1, "torch": 2, "jax": 3}) for name in ("one", "two"))
    assert "Kendall's tau 1.000 over 3 pairs" in compare(one, two).stderr
