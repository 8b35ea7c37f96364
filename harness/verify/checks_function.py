"""Checks 1-4 and 10: parameters, terms, gradients, an independent derivative, stress."""

from collections.abc import Iterator, Mapping

import numpy as np

from harness.verify import oracle
from harness.verify.check import BOTH, check, n_tensors, n_terms, trained
from harness.verify.context import Context
from impls.surface import Arrays
from specs import Spec, parameters

SAMPLE = {"quick": 60, "ci": 60, "report": 400}  # entries of each tensor that the oracle differentiates


class Truth:
    """Expected values, in float64: the oracle's for the NumPy implementation, the NumPy reference's for every other."""

    def __init__(self, c: Context):
        self.c, self.model = c, None if c.itself else c.reference()

    def terms(self, p: Mapping, batch: Mapping) -> Arrays:
        if self.model is None:
            return {name: value.real for name, value in oracle.terms(self.c.spec, p, batch).items()}
        self.model.set_parameters(p)
        return self.model.terms(batch)

    def gradients(self, p: Mapping, batch: Mapping, got: Arrays) -> Arrays:
        """The oracle needs an evaluation an entry, so it takes a sample of each tensor, and the rest stands as `got`."""
        if self.model is None:
            found = oracle.gradients(self.c.spec, p, batch, sample=SAMPLE[self.c.level])
            return {name: np.where(np.isnan(value), got[name], value) for name, value in found.items()}
        self.model.set_parameters(p)
        return self.model.gradients(batch)

    def encode(self, p: Mapping, x: np.ndarray) -> Arrays:
        if self.model is None:
            return {name: value.real for name, value in oracle.encode(self.c.spec, p, x).items()}
        self.model.set_parameters(p)
        return self.model.encode({"x": x})

    def decode(self, p: Mapping, z: np.ndarray) -> np.ndarray:
        if self.model is None:
            return oracle.x_hat(self.c.spec, p, z)
        self.model.set_parameters(p)
        return self.model.decode(z)


def points(c: Context) -> Iterator[tuple[Arrays, Arrays]]:
    """(parameters, batch) at the initial values and at a rougher place, with other rows and other noise."""
    start = parameters.initial(c.spec)
    yield start, c.batch(step=0)
    rng = c.draw(0)
    yield {name: value + 0.3 * rng.standard_normal(value.shape) for name, value in start.items()}, c.batch(step=1)


@check(
    1,
    "parameter names, shapes, count; initial state; settings in force",
    dtypes=BOTH,
    count=lambda c: 4 + 3 * n_tensors(c.spec) + (3 + 3 * n_tensors(c.spec) if c.spec.trains else 0),
    cause="a layer is missing, has other sizes, its weight is not transposed at the surface, or a setting is not in force",
)
def check_parameters(c: Context) -> None:
    model = c.build()
    facts = model.facts()
    c.record.same("dtype in force", facts.get("dtype"), c.dtype)
    c.record.same("precision in force", facts.get("precision"), c.precision)
    if not c.spec.trains:
        model.fit(c.data.train)
    got, wanted = model.parameters(), parameters.shapes(c.spec)
    c.record.same("names", sorted(got), sorted(wanted))
    for name, shape in wanted.items():
        c.record.same(f"shape of {name}", got[name].shape, shape)
        c.record.same(f"dtype of {name}", got[name].dtype.name, c.dtype)
    for name, value in parameters.initial(c.spec, c.dtype).items():
        c.record.close(f"initial {name}", got[name], value, 0.0)
    if c.spec.trains:
        state, zeros = model.optimizer_state(), {name: np.zeros(shape) for name, shape in wanted.items()}
        c.record.same("initial step count", state["step"], 0)
        c.record.closes("initial first moment", state["m"], zeros, 0.0)
        c.record.closes("initial second moment", state["v"], zeros, 0.0)
    given = {name: value + 1 for name, value in got.items()}
    model.set_parameters(given)
    kept = {name: value.copy() for name, value in given.items()}
    for value in given.values():
        value += 1
    c.record.closes("after what was given is overwritten by its owner", model.parameters(), kept, 0.0)


@check(
    2,
    "loss terms per example; encode, decode",
    count=lambda c: 2 * (2 * (1 + n_terms(c.spec)) + 2 + n_terms(c.spec)) + 2 * (1 + n_terms(c.spec)),
    reason=trained,
    cause="a term, an activation or a reduction differs (sum over features, no mean), or an array is stale",
)
def check_terms(c: Context) -> None:
    model, truth = c.shared(), Truth(c)
    first: list[Arrays] = []
    for k, (p, batch) in enumerate(points(c)):
        model.set_parameters(p)
        got = model.terms(batch)
        first.append(got)
        expected = truth.terms(p, batch)
        c.record.closes(f"point {k}: term", got, expected, c.gates.terms)
        for name, value in got.items():
            c.record.same(f"point {k}: dtype of {name}", value.dtype.name, c.dtype)
        code = model.encode(batch)
        c.record.closes(f"point {k}: encode", code, truth.encode(p, batch["x"]), c.gates.terms)
        z = c.draw(1, k).standard_normal((c.rows, c.spec.d_z))
        c.record.close(f"point {k}: decode", model.decode(z), truth.decode(p, z), c.gates.terms)
        c.record.close(f"point {k}: loss that training reports", model.train([batch]), [mean_loss(c.spec, expected)], c.gates.terms)
    for k, (p, batch) in enumerate(points(c)):  # once more: a cached or overwritten result shows here
        model.set_parameters(p)
        again = model.terms(batch)
        c.record.same(f"point {k} again: names", sorted(again), sorted(first[k]))
        for name, value in first[k].items():
            c.record.close(f"point {k} again: {name}", again[name], value, 0.0)


@check(
    3,
    "gradient of each parameter tensor",
    count=lambda c: 2 * (1 + n_tensors(c.spec)) + 2,
    reason=trained,
    cause="a weight of a term (beta), a stopped gradient, a missing path or a wrong mean over the batch",
)
def check_gradients(c: Context) -> None:
    model, truth = c.shared(), Truth(c)
    for k, (p, batch) in enumerate(points(c)):
        model.set_parameters(p)
        batch = {name: value[:16] for name, value in batch.items()} if c.itself else batch  # one complex step an entry
        got = model.gradients(batch)
        c.record.closes(f"point {k}: gradient", got, truth.gradients(p, batch, got), c.gates.gradients)
        after = model.parameters()
        moved = max(float(np.abs(after[name] - p[name]).max()) for name in p)
        c.record.same(f"point {k}: parameters moved by gradients()", moved, 0.0)


def architectures(c: Context) -> list[Spec]:
    """The spec, and the same with every other activation and other depths."""
    if c.spec.model == "linear_ae":
        return [c.spec]
    others = {"identity": (), "tanh": (5,), "softplus": (4, 3), "gelu": (6, 5, 4), "relu": (7,)}
    return [c.spec] + [c.spec.replace(architecture={"activation": a, "hidden": hidden}) for a, hidden in others.items()]


@check(
    4,
    "NumPy gradient against complex-step and dual-number derivatives",
    count=lambda c: sum(3 + n_tensors(spec) for spec in architectures(c)),
    reason=lambda c: trained(c) or (None if c.itself else "holds for the NumPy reference; the others are held against it in check 3"),
    cause="a derivative written by hand",
)
def check_derivative(c: Context) -> None:
    for k, spec in enumerate(architectures(c)):
        rng, model, at = c.draw(2, k), c.build(spec), f"{spec.activation} {spec.hidden}"
        p = {name: value + 0.5 * rng.standard_normal(value.shape) for name, value in parameters.initial(spec).items()}
        model.set_parameters(p)
        batch = {name: value[:5] for name, value in c.batch(step=k).items()}
        got = model.gradients(batch)
        expected = oracle.gradients(spec, p, batch, sample=SAMPLE[c.level], seed=k)
        c.record.same(f"{at}: names", sorted(got), sorted(expected))
        for name, value in expected.items():
            known, size = np.isfinite(value), float(np.abs(got[name]).max())
            c.record.close(f"{at}: gradient {name}", got[name][known], value[known], c.gates.derivative, size)
        direction = {name: rng.standard_normal(value.shape) for name, value in p.items()}
        mean, slope = oracle.slope(spec, p, batch, direction)
        c.record.close(f"{at}: loss", mean_loss(spec, model.terms(batch)), mean, c.gates.terms)
        along = [got[name] * direction[name] for name in p]
        size = sum(float(np.abs(part).sum()) for part in along)
        c.record.close(f"{at}: slope along a random direction", sum(float(part.sum()) for part in along), slope, c.gates.derivative, size)


def mean_loss(spec: Spec, terms: Mapping) -> float:
    """The loss from terms per example."""
    return float(np.mean(terms["reconstruction"] + (spec.beta * terms["kl"] if "kl" in terms else 0)))


OTHER_SHAPES = ("last partial batch", "one row")


def stress_cases(c: Context) -> dict[str, tuple[Arrays, Arrays]]:
    """{name: (parameters, batch)}: places where a formula that is right on paper breaks."""
    start, batch = parameters.initial(c.spec), c.batch(step=2)
    alternating = lambda size, by: by * np.where(np.arange(size) % 2, 1.0, -1.0)
    last = "x_hat.b" if c.spec.model == "linear_ae" else "logits.b"
    level = np.resize([800.0, -800.0, 100.0, -100.0], c.spec.d_x)  # exp(800) overflows in float64
    # one row is as far from the outputs as can be: where all are met, a gradient is the rounding error of s(100) - 1
    far = np.r_[[(level < 0).astype(batch["x"].dtype)], batch["x"][1:]]
    cases = {
        "outputs +-800 and +-100": (start | {last: level}, batch | {"x": far}),
        "outputs -100, half of the rows blank": (start | {last: np.full(c.spec.d_x, -100.0)}, batch | {"x": half_blank(batch["x"])}),
        "duplicate rows": (start, {name: np.repeat(value[:1], len(value), axis=0) for name, value in batch.items()}),
        "binary rows": (start, batch | {"x": np.round(np.clip(batch["x"], 0, 1))}),
        "all weights zero": ({name: np.zeros_like(v) if name.endswith(".w") else v for name, v in start.items()}, batch),
    }
    if c.spec.noisy:
        # one row stays in the middle: of saturated units alone, tanh's usual derivative 1 - h^2 keeps no digit
        middle = batch["eps"] * (np.arange(len(batch["eps"])) > 0)[:, None]
        cases["logvar +-60"] = (start | {"logvar.b": alternating(c.spec.d_z, 60.0)}, batch | {"eps": middle})
        cases["mu +-50"] = (start | {"mu.b": alternating(c.spec.d_z, 50.0)}, batch)
    if c.spec.hidden:
        width = c.spec.hidden[0]
        ties = start | {"encoder.0.w": np.zeros_like(start["encoder.0.w"]), "encoder.0.b": np.zeros(width)}
        cases["hidden at a tie"] = (ties, batch)
        # one unit stays in the middle, for the same reason
        cases["hidden -40 to 40"] = (start | {"encoder.0.b": np.r_[0.1, np.linspace(-40, 40, width)[1:]]}, batch)
    if c.level != "quick":  # other shapes: each is a compilation
        tail = max(1, len(c.data.train) % c.rows)
        for name, rows in zip(OTHER_SHAPES, (tail, 1), strict=True):
            cases[name] = (start, {key: value[:rows] for key, value in batch.items()})
    return cases


def half_blank(x: np.ndarray) -> np.ndarray:
    """Every second row 0, the first 1. Not all 0: there the true loss is 1e-42, which (1 - x) l - log s(l), a usual form, rounds to 0."""
    rows = np.arange(len(x))[:, None]
    return np.where(rows == 0, 1.0, x * (rows % 2 == 0)).astype(x.dtype)


def _n_cases(c: Context) -> int:
    return 5 + 2 * c.spec.noisy + 2 * bool(c.spec.hidden) + 2 * (c.level != "quick")


@check(
    10,
    "stress: large outputs and variances, ties, duplicates, partial batch",
    count=lambda c: _n_cases(c) * (2 + n_terms(c.spec) + n_tensors(c.spec)) + 2 * (1 + n_tensors(c.spec)),
    reason=trained,
    cause="a form that is not stable (softplus from probabilities, a threshold, an overflow), or a sub-gradient at a tie",
)
def check_stress(c: Context) -> None:
    model, truth = c.shared(), Truth(c)
    steepest: tuple[float, Arrays, Arrays, Arrays] = (-1.0, {}, {}, {})
    for name, (p, batch) in stress_cases(c).items():
        if c.itself:
            batch = {key: value[:4] for key, value in batch.items()}
        model.set_parameters(p)
        c.record.closes(f"{name}: term", model.terms(batch), truth.terms(p, batch), c.gates.terms)
        got = model.gradients(batch)
        # where all units saturate, tanh's usual derivative 1 - h^2 keeps no digit: what is left is measured by the largest gradient
        c.record.closes(f"{name}: gradient", got, truth.gradients(p, batch, got), c.gates.gradients, floor=0.1)
        if name not in OTHER_SHAPES:
            size = float(np.sqrt(sum(np.square(value).sum() for value in got.values())))
            steepest = max(steepest, (size, p, batch, got), key=lambda one: one[0])
    _, p, batch, got = steepest
    model = c.fresh()
    model.set_parameters(p)
    model.train([batch])  # what clips or scales gradients does it here
    state, adam = model.optimizer_state(), c.spec.optimizer
    for part, power, beta in (("m", 1, adam.beta1), ("v", 2, adam.beta2)):
        expected = {name: (1 - beta) * value**power for name, value in got.items()}
        c.record.closes(f"steepest case, trained: moment {part} of", state[part], expected, c.gates.gradients, floor=0.1)
