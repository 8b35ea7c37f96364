"""After the rounds that were timed, one more that is not, without `prepare`: does what was timed still do the work?

The renewal has seen a few steps of a fresh path. This sees the very path that was timed, in the state that it was left in: one that
has stopped to learn after so many steps, or answers from a cache, shows here.
"""

import numpy as np

import impls
from harness.bench.rounds import Settled
from impls import Model
from impls.surface import Arrays

REPLAYED = 3  # steps of training; as many as the renewal, so that nothing more is compiled
MOST_DRAWS = 5 * 10**7  # of noise, which has to be drawn from the first step on


def differs(model: Model, cell: dict, batch: Arrays, settled: Settled, timed: int, seed: int) -> str | None:
    """What is wrong with one more round, or None. `timed`: rounds since the last `prepare` besides those that `settled` tells of."""
    from harness.bench import measure

    if cell["operation"] == "train":
        return _train(model, cell, batch, settled, timed, seed)
    if cell["operation"] == "loss":
        return _loss(model, cell, batch, settled, timed, seed)
    moved = {name: 0.5 * value for name, value in model.parameters().items()}
    before = model.parameters()
    model.set_parameters(moved)
    a_round(model)
    try:
        if cell["operation"] == "fit":
            return measure.differs(model, "fit, once more,", model.parameters(), before)
        reference = impls.load("numpy").build(model.spec, dtype="float64")
        reference.set_parameters(moved)
        if cell["operation"] == "encode":
            return measure.differs(model, "encode of other parameters", model.outcome(), reference.encode(batch))
        if cell["operation"] == "decode":
            return measure.differs(model, "decode of other parameters", model.outcome(), {"x_hat": reference.decode(batch["z"])})
        return None
    finally:
        model.set_parameters(before)


def a_round(model: Model) -> None:
    model.run()
    model.block()


def _given(model: Model, cell: dict, batch: Arrays, settled: Settled, timed: int, seed: int) -> list[Arrays] | None:
    """The first batches of the round that follows the timed ones, with the noise that it draws; None where that takes too long to draw."""
    steps, n, past = min(REPLAYED, settled.steps), cell["batch_size"], (settled.prepared_rounds + timed) * settled.steps
    if not model.spec.noisy:
        return [batch] * steps
    if (past + steps) * n * model.spec.d_z > MOST_DRAWS:
        return None
    return [batch | {"eps": eps} for eps in model.native_noise(n, past + steps, seed)[-steps:]]


def _loss(model: Model, cell: dict, batch: Arrays, settled: Settled, timed: int, seed: int) -> str | None:
    """The loss of other parameters, against NumPy's in float64."""
    from harness.bench import measure
    from harness.verify.checks_function import mean_loss

    before = model.parameters()
    moved = {name: 0.5 * value for name, value in before.items()}
    model.set_parameters(moved)
    a_round(model)
    losses, given = model.outcome()["loss"], _given(model, cell, batch, settled, timed, seed)
    model.set_parameters(before)
    if given is None:
        return None
    reference = impls.load("numpy").build(model.spec, dtype="float64")
    reference.set_parameters(moved)
    expected = np.array([mean_loss(model.spec, reference.terms(one)) for one in given])
    return measure.differs(model, "loss of other parameters", {"loss": losses[: len(given)]}, {"loss": expected})


def _train(model: Model, cell: dict, batch: Arrays, settled: Settled, timed: int, seed: int) -> str | None:
    from harness.bench import measure

    parameters, state = model.parameters(), model.optimizer_state()
    a_round(model)
    losses, steps = model.outcome()["loss"], min(REPLAYED, settled.steps)
    after = model.parameters()
    if still := [name for name, value in after.items() if np.array_equal(value, parameters[name])]:
        return f"a round of {settled.steps} steps has left {', '.join(still)} as it was"
    given = _given(model, cell, batch, settled, timed, seed)
    if given is None:
        return None
    model.set_parameters(parameters)
    model.set_optimizer_state(state)
    expected = model.train(given)
    return measure.differs(model, "train, once more: losses", {"loss": losses[:steps]}, {"loss": expected})
