"""One more round after the timed ones: whatever does not do its work while it is timed has no speed."""

import gc

import pytest

import impls
import specs
from harness.bench import measure, once_more, rounds
from harness.bench.cells import cells
from harness.processes import cpus
from tests.timed_faults import ahead, cached, in_part, seldom, seldom_new, stops


def said(monkeypatch, operation, fault, spec="vae"):
    """What bench says of a NumPy model with a fault that comes after the certificate."""
    events, implementation, chosen = [], impls.load("numpy"), specs.load(spec)
    emit = lambda event, **fields: events.append((event, fields))
    asked = [entry.cell.row() for entry in cells([chosen], [implementation])]
    measure.prepare(implementation, chosen, {"cells": asked, "seed": 3}, emit)
    model = measure.HELD.pop("model")
    fault(model)
    cell = next(one for one in asked if one["operation"] == operation)
    monkeypatch.setattr(rounds, "WARM_UP_ROUNDS", 6)
    measure.time_cell(model, chosen, {"cell": cell, "seed": 3, "rounds": 3, "affinity": cpus()}, emit)
    return events[-1][1]


def test_nothing_comes_between_the_warm_up_and_the_timed_rounds(monkeypatch):
    """Counting steps copies the optimizer's moments, counting compilations walks all objects: both leave the caches cold."""
    done = []

    def spy(model):
        for module, name in ((measure, "trained_steps"), (measure.compiles, "count"), (rounds, "steady"), (rounds, "timed")):
            honest = getattr(module, name)
            monkeypatch.setattr(module, name, lambda *given, honest=honest, name=name: (done.append(name), honest(*given))[1])

    assert said(monkeypatch, "train", spy)["state"] == "ok"
    at = done.index("steady")
    assert {"trained_steps", "count"} <= set(done[:at])
    while done[at + 1] == "timed":
        at += 1
    assert done[at + 1 : at + 3] == ["count", "trained_steps"]  # the same two after the rounds, and no other before them


SOME, LITTLE = 2e-3, 1e-5  # seconds of a round at least: so little that a step that does nothing is timed at all


@pytest.mark.parametrize(
    ("spec", "operation", "fault", "least"),
    [
        ("vae", "train", stops(5), LITTLE),
        ("vae", "train", seldom(lambda step: step > 3), SOME),
        ("ae", "train", seldom(lambda step: step > 3), SOME),
        ("vae", "train", seldom(lambda step: not gc.isenabled()), SOME),
        ("vae", "loss", seldom_new, SOME),
        ("vae", "generate", in_part, SOME),
        ("vae", "encode", cached("encode"), LITTLE),
        ("vae", "decode", cached("decode"), LITTLE),
        ("pca", "fit", cached("fit"), LITTLE),
        ("pca", "fit", ahead, SOME),
    ],
)
def test_what_stops_to_work_while_it_is_timed_has_no_speed(monkeypatch, spec, operation, fault, least):
    slow = lambda model: monkeypatch.setattr(rounds, "SHORTEST_S", {"cpu": least})
    honest = said(monkeypatch, operation, slow, spec)
    assert honest["state"] == "ok", honest
    found = said(monkeypatch, operation, lambda model: (slow(model), fault(model.backend)), spec)
    assert found["state"] == "mismatch" and "rounds_s" not in found, found


def test_what_does_less_until_somebody_looks_has_no_speed(monkeypatch):
    def unwatched(model):
        monkeypatch.setattr(rounds, "SHORTEST_S", {"cpu": SOME})
        looked, honest = [], model.parameters
        seldom(lambda step: not looked)(model.backend)
        model.parameters = lambda: (looked.append(1), honest())[1]

    monkeypatch.setattr(once_more, "REST_S", 0.0)
    assert "times as long as those that were timed" in said(monkeypatch, "train", unwatched)["reason"]


@pytest.mark.parametrize(("operation", "fault"), [("train", stops(5)), ("loss", seldom_new), ("generate", in_part)])
def test_where_the_noise_of_all_rounds_is_too_much_to_draw_the_path_is_prepared_once_more(monkeypatch, operation, fault):
    monkeypatch.setattr(once_more, "MOST_DRAWS", 0)
    slow = lambda model: monkeypatch.setattr(rounds, "SHORTEST_S", {"cpu": SOME})
    assert said(monkeypatch, operation, slow)["state"] == "ok"
    assert said(monkeypatch, operation, lambda model: (slow(model), fault(model.backend)))["state"] == "mismatch"


RUNS = {"dtype": "runs in dtype other, not float32", "precision": "runs in precision other", "device": "runs on other"}


@pytest.mark.parametrize("fact", RUNS)
def test_what_runs_in_another_way_than_was_asked_for_has_no_speed(monkeypatch, fact):
    """Something may be set in the process that is timed alone, such as the products' precision."""

    def fault(model):
        honest = model.facts
        model.facts = lambda: honest() | {fact: "other"}

    found = said(monkeypatch, "encode", fault)
    assert found["state"] == "error" and RUNS[fact] in found["reason"] and "rounds_s" not in found
