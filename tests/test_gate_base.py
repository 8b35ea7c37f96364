"""The gate on a repository: what is a base, what is said of one that cannot be measured, and the real thing."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

import impls
import specs
from harness.bench import gate, interleave, trees
from harness.errors import CANNOT_TELL, FAILED, NOTHING_RAN, OK, USAGE, UserError

ROOT = Path(__file__).parents[1]
VAE, NUMPY = specs.load("vae"), impls.load("numpy")


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


def isoform(repository, *arguments):
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
_gradients = Trainable.gradients
Trainable.gradients = lambda self, batch: {name: 1.001 * value for name, value in _gradients(self, batch).items()}
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
