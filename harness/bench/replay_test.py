"""What pytest collects in a replay: harness/bench/replay.py gives the cells."""

import pytest

from harness.bench.replay import Replayed


def test_step(cell: Replayed, name: str, benchmark) -> None:
    if not cell.applies:
        pytest.skip(f"{cell.state}: {cell.reason}")
    if not cell.samples:
        pytest.fail(f"{cell.state}: {cell.reason}", pytrace=False)
    benchmark.extra_info.update(cell.facts)
    benchmark.pedantic(cell.clock.step, setup=cell.clock.reset, rounds=len(cell.samples))
