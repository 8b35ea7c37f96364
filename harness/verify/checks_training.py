"""Checks 5-7, 11, 14 and 15: the optimizer alone, trajectories, variants, native noise, rerun and resume."""

import io
from collections.abc import Iterable, Mapping
from functools import partial

import numpy as np

from harness.verify import oracle
from harness.verify.check import BOTH, check, n_tensors, trained
from harness.verify.checks_function import mean_loss
from harness.verify.compare import Comparisons
from harness.verify.context import Context
from harness.verify.draws import COUNT as NOISE_COUNT
from harness.verify.draws import check_noise
from harness.verify.float32 import LEAST_STEPS, Determined, determined
from impls import Model
from impls.surface import Arrays
from specs import Spec, parameters

Trained = tuple[np.ndarray, Arrays, dict]  # losses, parameters, optimizer state
TAPE = {"quick": 100, "ci": 300, "report": 1000}
FLOAT32_STEPS = {"quick": 40, "ci": 100, "report": 200}
SEEDS = 5  # tried, until float32 determines enough steps: one of twenty has a tie too early
FEW = 12  # steps where equality does not need many


@check(
    5,
    "optimizer alone on a gradient tape",
    dtypes=BOTH,
    count=lambda c: (1 + 3 * (1 + n_tensors(c.spec))) * (len(optimizers(c)) + (c.level != "quick")),
    reason=trained,
    cause="Adam's formula: epsilon inside the root or scaled (epsilon-hat), a missing bias correction, a constant in float32",
)
def check_optimizer(c: Context) -> None:
    for spec, steps in optimizers(c):
        model = c.fresh(spec)
        truth = c.once(f"tape {steps} {spec.hash}", lambda spec=spec, steps=steps: adam_on_tape(spec, steps, c.dtype))  # type: ignore[misc]
        compare_on_tape(model, c.record, truth, steps)
    if c.level != "quick":
        model, truth = c.fresh(), late(c.spec, c.dtype)
        m, v = copied(truth.m), copied(truth.v)
        model.set_optimizer_state({"step": truth.t, "m": m, "v": v})
        for array in (*m.values(), *v.values()):
            array[...] = np.nan  # what a model is given, it must have copied
        for gradients in oracle.tape(c.spec, truth.p, FEW, c.dtype):
            truth.step(gradients)
        compare_on_tape(model, c.record, truth, FEW)


UNUSUAL = {"learning_rate": 3e-3, "beta1": 0.8, "beta2": 0.99, "epsilon": 1e-6}  # a framework's defaults would hide that a spec is not read


def optimizers(c: Context) -> list[tuple[Spec, int]]:
    """(spec, steps): the spec's own optimizer, and from level ci on another one, for a short tape."""
    return [(c.spec, TAPE[c.level]), *([(c.spec.replace(optimizer=UNUSUAL), FEW)] if c.level != "quick" else [])]


LATE = 20_000  # steps, after which corrections of the bias are gone, and a count in too small a type shows


def late(spec: Spec, dtype: str) -> oracle.Adam:
    """An optimizer that has made LATE steps."""
    adam = oracle.Adam(spec, parameters.initial(spec, dtype))
    gradients = next(iter(oracle.tape(spec, adam.p, 1, dtype, seed=1)))
    adam.t, adam.m, adam.v = LATE, copied(gradients), {name: np.square(g) for name, g in gradients.items()}
    return adam


def copied(arrays: Arrays) -> Arrays:
    return {name: value.copy() for name, value in arrays.items()}


def compare_on_tape(model: Model, record: Comparisons, truth: oracle.Adam, steps: int) -> None:
    """Drive the model's optimizer by the tape that `truth` has had: 1 + 3 (1 + tensors) comparisons."""
    gates = model.spec.gates
    gate = gates.optimizer if model.dtype == "float64" else gates.optimizer_float32
    for gradients in oracle.tape(model.spec, parameters.initial(model.spec), steps, model.dtype):
        model.apply_gradients(gradients)
    state = model.optimizer_state()
    record.same("step count", state["step"], truth.t)
    record.closes("parameter", model.parameters(), truth.p, gate)
    record.closes("first moment", state["m"], truth.m, gate)
    record.closes("second moment", state["v"], truth.v, gate)


def adam_on_tape(spec: Spec, steps: int, dtype: str) -> oracle.Adam:
    truth = oracle.Adam(spec, parameters.initial(spec, dtype))
    for gradients in oracle.tape(spec, truth.p, steps, dtype):
        truth.step(gradients)
    return truth


def reference_trajectory(c: Context, steps: int, spec: Spec | None = None) -> Trained:
    """(losses, parameters, optimizer state) of the NumPy reference in float64, on the batches that c.dtype sees."""
    spec = spec or c.spec

    def make() -> Trained:
        model = c.reference(spec)
        model.set_parameters(parameters.initial(spec, c.dtype))
        return trained_on(model, c.batches(steps, spec))

    return c.once(f"trajectory {steps} {spec.hash}", make)


def oracle_trajectory(model: Model, given: Iterable[Arrays], start: Arrays, record: Comparisons, rng: np.random.Generator) -> Trained:
    """The same for the reference itself: loss and optimizer by the oracle, and each gradient of `model` (in float64) held against its
    slope in a random direction: one comparison."""
    spec, losses, worst = model.spec, [], 0.0
    adam = oracle.Adam(spec, start)
    for batch in given:
        model.set_parameters(adam.p)
        gradients = model.gradients(batch)
        direction = {name: rng.standard_normal(value.shape) for name, value in adam.p.items()}
        value, slope = oracle.slope(spec, adam.p, batch, direction)
        along = [gradients[name] * direction[name] for name in adam.p]
        worst = max(worst, abs(sum(float(part.sum()) for part in along) - slope) / sum(float(np.abs(part).sum()) for part in along))
        losses.append(value)
        adam.step(gradients)
    record.at_most("gradient against the oracle's slope, worst step", worst, spec.gates.derivative)
    return np.array(losses), adam.p, {"step": adam.t, "m": adam.m, "v": adam.v}


@check(
    6,
    "trajectory in float64, same noise and batches",
    count=lambda c: 1 + c.steps + 1 + 3 * (1 + n_tensors(c.spec)) + c.itself,
    reason=trained,
    cause="training does something else than gradient and Adam: order of batches, stale state, a loss taken after the update",
)
def check_trajectory(c: Context) -> None:
    model, given = c.fresh(), list(c.batches(c.steps))
    if c.itself:
        losses, end, state = oracle_trajectory(c.build(), given, parameters.initial(c.spec), c.record, c.draw(3))
    else:
        losses, end, state = reference_trajectory(c, c.steps)
    cut = 0 if c.level == "quick" else c.steps // 3  # two calls, neither of a round number of steps
    got = np.concatenate([model.train(part) for part in (given[:cut], given[cut:]) if part])
    c.record.same("number of losses", got.shape, losses.shape)
    for step in range(c.steps):
        c.record.close(f"loss of step {step + 1}", got[step : step + 1], losses[step : step + 1], c.gates.losses)
    found = model.optimizer_state()
    c.record.same("step count", found["step"], c.steps)
    c.record.closes("final parameter", model.parameters(), end, c.gates.parameters)
    c.record.closes("final first moment", found["m"], state["m"], c.gates.parameters)
    c.record.closes("final second moment", found["v"], state["v"], c.gates.parameters)


@check(
    7,
    "trajectory in float32",
    dtypes=("float32",),
    count=lambda c: (4 + 2 * n_tensors(c.spec) + FLOAT32_STEPS[c.level]) if c.spec.trains else 3 + 4,
    cause="a product in lower precision (TF32, bf16), a constant rounded early, an unstable form",
)
def check_float32(c: Context) -> None:
    if not c.spec.trains:
        return _float32_pca(c)
    model, reference = c.fresh(), c.reference()
    start, first = parameters.initial(c.spec, "float32"), c.batch()
    reference.set_parameters(start)
    of_first = Determined(c.spec, c.reference(), [first], "float32")
    of_first.closes(
        c.record, "step-1 gradient", model.gradients(first), reference.gradients(first), c.gates.gradients_float32, 0, "gradient"
    )
    steps = FLOAT32_STEPS[c.level]
    spec, (known, end, mask, sure) = _well_determined(c, steps)
    losses, _, _ = reference_trajectory(c, steps, spec)
    c.record.same(f"float32 determines {known} steps, at least {LEAST_STEPS}", known >= min(LEAST_STEPS, steps), True)
    c.record.same(f"float32 determines the losses of {sure} steps, at least {LEAST_STEPS}", sure >= min(LEAST_STEPS, steps), True)
    model, given = c.fresh(spec), list(c.batches(steps, spec))
    got = model.train(given[:known])
    after = model.parameters()
    for name, value in end.items():
        size = float(np.abs(value).max())
        c.record.close(
            f"parameter {name} after {known} steps", after[name][mask[name]], value[mask[name]], c.gates.parameters_float32, size
        )
    if known < steps:
        got = np.concatenate([got, model.train(given[known:])])
    c.record.same("number of losses", got.shape, losses.shape)
    for step in range(steps):
        gate = c.gates.losses_float32 if step < sure else c.gates.low_precision
        c.record.close(f"loss of step {step + 1}", got[step : step + 1], losses[step : step + 1], gate)
    return None


def _well_determined(c: Context, steps: int) -> tuple[Spec, tuple[int, Arrays, Arrays, int]]:
    """The spec, and what float32 determines of its training; where a tie lies in its first steps, with another seed."""
    for more in range(SEEDS):
        spec = c.spec.replace(seed=(c.spec.seed + more) % 2**32)
        make = partial(determined, spec, c.reference(spec), c.batches(steps, spec), c.draw(5))
        found = c.once(f"determined {steps} {spec.hash}", make)
        if min(found[0], found[3]) >= min(LEAST_STEPS, steps):
            break
    return spec, found


def _float32_pca(c: Context) -> None:
    model, reference = c.build(), c.reference()
    model.fit(c.data.train)
    reference.fit(c.data.train)
    got, expected = model.parameters(), reference.parameters()
    c.record.closes("", {"mean": got["mean"]}, {"mean": expected["mean"]}, c.gates.gradients_float32)
    c.record.closes("", {"variance": got["explained_variance"]}, {"variance": expected["explained_variance"]}, c.gates.gradients_float32)
    c.record.close("x_hat", through(model, c.data.test), through(reference, c.data.test), c.gates.parameters_float32)
    projector = lambda p: p["components"].T @ p["components"]
    c.record.close("projector", projector(got), projector(expected), c.gates.parameters_float32)
    c.record.same("dtype", got["components"].dtype.name, "float32")


def through(model: Model, x: np.ndarray) -> np.ndarray:
    """decode(encode(x))."""
    return model.decode(model.encode({"x": x})["z"])


def _others(c: Context) -> tuple[str, ...]:
    return c.implementation.agrees_with if c.spec.trains else ()


ALIKE = 4  # steps in which variants are compared; each that is an implementation has a long trajectory of its own in check 6


@check(
    11,
    "variants of the framework agree",
    dtypes=BOTH,
    levels=("ci", "report"),
    count=lambda c: len(_others(c)) * (ALIKE + (3 if c.dtype == "float64" else 1) * (1 + n_tensors(c.spec))),
    reason=lambda c: trained(c) or (None if _others(c) else "this implementation has one variant only"),
    cause="a compiler that reorders or drops work, donation of a buffer still in use, a fused optimizer with another formula",
)
def check_variants(c: Context) -> None:
    gate = c.gates.variants if c.dtype == "float64" else c.gates.variants_float32
    losses, end, state = trained_on(c.fresh(), c.batches(ALIKE))
    for variant in _others(c):
        other_losses, other_end, other_state = trained_on(c.fresh(variant=variant), c.batches(ALIKE))
        for step in range(ALIKE):
            c.record.close(f"{variant}: loss of step {step + 1}", losses[step : step + 1], other_losses[step : step + 1], gate)
        c.record.closes(f"{variant}: parameter", end, other_end, gate)
        if c.dtype == "float64":  # float32 rounds the parameters, and a later mean gradient, small by cancellation, feels it by 1e-5
            c.record.closes(f"{variant}: first moment", state["m"], other_state["m"], gate)
            c.record.closes(f"{variant}: second moment", state["v"], other_state["v"], gate)


def trained_on(model: Model, given: Iterable[Arrays]) -> Trained:
    losses = model.train(given)
    return losses, model.parameters(), model.optimizer_state()


TIMED_STEPS = 12  # in each of the two rounds of check 14, whose second has other rows: more than the renewal's, and drift is small yet


def _n_timed(c: Context) -> int:
    if not c.spec.trains:
        return 3 + 1 + 1
    noise = 1 + NOISE_COUNT if c.spec.noisy else 0  # generate
    return 2 * 2 + 1 + n_tensors(c.spec) + 1 + 1 + (1 + (2 if c.spec.noisy else 1)) + 1 + noise


@check(
    14,
    "the timed path computes what was checked; native noise is N(0, 1)",
    dtypes=BOTH,
    levels=("ci", "report"),  # at quick level the renewal of the certificate holds the timed path against the given noise
    count=_n_timed,
    cause="run() skips work, has done it ahead, repeats its noise, or draws from another distribution",
)
def check_timed(c: Context) -> None:
    if not c.spec.trains:
        return _timed_pca(c)
    model, steps, seed, gate = c.fresh(), TIMED_STEPS, 11, _timed_gate(c)
    x = c.batch()["x"]
    rows = [{"x": x}, {"x": 1 - x}]  # of the two rounds
    model.prepare(rows[0], steps, seed=seed)
    losses = [_outcome(model)["loss"]]
    model.refill(rows[1])
    losses.append(_outcome(model)["loss"])
    after, count = model.parameters(), model.optimizer_state()["step"]
    c.record.same("optimizer steps", count, 2 * steps)
    given = [one for one in rows for _ in range(steps)]
    if c.spec.noisy:
        noise = model.native_noise(c.rows, 2 * steps, seed)
        given = [one | {"eps": eps} for one, eps in zip(given, noise, strict=True)]
        check_noise(model, c.record, c.rows)
    model = c.fresh()
    expected = np.asarray(model.train(given)).reshape(2, steps)
    for k in range(2):
        c.record.same(f"round {k}: losses", losses[k].shape, (steps,))
        c.record.close(f"round {k}: losses with that noise given", losses[k], expected[k], gate)
    drifted = (
        c.gates.parameters if c.dtype == "float64" else c.gates.parameters_float32
    )  # of so many steps of Adam, from another compilation
    c.record.closes("parameter after the timed steps", after, model.parameters(), drifted)
    model.prepare(rows[0], steps, operation="loss", seed=seed)
    wanted = [mean_loss(c.spec, model.terms(one)) for one in given[steps:]]
    c.record.close("timed loss", _refilled(model, rows[1])["loss"], np.array(wanted), gate)
    model.prepare(rows[0], steps, operation="encode")
    c.record.closes("timed encode", _refilled(model, rows[1]), model.encode(rows[1]), gate)
    z = c.draw(4).standard_normal((c.rows, c.spec.d_z))
    model.prepare({"z": z}, steps, operation="decode")
    c.record.close("timed decode", _refilled(model, {"z": -z})["x_hat"], model.decode(-z), gate)
    if c.spec.noisy:
        model.prepare(rows[0], steps, operation="generate", seed=seed)
        c.record.close("timed generate", _refilled(model, rows[1])["x_hat"], model.decode(noise[-1]), gate)
    return None


def _timed_gate(c: Context) -> float:
    return c.gates.timed if c.dtype == "float64" else c.gates.timed_float32


def _outcome(model: Model) -> Arrays:
    model.run()
    model.block()
    return model.outcome()


def _refilled(model: Model, batch: Arrays) -> Arrays:
    """What a round gives that follows the present one, with other rows."""
    model.run()
    model.block()
    model.refill(batch)
    return _outcome(model)


def _timed_pca(c: Context) -> None:
    model, other, gate = c.build(), c.build(), _timed_gate(c)
    x, rows = c.data.train, c.batch()
    other.fit(x)
    model.prepare({"x": x[:, ::-1]}, 2, operation="fit")
    fitted = _refilled(model, {"x": x})
    for name, value in other.parameters().items():
        c.record.close(f"timed fit: {name}", fitted[name], value, gate)
    model.prepare({"x": -rows["x"]}, 2, operation="encode")
    z = _refilled(model, rows)["z"]
    c.record.close("timed encode", z, other.encode(rows)["z"], gate)
    model.prepare({"z": -z}, 2, operation="decode")
    c.record.close("timed decode", _refilled(model, {"z": z})["x_hat"], other.decode(z), gate)


@check(
    15,
    "bitwise rerun; bitwise save and resume",
    dtypes=BOTH,
    count=lambda c: (
        2 * (2 + 3 * (1 + 2 * n_tensors(c.spec))) + 2 + (c.level != "quick") if c.spec.trains else 2 * (1 + 2 * n_tensors(c.spec)) + 2
    ),
    cause="something is not part of the state that is saved, or an operation is not deterministic",
)
def check_rerun(c: Context) -> None:
    if not c.spec.trains:
        model, other = c.build(), c.build()
        model.fit(c.data.train)
        other.fit(c.data.train)
        c.record.bitwises("fitted again", other.parameters(), model.parameters())
        resumed = c.build()
        resumed.set_parameters(model.parameters())
        c.record.bitwises("resume:", resumed.parameters(), model.parameters())
        c.record.bitwise("resume: encode", resumed.encode({"x": c.data.test})["z"], model.encode({"x": c.data.test})["z"])
        return None
    given = list(c.batches(2 * FEW))
    straight = trained_on(c.fresh(), given)
    _same_state(c, "rerun", trained_on(c.fresh(), given), straight)
    model = c.fresh()
    head = model.train(given[:FEW])
    saved = _saved(model)
    model.set_parameters(model.parameters())
    c.record.same("setting parameters leaves the optimizer alone", _saved(model) == saved, True)
    resumed = c.fresh()
    if c.level != "quick":  # another process would start from a new build
        resumed = c.build()
        c.record.same("newly built: step count", resumed.optimizer_state()["step"], 0)
    _resume(resumed, saved)
    c.record.same("resume: step count", resumed.optimizer_state()["step"], FEW)
    losses, end, state = trained_on(resumed, given[FEW:])
    _same_state(c, "resume", (np.concatenate([head, losses]), end, state), straight)
    return None


def _same_state(c: Context, what: str, got: Trained, expected: Trained) -> None:
    c.record.bitwise(f"{what}: losses", got[0], expected[0])
    c.record.bitwises(f"{what}: parameter", got[1], expected[1])
    for part in ("m", "v"):
        c.record.bitwises(f"{what}: moment {part} of", got[2][part], expected[2][part])


def _saved(model: Model) -> bytes:
    state, file = model.optimizer_state(), io.BytesIO()
    moments = {f"{part}/{name}": value for part in ("m", "v") for name, value in state[part].items()}
    np.savez(file, step=state["step"], **moments, **{f"p/{name}": value for name, value in model.parameters().items()})  # type: ignore[arg-type]
    return file.getvalue()


def _resume(model: Model, saved: bytes) -> None:
    content: Mapping = np.load(io.BytesIO(saved))
    part = lambda prefix: {key[2:]: content[key] for key in content if key.startswith(f"{prefix}/")}
    model.set_parameters(part("p"))
    model.set_optimizer_state({"step": int(content["step"]), "m": part("m"), "v": part("v")})
