"""Implementations that are wrong, die, hang or leave work out, in a real bench: each is a row with its state, and costs its cells alone."""

import pytest

from harness.bench import journal, table
from harness.errors import FAILED
from tests.test_bench import DATA, TIMES

FAULTS = """
import os, signal, time
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


def crowded(made):
    real = made.facts
    made.facts = lambda: {**real(), "threads": 77}


def stillborn(made):
    made.timed_decode = lambda batch: kill


skewed = once_certified("decode", lambda made, batch: {"x_hat": 1.001 * made.decode(batch["z"])})
mortal = once_certified("encode", kill)
stuck = once_certified("encode", lambda made, batch: time.sleep(600))
"""
MODULE = """
import faulty_isoforms
from impls.numpy.backend import devices

build = faulty_isoforms.build_with(faulty_isoforms.{name})
"""
NAMES = ("off", "skewed", "idle", "mortal", "stillborn", "crowded", "stuck")
BENCH = """
import sys
from pathlib import Path
import impls, specs
from harness.bench import schedule
schedule.LEVELS["tiny"] = schedule.Level(blocks=2, rounds=4, cold_blocks=1, operations=("train", "encode", "decode"))
names = ["numpy", "off", "skewed", "idle", "mortal", "stillborn", "crowded", "absent"]
spec = specs.load("vae").replace(data=DATA)
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
    assert python(BENCH.replace("FOLDER", repr(str(tmp_path))).replace("DATA", repr(DATA)), site) == str(FAILED)
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
    assert set(long.implementation) == {"numpy", "mortal", "stillborn"}


STUCK = """
import impls, specs
from harness.bench.cells import cells
from harness.bench.ratios import ratios
from harness.bench.station import Station
spec, stuck = specs.load("vae").replace(data=DATA), impls.load("stuck")
station = Station(stuck, spec, [entry.cell for entry in cells([spec], [stuck], ("train", "encode", "decode"), batch_sizes=(8,))], {}, seed=0, silence_s=200)
assert not station.open() and not station.prepare()
station.silence_s = 1
outcome = station.time(station.cells[1], 2)
print(outcome.state, station.worker, [cell.operation for cell in station.cells])
"""


def test_a_hang_costs_its_cell(python, site):
    assert python(STUCK.replace("DATA", repr(DATA)), site) == "timeout None ['train', 'decode']"
