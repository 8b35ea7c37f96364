"""The ladder: a sound implementation passes every check, and each check has a fault that turns it red."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import impls
import specs
from harness.verify import ladder, oracle
from harness.verify.certificate import judge
from harness.verify.compare import Comparisons, error
from harness.verify.context import Context
from harness.verify.relations import RELATIONS
from harness.verify.relations_pca import COUNT as PCA_RELATIONS
from harness.verify.renew import renew
from harness.verify.run import plan, verify
from impls import Implementation
from impls.numpy import backend as numpy_backend
from specs import Spec, parameters
from tests.timed_faults import ahead, cached, in_part, seldom, seldom_new


@dataclass(frozen=True)
class Planted(Implementation):
    """The NumPy implementation under another name, with a fault planted in each backend that it builds."""

    fault: Callable[[object], None] = lambda backend: None

    def backend_module(self):
        def build(spec: Spec, **options):
            backend = numpy_backend.build(spec, **options)
            self.fault(backend)
            return backend

        return SimpleNamespace(build=build, devices=numpy_backend.devices)


def planted(fault: Callable = lambda backend: None, name: str = "planted") -> Planted:
    return Planted(name=name, text="", module="", variant="hand", agrees_with=("other",), folder="numpy", fault=fault)


SMALL = {"architecture": {"hidden": (6,), "latent": 3, "activation": "tanh"}, "training": {"batch_size": 16}}
VAE = specs.load("vae").replace(**SMALL)
GAUSSIAN = VAE.replace(loss={"likelihood": "gaussian", "variance": 0.3})
LINEAR_VAE = specs.load("linear_vae").replace(training={"batch_size": 32})
LINEAR_AE = specs.load("linear_ae").replace(architecture={"latent": 3}, training={"batch_size": 16})
PCA = specs.load("pca")


def results(implementation: Implementation, spec: Spec, dtype: str = "float64", level: str = "ci", only: set[int] | None = None) -> dict:
    context = Context(implementation, spec, dtype, level=level)
    return {c.number: ladder.perform(c, context) for c in ladder.due(level, dtype) if only is None or c.number in only}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("spec", [VAE, GAUSSIAN, LINEAR_VAE, LINEAR_AE, PCA], ids=lambda s: f"{s.name} {s.likelihood}")
@pytest.mark.parametrize("name", ["numpy", "planted"])
def test_a_sound_implementation_passes_every_check(name, spec, dtype):
    implementation = impls.load("numpy") if name == "numpy" else planted()
    for result in results(implementation, spec, dtype).values():
        assert result.state in ("pass", "n-a"), result


# ---------------------------------------------------------------- one fault a check


def wrap(name: str, change: Callable) -> Callable:
    """A fault: the backend's method `name` returns change(backend, its result)."""

    def fault(backend):
        if original := getattr(backend, name, None):
            setattr(backend, name, lambda *args: change(backend, original(*args)))

    return fault


def scale(key: str, by: float) -> Callable:
    return lambda backend, values: {name: value * by if name == key else value for name, value in values.items()}


def drops_second_moment(backend):
    original = backend.set_optimizer_state

    def forgetful(state):
        v = {name: value * 0.5 for name, value in state["v"].items()} if state["step"] else state["v"]
        original({**state, "v": v})

    backend.set_optimizer_state = forgetful


def epsilon_inside(backend):
    """Adam with epsilon under the root, as many write it."""

    def update(p, gradients):
        adam, s = backend.optimizer, backend.optimizer.spec
        adam.step += 1
        for name, g in gradients.items():
            adam.m[name] += (1 - s.beta1) * (g - adam.m[name])
            adam.v[name] += (1 - s.beta2) * (g**2 - adam.v[name])
            v_hat = adam.v[name] / (1 - s.beta2**adam.step)
            p[name] -= s.learning_rate * adam.m[name] / (1 - s.beta1**adam.step) / np.sqrt(v_hat + s.epsilon)

    backend.optimizer.update = update


def drifts(size: float) -> Callable:
    """Training that disturbs a parameter after 30 steps."""

    def fault(backend):
        original, count = backend.step, iter(range(10**9))

        def step(batch):
            if next(count) == 30:
                backend.named["logits.b"] += size
            return original(batch)

        backend.step = step

    return fault


def clips(backend):
    """Reconstruction from probabilities clipped at 1e-7, as a BCE on probabilities does."""
    original = backend.terms
    backend.terms = lambda batch: {name: np.minimum(value, 64 * 16.2) for name, value in original(batch).items()}


def other_variant(backend):
    if backend.variant == "other":
        wrap("step", lambda b, loss: loss * (1 + 1e-10))(backend)


def wrong_divisor(backend):
    wrap("parameters", lambda b, p: {k: v * 1436 / 1437 if k == "explained_variance" else v for k, v in p.items()})(backend)


def wrong_constant(backend):
    wrap("terms", scale("kl", 1 + 1e-9))(backend)


def depends_on_place(backend):
    def tilt(b, values):
        return {name: value * (1 + 1e-9 * np.arange(len(value))) if name == "reconstruction" else value for name, value in values.items()}

    wrap("terms", tilt)(backend)


def skips_a_step(backend):
    original = backend.prepare
    backend.prepare = lambda operation, batch, steps, seed: original(operation, batch, max(1, steps - 1), seed)


def loud_noise(backend):
    original = backend.noise
    backend.noise = lambda n: (1.1 * original(n)).astype(backend.dtype)


def repeats_noise(backend):
    kept = {}
    original = backend.noise
    backend.noise = lambda n: kept.setdefault(n, original(n))


FAULTS = [
    (1, VAE, "float64", wrap("parameters", lambda b, p: {k: v.T if v.ndim == 2 else v for k, v in p.items()})),
    (1, VAE, "float32", wrap("parameters", lambda b, p: {k: v.astype("float64") for k, v in p.items()})),
    (2, VAE, "float64", wrap("terms", scale("reconstruction", 1 + 1e-11))),
    (2, VAE, "float64", wrap("encode", scale("logvar", 1 + 1e-11))),
    (2, VAE, "float64", wrap("decode", lambda b, x: x + 1e-11)),
    (2, VAE, "float64", wrap("terms", lambda b, t: b.__dict__.setdefault("stale", t))),
    (3, VAE, "float64", wrap("gradients", scale("mu.w", 1 + 1e-11))),
    (3, VAE, "float64", wrap("gradients", lambda b, g: {k: v for k, v in g.items() if k != "mu.b"})),
    (3, VAE, "float64", wrap("gradients", scale("mu.b", np.nan))),
    (5, VAE, "float64", epsilon_inside),
    (5, VAE, "float32", wrap("apply_gradients", lambda b, _: [b.named[k].__imul__(1 + 1e-6) for k in b.named])),
    (6, VAE, "float64", drifts(1e-9)),
    (7, VAE, "float32", drifts(1e-2)),
    (7, PCA, "float32", wrap("decode", lambda b, x: x + 1e-3)),
    (10, VAE, "float64", clips),
    (11, VAE, "float64", other_variant),
    (12, PCA, "float64", wrong_divisor),
    (12, VAE, "float64", wrong_constant),
    (12, LINEAR_AE, "float64", wrap("terms", lambda b, t: {k: v / 64 for k, v in t.items()})),
    (12, LINEAR_VAE, "float64", wrap("terms", lambda b, t: {k: v - 0.5 * np.log(2 * np.pi) for k, v in t.items()})),
    (13, VAE, "float64", depends_on_place),
    (13, PCA, "float64", wrap("decode", lambda b, x: x * (1 + 1e-10))),
    (14, VAE, "float64", skips_a_step),
    (14, VAE, "float64", loud_noise),
    (14, VAE, "float64", repeats_noise),
    (14, VAE, "float32", seldom(lambda step: step > 3)),
    (14, VAE, "float32", seldom_new),
    (14, VAE, "float32", in_part),
    (14, VAE, "float32", cached("encode")),
    (14, VAE, "float32", cached("decode")),
    (14, PCA, "float32", ahead),
    (14, PCA, "float32", cached("fit")),
    (14, PCA, "float64", wrap("outcome", lambda b, o: {k: v * (1 + 1e-9) for k, v in o.items()})),
    (15, VAE, "float64", drops_second_moment),
    (15, PCA, "float64", wrap("parameters", lambda b, p: {k: v * (1 + 1e-15 * np.random.default_rng().random()) for k, v in p.items()})),
]


@pytest.mark.parametrize(
    ("number", "spec", "dtype", "fault"), FAULTS, ids=[f"{n}-{s.name}-{d}-{k}" for k, (n, s, d, _) in enumerate(FAULTS)]
)
def test_each_check_has_a_fault_that_it_catches(number, spec, dtype, fault):
    assert results(planted(fault), spec, dtype, only={number})[number].state == "fail"


def test_every_check_has_a_negative_control():
    numbers = {check.number for level in ("ci", "report") for dtype in ("float32", "float64") for check in ladder.due(level, dtype)}
    assert numbers == {number for number, *_ in FAULTS} | {4}  # 4 is in the next test: it is for the reference itself


@pytest.mark.parametrize(
    "fault",
    [wrap("gradients", scale("mu.w", 1 + 1e-11)), wrap("gradients", scale("logits.b", -1)), wrap("terms", scale("kl", 1 + 1e-11))],
)
def test_a_faulty_reference_is_caught_by_the_oracle(fault):
    assert results(planted(fault, name="numpy"), VAE, only={4})[4].state == "fail"


def test_the_worst_defect_a_check_that_compares_nothing_fails():
    made = Comparisons().made
    assert judge(2, "terms", "", made, 5, 0.0).state == "fail"
    record = Comparisons()
    record.close("one", np.ones(3), np.ones(3), 1e-12)
    assert judge(2, "terms", "", record.made, 2, 0.0).state == "fail"
    assert judge(2, "terms", "", record.made, 1, 0.0).state == "pass"


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        ([np.nan], [np.nan]),
        ([np.inf], [np.inf]),
        ([], []),
        ([1.0, 2.0], [1.0]),
        ([[1.0]], [1.0]),
        (["1"], [1.0]),
        ([1e-300], [0.0]),
    ],
)
def test_what_cannot_be_compared_is_an_infinite_error(got, expected):
    assert error(np.array(got), np.array(expected)) == np.inf


def test_error_is_relative_to_the_largest_entry():
    assert error(np.array([1.0, 100.0]), np.array([2.0, 100.0])) == pytest.approx(0.01)


def test_names_that_are_missing_or_additional_fail():
    for got in ({"a": np.ones(2)}, {"a": np.ones(2), "b": np.ones(2), "c": np.ones(2)}):
        record = Comparisons()
        record.closes("x", got, {"a": np.ones(2), "b": np.ones(2)}, 1.0)
        assert not all(one.passed for one in record.made)


def test_there_are_relations_enough_for_each_model():
    for spec in (specs.load("vae"), specs.load("ae"), specs.load("linear_ae")):
        names = [one.name for one in RELATIONS if one.applies(spec)]
        assert len(names) >= (15 if spec.model == "vae" else 11), names
    assert len({one.name for one in RELATIONS}) >= 20
    assert PCA_RELATIONS >= 15


def test_the_oracle_agrees_with_finite_differences():
    p, rng = parameters.initial(VAE), np.random.default_rng(0)
    batch = {"x": rng.random((4, 64)), "eps": rng.standard_normal((4, 3))}
    gradients = oracle.gradients(VAE, p, batch)
    for name, value in p.items():
        where = np.unravel_index(rng.integers(value.size), value.shape)
        sides = []
        for step in (1e-6, -1e-6):
            moved = value.copy()
            moved[where] += step
            sides.append(oracle.loss(VAE, p | {name: moved}, batch).real)
        assert gradients[name][where] == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("spec", [VAE, LINEAR_AE, PCA], ids=lambda s: s.name)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_certificate_is_renewed_on_the_model_itself_and_leaves_it_fresh(spec, dtype):
    model = impls.load("numpy").build(spec, dtype=dtype)
    made = renew(model)
    assert made["passed"], made["message"]
    if spec.trains:
        assert model.optimizer_state()["step"] == 0
        for name, value in parameters.initial(spec, dtype).items():
            np.testing.assert_array_equal(model.parameters()[name], value)
    assert renew(impls.load("numpy").build(spec, dtype=dtype))["id"] == made["id"]


def mistimes(operation: str, key: str) -> Callable:
    """A fault in the timed path of an operation alone."""
    return wrap(f"timed_{operation}", lambda backend, run: lambda: scale(key, 1.001)(backend, run()))


@pytest.mark.parametrize(
    "fault",
    [
        wrap("terms", scale("kl", 1.001)),
        wrap("gradients", scale("mu.w", 1.001)),
        skips_a_step,
        epsilon_inside,
        wrap("timed_loss", lambda backend, run: lambda: run() * 1.001),
        mistimes("encode", "mu"),
        mistimes("decode", "x_hat"),
        mistimes("generate", "x_hat"),
    ],
)
def test_a_renewal_refuses_a_wrong_model(fault):
    model = impls.load("numpy").build(VAE, dtype="float64")
    fault(model.backend)
    assert not renew(model)["passed"]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("part", ["layers.Dense.backward", "adam.Adam.update"])
def test_a_renewal_of_the_reference_does_not_hold_it_against_itself(monkeypatch, part, dtype):
    """A fault in the source is in every build of NumPy's; what is timed and what it is compared with are both wrong."""
    import impls.numpy.adam
    import impls.numpy.layers

    file, owner, method = part.split(".")
    owner = getattr(getattr(impls.numpy, file), owner)
    right = getattr(owner, method)

    def backward(self, *arguments):
        d_x = right(self, *arguments)
        self.d_w *= 1.01
        return d_x

    def update(self, parameters, gradients):
        right(self, parameters, 1.01 * gradients)

    monkeypatch.setattr(owner, method, {"backward": backward, "update": update}[method])
    assert not renew(impls.load("numpy").build(VAE, dtype=dtype))["passed"]


# ---------------------------------------------------------------- random specs

EXAMPLES = int(os.environ.get("ISOFORM_EXAMPLES", "4"))


@st.composite
def random_specs(draw) -> Spec:
    model = draw(st.sampled_from(["pca", "linear_ae", "ae", "vae"]))
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3).filter(lambda s: np.prod(s) >= 2))
    size, train = int(np.prod(shape)), draw(st.integers(20, 40))
    bernoulli = draw(st.booleans())
    data = (
        {"name": "random_bernoulli", "shape": shape, "train": train, "test": 5, "probability": 0.4}
        if bernoulli
        else {"name": "linear_gaussian", "features": size, "rank": 1, "noise_variance": 0.5, "train": train, "test": 5}
    )
    content = {
        "name": "random",
        "model": model,
        "seed": draw(st.integers(0, 2**32 - 1)),
        "data": data,
        "architecture": {"latent": draw(st.integers(1, min(size, train)))},
        "optimizer": {"learning_rate": draw(st.sampled_from([1e-4, 1e-3, 1e-2])), "epsilon": draw(st.sampled_from([1e-8, 1e-6]))},
        "training": {"batch_size": draw(st.integers(2, train))},
    }
    if model not in ("pca", "linear_ae"):
        content["architecture"] |= {
            "hidden": draw(st.lists(st.integers(1, 9), max_size=3)),
            "activation": draw(st.sampled_from(["identity", "relu", "tanh", "softplus", "gelu"])),
        }
        content["loss"] = (
            {"likelihood": "bernoulli"} if bernoulli else {"likelihood": "gaussian", "variance": draw(st.sampled_from([0.1, 1.0]))}
        )
        if model == "vae":
            content["loss"]["beta"] = draw(st.sampled_from([0.0, 0.5, 1.0, 4.0]))
    return Spec.model_validate(content)


@pytest.mark.parametrize("implementation", ["numpy", "torch", "jax"])
@given(spec=random_specs())
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
def test_random_valid_specs_pass(implementation, spec):
    for result in results(impls.load(implementation), spec, level="quick", only={1, 2, 3, 5, 6, 10, 15}).values():
        assert result.state in ("pass", "n-a"), (spec, result)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("implementation", ["numpy", "torch", "jax"])
@given(spec=random_specs())
@settings(max_examples=max(EXAMPLES // 4, 1), phases=[Phase.generate], suppress_health_check=list(HealthCheck))
def test_random_valid_specs_pass_every_check(implementation, dtype, spec):
    for result in results(impls.load(implementation), spec, dtype=dtype, level="ci").values():
        assert result.state in ("pass", "n-a"), (spec, result)


COMPILED = ("torch-compile", "jax-scan", "keras-jax", "keras-torch", "keras-tensorflow")
EACH = max(EXAMPLES // 2, 1)


@pytest.mark.parametrize("implementation", COMPILED)
@given(drawn=st.lists(random_specs(), min_size=EACH * len(COMPILED), max_size=EACH * len(COMPILED)))
@settings(max_examples=1, phases=[Phase.generate], suppress_health_check=list(HealthCheck))  # a second one costs a second import
def test_random_valid_specs_pass_in_a_worker(implementation, drawn):
    mine = drawn[COMPILED.index(implementation) :: len(COMPILED)]  # where draws are the same each time, each has its own
    pairs = plan([*dict.fromkeys(mine)], [impls.load(implementation)], ["float64"], "cpu", "highest")
    verify(pairs, "quick")
    for pair in pairs:
        assert pair.state in ("pass", "n-a"), (pair.spec, pair.reason, [check for check in pair.checks if check["state"] == "fail"])


def test_what_the_reference_computes_is_computed_once_for_a_spec_and_dtype(tmp_path):
    made = []

    def look(what: str, spec: Spec = VAE, dtype: str = "float64", shelf=tmp_path) -> object:
        context = Context(impls.load("numpy"), spec, dtype)
        context.shelf = shelf
        return context.once(what, lambda: made.append(what) or {"n": len(made)})

    assert [look("a"), look("a")] == [{"n": 1}, {"n": 1}]
    assert [look("b"), look("a", GAUSSIAN), look("a", dtype="float32"), look("a", shelf=None)] == [{"n": n} for n in (2, 3, 4, 5)]
    assert look("a") == {"n": 1} and len(list(tmp_path.iterdir())) == 4
