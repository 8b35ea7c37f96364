"""The kill matrix's own tests: the tool can say "survived", and a sample of planted faults is caught, some of them new each time."""

import ast
import fnmatch
import json
import queue
import random
import subprocess
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

import impls
from harness.processes import cpus
from tests.mutants.__main__ import ENOUGH, FILES, Matrix, chosen, examine, judged, plant
from tests.mutants.mutate import Mutant, mutants

ROOT = Path(__file__).parents[1]
SAMPLE, FRESH = 8, 3  # mutants of each framework: always the same ones, and others in each run


def killed_by(file: str, source: str) -> list[list]:
    """The checks that fail when `source` stands in for a file of the NumPy implementation."""
    free: queue.Queue = queue.Queue()
    free.put(cpus()[0])
    rows: list[dict] = []
    examine("numpy", [Mutant(file, 0, "", "test", "", "", lambda: source)], free, Matrix(None, 0), rows.append)
    return rows[0]["killed_by"]


@pytest.mark.parametrize("path", ["numpy/layers.py", "torch/vae.py", "jax/vae.py", "keras/adam.py"])
def test_every_mutant_is_python_and_differs_from_the_source(path):
    original, found = ast.unparse(ast.parse((ROOT / "impls" / path).read_text())), list(mutants(ROOT / "impls" / path))
    assert len(found) > 20 and all(compile(one.source, path, "exec") for one in found)
    assert all(one.source != original and one.before != one.after for one in found)


def test_docstrings_messages_and_annotations_are_left_alone(tmp_path):
    path = tmp_path / "some.py"
    path.write_text('"""Sum of 1 + 1."""\nimport numpy as np\n\ndef f(x: "3") -> "4":\n    """5"""\n    raise ValueError(f"{x + 6}")\n')
    assert list(mutants(path)) == []


@pytest.mark.parametrize("file", ["vae.py", "layers.py"])
def test_an_unchanged_implementation_survives(file):
    """Were it "killed", every mutant would be, and the matrix would mean nothing."""
    source = (ROOT / "impls" / "numpy" / file).read_text(encoding="utf-8")
    assert killed_by(file, source) == []


def test_a_fault_is_killed_by_two_checks_and_named():
    source = (ROOT / "impls" / "numpy" / "vae.py").read_text(encoding="utf-8")
    changed = source.replace("mu + np.exp(0.5 * logvar) * eps", "mu + np.exp(logvar) * eps")
    assert changed != source
    assert [number for number, *_ in killed_by("vae.py", changed)] == [2, 3]


def test_a_verdict_needs_two_checks_or_a_listed_reason():
    row = {"implementation": "numpy", "mutant": "adam.py:7 operator: a + b -> a - b", "within": "", "killed_by": [[2, "", "", ""]]}
    assert judged([row])[0]["verdict"] == "survived"
    assert judged([{**row, "killed_by": [[2, "", "", ""], [3, "", "", ""]]}])[0]["verdict"] == "killed"
    same = {**row, "mutant": "backend.py:99 swapped pair: ('w', 'b') -> ('b', 'w')", "within": "Trainable.__init__"}
    assert judged([{**same, "killed_by": []}])[0]["verdict"] == "equivalent"
    assert judged([same])[0]["verdict"] == "killed by one"
    assert judged([{**same, "within": "Trainable.train"}])[0]["verdict"] == "survived"  # the same words elsewhere are another fault
    said = {**row, "killed_by": [[2, "float64", "vae", 'File "/home/me/isoform/impls/keras/vae.py", line 3: loss/term and a / b']]}
    assert judged([said])[0]["killed_by"][0][3] == 'File "vae.py", line 3: loss/term and a / b'  # no path of a machine in a result


@pytest.mark.parametrize("implementation", ["numpy", "torch"])
@pytest.mark.parametrize("seed", [0, random.SystemRandom().randrange(2**32)], ids=["same", "fresh"])
def test_planted_faults_are_caught(implementation, seed):
    rows = plant((implementation,), SAMPLE if seed == 0 else FRESH, seed, jobs=1)
    assert len(rows) == (SAMPLE if seed == 0 else FRESH)
    assert [row for row in rows if row["verdict"] == "survived"] == [], f"seed {seed}"


def test_a_run_that_was_cut_off_goes_on_where_it_was(tmp_path, monkeypatch):
    path, asked = tmp_path / "mutants.json", []
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: Child(asked))
    first = plant(("numpy",), 2, 0, 1, path)
    again = plant(("numpy",), 4, 0, 1, path)
    assert len(asked) == 4 and len(again) == 4 and [row["id"] for row in again if row["id"] in {row["id"] for row in first}]
    assert {row["id"] for row in json.loads(path.read_text())["rows"]} == {row["id"] for row in again}
    monkeypatch.setattr("tests.mutants.__main__.code_hash", lambda implementation: "other code")
    plant(("numpy",), 4, 0, 1, path)
    assert len(asked) == 8 and {row["code"] for row in json.loads(path.read_text())["rows"]} == {"other code"}


class Child:
    """A child process that kills everything it is asked about."""

    def __init__(self, asked: list):
        self.stdin = SimpleNamespace(write=asked.append, flush=lambda: None, close=lambda: None)
        self.stdout = SimpleNamespace(readline=lambda: json.dumps({"killed_by": [[2, "", "", ""], [3, "", "", ""]], "seconds": 0.0}))

    def wait(self) -> None:
        pass


def test_every_listed_mutant_is_still_there():
    """A reason for what is not in the source any more excuses nothing, and one that has moved excuses too little."""
    found = set()
    for one in impls.available().values():
        for file in FILES if one.folder else ():
            if (path := ROOT / "impls" / one.folder / file).exists():
                found |= {(one.name, f"{m.file} {m.kind}: {m.before} -> {m.after}", m.within) for m in mutants(path)}
    for entry in tomllib.loads((ROOT / "tests" / "mutants" / "equivalent.toml").read_text(encoding="utf-8"))["equivalent"]:
        for within in entry["within"]:
            for pattern in entry["of"]:
                names = fnmatch.filter(impls.available(), pattern)
                assert any((name, entry["mutant"], within) in found for name in names), (pattern, entry["mutant"], within)


def test_the_sample_takes_models_and_the_machine_room():
    files = {one.file for one in chosen("torch", 64, 0)}
    assert {"vae.py", "layers.py", "backend.py"} <= files
    assert ENOUGH == 2
