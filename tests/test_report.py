"""The report says what was measured, and shows no speed without a certificate."""

import json
import math
import statistics
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy import stats

from harness import report
from harness.report import formats
from harness.report.answer import NEAREST, answer
from harness.report.content import MEASURED, load
from harness.report.derived import against
from harness.report.figures import draw
from harness.report.formats import digits
from tests.journal_rows import Whole
from tests.results_folder import (
    BATCH,
    MACHINE,
    NAMES,
    NOT_INSTALLED,
    SECONDS,
    STEPS,
    absent,
    cell,
    certificate,
    failed,
    lines,
    plant,
    rounds,
    row,
    table,
    write_journal,
    write_verify,
    written,
)
from tests.results_folder import folder_fixture as folder_fixture
from tests.results_folder import small_figures_fixture as small_figures_fixture

# The numbers.


@pytest.mark.usefixtures("small_figures")
def test_the_page_the_tables_and_the_input_have_the_same_numbers(folder):
    assert report.build(folder) == folder / "report.html"
    speed, times, memory = (table(folder, name).set_index("implementation") for name in ("speed", "times", "memory"))
    shown = {line[2]: line for line in lines(folder, "| vae | train |")[: len(NAMES)]}
    for name in NAMES:
        logs = [math.log(statistics.median(rounds(name, block)) / STEPS) for block in range(3)]
        half = stats.t.ppf(0.975, 2) * statistics.stdev(logs) / math.sqrt(3)
        centre = statistics.mean(logs)
        expected = BATCH / np.exp([centre, centre + half, centre - half])
        got = speed.loc[name, ["samples_per_s", "samples_low", "samples_high"]].to_numpy(float)
        np.testing.assert_allclose(got, expected, rtol=1e-12)
        assert speed.loc[name, "certificate"] == f"renewed-{name}" and speed.loc[name, "blocks"] == 3
        assert shown[name][4] == formats.number(expected[0])
        assert shown[name][5] == f"{formats.number(expected[1])} to {formats.number(expected[2])}"
        assert shown[name][6] == formats.seconds(math.exp(centre)) and shown[name][7] == "3"
        assert shown[name][10] == f"`{f'renewed-{name}'[:8]}`"
        for column, base in (("import_s", 1.5), ("build_s", 0.5), ("first_call_s", 2.5)):
            assert times.loc[name, column] == pytest.approx(base + SECONDS[name], rel=1e-12)
        assert memory.loc[name, "host_peak"] == int(SECONDS[name] * 1e10)
        assert "alloc_peak: no device" in memory.loc[name, "missing_because"]
    start, peaks = lines(folder, "| vae | train |")[-2 * len(NAMES) :][: len(NAMES)], lines(folder, "| vae | train |")[-len(NAMES) :]
    for line, peak in zip(start, peaks, strict=True):
        starts = [base + SECONDS[line[2]] for base in (1.5, 0.5, 2.5)]  # the same in each block
        assert line[3:6] == [f"{formats.seconds(one)} ({formats.between(one, one)})" for one in starts]
        assert line[6] == "3 processes" and line[9] == peak[10] == f"`{f'renewed-{line[2]}'[:8]}`"
        assert peak[3:10] == [f"{int(SECONDS[peak[2]] * 1e10) / 2**20:.1f}", *6 * ["N/A"]]


@pytest.mark.usefixtures("small_figures")
def test_the_matrix_is_that_of_verify(folder):
    report.build(folder)
    margins = table(folder, "equivalence").set_index("implementation")["margin"]
    (line, ids) = lines(folder, "| vae | 2.5e-03") + lines(folder, "| vae | `")
    for k, name in enumerate(NAMES, 1):
        assert margins[name] == row(name)["margin"]
        assert line[k] == f"{margins[name]:.1e}" and ids[k] == f"`{row(name)['certificate'][:8]}`"
    checks = table(folder, "checks")
    assert dict(zip(checks["implementation"], checks["error"], strict=True)) == {"numpy": 0.0, "torch": 3e-14, "jax": 2e-15}


def test_the_answer_in_words_is_computed(folder):
    first, speed = answer(load(folder))
    assert (
        "all 3 pairs of spec and implementation that are installed (1 is not) compute" in first and "(1 spec, 3 implementations)" in first
    )
    assert "gradients agree to 13 digits (worst error 3.0e-14, gate 1e-12: torch, vae)" in first
    assert f"1 not installed ({NOT_INSTALLED})" in first and "failed" not in first
    ended = " The run ended for this reason: blocks: 3 blocks, as the level asks."
    assert speed == "3 cells were timed at level quick; no ranking: 3 blocks." + ended
    write_verify(folder, [*map(row, NAMES), row("torch", "float32"), failed("jax", "float32")])
    double, single, speed = answer(load(folder))
    assert "all 3 pairs of spec and implementation compute" in double and "Left out" not in double
    assert (
        single.endswith(NEAREST)
        and NEAREST not in double
        and "1 of 2 pairs" in single
        and "a training trajectory agrees to 5 digits (worst error 4.0e-06" in single
    )
    assert "**1 failed, with no speed on this page: jax vae (fail).**" in single
    assert speed.startswith("2 cells were timed") and "Cells without a speed: 1;" in speed


@pytest.mark.parametrize(
    ("low", "high", "text"), [(100, 399, "100 to 399"), (100, 401, "cannot tell: wider"), (math.nan, math.nan, "one block")]
)
def test_an_interval_that_says_nothing_is_said_to(low, high, text):
    assert text in formats.interval({"samples_low": low, "samples_high": high})


def test_a_pair_without_gradients_answers_with_its_worst_check(tmp_path):
    rows = [row("numpy", spec="pca", worst={"check": 12, "what": "LAPACK", "error": 8.5e-15, "gate": 1e-12})]
    write_verify(tmp_path, rows, certificates=[{**certificate(rows[0]), "checks": []}])
    assert "the worst of all checks of pca agrees to 14 digits (worst error 8.5e-15" in answer(load(tmp_path))[0]


@pytest.mark.parametrize(("error", "text"), [(0, "the last bit"), (9e-15, "14 digits"), (1.1e-14, "13 digits"), (3.0, "0 digits")])
def test_digits(error, text):
    assert digits(error) == text


# No number without a certificate.


def drop(name: str) -> Callable[[Path], None]:
    return lambda folder: write_verify(folder, [row(other) for other in NAMES if other != name])


def other_hash(folder: Path) -> None:
    rows = [row(name) for name in NAMES]
    write_verify(
        folder,
        rows,
        certificates=[certificate(one) | ({"spec_hash": "6" * 64} if one["implementation"] == "torch" else {}) for one in rows],
    )


def mismatch(folder: Path) -> None:
    (folder / "journal.jsonl").unlink()
    write_journal(folder, mismatch=("torch",))


def late_mismatch(folder: Path) -> None:
    with Whole(folder / "journal.jsonl") as journal:  # two good blocks do not make up for it
        journal.write("finish", **{"pass": "time"}, cell=cell("torch"), block=3, state="mismatch", reason="after timing: loss differs")


def revoked(folder: Path) -> None:
    rows = [row(name) for name in NAMES]
    write_verify(folder, rows, certificates=[certificate(one) | {"passed": one["implementation"] != "torch"} for one in rows])


UNCERTIFIED = {
    "a failed check": (lambda folder: plant(folder, failed("torch")), "fail", "failed: 3 (gradients)"),
    "a failed check in another dtype": (lambda folder: plant(folder, row("torch"), failed("torch", "float32")), "fail", "failed: 3"),
    "a crash": (
        lambda folder: plant(folder, failed("torch", state="crash:SIGSEGV", reason="after check 2")),
        "crash:SIGSEGV",
        "after check 2",
    ),
    "a hang": (lambda folder: plant(folder, failed("torch", state="timeout", reason="no answer")), "timeout", "no answer"),
    "never verified": (drop("torch"), "no-certificate", "isoform verify"),
    "only left out": (lambda folder: plant(folder, absent("torch")), "no-certificate", "isoform verify"),
    "another spec of that name": (other_hash, "no-certificate", "isoform verify"),
    "a certificate that did not pass": (revoked, "no-certificate", "isoform verify"),
    "a mismatch at renewal": (mismatch, "mismatch", "terms differ"),
    "a mismatch after timing": (late_mismatch, "mismatch", "loss differs"),
}


def speeds_of(name: str) -> list[str]:
    """Every measured value of that implementation as it would stand in a CSV or, rounded, on the page."""
    step = math.exp(statistics.mean(math.log(statistics.median(rounds(name, block)) / STEPS) for block in range(3)))
    each = [seconds / STEPS for block in range(3) for seconds in rounds(name, block)]
    starts = [base + SECONDS[name] for base in (1.5, 0.5, 2.5)]
    csv = [repr(value)[:10] for value in (step, BATCH / step, *starts, *each)]  # cut, not rounded: the file has more digits
    shown = [
        formats.seconds(step),
        f"{formats.number(BATCH / step)}",
        formats.mib(int(SECONDS[name] * 1e10)),
        str(int(SECONDS[name] * 1e10)),
    ]
    return [*csv, *shown, "123.456789"]


def found_in(folder: Path, values: list[str]) -> set[str]:
    """Which of the values stand in what report wrote: the page, the tables and the text of the figures."""
    tables = {path.stem for path in folder.glob("tables/*.csv")}
    assert {"speed", "times", "memory", "ratios", "measurements", "noise", "rules"} <= tables
    assert tables == {path.stem for path in folder.glob("tables/*.parquet")}
    files = (folder / "report.md", folder / "report.html", *folder.glob("tables/*.csv"), *folder.glob("figures/*.svg"))
    texts = [path.read_text() for path in files] + [pd.read_parquet(path).to_csv() for path in folder.glob("tables/*.parquet")]
    return {value for value in values if any(value in text for text in texts)}


@pytest.mark.usefixtures("small_figures")
def test_a_speed_that_is_shown_would_be_found(folder):
    report.build(folder)
    values = speeds_of("torch")
    assert found_in(folder, values) == set(values) - {"123.456789"}  # how long a check took is nowhere


@pytest.mark.parametrize("name", UNCERTIFIED)
@pytest.mark.usefixtures("small_figures")
def test_no_speed_without_a_certificate(folder, name):
    spoil, state, reason = UNCERTIFIED[name]
    spoil(folder)
    report.build(folder)
    assert found_in(folder, speeds_of("torch")) == set()
    assert found_in(folder, speeds_of("jax")) == set(speeds_of("jax")) - {"123.456789"}  # the others keep theirs
    assert "torch" not in set(table(folder, "measurements")["implementation"])
    pairs = table(folder, "ratios")
    assert list(zip(pairs["base"], pairs["implementation"], strict=True)) == [("numpy", "jax")]
    for csv in ("speed", "times", "memory"):
        (of_torch,) = table(folder, csv).query("implementation == 'torch'").to_dict("records")
        assert of_torch["state"] == state and reason in of_torch["reason"] and pd.isna(of_torch["certificate"])
        assert all(pd.isna(of_torch[column]) for column in MEASURED if column in of_torch)
    (line,) = lines(folder, "| vae | train | torch |")
    assert line[4:] == [state, *7 * [""]]
    text = (folder / "report.md").read_text()
    assert f"- torch, vae train: {state}: " in text and reason in text


@pytest.mark.parametrize("name", UNCERTIFIED)
def test_no_bar_without_a_certificate(folder, name):
    def labels(figure: Figure) -> list[str]:
        return [label.get_text() for label in figure.axes[0].get_yticklabels()]

    UNCERTIFIED[name][0](folder)
    figures = draw(load(folder))
    throughput = figures["throughput"].axes[0]
    widths = dict(zip(labels(figures["throughput"]), [bar.get_width() for bar in throughput.patches], strict=True))
    assert widths["torch"] == 0 and widths["jax"] > 0
    whiskers = [segment for lines in throughput.collections for segment in lines.get_segments()]
    assert [len(segment) > 0 for segment in whiskers[:3]] == [True, False, True]
    state = UNCERTIFIED[name][1]
    for figure in ("three_times", "memory"):  # a line with its state, and nothing drawn in it
        rows = [line.split()[-1] for line in labels(figures[figure])]
        assert rows[:3] == ["numpy", "torch", "jax"]
        for axes in figures[figure].axes:
            at = {
                row: [bar.get_width() for bar in axes.patches if round(bar.get_y() + bar.get_height() / 2) == k]
                for k, row in enumerate(rows)
            }
            assert sum(at["torch"]) == 0 and sum(at["jax"]) > 0
        assert state in [text.get_text() for text in figures[figure].axes[0].texts]


def test_a_failure_is_a_labelled_line_in_the_figure_and_not_a_gap(folder):
    plant(folder, failed("torch"))
    (axes,) = draw(load(folder))["throughput"].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["numpy", "torch", "jax", "keras-jax"]
    widths = [bar.get_width() for bar in axes.patches]
    assert widths[0] > 0 and widths[1] == 0 and widths[2] > 0 and widths[3] == 0
    assert [text.get_text().split()[0] for text in axes.texts] == ["fail", "not-installed", "renewed-", "renewed-"]


def test_with_nothing_certified_there_is_still_a_page(folder):
    plant(folder, *map(failed, NAMES))
    report.build(folder)
    text = (folder / "report.md").read_text()
    assert "In float64, 0 of 3 pairs" in text and "No speed is shown" in text and "check 3 failed: gradients" in text
    assert table(folder, "measurements").empty


@pytest.mark.usefixtures("small_figures")
def test_what_is_not_installed_is_a_row_with_its_reason(folder):
    report.build(folder)
    text = (folder / "report.md").read_text()
    assert lines(folder, "| vae | 2.5e-03")[0][4] == "absent"
    assert f"- not-installed: keras-jax (vae): {NOT_INSTALLED}" in text
    assert f"- keras-jax, vae train: not-installed: {NOT_INSTALLED}" in text
    of_keras = table(folder, "equivalence").set_index("implementation").loc["keras-jax"]
    assert of_keras["state"] == "not-installed" and of_keras["reason"] == NOT_INSTALLED


@pytest.mark.usefixtures("small_figures")
def test_the_ranking_is_against_the_fastest_and_has_its_verdicts(folder):
    report.build(folder)
    assert "## Who is faster" not in (folder / "report.md").read_text()  # level quick ranks nothing
    (folder / "journal.jsonl").unlink()
    write_journal(folder, blocks=10, note=None)
    report.build(folder)
    shown = {line[2]: line[3:] for line in lines(folder, "| vae | train |") if line[3] == "numpy"}
    assert list(shown) == ["torch", "jax"]
    for name, (_, ratio, _, blocks, floor, verdict, *_) in shown.items():
        assert ratio == f"{SECONDS[name] / SECONDS['numpy']:.3g}" and floor == "0 % (numpy)" and verdict == "slower" and blocks == "10"
    turned = {row["implementation"]: row for row in against(table(folder, "ratios"), "torch")}
    assert turned["numpy"]["ratio"] == pytest.approx(SECONDS["numpy"] / SECONDS["torch"]) and turned["numpy"]["text"] == "faster"
    assert turned["numpy"]["low"] <= turned["numpy"]["ratio"] <= turned["numpy"]["high"] and turned["jax"]["text"] == "slower"


# The page as a whole.


def test_the_page_has_its_parts_in_order(folder):
    report.build(folder)
    text = (folder / "report.md").read_text()
    parts = [
        "In float64",
        "## Do they compute",
        "## How fast?",
        "## Three times",
        "## Memory",
        "## Machine",
        "isoform run --level quick",
        "## Reading",
    ]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert "isoform bench" in text and "seed 11" in text and "numpy 2.4.6" in text and "nan" not in text
    for target in [part.split(")")[0] for part in text.split("](")[1:]]:
        assert (folder / target).exists(), target


def test_figures_are_images_with_their_words(folder):
    plant(folder, *map(row, NAMES), failed("torch", "float32"), absent("jax-scan", "n-a", "no loop"))
    report.build(folder)
    names = ["equivalence_float32", "equivalence_float64", "memory", "noise", "three_times", "throughput"]
    assert sorted(path.name for path in (folder / "figures").iterdir()) == sorted(
        f"{name}.{kind}" for name in names for kind in ("pdf", "png", "svg")
    )
    words = {}
    for name in names:
        assert (folder / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG\r\n")
        pdf = (folder / "figures" / f"{name}.pdf").read_bytes()
        assert pdf.startswith(b"%PDF-") and b"CreationDate" not in pdf
        words[name] = "\n".join(ElementTree.parse(folder / "figures" / f"{name}.svg").getroot().itertext())
    assert "n/a" in words["equivalence_float64"] and "1.2e-01" in words["equivalence_float64"]
    assert "FAIL" in words["equivalence_float32"] and "log10(error / gate)" in words["equivalence_float32"]
    assert "rows / s" in words["throughput"] and "MiB" in words["memory"] and "milliseconds" in words["three_times"]


def test_the_same_results_give_the_same_files(folder):
    report.build(folder)
    before = written(folder)
    report.build(folder)
    assert written(folder) == before


def test_without_a_journal_the_page_says_so_and_old_speeds_go(folder):
    report.build(folder)
    (folder / "journal.jsonl").unlink()
    report.build(folder)
    assert sorted(path.name for path in (folder / "tables").iterdir()) == [
        f"{name}.{kind}" for name in ("checks", "equivalence") for kind in ("csv", "parquet")
    ]
    assert [path.name for path in (folder / "figures").glob("*.png")] == ["equivalence_float64.png"]
    text = (folder / "report.md").read_text()
    assert "Nothing was timed" in text and "## How fast?" not in text


def test_importing_report_is_light(python):
    code = "import sys, harness.report; print(*{'pandas', 'matplotlib', 'jinja2', 'scipy', 'numpy'} & set(sys.modules))"
    assert python(code) == ""


def test_no_pyplot(python, folder):
    code = f"import sys; from harness import report; report.build({str(folder)!r}); print('matplotlib.pyplot' in sys.modules)"
    assert python(code) == "False"


def test_what_was_changed_after_verify_has_no_speed(tmp_path):
    write_verify(tmp_path, [row(name) for name in NAMES])
    write_journal(tmp_path)
    path = tmp_path / "journal.jsonl"
    changed = []
    for line in path.read_text().splitlines():
        one = json.loads(line)
        if one.get("cell", {}).get("implementation") == "torch" and "code_hash" in one:
            one["code_hash"] = "another"
        if one.get("cell", {}).get("implementation") == "jax" and "versions" in one:
            one["versions"] = {"numpy": "2.4.7"}
        changed.append(json.dumps(one))
    path.write_text("\n".join(changed) + "\n")
    content = load(tmp_path)
    states = dict(zip(content.cells["implementation"], content.cells["state"], strict=True))
    assert states == {"numpy": "ok", "torch": "no-certificate", "jax": "no-certificate"}
    assert "is not what was verified" in content.cells["reason"].iloc[1]
    assert set(content.long["implementation"]) == {"numpy"} and content.cells["step_s"].notna().sum() == 1


@pytest.mark.usefixtures("small_figures")
def test_two_machines_in_one_folder_are_told(folder):
    report.build(folder)
    assert "timed on another" not in (folder / "report.md").read_text()
    write_verify(folder, [*map(row, NAMES), absent("keras-jax")], machine=MACHINE | {"cores": 64, "cpu": "Other CPU"})
    report.build(folder)
    text = (folder / "report.md").read_text()
    assert text.startswith("# isoform: Test CPU")
    assert "timed on another**, the one below: cpu Other CPU and Test CPU; cores 64 and 2." in text
    assert "| cores | 2 |" in text and "| cores | 64 |" not in text
