"""Bench: the journal survives, failures are rows, a mismatch shows no number, and the clock measures the work."""

import errno
import json
import math
import re
import statistics

import jsonschema
import numpy as np
import pytest
from scipy import stats

import impls
import specs
from harness import machine
from harness.bench import journal, schedule, schema, table
from harness.bench.cells import cells
from harness.bench.ratios import ratios
from harness.errors import NOTHING_RAN, OK, UserError
from harness.processes import Worker, cpus
from tests.journal_rows import CELL, PLAIN, Whole
from tests.small import small

TIMES = ("rounds_s", "import_s", "build_s", "first_call_s")


# The journal.


def written(path, *rows):
    with Whole(path) as out:
        for row in rows:
            out.write(row["row"], **{key: value for key, value in row.items() if key != "row"})
    return path


def test_a_journal_cut_off_in_the_middle_is_read_up_to_there_and_goes_on(tmp_path):
    path = written(tmp_path / "journal.jsonl", {"row": "run"}, {"row": "start"}, {"row": "finish"})
    whole = path.read_bytes()
    assert journal.read(path).warning is None
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        content = journal.read(path)
        assert len(content.rows) == whole[:length].count(b"\n")
        assert (content.warning is None) == (whole[:length][-1:] in (b"", b"\n"))
    assert "cut off (line 3)" in content.warning
    written(path, {"row": "finish", "block": 1})
    again = journal.read(path)
    assert again.warning is None and [row["row"] for row in again.rows] == ["run", "start", "finish"] and again.rows[-1]["block"] == 1


def test_a_journal_that_is_not_one_says_what_to_do(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text('{"schema": 4, "row": "run"}\n')
    with pytest.raises(UserError, match=r"line 1: a journal of schema version 4\n  expected: version 3"):
        journal.read(path)
    written(path.with_name("whole.jsonl"), {"row": "run"})
    path.write_text(path.with_name("whole.jsonl").read_text() + '{"schema": 3, "ro\n{"schema": 3, "row": "end"}\n')
    with pytest.raises(UserError, match="line 2: not a row of a journal"):
        journal.read(path)
    with pytest.raises(UserError, match="cannot read the journal"):
        journal.read(tmp_path / "absent.jsonl")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot open the journal .*\n  mend: .*--out FOLDER"):
        journal.Journal(tmp_path / "file" / "journal.jsonl")


WRONG = [
    ("end", {"at": None}, "at: Input should be a valid string"),
    ("end", {"colour": "red"}, "colour: Extra inputs are not permitted"),
    ("start", {"pass": "thyme"}, "pass: Input should be 'time', 'memory' or 'quality'"),
    ("start", {"cell": CELL | {"layers": 3}}, "cell.layers: Unexpected"),
    ("finish", {"rounds_s": [0.1, 0.0]}, "rounds_s.1: Input should be greater than 0"),
    ("finish", {"rounds_s": []}, "rounds_s: List should have at least 1 item"),
    ("finish", {"certificate": None}, "certificate: Input should be a valid string"),
    ("finish", {"compiles": 2}, "compiles: Input should be 0"),
    ("finish", {"pass": "memory", "host_peak": -1}, "host_peak: Input should be greater than or equal to 0"),
]


@pytest.mark.parametrize("row, changes, message", WRONG, ids=[message.split(":")[0] for *_, message in WRONG])
def test_a_row_that_bench_would_not_write_is_refused(tmp_path, row, changes, message):
    path = written(tmp_path / "journal.jsonl", *({"row": name} for name in ("run", row)))
    with pytest.raises(ValueError, match=re.escape(message)):
        written(path, {"row": row, **changes})
    assert len(journal.read(path).rows) == 2  # nothing of it was written
    lines = path.read_text().splitlines()
    path.write_text(f"{lines[0]}\n{json.dumps(json.loads(lines[1]) | changes)}\n")
    with pytest.raises(UserError, match=re.escape(f"line 2: not a row that bench writes\n  got:      {message}")):
        journal.read(path)


def test_the_schema_says_what_the_reader_says(tmp_path):
    """Anyone's validator of JSON Schema comes to the same verdict, but for what JSON cannot tell."""
    validator = jsonschema.Draft202012Validator(schema.json_schema())
    path = written(tmp_path / "journal.jsonl", *({"row": row} for row in ("run", "resume", "start", "finish", "end")))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert all(validator.is_valid(row) for row in rows)
    by_name = {row["row"]: row for row in rows}
    for row, changes, _ in WRONG[:-1]:
        assert not validator.is_valid(by_name[row] | changes), changes


def test_a_second_outcome_of_one_measurement_is_damage(tmp_path):
    """As of two isoforms that have written at once. What a resume, another run, pass, block or twin adds is none."""
    twin, fields = CELL | {"replica": 1}, {"pass": "memory", "row": "finish"}
    one = [{"row": "run"}, {"row": "start"}, {"row": "finish"}, {"row": "finish", "block": 1}, {"row": "finish", "cell": twin}, fields]
    more = [{"row": "resume"}, {"row": "start", "block": 2}, {"row": "resume"}, {"row": "start", "block": 2}, {"row": "finish", "block": 2}]
    path = written(tmp_path / "journal.jsonl", *one, *more, {"row": "end"}, *one, *more)
    assert len(journal.read(path).rows) == 23
    for again, what in (({"row": "finish", "block": 2}, "pass 'time', block 2"), (fields, "pass 'memory', block 0")):
        twice = written(tmp_path / f"{again.get('block')}.jsonl", *one, *more, again)
        line = 1 + len(one + more)
        message = rf"line {line}: a second outcome of numpy, vae train, {what}\n  expected: one in a run; the first is in line \d+\n"
        with pytest.raises(UserError, match=message + "  likely:   two isoforms"):
            journal.read(twice)


def test_one_at_a_time_writes_a_journal(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Whole(path) as out:
        out.write("run")
        out.file.write(b'{"half a r')  # it is in the middle of a row
        for _ in range(2):
            with pytest.raises(UserError, match=r"another isoform is writing this journal\n  mend: wait for it, or use another --out"):
                journal.Journal(path)
        out.file.write(b'ow": 1}')
        assert path.read_bytes().endswith(b'{"half a row": 1}') and len(journal.read(path).rows) == 1  # who reads need not wait
    written(path, {"row": "end"})
    assert [row["row"] for row in journal.read(path).rows] == ["run", "end"]


def test_where_a_file_system_has_no_locks_a_journal_is_written_all_the_same(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(journal.fcntl, "flock", flock)
    assert len(journal.read(written(tmp_path / "journal.jsonl", {"row": "run"})).rows) == 1


NEW = {  # since a version: fields of a run, of a timed cell, of the end
    2: ({"plan", "specs"}, {"code_hash", "versions", "warm_up", "facts", "affinity", "threads"}, set()),
    3: ({"stop", "joined"}, {"transfers", "quiet", "energy"}, {"stopped"}),
}


def test_a_journal_of_version_2_is_still_read(tmp_path):
    plan = {"specs": {"vae": "5"}, "implementations": ["numpy"], "dtype": "float32", "device": "cpu", "batch_size": 64}
    rows = [("run", PLAIN["run"] | {"plan": plan}), ("finish", PLAIN["timed"] | {"pass": "time", "state": "ok"}), ("end", PLAIN["end"])]
    old = [
        {"schema": 2, "row": row} | {key: value for key, value in fields.items() if key not in new}
        for (row, fields), new in zip(rows, NEW[3], strict=True)
    ]
    path = tmp_path / "journal.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in old))
    run, finish, end = journal.read(path).rows
    assert run["plan"]["batch_sizes"] == [64] and run["joined"] is False and finish["quiet"] is None and end["stopped"] is None
    assert len(table.summary(path)) == 1


def test_a_journal_of_version_1_is_still_read(tmp_path):
    """As the first versions wrote it: no plan, no specs, nor which code had run."""
    old = []
    for k, (row, fields) in enumerate((("run", PLAIN["run"]), ("finish", PLAIN["timed"] | {"pass": "time", "state": "ok"}))):
        new_since = NEW[2][k] | NEW[3][k]
        old.append({"schema": 1, "row": row} | {key: value for key, value in fields.items() if key not in new_since})
    path = tmp_path / "journal.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in old))
    run, finish = journal.read(path).rows
    assert run["schema"] == finish["schema"] == 3 and run["plan"] is None and finish["code_hash"] is None
    [line] = table.summary(path).to_dict("records")
    assert line["step_s"] == pytest.approx(0.1) and json.loads(line["code"]) == [None, None]
    assert set(schema.MIGRATIONS) == set(range(1, schema.VERSION))  # from every version there was


FULL_DISK = """
import resource, signal
from pathlib import Path
from harness.bench.journal import Journal, read
from harness.errors import UserError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (120, 120))
path = Path(PATH)
with Journal(path) as journal:
    journal.write("end", at="x" * 20, stopped=None)
    try:
        journal.write("end", at="x" * 60, stopped=None)
    except UserError as error:
        print(error, read(path).warning, len(read(path).rows))
"""


def test_a_full_disk_leaves_whole_rows(python, tmp_path):
    said = python(FULL_DISK.replace("PATH", repr(str(tmp_path / "journal.jsonl"))))
    assert said.startswith("cannot write to the journal") and said.endswith("None 1")


# The table.


def rows_of(*blocks, cell=CELL):
    for k, seconds in enumerate(blocks):
        yield {"row": "finish", "cell": cell, "block": k, "margin": 0.1 * (k + 1), "import_s": 1.0 + k if k < 2 else None, "build_s": 2.0,
               "rounds_s": seconds}  # fmt: skip


def failed(state, cell=CELL, block=0):
    return {"row": "finish", "cell": cell, "block": block, "state": state, "reason": "why"}


def test_the_summary_is_what_the_formulas_say(tmp_path):
    blocks = [[0.4, 0.8, 0.4], [0.8, 0.8, 0.2], [1.6, 1.6, 1.6]]  # medians of a step: 0.1, 0.2, 0.4
    path = written(tmp_path / "journal.jsonl", {"row": "run"}, *rows_of([9.0]), {"row": "run"}, *rows_of(*blocks))
    [line] = table.summary(path).to_dict("records")
    half = 4.302652729911275 * math.log(2) / math.sqrt(3)  # Student's t, 2 degrees of freedom
    assert line["step_s"] == pytest.approx(0.2) and line["samples_per_s"] == pytest.approx(50)
    assert [line["step_low_s"], line["step_high_s"]] == pytest.approx([0.2 * math.exp(-half), 0.2 * math.exp(half)])
    assert [line["samples_low"], line["samples_high"]] == pytest.approx([50 * math.exp(-half), 50 * math.exp(half)])
    within = [statistics.variance(map(math.log, seconds)) for seconds in blocks]
    assert line["within_sd"] == pytest.approx(math.sqrt(statistics.mean(within))) and line["between_sd"] == pytest.approx(math.log(2))
    assert (line["blocks"], line["rounds"], line["certificate"], line["import_s"]) == (3, 9, "abc", 1.5)
    assert line["margin"] == pytest.approx(0.3) and math.isnan(line["first_call_s"])
    long = table.long(path)
    assert sorted(long[long.metric == "step_s"].value) == pytest.approx(sorted(second / 4 for block in blocks for second in block))
    assert set(long[long.metric == "import_s"].value) == {1.0, 2.0} and "first_call_s" not in set(long.metric)


def test_one_block_has_no_interval_and_a_failed_one_is_told(tmp_path):
    path = written(tmp_path / "journal.jsonl", {"row": "run"}, *rows_of([0.4, 0.4]), failed("crash:SIGKILL", block=1))
    [line] = table.summary(path).to_dict("records")
    assert line["state"] == "ok" and line["reason"] == "1 of 2 blocks failed, the first with crash:SIGKILL: why"
    assert line["step_s"] == pytest.approx(0.1) and math.isnan(line["step_low_s"]) and math.isnan(line["between_sd"])


def test_a_cell_that_was_in_flight_is_told(tmp_path):
    path = written(tmp_path / "journal.jsonl", {"row": "run"}, {"row": "start", "pass": "time", "cell": CELL, "block": 0})
    [line] = table.summary(path).to_dict("records")
    assert line["state"] == "interrupted" and math.isnan(line["step_s"]) and line["blocks"] == 0


def test_who_is_faster_is_told_by_pairs_of_a_block(tmp_path):
    blocks, drift = range(8), [1.0, 1.5, 0.7, 1.1, 2.0, 0.9, 1.3, 0.6]  # of the machine: far more than what differs
    noise = [1.0, 1.01, 0.99, 1.005, 0.995, 1.0, 1.01, 0.99]
    speeds = {("numpy", 0): 0.1, ("numpy", 1): 0.1, ("torch", 0): 0.12, ("jax", 0): 0.1}
    rows = []
    for (name, replica), step in speeds.items():
        order = noise if name == "numpy" and not replica else noise[::-1]
        seconds = [[4 * step * drift[k] * order[k]] * 3 for k in blocks]
        rows += rows_of(*seconds, cell={**CELL, "implementation": name, "replica": replica})
    path = written(tmp_path / "journal.jsonl", {"row": "run"}, *rows)
    found = {(row["base"], row["implementation"]): row for row in ratios(path).to_dict("records")}
    assert list(found) == [("numpy", "torch"), ("numpy", "jax"), ("torch", "jax")]
    assert [row["verdict"] for row in found.values()] == ["slower", "equal within noise", "faster"]
    assert found["numpy", "torch"]["ratio"] == pytest.approx(1.2) and found["torch", "jax"]["ratio"] == pytest.approx(1 / 1.2)
    logs = np.log(noise[::-1]) - np.log(noise)  # of the twin
    half = stats.t.ppf(0.975, 7) * logs.std(ddof=1) / math.sqrt(8)
    assert [row["floor"] for row in found.values()] == pytest.approx([math.expm1(half)] * 3)
    assert list(table.summary(path).implementation) == ["numpy", "torch", "jax"]
    wrong = failed("mismatch", {**CELL, "implementation": "jax"}, block=8)
    assert len(ratios(written(tmp_path / "wrong.jsonl", {"row": "run"}, *rows, wrong))) == 1
    alone = ratios(written(tmp_path / "alone.jsonl", {"row": "run"}, *[row for row in rows if not row["cell"]["replica"]]))
    assert set(alone.verdict) == {"cannot tell"} and alone.floor.isna().all()  # without an A/A control nobody knows the noise


def test_what_ran_before_a_cut_is_not_paired_with_what_ran_after_it(tmp_path):
    """The machine is three times slower when the run goes on, in the middle of block 2."""
    cells = {name: CELL | {"implementation": name} for name in ("numpy", "torch", "jax")} | {"twin": CELL | {"replica": 1}}
    speeds = {"numpy": 0.1, "torch": 0.12, "jax": 0.1, "twin": 0.1}
    one = lambda name, block, slow=1: {"row": "finish", "cell": cells[name], "block": block, "rounds_s": [4 * slow * speeds[name]] * 3}
    before = [one(name, block) for block in range(2) for name in cells] + [one("numpy", 2)]
    after = [one(name, 2, 3) for name in ("torch", "jax", "twin")] + [one(name, 3, 3) for name in cells]
    path = written(tmp_path / "journal.jsonl", {"row": "run"}, *before, {"row": "resume"}, *after)
    found = {(row["base"], row["implementation"]): row for row in ratios(path).to_dict("records")}
    assert [(row["ratio"], row["blocks"]) for row in found.values()] == [
        (pytest.approx(1.2), 3), (pytest.approx(1.0), 3), (pytest.approx(1 / 1.2), 4)
    ]  # fmt: skip
    assert [row["floor"] for row in found.values()] == pytest.approx([0.0] * 3)
    assert list(table.summary(path).blocks) == [4, 4, 4]  # what is not paired is kept


# What there is to measure.


def test_cells_say_what_does_not_apply():
    chosen = [specs.load("pca"), specs.load("vae")], [impls.load("numpy"), impls.load("torch-compile")]
    entries = {(one.cell.spec, one.cell.implementation, one.cell.operation): one for one in cells(*chosen, batch_sizes=(64,))}
    assert len(entries) == 2 * (3 + 5)
    assert entries["pca", "torch-compile", "fit"].state == "n-a" and "nothing to compile" in entries["pca", "torch-compile", "fit"].reason
    assert entries["pca", "numpy", "fit"].cell.batch_size == specs.load("pca").data.train
    assert entries["pca", "numpy", "encode"].cell.batch_size == entries["vae", "numpy", "train"].cell.batch_size == 64
    own = cells([specs.load("vae")], [impls.load("numpy")], ("train", "generate"))
    assert [(one.cell.operation, one.cell.batch_size) for one in own] == [("train", 128), ("generate", 128)]
    swept = cells([specs.load("pca")], [impls.load("numpy")], ("fit", "encode"), batch_sizes=(1, 64, 1))
    assert [(one.cell.operation, one.cell.batch_size) for one in swept] == [("fit", 1437), ("encode", 1), ("encode", 64)]


def test_the_machine_is_described_without_its_name():
    card = machine.card()
    assert card["cores"] == len(cpus()) and card["memory_bytes"] > 1 << 28 and card["name"].split("-")[-1][0].isalnum()
    assert machine.slug("Intel(R) Xeon(R) Gold 6130 CPU @ 2.10GHz", 8, []) == "intel-xeon-gold-6130-8cpu"
    assert machine.slug("AMD EPYC 7B13 64-Core Processor", 16, ["NVIDIA H200", "NVIDIA H200"]) == "amd-epyc-7b13-16cpu-nvidia-h200"
    assert machine.versions()["numpy"] == np.__version__
    state = machine.state()
    assert 0 < state["memory_available"] <= card["memory_bytes"] and len(state["load"]) == 3


# A real bench, of what is right and of what is not.

TINY = schedule.Level(blocks=2, rounds=4, cold_blocks=1, operations=("train", "encode", "decode"), note="no ranking")


def measured(monkeypatch, folder, names, device="cpu"):
    monkeypatch.setitem(schedule.LEVELS, "tiny", TINY)
    events = []
    implementations = [impls.load(name) for name in names]
    path = schedule.bench(
        [small("vae")], implementations, level="tiny", dtype="float32", device=device,
        folder=folder, seed=7, command="isoform bench", on_event=events.append,
    )  # fmt: skip
    assert events[0] == {"event": "plan", "total": sum(event["event"] == "cell" for event in events)}
    assert events[-1] == {"event": "end", "stopped": journal.read(path).rows[-1]["stopped"]} and "2 blocks" in events[-1]["stopped"]
    return path


@pytest.mark.needs("torch")
def test_a_real_bench(monkeypatch, tmp_path):
    path = measured(monkeypatch, tmp_path, ["numpy", "torch"])
    run, *rows = journal.read(path).rows
    assert run["row"] == "run" and run["seed"] == 7 and run["note"] == "no ranking" and run["affinity"] == cpus()
    started = [(row["pass"], row["block"], row["cell"]) for row in rows if row["row"] == "start"]
    finished = [row for row in rows if row["row"] == "finish"]
    assert started == [(row["pass"], row["block"], row["cell"]) for row in finished if row["pass"] == "time"] + started[-2:]
    assert [row["when"] for row in rows if row["row"] == "state"] == ["before", "after"] * 2
    timed = [row for row in finished if row["pass"] == "time"]
    twins = [row for row in timed if row["cell"]["replica"]]
    assert len({row["cell"]["implementation"] for row in twins}) == 1 and len(twins) == 2 * 3
    assert not any(row["cell"]["replica"] for row in finished if row["pass"] == "memory")
    assert len(timed) == 3 * 2 * 3 and {row["state"] for row in finished} == {"ok"}
    first, second = ([row["cell"] for row in timed if row["block"] == block] for block in (0, 1))
    assert first != second and sorted(map(table.key, first)) == sorted(map(table.key, second))
    for row in timed:
        assert len(row["rounds_s"]) == 4 and min(row["rounds_s"]) > 0 and row["certificate"] and 0 < row["margin"] < 1
        assert row["affinity"] == cpus() and row["threads"] == run["threads"] == len(cpus())
        assert row["compiles"] == (None if row["cell"]["implementation"] == "numpy" else 0)
        assert all((row[name] is None) == (row["block"] == 1) for name in ("import_s", "build_s", "first_call_s"))
    summary = table.summary(path)
    assert list(summary.operation) == ["train", "train", "encode", "encode", "decode", "decode"]
    assert (summary.blocks == 2).all() and (summary.rounds == 8).all()
    assert (summary.step_low_s < summary.step_s).all() and (summary.step_s < summary.step_high_s).all()
    assert np.allclose(summary.samples_per_s * summary.step_s, summary.batch_size)
    train, encode = summary[summary.operation == "train"], summary[summary.operation == "encode"]
    assert (train.host_peak > 0).all() and encode.host_peak.isna().all()
    assert set(train.memory_reasons.iloc[0]) == {"alloc_peak", "device_reserved_peak", "device_used_peak", "planned_peak"}
    assert "train and fit only" in encode.memory_reasons.iloc[0]["host_peak"]
    assert schedule.exit_code(path) == OK


def test_an_absent_device_is_a_row(monkeypatch, tmp_path):
    path = measured(monkeypatch, tmp_path, ["numpy"], device="cuda")
    finished = [row for row in journal.read(path).rows if row["row"] == "finish"]
    assert {row["state"] for row in finished} == {"unsupported"} and len(finished) == 2 * 3  # of its twin too
    assert "numpy sees no device 'cuda'" in finished[0]["reason"] and schedule.exit_code(path) == NOTHING_RAN


def test_nothing_is_timed_before_its_certificate():
    spec = specs.load("vae")
    with Worker(impls.load("numpy")) as worker:
        cell = cells([spec], [impls.load("numpy")])[0].cell.row()
        request = {"phase": "time", "spec": spec.model_dump_json(), "cell": cell, "seed": 0, "rounds": 2, "affinity": cpus()}
        [answer] = worker.request("measure", **request)
    assert answer["event"] == "error"
