"""Sweeps, time to quality, and what a bench would take: against closed forms, and in real runs of a small size."""

import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import impls
import specs
from harness import data, machine
from harness.bench import forecast, journal, quality, schedule, stopping, sweeps, table, training
from harness.bench.sweeps import curves, slopes, widened
from harness.errors import FAILED, NOTHING_RAN, OK, USAGE, UserError
from tests.journal_rows import AT, CELL, Whole
from tests.small import small_file
from tests.test_cli import isoform

# Curves and slopes.


def cells(seconds, spec="vae", **changes):
    """A summary with one row for {size: seconds a step}."""
    rows = []
    for size, step in seconds.items():
        where = {"spec": f"{spec}-width-{size}"} if "width" in changes else {"spec": spec, "batch_size": size}
        head = {**CELL, "batch_size": 128, **where, "state": changes.get("state", "ok")}
        rows.append(head | {"step_s": step, "step_low_s": step, "step_high_s": step})
    return pd.DataFrame(rows)


def test_a_slope_is_that_of_the_power_law_it_was_made_from():
    power = {size: 1e-6 * size**0.8 for size in (1, 4, 16, 64, 256, 1024, 4096)}
    overhead = power | {1: 1e-3, 4: 1e-3, 16: 1e-3}  # small sizes cost what a call costs
    for seconds in (power, overhead):
        [line] = slopes(curves(cells(seconds))).to_dict("records")
        assert line["slope"] == pytest.approx(0.8) and line["low"] == pytest.approx(0.8) and line["from_size"] == 64
        assert (line["sweep"], line["spec"]) == ("batch", "vae")
    [width] = slopes(curves(cells(power, width=True))).to_dict("records")
    assert (width["sweep"], width["spec"]) == ("width", "vae") and width["slope"] == pytest.approx(0.8)


def test_the_interval_of_a_slope_is_scipys():
    size, noise = np.array([1.0, 10.0, 100.0, 1000.0]), np.array([1.0, 1.2, 0.9, 1.1])
    fitted = stats.linregress(np.log(size), np.log(size * noise))
    low, high = stats.t.interval(0.95, 2, fitted.slope, fitted.stderr)
    assert sweeps._line(size, size * noise) == pytest.approx((fitted.slope, low, high))
    assert math.isnan(sweeps._line(size[:2], size[:2])[1]) and math.isnan(sweeps._line(size[:1], size[:1])[0])


def test_a_curve_has_two_sizes_and_none_that_failed():
    assert curves(cells({64: 1.0})).empty and curves(cells({1: 1.0, 4: 2.0}, state="mismatch")).empty and slopes(curves(cells({}))).empty
    table = curves(pd.concat([cells({4: 2.0, 1: 1.0}), cells({1: 1.0}, "ae")]))
    assert list(table["size"]) == [1, 4] and set(table.spec) == {"vae"}


def test_widths_are_specs_of_their_own():
    spec = specs.load("ae")
    made = widened(spec, (3, 9))
    assert [one.hidden for one in made] == [(3, 3), (9, 9)] and [one.name for one in made] == ["ae-width-3", "ae-width-9"]
    assert len({one.hash for one in (*made, spec)}) == 3 and {one.training for one in made} == {spec.training}
    with pytest.raises(UserError, match="no hidden layers to widen"):
        widened(specs.load("pca"))


def test_a_real_sweep(tmp_path):
    vae = ("--spec", small_file(tmp_path, "vae", train=2048))
    done = isoform("sweep", "batch", *vae, "--impl", "numpy", "--size", "8", "--size", "2048", "--out", tmp_path)
    assert done.returncode == OK, done.stderr
    path = tmp_path / sweeps.journal_name("batch")
    run = journal.read(path).last_run
    assert run[0]["plan"]["batch_sizes"] == [8, 2048] and not [row for row in run if row.get("pass") == "memory"]
    summary = table.summary(path)
    assert set(summary.state) == {"ok"} and set(summary.operation) == {"train"}
    [line] = slopes(curves(summary)).to_dict("records")
    assert 0.3 < line["slope"] < 1.2  # 256 times the rows cost more, and hardly more than 256 times as much
    widths = isoform("sweep", "width", *vae, "--impl", "numpy", "--size", "8", "--size", "16", "--out", tmp_path)
    assert widths.returncode == OK, widths.stderr
    verified = json.loads((tmp_path / sweeps.verify_name("width")).read_text())
    assert {row["spec"] for row in verified["rows"] if row["state"] == "pass"} == {"vae-width-8", "vae-width-16"}
    assert set(curves(table.summary(tmp_path / sweeps.journal_name("width")))["size"]) == {8, 16}
    assert isoform("sweep", "width", "--spec", "pca", "--impl", "numpy", "--out", tmp_path / "none").returncode == USAGE
    assert isoform("sweep", "batch", "--size", "0").returncode == USAGE


# Time to quality.


def test_the_target_is_what_the_reference_reaches_half_way():
    spec = specs.load("vae").replace(training={"steps": 40})
    model = impls.load("numpy").build(spec, dtype="float64")
    sets = data.load(spec)
    before = training.test_loss(model, sets.test)
    model.train(__import__("specs.noise").noise.batches(spec, sets.train, 20))
    assert quality.target_of(spec) == training.test_loss(model, sets.test) < before


def test_a_training_reaches_its_target_and_says_when():
    spec, sets = specs.load("vae"), data.load(specs.load("vae"))
    model = impls.load("numpy").build(spec)
    target = quality.target_of(spec.replace(training={"steps": 200}))
    found = training.reach(model, sets.train, sets.test, 3, target, 2000)
    again = training.reach(model, sets.train, sets.test, 3, target, 2000)
    assert found["loss"] <= target and found["steps"] % training.EVERY == 0 and found["steps"] == again["steps"] and found["seconds"] > 0
    assert training.reach(model, sets.train, sets.test, 4, target, 2000)["loss"] != found["loss"]  # another seed, another training
    never = training.reach(model, sets.train, sets.test, 3, -1.0, 50)
    assert never["steps"] is None and never["seconds"] is None and never["reason"] == "not reached in 50 steps"


def test_a_loss_that_is_no_number_has_reached_nothing(monkeypatch):
    sets, model = data.load(specs.load("vae")), impls.load("numpy").build(specs.load("vae"))
    monkeypatch.setattr(training, "test_loss", lambda model, test: math.nan)
    with pytest.raises(RuntimeError, match="seed 3: the loss on the test data is nan after 25 steps"):
        training.reach(model, sets.train, sets.test, 3, 20.0, 100)


def test_a_real_time_to_quality(tmp_path):
    target = quality.target_of(specs.load("vae").replace(training={"steps": 100}))
    done = isoform("quality", "--impl", "numpy", "--seeds", "2", "--target", str(target), "--out", tmp_path)
    assert done.returncode == OK, done.stderr
    found = quality.table(tmp_path / quality.NAME)
    assert list(found.seed) == [1, 2] and set(found.state) == {"ok"} and (found.target == target).all() and (found.loss <= target).all()
    assert found.certificate.notna().all() and (found.seconds > 0).all() and found.implementation.eq("numpy").all()
    absent = isoform("quality", "--impl", "numpy", "--device", "cuda", "--out", tmp_path / "cuda")
    assert absent.returncode == NOTHING_RAN and "numpy sees no device 'cuda'" in re.sub(r"\s+", " ", absent.stderr)
    assert isoform("quality", "--spec", "pca", "--out", tmp_path / "pca").returncode == USAGE


def test_a_mismatch_at_one_seed_leaves_no_number(tmp_path):
    path = tmp_path / quality.NAME
    with Whole(path) as out:
        out.write("run")
        quality_of = {"pass": "quality", "cell": CELL}
        out.write("finish", **quality_of, block=0)
        out.write("finish", **quality_of, block=1, state="mismatch", reason="gradient")
        out.write("finish", **quality_of | {"cell": CELL | {"implementation": "torch"}}, block=1)
    found = quality.table(path)
    assert list(found.state) == ["mismatch", "mismatch", "ok"] and found.seconds[:2].isna().all() and found.certificate[:2].isna().all()
    assert found.seconds[2] == 1.5 and schedule.exit_code(path) == FAILED
    assert quality.table(tmp_path / "absent.jsonl").empty


# What a bench would take.


def history(folder, cell_s=2.0, ready_s=3.0, machine_card=None):
    """A run of two blocks of one spec with two implementations."""
    folder.mkdir(parents=True)
    clock = [0.0]

    def at(more=0.0):
        clock[0] += more
        return f"2026-01-02T03:{int(clock[0] // 60):02d}:{clock[0] % 60:06.3f}+00:00"

    with Whole(folder / "journal.jsonl") as out:
        out.write("run", made=AT, machine=machine_card or machine.card())
        for block in range(2):
            out.write("state", block=block, when="before", at=at())
            for k, name in enumerate(("numpy", "torch")):
                cell = CELL | {"implementation": name}
                out.write("start", **{"pass": "time"}, cell=cell, block=block, at=at(2 * ready_s if not k else 0.0))
                out.write("finish", cell=cell, block=block, at=at(cell_s))
        out.write("end", at=at())


def test_minutes_are_learnt_from_the_last_run_here(tmp_path, monkeypatch):
    chosen = [specs.load("vae")], [impls.load("numpy"), impls.load("jax")]
    how = {"level": "ci", "dtype": "float32", "device": "cpu", "operations": ("train",)}
    monkeypatch.setattr(forecast, "RESULTS", tmp_path)
    assert forecast.forecast(*chosen, **how).minutes is None
    history(tmp_path / "m" / "1")
    history(tmp_path / "m" / "0", machine_card=machine.card() | {"cpu": "Another"}, cell_s=1000.0)
    found = forecast.forecast(*chosen, **how)
    assert (found.pace.ready, found.pace.cell) == (3.0, 2.0) and found.pace.journal == tmp_path / "m" / "1" / "journal.jsonl"
    level = stopping.LEVELS["ci"]
    each = 3 * 3.0 + 3 * 2.0  # two implementations and a twin: get ready, one cell
    assert found.minutes == pytest.approx((level.blocks * each / 60, (level.blocks + level.more) * each / 60))
    aimed = forecast.forecast(*chosen, **how, target=0.02)
    assert (aimed.stop.blocks, aimed.stop.most) == (5, 15) and aimed.minutes == pytest.approx((5 * each / 60, 15 * each / 60))
    assert forecast.forecast(*chosen, **how, budget_s=40.0).minutes == pytest.approx((40 / 60, 40 / 60))
    assert forecast.forecast(*chosen, **how, budget_s=1.0).minutes == pytest.approx((2 * each / 60, 2 * each / 60))
    parameters = sum(value.size for value in impls.load("numpy").build(chosen[0][0]).parameters().values())
    assert found.array_bytes > 4 * 4 * parameters and found.journal_bytes > 15 * 500
    (tmp_path / "m" / "2").mkdir()
    (tmp_path / "m" / "2" / "journal.jsonl").write_text("not a journal\n")
    assert forecast.learn(tmp_path) == found.pace


def test_a_dry_run_says_cells_minutes_bytes(tmp_path):
    history(tmp_path / "results" / "m" / "1")
    command = ("bench", "--spec", "vae", "--impl", "numpy", "--level", "report", "--dry-run")
    done = isoform(*command, cwd=tmp_path)
    text = re.sub(r"\s+", " ", done.stdout)
    assert done.returncode == OK and "5 to run" in text and "10 blocks, up to 15; journal: about" in text and "MiB" in text
    assert re.search(r"minutes: about \d+, \d+ at most, by results/m/1/journal.jsonl", text)
    assert "minutes: not known" in re.sub(r"\s+", " ", isoform(*command, cwd=(tmp_path / "results")).stdout)
    assert not list(tmp_path.glob("**/sweep*")) and len(list(tmp_path.iterdir())) == 1
