"""Renew a certificate on the very model that is about to be timed, in its process and build."""

import time
import traceback
from collections.abc import Callable

import numpy as np

import impls
from harness import data
from harness.verify import oracle
from harness.verify.certificate import Result, certificate, judge
from harness.verify.checks_function import mean_loss
from harness.verify.checks_training import adam_on_tape, compare_on_tape, oracle_trajectory, trained_on
from harness.verify.compare import Comparisons
from harness.verify.draws import COUNT as NOISE_COUNT
from harness.verify.draws import check_noise
from harness.verify.float32 import Determined
from impls import Model
from impls.surface import Arrays, operations
from specs import Spec, parameters
from specs.noise import batch as make_batch

STEPS = 3
TAPE = 20  # steps of the optimizer alone: what decays weights, or has another constant, is beyond its gate by then


def renew(model: Model, batch_size: int | None = None, timed: tuple[str, ...] | None = None) -> dict:
    """Terms, gradients, a short trajectory and each of the operations about to be `timed`, against NumPy in float64.

    Returns {"id", "passed", "margin", "checks", "message"}; the model is left with its initial parameters and a fresh
    optimizer. Runs at the batch size to be timed, so that nothing is compiled that the measurement does not need.
    """
    start, spec = time.perf_counter(), model.spec
    record = Comparisons()
    try:
        n = batch_size or spec.training.batch_size
        expected_count = (_trainable if spec.trains else _pca)(model, record, n)
        expected_count += _timed(model, record, n, timed or operations(spec))
        result = judge(0, "renewal", "the code, a library or a setting differs from what was verified", record.made, expected_count, 0.0)
    except Exception as error:  # noqa: BLE001 - a model that raises must not be timed, whatever it raises
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({where.filename.rsplit('/', 1)[-1]}:{where.lineno})"
        result = Result(0, "renewal", "fail", reason, len(record.made))
    implementation = impls.load(model.implementation)
    made = certificate(implementation, spec, model.dtype, model.device, model.precision, "renewal", model.facts(), [result])
    message = None
    if not made["passed"]:
        worst = f"; worst: {result.what}: expected {result.expected}, got {result.got}" if result.what else ""
        message = f"{result.reason}{worst}"
    return {
        **{key: made[key] for key in ("id", "code_hash", "versions")},
        "passed": made["passed"],
        "margin": result.margin,
        "error": result.error,
        "checks": made["checks"],
        "message": message,
        "seconds": time.perf_counter() - start,
    }


def gates(model: Model) -> tuple[float, float]:
    """(of losses and step-1 gradients, of parameters after a few steps) for the model's dtype, device and precision."""
    g = model.spec.gates
    if model.dtype == "float64":
        return g.gradients, g.parameters
    if model.precision != "highest":
        return g.low_precision, np.inf
    return (g.gradients_float32, g.parameters_float32) if model.device == "cpu" else (g.cuda_float32, g.parameters_float32)


def _timed(model: Model, record: Comparisons, n: int, timed: tuple[str, ...]) -> int:
    """The timed path of everything but training, against the oracle's formulas and PCA's own."""
    spec, (near, far), count = model.spec, gates(model), 0
    p, x = model.parameters(), np.resize(data.load(spec).train, (n, spec.d_x))
    z = np.random.default_rng(spec.seed).standard_normal((n, spec.d_z))
    wanted: dict[str, Callable[[], dict]] = {
        "fit": lambda: p,
        "loss": lambda: {"loss": _losses(model, p, x)},
        "encode": lambda: _code(spec, p, x),
        "decode": lambda: {"x_hat": _mean(spec, p, z)},
        "generate": lambda: {"x_hat": _mean(spec, p, model.native_noise(n, STEPS, 1)[-1])},
    }
    for operation in timed:
        if operation != "train":
            batch = {"z": z} if operation == "decode" else {"x": data.load(spec).train if operation == "fit" else x}
            if operation == "fit":  # so that one that does nothing is seen
                model.set_parameters({name: np.zeros_like(value) for name, value in p.items()})
            model.prepare(batch, STEPS, operation, seed=1)
            model.run()
            model.block()
            outcome, expected = model.outcome(), wanted[operation]()
            record.closes(f"timed {operation}", outcome, expected, near if spec.trains else far)
            count += 1 + len(expected)
    return count


def _losses(model: Model, p: Arrays, x: np.ndarray) -> np.ndarray:
    """Of STEPS repetitions with the noise that the framework draws for each."""
    noise = model.native_noise(len(x), STEPS, 1) if model.spec.noisy else [None] * STEPS
    return np.array([oracle.loss(model.spec, p, {"x": x, "eps": eps}).real for eps in noise])


def _code(spec: Spec, p: Arrays, x: np.ndarray) -> Arrays:
    if not spec.trains:
        return {"z": (x - p["mean"]) @ p["components"].T}
    return {name: value.real for name, value in oracle.encode(spec, p, x).items()}


def _mean(spec: Spec, p: Arrays, z: np.ndarray) -> np.ndarray:
    return oracle.x_hat(spec, p, z) if spec.trains else z @ p["components"] + p["mean"]


def _trainable(model: Model, record: Comparisons, n: int) -> int:
    spec, (gate, far) = model.spec, gates(model)
    x = np.resize(data.load(spec).train, (n, spec.d_x))
    start, reference = parameters.initial(spec, model.dtype), impls.load("numpy").build(spec, dtype="float64")
    zeros = {name: np.zeros_like(value) for name, value in start.items()}

    def reset() -> None:
        model.set_parameters(start)
        model.set_optimizer_state({"step": 0, "m": zeros, "v": zeros})

    reset()
    reference.set_parameters(start)
    batch = make_batch(spec, x, 0, model.dtype)
    given = [make_batch(spec, x, step, model.dtype) for step in range(STEPS)]
    determined = Determined(spec, impls.load("numpy").build(spec, dtype="float64"), given, model.dtype)
    itself = model.implementation == "numpy"  # the reference, which is held against the oracle
    expected_terms = {name: value.real for name, value in oracle.terms(spec, start, batch).items()} if itself else reference.terms(batch)
    record.closes("term", model.terms(batch), expected_terms, gate)
    determined.closes(record, "step-1 gradient", model.gradients(batch), reference.gradients(batch), gate, 0, "gradient")
    record.close("loss", mean_loss(spec, model.terms(batch)), oracle.loss(spec, start, batch).real, gate)
    if itself:
        losses, p, expected = oracle_trajectory(reference, given, start, record, np.random.default_rng(spec.seed))
    else:
        losses, p, expected = trained_on(reference, given)
    record.close("losses of a few steps", model.train(given), losses, gate)
    if np.isfinite(far):
        state, got = model.optimizer_state(), model.parameters()
        determined.closes(record, "parameter after a few steps", got, p, far, -1, "parameter")
        determined.closes(record, "first moment after a few steps", state["m"], expected["m"], far, -1, "m")
        determined.closes(record, "second moment after a few steps", state["v"], expected["v"], far, -1, "v")
    reset()
    compare_on_tape(model, record, adam_on_tape(spec, TAPE, model.dtype), TAPE)
    if spec.noisy:
        check_noise(model, record, n)
    reset()
    model.prepare({"x": x}, STEPS, seed=1)
    model.run()
    model.block()
    timed, end = model.outcome()["loss"], model.parameters()
    reset()
    noise = model.native_noise(n, STEPS, 1) if spec.noisy else [None] * STEPS
    given = [{"x": x} | ({"eps": eps} if eps is not None else {}) for eps in noise]
    record.close("losses of the timed path", timed, model.train(given), gate)
    record.closes("parameter after the timed path", end, model.parameters(), far if np.isfinite(far) else gate)
    reset()
    tensors, terms = len(start), len(expected_terms)
    after = 3 * (1 + tensors) * bool(np.isfinite(far)) + 1 + 3 * (1 + tensors) + NOISE_COUNT * spec.noisy
    return (1 + terms) + (1 + tensors) + 1 + itself + 1 + after + 1 + (1 + tensors)


def _pca(model: Model, record: Comparisons, n: int) -> int:
    spec, (gate, far) = model.spec, gates(model)
    if model.dtype == "float64":
        far = gate
    x = data.load(spec).train
    model.fit(x)
    got = model.parameters()
    lent = {name: value.copy() for name, value in got.items()}
    model.set_parameters(lent)
    for value in lent.values():
        value[...] = np.nan  # what a model is given, it must have copied
    _, s, vt = np.linalg.svd(x - x.mean(0), full_matrices=False)
    truth = vt[: spec.d_z]
    record.close("mean", got["mean"], x.mean(0), gate)
    record.close("explained variance", got["explained_variance"], s[: spec.d_z] ** 2 / (len(x) - 1), gate)
    record.close("orthonormal", got["components"] @ got["components"].T, np.eye(spec.d_z), max(gate, 1e-12))
    captured = np.square((x - x.mean(0)) @ got["components"].T).sum() / np.square((x - x.mean(0)) @ truth.T).sum()
    record.close("variance captured, against LAPACK", captured, 1.0, gate)
    z = model.encode({"x": x[:n]})["z"]
    record.close("encode", z, (x[:n] - got["mean"]) @ got["components"].T, far)
    record.close("decode", model.decode(z), z @ got["components"] + got["mean"], far)
    return 6
