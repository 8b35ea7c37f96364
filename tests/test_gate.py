"""The gate: what it measures, in which order, how it judges, and what it says of a base that cannot be measured."""

import contextlib
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

import impls
import specs
from harness.bench import gate, interleave, trees
from harness.bench.cells import cells
from harness.bench.interleave import VISITS, Block, Interleaved, Samples, Side
from harness.bench.station import Outcome
from harness.errors import CANNOT_TELL, FAILED, NOTHING_RAN, OK, USAGE, UserError

ROOT = Path(__file__).parents[1]
VAE, NUMPY = specs.load("vae"), impls.load("numpy")
CELLS = [entry.cell for entry in cells([VAE], [NUMPY], ["train", "encode"])]
RNG = np.random.default_rng(5)


# The statistics, on seconds that are made up.


def samples(ratio=1.0, spread=0.01, blocks=5, shift=0.0):
    """Blocks in which head takes so many times as long, processes differ by `spread`, and the twin by `shift` besides."""
    made = Samples()
    for number in range(blocks):
        level = {"base": 1.0, "head": ratio, "twin": 1.0 + shift}
        process = {role: math.log(value) + spread * RNG.standard_normal() for role, value in level.items()}
        drift = [3 * RNG.random() for _ in range(VISITS)]  # of the machine: all three share it
        seconds = {role: [math.exp(one + common) for common in drift] for role, one in process.items()}
        made.blocks.append(Block(number, "base", seconds, {}, [None] * VISITS, 0.0))
    return made


def word(one):
    return gate.judge({CELLS[0]: one})[CELLS[0]].word


@pytest.mark.parametrize("ratio, expected", [(1.0, "not slower"), (1.10, "slower"), (0.8, "faster"), (1.03, "not slower")])
def test_a_drift_of_the_machine_hides_nothing(ratio, expected):
    found = [word(samples(ratio, 0.006)) for _ in range(100)]
    assert found.count(expected) >= 95, found


def test_twice_no_tree_is_called_slower_than_itself():
    """In 2000 runs a false alarm may come once in a pass by chance, and never in both."""
    alarms = [word(samples(spread=0.03)) == "slower" for _ in range(2000)]
    assert sum(alarms) <= 2000 * 0.01
    assert not any(one and other for one, other in zip(alarms[::2], alarms[1::2], strict=True))


def test_what_would_not_have_shown_is_not_called_silent():
    assert word(samples(1.0, 0.001, shift=0.2)) == "cannot tell"  # the control differs from itself by more than half of what it is for
    assert word(samples(1.07, 0.03)) == "cannot tell"
    assert word(samples(1.0, blocks=1)) == "cannot tell"


def test_a_slowdown_within_twice_the_floor_is_none():
    assert word(samples(1.15, 0.001, shift=0.10)) == "cannot tell"
    assert word(samples(1.15, 0.001, shift=0.05)) == "slower"


def test_a_cell_with_more_failures_than_blocks_is_not_judged():
    one = samples(2.0)
    one.failures["base"] = [Outcome("crash:SIGKILL", "why")] * 6
    assert gate.judge({CELLS[0]: one}) == {}


# The order of a block, with stations that are made up.


class Fake:
    """Answers at once. `script`: {(root, operation): outcomes of time(), one after the other}; what is not told is ok."""

    script: dict = {}
    log: list = []
    lost: dict = {}

    def __init__(self, implementation, spec, cells, environment, seed, silence_s, root=None):
        self.root, self.cells, self.worker, self.prepared = root, cells, None, None
        Fake.log.append(("new", root.name, dict(implementation.environment)))

    def open(self):
        self.worker = object()
        return {}

    def prepare(self):
        if outcome := Fake.lost.get(self.root.name):
            lost = dict.fromkeys(self.cells, outcome)
            self.cells, self.worker = [], None
            return lost
        self.prepared = {"passed": True}
        return {}

    def time(self, cell, rounds):
        Fake.log.append(("time", id(self), self.root.name, cell.operation))
        left = Fake.script.get((self.root.name, cell.operation))
        if left and (outcome := left.pop(0)):
            return outcome
        return outcome_of()

    def close(self):
        self.worker = self.prepared = None


def outcome_of(foreign=0.0):
    quiet = {"foreign": foreign, "stolen": 0.0, "swapped": 0, "throttled": None, "foreign_gpu": None}
    return Outcome("ok", None, {"rounds_s": [0.4, 0.2, 0.3], "steps_per_round": 2, "certificate": "abc", "quiet": quiet})


@pytest.fixture
def interleaved(monkeypatch):
    monkeypatch.setattr(interleave, "Station", Fake)
    monkeypatch.setattr(interleave, "wait_for_quiet", lambda patience: 0.0)
    Fake.script, Fake.log, Fake.lost = {}, [], {}
    sides = {side: Side(Path(side), {"numpy": {"OF": side}}) for side in ("base", "head")}
    return Interleaved(sides, [VAE], [NUMPY], seed=3)


def test_three_processes_are_asked_in_turn_and_back(interleaved):
    for _ in range(8):
        interleaved.block(CELLS[:1])
    started = [entry for entry in Fake.log if entry[0] == "new"]
    assert all(environment == {"OF": root} for _, root, environment in started)  # each in the environment of its own tree
    asked = [entry[1] for entry in Fake.log if entry[0] == "time"]
    per_block = 3 * VISITS
    assert len(asked) == 8 * per_block
    for k in range(8):
        visits = [asked[k * per_block + 3 * visit : k * per_block + 3 * visit + 3] for visit in range(VISITS)]
        assert all(len(set(visit)) == 3 for visit in visits) and visits[1] == visits[0][::-1] and visits[3] == visits[2][::-1]
    blocks = interleaved.of(CELLS[0]).blocks
    assert {block.twin for block in blocks} == {"base", "head"} and [block.number for block in blocks] == list(range(8))
    assert all(block.seconds == {role: [0.15] * VISITS for role in ("base", "head", "twin")} for block in blocks)


def test_a_disturbed_visit_is_made_once_more_and_kept(interleaved):
    Fake.script["head", "train"] = [None, outcome_of(foreign=0.5)]
    interleaved.block(CELLS[:1])
    (block,) = interleaved.of(CELLS[0]).blocks
    assert len(block.seconds["base"]) == len(block.disturbed) == VISITS + 1
    assert [one for one in block.disturbed if one] == ["other processes took 50 % of the CPUs"]


def test_a_machine_that_is_never_quiet_ends_too(interleaved):
    Fake.script["head", "train"] = [outcome_of(foreign=0.5) for _ in range(100)]
    interleaved.block(CELLS[:1])
    assert len(interleaved.of(CELLS[0]).blocks[0].disturbed) == 2 * VISITS


def test_a_failure_costs_its_cell_and_is_the_sides(interleaved):
    Fake.script["head", "encode"] = [Outcome("mismatch", "x_hat is off")]
    interleaved.block(CELLS)
    by = {cell.operation: interleaved.of(cell) for cell in CELLS}
    assert len(by["train"].blocks) == 1 and not by["encode"].blocks
    assert by["encode"].final("head").reason == "x_hat is off" and by["encode"].final("base") is None


def planned(interleaved, entries=None):
    found = entries or cells([VAE], [NUMPY], ["train", "encode"])
    return gate.Plan("b" * 40, "a" * 40, [], interleaved.sides, [VAE], [NUMPY], found)


@pytest.mark.parametrize("side, code, word", [("head", FAILED, "fails"), ("base", NOTHING_RAN, "not compared")])
def test_what_computes_something_else_has_no_number(interleaved, side, code, word):
    """In one operation, in the last block: nothing that was measured before of that implementation is shown."""
    Fake.script[side, "encode"] = [None] * 9 + [Outcome("mismatch", "x_hat is off")]
    rows, _ = gate.gate(planned(interleaved), blocks=2)
    assert [row.word for row in rows] == [word, word] and gate.exit_code(rows) == code
    assert all(row.reason == f"{side}: mismatch: x_hat is off" and row.first is None and row.samples == () for row in rows)


def test_what_dies_in_head_alone_is_a_failure(interleaved):
    Fake.lost["head"] = Outcome("crash:SIGSEGV", "last words")
    rows, _ = gate.gate(planned(interleaved), blocks=2)
    assert {row.word for row in rows} == {"fails"} and rows[0].reason == "head: crash:SIGSEGV: last words"
    assert sum(entry[0] == "new" for entry in Fake.log) == 2 * 3  # tried again in the next block, and no oftener


def test_only_suspects_are_measured_again_and_both_must_agree(interleaved, monkeypatch):
    passes = []

    def judge(found):
        if not passes or passes[-1] != list(found):
            passes.append(list(found))
        words = {"train": "slower", "encode": "not slower"} if len(found) == 2 else {"train": second}
        return {cell: gate.Judged(words[cell.operation], None, None, 0.01, 0.001) for cell in found}

    monkeypatch.setattr(gate, "judge", judge)
    ends = (("slower", FAILED, "slower"), ("not slower", OK, "not slower again"), ("cannot tell", CANNOT_TELL, "cannot tell"))
    for second, code, word in ends:
        passes.clear()
        rows, _ = gate.gate(planned(interleaved), blocks=2)
        assert {row.cell.operation: row.word for row in rows} == {"train": word, "encode": "not slower"} and gate.exit_code(rows) == code
        assert [[cell.operation for cell in one] for one in passes] == [["train", "encode"], ["train"]]


def test_blocks_are_added_for_what_cannot_be_told_and_a_budget_ends_them(interleaved):
    interleaved_events = []
    rows, _ = gate.gate(planned(interleaved), blocks=2, on_event=interleaved_events.append)
    assert {len(row.samples[0].blocks) for row in rows} == {2}  # no spread at all: told at once
    rows, _ = gate.gate(planned(interleaved), blocks=2, budget_s=0.0)
    assert {row.word for row in rows} == {"cannot tell"} and gate.exit_code(rows) == CANNOT_TELL


def test_exit_codes():
    row = lambda word: gate.Row(CELLS[0], word, None)
    for words, code in (
        (["not slower", "faster", "not slower again"], OK),
        (["not slower", "not compared"], OK),
        (["not compared"], NOTHING_RAN),
        (["not slower", "cannot tell"], CANNOT_TELL),
        (["cannot tell", "slower"], FAILED),
        (["not compared", "fails"], FAILED),
    ):
        assert gate.exit_code([row(word) for word in words]) == code


# Trees, from a repository that is made up.


def git(folder, *arguments):
    who = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def commit(folder, message):
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", message)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A repository of the present code; its first commit is from before there was any."""
    folder = tmp_path_factory.mktemp("origin")
    git(folder, "init", "-q", "-b", "main")
    (folder / "README.md").write_text("once upon a time\n")
    commit(folder, "before the layout")
    for part in ("harness", "impls", "specs"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    commit(folder, "the present code")
    return folder


@pytest.fixture
def repository(origin, tmp_path):
    folder = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(origin), str(folder))
    return folder


def test_a_tree_is_the_commits_implementations_under_the_present_harness(repository, tmp_path):
    (repository / "impls" / "numpy" / "vae.py").write_text("# new\n")
    (repository / "harness" / "errors.py").write_text("# new\n")
    (repository / "impls" / "numpy" / "untracked.py").write_text("# new\n")
    base = trees.of_revision(trees.commit("main", repository), tmp_path / "base", repository)
    head = trees.of_working_tree(tmp_path / "head", repository)
    assert (base / "impls" / "numpy" / "vae.py").read_text() != "# new\n" and not (base / "impls" / "numpy" / "untracked.py").exists()
    assert (head / "impls" / "numpy" / "vae.py").read_text() == (head / "impls" / "numpy" / "untracked.py").read_text() == "# new\n"
    assert (base / "harness" / "errors.py").read_text() == (head / "harness" / "errors.py").read_text() == "# new\n"
    assert {line[3:] for line in trees.changed(repository)} == {"impls/numpy/vae.py", "impls/numpy/untracked.py", "harness/errors.py"}
    assert git(repository, "worktree", "list").count("\n") == 0  # nothing is left in the repository


def test_a_tree_speaks_for_itself(repository, tmp_path):
    spec = repository / "specs" / "vae.toml"
    spec.write_text(spec.read_text().replace("latent = 8", "latent = 7"))
    (repository / "specs" / "ae.toml").unlink()
    head = trees.of_working_tree(tmp_path / "head", repository)
    facts = trees.facts(head, ["vae", "pca", "ae"])
    assert facts.specs == {"vae": VAE.replace(architecture={"latent": 7}).hash, "pca": specs.load("pca").hash, "ae": None}
    assert set(facts.environments) >= {name for name, one in impls.available().items() if one.folder}


def isoform(repository, *arguments, out=None):
    command = [sys.executable, "-m", "harness.cli", "gate", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(repository), "COLUMNS": "200"}
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, timeout=280)
    assert "Traceback" not in done.stderr, done.stderr
    return done


ONLY_NUMPY = ("--impl", "numpy", "--blocks", "2")


@pytest.mark.parametrize(
    "revision, code, message",
    [
        ("no-such-branch", USAGE, "there is no revision 'no-such-branch'"),
        ("--all", USAGE, "No such option"),
        ("HEAD:README.md", USAGE, "there is no revision"),
        ("HEAD~1", NOTHING_RAN, "has nothing that this harness could measure"),
    ],
)
def test_a_base_that_cannot_be_is_a_message(repository, revision, code, message):
    done = isoform(repository, revision)
    assert done.returncode == code and message in done.stderr


def test_a_shallow_clone_is_told_how_to_go_deeper(origin, tmp_path):
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{origin}", "shallow")
    done = isoform(tmp_path / "shallow", "HEAD~1")
    assert done.returncode == USAGE and "fetch-depth: 0" in done.stderr


def test_code_outside_of_a_repository_has_no_base(repository):
    shutil.rmtree(repository / ".git")
    done = isoform(repository, "HEAD")
    assert done.returncode == USAGE and "is not a clone of isoform's repository" in done.stderr


def test_without_git_there_is_a_message(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="git is not installed"):
        trees.commit("HEAD")


def test_a_base_whose_code_does_not_run_is_a_message(repository):
    (repository / "specs" / "__init__.py").write_text("raise ImportError('broken then')\n")
    sha = commit(repository, "broken")
    git(repository, "checkout", "-q", "main~1", "--", "specs")
    done = isoform(repository, sha)
    assert done.returncode == NOTHING_RAN and "broken then" in done.stderr


def test_a_base_with_another_spec_or_without_the_implementation_is_not_compared(repository):
    spec = repository / "specs" / "vae.toml"
    spec.write_text(spec.read_text().replace("latent = 8", "latent = 7"))
    shutil.rmtree(repository / "impls" / "numpy")
    sha = commit(repository, "another spec")
    git(repository, "checkout", "-q", "main~1", "--", "specs", "impls")
    done = isoform(repository, sha, "--spec", "vae", "--spec", "ae", *ONLY_NUMPY)
    assert done.returncode == NOTHING_RAN and "no cell in common" in done.stderr
    assert (
        "numpy, vae: the base has another spec of this name" in done.stderr
        and "numpy, ae: the base has no such implementation" in done.stderr
    )


def test_a_dry_run_says_what_and_how_long_and_leaves_nothing(repository):
    before = set(Path(tempfile.gettempdir()).glob("isoform-*"))
    model = repository / "impls" / "numpy" / "vae.py"
    model.write_text(model.read_text() + "# changed\n")
    done = isoform(repository, "main", "--dry-run", "--budget", "7", *ONLY_NUMPY)
    assert done.returncode == OK and "7 at most" in done.stdout and "with 1 files changed since" in done.stdout and "numpy" in done.stdout
    assert set(Path(tempfile.gettempdir()).glob("isoform-*")) <= before and git(repository, "status", "--short").endswith("vae.py")


def test_a_folder_that_cannot_be_written_to_is_told_before_anything_is_measured(repository, tmp_path):
    (tmp_path / "file").touch()
    start = time.monotonic()
    done = isoform(repository, "main", "--out", tmp_path / "file" / "out")
    assert done.returncode == USAGE and "cannot write to the results folder" in done.stderr and time.monotonic() - start < 20


@pytest.mark.parametrize(
    "arguments, message",
    [(["--operation", "fit"], "has an operation fit"), (["--impl", "numpie"], "did you mean 'numpy'")],
)
def test_what_does_not_exist_is_said(repository, arguments, message):
    done = isoform(repository, "main", *arguments)
    assert done.returncode == USAGE and message in done.stderr


# The real thing.


def test_ctrl_c_leaves_no_process_and_no_folder(repository, tmp_path):
    places = tmp_path / "tmp"
    places.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "harness.cli", "gate", "main", *ONLY_NUMPY],
        cwd=repository, env={**os.environ, "PYTHONPATH": str(repository), "TMPDIR": str(places)}, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        for _ in range(600):
            if len(alive := workers(process.pid)) == 3:
                break
            time.sleep(0.05)
        assert len(alive) == 3 and list(places.glob("isoform-*"))
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and "interrupted" in said and "Traceback" not in said
    assert not psutil.wait_procs(alive, timeout=5)[1] and not list(places.glob("isoform-*"))


def workers(parent):
    found = []
    for one in psutil.Process(parent).children():
        with contextlib.suppress(psutil.Error):  # it has just ended
            if "harness.worker" in one.cmdline():
                found.append(one)
    return found


SLOW = """
_timed_train = Trainable.timed_train


def timed_train(self, batch):
    step = _timed_train(self, batch)
    return lambda: [np.exp(np.zeros(2_000_000, np.float32)), step()][1]


Trainable.timed_train = timed_train
"""
WRONG = """
_collected = Trainable.collected
Trainable.collected = lambda self: {name: 1.001 * value for name, value in _collected(self).items()}
"""


@pytest.fixture
def gated(monkeypatch, repository):
    """The gate on a repository, with fewer visits, and no waiting for a machine that is busy with tests."""
    monkeypatch.setattr(interleave, "VISITS", 2)
    monkeypatch.setattr(interleave, "PATIENCE_S", 0.0)
    chosen = {"specs": [VAE], "implementations": [NUMPY], "operations": ["train"], "dtype": "float32", "device": "cpu"}
    return lambda revision: gate.run(revision, command="isoform gate", repository=repository, blocks=3, chosen=chosen)


def append(repository, text):
    backend = repository / "impls" / "numpy" / "backend.py"
    backend.write_text(backend.read_text() + text)


def test_a_slow_working_tree_is_found_twice_and_a_slow_base_is_not_held_against_it(repository, gated):
    append(repository, SLOW)
    found = gated("main")
    (row,) = found["rows"]
    assert row["verdict"] == "slower" and row["first"]["ratio"]["low"] > 1.5 and row["again"]["ratio"]["low"] > 1.5, row
    assert len(row["blocks"]) == 2 and all(set(block["certificates"]) == {"base", "head", "twin"} for one in row["blocks"] for block in one)
    assert found["exit_code"] == FAILED and found["head"]["changed"] == [" M impls/numpy/backend.py"]
    assert found["base"] == {"revision": "main", "commit": git(repository, "rev-parse", "main")}
    slow = commit(repository, "slow")
    git(repository, "checkout", "-q", "main~1", "--", "impls")
    found = gated(slow)
    (row,) = found["rows"]
    assert found["exit_code"] in (OK, CANNOT_TELL) and row["first"]["ratio"]["high"] < 1 / 1.5 and row["again"] is None


def test_a_wrong_working_tree_fails_without_a_number_and_a_wrong_base_is_not_compared(repository, gated):
    append(repository, WRONG)
    found = gated("main")
    (row,) = found["rows"]
    assert found["exit_code"] == FAILED and (row["verdict"], row["first"], row["blocks"]) == ("fails", None, [])
    assert re.match(r"head: mismatch: .*gradient", row["reason"])
    wrong = commit(repository, "wrong")
    git(repository, "checkout", "-q", "main~1", "--", "impls")
    found = gated(wrong)
    (row,) = found["rows"]
    assert found["exit_code"] == NOTHING_RAN and (row["verdict"], row["first"], row["blocks"]) == ("not compared", None, [])
    assert row["reason"].startswith("base: mismatch: ")


def test_cannot_tell_may_be_allowed(repository, monkeypatch):
    """No budget, no block: nothing can be told."""
    assert isoform(repository, "main", *ONLY_NUMPY, "--budget", "0").returncode == CANNOT_TELL
    done = isoform(repository, "main", *ONLY_NUMPY, "--budget", "0", "--allow-cannot-tell")
    assert done.returncode == OK and "exit code 0 in place of 4" in done.stderr and "::" not in done.stderr
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert "\n::warning " in isoform(repository, "main", *ONLY_NUMPY, "--budget", "0", "--allow-cannot-tell").stderr
