"""One more round after the timed ones: whatever does not do its work while it is timed has no speed."""

import gc

import numpy as np
import pytest

import impls
import specs
from harness.bench import measure, once_more, rounds
from harness.bench.cells import cells
from harness.processes import cpus


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


def stops(after):
    """Training that goes on to count its steps, and to give losses, but does nothing."""

    def fault(model):
        honest, losses = model.backend.timed_train, []

        def timed_train(batch):
            step = honest(batch)

            def run():
                if len(losses) < after:
                    losses.append(step())
                else:
                    model.backend.optimizer.step += 1
                return losses[-1]

            return run

        model.backend.timed_train = timed_train

    return fault


def seldom(spared):
    """Trains in one step of four only when `spared(step of the round)`, but counts all and draws their noise."""

    def fault(model):
        backend, at = model.backend, [0]
        honest, run = backend.timed_train, backend.run

        def timed_train(batch):
            step, losses = honest(batch), []

            def one():
                at[0] += 1
                if losses and at[0] % 4 and spared(at[0]):
                    backend.drawn(batch)
                    backend.optimizer.step += 1
                else:
                    losses.append(step())
                return losses[-1]

            return one

        backend.timed_train, backend.run = timed_train, lambda: (at.__setitem__(0, 0), run())

    return fault


def unwatched(model):
    """Trains in one step of four until somebody asks for the parameters."""
    looked, honest = [], model.parameters
    seldom(lambda step: not looked)(model)
    model.parameters = lambda: (looked.append(1), honest())[1]


def seldom_new(model):
    """Three losses of a round are new, of the others one in four."""
    backend, at = model.backend, [0]
    honest, run = backend.timed_loss, backend.run

    def timed_loss(batch):
        loss, found = honest(batch), []

        def one():
            at[0] += 1
            if at[0] <= 3 or at[0] % 4 == 0:
                found.append(loss())
            else:
                backend.drawn(batch)
            return found[-1]

        return one

    backend.timed_loss, backend.run = timed_loss, lambda: (at.__setitem__(0, 0), run())


def in_part(model):
    """In a round of more than three steps decodes a quarter of the rows."""
    honest = model.backend.timed_generate

    def timed_generate(batch):
        draw, n = honest(batch), len(batch["x"])

        def one():
            if model.backend.steps <= 3:
                return draw()
            z = model.backend.noise(n)
            return {"x_hat": np.resize(model.backend.decode(z[: n // 4]), (n, model.spec.d_x))}

        return one

    model.backend.timed_generate = timed_generate


def ahead(model):
    """The fit is made in `prepare`; a round copies it."""
    honest = model.backend.timed_fit

    def timed_fit(batch):
        found = {name: value.copy() for name, value in honest(batch)().items()}

        def one():
            model.backend.set_parameters(found)
            return found

        return one

    model.backend.timed_fit = timed_fit


def cached(operation):
    def fault(model):
        honest, found = getattr(model.backend, f"timed_{operation}"), {}

        def timed(batch):
            run = honest(batch)
            return lambda: found.setdefault("once", run() if "once" not in found else None)

        setattr(model.backend, f"timed_{operation}", timed)

    return fault


SOME, LITTLE = 2e-3, 1e-5  # seconds of a round at least: so little that a step that does nothing is timed at all


@pytest.mark.parametrize(
    ("spec", "operation", "fault", "least"),
    [
        ("vae", "train", stops(5), LITTLE),
        ("vae", "train", seldom(lambda step: step > 3), SOME),
        ("ae", "train", seldom(lambda step: step > 3), SOME),
        ("vae", "train", seldom(lambda step: not gc.isenabled()), SOME),
        ("vae", "train", unwatched, SOME),
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
    assert said(monkeypatch, operation, slow, spec)["state"] == "ok"
    found = said(monkeypatch, operation, lambda model: (slow(model), fault(model)), spec)
    assert found["state"] == "mismatch" and "rounds_s" not in found, found


@pytest.mark.parametrize(("operation", "fault"), [("train", stops(5)), ("loss", seldom_new), ("generate", in_part)])
def test_where_the_noise_of_all_rounds_is_too_much_to_draw_the_path_is_prepared_once_more(monkeypatch, operation, fault):
    monkeypatch.setattr(once_more, "MOST_DRAWS", 0)
    slow = lambda model: monkeypatch.setattr(rounds, "SHORTEST_S", {"cpu": SOME})
    assert said(monkeypatch, operation, slow)["state"] == "ok"
    assert said(monkeypatch, operation, lambda model: (slow(model), fault(model)))["state"] == "mismatch"


RUNS = {"dtype": "runs in dtype other, not float32", "precision": "runs in precision other", "device": "runs on other"}


@pytest.mark.parametrize("fact", RUNS)
def test_what_runs_in_another_way_than_was_asked_for_has_no_speed(monkeypatch, fact):
    """Something may be set in the process that is timed alone, such as the products' precision."""

    def fault(model):
        honest = model.facts
        model.facts = lambda: honest() | {fact: "other"}

    found = said(monkeypatch, "encode", fault)
    assert found["state"] == "error" and RUNS[fact] in found["reason"] and "rounds_s" not in found
