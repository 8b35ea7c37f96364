"""The surface of a built model, and how implementations are found: bad arrays, copies, what is missing, third parties."""

import json
import re
import shutil
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import impls
import specs
from impls import BadArray, DeviceAbsent, Implementation, MissingFramework, UnknownImplementation, Unsupported
from impls.surface import operations

ROOT = Path(__file__).parents[1]
THIRD_PARTY = Path(__file__).parent / "third_party"
SHIPPED = [name for name, one in impls.available().items() if one.folder]
N = 5


def build(spec: str = "vae", **options):
    return impls.load("numpy").build(specs.load(spec), **options)


def given(spec: str = "vae", **changes) -> dict:
    rng, sizes = np.random.default_rng(0), {"x": 64} | ({"eps": 8} if spec == "vae" else {})
    return {name: rng.random((N, size)) for name, size in sizes.items()} | changes


def with_entry(value, dtype: type = float) -> np.ndarray:
    array = np.full((N, 64), 0.5, dtype)
    array[1, 2] = value
    return array


BAD_BATCHES = [
    (given(x=with_entry(np.nan)), r"'x' holds nan at \(1, 2\)"),
    (given(x=with_entry(-np.inf)), r"'x' holds -inf at \(1, 2\)"),
    (given(x=with_entry(1e39)), r"'x' holds inf at \(1, 2\); every value must be finite in float32"),
    (given(x=with_entry(1j, complex)), "'x' must hold real numbers, got dtype complex128"),
    (given(x=np.full((N, 64), "a")), "'x' must hold real numbers, got dtype <U1"),
    (given(x=with_entry(None, object)), "'x' must hold real numbers, got dtype object"),
    (given(x=np.zeros((N, 63))), r"'x' must have shape \(n, 64\) with n >= 1, got \(5, 63\)"),
    (given(x=np.zeros(64)), r"got \(64,\)"),
    (given(x=np.zeros((N, 8, 8))), r"got \(5, 8, 8\)"),
    (given(x=np.zeros((0, 64)), eps=np.zeros((0, 8))), r"got \(0, 64\)"),
    (given(eps=np.zeros((N, 7))), r"'eps' must have shape \(n, 8\)"),
    (given(eps=np.full((N, 8), np.nan)), r"'eps' holds nan at \(0, 0\)"),
    (given(eps=np.zeros((N - 1, 8))), "differ in rows: {'x': 5, 'eps': 4}"),
    ({"x": np.zeros((N, 64))}, r"has the keys \['eps', 'x'\], got \['x'\]"),
    ({"eps": np.zeros((N, 8))}, r"has the keys \['eps', 'x'\], got \['eps'\]"),
    (given(label=np.zeros(N)), r"got \['eps', 'label', 'x'\]"),
    ({}, r"got \[\]"),
]


def test_a_model_says_what_it_is():
    assert repr(build("ae", dtype="float64")) == "<ae in numpy: float64 on cpu>"


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize(("batch", "message"), BAD_BATCHES)
def test_a_bad_batch_is_refused_and_nothing_moves(batch, message):
    model = build()
    before = model.parameters()
    for call in (model.terms, model.gradients, lambda bad: model.train([bad])):
        with pytest.raises(BadArray, match=message) as caught:
            call(batch)
        assert "spec vae" in str(caught.value)
    assert all(np.array_equal(before[name], value) for name, value in model.parameters().items())
    assert model.optimizer_state()["step"] == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mu.w": None}, r"missing \['mu.w'\]"),
        ({"nu.w": np.zeros((48, 8))}, r"unknown \['nu.w'\]"),
        ({"mu.w": np.zeros((8, 48))}, r"'mu.w' must have shape \(48, 8\), got \(8, 48\)"),
        ({"mu.b": np.full(8, np.nan)}, r"'mu.b' holds nan at \(0,\)"),
        ({"logits.b": np.zeros(64, complex)}, "'logits.b' must hold real numbers"),
    ],
)
def test_bad_parameters_are_refused_and_nothing_is_half_written(changes, message):
    model = build()
    before = model.parameters()
    bad = {name: value for name, value in ({name: value + 1 for name, value in before.items()} | changes).items() if value is not None}
    state = model.optimizer_state()
    for call in (model.set_parameters, model.apply_gradients, lambda v: model.set_optimizer_state({"step": 1, "m": v, "v": before})):
        with pytest.raises(BadArray, match=message):
            call(bad)
    assert all(np.array_equal(before[name], value) for name, value in model.parameters().items())
    assert model.optimizer_state()["step"] == state["step"] == 0


def test_numbers_of_any_real_kind_are_cast():
    model = build("ae")
    expected = model.terms({"x": np.ones((N, 64), "float32")})["reconstruction"]
    for kind in ("float64", "int8", "uint16", "float16", "bool"):
        if kind == "bool":
            with pytest.raises(BadArray):
                model.terms({"x": np.ones((N, 64), kind)})
        else:
            assert np.array_equal(model.terms({"x": np.ones((N, 64), kind)})["reconstruction"], expected)
    assert expected.dtype == np.float32
    fortran = np.asfortranarray(given("ae")["x"])
    assert np.array_equal(model.terms({"x": fortran})["reconstruction"], model.terms(given("ae"))["reconstruction"])


def test_train_refuses_no_batches_and_prepare_no_steps():
    with pytest.raises(BadArray, match="at least one batch, got none"):
        build().train([])
    with pytest.raises(BadArray, match="steps must be at least 1, got 0"):
        build().prepare(given(), 0)


@pytest.mark.parametrize(
    ("spec", "call", "message"),
    [
        ("pca", lambda m: m.train([given("pca")]), "model 'pca' .* has no 'train'; it has fit, encode, decode"),
        ("pca", lambda m: m.terms(given("pca")), "has no 'terms'"),
        ("pca", lambda m: m.gradients(given("pca")), "has no 'gradients'"),
        ("pca", lambda m: m.optimizer_state(), "has no 'optimizer_state'"),
        ("pca", lambda m: m.prepare(given("pca"), 1), "has no 'train'"),
        ("pca", lambda m: m.encode(given("pca")), r"call fit\(x\) or set_parameters"),
        ("pca", lambda m: m.decode(np.zeros((1, 8))), r"call fit\(x\) or set_parameters"),
        ("ae", lambda m: m.fit(given("ae")["x"]), "model 'ae' .* has no 'fit'"),
        ("ae", lambda m: m.generate(3, 0), "has no 'generate'"),
        ("ae", lambda m: m.native_noise(3, 1, 0), "has no 'native_noise'"),
        ("ae", lambda m: m.run(), r"run\(\) comes after prepare"),
        ("ae", lambda m: m.refill(given("ae")), r"refill\(\) comes after prepare"),
        ("ae", lambda m: m.block(), r"block\(\) comes after prepare"),
    ],
)
def test_what_a_model_cannot_do_is_said(spec, call, message):
    with pytest.raises(Unsupported, match=message):
        call(build(spec))


def test_pca_needs_as_many_rows_as_components():
    with pytest.raises(BadArray, match="at least 8 rows for 8 components, got 7"):
        build("pca").fit(np.eye(7, 64))


@pytest.mark.parametrize(("options", "message"), [({"dtype": "float16"}, "float16"), ({"precision": "exact"}, "exact")])
def test_an_unknown_dtype_or_precision_is_refused(options, message):
    with pytest.raises(Unsupported, match=f"dtype must be one of .*{message}"):
        build(**options)


def test_an_absent_device_is_named_with_those_that_are_there():
    with pytest.raises(DeviceAbsent, match="numpy sees no device 'cuda' on this machine; it sees cpu"):
        build(device="cuda")


def test_operations_are_those_that_can_be_timed():
    for name in specs.names():
        model = build(name)
        if not model.spec.trains:
            model.fit(np.random.default_rng(0).random((20, model.spec.d_x)))
        for operation in operations(model.spec):
            model.prepare({"x": np.ones((N, model.spec.d_x)), "z": np.ones((N, model.spec.d_z))}, 2, operation=operation)
            model.run()
            model.block()
            assert all(np.isfinite(value).all() and len(value) > 0 for value in model.outcome().values()), (name, operation)


LOSSES = """
import numpy as np, specs, impls
from specs import noise
for name in ("vae", "ae", "linear_ae"):
    spec = specs.load(name)
    model = impls.load("{implementation}").build(spec, dtype="float64")
    before, x = model.parameters(), np.random.default_rng(0).random((7, spec.d_x))
    for steps, seed in ((3, 5), (2, 6)):
        given = [{{"x": x}} | ({{"eps": eps}} if spec.noisy else {{}}) for eps in
                 (model.native_noise(7, steps, seed) if spec.noisy else [None] * steps)]
        terms = [model.terms(one) for one in given]
        model.prepare({{"x": x}}, steps, operation="loss", seed=seed)
        model.run(), model.block()
        got = model.outcome()["loss"]
        expected = [np.mean(sum({{"kl": spec.beta}}.get(part, 1.0) * value for part, value in one.items())) for one in terms]
        assert got.shape == (steps,) and np.allclose(got, expected, rtol=1e-13, atol=0), (name, got, expected)
        assert len(set(got)) == (steps if spec.noisy else 1)  # fresh noise each time
        model.prepare({{"x": x}}, steps, operation="loss", seed=seed)
        model.refill({{"x": 1 - x}})
        model.run(), model.block()
        terms = [model.terms(one | {{"x": 1 - x}}) for one in given]
        expected = [np.mean(sum({{"kl": spec.beta}}.get(part, 1.0) * value for part, value in one.items())) for one in terms]
        assert np.allclose(model.outcome()["loss"], expected, rtol=1e-13, atol=0), name
    assert model.optimizer_state()["step"] == 0
    assert all(np.array_equal(before[name], value) for name, value in model.parameters().items())
print("equal")
"""


@pytest.mark.parametrize("implementation", SHIPPED)
def test_timed_losses_are_those_of_the_terms_with_the_noise_that_the_framework_draws(python, implementation):
    environment = dict(impls.load(implementation).environment)
    assert python(LOSSES.format(implementation=implementation), **environment) == "equal"


def test_generate_draws_means_from_the_prior():
    model = build()
    drawn = model.generate(300, seed=1)
    assert drawn.shape == (300, 64) and (drawn > 0).all() and (drawn < 1).all()
    assert np.array_equal(drawn, model.generate(300, seed=1)) and not np.array_equal(drawn, model.generate(300, seed=2))


COPIES = """
import numpy as np, specs, impls
from specs import parameters
spec = specs.load("vae")
model = impls.load("{implementation}").build(spec, dtype="float64")
first = model.parameters()
kept = {{name: value.copy() for name, value in first.items()}}
assert all(np.array_equal(kept[name], value) for name, value in parameters.initial(spec).items())
for value in first.values():
    value += 1  # what was handed out is the caller's
same = lambda a, b: sorted(a) == sorted(b) and all(np.array_equal(a[name], b[name]) for name in a)
assert same(model.parameters(), kept)
model.set_parameters(first)
before = model.parameters()
assert same(before, first)
for value in first.values():
    value *= 0  # what was handed in is copied
assert same(model.parameters(), before)
gradients = {{name: np.ones_like(value) for name, value in before.items()}}
model.apply_gradients(gradients)
after, state = model.parameters(), model.optimizer_state()
assert state["step"] == 1 and not any(np.array_equal(after[name], before[name]) for name in after)
assert all(np.allclose(before[name] - after[name], spec.optimizer.learning_rate, rtol=1e-6) for name in after)
moments = {{part: {{name: value.copy() for name, value in state[part].items()}} for part in ("m", "v")}}
model.apply_gradients(gradients)
assert same(state["m"], moments["m"]) and same(state["v"], moments["v"])  # and does not move with the model
model.set_optimizer_state(state)
model.set_parameters(after)
again = model.optimizer_state()
assert again["step"] == 1 and same(again["m"], moments["m"]) and same(again["v"], moments["v"]) and same(model.parameters(), after)
if not impls.load("{implementation}").reason_against(specs.load("pca")):
    assert impls.load("{implementation}").build(specs.load("pca")).parameters() == {{}}  # before a fit there are none
print("copied")
"""


@pytest.mark.parametrize("implementation", SHIPPED)
def test_arrays_are_copied_in_and_out_and_setting_is_the_inverse_of_getting(python, implementation):
    environment = dict(impls.load(implementation).environment)
    assert python(COPIES.format(implementation=implementation), **environment) == "copied"


SETTINGS = """
import keras, specs, impls
keras.config.set_floatx("float32")
keras.config.set_dtype_policy("mixed_float16")
model = impls.load("{implementation}").build(specs.load("vae"), dtype="float64")
model.generate(3, 0)
print(keras.config.floatx(), keras.config.dtype_policy().name, model.generate(3, 0).dtype)
"""


@pytest.mark.parametrize("implementation", [name for name in SHIPPED if name.startswith("keras-")])
def test_keras_own_settings_are_left_as_they_were(python, implementation):
    environment = dict(impls.load(implementation).environment)
    assert python(SETTINGS.format(implementation=implementation), **environment) == "float32 mixed_float16 float64"


@pytest.mark.parametrize(("name", "near"), [("troch", "torch"), ("keras", "keras-jax"), ("jax_scan", "jax-scan"), ("xyzzy", None)])
def test_an_unknown_implementation_is_refused_with_the_nearest(name, near):
    with pytest.raises(UnknownImplementation, match=f"unknown implementation '{name}'") as caught:
        impls.load(name)
    text = str(caught.value)
    assert ("did you mean" in text) == (near is not None) and (near is None or f"did you mean '{near}'?" in text)
    assert "expected: one of numpy, torch" in text and "isoform list" in text


def test_a_missing_framework_is_named_with_the_command_that_installs_it():
    imaginary = Implementation(
        "imaginary", "", "impls.imaginary.backend", ("numpy", "no_such_package"), "python -m pip install 'isoform[x]'"
    )
    assert imaginary.missing == ["no_such_package"]
    with pytest.raises(MissingFramework) as caught:
        imaginary.build(specs.load("ae"))
    assert str(caught.value).splitlines() == [
        "implementation 'imaginary' needs no_such_package, which is not installed",
        "  install: python -m pip install 'isoform[x]'",
    ]


@pytest.mark.parametrize("name", [name for name in SHIPPED if name != "numpy"])
def test_the_command_installs_what_the_implementation_requires(monkeypatch, name):
    one = impls.load(name)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    asked = re.fullmatch(r"python -m pip install 'isoform\[([a-z,]+)\]'", one.install)[1].split(",")
    brings = {re.match(r"[\w-]+", line)[0].removesuffix("-cpu") for extra in asked for line in extras[extra]}
    assert set(one.requires) <= brings
    for package in one.requires:
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not there
        assert one.missing
        with pytest.raises(MissingFramework, match=re.escape(one.install)):
            one.build(specs.load("ae"))
        monkeypatch.undo()


def test_a_pair_that_does_not_apply_has_its_reason():
    with pytest.raises(Unsupported, match="nothing to compile"):
        impls.load("torch-compile").build(specs.load("pca"))


DISCOVER = """
import sys, impls
known = impls.available()
print(*known)
print(list(known.values())[-1].text)
print(known["torch"].module)
print(*{"torch", "jax", "flax", "optax", "keras", "tensorflow", "equinox", "isoform_equinox"} & set(sys.modules), "loaded")
"""


def test_discovery_imports_no_framework(python):
    names, *_, loaded = python(DISCOVER).splitlines()
    assert names.split()[: len(SHIPPED)] == SHIPPED and loaded == "loaded"
    assert SHIPPED == ["numpy", "torch", "torch-compile", "jax", "jax-scan", "keras-jax", "keras-torch", "keras-tensorflow"]


@pytest.fixture
def site(tmp_path):
    """site(entry points): a folder with the third-party example installed in it, as pip would leave it."""

    def install(**points: str) -> Path:
        project = tomllib.loads((THIRD_PARTY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        shutil.copytree(THIRD_PARTY / "isoform_equinox", tmp_path / "isoform_equinox")
        info = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir()
        info.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
        (group, declared), *others = project["entry-points"].items()
        assert not others
        lines = [f"[{group}]", *(f"{name} = {value}" for name, value in (declared | points).items())]
        info.joinpath("entry_points.txt").write_text("\n".join(lines))
        return tmp_path

    return install


def test_a_third_party_is_found_by_its_entry_point_without_importing_it(python, site):
    names, text, module, loaded = python(DISCOVER, site(torch="isoform_equinox.backend")).splitlines()
    assert names.split() == [*SHIPPED, "equinox"] and loaded == "loaded"
    assert text == "third party, from the package isoform-equinox"
    assert module == "impls.torch.backend"  # a shipped name cannot be taken over


def test_a_third_party_that_is_not_there_is_told_apart_from_an_unknown_one(python, site):
    code = "import impls, specs; impls.load('absent').build(specs.load('ae'))"
    code = f"import impls\ntry: {code}\nexcept impls.MissingFramework as error: print(error)"
    assert "python -m pip install isoform-equinox" in python(code, site(absent="no_such_package.backend"))


EQUAL = """
import impls, numpy as np, specs
from specs.noise import batches
spec = specs.load("linear_ae")
x = np.random.default_rng(0).random((300, spec.d_x))
def run(name):
    model = impls.load(name).build(spec, dtype="float64")
    batch = next(batches(spec, x, 1))
    losses = model.train(batches(spec, x, 30))
    return [losses, *model.parameters().values(), *model.gradients(batch).values(), *model.terms(batch).values()]
for a, b in zip(run("equinox"), run("numpy"), strict=True):
    assert np.abs(a - b).max() <= 1e-11 * np.abs(b).max()
try:
    impls.load("equinox").build(specs.load("vae"))
except impls.Unsupported as error:
    print(error)
"""


@pytest.mark.needs("jax")
def test_a_third_party_computes_the_same(python, site):
    assert python(EQUAL, site()) == "isoform-equinox has linear_ae only, not 'vae'"


@pytest.mark.needs("jax")
def test_a_third_party_is_verified_like_any_other(python, site, tmp_path):
    folder = tmp_path / "results"
    asked = ["verify", "--impl", "equinox", "--spec", "linear_ae", "--spec", "pca", "--level", "quick", "--out", str(folder)]
    python(f"from harness.cli import main; main({asked})", site())  # its exit code is 0
    found = json.loads(folder.joinpath("verify.json").read_text(encoding="utf-8"))
    rows = {row["spec"]: row for row in found["rows"]}
    assert rows["linear_ae"]["state"] == "pass" and rows["linear_ae"]["comparisons"] > 100 and 0 < rows["linear_ae"]["margin"] < 1
    assert rows["pca"]["state"] == "unsupported" and "linear_ae only" in rows["pca"]["reason"]
    assert [one["passed"] for one in found["certificates"]] == [True]
