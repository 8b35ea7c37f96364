"""Two runs held against each other, through the command line and its exit codes."""

import json

import pytest
from click.testing import CliRunner

import impls
import specs
from harness import machine
from harness.bench import confirm
from harness.bench.merge import merge
from harness.cli import main
from harness.verify.certificate import code_hash
from tests.journal_rows import CELL, MACHINE, Whole

NOISE = [1.0, 1.01, 0.99, 1.005, 0.995, 1.0, 1.01, 0.99]


def run(folder, factor=1.0, blocks=8, machine=MACHINE, twins=True, state="ok", seconds=None, head=None, timed=None, name="", **changes):
    """A results folder with one run of one cell; `head` and `timed`: fields of its run row, and of its finish rows."""
    folder.mkdir(exist_ok=True)
    with Whole(folder / (name or "journal.jsonl")) as journal:
        journal.write("run", machine=machine, **(head or {}))
        for replica in (0, 1)[: 1 + twins]:
            cell = {**CELL, **changes, "replica": replica}
            for block in range(blocks):
                rounds = seconds or [0.1 * NOISE[(block + 3 * replica) % 8] * factor] * 3
                outcome = {"rounds_s": rounds, **(timed or {})} if state == "ok" else {"state": state, "reason": "why"}
                journal.write("finish", cell=cell, block=block, **outcome)
    return folder


def compare(*arguments):
    done = CliRunner().invoke(main, ["compare", *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit)
    assert "Traceback" not in done.output
    return done


@pytest.mark.parametrize(
    "factor, blocks, code, word",
    [(1.0, 8, 0, "equal within noise"), (1.2, 8, 4, "unconfirmed"), (1 / 1.2, 8, 0, "faster"), (1.04, 2, 4, "cannot tell")],
)
def test_exit_codes(tmp_path, factor, blocks, code, word):
    base, new = run(tmp_path / "base", blocks=blocks), run(tmp_path / "new", factor, blocks)
    done = compare(base, new / "journal.jsonl", "--json")
    (row,) = json.loads(done.stdout)["cells"]
    assert (done.exit_code, row["verdict"]) == (code, word)
    assert row["ratio"] == pytest.approx(factor) and row["low"] < row["ratio"] < row["high"] and word.split()[0] in done.stderr


HERE = machine.card()
VAE = specs.load("vae")
PRESENT = {"spec": "vae", "spec_hash": VAE.hash}  # a run of this very code on this very machine


def head(level="ci", **changes):
    return {"versions": machine.versions(), "specs": {VAE.hash: VAE.model_dump(mode="json")}, "level": level, **changes}


def present(folder, factor, **changes):
    code = {"code_hash": code_hash(impls.load("numpy"))}
    return run(folder, factor, **{"machine": HERE, "head": head(), "timed": code, **PRESENT, **changes})


def measured_again(monkeypatch, factor, **changes):
    """In place of a real rerun: its journal, so many times as slow as the base."""
    asked = []

    def bench(specs, implementations, *, folder, name, **how):
        asked.append((specs, implementations, how))
        run(folder, factor, machine=HERE, name=name, **PRESENT, **changes)
        return folder / name

    monkeypatch.setattr(confirm.schedule, "bench", bench)
    return asked


@pytest.mark.parametrize("again, code, word", [(1.2, 1, "slower"), (1.0, 0, "not slower again"), (0.8, 0, "not slower again")])
def test_only_what_is_slower_twice_is_a_regression(tmp_path, monkeypatch, again, code, word):
    asked = measured_again(monkeypatch, again)
    done = compare(present(tmp_path / "base", 1.0), present(tmp_path / "new", 1.2), "--json")
    (row,) = json.loads(done.stdout)["cells"]
    assert (done.exit_code, row["verdict"]) == (code, word) and row["again"]["value"] == pytest.approx(again)
    told = "the base was measured earlier, and not again; `isoform gate BASE_REV` measures both in one job"
    assert (row["reason"] == told) == (told in done.stderr) == (word == "slower")
    ((spec,), (implementation,), how) = asked[0]
    assert len(asked) == 1 and spec.hash == VAE.hash and implementation.name == "numpy"
    assert (how["operations"], how["batch_sizes"], how["level"], how["dtype"]) == (["train"], [CELL["batch_size"]], "ci", "float32")


def test_what_is_not_slower_is_not_measured_again(tmp_path, monkeypatch):
    asked = measured_again(monkeypatch, 1.0)
    assert compare(present(tmp_path / "base", 1.0), present(tmp_path / "new", 0.9)).exit_code == 0 and not asked


def test_a_rerun_without_a_number_confirms_nothing(tmp_path, monkeypatch):
    measured_again(monkeypatch, 1.2, state="crash:SIGKILL")
    done = compare(present(tmp_path / "base", 1.0), present(tmp_path / "new", 1.2))
    assert done.exit_code == 4 and "unconfirmed: crash:SIGKILL: why" in done.stderr


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"machine": MACHINE}, "this is another machine (cpu, "),
        ({"timed": {"code_hash": "c0de"}}, "the code has changed since"),
        ({"head": head(versions={"numpy": "1.0"})}, "other versions are installed here"),
        ({"head": head(specs={})}, "its journal does not hold the spec"),
        ({"implementation": "theirs"}, "there is no such implementation here"),
        ({"precision": "default"}, "bench has no precision 'default'"),
    ],
)
def test_what_cannot_be_measured_here_stays_unconfirmed(tmp_path, monkeypatch, changes, reason):
    asked, common = measured_again(monkeypatch, 1.2), {key: changes[key] for key in changes if key not in ("head", "timed")}
    done = compare(present(tmp_path / "base", 1.0, **common), present(tmp_path / "new", 1.2, **changes))
    assert done.exit_code == 4 and f"unconfirmed: {reason}" in done.stderr and not asked


def test_no_rerun_is_said(tmp_path, monkeypatch):
    asked = measured_again(monkeypatch, 1.2)
    done = compare(present(tmp_path / "base", 1.0), present(tmp_path / "new", 1.2), "--no-rerun")
    assert done.exit_code == 4 and "no rerun was asked for" in done.stderr and not asked


def test_a_real_rerun_measures_the_suspect(tmp_path):
    """Base and new hold times that no machine has: what is measured now is slower than the base by far."""
    base, new = present(tmp_path / "base", 1e-6, batch_size=128), present(tmp_path / "new", 2e-6, batch_size=128, head=head("quick"))
    done = compare(base, new, "--json")
    (row,) = json.loads(done.stdout)["cells"]
    assert (done.exit_code, row["verdict"]) == (1, "slower") and row["again"]["value"] > 10 and row["again"]["n"] == 3, done.stderr


def test_a_difference_below_twice_the_floor_is_no_regression(tmp_path):
    """The control of these runs differs from itself by 10 %: what is slower by 20 % may be chance."""
    base, new = run(tmp_path / "base", twins=False), run(tmp_path / "new", 1.15, twins=False)
    assert compare(base, new).exit_code == 4  # no control, no verdict
    for folder, factor in ((base, 1.0), (new, 1.15)):
        with Whole(folder / "journal.jsonl") as journal:
            for block in range(8):
                rounds = [0.1 * NOISE[block] * factor * 1.1] * 3
                journal.write("finish", cell={**CELL, "replica": 1}, block=block, rounds_s=rounds)
    (row,) = json.loads(compare(base, new, "--json").stdout)["cells"]
    assert row["verdict"] == "cannot tell" and row["ratio"] == pytest.approx(1.15)  # and neither are they shown to be equal


def test_one_block_tells_nothing(tmp_path):
    assert compare(run(tmp_path / "base", blocks=1), run(tmp_path / "new", 2.0, blocks=1)).exit_code == 4


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"machine": MACHINE | {"cores": 64}}, "two machines: cores 2 and 64"),
        ({"spec_hash": "6" * 64}, "vae (66666666) train numpy"),
        ({"dtype": "float64"}, "no cell in common"),
        ({"implementation": "torch"}, "no cell in common"),
        ({"state": "not-installed"}, "not compared: not-installed: why"),
    ],
)
def test_what_cannot_be_compared_is_said(tmp_path, changes, message):
    done = compare(run(tmp_path / "base"), run(tmp_path / "new", 2.0, **changes))
    assert done.exit_code == 3 and message in done.stderr


@pytest.mark.parametrize("state", ["mismatch", "crash:SIGSEGV", "timeout"])
def test_what_fails_in_the_new_run_is_not_passed_over(tmp_path, state):
    done = compare(run(tmp_path / "base"), run(tmp_path / "new", state=state), "--json")
    (row,) = json.loads(done.stdout)["cells"]
    assert done.exit_code == 1 and row["verdict"] == "fails" and row["ratio"] is None and f"{state}: why" in done.stderr


SPEC = {"training": {"batch_size": CELL["batch_size"]}}
PLAN = {"specs": {"vae": CELL["spec_hash"]}, "implementations": ["numpy", "torch"], "dtype": "float32", "device": "cpu", "batch_sizes": [],
        "operations": ["train", "fit"]}  # fmt: skip
ASKED = {"plan": PLAN, "specs": {CELL["spec_hash"]: SPEC}}


def of_both(folder, factor=1.0, head=None, torch=("start", "finish"), mismatch=False, **changes):
    """A run of NumPy's training, and of torch's with these changes, as far as it came."""
    run(folder, factor, head=head or ASKED)
    cell = {**CELL, "implementation": "torch", **changes}
    with Whole(folder / "journal.jsonl") as journal:
        for block in range(8):
            if "start" in torch:
                journal.write("start", cell=cell, block=block)
            if "finish" in torch:
                journal.write("finish", cell=cell, block=block, rounds_s=[0.2 * NOISE[block]] * 3)
        if mismatch:
            journal.write("finish", cell={**cell, "operation": "fit"}, block=0, state="mismatch", reason="why")
    return folder


@pytest.mark.parametrize(
    "new, code, word, reason",
    [
        ({}, 0, "equal within noise", ""),
        ({"torch": ("start",)}, 1, "fails", "interrupted: the run has ended before it had a number; the same command with --resume"),
        ({"torch": ("start",), "head": {"plan": None}}, 1, "fails", "interrupted: the run has ended"),
        ({"torch": ("start",), "mismatch": True}, 1, "fails", "mismatch: why"),
        ({"torch": ()}, 1, "fails", "interrupted: the run has ended"),
        ({"torch": (), "head": ASKED | {"plan": PLAN | {"batch_sizes": [10]}}}, 1, "fails", "interrupted: the run has ended"),
        ({"torch": (), "head": {"plan": None}}, 0, "not compared", "not asked for: it is not in the new run's plan"),
        *(
            ({"torch": (), "head": ASKED | {"plan": PLAN | changes}}, 0, "not compared", "not asked for: it is not in the new run's plan")
            for changes in (
                {"implementations": ["numpy"]}, {"operations": ["fit"]}, {"specs": {"vae": "6" * 64}}, {"dtype": "float64"},
                {"device": "cuda"}, {"batch_sizes": [64]},
            )
        ),
    ],
)  # fmt: skip
def test_what_the_new_run_has_not_come_to_fails_and_what_it_was_not_asked_for_is_said(tmp_path, new, code, word, reason):
    done = compare(of_both(tmp_path / "base"), of_both(tmp_path / "new", **new), "--json")
    numpy, torch = json.loads(done.stdout)["cells"]
    assert (done.exit_code, torch["implementation"], torch["verdict"]) == (code, "torch", word)
    assert numpy["verdict"] == "equal within noise" and numpy["reason"] is None
    assert (torch["reason"] or "").startswith(reason) and reason in done.stderr and (torch["ratio"] is None) == bool(reason)


def test_a_batch_size_is_each_specs_own_where_none_was_asked_for_and_a_fit_has_but_one(tmp_path):
    for k, (size, operation, code) in enumerate(((64, "train", 0), (1437, "fit", 1))):
        base = of_both(tmp_path / f"base-{k}", batch_size=size, operation=operation)
        assert compare(base, of_both(tmp_path / f"new-{k}", torch=())).exit_code == code


def test_of_merged_runs_each_was_asked_for_its_own(tmp_path):
    """One of NumPy in float32, one of torch at fit: none of torch's training."""
    parts = [PLAN | {"implementations": ["numpy"]}, PLAN | {"implementations": ["torch"], "operations": ["fit"]}]
    for name, plan in zip(("one", "two"), parts, strict=True):
        of_both(tmp_path / name, head=ASKED | {"plan": plan, "command": name}, torch=())
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "journal.jsonl").write_text(merge([tmp_path / name / "journal.jsonl" for name in ("one", "two")]))
    done = compare(of_both(tmp_path / "base"), tmp_path / "new")
    assert done.exit_code == 0 and "torch, vae train: not compared: not asked for" in done.stderr


def test_a_run_that_was_killed_at_once_fails_as_a_whole(tmp_path):
    base, new = of_both(tmp_path / "base"), tmp_path / "new"
    new.mkdir()
    with Whole(new / "journal.jsonl") as journal:
        journal.write("run", **ASKED)
    done = compare(base, new)
    assert done.exit_code == 1 and done.stderr.count("fails: interrupted") == 2


def test_what_fails_in_the_base_gives_no_ratio(tmp_path):
    done = compare(run(tmp_path / "base", state="mismatch"), run(tmp_path / "new"))
    assert done.exit_code == 3 and "base has: nothing that was measured" in done.stderr


def test_an_empty_journal_and_one_that_is_not_there(tmp_path):
    base, empty = run(tmp_path / "base"), tmp_path / "empty"
    empty.mkdir()
    assert compare(base, empty).exit_code == 2 and "cannot read the journal" in compare(base, empty).stderr
    (empty / "journal.jsonl").touch()
    assert compare(base, empty).exit_code == 3 and "no run in it" in compare(base, empty).stderr
    assert compare(base, tmp_path / "nowhere").exit_code == 2


def test_a_journal_that_was_cut_off_is_read_as_far_as_it_goes(tmp_path):
    base, new = run(tmp_path / "base"), run(tmp_path / "new")
    path = new / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    assert compare(base, new).exit_code == 0
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[:3], lines[3][:50], *lines[4:]]))  # in the middle it is damage
    done = compare(base, new)
    assert done.exit_code == 2 and "line 4: not a row of a journal" in done.stderr


def test_another_schema_version_is_refused(tmp_path):
    base, new = run(tmp_path / "base"), run(tmp_path / "new")
    path = new / "journal.jsonl"
    rows = [json.loads(line) | {"schema": 99} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = compare(base, new)
    assert done.exit_code == 2 and "schema version 99" in done.stderr


def test_runs_of_two_machines_in_one_journal_are_refused(tmp_path):
    base, new = run(tmp_path / "base"), run(tmp_path / "new", machine=MACHINE | {"cores": 64})
    run(tmp_path / "new")
    done = compare(base, new)
    assert done.exit_code == 2 and "two machines" in done.stderr
