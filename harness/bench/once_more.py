"""After the rounds that were timed, one more, timed as they were, whose work is then checked: does what was timed still do it?

The renewal has seen a few steps of a fresh path. This sees the very path that was timed, in the state that it was left in, with the
garbage collection off as it was: but with other rows, and other parameters where it does not train. So what was computed ahead, is
remembered, or has stopped, shows here; and it may not take longer than those that were timed, or they did less.
"""

from time import sleep

import numpy as np

import impls
from harness.bench import rounds
from harness.bench.rounds import Settled
from impls import Model
from impls.surface import Arrays

STRICT = 3  # steps of training whose losses have the gates' precision; in more of them rounding has grown
APART = 0.01  # of a round's way through the parameters, and of its losses, that rounding may move in so many steps
CHOSEN = 20  # losses of a round that are compared, at random: NumPy computes them in float64
SLOWER, TRIES, REST_S = 2.0, 9, 0.01  # than the timed rounds, in each of so many, over ten seconds: machines hiccup
MOST_DRAWS = 5 * 10**7  # of noise, which has to be drawn from the first step on


def differs(model: Model, cell: dict, batch: Arrays, settled: Settled, timed: int, round_s: float, seed: int) -> str | None:
    """What is wrong with one more round, or None. `timed`: rounds since the last `prepare` besides those that `settled` tells of."""
    operation, past = cell["operation"], settled.prepared_rounds + timed
    if model.spec.noisy and (past + TRIES) * settled.steps * cell["batch_size"] * model.spec.d_z > MOST_DRAWS:
        model.prepare(batch, settled.steps, operation, seed := seed + 1)
        past = 0
    other, before = another(batch), model.parameters()
    model.refill(other)
    if operation not in ("train", "fit"):
        model.set_parameters({name: 0.5 * value for name, value in before.items()})
    for tried in range(1, TRIES + 1):
        start = (model.parameters(), model.optimizer_state()) if operation == "train" else None
        seconds = rounds.timed(model, 1)[0]
        if seconds <= SLOWER * round_s:
            break
        sleep(REST_S * 2**tried)
    else:
        return f"a round whose work is checked takes {seconds / round_s:.2g} times as long as those that were timed: they did less"
    drawn = (past + tried) * settled.steps
    try:
        if operation == "train":
            return _train(model, _given(model, other, drawn, settled.steps, seed), *start)
        if operation == "loss":
            return _loss(model, _given(model, other, drawn, settled.steps, seed))
        return _arrays(model, operation, other, drawn, seed)
    finally:
        model.set_parameters(before)


def another(batch: Arrays) -> Arrays:
    """Other rows, as many and in the same range: each mirrored, and shrunk."""
    return {name: 0.9 * array[:, ::-1] for name, array in batch.items()}


def a_round(model: Model) -> None:
    model.run()
    model.block()


def _given(model: Model, batch: Arrays, drawn: int, steps: int, seed: int) -> list[Arrays]:
    """The batches of the last round, with the noise that it has drawn; `drawn`: times, since `prepare`."""
    if not model.spec.noisy:
        return [batch] * steps
    return [batch | {"eps": eps} for eps in model.native_noise(len(batch["x"]), drawn, seed)[-steps:]]


def _reference(model: Model) -> Model:
    """NumPy in float64, with the model's parameters."""
    reference = impls.load("numpy").build(model.spec, dtype="float64")
    reference.set_parameters(model.parameters())
    return reference


def _arrays(model: Model, operation: str, batch: Arrays, drawn: int, seed: int) -> str | None:
    from harness.bench import measure

    got = model.outcome()
    if operation == "fit":
        model.fit(batch["x"])
        wanted = model.parameters()
    elif operation == "encode":
        wanted = _reference(model).encode(batch)
    elif operation == "decode":
        wanted = {"x_hat": _reference(model).decode(batch["z"])}
    else:
        wanted = {"x_hat": _reference(model).decode(model.native_noise(len(batch["x"]), drawn, seed)[-1])}
    return measure.differs(model, f"{operation}, once more with other values,", got, wanted)


def _loss(model: Model, given: list[Arrays]) -> str | None:
    from harness.bench import measure
    from harness.verify.checks_function import mean_loss

    losses, reference = model.outcome()["loss"], _reference(model)
    chosen = np.random.default_rng().permutation(len(given))[:CHOSEN]
    expected = np.array([mean_loss(model.spec, reference.terms(given[step])) for step in chosen])
    return measure.differs(model, "loss, once more with other values,", {"loss": losses[chosen]}, {"loss": expected})


def _train(model: Model, given: list[Arrays], parameters: Arrays, state: dict) -> str | None:
    """The whole round, replayed by `train` with the same noise from the same state."""
    from harness.bench import measure

    losses, after, count = model.outcome()["loss"], model.parameters(), model.optimizer_state()["step"]
    model.set_parameters(parameters)
    model.set_optimizer_state(state)
    expected, there = model.train(given), model.parameters()
    if wrong := measure.differs(model, "train, once more: losses", {"loss": losses[:STRICT]}, {"loss": expected[:STRICT]}):
        return wrong
    way = lambda one, other: np.sqrt(sum(np.square(one[name].astype(float) - other[name]).sum() for name in one))
    apart, moved = way(after, there), way(parameters, there)
    worst = np.abs(losses - expected).max() / np.abs(expected).max()
    if apart <= APART * moved and worst <= APART and count == state["step"] + len(given):
        return None
    return (
        f"a round of {len(given)} steps is not training with the same noise: its end by {apart / moved:.2g} of its way, its losses by "
        f"{worst:.2g}, allowed is {APART}; steps counted: {count - state['step']}"
    )
