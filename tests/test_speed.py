"""The measurement of the implementations' own speed: the bare codes compute what ours do, and a criterion can be missed."""

import json
import sys
from statistics import geometric_mean

import numpy as np
import pytest

import impls
from harness.bench.statistics import Estimate, paired
from harness.processes import cpus
from tests.speed import __main__ as speed
from tests.speed import measure
from tests.speed.criteria import CRITERIA, IMPLEMENTATIONS, judge

SAME = """
import numpy as np, impls
from specs.parameters import initial
from tests.speed.contestants import SEED, bare, rows, spec_of
spec = spec_of("vae").replace(data={{"shape": [6, 5]}}, architecture={{"hidden": [7], "latent": 3}})
noise = np.random.default_rng(0).standard_normal((4, spec.training.batch_size, spec.d_z))
model = impls.load("numpy").build(spec, dtype="float64")
given = [{{"x": rows(spec, "float64"), "eps": eps}} for eps in noise]
losses, after = model.train(given), model.parameters()
for dtype, gate, far in {gates}:
    one = bare("{name}", spec, 3, dtype)
    got, p = one.train(noise.astype(dtype)), one.parameters()
    assert got.dtype == dtype and np.abs(got - losses).max() <= gate * np.abs(losses).max(), (dtype, got - losses)
    assert set(p) == set(after) and all(np.abs(p[k] - after[k]).max() <= far * np.abs(after[k]).max() for k in p), dtype
    before = {{k: v.copy() for k, v in p.items()}}
    one.run(), one.block()
    timed, moved = np.ravel([np.asarray(value) for value in one.losses]), one.parameters()
    assert timed.shape == (3,) and len(set(timed)) == 3 and np.abs(timed - losses[-1]).max() < 0.1 * losses[-1]
    assert not any(np.array_equal(before[k], moved[k]) for k in before)
print("same")
"""
BOTH = [("float64", 1e-12, 1e-10), ("float32", 1e-5, 1e-4)]


@pytest.mark.parametrize(
    ("name", "gates"),
    [
        pytest.param("torch", BOTH, marks=pytest.mark.needs("torch")),
        pytest.param("jax", BOTH, marks=pytest.mark.needs("jax")),
        pytest.param("jax-scan", BOTH, marks=pytest.mark.needs("jax")),
        pytest.param("tensorflow", BOTH, marks=pytest.mark.needs("tensorflow")),
    ],
)
def test_bare_code_computes_the_same_losses_and_parameters(python, name, gates):
    assert python(SAME.format(name=name, gates=gates), JAX_ENABLE_X64="1") == "same"


def test_the_products_are_those_of_the_step():
    from tests.speed.bare.in_numpy import products
    from tests.speed.contestants import spec_of

    found = sorted((*a.shape, b.shape[1]) for a, b in products(spec_of("vae")))
    big = [(128, 784, 400), (128, 400, 784), (784, 128, 400), (400, 128, 784), (128, 784, 400)]
    heads = [(128, 400, 20), (400, 128, 20), (128, 20, 400)] * 2
    assert found == sorted([*big, *heads, (128, 20, 400), (20, 128, 400), (128, 400, 20)])  # the input needs no gradient


def test_scikit_learn_is_asked_for_the_same_pca():
    from tests.speed.bare.in_numpy import ScikitLearn
    from tests.speed.contestants import spec_of

    spec = spec_of("pca").replace(data={"shape": [5, 4], "train": 300}, architecture={"latent": 3})
    x = np.random.default_rng(0).random((300, 20)) @ np.diag(np.arange(1.0, 21))
    model, theirs = impls.load("numpy").build(spec, dtype="float64"), ScikitLearn(spec, x, 1)
    model.fit(x)
    theirs.run()
    ours, other = model.parameters(), theirs.parameters()
    assert np.allclose(ours["explained_variance"], other["explained_variance"], rtol=1e-12)
    assert np.allclose(np.abs(ours["components"] @ other["components"].T), np.eye(3), atol=1e-10)


def test_adam_in_pieces_is_adam(monkeypatch):
    """The specs that verify runs fit into one piece."""
    from impls.numpy import adam
    from tests.speed.contestants import spec_of

    spec, rng, ends = spec_of("vae"), np.random.default_rng(0), []
    tape = rng.standard_normal((4, 38))
    for piece in (1 << 16, 35, 8, 1):
        monkeypatch.setattr(adam, "PIECE", piece)
        p = np.zeros_like(tape[0])
        one = adam.Adam(spec.optimizer, p)
        for gradients in tape:
            one.update(p, gradients)
        ends.append(np.concatenate([p, one.m, one.v]))
    assert np.abs(ends[0]).min() > 0 and all(np.array_equal(ends[0], end) for end in ends[1:])


def interval(low: float, high: float) -> Estimate:
    return Estimate(geometric_mean([low, high]), low, high, 0.01, 5, 0.5)


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (interval(1.00, 1.09), "met"),
        (interval(1.00, 1.11), "cannot tell"),
        (interval(1.11, 1.20), "missed"),
        (interval(0.80, 0.90), "missed"),
        (interval(0.90, 1.05), "cannot tell"),
        (Estimate(1.0, float("nan"), float("nan"), float("nan"), 1, float("nan")), "cannot tell"),
        (None, "cannot tell"),
    ],
)
def test_a_criterion_is_met_missed_or_not_told(found, word):
    assert judge(found, 1.10, least=0.95) == word


def test_every_implementation_has_its_criteria():
    shipped = {name for name, one in impls.available().items() if one.folder}
    assert set(IMPLEMENTATIONS) == shipped
    for kind in ("loop", "harness", "worker"):
        assert {one.new.partition(":")[2] for one in CRITERIA if one.new.startswith(kind)} == shipped
    assert shipped <= {one.new for one in CRITERIA}


def test_a_planted_slow_step_is_missed(monkeypatch):
    """In real processes: a step with much of nothing in it. On one CPU, where threads do not wait for each other while others run."""
    monkeypatch.setattr(measure, "ROUNDS", 3)
    blocks = [measure.pair(("slow:numpy", "numpy"), "vae", 2, seed, cpus()[:1]) for seed in range(3)]
    slow, right = ({k: block[name] for k, block in enumerate(blocks)} for name in ("slow:numpy", "numpy"))
    assert judge(paired(right, slow), 1.10) == "missed", blocks
    assert judge(paired(slow, right), 1.10) == "met", blocks


def test_bench_and_a_loop_by_hand_agree_on_one_model(monkeypatch):
    monkeypatch.setattr(measure, "TURNS", 3)
    found = measure.harness("numpy", "vae", 0)
    assert set(found) == {"harness:numpy", "numpy"}
    assert 0.9 < found["harness:numpy"] / found["numpy"] < 1.1


def test_the_turn_that_counts_is_that_of_the_median_ratio():
    turns = {"worker:x": [3.0, 1.1, 1.0], "another:x": [7.0, 8.0, 9.0], "x": [1.0, 1.0, 1.0]}
    assert measure.middle(turns) == {"worker:x": 1.1, "another:x": 8.0, "x": 1.0}


def test_how_far_two_processes_are_apart_is_said_of_what_is_not_met(monkeypatch, tmp_path):
    block = lambda name, which, seed: {f"worker:{name}": 1.05 + seed / 100, f"another:{name}": 1.02 - seed / 100, name: 1.0}
    monkeypatch.setattr(measure, "worker", block)
    monkeypatch.setattr(sys, "argv", ["speed", "--only", "worker:numpy", "--blocks", "2", "--out", str(tmp_path / "speed.json")])
    assert speed.main() == 4
    text = (tmp_path / "speed.md").read_text()
    assert "Two processes of the loop by hand, in the same blocks: 1.015 of each other" in text and "another:numpy 1014.99" in text


def test_a_contestant_that_dies_is_named():
    with pytest.raises(RuntimeError, match="bare:nothing: its process has died"), measure.Child("bare:nothing", "vae", 1):
        pass


def test_what_is_measured_again_replaces_what_was_there(monkeypatch, tmp_path, capsys):
    path = tmp_path / "speed.json"
    for only, ratio in (("vae jax-scan / bare", 1.5), ("vae torch / bare", 1.0), ("vae jax-scan / bare", 1.0)):
        monkeypatch.setattr(measure, "pair", lambda names, which, steps, seed, ratio=ratio: {names[0]: ratio, names[1]: 1.0})
        monkeypatch.setattr(sys, "argv", ["speed", "--only", only, "--blocks", "2", "--out", str(path)])
        speed.main()
    found = json.loads(path.read_text())
    assert [(row["criterion"], row["value"]) for row in found["criteria"]] == [
        ("jax-scan / bare:jax-scan", 1.0),
        ("torch / bare:torch", 1.0),
    ]
    path.write_text(json.dumps(found | {"machine": {"cpu": "another"}}))
    assert speed.main() == 2 and "another machine" in capsys.readouterr().err


@pytest.mark.parametrize(("ratio", "word", "code"), [(1.0, "met", 0), (1.5, "missed", 1)])
def test_the_table_and_the_file_say_what_was_found(monkeypatch, tmp_path, capsys, ratio, word, code):
    monkeypatch.setattr(measure, "pair", lambda names, which, steps, seed: {names[0]: ratio * (1 + seed / 1000), names[1]: 1.0})
    monkeypatch.setattr(sys, "argv", ["speed", "--only", "vae jax-scan / bare", "--blocks", "3", "--out", str(tmp_path / "speed.json")])
    assert speed.main() == code
    assert word in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "speed.json").read_text())["criteria"]
    text = (tmp_path / "speed.md").read_text()
    assert f"| {row['value']:.3f} |" in text and f"| {word} |" in text and ("not explained yet" in text) == (word == "missed")
    assert row["verdict"] == word and row["limit"] == 1.10 and row["value"] == pytest.approx(ratio, rel=2e-3) and len(row["blocks"]) == 3


def test_what_no_criterion_is_about_is_said(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["speed", "--only", "no such thing"])
    assert speed.main() == 2
    assert "no criterion is about that" in capsys.readouterr().err
