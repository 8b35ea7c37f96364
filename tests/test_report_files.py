"""The report is written whole or not at all, and what cannot be read is a message."""

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from harness import report
from harness.errors import UserError
from harness.report.content import load
from harness.report.page import render, tables
from tests.results_folder import (
    absent,
    failed,
    plant,
    row,
    table,
    write_card,
    write_verify,
    written,
)
from tests.results_folder import folder_fixture as folder_fixture
from tests.results_folder import small_figures_fixture as small_figures_fixture

pytestmark = pytest.mark.usefixtures("small_figures")

# What cannot be read.


def refused(folder: Path) -> str:
    """The message; nothing has changed in the folder."""
    before = written(folder)
    with pytest.raises(UserError) as caught:
        report.build(folder)
    assert written(folder) == before
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.6, 0.99])
def test_a_verify_json_that_was_cut_off(folder, share):
    path = folder / "verify.json"
    path.write_text(path.read_text()[: int(share * len(path.read_text()))])
    message = refused(folder)
    assert str(path) in message and "is not whole" in message and f"isoform verify --out {folder}" in message


def test_a_verify_json_that_is_not_there(folder):
    (folder / "verify.json").unlink()
    assert (
        f"verify.json is not there: a report shows no number without a certificate\n  make it anew: isoform verify --out {folder}"
        in refused(folder)
    )
    with pytest.raises(UserError, match="isoform verify"):
        report.build(folder / "nowhere")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "has schema None"),
        ('{"schema": 2}', "has schema 2, this version reads 1"),
        ('{"schema": 1}', "missing made, command"),
    ],
)
def test_a_verify_json_of_another_make(folder, content, message):
    (folder / "verify.json").write_text(content)
    assert message in refused(folder)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no rows"),
        ([{key: value for key, value in absent("numpy").items() if key != "margin"}], "row 1 is missing margin"),
        ([row("numpy"), row("torch", margin=None)], "row 2 is a pass without a margin"),
        ([row("numpy", certificate=None)], "row 1 is a pass without a margin or a certificate"),
    ],
)
def test_rows_that_are_not_whole(folder, rows, message):
    write_verify(folder, rows, certificates=[])
    assert message in refused(folder)


def put(content: dict, value: object, *path: str | int) -> dict:
    """With another value at this place."""
    *way, last = path
    within = content
    for one in way:
        within = within[one]
    within[last] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "place", "expected", "got"),
    [
        (("certificates",), None, "certificates", "a valid list", "null"),
        (("certificates", 1, "checks"), None, "certificate 2, checks", "a valid list", "null"),
        (("certificates", 0, "checks", 0, "gate"), [1], "certificate 1, check 1, gate", "a valid number", "[1]"),
        (("rows", 1), 7, "row 2", "a valid dictionary", "7"),
        (("rows", 0, "worst"), 5, "row 1, worst", "a valid dictionary", "5"),
        (("rows", 2, "margin"), "x", "row 3, margin", "a valid number", '"x"'),
        (("rows", 2, "dtype"), "float16", "row 3, dtype", "'float64' or 'float32'", '"float16"'),
        (("machine",), None, "machine", "a valid dictionary", "null"),
        (("rows", 0, "spec"), None, "row 1, spec", "a valid string", "null"),
        (("rows", 0, "spec"), "x" * 99 + "\n", None, None, None),
    ],
)
def test_a_verify_json_that_was_edited_is_a_message(folder, path, value, place, expected, got):
    file = folder / "verify.json"
    file.write_text(json.dumps(put(json.loads(file.read_text()), value, *path)))
    if place is None:
        report.build(folder)
        return
    message = refused(folder)
    assert message.startswith(f"{file} is not whole: {place} is not what it should be\n  expected: {expected}\n")
    assert f"\n  got:      {got}\n" in message and f"make it anew: isoform verify --out {folder}" in message


def places(content: object) -> Iterator[tuple[str | int, ...]]:
    """Of everything in it, the first of a list standing for all."""
    below = content.items() if isinstance(content, dict) else list(enumerate(content))[:1] if isinstance(content, list) else ()
    for key, value in below:
        yield (key,)
        yield from ((key, *rest) for rest in places(value))


def test_whatever_is_edited_in_it_is_a_page_or_a_message(folder):
    file = folder / "verify.json"
    write_verify(folder, [failed("jax"), row("numpy"), row("torch", "float32"), absent("keras-jax")], note="of another version", more={})
    text = file.read_text()
    accepted = 0
    for path in places(json.loads(text)):
        for value in (None, 5, "x", [], {}, True):
            file.write_text(json.dumps(put(json.loads(text), value, *path)))
            try:
                content = load(folder)
            except UserError as error:
                assert str(file) in str(error) and f"isoform verify --out {folder}" in str(error), (path, value)
                continue
            render(content)
            tables(content)
            accepted += 1
    assert accepted > 20  # a page is made of what is well


@pytest.mark.parametrize("field", ["framework", "size", "value"])
def test_a_machine_json_that_was_edited_is_a_message(folder, field):
    write_card(folder)
    file = folder / "machine.json"
    file.write_text(json.dumps(put(json.loads(file.read_text()), ["x"], "rows", 1, field)))
    assert (message := refused(folder)).startswith(f"{file} is not whole: row 2, {field} is not what it should be")
    assert f"isoform machine --out {folder}" in message


def test_a_journal_that_is_damaged_and_one_that_is_cut_off(folder):
    path = folder / "journal.jsonl"
    whole = path.read_text()
    path.write_text("x" + whole[1:])
    assert "journal.jsonl, line 1" in refused(folder)
    path.write_text(whole.replace('"renewed-torch"', "null"))  # a speed whose certificate was not renewed
    assert "certificate: Input should be a valid string" in refused(folder)
    path.write_text("".join(whole.splitlines(keepends=True)[:-1])[:-20])  # the memory of jax
    assert "The run was cut off before its end." in report.build(folder).read_text()
    memory = table(folder, "memory").set_index("implementation")
    assert pd.isna(memory.loc["jax", "host_peak"]) and memory.loc["torch", "host_peak"] > 0


# What cannot be written.


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot read .*verify.json: Not a directory"):
        report.build(tmp_path / "file" / "results")
    assert written(tmp_path) == {"file": b""}


@pytest.mark.parametrize(
    "place",
    [
        "tempfile.mkdtemp",
        "pandas.DataFrame.to_csv",
        "pyarrow.parquet.write_table",
        "matplotlib.figure.Figure.savefig",
        "pathlib.Path.write_text",
    ],
)
@pytest.mark.parametrize("again", [False, True])
def test_a_full_disk_leaves_what_was_there(folder, monkeypatch, place, again):
    if again:
        report.build(folder)
    plant(folder, failed("jax"))  # the page would be another
    monkeypatch.setattr(place, full)
    message = refused(folder)
    assert f"cannot write the report into {folder}: No space left on device" in message and "isoform report" in message
    assert not list(folder.glob(".report-*"))


@pytest.mark.parametrize("last", range(8))
def test_a_disk_that_fails_while_parts_are_moved_leaves_what_was_there(folder, monkeypatch, last):
    report.build(folder)
    plant(folder, failed("jax"))
    rename, count = Path.rename, iter(range(100))

    def fails_once(self: Path, target: Path) -> Path:
        return full() if next(count) == last else rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_once)
    assert "cannot write the report" in refused(folder)
    assert not list(folder.glob(".report-*"))
    report.build(folder)
    assert all("1 failed" in (folder / page).read_text() for page in ("report.md", "report.html"))


def test_a_folder_that_cannot_be_written_to(folder, monkeypatch):
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("tempfile.mkdtemp", denied)
    assert "Permission denied" in refused(folder) and not (folder / "report.md").exists()
