"""Imports run one way: harness -> impls -> specs; and only a worker's process imports a framework."""

import ast
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FRAMEWORKS = {"torch", "jax", "jaxlib", "flax", "optax", "keras", "tensorflow"}
OWN = {  # what a file in impls/<framework>/ may import besides the standard library, NumPy, jaxtyping, specs and its own folder
    "numpy": {"scipy", "threadpoolctl"},
    "torch": {"torch"},
    "jax": {"jax", "jaxlib", "flax", "optax"},
    "keras": {"keras"},
}
BACKENDS = {"keras": {"jax", "torch", "tensorflow"}}  # Keras runs on one of these; only its backend and instrument may know which


def imported(root: Path, parts: tuple[str, ...]) -> Iterator[str]:
    """Dotted names that the file imports anywhere in it, and names of modules in impls that stand in a string."""
    for node in ast.walk(ast.parse(root.joinpath(*parts).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = parts[: len(parts) - node.level] if node.level else ()
            yield from (".".join([*package, *filter(None, [node.module]), alias.name]) for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and re.match(r"(impls|harness)\.\w+", node.value):
            yield node.value


def begins(name: str, prefixes: set[str]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def allowed(parts: tuple[str, ...]) -> set[str] | None:
    """What the file at impls/torch/vae.py, say, may import besides the standard library; None: anything but frameworks."""
    if parts[0] == "specs":
        return {"specs", "numpy", "pydantic"}
    if parts[0] == "impls" and len(parts) == 2:
        return {"specs", "impls", "numpy"}
    if parts[0] == "impls":
        framework = parts[1]
        rooms = BACKENDS.get(framework, set()) if parts[2] in ("backend.py", "engines.py", "instrument.py") else set()
        own = OWN.get(framework, {framework}) | rooms
        return {"specs", "impls.errors", "impls.contract", "impls.instrument", f"impls.{framework}", "numpy", "jaxtyping", *own}
    return None


def violations(root: Path) -> list[str]:
    shipped = {f"impls.{path.parent.name}" for path in root.glob("impls/*/framework.toml")}
    found = []
    for path in sorted(file for part in ("specs", "impls", "harness") for file in (root / part).rglob("*.py")):
        parts = path.relative_to(root).parts
        may = allowed(parts)
        for name in imported(root, parts):
            if may is None:
                bad = begins(name, FRAMEWORKS | shipped)
            else:
                bad = not begins(name, may | set(sys.stdlib_module_names)) or (len(parts) == 2 and begins(name, shipped))
            if bad:
                found.append(f"{'/'.join(parts)} imports {name}")
    return found


def copy(to: Path) -> Path:
    for part in ("specs", "impls", "harness"):
        shutil.copytree(ROOT / part, to / part, ignore=shutil.ignore_patterns("__pycache__"))
    return to


def test_arrows_run_one_way():
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("specs/noise.py", "import impls"),
        ("specs/schema.py", "from harness import errors"),
        ("specs/schema.py", "import torch"),
        ("impls/surface.py", "from harness.errors import UserError"),
        ("impls/surface.py", "import impls.numpy.vae"),
        ("impls/torch/vae.py", "import jax.numpy as jnp"),
        ("impls/torch/vae.py", "from impls.numpy import vae"),
        ("impls/torch/backend.py", "def late():\n    from impls.jax.backend import build"),
        ("impls/jax/ae.py", "from ..numpy.ae import AE as Other"),
        ("impls/jax/backend.py", "NAME = 'harness.worker'"),
        ("impls/keras/vae.py", "import tensorflow as tf"),
        ("harness/processes.py", "import torch"),
        ("harness/worker.py", "def late():\n    from impls.torch import vae"),
        ("harness/errors.py", "from impls import jax"),
    ],
)
def test_a_planted_import_is_found(tmp_path, file, line):
    root = copy(tmp_path)
    path = root / file
    path.write_text(f"{path.read_text()}\n\n{line}\n")
    found = violations(root)
    assert len(found) == 1 and found[0].startswith(f"{file} imports "), found


def test_the_core_depends_on_what_it_imports_and_on_nothing_else():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.match(r"[\w-]+", line)[0].replace("scikit-learn", "sklearn") for line in project["dependencies"]}
    core = [path.relative_to(ROOT).parts for part in ("specs", "harness", "impls/numpy") for path in (ROOT / part).rglob("*.py")]
    used = {name.split(".")[0] for parts in core for name in imported(ROOT, parts)}
    tests = {"pytest", "pytest_benchmark"}  # of a replay, which is for those who have them: the extra "test"
    assert used - set(sys.stdlib_module_names) - {"specs", "impls", "harness"} - tests == declared


LOADED = f"""
import importlib, pkgutil, sys
import harness
names = [module.name for module in pkgutil.walk_packages(harness.__path__, "harness.")]
for name in names:
    importlib.import_module(name)
loaded = sorted(name for name in sys.modules if name in {sorted(FRAMEWORKS)} or name.startswith("impls.") and name.count(".") > 1)
print(len(names), *loaded)
"""


def test_importing_the_harness_imports_no_framework(python):
    count, *loaded = python(LOADED).split()
    assert int(count) >= len(list((ROOT / "harness").glob("*.py"))) - 1
    assert loaded == []


def test_a_framework_imported_by_the_harness_is_found(python, tmp_path):
    root = copy(tmp_path)
    (root / "optax.py").touch()  # a stand-in, so that this holds where no framework is installed
    with open(root / "harness" / "errors.py", "a") as file:
        file.write('\n__import__("optax")\n')
    assert python(LOADED, root).split()[1:] == ["optax"]


@pytest.mark.parametrize("command", [["list"], ["verify", "--impl", "numpy", "--spec", "pca", "--level", "quick", "--out", "{folder}"]])
def test_a_command_leaves_the_frameworks_to_its_workers(python, tmp_path, command):
    asked = [word.format(folder=tmp_path / "results") for word in command]
    run = f"from harness.cli import main\ntry: main({asked})\nexcept SystemExit as end: assert end.code == 0, end.code\n"
    assert python(run + LOADED).splitlines()[-1].split()[1:] == []
