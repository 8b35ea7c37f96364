"""Specs: what is refused and how it is said, what the hash covers, and the arrays that a spec fixes."""

import re
import tomllib
from itertools import islice
from math import sqrt
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

import specs
from specs import noise, parameters
from specs.schema import DATA_SETS, MODELS, Gates, Spec

FOLDER = Path(specs.__file__).parent
GOOD = """
model = "vae"
[architecture]
hidden = [6]
latent = 3
activation = "tanh"
[loss]
likelihood = "bernoulli"
beta = 2.0
"""


@pytest.fixture
def written(tmp_path):
    """written(text): the path of a spec with that text."""

    def write(text: str | bytes) -> str:
        path = tmp_path / "mine.toml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(path)

    return write


@pytest.mark.parametrize("name", specs.names())
def test_shipped_specs_load(name):
    spec = specs.load(name)
    assert spec.name == name and spec.title and spec.source


def test_shipped_specs_are_in_order_of_difficulty():
    assert specs.names()[:6] == ["pca", "linear_ae", "ae", "vae", "beta_vae", "linear_vae"]


def test_the_schema_and_the_table_of_models_agree():
    assert set(get_args(Spec.model_fields["model"].annotation)) == set(MODELS)


def test_a_path_works_where_a_name_does(written):
    spec = specs.load(written(GOOD))
    assert (spec.name, spec.d_x, spec.hidden, spec.d_z, spec.beta) == ("mine", 64, (6,), 3, 2.0)


@pytest.mark.parametrize("number", range(3))
def test_the_examples_of_the_readme_load(written, number):
    examples = re.findall(r"^```toml\n(.*?)^```$", FOLDER.joinpath("README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(examples) == 3
    spec = specs.load(written(examples[number]))
    given = tomllib.loads(examples[number])
    if number == 0:  # shows every section, and every key of those that do not depend on the data
        assert set(given) == set(Spec.model_fields) - {"name"}
        assert set(given["optimizer"]) | {"name"} == set(type(spec.optimizer).model_fields)
    else:
        assert set(given["data"]) == set(type(spec.data).model_fields)


@pytest.mark.parametrize("name", ["beta_vea", "linear-ae", "VAE"])
def test_an_unknown_name_is_refused_with_the_nearest(name):
    with pytest.raises(specs.SpecError, match=f"unknown spec '{name}'") as caught:
        specs.load(name)
    assert "expected: one of pca, linear_ae" in str(caught.value) and "isoform list" in str(caught.value)
    assert name == "VAE" or "did you mean" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("latent = 3", "latent = 3\nlatnt = 4", "unknown key 'latnt' in {path} [architecture]; did you mean 'latent'?"),
        ("[loss]", "[optimizer]\nlern_rate = 1.0\n[loss]", "unknown key 'lern_rate' in {path} [optimizer]; did you mean 'learning_rate'?"),
        ("[loss]", "[los]\nbeta = 1.0\n[loss]", "unknown key 'los' in {path}; did you mean 'loss'?"),
        ("[loss]", '[data]\nname = "digits"\nshap = [2]\n[loss]', "unknown key 'shap' in {path} [data]"),
        ("[loss]", "[gates]\nterm = 1e-13\n[loss]", "unknown key 'term' in {path} [gates]; did you mean 'terms'?"),
        ("latent = 3\n", "", "missing key 'latent' in {path} [architecture]"),
        ('model = "vae"', "", "missing key 'model' in {path}"),
        ('model = "vae"', 'model = "vea"', "bad value for 'model' in {path}"),
        ('"tanh"', '"tnah"', "bad value for 'activation' in {path} [architecture]"),
        ('"bernoulli"', '"poisson"', "bad value for 'likelihood' in {path} [loss]"),
        ("[loss]", '[data]\nname = "mnist"\n[loss]', "'digits', 'linear_gaussian', 'random_bernoulli'"),
        ("latent = 3", "latent = -3", "greater than or equal to 1, got -3"),
        ("latent = 3", "latent = 0", "greater than or equal to 1, got 0"),
        ("latent = 3", "latent = 2.5", "bad value for 'latent'"),
        ("latent = 3", "latent = true", "bad value for 'latent'"),
        ("latent = 3", 'latent = "3"', "bad value for 'latent'"),
        ("hidden = [6]", "hidden = [6, -6]", "greater than or equal to 1, got -6"),
        ("latent = 3", "latent = 65", "latent (65) is larger than the data (64 features)"),
        ("beta = 2.0", "beta = -0.5", "bad value for 'beta' in {path} [loss]: input should be greater than or equal to 0, got -0.5"),
        ("beta = 2.0", "beta = nan", "bad value for 'beta'"),
        ("beta = 2.0", "beta = inf", "bad value for 'beta'"),
        ("[loss]", "[optimizer]\nlearning_rate = nan\n[loss]", "bad value for 'learning_rate' in {path} [optimizer]"),
        ("[loss]", "[optimizer]\nlearning_rate = 0.0\n[loss]", "bad value for 'learning_rate'"),
        ("[loss]", "[optimizer]\nbeta2 = 1.0\n[loss]", "bad value for 'beta2'"),
        ("[loss]", "[optimizer]\nbeta1 = nan\n[loss]", "bad value for 'beta1'"),
        ("[loss]", "[training]\nbatch_size = 1438\n[loss]", "batch_size (1438) is larger than the data set (1437 training rows)"),
        ("[loss]", "[training]\nsteps = 0\n[loss]", "bad value for 'steps'"),
        ("[loss]", "[gates]\nterms = 1e-11\n[loss]", "bad value for 'terms' in {path} [gates]"),
        ("[loss]", "[gates]\nterms = nan\n[loss]", "bad value for 'terms'"),
        ("[loss]", "[gates]\nterms = 0.0\n[loss]", "bad value for 'terms'"),
        ('"bernoulli"', '"bernoulli"\nvariance = 2.0', "variance belongs to the gaussian likelihood"),
        ('model = "vae"', 'model = "ae"', "beta weighs the KL term of a VAE"),
        ('model = "vae"', 'model = "pca"', "model 'pca' is linear"),
        ('model = "vae"', 'model = "vae"\nseed = -1', "bad value for 'seed'"),
        (
            "[loss]",
            '[data]\nname = "linear_gaussian"\nfeatures = 4\nrank = 4\nnoise_variance = 1.0\ntrain = 200\ntest = 9\n[loss]',
            "rank (4) must be below features (4)",
        ),
    ],
)
def test_a_bad_value_is_refused_by_name_and_place(written, old, new, message):
    assert old in GOOD
    path = written(GOOD.replace(old, new, 1))
    with pytest.raises(specs.SpecError) as caught:
        specs.load(path)
    assert message.format(path=path) in str(caught.value)
    assert "pydantic" not in str(caught.value)


def test_all_faults_are_told_at_once(written):
    with pytest.raises(specs.SpecError) as caught:
        specs.load(written(GOOD.replace("latent = 3", "latent = -3\nlatnt = 3").replace("beta = 2.0", "beta = -1.0")))
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [("model = ", "is not valid TOML"), ("[a\n", "is not valid TOML"), (GOOD + GOOD, "is not valid TOML"), (b"\xff\xfe", "is not UTF-8")],
)
def test_a_file_that_is_not_toml_is_refused(written, text, message):
    path = written(text)
    with pytest.raises(specs.SpecError, match=message) as caught:
        specs.load(path)
    assert path in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(specs.SpecError, match=r"cannot read the spec .*absent\.toml"):
        specs.load(tmp_path / "absent.toml")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(specs.SpecError, match=r"cannot read the spec .*folder\.toml"):
        specs.load(tmp_path / "folder.toml")


def test_the_hash_covers_what_is_computed_and_nothing_else(written):
    base = specs.load(written(GOOD))
    same = specs.load(written('title = "Another"\nsource = "Elsewhere"\n' + GOOD + "\n[training]\nbatch_size = 128  # the default\n"))
    assert base.hash == same.hash and len(base.hash) == 64
    changes = {
        "seed": {"seed": 1},
        "model": {"model": "ae", "loss": {"beta": 1.0}},
        "data": {"data": {"name": "random_bernoulli", "shape": [8, 8], "train": 1437, "test": 360}},
        "architecture": {"architecture": {"activation": "relu"}},
        "loss": {"loss": {"beta": 2.5}},
        "optimizer": {"optimizer": {"epsilon": 1e-7}},
        "training": {"training": {"steps": 999}},
        "gates": {"gates": {"terms": 9e-13}},
    }
    assert set(changes) == set(Spec.model_fields) - {"name", "title", "source"}
    hashes = {base.hash, *(base.replace(**change).hash for change in changes.values())}
    assert len(hashes) == 1 + len(changes)


def test_a_spec_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        specs.load("vae").loss.beta = 1.0


def test_replace_checks_too():
    with pytest.raises(ValueError, match="larger than the data"):
        specs.load("vae").replace(architecture={"latent": 65})


widths = st.integers(1, 9)
fractions = st.floats(0.0, 0.999, allow_subnormal=False)
positive = st.floats(1e-9, 1e3, allow_subnormal=False)


@st.composite
def contents(draw) -> dict:
    """A valid spec, as the content of its TOML file."""
    model = draw(st.sampled_from(sorted(MODELS)))
    train = draw(st.integers(20, 300))
    likelihoods = ["gaussian"]
    if draw(st.booleans()):
        shape = draw(st.lists(st.integers(2, 5), min_size=1, max_size=3))
        d_x = int(np.prod(shape))
        data = {"name": "random_bernoulli", "shape": shape, "train": train, "test": 5, "probability": draw(st.floats(0.01, 0.99))}
        likelihoods.append("bernoulli")
    else:
        d_x = draw(st.integers(2, 12))
        rank = draw(st.integers(1, d_x - 1))
        data = {"name": "linear_gaussian", "features": d_x, "rank": rank, "noise_variance": draw(positive), "train": train, "test": 5}
    content = {
        "model": model,
        "seed": draw(st.integers(0, 2**32 - 1)),
        "data": data,
        "architecture": {"latent": draw(st.integers(1, min(d_x, train)))},
        "optimizer": {"learning_rate": draw(positive), "beta1": draw(fractions), "beta2": draw(fractions), "epsilon": draw(positive)},
        "training": {"batch_size": draw(st.integers(1, train)), "steps": draw(st.integers(1, 10**6))},
        "gates": {name: draw(st.floats(field.default / 100, field.default)) for name, field in Gates.model_fields.items()},
    }
    if model in ("ae", "vae"):
        content["architecture"]["hidden"] = draw(st.lists(widths, max_size=4))
        content["architecture"]["activation"] = draw(st.sampled_from(["identity", "relu", "tanh", "softplus", "gelu"]))
        content["loss"] = {"likelihood": draw(st.sampled_from(likelihoods))}
        if content["loss"]["likelihood"] == "gaussian":
            content["loss"]["variance"] = draw(positive)
        if model == "vae":
            content["loss"]["beta"] = draw(st.floats(0, 100))
    return content


def toml(table: dict, name: str = "") -> str:
    """TOML of a table of plain values and of tables of them."""
    text = f"[{name}]\n" if name else ""
    text += "".join(
        f"{key} = {str(v).lower() if isinstance(v, bool) else repr(v)}\n" for key, v in table.items() if not isinstance(v, dict)
    )
    return text + "".join(toml(value, key) for key, value in table.items() if isinstance(value, dict))


@given(contents())
def test_a_valid_spec_survives_the_round_trip(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("specs") / "random.toml"
    path.write_text(toml(content), encoding="utf-8")
    assert tomllib.loads(path.read_text(encoding="utf-8")) == content
    spec = specs.load(path)
    again = Spec.model_validate({**spec.model_dump(mode="json")})
    assert again == spec and again.hash == spec.hash == spec.replace().hash
    for table, values in content.items():
        for key, value in values.items() if isinstance(values, dict) else ():
            assert np.array_equal(getattr(getattr(spec, table), key), value), (table, key)
    assert isinstance(spec.data, DATA_SETS[content["data"]["name"]])
    assert spec.replace(seed=(spec.seed + 1) % 2**32).hash != spec.hash


@given(contents())
def test_parameters_have_the_shapes_and_bounds_of_glorot_and_bengio(content):
    spec = Spec.model_validate({"name": "random", **content})
    shapes, values = parameters.shapes(spec), parameters.initial(spec)
    if spec.model == "pca":
        assert shapes == {"mean": (spec.d_x,), "components": (spec.d_z, spec.d_x), "explained_variance": (spec.d_z,)} and values == {}
        return
    assert {name: value.shape for name, value in values.items()} == shapes and list(values) == list(shapes)
    sizes = {name: (d_in, d_out) for name, d_in, d_out in parameters.layers(spec)}
    assert len(shapes) == 2 * len(sizes)
    assert [shapes[f"{name}.w"] for name in sizes] == list(sizes.values())
    for name, (d_in, d_out) in sizes.items():
        assert np.abs(values[f"{name}.w"]).max() <= sqrt(6 / (d_in + d_out))
        assert values[f"{name}.b"].shape == (d_out,) and np.abs(values[f"{name}.b"]).max() <= 1 / sqrt(d_in)
    widths = [d_in for d_in, _ in sizes.values()] + [d_out for _, d_out in sizes.values()]
    assert widths.count(spec.d_x) >= 2 and widths.count(spec.d_z) >= 2


def test_parameters_by_name():
    assert parameters.shapes(specs.load("ae").replace(architecture={"hidden": [5, 4], "latent": 3})) == {
        "encoder.0.w": (64, 5),
        "encoder.0.b": (5,),
        "encoder.1.w": (5, 4),
        "encoder.1.b": (4,),
        "z.w": (4, 3),
        "z.b": (3,),
        "decoder.0.w": (3, 4),
        "decoder.0.b": (4,),
        "decoder.1.w": (4, 5),
        "decoder.1.b": (5,),
        "logits.w": (5, 64),
        "logits.b": (64,),
    }
    assert list(parameters.shapes(specs.load("linear_ae"))) == ["z.w", "z.b", "x_hat.w", "x_hat.b"]
    assert {"mu.w", "mu.b", "logvar.w", "logvar.b"} < set(parameters.shapes(specs.load("linear_vae")))


def test_initial_values_fill_their_bounds_and_follow_the_seed():
    spec = specs.load("vae")
    values, bound = parameters.initial(spec), sqrt(6 / (64 + 48))
    weights = values["encoder.0.w"].ravel()
    assert kstest(weights, "uniform", (-bound, 2 * bound)).pvalue > 1e-3
    assert all(np.array_equal(values[name], value) for name, value in parameters.initial(spec).items())
    assert not np.array_equal(weights, parameters.initial(spec.replace(seed=1))["encoder.0.w"].ravel())
    single = parameters.initial(spec, "float32")
    assert all(value.dtype == np.float32 for value in single.values())
    assert np.array_equal(single["encoder.0.w"], values["encoder.0.w"].astype(np.float32))


@given(n=st.integers(1, 200), size=st.integers(1, 200), seed=st.integers(0, 2**32 - 1))
def test_batches_cover_an_epoch_without_repeats(n, size, seed):
    size = min(n, size)
    per_epoch = n // size
    rows = noise.order(specs.load("vae").replace(seed=seed), n, size)
    for _ in range(3):
        epoch = list(islice(rows, per_epoch))
        assert all(len(batch) == size for batch in epoch)
        seen = np.concatenate(epoch)
        assert len(set(seen.tolist())) == per_epoch * size > n - size
        assert seen.min() >= 0 and seen.max() < n


def test_epochs_differ_and_seeds_too():
    spec = specs.load("vae")
    order = list(islice(noise.order(spec, 100, 100), 2))
    assert not np.array_equal(order[0], order[1])
    assert np.array_equal(order[0], next(noise.order(spec, 100, 100)))
    assert not np.array_equal(order[0], next(noise.order(spec.replace(seed=1), 100, 100)))


def test_noise_is_standard_normal_and_new_at_every_step():
    spec = specs.load("vae")
    draws = np.stack([noise.eps(spec, 128, step) for step in range(50)])
    assert draws.shape == (50, 128, spec.d_z) and draws.dtype == np.float64
    assert kstest(draws.ravel(), "norm").pvalue > 1e-3
    assert abs(draws.mean()) < 4 / sqrt(draws.size) and abs(draws.var() - 1) < 4 * sqrt(2 / draws.size)
    assert len(np.unique(draws)) == draws.size
    assert np.array_equal(draws[7], noise.eps(spec, 128, 7))
    assert np.array_equal(noise.eps(spec, 4, 3, "float32"), noise.eps(spec, 4, 3).astype(np.float32))


def test_batches_carry_what_the_model_needs():
    x = np.random.default_rng(0).random((300, 64))
    for name, keys in {"vae": {"x", "eps"}, "ae": {"x"}}.items():
        spec = specs.load(name)
        made = list(noise.batches(spec, x, 3, "float32", 50))
        rows = noise.order(spec, 300, 50)
        assert len(made) == 3 and all(set(batch) == keys for batch in made)
        for batch in made:
            assert np.array_equal(batch["x"], x[next(rows)].astype(np.float32))
            assert all(len(array) == 50 and array.dtype == np.float32 and array.flags.c_contiguous for array in batch.values())


def test_the_noise_of_a_batch_is_that_of_its_step():
    """However many steps it is drawn ahead."""
    spec, steps = specs.load("vae"), 2 * noise.AHEAD + 3
    made = list(noise.batches(spec, np.zeros((300, 64)), steps, "float32", 50))
    assert len(made) == steps
    assert all(np.array_equal(batch["eps"], noise.eps(spec, 50, step, "float32")) for step, batch in enumerate(made))
