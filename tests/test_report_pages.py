"""What both pages say, HTML and Markdown, they say alike, and it is what the tables say."""

import itertools
import math
import re
import shlex
import statistics
from html import unescape
from pathlib import Path

import pandas as pd
import pytest

from harness import report
from harness.report import sentences
from harness.report.answer import answer, headlines
from harness.report.content import START, load
from harness.report.derived import fastest_of, seeds
from harness.report.view import view
from tests.journal_rows import Whole
from tests.results_folder import (
    MACHINE,
    NAMES,
    SECONDS,
    absent,
    cell,
    changed,
    failed,
    lines,
    ranked,
    row,
    table,
    write_card,
    write_sweep,
    write_verify,
)
from tests.results_folder import folder_fixture as folder_fixture
from tests.results_folder import small_figures_fixture as small_figures_fixture

pytestmark = pytest.mark.usefixtures("small_figures")


def both(folder: Path) -> tuple[str, str]:
    """The HTML page as its words, without style, script and sources; the Markdown page."""
    text = report.build(folder).read_text()
    text = re.sub(r"<(script|style).*?</\1>|<pre class=\"code\".*?</pre>", "", text, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", text)).split()), (folder / "report.md").read_text()


def of(row: dict, name: str) -> bool:
    """Whether a row of a journal has the rounds of this implementation, and not of its twin."""
    return bool(row.get("rounds_s")) and (row["cell"]["implementation"], row["cell"]["replica"]) == (name, 0)


def test_the_fastest_is_that_of_the_paired_ratios(folder):
    ranked(folder)

    def slow_later(row: dict) -> dict:
        if row.get("rounds_s"):  # torch is faster by a tenth in each block; the machine is 3 times slower in the later half
            name, block = row["cell"]["implementation"], row["block"]
            second = {"numpy": 1.1, "torch": 1.0, "jax": 2.0}[name] * (3.0 if block >= 5 else 1.0)
            row["rounds_s"] = [second * (1 + 0.001 * (block % 3))] * 3
            if of(row, "numpy") and block >= 5:  # where numpy died
                return {key: row[key] for key in ("schema", "row", "pass", "cell", "block", "at")} | {"state": "crash", "reason": "killed"}
        return row

    changed(folder, slow_later)
    content = load(folder)
    steps = content.cells.set_index("implementation")["step_s"]
    assert steps["numpy"] < steps["torch"]  # unpaired, it looks faster
    assert headlines(content)[0].startswith("**torch trains vae 1.1 times as fast as numpy here")
    page, text = both(folder)
    for told in (page, text):
        assert "equally fast" not in told
        assert "Over fewer blocks than what it is compared with: numpy, vae train 128 (5 of 10)." in told
    assert lines(folder, "| vae | train | numpy |")[0][7] == "5 of 10" and "5 of 10 blocks" in page
    assert lines(folder, "| vae | train | numpy | torch |")[0][6] == "5"
    assert table(folder, "speed").set_index("implementation")["group_blocks"].to_dict() == dict.fromkeys(NAMES, 10)


@pytest.mark.parametrize(
    ("ratios", "fastest", "beaten"),
    [
        ({("a", "b"): (0.9, "slower"), ("a", "c"): (2.0, "slower"), ("b", "c"): (2.0, "cannot tell")}, "a", False),
        ({("a", "b"): (0.97, "cannot tell"), ("a", "c"): (2.0, "slower"), ("b", "c"): (2.1, "slower")}, "b", False),
        ({("a", "b"): (0.9, "faster"), ("b", "c"): (0.9, "faster"), ("a", "c"): (1.1, "slower")}, "c", True),
    ],
)
def test_the_fastest_is_what_none_is_faster_than(ratios, fastest, beaten):
    rows = [dict(base=base, implementation=new, ratio=r, low=r, high=r, verdict=v, text=v) for (base, new), (r, v) in ratios.items()]
    assert fastest_of(["a", "b", "c"], pd.DataFrame(rows)) == (fastest, beaten)


@pytest.mark.parametrize("spoil", ["equal", "two without a block in common", "nothing in common"])
def test_all_are_equally_fast_only_if_all_verdicts_say_so(folder, spoil):
    ranked(folder)

    def alike(row: dict) -> dict | None:
        if row.get("rounds_s"):
            row["rounds_s"] = [0.01 * (1 + 0.001 * ((row["block"] * 7 + len(row["cell"]["implementation"])) % 5))] * 3
            if spoil != "equal" and row["cell"]["implementation"] != "numpy":
                return row if (row["block"] < 5) == of(row, "jax") else None
            if spoil == "nothing in common":
                return None
        return row

    changed(folder, alike)
    (sentence,) = headlines(load(folder))
    assert ("All implementations are equally fast here" in sentence) is (spoil == "equal")
    assert ("cannot be told here" in sentence) is (spoil != "equal")
    assert ("for want of a block that both have: jax." in sentence) is (spoil == "nothing in common")


def test_why_the_run_ended_and_which_intervals_are_too_wide(folder):
    ranked(folder)
    changed(
        folder, lambda row: row | {"stop": {"blocks": 10, "most": 15, "target": 0.05, "budget_s": None}} if row["row"] == "run" else row
    )

    def noisy(row: dict) -> dict:
        if of(row, "torch"):
            row["rounds_s"] = [seconds * (1.0, 1.3)[row["block"] % 2] for seconds in row["rounds_s"]]
        if row["row"] == "end":
            row["stopped"] = "blocks: 10 blocks, the most that there may be; 2 of 4 intervals are wider than 5 % either way"
        return row

    for change, wide in ((lambda row: row, "None of 3 intervals is"), (noisy, "1 of 3 intervals is")):
        changed(folder, change)
        (*_, sentence) = answer(load(folder))
        assert sentence.endswith(f" {wide} wider than 5 % either way, the run's target.") and sentence.count("intervals") == 1
    assert "The run ended for this reason: blocks: 10 blocks, the most that there may be." in sentence
    for told in both(folder):
        assert sentence in told


def test_operations_that_were_not_timed_are_named_with_a_command_that_is_one(folder):
    from click.testing import CliRunner

    from harness.cli import main

    ranked(folder)
    line = "Not timed: loss, encode, decode, generate."
    (found,) = [one for one in view(load(folder))["left_out"] if one.startswith(line)]
    command = shlex.split(found.split("`")[1])
    assert command[:4] == ["isoform", "bench", "--spec", "vae"] and command.count("--operation") == 4
    done = CliRunner().invoke(main, [*command[1:], "--dry-run"])
    assert done.exit_code == 0, done.output
    for told in both(folder):
        assert line in told


def test_the_machines_card_is_in_the_report(folder):
    rows = write_card(folder)
    pages = both(folder)
    for page in pages:
        for told in ("This machine, measured", "no certificate", "421", "403 to 441", "0.809", "2.74 to 3.03", "32.0 MiB", "2 600 MHz"):
            assert told in page, told
        assert "N/A: numpy: product of two matrices: NumPy has no bfloat16" in page and "N/A: no RAPL counter" in page
        assert "Measured with other versions" not in page
    (line,) = lines(folder, "| product of two matrices | bfloat16")
    assert line[2:] == ["1024", "GFLOP/s", "N/A", "421 (403 to 441)"]
    found = table(folder, "machine")
    for had, written_down in zip(rows, found.to_dict("records"), strict=False):
        assert [written_down[name] for name in ("quantity", "dtype", "size", "implementation", "unit")] == [
            had[name] for name in ("operation", "dtype", "size", "framework", "unit")
        ]
        assert had["value"] == written_down["value"] or (had["value"] is None and written_down["detail"] == had["reason"])
    rest = found.set_index("quantity")
    assert rest.loc["physical cores", "detail"] == rest.loc["clock, max", "detail"] == "the system does not tell"
    assert rest.loc["power", "detail"] == "N/A: no RAPL counter" and rest.loc["last cache", "value"] == 2**25
    assert len(pd.read_parquet(folder / "tables" / "machine.parquet")) == len(found) == len(rows) + 8


def test_a_card_of_other_versions_or_of_another_machine_is_told(folder):
    write_card(folder, versions={"numpy": "2.4.5"})
    for page in both(folder):
        assert "Measured with other versions than the run" in page and "numpy 2.4.5 and 2.4.6" in page
    write_card(folder, machine=MACHINE | {"cores": 64})
    for page in both(folder):
        assert "This machine, measured; roofline" in page and "2.74 to 3.03" not in page
        assert "machine.json is of another machine (cores 64 and 2)" in page
    assert not (folder / "tables" / "machine.csv").exists()
    (folder / "journal.jsonl").unlink()  # nothing timed
    write_card(folder)
    assert all("2.74 to 3.03" in page for page in both(folder))


def certificates(text: str, heading: str) -> list[list[str]]:
    """Of each line of the tables below a heading of the Markdown page its certificates."""
    part = text.split(heading, 1)[1].split("\n## ")[0].split("\n**Break")[0]
    return [re.findall(r"`([^`]+)`", line.rsplit("|", 2)[1]) for line in part.splitlines() if re.match(r"\| \w+ \| (vae|train)", line)]


def test_a_number_stands_beside_its_certificate_in_the_text_too(folder):
    write_sweep(folder, "batch")
    ranked(folder)

    def own(row: dict) -> dict:  # the first eight characters tell them apart
        return row | {"certificate": row["cell"]["implementation"] * 3} if row.get("rounds_s") else row

    changed(folder, own)
    _, text = both(folder)
    first = {name: (name * 3)[:8] for name in NAMES}
    assert certificates(text, "## Who is faster?") == [[first[name], first["numpy"]] for name in ("torch", "jax")]
    assert certificates(text, "## The noise floor") == [[first["numpy"]]]
    for heading in ("## Three times", "## Memory"):
        assert certificates(text, heading) == [[first[name]] for name in NAMES], heading
    assert certificates(text, "**Break-even**") == [[first["torch"], first["numpy"]], [first["jax"], first["numpy"]]]
    assert certificates(text, "## Cost over the work") == [["point-1", "point-8", "point-64", "point-51", "point-40"]]


def test_a_noise_floor_names_whose_twin_it_is_of(folder):
    ranked(folder)
    for page in both(folder):
        assert "0 % (numpy)" in page and "drawn at random" not in page
    assert set(table(folder, "ratios")["twin"]) == {"numpy"}


def test_starts_have_the_range_of_their_processes_and_memory_says_that_it_has_none(folder):
    ranked(folder)

    def uneven(row: dict) -> dict:
        if row.get("rounds_s"):
            cold = row["block"] < 3 and not row["cell"]["replica"]
            row |= {"import_s": 1.0 + row["block"] / 10, "build_s": 0.1, "first_call_s": 0.2} if cold else dict.fromkeys(START)
            row["import_s"] = 99.0 if row["cell"]["replica"] else row["import_s"]  # the twin's is none of theirs
        return row

    changed(folder, uneven)
    page, text = both(folder)
    assert "1.1 s (1 to 1.2 s)" in text and "1.1 s 1 to 1.2 s" in page
    for told in (page, text):
        assert "3 processes" in told and "99 s" not in told and "one process, no interval" in told
    times = table(folder, "times").set_index("implementation")
    assert list(times.loc["torch", ["import_s", "import_low_s", "import_high_s", "cold_processes"]]) == [1.1, 1.0, 1.2, 3]
    changed(folder, lambda row: dict(row, **dict.fromkeys(START)) if row.get("rounds_s") and row["block"] else row)
    page, text = both(folder)
    assert "1 process |" in text and "(1 to 1" not in text and "1 process " in page


def test_what_was_planned_and_what_was_measured_is_told_with_its_difference(folder):
    def plan(row: dict) -> dict:
        small = row.get("pass") == "memory" and row.get("state") == "ok" and row["cell"]["implementation"] == "torch"
        return row | {"planned_peak": 35_296, "reasons": {}} if small else row

    changed(folder, plan)
    peak = int(SECONDS["torch"] * 1e10)
    for page in both(folder):
        assert sentences.PLANNED in page and "34.5 KiB" in page and "measured minus planned" in page
    (line,) = [one for one in lines(folder, "| vae | train | torch |") if "34.5 KiB" in one]
    assert line[7:9] == ["34.5 KiB", f"{(peak - 35_296) / 2**20:.1f}"]
    found = table(folder, "memory").set_index("implementation")
    assert found.loc["torch", "measured_minus_planned"] == peak - 35_296 and pd.isna(found.loc["jax", "measured_minus_planned"])


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([*map(row, NAMES)], "all 3 pairs of spec and implementation compute"),
        ([*map(row, NAMES), absent("keras-jax", "n-a", "no loop"), absent("jax-scan", "n-a", "no loop")], "all 3 pairs of spec and "
         "implementation that apply (2 do not) compute"),
        ([row("numpy"), row("torch"), failed("jax"), absent("jax-scan", "n-a", "no loop")], "2 of 3 pairs of spec and implementation that "
         "apply (1 does not) compute"),
        ([*map(row, NAMES), absent("jax-scan", "n-a", "no loop"), absent("keras-jax"), absent("keras-torch")], "all 3 pairs of spec and "
         "implementation that apply and are installed (1 does not, 2 are not) compute"),
        ([row("numpy")], "1 of 1 pairs of spec and implementation compute"),
    ],
)  # fmt: skip
def test_what_does_not_apply_is_no_failure(folder, rows, told):
    write_verify(folder, rows)
    assert f"In float64, {told} the same function" in answer(load(folder))[0]


def test_both_pages_say_alike_how_they_are_read(folder):
    for page in both(folder):
        assert "told apart by their paired ratio, not by whether their intervals overlap" in page and "cannot be ranked" not in page


@pytest.mark.parametrize(("reached", "median"), [(1, math.inf), (2, math.inf), (3, 11.0), (5, 11.0)])
def test_a_seed_that_has_not_reached_the_target_took_for_ever(folder, reached, median):
    with Whole(folder / "quality.jsonl") as journal:
        journal.write("run", machine=MACHINE)
        fields = {"pass": "quality", "state": "ok", "reason": None, "target": -24.5, "loss": -24.6, "code_hash": "c0de"}
        for name, seed in itertools.product(("torch", "numpy"), range(5)):
            there = seed < reached if name == "torch" else True
            took = {"torch": 10.0 + seed / 2, "numpy": 100.0}[name]
            done = {"steps": 900, "seconds": took} if there else {"steps": None, "seconds": None, "reason": "10,000 steps"}
            how = {"certificate": f"renewed-{name}", "versions": {"numpy": "2.4.6"}, "seed": seed}
            journal.write("finish", **fields | how | done, cell=cell(name), block=seed)
    found = seeds(load(folder))
    assert {one["implementation"]: one["seconds"] for one in found} == {"torch": median, "numpy": 100.0}
    assert [one["implementation"] for one in found] == (["numpy", "torch"] if median == math.inf else ["torch", "numpy"])
    for page in both(folder):
        assert ("not reached by half of the seeds" in page) is (median == math.inf) and sentences.SEEDS in page
        assert f"10 to {10 + (reached - 1) / 2:.3g} s" in page


def test_the_spread_between_processes_and_within_them_stands_beside_the_rate(folder):
    ranked(folder)

    def two_speeds(row: dict) -> dict:
        if of(row, "torch"):
            row["rounds_s"] = [seconds * (1.0, 1.5)[row["block"] % 2] for seconds in (0.0199, 0.02, 0.0201)]
        return row

    changed(folder, two_speeds)
    between = 100 * statistics.stdev([math.log((1.0, 1.5)[block % 2]) for block in range(10)])
    within = 100 * statistics.stdev(map(math.log, (0.0199, 0.02, 0.0201)))
    told = f"{between:.2g} % / {within:.2g} %"
    assert told == "21 % / 0.5 %"
    for page in both(folder):
        assert told in page and "spread between / within processes" in page and sentences.SPREAD in page
