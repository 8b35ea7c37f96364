"""Which frameworks the tests expect: all of them, unless ISOFORM_FRAMEWORKS names those that are installed.

A framework that is expected and missing ends the run with an error. A test that needs one that is not expected is deselected:
it either says so (`@pytest.mark.needs("jax")`) or is parametrised with an `implementation` by name. No test is skipped.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

import impls

ROOT = Path(__file__).parents[1]
PACKAGES = {  # framework -> the packages that it is imported from
    "numpy": {"numpy"},
    "torch": {"torch"},
    "jax": {"jax", "flax", "optax"},
    "keras": {"keras"},
    "tensorflow": {"tensorflow"},
}

settings.register_profile("isoform", deadline=None, derandomize="CI" in os.environ)  # a slow machine is no failure
settings.load_profile("isoform")


def expected_frameworks() -> list[str]:
    given = os.environ.get("ISOFORM_FRAMEWORKS", "")
    names = [name.strip() for name in given.split(",")] if given else list(PACKAGES)
    if unknown := sorted(set(names) - set(PACKAGES)):
        raise pytest.UsageError(f"ISOFORM_FRAMEWORKS={given}: unknown {unknown}; known are {', '.join(PACKAGES)}")
    return names


def expected_implementations() -> set[str]:
    """Names of the shipped implementations that the expected frameworks can run."""
    packages = set().union(*(PACKAGES[name] for name in expected_frameworks()))
    return {name for name, one in impls.available().items() if one.folder and set(one.requires) <= packages}


def pytest_configure() -> None:
    for framework in expected_frameworks():
        if missing := sorted(name for name in PACKAGES[framework] if find_spec(name) is None):
            raise pytest.UsageError(
                f"the tests expect {framework}, but {', '.join(missing)} is not installed\n"
                f"  install it:        python -m pip install -c constraints.txt -e '.[all,test,equinox]'\n"
                f"  or test without:   ISOFORM_FRAMEWORKS=numpy python -m pytest    (a comma between several)"
            )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    frameworks, unexpected = set(expected_frameworks()), set(impls.available()) - expected_implementations()

    def wanted(item: pytest.Item) -> bool:
        needed = {name for marker in item.iter_markers("needs") for name in marker.args}
        implementation = item.callspec.params.get("implementation") if hasattr(item, "callspec") else None
        return needed <= frameworks and implementation not in unexpected

    if left_out := [item for item in items if not wanted(item)]:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if wanted(item)]


@pytest.fixture
def python():
    """python(code, *folders, NAME=value): what the code prints, run in a process of its own with the folders first on its path."""

    def run(code: str, *folders: Path | str, **environment: str) -> str:
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*folders, ROOT))), **environment}
        done = subprocess.run([sys.executable, "-P", "-c", code], env=variables, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run
