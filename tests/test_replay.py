"""pytest-benchmark sees what was measured, to the last bit, and nothing of what has failed."""

import json
import subprocess
import sys
from statistics import median

import pytest

from harness.bench import journal
from harness.bench.table import finished, step_seconds
from harness.errors import FAILED, NOTHING_RAN, OK, USAGE
from tests.results_folder import MACHINE, SECONDS, STEPS, write_journal
from tests.test_cli import isoform

STORE = "--benchmark-storage=file://{}"


def replay(folder, *more):
    return isoform("replay", folder, f"--benchmark-json={folder / 'b.json'}", *more)


def test_the_samples_are_the_medians_of_the_processes(tmp_path):
    write_journal(tmp_path)
    done = replay(tmp_path)
    assert done.returncode == OK, done.stdout + done.stderr
    content = json.loads((tmp_path / "b.json").read_text())
    assert {name: content["machine_info"][name] for name in MACHINE} == MACHINE  # of what has measured, and no host name
    rows = finished(journal.read(tmp_path / "journal.jsonl").rows)
    assert len(content["benchmarks"]) == len(SECONDS)
    for one in content["benchmarks"]:
        name = one["param"].split("-")[2]
        mine = [row for row in rows if row["pass"] == "time" and row["cell"]["implementation"] == name and not row["cell"]["replica"]]
        assert one["stats"]["data"] == [median(step_seconds(row)) for row in mine]
        assert one["stats"]["iterations"] == 1 and one["stats"]["rounds"] == len(mine) > 1
        assert abs(one["stats"]["median"] * STEPS / SECONDS[name] - 1.01) < 1e-12  # of blocks that are 0, 1 and 2 % slower
        assert one["extra_info"]["certificate"] == mine[0]["certificate"]
        assert all(type(value) in (str, float) for value in one["extra_info"].values())


def test_what_has_failed_fails_and_has_no_number(tmp_path):
    write_journal(tmp_path, mismatch=("jax",))
    done = replay(tmp_path)
    assert done.returncode == FAILED and "mismatch: " in done.stdout and "Traceback" not in done.stdout + done.stderr
    assert {one["param"].split("-")[2] for one in json.loads((tmp_path / "b.json").read_text())["benchmarks"]} == {"numpy", "torch"}


def test_its_own_tools_go_on_from_there(tmp_path):
    write_journal(tmp_path)
    store = tmp_path / "store"
    assert replay(tmp_path, STORE.format(store), "--benchmark-save=base").returncode == OK
    again = replay(tmp_path, STORE.format(store), "--benchmark-compare", "--benchmark-compare-fail=median:1%", "-k", "numpy")
    assert again.returncode == OK and "(NOW)" in again.stdout and "torch-cpu" not in again.stdout.split("(0001_base)")[0]
    compare = [sys.executable, "-m", "pytest_benchmark", "--storage", f"file://{store}", "compare", "0001", "--columns=median"]
    listed = subprocess.run(compare, capture_output=True, text=True, cwd=tmp_path)
    assert listed.returncode == 0 and all(f"-{name}-" in listed.stdout for name in SECONDS)


def test_histograms_show_every_cell(tmp_path):
    write_journal(tmp_path)
    store = tmp_path / "store"
    done = replay(tmp_path, STORE.format(store), "--benchmark-save=base", f"--benchmark-histogram={tmp_path / 'now'}")
    assert done.returncode == OK, done.stdout + done.stderr
    later = [sys.executable, "-m", "pytest_benchmark", "--storage", f"file://{store}", "compare", "0001"]
    later.append(f"--histogram={tmp_path / 'later'}")
    assert subprocess.run(later, capture_output=True, text=True, cwd=tmp_path).returncode == 0
    for name in ("now", "later"):
        (picture,) = tmp_path.glob(f"{name}*.svg")
        assert all(f"vae-train-{name}-cpu" in picture.read_text() for name in SECONDS)


def test_a_regression_is_seen_by_its_own_gate(tmp_path, monkeypatch):
    write_journal(tmp_path)
    store = STORE.format(tmp_path / "store")
    assert replay(tmp_path, store, "--benchmark-save=base").returncode == OK
    monkeypatch.setitem(SECONDS, "numpy", SECONDS["numpy"] * 1.1)
    write_journal(tmp_path)
    assert replay(tmp_path, store, "--benchmark-compare", "--benchmark-compare-fail=median:5%").returncode == FAILED
    assert replay(tmp_path, store, "--benchmark-compare", "--benchmark-compare-fail=median:20%").returncode == OK


@pytest.mark.parametrize(
    "option", ["--benchmark-json={}/b.json", "--benchmark-save=x --benchmark-storage=file://{}", "--benchmark-histogram={}/h"]
)
def test_what_cannot_be_written_is_a_message(tmp_path, option):
    write_journal(tmp_path)
    (tmp_path / "file").touch()
    done = isoform("replay", tmp_path, *option.format(tmp_path / "file" / "folder").split())
    assert done.returncode == USAGE and "cannot write" in done.stderr and "Traceback" not in done.stderr


def test_without_a_journal_there_is_a_message(tmp_path):
    done = isoform("replay", tmp_path)
    assert done.returncode == USAGE and "cannot read the journal" in done.stderr and "Traceback" not in done.stderr
    (tmp_path / "journal.jsonl").touch()
    done = isoform("replay", tmp_path)
    assert done.returncode == NOTHING_RAN and "nothing was measured" in done.stderr
