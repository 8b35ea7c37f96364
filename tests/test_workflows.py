"""The workflows for GitHub Actions: they can only be run there, so what they refer to is held against what there is."""

import ast
import re
import shlex
from pathlib import Path

import pytest
import yaml

from harness.cli_gate import gate

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".github" / "workflows"
FILES = sorted(FOLDER.glob("*.yml"))


def sessions() -> set[str]:
    """Of the noxfile, read without nox."""
    found = set()
    for node in ast.parse((ROOT / "noxfile.py").read_text()).body:
        for decorator in getattr(node, "decorator_list", []):
            call = decorator if isinstance(decorator, ast.Call) else None
            if ast.unparse(call.func if call else decorator) == "nox.session":
                found.add(next((word.value.value for word in call.keywords if word.arg == "name"), node.name) if call else node.name)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ALONE":
            found |= {f"tests-{name}" for name in ast.literal_eval(node.value)}
    return found


def jobs(path: Path) -> dict:
    return yaml.safe_load(path.read_text())["jobs"]


def commands(job: dict) -> list[list[str]]:
    """Words of each `run`, once for each value of the matrix."""
    lines = [step["run"] for step in job["steps"] if "run" in step]
    for name, values in job.get("strategy", {}).get("matrix", {}).items():
        lines = [line.replace(f"${{{{ matrix.{name} }}}}", value) for line in lines for value in values]
    assert not any("${{" in line for line in lines)  # what comes from a pull request must not become a part of a command
    return [shlex.split(line) for line in lines]


def problems(words: list[str]) -> list[str]:
    if words[:3] == ["python", "-m", "pip"]:
        return [] if words[3:] == ["install", "-c", "constraints.txt", "nox"] else ["pip installs something else"]
    if words[:2] != ["nox", "-s"]:
        return [f"neither pip nor nox: {words}"]
    end = words.index("--") if "--" in words else len(words)
    asked, given = words[2:end], words[end + 1 :]
    wrong = [f"no session {name}" for name in asked if name not in sessions()]
    if asked == ["gate"]:
        known = {option for parameter in gate.params for option in parameter.opts}
        wrong += [f"no option {word}" for word in given if word.startswith("--") and word not in known]
    return wrong


def test_there_are_workflows_for_tests_lint_verify_and_the_gate():
    asked = {word for path in FILES for job in jobs(path).values() for words in commands(job) if words[0] == "nox" for word in words[2:]}
    assert {"lint", "verify", "gate", "gate-selftest", "planted"} <= asked
    assert {name for name in sessions() if name.startswith("tests")} <= asked  # none is forgotten when a framework is added


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_step_calls_a_session_that_there_is(path):
    for name, job in jobs(path).items():
        for words in commands(job):
            assert not problems(words), (name, words)


@pytest.mark.parametrize("line", ["nox -s tset", "nox -s gate -- main --allow-to-tell", "isoform bench", "python -m pip install torch"])
def test_a_step_that_does_not_exist_is_found(line):
    assert problems(shlex.split(line))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_job_ends_has_few_rights_and_keeps_its_results(path):
    whole = yaml.safe_load(path.read_text())
    assert whole["permissions"] == {"contents": "read"}
    for name, job in whole["jobs"].items():
        assert job["timeout-minutes"] <= 180, name
        used = {step["uses"]: step for step in job["steps"] if "uses" in step}
        assert all(re.fullmatch(r"actions/[\w-]+@v\d+", action) for action in used)
        cached = used["actions/setup-python@v5"]["with"]
        assert cached["cache"] == "pip" and (ROOT / cached["cache-dependency-path"]).exists()
        measured = [words for words in commands(job) if words[0] == "nox" and set(words) & {"gate", "verify", "gate-selftest"}]
        if measured:
            kept = used["actions/upload-artifact@v4"]
            written = shlex.join(measured[0]) + (ROOT / "noxfile.py").read_text()
            assert kept["if"] == "always()" and kept["with"]["path"] in written
        if measured and "verify" not in measured[0]:
            assert used["actions/checkout@v4"]["with"]["fetch-depth"] == 0  # or there is no base


def test_the_page_beside_them_tells_of_each():
    page = (FOLDER / "README.md").read_text()
    assert all(path.name in page for path in FILES)
    for name in re.findall(r"nox -s ([\w-]+)", page):
        assert name in sessions() | {"NAME"}
    for option in re.findall(r"`(--[\w-]+)`", page):
        assert option in {name for parameter in gate.params for name in parameter.opts} | {"--benchmark-compare", "--benchmark-histogram"}
