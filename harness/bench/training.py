"""The worker's side of time-to-quality: train until the loss on the test data is what it should be, by the clock of the training alone."""

from collections.abc import Callable, Iterator
from itertools import islice
from time import perf_counter

import numpy as np

from harness.bench.measure import build, import_framework
from impls import Implementation, Model
from impls.surface import Arrays
from specs import Spec
from specs.noise import batch as make_batch
from specs.noise import order
from specs.parameters import initial

EVERY = 25  # steps between two looks at the test data
TEST_NOISE = 10**6  # the step whose noise the test data have: far beyond those of training


def handle(implementation: Implementation, request: dict, emit: Callable[..., None]) -> None:
    """One event, "measured": certified first, then steps and seconds to the target; "mismatch" with the reason if it is not certified."""
    from harness.verify.renew import renew

    spec, seed = Spec.model_validate_json(request["spec"]), request["seed"]
    import_framework(implementation, spec)
    model = build(implementation, spec, request["cell"])
    renewed = renew(model, request["cell"]["batch_size"], ("train",))
    if not renewed["passed"]:
        emit("measured", state="mismatch", reason=renewed["message"])
        return
    known = {"certificate": renewed["id"], "code_hash": renewed["code_hash"], "versions": renewed["versions"]}
    from harness import data

    found = reach(model, data.load(spec).train, data.load(spec).test, seed, request["target"], request["most_steps"])
    emit("measured", state="ok", **known, seed=seed, target=request["target"], **found)


def reach(model: Model, train: np.ndarray, test: np.ndarray, seed: int, target: float, most_steps: int) -> dict:
    """{"loss", "steps", "seconds", "reason"}. Initial parameters, batch order and noise by `seed`; the noise is the framework's own.

    Seconds are those of drawing and training: a first stretch, which compiles, is taken back; looks at the test data do not count.
    Raises RuntimeError where the loss is not finite.
    """
    spec = model.spec.replace(seed=seed)
    start = initial(spec, model.dtype)
    zeros = {name: np.zeros_like(value) for name, value in start.items()}
    for _ in range(2):  # the first time through compiles
        model.set_parameters(start)
        model.set_optimizer_state({"step": 0, "m": zeros, "v": zeros})
        rows = order(spec, len(train), model.spec.training.batch_size)
        first = stretch(model, train, rows, seed, 0)
    steps, seconds = EVERY, first
    while not (loss := test_loss(model, test)) <= target:
        if not np.isfinite(loss):
            raise RuntimeError(f"seed {seed}: the loss on the test data is {loss} after {steps} steps")
        if steps >= most_steps:
            return {"loss": float(loss), "steps": None, "seconds": None, "reason": f"not reached in {steps} steps"}
        seconds += stretch(model, train, rows, seed, steps)
        steps += EVERY
    return {"loss": float(loss), "steps": steps, "seconds": seconds, "reason": None}


def stretch(model: Model, train: np.ndarray, rows: Iterator[np.ndarray], seed: int, step: int) -> float:
    """Seconds of EVERY steps: the framework draws the noise, and trains on the rows that come next."""
    given = [train[which] for which in islice(rows, EVERY)]
    begun = perf_counter()
    if model.spec.noisy:
        noise = model.native_noise(len(given[0]), EVERY, seed=2**20 * seed + step)
        model.train({"x": x, "eps": eps} for x, eps in zip(given, noise, strict=True))
    else:
        model.train({"x": x} for x in given)
    return perf_counter() - begun


def test_loss(model: Model, test: np.ndarray) -> float:
    """Of all test rows, with the same noise for everybody."""
    from harness.verify.checks_function import mean_loss

    batch: Arrays = make_batch(model.spec, test, TEST_NOISE, model.dtype)
    return mean_loss(model.spec, model.terms(batch))
