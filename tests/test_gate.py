"""The gate: what it measures, in which order, and how it judges."""

import math
from pathlib import Path

import numpy as np
import pytest

import impls
import specs
from harness.bench import gate, interleave
from harness.bench.cells import cells
from harness.bench.interleave import VISITS, Block, Interleaved, Samples, Side
from harness.bench.station import Outcome
from harness.errors import CANNOT_TELL, FAILED, NOTHING_RAN, OK

VAE, NUMPY = specs.load("vae"), impls.load("numpy")
CELLS = [entry.cell for entry in cells([VAE], [NUMPY], ["train", "encode"])]
RNG = np.random.default_rng(5)


# The statistics, on seconds that are made up.


def samples(ratio=1.0, spread=0.01, blocks=5, shift=0.0):
    """Blocks in which head takes so many times as long, processes differ by `spread`, and the twin by `shift` besides."""
    made = Samples()
    for number in range(blocks):
        level = {"base": 1.0, "head": ratio, "twin": 1.0 + shift}
        process = {role: math.log(value) + spread * RNG.standard_normal() for role, value in level.items()}
        drift = [3 * RNG.random() for _ in range(VISITS)]  # of the machine: all three share it
        seconds = {role: [math.exp(one + common) for common in drift] for role, one in process.items()}
        made.blocks.append(Block(number, "base", seconds, {}, [None] * VISITS, 0.0))
    return made


def word(one):
    return gate.judge({CELLS[0]: one})[CELLS[0]].word


@pytest.mark.parametrize("ratio, expected", [(1.0, "not slower"), (1.10, "slower"), (0.8, "faster"), (1.03, "not slower")])
def test_a_drift_of_the_machine_hides_nothing(ratio, expected):
    found = [word(samples(ratio, 0.006)) for _ in range(100)]
    assert found.count(expected) >= 95, found


def test_twice_no_tree_is_called_slower_than_itself():
    """In 2000 runs a false alarm may come once in a pass by chance, and never in both."""
    alarms = [word(samples(spread=0.03)) == "slower" for _ in range(2000)]
    assert sum(alarms) <= 2000 * 0.01
    assert not any(one and other for one, other in zip(alarms[::2], alarms[1::2], strict=True))


def test_what_would_not_have_shown_is_not_called_silent():
    assert word(samples(1.0, 0.001, shift=0.2)) == "cannot tell"  # the control differs from itself by more than half of what it is for
    assert word(samples(1.07, 0.03)) == "cannot tell"
    assert word(samples(1.0, blocks=1)) == "cannot tell"


def test_a_slowdown_within_twice_the_floor_is_none():
    assert word(samples(1.15, 0.001, shift=0.10)) == "cannot tell"
    assert word(samples(1.15, 0.001, shift=0.05)) == "slower"


def test_a_cell_with_more_failures_than_blocks_is_not_judged():
    one = samples(2.0)
    one.failures["base"] = [Outcome("crash:SIGKILL", "why")] * 6
    assert gate.judge({CELLS[0]: one}) == {}


# The order of a block, with stations that are made up.


class Fake:
    """Answers at once. `script`: {(root, operation): outcomes of time(), one after the other}; what is not told is ok."""

    script: dict = {}
    log: list = []
    lost: dict = {}

    def __init__(self, implementation, spec, cells, environment, seed, silence_s, root=None):
        self.root, self.cells, self.worker, self.prepared = root, cells, None, None
        Fake.log.append(("new", root.name, dict(implementation.environment)))

    def open(self):
        self.worker = object()
        return {}

    def prepare(self):
        if outcome := Fake.lost.get(self.root.name):
            lost = dict.fromkeys(self.cells, outcome)
            self.cells, self.worker = [], None
            return lost
        self.prepared = {"passed": True}
        return {}

    def time(self, cell, rounds):
        Fake.log.append(("time", id(self), self.root.name, cell.operation))
        left = Fake.script.get((self.root.name, cell.operation))
        if left and (outcome := left.pop(0)):
            return outcome
        return outcome_of()

    def close(self):
        self.worker = self.prepared = None


def outcome_of(foreign=0.0):
    quiet = {"foreign": foreign, "stolen": 0.0, "swapped": 0, "throttled": None, "foreign_gpu": None}
    return Outcome("ok", None, {"rounds_s": [0.4, 0.2, 0.3], "steps_per_round": 2, "certificate": "abc", "quiet": quiet})


@pytest.fixture
def interleaved(monkeypatch):
    monkeypatch.setattr(interleave, "Station", Fake)
    monkeypatch.setattr(interleave, "wait_for_quiet", lambda patience: 0.0)
    Fake.script, Fake.log, Fake.lost = {}, [], {}
    sides = {side: Side(Path(side), {"numpy": {"OF": side}}) for side in ("base", "head")}
    return Interleaved(sides, [VAE], [NUMPY], seed=3)


def test_three_processes_are_asked_in_turn_and_back(interleaved):
    for _ in range(8):
        interleaved.block(CELLS[:1])
    started = [entry for entry in Fake.log if entry[0] == "new"]
    assert all(environment == {"OF": root} for _, root, environment in started)  # each in the environment of its own tree
    asked = [entry[1] for entry in Fake.log if entry[0] == "time"]
    per_block = 3 * VISITS
    assert len(asked) == 8 * per_block
    for k in range(8):
        visits = [asked[k * per_block + 3 * visit : k * per_block + 3 * visit + 3] for visit in range(VISITS)]
        assert all(len(set(visit)) == 3 for visit in visits) and visits[1] == visits[0][::-1] and visits[3] == visits[2][::-1]
    blocks = interleaved.of(CELLS[0]).blocks
    assert {block.twin for block in blocks} == {"base", "head"} and [block.number for block in blocks] == list(range(8))
    assert all(block.seconds == {role: [0.15] * VISITS for role in ("base", "head", "twin")} for block in blocks)


def test_a_disturbed_visit_is_made_once_more_and_kept(interleaved):
    Fake.script["head", "train"] = [None, outcome_of(foreign=0.5)]
    interleaved.block(CELLS[:1])
    (block,) = interleaved.of(CELLS[0]).blocks
    assert len(block.seconds["base"]) == len(block.disturbed) == VISITS + 1
    assert [one for one in block.disturbed if one] == ["other processes took 50 % of the CPUs"]


def test_a_machine_that_is_never_quiet_ends_too(interleaved):
    Fake.script["head", "train"] = [outcome_of(foreign=0.5) for _ in range(100)]
    interleaved.block(CELLS[:1])
    assert len(interleaved.of(CELLS[0]).blocks[0].disturbed) == 2 * VISITS


def test_what_is_busy_for_good_is_waited_for_less_and_less(interleaved, monkeypatch):
    asked = []
    monkeypatch.setattr(interleave, "wait_for_quiet", lambda patience: asked.append(patience) or max(patience, 0.0))
    for _ in range(3):
        interleaved.block(CELLS[:1])
    assert [one for one in asked if one > 0] == [20.0, 5.0, 1.25]


def test_a_failure_costs_its_cell_and_is_the_sides(interleaved):
    Fake.script["head", "encode"] = [Outcome("mismatch", "x_hat is off")]
    interleaved.block(CELLS)
    by = {cell.operation: interleaved.of(cell) for cell in CELLS}
    assert len(by["train"].blocks) == 1 and not by["encode"].blocks
    assert by["encode"].final("head").reason == "x_hat is off" and by["encode"].final("base") is None


def planned(interleaved, entries=None):
    found = entries or cells([VAE], [NUMPY], ["train", "encode"])
    return gate.Plan("b" * 40, "a" * 40, [], interleaved.sides, [VAE], [NUMPY], found)


@pytest.mark.parametrize("side, code, word", [("head", FAILED, "fails"), ("base", NOTHING_RAN, "not compared")])
def test_what_computes_something_else_has_no_number(interleaved, side, code, word):
    """In one operation, in a later block, whichever side is there twice: nothing measured before of that implementation is shown."""
    Fake.script[side, "encode"] = [None] * 9 + [Outcome("mismatch", "x_hat is off")]
    rows, _ = gate.gate(planned(interleaved), blocks=3)
    assert [row.word for row in rows] == [word, word] and gate.exit_code(rows) == code
    assert all(row.reason == f"{side}: mismatch: x_hat is off" and row.first is None and row.samples == () for row in rows)


def test_what_dies_in_head_alone_is_a_failure(interleaved):
    Fake.lost["head"] = Outcome("crash:SIGSEGV", "last words")
    rows, _ = gate.gate(planned(interleaved), blocks=2)
    assert {row.word for row in rows} == {"fails"} and rows[0].reason == "head: crash:SIGSEGV: last words"
    assert sum(entry[0] == "new" for entry in Fake.log) == 2 * 3  # tried again in the next block, and no oftener


def test_only_suspects_are_measured_again_and_both_must_agree(interleaved, monkeypatch):
    passes = []

    def judge(found):
        if not passes or passes[-1] != list(found):
            passes.append(list(found))
        words = {"train": "slower", "encode": "not slower"} if len(found) == 2 else {"train": second}
        return {cell: gate.Judged(words[cell.operation], None, None, 0.01, 0.001) for cell in found}

    monkeypatch.setattr(gate, "judge", judge)
    ends = (("slower", FAILED, "slower"), ("not slower", OK, "not slower again"), ("cannot tell", CANNOT_TELL, "cannot tell"))
    for second, code, word in ends:
        passes.clear()
        rows, _ = gate.gate(planned(interleaved), blocks=2)
        assert {row.cell.operation: row.word for row in rows} == {"train": word, "encode": "not slower"} and gate.exit_code(rows) == code
        assert [[cell.operation for cell in one] for one in passes] == [["train", "encode"], ["train"]]


def test_blocks_are_added_for_what_cannot_be_told_and_a_budget_ends_them(interleaved):
    interleaved_events = []
    rows, _ = gate.gate(planned(interleaved), blocks=2, on_event=interleaved_events.append)
    assert {len(row.samples[0].blocks) for row in rows} == {2}  # no spread at all: told at once
    rows, _ = gate.gate(planned(interleaved), blocks=2, budget_s=0.0)
    assert {row.word for row in rows} == {"cannot tell"} and gate.exit_code(rows) == CANNOT_TELL


def test_exit_codes():
    row = lambda word: gate.Row(CELLS[0], word, None)
    for words, code in (
        (["not slower", "faster", "not slower again"], OK),
        (["not slower", "not compared"], OK),
        (["not compared"], NOTHING_RAN),
        (["not slower", "cannot tell"], CANNOT_TELL),
        (["cannot tell", "slower"], FAILED),
        (["not compared", "fails"], FAILED),
    ):
        assert gate.exit_code([row(word) for word in words]) == code
