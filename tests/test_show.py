"""What the terminal shows: whole numbers on 80 columns, and what a second run takes away."""

from io import StringIO

from rich.console import Console

import impls
import specs
from harness import show
from tests.results_folder import absent, row, write_verify


def shown(monkeypatch, function, *arguments):
    out = StringIO()
    monkeypatch.setattr(show, "console", Console(file=out, width=80))
    function(*arguments)
    return out.getvalue()


def test_the_matrix_is_whole_on_80_columns(monkeypatch):
    rows = [row(name, spec=spec, margin=0.0123) for spec in specs.names() for name in impls.available()]
    lines = shown(monkeypatch, show.matrix, rows).splitlines()
    assert "…" not in "".join(lines)
    for name in impls.available():
        [line] = [line for line in lines if line.startswith(name + " ")]
        assert line.split()[1:] == ["1.2e-02"] * len(specs.names())


def test_a_reason_is_told_once_below_the_matrix(monkeypatch):
    said = shown(monkeypatch, show.matrix, [row("numpy"), absent("keras-jax")])
    assert "absent" in said and said.count("needs keras") == 1


def test_certificates_that_are_replaced_are_named(monkeypatch, tmp_path):
    assert shown(monkeypatch, show.replaced, tmp_path / "verify.json", [row("numpy")]) == ""
    rows = [row("numpy"), row("numpy", spec="ae"), row("torch", spec="ae")]
    write_verify(tmp_path, rows)
    said = " ".join(shown(monkeypatch, show.replaced, tmp_path / "verify.json", [row("numpy")]).split())
    assert "replaces 2 certificates of an earlier run (ae)" in said and "--out ANOTHER_FOLDER" in said
    assert shown(monkeypatch, show.replaced, tmp_path / "verify.json", rows) == ""
