"""Implementations that are wrong, die, hang or leave work out, in a real bench: each is a row with its state, and costs its cells alone."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

import impls
from harness import processes
from harness.bench import journal, table
from harness.errors import FAILED, USAGE, WorkerDied
from harness.processes import ROOT, Worker
from harness.worker import kind_of
from tests.small import small_file
from tests.test_bench import TIMES
from tests.test_cli import isoform

FAULTS = """
import os, resource, signal, subprocess, sys, time
import numpy as np
from impls.numpy import backend


def build_with(fault):
    def build(spec, **how):
        made = backend.build(spec, **how)
        fault(made)
        return made

    return build


def off(made):
    real = made.gradients
    made.gradients = lambda batch: {name: 1.001 * value for name, value in real(batch).items()}


def idle(made):  # in long rounds, now and then
    real = made.run

    def run():
        left_out = made.steps > 3
        made.steps -= left_out
        real()
        made.steps += left_out

    made.run = run


def once_certified(operation, act):  # after the first call and the renewal
    def fault(made):
        real, calls = getattr(made, f"timed_{operation}"), []

        def timed(batch):
            calls.append(batch)
            return real(batch) if len(calls) < 3 else lambda: act(made, batch)

        setattr(made, f"timed_{operation}", timed)

    return fault


def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def segfault(*_):
    import ctypes

    ctypes.string_at(0)


def starve(*_):
    in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + (64 << 20), resource.RLIM_INFINITY))
    return np.ones(1 << 28)


def hang(*_):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    open(os.environ["CHILD"], "w").write(str(child.pid))
    time.sleep(600)


def crowded(made):
    real = made.facts
    made.facts = lambda: {**real(), "threads": 77}


def stillborn(made):
    made.timed_decode = lambda batch: kill


skewed = once_certified("decode", lambda made, batch: {"x_hat": 1.001 * made.decode(batch["z"])})
mortal = once_certified("encode", kill)
stuck = once_certified("encode", hang)
broken = once_certified("encode", segfault)
hungry = once_certified("encode", starve)
"""
MODULE = """
import faulty_isoforms
from impls.numpy.backend import devices

build = faulty_isoforms.build_with(faulty_isoforms.{name})
"""
NAMES = ("off", "skewed", "idle", "mortal", "stillborn", "crowded", "stuck", "broken", "hungry")
BENCH = """
import sys
from pathlib import Path
import impls
from harness.bench import schedule
from tests.small import small
schedule.LEVELS["tiny"] = schedule.Level(blocks=2, rounds=4, cold_blocks=1, operations=("train", "encode", "decode"))
names = ["numpy", "off", "skewed", "idle", "mortal", "stillborn", "crowded", "broken", "hungry", "absent"]
spec = small("vae")
path = schedule.bench([spec], [impls.load(name) for name in names], level="tiny", dtype="float32", device="cpu",
                      batch_sizes=(32,), folder=Path(FOLDER), seed=1)
print(schedule.exit_code(path))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with a package of faulty implementations installed in it, as pip would leave it."""
    folder = tmp_path_factory.mktemp("site")
    package, info = folder / "faulty_isoforms", folder / "faulty_isoforms-1.0.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").write_text(FAULTS)
    for name in NAMES:
        (package / f"{name}_backend.py").write_text(MODULE.format(name=name))
    points = [f"{name} = faulty_isoforms.{name}_backend" for name in NAMES]
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty-isoforms\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(["[isoform.implementations]", *points, "absent = no_such_package.backend"]))
    return folder


def test_faults_are_rows_and_a_mismatch_shows_no_number(python, site, tmp_path):
    assert python(BENCH.replace("FOLDER", repr(str(tmp_path))), site) == str(FAILED)
    path = tmp_path / "journal.jsonl"
    rows = {}
    for row in journal.read(path).rows:
        if row["row"] == "finish" and not row["cell"]["replica"]:
            rows.setdefault((row["cell"]["implementation"], row["cell"]["operation"], row["pass"]), []).append(row)
    states = {key: [row["state"] for row in found] for key, found in rows.items()}

    def of(name):
        return {
            operation: found for (implementation, operation, which), found in states.items() if (implementation, which) == (name, "time")
        }

    ok, killed, mismatch = ["ok", "ok"], ["crash:SIGKILL", "crash:SIGKILL"], ["mismatch"]
    assert of("numpy") == {"train": ok, "encode": ok, "decode": ok} and states["numpy", "train", "memory"] == ["ok"]
    assert of("off") == {"train": mismatch, "encode": mismatch, "decode": mismatch}
    assert of("skewed") == {"train": ok, "encode": ok, "decode": mismatch}
    assert of("idle")["train"] == mismatch
    assert of("mortal") == {"train": ok, "encode": killed, "decode": ok}
    assert of("broken") == {"train": ok, "encode": ["crash:SIGSEGV"] * 2, "decode": ok}
    assert of("hungry") == {"train": ok, "encode": ["oom-host"] * 2, "decode": ok}
    assert of("stillborn") == {"train": ok, "encode": ok, "decode": killed}
    assert of("crowded") == {operation: ["error", "error"] for operation in ("train", "encode", "decode")}
    assert "runs 77 threads; given were" in rows["crowded", "train", "time"][0]["reason"]
    assert of("absent") == {operation: ["not-installed"] for operation in ("train", "encode", "decode")}
    assert "needs no_such_package: python -m pip install faulty-isoforms" in rows["absent", "train", "time"][0]["reason"]
    assert "gradient" in rows["off", "train", "time"][0]["reason"]
    assert "decode x_hat is off by 0.001" in rows["skewed", "decode", "time"][0]["reason"]
    assert "steps less than were timed" in rows["idle", "train", "time"][0]["reason"]
    for found in rows.values():
        for row in found:
            assert row["state"] == "ok" or not {"host_peak", *TIMES} & set(row)
    numbers = ["step_s", "samples_per_s", "import_s", "first_call_s", "host_peak"]
    summary, long = table.summary(path), table.long(path)
    for name in ("off", "skewed", "idle"):
        lines = summary[summary.implementation == name]
        assert len(lines) == 3 and set(lines.state) == {"mismatch"} and lines[numbers].isna().all(axis=None) and lines.reason.notna().all()
    assert set(long.implementation) == {"numpy", "mortal", "stillborn", "broken", "hungry"}


STUCK = """
import impls
from tests.small import small
from harness.bench.cells import cells
from harness.bench.ratios import ratios
from harness.bench.station import Station
spec, stuck = small("vae"), impls.load("stuck")
asked = [entry.cell for entry in cells([spec], [stuck], ("train", "encode", "decode"), batch_sizes=(8,))]
station = Station(stuck, spec, asked, {}, seed=0, silence_s=200)
assert not station.open() and not station.prepare()
station.silence_s = 1
begun = time.monotonic()
outcome = station.time(station.cells[1], 2)
taken = time.monotonic() - begun - 1
print(outcome.state, station.worker, [cell.operation for cell in station.cells])
print(taken)
"""


def test_a_hang_costs_its_cell_and_its_whole_process_group_is_ended_within_two_seconds(python, site, tmp_path):
    child = tmp_path / "child"
    said, taken = python("import time\n" + STUCK, site, CHILD=str(child)).splitlines()
    assert said == "timeout None ['train', 'decode']" and float(taken) < 2
    assert not psutil.pid_exists(int(child.read_text())) or psutil.Process(int(child.read_text())).status() == psutil.STATUS_ZOMBIE


def test_what_the_kernel_ends_for_want_of_memory_is_told(monkeypatch, tmp_path):
    counter = tmp_path / "vmstat"
    counter.write_text("pgfault 5\noom_kill 3\n")
    monkeypatch.setattr(processes, "VMSTAT", counter)
    for now, state in ((4, "oom-host"), (3, "crash:SIGKILL")):
        counter.write_text("oom_kill 3\n")
        with Worker(impls.load("numpy")) as worker:
            counter.write_text(f"oom_kill {now}\n")
            os.kill(worker.process.pid, signal.SIGKILL)
            with pytest.raises(WorkerDied) as death:
                list(worker.request("doctor"))
        assert death.value.state == state


@pytest.mark.parametrize(
    ("error", "device", "kind"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate"), "cuda", "oom-device"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "cpu", "oom-host"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"), "cpu", "oom-host"),
        (ValueError("shapes"), "cpu", "error"),
    ],
)
def test_frameworks_say_in_their_own_words_that_memory_has_run_out(error, device, kind):
    assert kind_of(error, device) == kind


def test_a_batch_that_does_not_fit_costs_its_cells_alone(tmp_path):
    command = ("bench", "--spec", small_file(tmp_path, "vae"), "--impl", "numpy", "--operation", "encode", "--operation", "decode")
    done = isoform(*command, "--batch", "16", "--batch", str(10**11), "--json", "--out", tmp_path)
    assert done.returncode == FAILED and "Traceback" not in done.stderr
    cells = [(row["cell"], row["state"]) for row in journal.read(tmp_path / "journal.jsonl").last_run if row["row"] == "finish"]
    states = {(cell["operation"], cell["batch_size"], state) for cell, state in cells}
    told = {(cell["operation"], cell["batch_size"]): cell for cell in json.loads(done.stdout)}
    assert told["encode", 16]["step_s"] > 0 and told["encode", 10**11]["step_s"] is None
    assert states == {(operation, size, state) for operation in ("encode", "decode") for size, state in ((16, "ok"), (10**11, "oom-host"))}


FULL = """
import resource, signal, sys
from harness.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
sys.argv = ["isoform", "bench", "--spec", "linear_ae", "--impl", "numpy", "--out", FOLDER]
main()
"""


def test_a_disk_that_is_full_half_way_is_a_message_and_leaves_whole_rows(tmp_path):
    code = FULL.replace("FOLDER", repr(str(tmp_path)))
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, env=variables)
    assert done.returncode == USAGE and "cannot write to the journal" in done.stderr and "Traceback" not in done.stderr
    found = journal.read(tmp_path / "journal.jsonl")
    assert found.warning is None and len(found.rows) > 0 and (tmp_path / "journal.jsonl").stat().st_size <= 9000
