"""Journals of several jobs as one: in any order the same bytes, and nothing of two machines."""

import itertools
import json

import pytest

from harness.bench import journal, table
from harness.bench.merge import merge
from harness.bench.ratios import ratios
from harness.errors import NOTHING_RAN, USAGE, UserError
from tests.journal_rows import AT, CELL, MACHINE, Whole
from tests.test_cli import isoform

TORCH = CELL | {"implementation": "torch"}


def job(path, made, *blocks, cells=(CELL, TORCH), more=0.0, **head):
    """A run in a folder of its own, as a scheduler's job leaves it."""
    path.mkdir()
    with Whole(path / "journal.jsonl") as out:
        plan = {"specs": {"vae": "5"}, "implementations": ["numpy", "torch"], "dtype": "float32", "device": "cpu", "batch_sizes": []}
        out.write("run", made=made, plan=plan | {"operations": ["train"]}, **head)
        for block, seconds in enumerate(blocks):
            for cell in cells:
                out.write("finish", cell=cell, block=block, rounds_s=[seconds + more * (cell is TORCH)] * 3)
        out.write("end")
    return path / "journal.jsonl"


@pytest.fixture
def jobs(tmp_path):
    return [job(tmp_path / f"{k}", AT.replace("05:00", f"0{k}:00"), 0.4 + k, 0.5 + k, more=0.1) for k in range(3)]


def test_in_any_order_and_any_grouping_the_same_bytes(tmp_path, jobs):
    texts = {merge(order) for order in itertools.permutations(jobs)}
    assert len(texts) == 1
    [text] = texts
    for k, (one, two, three) in enumerate(itertools.permutations(jobs)):
        (part := tmp_path / f"part-{k}.jsonl").write_text(merge([one, two]))
        assert merge([part, three]) == merge([three, part, one]) == text
    assert merge([*jobs, *jobs]) == text


def test_a_copy_made_on_the_way_adds_nothing(tmp_path, jobs):
    """However far the run had come, and though it was cut off there and resumed: its measurements count once."""
    lines = jobs[0].read_text().splitlines(keepends=True)
    resumed = json.dumps({"schema": 3, "row": "resume", "made": AT}) + "\n"
    whole, copy = tmp_path / "whole.jsonl", tmp_path / "copy.jsonl"
    whole.write_text("".join([*lines[:3], resumed, *lines[3:]]))
    text = merge([whole, jobs[1]])
    for length in range(1, len(lines) + 2):
        copy.write_text("".join(whole.read_text().splitlines(keepends=True)[:length]))
        assert merge([copy, whole, jobs[1]]) == merge([jobs[1], whole, copy]) == text
        (joined := tmp_path / "joined.jsonl").write_text(merge([copy, jobs[1]]))
        assert merge([joined, whole]) == text
    (path := tmp_path / "all.jsonl").write_text(text)
    assert list(table.summary(path).blocks) == [4, 4]


def test_one_run_that_goes_on_in_two_ways_is_refused(tmp_path, jobs):
    lines = jobs[0].read_text().splitlines(keepends=True)
    (other := tmp_path / "other.jsonl").write_text("".join([*lines[:3], lines[4]]))
    for order in itertools.permutations((jobs[0], other, jobs[1])):
        with pytest.raises(UserError, match=r"one run, made 2026-01-02T03:00:00\.000[+]00:00, that goes on in two ways") as error:
            merge(order)
        assert error.value.exit_code == USAGE and str(other) in str(error.value) and "leave one of them out" in str(error.value)


def test_their_blocks_are_different_blocks(tmp_path, jobs):
    (path := tmp_path / "all.jsonl").write_text(merge(jobs))
    run, *rows = journal.read(path).last_run
    assert [row["block"] for row in rows if row["row"] == "finish" and row["cell"]["implementation"] == "torch"] == list(range(6))
    summary = table.summary(path)
    assert list(summary.blocks) == [6, 6]
    [pair] = ratios(path).to_dict("records")
    apart = [one["rounds_s"][0] for one in rows if one["row"] == "finish"]
    assert pair["blocks"] == 6 and min(apart) == 0.4 and run["command"].count("isoform bench") == 3
    again = tmp_path / "again"
    again.mkdir()
    (again / "journal.jsonl").write_text(path.read_text())
    with Whole(again / "journal.jsonl") as out:  # a run after it is a run of its own
        out.write("run", made=AT)
        out.write("finish", block=0, cell=CELL)
    assert list(table.summary(again / "journal.jsonl").blocks) == [1]


def test_two_machines_are_not_made_one(tmp_path, jobs):
    other = job(tmp_path / "other", AT, 0.4, machine=MACHINE | {"cpu": "Another CPU"})
    with pytest.raises(UserError, match="are of two machines: cpu "):
        merge([*jobs, other])
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text(jobs[0].read_text() + other.read_text())
    with pytest.raises(UserError, match="holds runs of two machines") as error:
        table.summary(mixed)
    assert error.value.exit_code == USAGE and "Another CPU" in str(error.value) and "a folder of its own" in str(error.value)


@pytest.mark.parametrize(("what", "value"), [("level", "report"), ("versions", {"numpy": "1.0"})])
def test_what_was_measured_otherwise_stays_apart(tmp_path, jobs, what, value):
    other = job(tmp_path / "other", AT, 0.4, **{what: value})
    with pytest.raises(UserError, match=f"have another {what}"):
        merge([*jobs, other])


def test_the_command(tmp_path, jobs):
    done = isoform("merge", *map(str, jobs), "--out", str(tmp_path / "whole"))
    assert done.returncode == 0 and (tmp_path / "whole" / "journal.jsonl").read_text() == merge(jobs)
    refused = isoform("merge", str(jobs[0]), "--out", str(tmp_path / "whole"))  # the other job's rows would be lost
    assert (
        refused.returncode == 2 and "would be lost" in refused.stderr and (tmp_path / "whole" / "journal.jsonl").read_text() == merge(jobs)
    )
    assert isoform("merge", str(tmp_path / "whole"), str(jobs[0]), "--out", str(tmp_path / "whole")).returncode == 0
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    failed = isoform("merge", str(empty), "--out", str(tmp_path / "none"))
    assert failed.returncode == NOTHING_RAN and "no run in any" in failed.stderr and not (tmp_path / "none").exists()
    cut = tmp_path / "cut.jsonl"
    cut.write_text(jobs[0].read_text()[:-30])
    assert isoform("merge", str(cut), str(jobs[1]), "--out", str(tmp_path / "rest")).returncode == 0  # of a cut one, what is whole
    assert json.loads(jobs[0].read_text().splitlines()[0])["joined"] is False
