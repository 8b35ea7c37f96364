"""A bench that is killed at any moment loses the cell in flight, and goes on where it was."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

import impls
import specs
from harness import machine
from harness.bench import journal, schedule
from harness.bench.cells import Cell
from harness.bench.merge import merge
from harness.bench.station import Outcome
from harness.bench.stopping import Stopping
from harness.errors import USAGE, UserError
from tests.journal_rows import TIMED, Whole
from tests.small import small_file

ROOT = Path(__file__).parents[1]
BENCH = [sys.executable, "-m", "harness.cli", "bench", "--impl", "numpy"]
KILLS = int(os.environ.get("ISOFORM_KILLS", "20"))


@pytest.fixture
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("specs")
    command = [*BENCH, "--spec", small_file(folder, "linear_ae"), "--spec", small_file(folder, "pca")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    there = {"cwd": ROOT, "env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return lambda folder, *more: subprocess.Popen([*command, "--out", folder, *more], **there)


def finished(rows):
    return Counter((row["pass"], row["block"], json.dumps(row["cell"], sort_keys=True)) for row in rows if row["row"] == "finish")


def test_kill_9_at_any_moment_loses_the_cell_in_flight_alone(start, tmp_path):
    path, moment, kills, before = tmp_path / "journal.jsonl", random.Random(), 0, b""
    while True:
        process = start(tmp_path, *(["--resume"] if path.exists() and path.read_bytes().count(b"\n") else []))
        time.sleep(moment.uniform(0, 4 if kills < KILLS else 0))
        if kills < KILLS:
            workers = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            process.send_signal(signal.SIGKILL)
            kills += 1
        _, said = process.communicate(timeout=200)
        now = path.read_bytes() if path.exists() else b""
        assert now.startswith(before[: before.rfind(b"\n") + 1])  # what was written stays as it was
        before = now
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, said.decode()
        _, alive = psutil.wait_procs(workers, timeout=10)
        assert not alive, f"workers outlive the parent: {alive}"
    rows = journal.read(path).rows
    assert [row["row"] for row in rows if row["row"] in ("run", "end")] == ["run", "end"]
    once = finished(rows)
    assert set(once.values()) == {1}, "something that had ended was done again"
    started = Counter(json.dumps(row["cell"], sort_keys=True) for row in rows if row["row"] == "start")
    assert sum(started.values()) - sum(once.values()) <= kills  # at most one cell in flight for each
    cells = {json.dumps(row["cell"], sort_keys=True) for row in rows if row["row"] == "finish"}
    level = schedule.LEVELS["quick"]
    assert all(sum(cell == one for which, _, one in once if which == "time") == level.blocks for cell in cells)


def test_of_two_benches_in_one_folder_the_second_is_refused(start, tmp_path):
    path, first = tmp_path / "journal.jsonl", start(tmp_path)
    while first.poll() is None and not (path.exists() and path.stat().st_size):
        time.sleep(0.05)
    for more in ((), ("--resume",)):
        second = start(tmp_path, *more)
        _, said = second.communicate(timeout=60)
        assert second.returncode == USAGE and b"another isoform is writing this journal" in said and b"Traceback" not in said, said.decode()
    assert first.poll() is None, "the first one was over before"
    first.kill()
    first.communicate(timeout=60)
    rows = journal.read(path).rows
    assert [row["row"] for row in rows if row["row"] in ("run", "resume", "end")] == ["run"]


HOLDER = """
import subprocess, sys, time
from pathlib import Path
from harness.bench.journal import Journal
journal = Journal(Path(sys.argv[1]))
child = subprocess.Popen([sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"], close_fds=False, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""


def test_kill_9_leaves_no_lock_though_what_it_has_started_lives_on(tmp_path):
    path, environment = tmp_path / "journal.jsonl", {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", HOLDER, path], env=environment, stdout=subprocess.PIPE) as process:
        child = psutil.Process(int(process.stdout.readline()))
        with pytest.raises(UserError, match="another isoform"):
            journal.Journal(path)
        process.kill()
        process.wait()
        try:
            with Whole(path) as out:
                out.write("run")
            assert child.is_running() and child.status() != psutil.STATUS_ZOMBIE
        finally:
            child.kill()


def test_what_another_has_finished_before_the_lock_was_free_is_not_done_again(tmp_path, monkeypatch):
    """Two resume at once: the second reads, waits for the operating system, and by then the first has gone on."""
    plan = {"level": "quick", "dtype": "float32", "device": "cpu", "folder": tmp_path, "resume": True}
    numpy, spec = [impls.load("numpy")], [specs.load("pca")]
    ended = []
    monkeypatch.setattr(schedule.Bench, "run", lambda self: ended.append(self.ended))
    path = schedule.bench(spec, numpy, **plan | {"resume": False})
    one = Cell("pca", spec[0].hash, "numpy", "fit", "cpu", "float32", "highest", 10)

    def late(path):
        with Whole(path) as other:
            other.write("finish", cell=one.row(), block=0)
        return journal.Journal(path)

    monkeypatch.setattr(schedule, "Journal", late)
    schedule.bench(spec, numpy, **plan)
    assert ended == [set(), {("time", 0, one)}] and path.exists()


def test_a_merged_run_is_not_resumed(tmp_path, monkeypatch):
    plan = {"level": "quick", "dtype": "float32", "device": "cpu"}
    numpy, spec = [impls.load("numpy")], [specs.load("pca")]
    monkeypatch.setattr(schedule.Bench, "run", lambda self: None)
    parts = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        parts.append(schedule.bench(spec, numpy, **plan, folder=tmp_path / name))
    (tmp_path / "journal.jsonl").write_text(text := merge(parts))
    with pytest.raises(UserError, match="a merged run cannot be resumed\n  mend: resume it in its own folder, then merge"):
        schedule.bench(spec, numpy, **plan, folder=tmp_path, resume=True)
    assert (tmp_path / "journal.jsonl").read_text() == text


def test_only_the_same_run_is_resumed(tmp_path, monkeypatch):
    plan = {"level": "quick", "dtype": "float32", "device": "cpu", "folder": tmp_path}
    numpy, spec = [impls.load("numpy")], [specs.load("pca")]
    with pytest.raises(UserError, match="no run to resume"):
        schedule.bench(spec, numpy, **plan, resume=True)
    assert not (tmp_path / "journal.jsonl").exists()
    monkeypatch.setattr(schedule.Bench, "run", lambda self: None)
    path = schedule.bench(spec, numpy, **plan, seed=5)
    before = path.read_bytes()
    for other, name in (({"level": "ci"}, "level"), ({"batch_sizes": (3,)}, "plan")):
        with pytest.raises(UserError, match=f"another {name}\n  expected"):
            schedule.bench(spec, numpy, **{**plan, **other}, resume=True)
    with pytest.raises(UserError, match="another plan"):
        schedule.bench([specs.load("vae")], numpy, **plan, resume=True)
    here = machine.card()
    monkeypatch.setattr(machine, "card", lambda: here | {"cpu": "another"})
    with pytest.raises(UserError, match="another machine"):
        schedule.bench(spec, numpy, **plan, resume=True)
    assert path.read_bytes() == before
    monkeypatch.setattr(machine, "card", lambda: here)
    schedule.bench(spec, numpy, **plan, resume=True)
    assert [row["row"] for row in journal.read(path).rows] == ["run", "end", "resume", "end"]


def test_a_certificate_lost_before_the_cut_stays_lost(tmp_path):
    """What an earlier part has found decides in the later one: a mismatch is not timed again, nor is its memory measured."""
    one = Cell("vae", "0", "numpy", "train", "cpu", "float32", "highest", 10)
    with Whole(tmp_path / "journal.jsonl") as out:
        level = schedule.LEVELS["quick"]
        make = lambda: schedule.Bench([], [], [], level, Stopping(level.stop()), out, 0, "", lambda event: None, 1.0)
        bench = make()
        bench.finish("time", 0, one, Outcome("ok", None, TIMED))
        bench.finish("time", 1, one, Outcome("mismatch", "off"))
        later = make()
        later.remember_rows(journal.read(out.path).rows)
    assert later.states == {one: "mismatch"} == bench.states and later.certificates == {} == bench.certificates
    assert later.ended == {("time", 0, one), ("time", 1, one)}


def test_resume_without_a_run_is_a_message(start, tmp_path):
    process = start(tmp_path / "nothing", "--resume")
    _, said = process.communicate(timeout=60)
    assert process.returncode == USAGE and b"no run to resume" in said and b"Traceback" not in said
    assert not (tmp_path / "nothing").exists()
