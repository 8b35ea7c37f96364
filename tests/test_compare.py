"""Two runs held against each other, through the command line and its exit codes."""

import json

import pytest
from click.testing import CliRunner

from harness.cli import main
from tests.journal_rows import CELL, MACHINE, Whole

NOISE = [1.0, 1.01, 0.99, 1.005, 0.995, 1.0, 1.01, 0.99]


def run(folder, factor=1.0, blocks=8, machine=MACHINE, twins=True, state="ok", seconds=None, **changes):
    folder.mkdir()
    with Whole(folder / "journal.jsonl") as journal:
        journal.write("run", machine=machine)
        for replica in (0, 1)[: 1 + twins]:
            cell = {**CELL, **changes, "replica": replica}
            for block in range(blocks):
                rounds = seconds or [0.1 * NOISE[(block + 3 * replica) % 8] * factor] * 3
                outcome = {"rounds_s": rounds} if state == "ok" else {"state": state, "reason": "why"}
                journal.write("finish", cell=cell, block=block, **outcome)
    return folder


def compare(*arguments):
    done = CliRunner().invoke(main, ["compare", *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done


@pytest.mark.parametrize(
    "factor, blocks, code, word",
    [(1.0, 8, 0, "equal within noise"), (1.2, 8, 1, "slower"), (1 / 1.2, 8, 0, "faster"), (1.04, 2, 4, "cannot tell")],
)
def test_exit_codes(tmp_path, factor, blocks, code, word):
    base, new = run(tmp_path / "base", blocks=blocks), run(tmp_path / "new", factor, blocks)
    done = compare(base, new / "journal.jsonl", "--json")
    (row,) = json.loads(done.stdout)
    assert (done.exit_code, row["verdict"]) == (code, word)
    assert row["ratio"] == pytest.approx(factor) and row["low"] < row["ratio"] < row["high"] and word.split()[0] in done.stderr


def test_a_difference_below_twice_the_floor_is_no_regression(tmp_path):
    """The control of these runs differs from itself by 10 %: what is slower by 20 % may be chance."""
    base, new = run(tmp_path / "base", twins=False), run(tmp_path / "new", 1.15, twins=False)
    assert compare(base, new).exit_code == 4  # no control, no verdict
    for folder, factor in ((base, 1.0), (new, 1.15)):
        with Whole(folder / "journal.jsonl") as journal:
            for block in range(8):
                rounds = [0.1 * NOISE[block] * factor * 1.1] * 3
                journal.write("finish", cell={**CELL, "replica": 1}, block=block, rounds_s=rounds)
    assert compare(base, new).exit_code == 4  # and neither are they shown to be equal


def test_one_block_tells_nothing(tmp_path):
    assert compare(run(tmp_path / "base", blocks=1), run(tmp_path / "new", 2.0, blocks=1)).exit_code == 4


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"machine": MACHINE | {"cores": 64}}, "two machines: cores 2 and 64"),
        ({"spec_hash": "6" * 64}, "vae (66666666) train numpy"),
        ({"dtype": "float64"}, "no cell in common"),
        ({"state": "mismatch"}, "nothing that was measured"),
    ],
)
def test_what_cannot_be_compared_is_said(tmp_path, changes, message):
    done = compare(run(tmp_path / "base"), run(tmp_path / "new", 2.0, **changes))
    assert done.exit_code == 3 and message in done.stderr and "Traceback" not in done.output


def test_an_empty_journal_and_one_that_is_not_there(tmp_path):
    base, empty = run(tmp_path / "base"), tmp_path / "empty"
    empty.mkdir()
    assert compare(base, empty).exit_code == 2 and "cannot read the journal" in compare(base, empty).stderr
    (empty / "journal.jsonl").touch()
    assert compare(base, empty).exit_code == 3 and "no run in it" in compare(base, empty).stderr
    assert compare(base, tmp_path / "nowhere").exit_code == 2
