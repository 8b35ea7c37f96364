"""The command line, as a person meets it: exit codes, messages without tracebacks, workers that die or hang."""

import json
import os
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

import impls
import specs
from harness.cli import main
from harness.errors import BROKEN, FAILED, NOTHING_RAN, OK, USAGE
from harness.verify import run
from tests.small import small_file

ROOT = Path(__file__).parents[1]


def isoform(*arguments: str, path: Path | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess:
    folders = os.pathsep.join(map(str, filter(None, [path, ROOT])))
    command = [sys.executable, "-m", "harness.cli", *map(str, arguments)]
    return subprocess.run(
        command, env={**os.environ, "PYTHONPATH": folders, "COLUMNS": "160"}, capture_output=True, text=True, timeout=280, cwd=cwd or ROOT
    )


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_verify_at_once(tmp_path, asked):
    command = [sys.executable, "-m", "harness.cli", "verify", "--spec", "vae", "--spec", "ae", "--impl", "numpy", "--level", "report"]
    command += ["--out", str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what runs in the background is born deaf to it
    )  # fmt: skip
    for _ in range(300):
        if workers := psutil.Process(process.pid).children():
            break
        time.sleep(0.1)
    time.sleep(2)
    start = time.monotonic()
    process.send_signal(asked)
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - start < 15 and process.returncode == 130
    assert "interrupted" in said and "Traceback" not in said and not list((tmp_path / "out").glob("*"))
    assert not psutil.wait_procs(workers, timeout=5)[1]


BAD_TOML = {
    "cut.toml": ('model = "vae', "not valid TOML"),
    "key.toml": ('model = "vae"\n[architecture]\nlatent = 2\n[optimizer]\nlern_rate = 1.0', "did you mean 'learning_rate'"),
    "width.toml": ('model = "ae"\n[architecture]\nlatent = 2\nhidden = [-3]', "greater than or equal to 1"),
    "latent.toml": ('model = "ae"\n[architecture]\nlatent = 65', "larger than the data"),
    "beta.toml": ('model = "vae"\n[architecture]\nlatent = 2\n[loss]\nbeta = -1.0', "greater than or equal to 0"),
    "batch.toml": ('model = "vae"\n[architecture]\nlatent = 2\n[training]\nbatch_size = 5000', "larger than the data set"),
    "rate.toml": ('model = "vae"\n[architecture]\nlatent = 2\n[optimizer]\nlearning_rate = nan', "finite"),
}


@pytest.mark.parametrize("name", BAD_TOML)
def test_a_bad_spec_is_a_message_and_exit_code_2(name, tmp_path):
    text, message = BAD_TOML[name]
    (tmp_path / name).write_text(text)
    done = isoform("verify", tmp_path / name, "--impl", "numpy", "--out", tmp_path / "out")
    assert done.returncode == USAGE
    assert message in done.stderr and name in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--spec", "vea"], "did you mean 'vae'"),
        (["--spec", "no.toml"], "cannot read"),
        (["--impl", "numpie"], "did you mean 'numpy'"),
        (["--level", "huge"], "quick"),
        (["--out", ""], "it is empty"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(arguments, message):
    done = isoform("verify", *arguments)
    assert done.returncode == USAGE and message in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["bench", "--impl", "numpy", "--target"],
        ["bench", "--impl", "numpy", "--budget"],
        ["run", "--impl", "numpy", "--timeout"],
        ["sweep", "batch", "--impl", "numpy", "--budget"],
        ["quality", "--impl", "numpy", "--target"],
        ["gate", "HEAD", "--dry-run", "--budget"],
    ],
)
def test_a_number_that_is_none_is_refused_and_nothing_is_written(tmp_path, capsys, command):
    for value in ("nan", "inf", "-inf", "1e7"):
        with pytest.raises(SystemExit) as end:
            main([*command, value, "--out", str(tmp_path / "out")])
        said = capsys.readouterr().err
        assert end.value.code == USAGE and command[-1] in said and not list(tmp_path.iterdir()), said
        assert "not in the range" in said if value == "-inf" and command[0] != "quality" else "give a finite one" in said


def test_two_specs_of_one_name_are_refused(tmp_path):
    mine = tmp_path / "vae.toml"
    mine.write_text('model = "vae"\n[architecture]\nlatent = 2\n')
    done = isoform("verify", "--spec", "vae", mine, "--dry-run")
    assert done.returncode == USAGE and "another spec is called 'vae' too" in done.stderr
    done = isoform("verify", "--spec", "vae", "--spec", "vae", "--impl", "numpy", "--dry-run")
    assert done.returncode == OK


def test_an_error_that_nobody_foresaw_is_a_message_with_an_exit_code_of_its_own(monkeypatch, capsys):
    monkeypatch.setattr("specs.names", lambda: 1 / 0)
    with pytest.raises(SystemExit) as end:
        main(["list"])
    said = capsys.readouterr().err
    assert end.value.code == BROKEN and "unexpected ZeroDivisionError: division by zero (test_cli.py:" in said


def test_a_results_folder_that_cannot_be_written_is_found_before_anything_runs(tmp_path):
    (tmp_path / "file").write_text("")
    done = isoform("verify", "--spec", "vae", "--impl", "numpy", "--out", tmp_path / "file" / "out")
    assert done.returncode == USAGE and "cannot write" in done.stderr and "Traceback" not in done.stderr


def test_a_device_that_is_absent_is_a_row_with_its_reason(tmp_path):
    done = isoform("verify", "--spec", "linear_ae", "--impl", "numpy", "--device", "cuda", "--out", tmp_path, "--json")
    assert done.returncode == NOTHING_RAN and not (tmp_path / "verify.json").exists() and "nothing could be verified" in done.stderr
    row = json.loads(done.stdout)["rows"][0]
    assert row["state"] == "unsupported" and "sees no device 'cuda'" in row["reason"] and row["certificate"] is None


def test_verify_writes_certificates_and_prints_json(tmp_path):
    done = isoform("verify", "--spec", "linear_ae", "--impl", "numpy", "--out", tmp_path, "--json")
    assert done.returncode == OK, done.stderr
    content = json.loads(done.stdout)
    assert content == json.loads((tmp_path / "verify.json").read_text())
    assert content["rows"][0]["state"] == "pass" and content["rows"][0]["certificate"] == content["certificates"][0]["id"]
    assert content["certificates"][0]["spec_hash"] == specs.load("linear_ae").hash


def test_dry_run_runs_nothing(tmp_path):
    done = isoform("verify", "--spec", "vae", "--impl", "numpy", "--dry-run", "--out", tmp_path / "out")
    assert done.returncode == OK and "pending" in done.stdout and not (tmp_path / "out").exists()


def third_party(folder: Path, name: str, body: str) -> None:
    """An installed package whose backend is NumPy's, with `body` run on each backend that it builds."""
    (folder / f"{name}.py").write_text(
        "import os, signal, time\n"
        "from impls.numpy import backend as inner\n"
        "from impls.numpy.backend import devices\n"
        "def build(spec, **options):\n"
        "    backend = inner.build(spec, **{**options, 'variant': None})\n"
        + textwrap.indent(textwrap.dedent(body), "    ")
        + "\n    return backend\n"
    )
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[isoform.implementations]\n{name} = {name}\n")


FAULTS = {
    "killed": ("backend.terms = lambda batch: os.kill(os.getpid(), signal.SIGKILL)", "crash:SIGKILL"),
    "segfault": ("backend.terms = lambda batch: os.kill(os.getpid(), signal.SIGSEGV)", "crash:SIGSEGV"),
    "leaves": ("backend.terms = lambda batch: os._exit(7)", "crash:exit 7"),
    "raises": ("def bad(batch): raise ValueError('no such luck')\nbackend.terms = bad", "fail"),
    "wrong": ("old = backend.gradients\nbackend.gradients = lambda b: {k: v * 1.001 for k, v in old(b).items()}", "fail"),
}


def test_what_dies_or_is_wrong_is_reported_and_the_others_go_on(tmp_path):
    for name, (body, _) in FAULTS.items():
        third_party(tmp_path, name, body)
    third_party(tmp_path, "needy", "")
    (tmp_path / "needy.py").write_text("import no_such_engine")
    mine = tmp_path / "my ae.toml"
    mine.write_text('model = "ae"\n[architecture]\nlatent = 3\nhidden = [5]\n')
    chosen = [argument for name in [*FAULTS, "needy", "numpy"] for argument in ("--impl", name)]
    done = isoform("verify", "--spec", "linear_ae", "--spec", mine, *chosen, "--out", tmp_path / "out", path=tmp_path)
    assert done.returncode == FAILED and "Traceback" not in done.stderr
    rows = {(row["implementation"], row["spec"]): row for row in json.loads((tmp_path / "out" / "verify.json").read_text())["rows"]}
    for spec in ("linear_ae", "my ae"):
        assert rows["numpy", spec]["state"] == "pass" and rows["needy", spec]["state"] == "not-installed"
        assert "no_such_engine" in rows["needy", spec]["reason"] and "pip install needy" in rows["needy", spec]["reason"]
        for name, (_, state) in FAULTS.items():
            assert rows[name, spec]["state"] == state, rows[name, spec]
            assert rows[name, spec]["certificate"] is None
    assert "no such luck" in rows["raises", "my ae"]["failures"][0]
    for part in ("where:", "what:", "expected:", "got:", "likely:", "repeat:"):
        assert part in "\n".join(rows["wrong", "my ae"]["failures"])
    program, *repeat = shlex.split(rows["wrong", "my ae"]["failures"][0].split("repeat:")[1])
    again = isoform(*repeat, path=tmp_path, cwd=tmp_path)
    assert program == "isoform" and again.returncode == FAILED and "check 3 failed" in again.stderr


def test_a_worker_that_hangs_is_ended_and_reported(tmp_path, monkeypatch):
    third_party(tmp_path, "hangs", "backend.gradients = lambda batch: time.sleep(1000)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    one = impls.Implementation("hangs", "", "hangs")
    pairs = run.plan([specs.load("linear_ae")], [one, impls.load("numpy")], ["float64"], "cpu", "highest")
    run.verify(pairs, "quick", silence_s=15)
    states = {pair.implementation.name: pair.state for pair in pairs}
    assert states == {"hangs": "timeout", "numpy": "pass"}


def test_a_third_party_may_be_wrong_in_bench_but_has_no_speed(tmp_path):
    third_party(tmp_path, "fast", "old = backend.terms\nbackend.terms = lambda b: {k: v * 1.001 for k, v in old(b).items()}")
    out = tmp_path / "out"
    done = isoform("run", "--spec", small_file(tmp_path, "linear_ae"), "--impl", "numpy", "--impl", "fast", "--out", out, path=tmp_path)
    assert done.returncode == FAILED, done.stderr
    rows = [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()]
    finished = [row for row in rows if row["row"] == "finish" and row["pass"] == "time"]
    assert {row["state"] for row in finished if row["cell"]["implementation"] == "fast"} == {"mismatch"}
    assert {row["state"] for row in finished if row["cell"]["implementation"] == "numpy"} == {"ok"}
    assert not any("rounds_s" in row for row in finished if row["cell"]["implementation"] == "fast")
    assert (out / "report.md").exists(), done.stderr
    page = (out / "report.md").read_text()
    speed = [line for line in page.splitlines() if line.startswith("| linear_ae | train | fast")]
    assert speed and all(("rows / s" not in line and "mismatch" in line) or "fail" in line for line in speed)
    cells = (out / "tables" / "measurements.csv").read_text()
    assert ",numpy," in cells and ",fast," not in cells
    assert (out / "figures" / "throughput.png").stat().st_size > 1000
    cut = tmp_path / "cut"
    cut.mkdir()
    (cut / "verify.json").write_text((out / "verify.json").read_text()[:500])
    done = isoform("report", cut)
    assert done.returncode == USAGE and "not whole" in done.stderr and not (cut / "report.md").exists()
    done = isoform("report", tmp_path / "nowhere")
    assert done.returncode == USAGE and "isoform verify" in done.stderr
    journal = out / "journal.jsonl"
    text = journal.read_text()
    journal.write_text(text[: -len(text.splitlines()[-1]) // 2])
    assert isoform("report", out).returncode == OK  # a last row that was cut off costs that row only
