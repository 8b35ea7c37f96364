"""The trees that a gate measures: the working tree (head) and a revision of it (base), each with the same harness, in a folder apart.

Both are copies: what is edited meanwhile is not measured, and both begin without Python's caches.
"""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from harness.errors import NOTHING_RAN, UserError
from harness.processes import ROOT

MEASURED = ("impls", "specs")  # from each revision; the harness, with which both are measured, is the present one
IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc")


@dataclass(frozen=True)
class Facts:
    """What a tree says of itself: {spec: hash}, None where it has none of that name; {implementation: its environment}."""

    specs: dict[str, str | None]
    environments: dict[str, dict[str, str]]


def commit(revision: str, repository: Path = ROOT) -> str:
    """The commit that a revision means. Raises UserError where there is no such revision, or no repository."""
    inside = _git(repository, "rev-parse", "--show-prefix")  # nothing, at the top of a work tree
    if inside.returncode or inside.stdout.strip():
        raise UserError(
            f"{repository} is not a clone of isoform's repository, so there is no base to measure\n"
            f"  expected: isoform run from a clone: python -m pip install -e . there\n"
            f"  got:      {inside.stderr.decode(errors='replace').strip() or 'a folder within another repository'}"
        )
    found = _git(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if found.returncode:
        shallow = _git(repository, "rev-parse", "--is-shallow-repository").stdout.strip() == b"true"
        likely = "the clone is shallow and does not reach so far back" if shallow else "a misspelt name, or a branch that was not fetched"
        mend = "git fetch --unshallow (actions/checkout: fetch-depth: 0)" if shallow else "git fetch, then a name of `git log --all`"
        raise UserError(
            f"there is no revision '{revision}' in {repository}\n"
            f"  expected: what names a commit: a hash, a tag, a branch, HEAD~1\n"
            f"  likely:   {likely}\n"
            f"  mend:     {mend}"
        )
    return found.stdout.decode().strip()


def changed(repository: Path = ROOT) -> list[str]:
    """Files of what is measured that differ from HEAD, or that git does not know."""
    return (
        _git(repository, "status", "--porcelain", "--no-renames", "--", *MEASURED, "harness").stdout.decode(errors="replace").splitlines()
    )


def of_revision(sha: str, folder: Path, repository: Path = ROOT) -> Path:
    """The tree of a commit, taken from git's store: nothing is checked out, and nothing is left behind in the repository."""
    archive = _git(repository, "archive", "--format=tar", sha, "--", *MEASURED)
    if archive.returncode:
        raise UserError(
            f"the revision {sha[:12]} has nothing that this harness could measure\n"
            f"  expected: the folders {' and '.join(MEASURED)}\n"
            f"  got:      {archive.stderr.decode(errors='replace').strip()}\n"
            f"  likely:   it is from before the present layout; take a later one for the base",
            NOTHING_RAN,
        )
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as content:
        content.extractall(folder, filter="data")
    return _with_harness(folder, repository)


def of_working_tree(folder: Path, repository: Path = ROOT) -> Path:
    for part in MEASURED:
        shutil.copytree(repository / part, folder / part, ignore=IGNORED)
    return _with_harness(folder, repository)


def _with_harness(folder: Path, repository: Path) -> Path:
    shutil.copytree(repository / "harness", folder / "harness", ignore=IGNORED)
    return folder


def facts(tree: Path, specs: list[str]) -> Facts:
    """What the tree's own code says of these specs (names, or paths of TOML files) and of its implementations. Imports no framework.

    Raises UserError where that code does not run.
    """
    done = subprocess.run(
        [sys.executable, "-m", "harness.bench.trees", *specs],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(tree), os.environ.get("PYTHONPATH", "")]))},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise UserError(
            f"the {tree.name}'s own specs and implementations cannot be listed\n"
            f"  got:      {(done.stderr.strip().splitlines() or ['nothing'])[-1]}\n"
            f"  likely:   it is from before the present layout, or broken; take another revision for the base",
            NOTHING_RAN,
        )
    return Facts(**json.loads(done.stdout))


def tell(names: list[str]) -> dict:
    """Within the tree's process: Facts, as JSON."""
    import impls
    import specs

    hashes: dict[str, str | None] = {}
    for name in names:
        try:
            hashes[name] = specs.load(name).hash
        except specs.SpecError:
            hashes[name] = None
    return {"specs": hashes, "environments": {name: dict(one.environment) for name, one in impls.available().items()}}


def _git(repository: Path, *arguments: str) -> subprocess.CompletedProcess:
    try:
        return subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True)
    except FileNotFoundError:
        raise UserError("git is not installed, and the base is a revision in it\n  mend: install git, then once more") from None


if __name__ == "__main__":
    print(json.dumps(tell(sys.argv[1:])))
