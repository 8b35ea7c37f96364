"""When the blocks end, and what is said of it; what else went on, and that it is told and measured again."""

import os
import subprocess
import sys
import time
import types
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy import stats

import impls
from harness.bench import journal, quiet, rules, schedule, stopping
from harness.bench.cells import Cell
from harness.bench.quiet import Counters, between, disturbed
from harness.bench.stopping import LEVELS, Level, Stop, Stopping
from harness.processes import cpus
from tests.small import small

TRAIN = Cell("vae", "0", "numpy", "train", "cpu", "float32", "highest", 10)
OTHER = Cell("vae", "0", "torch", "train", "cpu", "float32", "highest", 10)
DECODE = Cell("vae", "0", "numpy", "decode", "cpu", "float32", "highest", 10)
CALM = {"window_s": 1.0, "foreign": 0.0, "stolen": 0.0, "swapped": 0, "throttled": None, "foreign_gpu": None}
BUSY = CALM | {"foreign": 0.4}


def run(rule, step, quiet=lambda cell, block: CALM, cells=(TRAIN, OTHER, DECODE), most=99):
    """[cells of each block], and why it stopped. `step(cell, block)`: seconds a step."""
    stops, blocks = Stopping(rule), []
    for block in range(most):
        due = stops.due(block, list(cells))
        if not due:
            return blocks, stops.why
        blocks.append(due)
        for cell in due:
            stops.note(cell, block, {"rounds_s": [4 * step(cell, block)] * 3, "steps_per_round": 4, "quiet": quiet(cell, block)})
    raise AssertionError("it never stops")


def jumpy(cell, block):
    """Of numpy's training far from run to run; of all else within 1 %."""
    return (1 + 0.5 * (block % 2)) if cell == TRAIN else 1 + 0.01 * (block % 2)


def test_without_a_target_there_are_as_many_blocks_as_the_level_asks():
    blocks, why = run(Stop(3, 3, None, None), jumpy)
    assert [len(block) for block in blocks] == [3, 3, 3] and why == "blocks: 3 blocks, as the level asks"


def test_what_is_too_wide_gets_more_blocks_and_all_that_is_compared_with_it_too():
    blocks, why = run(Stop(4, 7, 0.05, None), jumpy)
    assert len(blocks) == 7 and all(set(block) == {TRAIN, OTHER} for block in blocks[4:])
    assert why.startswith("blocks: 7 blocks, the most") and "1 of 3 intervals are wider than 5 %" in why
    steady, why = run(Stop(4, 7, 0.05, None), lambda cell, block: 1 + 0.01 * (block % 2))
    assert len(steady) == 4 and why == "target: after 4 blocks every 95 % interval is within 5 % of its value"


def test_a_disturbed_block_is_measured_once_more():
    spoilt = lambda cell, block: BUSY if (cell, block) in {(OTHER, 1), (TRAIN, 2)} or block > 2 else CALM
    blocks, why = run(Stop(3, 8, None, None), lambda cell, block: 1.0, spoilt)
    assert [set(block) for block in blocks[3:]] == [{TRAIN, OTHER}] * 2  # once for each; what disturbs those is told, and no more
    assert "5 blocks" in why
    assert len(run(Stop(3, 4, None, None), lambda cell, block: 1.0, spoilt)[0]) == 4  # never more than the most


def test_a_budget_ends_it_but_not_before_there_is_an_interval(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(stopping, "monotonic", lambda: now[0])

    def step(cell, block):
        now[0] += 10.0  # three cells a block: 30 s
        return 1.0

    blocks, why = run(Stop(10, 10, None, 100.0), step)
    assert len(blocks) == 3 and why == "budget: after 3 blocks and 1.5 of 1.7 minutes another would not fit"
    now[0] = 0.0
    assert len(run(Stop(10, 10, None, 1.0), step)[0]) == 2

    def cold_at_first(cell, block):
        now[0] += 40.0 if block < 3 else 10.0  # 120 s and 30 s a block
        return 1.0

    now[0] = 0.0
    assert len(run(Stop(20, 20, None, 600.0), cold_at_first)[0]) == 3 + 8


def test_levels_say_when_to_stop():
    assert Level(3, 1, 1).stop() == Stop(3, 3, None, None)
    assert Level(3, 1, 1, more=4, target=0.1).stop() == Stop(5, 7, 0.1, None)
    assert Level(3, 1, 1, more=1, target=0.1).stop() == Stop(5, 5, 0.1, None)
    assert Level(3, 1, 1).stop(0.02, 60.0) == Stop(5, 9, 0.02, 60.0)
    assert Level(6, 1, 1).stop(0.02) == Stop(6, 18, 0.02, None)
    assert all(level.blocks >= 10 for name, level in schedule.LEVELS.items() if name == "report")


# What it costs to look at the widths. The rule again, on arrays: `Stopping` asks SciPy block by block, too slow for so many runs.


def looked(logs, n):
    """Mean of log seconds and its standard error after each block, of (..., blocks)."""
    mean = np.cumsum(logs, -1) / n
    variance = np.maximum(np.cumsum(logs**2, -1) / n - mean**2, 0) * n / np.maximum(n - 1, 1)
    return mean, np.sqrt(variance / n)


def ended(logs, rule):
    """Index of each run's last block, where no block is disturbed: (runs, cells that are compared, most) -> (runs,)."""
    n = np.arange(1, rule.most + 1)
    half = np.expm1(stats.t.ppf(0.975, np.maximum(n - 1, 1)) * looked(logs, n)[1]).max(1)
    narrow = half[:, rule.blocks - 1 :] <= rule.target
    narrow[:, -1] = True
    return rule.blocks - 1 + narrow.argmax(1)


def covered(rule, spread, runs=20_000, cells=1):
    """Shares: of nominal 95 % intervals that hold the truth; of pairs with p of 0.01 at most, of which none differ."""
    logs = np.random.default_rng(7).standard_normal((runs, cells, rule.most)) * spread
    n, at = np.arange(1, rule.most + 1), (np.arange(runs), ended(logs, rule))
    mean, error = (one[at] for one in looked(logs[:, 0], n))
    away, of = (one[at] for one in looked(logs[:, 0] - logs[:, -1], n)) if cells > 1 else (mean, error)
    p = 2 * stats.t.sf(np.abs(away / of), at[1])
    return np.mean(np.abs(mean) <= stats.t.ppf(0.975, at[1]) * error), np.mean(p <= 0.01)


@pytest.mark.parametrize("rule", [LEVELS["ci"].stop(), LEVELS["quick"].stop(0.05)])
def test_the_rule_on_arrays_is_the_rule(rule):
    for cells in (1, 2):
        logs = np.random.default_rng(8).standard_normal((25, cells, rule.most)) * 1.5 * rule.target
        names = [replace(TRAIN, implementation=str(k)) for k in range(cells)]
        step = lambda cell, block, one: np.exp(one[int(cell.implementation)][block])
        counts = [len(run(rule, partial(step, one=one), cells=names)[0]) for one in logs]
        assert counts == list(ended(logs, rule) + 1) and len(set(counts)) > 1


@pytest.mark.parametrize(
    "level, target, coverage, false",
    [
        ("ci", None, 0.939, 0.011),
        ("report", None, 0.942, 0.011),
        ("quick", 0.05, 0.932, 0.013),
        ("ci", 0.05, 0.923, 0.013),
        ("report", 0.05, 0.935, 0.012),
    ],
)
def test_to_end_by_the_width_costs_coverage_and_no_more_than_is_said(level, target, coverage, false):
    """Nominal: 0.95 and 0.01. At the worst spread of many, for the one cell of a run that ends by its width; harness/bench/README.md."""
    rule = LEVELS[level].stop(target)
    spreads = rule.target * np.geomspace(1.0, 2.4, 6)
    assert min(covered(rule, spread)[0] for spread in spreads) == pytest.approx(coverage, abs=0.004)
    assert max(covered(rule, spread, cells=2)[1] for spread in spreads) == pytest.approx(false, abs=0.002)
    assert covered(rule, 1.5 * rule.target, cells=8)[0] > 0.945  # of eight alike, the one that is waited for is another


def test_fewer_blocks_before_the_first_look_would_cost_more():
    """The control of the one above: with three, as level quick has without a target."""
    assert covered(Stop(3, 9, 0.05, None), 0.07)[0] < 0.915


def test_whose_twin_is_timed_is_drawn_at_random_where_there_is_time():
    """Else one implementation's noise, NumPy's above all, would pass for that of all the others."""
    names = list(impls.available())
    cells = [replace(TRAIN, spec=spec, implementation=name) for spec in ("vae", "ae") for name in names]

    def drawn(level):
        made = [schedule.Bench([], [], [], schedule.LEVELS[level], None, None, seed, "", print, 1.0).twins(cells) for seed in range(40)]
        assert all([(twin.spec, twin.replica) for twin in twins] == [("vae", 1), ("ae", 1)] for twins in made)
        return {twin.implementation for twins in made for twin in twins}

    assert drawn("report") == drawn("ci") == set(names) and drawn("quick") == drawn("sweep") == {"numpy"}


def test_what_a_process_has_compiled_helps_no_other_one_whose_start_is_timed(tmp_path):
    def places(**level):
        made = schedule.Bench([], [], [], Level(rounds=1, **level), None, None, 0, str(tmp_path), lambda event: None, 1.0)
        return [made.caches_for(block, TRAIN, False).get("JAX_COMPILATION_CACHE_DIR") for block in range(level["blocks"])]

    first, *rest = places(blocks=5, cold_blocks=3)
    assert first is None and rest[0] is None and len(set(rest[1:])) == 1 and rest[1].startswith(str(tmp_path))
    assert places(blocks=4, cold_blocks=4) == [None] * 4
    assert len(set(places(blocks=3, cold_blocks=1))) == 1 and None not in places(blocks=3, cold_blocks=1)
    assert None not in places(blocks=3, cold_blocks=0)


# What else went on.


def counters(at, own=0.0, busy=0.0, stolen=0.0, swapped=0, throttled=None):
    return Counters(at, own, busy, stolen, swapped, throttled)


def test_what_others_take_is_what_we_have_not_taken():
    n = len(cpus())
    found = between(counters(10.0, 1.0, 5.0, 0.0, 7), counters(12.0, 2.0, 5.0 + 1.0 + n * 0.5, n * 1.0, 9, 3))
    assert found == {"window_s": 2.0, "foreign": 0.25, "stolen": 0.5, "swapped": 2, "throttled": None, "foreign_gpu": None}
    why = disturbed(found)
    assert len(why) == 3 and "other processes took 25 %" in why[0] and "the host took 50 %" in why[1] and "2 pages" in why[2]
    assert disturbed(None) == disturbed(CALM) == disturbed(CALM | {"foreign": 0.09}) == []
    few = between(counters(0.0), counters(0.1, 0.0, 4 * quiet.TICK_S))
    assert few["foreign"] == 0.0  # fewer ticks than mean anything
    assert disturbed(CALM | {"throttled": 2, "foreign_gpu": 1})[1] == "1 other processes were on the GPU"
    assert between(counters(5.0, 3.0, 9.0, 1.0, 9), counters(6.0, 3.0, 2.0, 0.0, 1))["foreign"] == 0.0  # a counter that goes back


def test_siblings_are_not_foreign_to_the_gpu(monkeypatch):
    sibling, parent = subprocess.Popen(["sleep", "60"]), os.getppid()
    running = [types.SimpleNamespace(pid=pid) for pid in (os.getpid(), sibling.pid, 1, 2**30)]
    fake = types.SimpleNamespace(
        NVMLError=OSError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda k: k,
        nvmlDeviceGetComputeRunningProcesses=lambda handle: running,
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    try:
        assert quiet.foreign_gpu() == 3  # to this process its own child is another's
        monkeypatch.setattr(quiet.os, "getppid", os.getpid)  # as a worker of the process that has started it
        assert quiet.foreign_gpu() == 2 and parent != os.getpid()
    finally:
        sibling.kill()
        sibling.wait()
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert quiet.foreign_gpu() is None


def test_a_system_that_tells_nothing_is_not_called_quiet(monkeypatch, tmp_path):
    monkeypatch.setattr(quiet, "STAT", tmp_path / "absent")
    monkeypatch.setattr(quiet, "VMSTAT", tmp_path / "absent")
    monkeypatch.setattr(quiet, "THROTTLE", str(tmp_path))
    found = between(quiet.counters(), quiet.counters())
    assert found["foreign"] is found["stolen"] is found["swapped"] is found["throttled"] is None and disturbed(found) == []


HEAVY = "while True: pass"


def test_a_heavy_process_beside_is_seen_told_and_its_block_measured_again(monkeypatch, tmp_path):
    import subprocess
    import sys

    monkeypatch.setitem(schedule.LEVELS, "tiny", Level(blocks=2, rounds=20, cold_blocks=1, operations=("decode",), more=3))
    spec = small("vae")
    beside = [subprocess.Popen([sys.executable, "-c", HEAVY]) for _ in cpus()]
    try:
        path = schedule.bench([spec], [impls.load("numpy")], level="tiny", dtype="float32", device="cpu", folder=tmp_path, seed=1)
    finally:
        for one in beside:
            one.kill()
            one.wait()
    timed = [row for row in journal.read(path).last_run if row["row"] == "finish"]
    spoilt = {row["block"] for row in timed if disturbed(row["quiet"])}
    assert spoilt >= {0, 1} and max(row["block"] for row in timed) == 3  # both once more, and all are kept
    card = rules.card(path)
    [nine] = card[card.rule == 9].to_dict("records")
    assert nine["state"] == "WARN" and "other processes took" in nine["detail"] and "block 0" in nine["detail"]


def test_a_clock_that_goes_back_is_no_measurement(monkeypatch):
    from harness.bench import rounds

    model = type("Idle", (), {"run": lambda self: None, "block": lambda self: None})()
    times = iter([5.0, 4.0])
    monkeypatch.setattr(rounds, "perf_counter", lambda: next(times))
    with pytest.raises(RuntimeError, match="the clock has gone back"):
        rounds.timed(model, 1)
    assert time.get_clock_info("perf_counter").monotonic
