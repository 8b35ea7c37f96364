"""The measurement of the implementations' own speed: the bare codes compute what ours do, and a criterion can be missed."""

import json
import shlex
import subprocess
import sys
from statistics import geometric_mean

import numpy as np
import pytest

import impls
from harness.bench.statistics import Estimate, paired
from harness.processes import cpus
from harness.verify.certificate import code_hash
from tests.speed import __main__ as speed
from tests.speed import measure, page, profiles
from tests.speed.criteria import CRITERIA, IMPLEMENTATIONS, KINDS, judge

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
    ratios = []
    for _ in range(4):  # a busy machine parts them now and then, a wrong measurement always
        found = measure.harness("numpy", "vae", 0)
        assert set(found) == {"harness:numpy", "numpy"}
        ratios.append(found["harness:numpy"] / found["numpy"])
        if 0.9 < ratios[-1] < 1.1:
            return
    pytest.fail(f"bench over the loop by hand: {ratios}")


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


def test_a_row_tells_its_code_and_a_command_that_can_be_given_again(monkeypatch, tmp_path):
    path, words = tmp_path / "a folder" / "speed.json", ["speed", "--only", "vae keras-jax / jax", "--blocks", "2", "--out"]
    path.parent.mkdir()
    monkeypatch.setattr(measure, "pair", lambda names, which, steps, seed: {names[0]: 1.0 + seed / 1000, names[1]: 1.0})
    monkeypatch.setattr(sys, "argv", [*words, str(path)])
    monkeypatch.setattr(speed, "commit", lambda: "abc1234+")
    speed.main()
    found = json.loads(path.read_text())
    (row,) = found["criteria"]
    assert shlex.split(row["command"])[3:] == [*words[1:], str(path)] and row["commit"] == "abc1234+"
    assert row["code"] == {name: code_hash(impls.load(name)) for name in ("keras-jax", "jax")}
    told = f"| abc1234+, keras-jax {row['code']['keras-jax'][:8]}, jax {row['code']['jax'][:8]} |"
    assert told in path.with_suffix(".md").read_text() and "older code" not in path.with_suffix(".md").read_text()
    old = {name: value for name, value in row.items() if name not in ("commit", "code")} | {"criterion": "torch / bare:torch"}
    assert "| older code |" in page.line(old) and "| no commit |" in page.line(row | {"commit": None, "code": {}})
    path.write_text(json.dumps(found | {"criteria": [old]}))
    speed.main()
    assert [("commit" in row) for row in json.loads(path.read_text())["criteria"]] == [True, False]  # rows keep what they have


def test_the_commit_is_that_of_the_sources(monkeypatch, tmp_path):
    git = lambda *words: subprocess.run(["git", *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()
    monkeypatch.setattr(speed, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert speed.commit() is None
    git("init", "-q")
    assert speed.commit() is None  # nothing committed yet
    (tmp_path / "impls").mkdir()
    (tmp_path / "impls" / "one.py").write_text("")
    git("add", ".")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "first")
    assert speed.commit() == git("rev-parse", "--short", "HEAD")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "speed.json").write_text("")
    assert speed.commit() == git("rev-parse", "--short", "HEAD")  # what is measured is not what was
    (tmp_path / "impls" / "two.py").write_text("")
    assert speed.commit() == git("rev-parse", "--short", "HEAD") + "+"
    monkeypatch.setenv("PATH", "")
    assert speed.commit() is None


def rows_of(kinds: list[str]) -> dict:
    made = [next(one for one in CRITERIA if one.kind == kind) for kind in kinds]
    blocks = [{one.new: 2.0 + k / 100, one.base or "": 1.0} for one in made for k in range(2)]
    rows = [speed.row(one, interval(1.9, 2.1), blocks[2 * k : 2 * k + 2]) for k, one in enumerate(made)]
    return {"machine": {"cpu": "x", "cores": 2}, "rounds": 12, "criteria": rows, "profiles": {}}


def test_the_page_says_what_a_block_of_each_kind_is_and_what_each_verdict_means():
    text = page.markdown(rows_of(list(KINDS)), {})
    assert set(page.HOW) == set(KINDS) and {one.kind for one in CRITERIA} == set(KINDS)
    for kind, said in (("pair", "12 rounds"), ("harness", f"{measure.TURNS} turns"), ("worker", f"{measure.WORKER_TURNS} turns")):
        assert said in next(line for line in text.splitlines() if line.startswith(f"- `{kind}`: "))
    assert all(f"*{word}*: " in text for word in ("met", "missed", "cannot tell"))
    assert "- `worker`" not in page.markdown(rows_of(["pair"]), {})


def test_shares_that_overlap_are_in_lists_of_their_own():
    found = rows_of(["pair"])
    name = f"vae {found['criteria'][0]['new']}"
    whole = {"by": "function", "what": "fit", "share": 0.9, "calls_a_step": 1.0}
    part = {"by": "part", "what": "product", "share": 0.8, "calls_a_step": 1.0}
    found["profiles"] = {name: [whole, part], "vae another": [whole]}
    text = page.markdown(found, {})
    assert "- function: `fit` 90.0% (1)\n- part: `product` 80.0% (1)" in text and "vae another" not in text
    found["profiles"] = {name: [{key: value for key, value in one.items() if key != "by"} for one in (whole, part)]}
    assert "- older code, not told apart: `fit` 90.0% (1); `product` 80.0% (1)" in page.markdown(found, {})


def test_a_profile_says_by_which_of_its_countings(monkeypatch):
    from tests.speed.contestants import spec_of

    small = spec_of("pca").replace(data={"shape": [5, 4], "train": 300}, architecture={"latent": 3})
    monkeypatch.setattr(profiles, "spec_of", lambda which: small)
    monkeypatch.setattr(profiles, "rows", lambda spec: np.random.default_rng(0).random((300, 20)))
    assert {one["by"] for one in profiles.fit_parts("numpy", "pca", 1.0)} == {"part"}
    assert {one["by"] for one in profiles.python_functions(lambda: sorted([1]), 1)} == {"function"}


@pytest.mark.parametrize("kind", KINDS)
def test_help_names_every_kind(monkeypatch, capsys, kind):
    monkeypatch.setattr(sys, "argv", ["speed", "--help"])
    with pytest.raises(SystemExit):
        speed.main()
    assert kind in capsys.readouterr().out.split("name or kind (")[1].split(")")[0]


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
