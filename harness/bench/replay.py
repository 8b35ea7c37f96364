"""A journal as pytest-benchmark sees it: its cells as tests, on a clock that shows what was measured.

pytest-benchmark is the front end that CI knows: its JSON, `--benchmark-compare`, histograms and `pytest-benchmark compare` work as ever.
It measures nothing here. A sample is the median of a process, since processes are the replicates; rounds are never pooled.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import median

from harness.bench.journal import read
from harness.bench.schedule import NOT_RUN
from harness.bench.table import by_cell, finished, key, line, mismatched, place, step_seconds
from harness.errors import FAILED, NOTHING_RAN, OK, UserError
from harness.files import results_folder

TESTS = Path(__file__).with_name("replay_test.py")
OUTCOME = {0: OK, 1: FAILED, 5: NOTHING_RAN}  # of pytest
IN_NAME = ("spec", "operation", "implementation", "device", "dtype", "precision", "batch_size")


class Clock:
    """Shows 0, and after each step the next sample: the difference is that sample, to the last bit."""

    __name__ = "replayed"

    def __init__(self, samples: list[float]):
        self.samples, self.now = iter(samples), 0.0

    def __call__(self) -> float:
        return self.now

    def reset(self) -> None:
        self.now = 0.0

    def step(self) -> None:
        self.now = next(self.samples)


@dataclass(frozen=True)
class Replayed:
    """A cell of the journal. `samples`: seconds a step, one a process; none unless `state` is "ok"."""

    name: str
    group: str
    state: str
    reason: str | None
    samples: list[float] = field(default_factory=list)
    facts: dict[str, str | float] = field(default_factory=dict)

    @property
    def applies(self) -> bool:
        return self.state not in NOT_RUN

    @cached_property
    def clock(self) -> Clock:
        return Clock(self.samples)


def cells(journal: Path) -> Iterator[Replayed]:
    rows = finished(read(journal).last_run)
    void, timed = mismatched(rows), by_cell(rows, "time")
    known = {key(row["cell"]): row["cell"] for row in rows if row["pass"] == "time" and not row["cell"]["replica"]}
    for one in sorted(known, key=lambda one: place(known[one])):
        cell, good = known[one], [row for row in timed[one] if row["state"] == "ok"]
        told = line(cell, timed[one], [], void)
        ok = told["state"] == "ok"
        yield Replayed(
            name="-".join(str(cell[name]) for name in IN_NAME),
            group=f"{cell['spec']} {cell['operation']}",
            state=told["state"],
            reason=told["reason"],
            samples=[median(step_seconds(row)) for row in good] if ok else [],
            facts={
                "certificate": told["certificate"],
                "spec_hash": cell["spec_hash"],
                "rounds": float(told["rounds"]),
                **{name: float(told[name]) for name in ("margin", "samples_per_s", "samples_low", "samples_high")},
            }
            if ok
            else {},
        )


def replay(folder: Path, arguments: tuple[str, ...]) -> int:
    """Run pytest over the last run in a folder's journal, with these arguments of pytest and pytest-benchmark. Returns isoform's exit code.

    Raises UserError where there is no journal, or no pytest-benchmark.
    """
    try:
        import pytest
        from pytest_benchmark.session import PerformanceRegression
    except ImportError as error:
        raise UserError(f"{error.name} is not installed\n  mend: python -m pip install -c constraints.txt -e '.[test]'") from None
    for option, _, path in [word.partition("=") for word in arguments]:
        if option == "--benchmark-histogram" and path:
            results_folder(Path(path).parent)  # pytest-benchmark itself would end in a traceback
    journal = folder / "journal.jsonl"
    found = list(cells(journal))
    run = next((row for row in read(journal).last_run if row["row"] == "run"), None)
    if run is None:
        raise UserError(f"{journal}: nothing was measured\n  mend: isoform bench --out {folder}", NOTHING_RAN)

    class Plugin:
        def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
            mark = lambda cell: pytest.mark.benchmark(timer=cell.clock, group=cell.group, disable_gc=False)
            metafunc.parametrize("name", [pytest.param(cell.name, marks=mark(cell), id=cell.name) for cell in found])

        @pytest.fixture
        def cell(self, name: str) -> Replayed:
            return next(cell for cell in found if cell.name == name)

        @pytest.hookimpl(tryfirst=True)
        def pytest_benchmark_generate_machine_info(self) -> dict:
            return {**run["machine"], "versions": run["versions"]}  # of what has measured, which need not be what replays

    ours = [str(TESTS), "-c", os.devnull, "--rootdir", str(TESTS.parent), "-p", "no:cacheprovider", "--import-mode=importlib"]
    ours += ["-W", "ignore:Benchmark fixture was not used"]  # of a cell that has failed
    try:
        code = pytest.main([*ours, "--benchmark-columns=min,median,mean,stddev,rounds", *arguments], plugins=[Plugin()])
    except PerformanceRegression as error:  # --benchmark-compare-fail: pytest lets it through
        raise UserError(str(error), FAILED) from None
    except OSError as error:  # of its files; what a journal lacks was told above
        raise UserError(
            f"pytest-benchmark cannot write {error.filename}: {error.strerror}\n"
            f"  mend: another place for --benchmark-json, --benchmark-storage or --benchmark-histogram"
        ) from None
    return OUTCOME.get(int(code), 2)
