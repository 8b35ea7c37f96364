"""report.html: whole in one file, with a structure that a keyboard and a screen reader can use, and nothing in it without a certificate."""

import itertools
import json
import math
import re
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest

from harness import report
from harness.report import html_page, sources, theme
from harness.report.answer import answer, headlines
from harness.report.content import load
from harness.report.derived import break_even, overtakes, planned, seeds
from harness.report.svg import inline
from harness.report.view import command, given, paid_off, slopes
from tests.results_folder import (
    MACHINE,
    NAMES,
    SECONDS,
    STEPS,
    absent,
    failed,
    plant,
    ranked,
    row,
    table,
    write_journal,
    write_quality,
    write_sweep,
    write_verify,
)
from tests.results_folder import folder_fixture as folder_fixture
from tests.results_folder import small_figures_fixture as small_figures_fixture

VOID = {"meta", "link", "input", "br", "hr", "img", "use", "path", "rect", "line", "circle", "stop"}
OPTIONAL = {"li", "tr", "td", "th", "p", "option", "dt", "dd"}  # HTML ends these by itself


class Page(HTMLParser):
    """Every element with its attributes; `words` of those that are asked for; unclosed elements are an error."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.styles, self.scripts, self.open = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        while self.open[-1] != tag:
            assert self.open.pop() in OPTIONAL, f"</{tag}> ends another"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("style", "script"):
            (self.styles if self.open[-1] == "style" else self.scripts).append(data)

    def having(self, tag: str, **attributes: str) -> list[dict]:
        return [found for name, found in self.elements if name == tag and attributes.items() <= found.items()]


@pytest.fixture(name="page")
def page_fixture(folder) -> Page:
    ranked(folder)
    return Page(report.build(folder).read_text())


# One file, and nothing beside it.


def test_it_asks_for_nothing_outside_itself(page):
    for tag, attributes in page.elements:
        assert tag not in ("iframe", "object", "embed", "base", "audio", "video", "source", "img")
        for name in ("src", "srcset", "poster", "action", "data", "background"):
            assert not attributes.get(name), (tag, attributes)
        target = attributes.get("href", "")
        assert not re.match(r"(?i)(\w+:)?//|javascript:", target), (tag, target)
        if tag == "link":
            assert attributes == {"rel": "icon", "href": "data:,"}
        assert all("url(" not in str(value).replace("url(#", "") for value in attributes.values())
        assert not any(name.startswith("on") for name in attributes)
    for style in page.styles:
        assert "@import" not in style and "url(" not in style and "@font-face" not in style
    for script in page.scripts:
        assert not re.search(r"fetch\(|XMLHttpRequest|import\(|importScripts|new Worker|sendBeacon|\.src\b", script)
    (policy,) = page.having("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def test_links_lead_somewhere(folder, page):
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    targets = {attributes["href"] for tag, attributes in page.elements if tag in ("a", "use")}
    inside = {target[1:] for target in targets if target.startswith("#")}
    assert inside <= ids and len(inside) > 20
    for target in targets - {f"#{one}" for one in inside}:
        assert (folder / target).exists(), target
    for name in NAMES:  # from bar and row to command, certificate and source
        cell = f"cell-vae-train-{name}-float32-cpu-128"
        assert cell in inside and f"certificate-{name}-float64-certificate" in inside and f"source-impls-{name}-vae-py" in inside
        bars = [
            attributes for tag, attributes in page.elements if tag == "a" and attributes["href"] == f"#{cell}" and "tabindex" in attributes
        ]
        rows = [
            attributes
            for tag, attributes in page.elements
            if tag == "a" and attributes["href"] == f"#{cell}" and "tabindex" not in attributes
        ]
        assert len(bars) >= 5 and len(rows) >= 3


def test_ids_are_unique_and_what_has_no_words_has_a_label(page):
    ids = Counter(attributes["id"] for _, attributes in page.elements if "id" in attributes)
    assert [one for one, count in ids.items() if count > 1] == []
    drawings = page.having("svg")
    assert len(drawings) >= 5
    for one in drawings:
        assert one["role"] == "img" and all(label in ids for label in one["aria-labelledby"].split())
    words = Counter(tag for tag, _ in page.elements)
    assert words["title"] == len(drawings) + 1 and words["desc"] == len(drawings) and words["h1"] == 1 and words["main"] == 1
    labels = {one["for"] for one in page.having("label")}
    for tag in ("input", "select"):
        assert page.having(tag) and all(one["id"] in labels for one in page.having(tag))
    for one in page.having("div", role="region"):
        assert one["tabindex"] == "0" and (one.get("aria-label") or one["aria-labelledby"] in ids)
    for one in page.having("section"):
        assert one["aria-labelledby"] in ids
    assert all(one.get("scope") in ("col", "row") for one in page.having("th"))
    assert page.having("html", lang="en") and page.having("a", href="#main")[0]["class"] == "skip"


def test_what_people_write_is_text(folder):
    nasty = "<script>alert(1)</script>"
    write_verify(folder, [row("numpy", spec=nasty), absent("torch", reason=nasty)], machine=MACHINE | {"cpu": nasty}, command=nasty)
    text = report.build(folder).read_text()
    assert nasty not in text and text.count("&lt;script&gt;alert(1)") >= 4 and len(Page(text).having("script")) == 2


def test_a_page_of_a_gpu_names_it_and_has_its_speeds(folder):
    ranked(folder)
    for path in (folder / "verify.json", folder / "journal.jsonl"):
        path.write_text(path.read_text().replace('"device": "cpu"', '"device": "cuda"').replace('"gpu": []', '"gpu": ["NVIDIA Test"]'))
    text = report.build(folder).read_text()
    assert "Test CPU, 2 cores, NVIDIA Test</h1>" in text and "--device cuda" in text and "--device cpu" not in text
    assert (folder / "report.md").read_text().startswith("# isoform: Test CPU, NVIDIA Test, ")
    assert set(table(folder, "speed").device) == {"cuda"} and table(folder, "speed").step_s.notna().any()


@pytest.mark.parametrize("blocks", [1, 2, 10])
def test_what_is_missing_is_never_nan(folder, blocks):
    write_quality(folder)
    write_sweep(folder, "batch")
    ranked(folder, blocks=blocks, absent=("keras-jax",))
    for text in (report.build(folder).read_text(), (folder / "report.md").read_text()):
        seen = re.sub(r"<(script|style).*?</\1>|<pre class=\"code\".*?</pre>", "", text, flags=re.DOTALL)
        assert not re.search(r"\b(nan|NaN|NaT|None|inf)\b|<NA>|undefined", re.sub(r"<[^>]*>", " ", seen))


def test_a_page_that_would_be_too_large_leaves_drawings_to_their_files(folder, monkeypatch):
    ranked(folder)
    whole = len(report.build(folder).read_bytes())
    monkeypatch.setattr(html_page, "LIMIT", whole - 1)
    text = report.build(folder).read_text()
    assert len(text.encode()) < whole and "figures/memory.svg</a>: left out of this page" in text
    assert "figures/three_times.svg</a>: left out" not in text  # no more than is needed


# Colours.


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.1."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_known():
    assert contrast("#000000", "#ffffff") == pytest.approx(21) and contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_both_themes_can_be_read(page):
    style = page.styles[0]
    blocks = [dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", block)) for block in re.findall(r":root[^{]*\{([^}]*)\}", style)]
    light, dark, chosen = blocks
    assert dark == chosen and light.keys() == dark.keys() == theme.THEME.keys() and light != dark
    assert "prefers-color-scheme: dark" in style and "prefers-reduced-motion" in style and "@media print" in style
    for colours in (light, dark):
        for text, ground in itertools.product(theme.TEXT, theme.BACKGROUND):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground, contrast(colours[text], colours[ground]))
        for mark in theme.MARKS:
            assert contrast(colours[mark], colours["paper"]) >= 3, mark


def test_a_figure_takes_the_colours_of_the_page():
    drawn = (
        '<svg xmlns:xlink="http://www.w3.org/1999/xlink" width="9pt" viewBox="0 0 9 9" xmlns="http://www.w3.org/2000/svg">'
        '<defs><clipPath id="p1"><path id="x" d="M 0.123456 0"/></clipPath></defs><g id="patch_1"><path style="fill: #0072b2"/></g>'
        '<a xlink:href="page#cell" target="_blank"><path clip-path="url(#p1)" style="stroke: #000000"/></a><use xlink:href="#x"/>'
        "<text style=\"font: bold 9px 'DejaVu Sans'; fill: #123456\">a &lt; b</text></svg>"
    )
    made = inline(drawn, "name", "f-", "Title", "How & why", "page#")
    expected = (
        '<svg role="img" aria-labelledby="name-title name-desc" viewBox="0 0 9 9" xmlns="http://www.w3.org/2000/svg">'
        '<title id="name-title">Title</title><desc id="name-desc">How &amp; why</desc>'
        '<defs><clipPath id="f-i0"><path d="M 0.1 0" id="f-i1"/></clipPath></defs><path style="fill: var(--blue)"/>'
        '<a href="#cell" tabindex="-1"><path clip-path="url(#f-i0)" style="stroke: var(--ink)"/></a><use href="#f-i1"/>'
        '<text style="font-weight: bold; font-size: 9px; fill: #123456">a &lt; b</text></svg>'
    )
    assert made == expected


# The answer, and what follows from the tables.


def test_the_headline_is_the_paired_ratio(folder):
    ranked(folder)
    first, *_ = answer(load(folder))
    assert first == headlines(load(folder))[0]
    torch, jax = SECONDS["torch"] / SECONDS["numpy"], SECONDS["jax"] / SECONDS["numpy"]  # blocks differ by a factor that all share
    assert first.startswith(
        f"**numpy trains vae {torch:.3g} times as fast as torch here, 95 % interval {torch:.3g} to {torch:.3g} (paired by block).**"
    )
    assert f" It is {jax:.3g} times as fast as jax ({jax:.3g} to {jax:.3g})." in first
    assert first.endswith("In float64 they have equal gradients to 3.0e-14.")


def test_what_cannot_be_told_says_so_and_quick_ranks_nothing(folder):
    ranked(folder, blocks=2)
    lines = (folder / "journal.jsonl").read_text().splitlines()
    noisy = [json.loads(line) for line in lines]
    for one in noisy:  # torch is slow in one block and as fast as numpy in the other
        if one.get("cell", {}).get("implementation") == "torch" and one.get("rounds_s"):
            scale = (SECONDS["numpy"] / SECONDS["torch"], 1.2)[one["block"]]
            one["rounds_s"] = [seconds * scale for seconds in one["rounds_s"]]
    (folder / "journal.jsonl").write_text("\n".join(map(json.dumps, noisy)) + "\n")
    content = load(folder)
    (sentence,) = headlines(content)
    (pair,) = content.ratios[content.ratios["implementation"].eq("torch")].to_dict("records")
    assert pair["verdict"] == "cannot tell" and pair["more_blocks"] >= 1
    assert f"This run cannot tell numpy from torch (ratio {pair['ratio']:.3g}" in sentence
    assert (
        f"needs {pair['more_blocks']} more block" in sentence
        and sentence.startswith("**numpy trains vae 2.31 times as fast as jax here")
        and "as fast as torch" not in sentence
    )
    (folder / "journal.jsonl").unlink()
    write_journal(folder)  # level quick, with its note
    assert headlines(load(folder)) == [] and break_even(load(folder)).empty


@pytest.mark.parametrize("later", [0.5, 1.75, 40.0])
@pytest.mark.parametrize("ratio", [0.2, 0.87, 0.999, 1.0, 1.3])
def test_break_even_by_counting(later, ratio):
    step, end = 0.01, 10**6
    steps = np.arange(end)
    ahead = np.flatnonzero(later + steps * step * ratio < steps * step - 1e-9)
    expected = ahead[0] if len(ahead) else math.inf
    found = overtakes(later, step, ratio)
    assert abs(found - expected) <= 1 if expected < math.inf else found >= end  # where both are level, the last digit decides
    if found < math.inf:
        lead = [count * step * (1 - ratio) - later for count in (found - 1, found)]
        assert lead[0] <= 1e-9 and lead[1] > -1e-9 and lead[1] - lead[0] == pytest.approx(step * (1 - ratio))
        assert lead[1] > 0 or found - 1 == pytest.approx(later / step / (1 - ratio), rel=1e-12)
    assert math.isnan(overtakes(later, step, math.nan))


def test_break_even_of_the_tables(folder):
    ranked(folder)
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    for one in lines:  # numpy is the faster in its steps, and starts last; jax starts first
        if one.get("rounds_s"):
            one["import_s"] = {"numpy": 9.0, "torch": 5.0, "jax": 1.0}[one["cell"]["implementation"]]
    (folder / "journal.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    rows = {(one["implementation"], one["base"]): one for one in break_even(load(folder)).to_dict("records")}
    assert set(rows) == {("numpy", "torch"), ("numpy", "jax"), ("torch", "jax")}
    scale = math.exp(np.mean([math.log(1 + 0.01 * block) for block in range(10)])) / STEPS  # of the blocks, as the journal has them
    for (new, base), one in rows.items():
        start = {name: {"numpy": 9.0, "torch": 5.0, "jax": 1.0}[name] + 3.0 + 2 * SECONDS[name] for name in (new, base)}
        step = {name: SECONDS[name] * scale for name in (new, base)}
        assert one["later_s"] == pytest.approx(start[new] - start[base])
        count = 0
        while start[new] + count * step[new] >= start[base] + count * step[base]:
            count += 1
        assert abs(one["steps"] - count) <= 1 and one["verdict"] == "faster"
        assert paid_off(one).startswith(f"{float(f'{count:.3g}'):,.0f}".replace(",", " ")[:3])
    assert paid_off(rows["numpy", "jax"] | {"verdict": "slower"}) == "never"
    assert paid_off(rows["numpy", "jax"] | {"verdict": "cannot tell", "steps_high": math.inf}).startswith("cannot tell (")
    report.build(folder)
    assert len(table(folder, "break_even")) == 3


def test_planned_memory_is_held_against_what_was_measured(folder):
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    for one in lines:
        if "host_peak" in one and one["cell"]["implementation"] == "torch":
            one["planned_peak"], one["reasons"] = one["host_peak"] // 2, {}
            one |= {"alloc_peak": None}
    (folder / "journal.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    rows = planned(load(folder)).set_index("implementation")
    assert rows.loc["torch", "planned_over_measured"] == pytest.approx(0.5, rel=1e-6) and rows.loc["torch", "held_against"] == "host_peak"
    assert np.isnan(rows.loc["jax", "planned_over_measured"]) and "no device" in rows.loc["jax", "not_held_because"]
    text = report.build(folder).read_text()
    (of_torch, of_jax) = (
        re.search(rf"<tr[^>]*{name}.*?</tr>", text[text.index("Peak memory in MiB; planned") :])[0] for name in ("torch", "jax")
    )
    assert '">0.5</td><td class="wrap">host</td>' in of_torch and 'N/A</td><td class="wrap">no device' in of_jax
    assert "0.5 (host) |" in (folder / "report.md").read_text()


# No number without a certificate, in what stands beside the speeds too.


@pytest.mark.usefixtures("small_figures")
def test_rules_and_noise_of_what_is_not_certified_say_only_that(folder):
    report.build(folder)
    assert set(table(folder, "noise")["implementation"]) == {"numpy"}
    rules = table(folder, "rules")
    assert Counter(rules["implementation"])["torch"] == Counter(rules["implementation"])["numpy"] > 5
    plant(folder, failed("numpy"), absent("keras-jax"))
    report.build(folder)
    rules = table(folder, "rules").set_index("implementation")
    assert rules.loc["keras-jax", ["rule", "state", "detail"]].tolist() == [1, "N-A", "not measured"]
    assert rules.loc["numpy", ["rule", "state", "detail"]].tolist() == [1, "FAIL", "no certificate, so no number"]
    assert not (folder / "tables" / "noise.csv").exists() and len(rules.loc["torch"]) > 5


@pytest.mark.parametrize("spoil", ["none", "fails", "fails in another dtype", "absent", "hash", "code", "mismatch"])
@pytest.mark.usefixtures("small_figures")
def test_time_to_quality_needs_a_certificate_too(folder, spoil):
    if spoil == "fails":
        plant(folder, failed("torch"))
    if spoil == "fails in another dtype":
        plant(folder, row("torch"), failed("torch", "float32"))
    if spoil == "absent":
        write_verify(folder, [row("numpy"), row("jax")])
    if spoil == "mismatch":
        (folder / "journal.jsonl").unlink()
        write_journal(folder, mismatch=("torch",))
    write_quality(folder, **{"hash": {"spec_hash": "6" * 64}, "code": {"code_hash": "another"}}.get(spoil, {}))
    found = {one["implementation"]: one for one in seeds(load(folder))}
    torch, good = found["torch"], spoil == "none"
    assert (torch["reached"], torch["seeds"]) == (2 if good else 0, 3) and torch["target"] == -24.5
    assert found["jax"]["failed"] == [("n-a", "nothing to train")] and found["jax"]["reached"] == 0
    text = report.build(folder).read_text()
    assert ("72.5 s<" in text and "71.5 to 72.5 s" in text) is good and ("71.5" in text) is good
    assert ("71.5" in (folder / "tables" / "quality.csv").read_text()) is good
    if good:
        assert (torch["seconds"], torch["steps"]) == (72.5, 901) and torch["failed"] == [("not reached", "10,000 steps")]
    else:
        assert math.isnan(torch["seconds"]) and torch["certificate"] is None


def widths(*wrong: int) -> list[dict]:
    return [
        failed("torch") | {"spec": f"vae-width-{k}"} if k in wrong else row("torch", spec=f"vae-width-{k}") for k in (1, 8, 64, 512, 4096)
    ]


def test_a_sweep_is_drawn_and_its_points_are_vouched_for(folder):
    write_sweep(folder, "batch")
    write_sweep(folder, "width")
    write_verify(folder, widths(8))
    (folder / "verify.json").rename(folder / "sweep-width.verify.json")
    write_verify(folder, [*map(row, NAMES)])
    content = load(folder)
    curves = content.curves.set_index(["sweep", "size"])
    assert list(curves.loc["batch"].index) == [1, 8, 64, 512, 4096] and list(curves.loc["width"].index) == [1, 64, 512, 4096]
    assert curves.loc[("batch", 64), "step_s"] == pytest.approx(1e-3 + 64 * 2e-5) and curves.loc[("batch", 64), "certificate"] == "point-64"
    assert set(curves["rules"].str.len()) == {content.rules["rule"].nunique()}
    assert [(row["sweep"], row["blocks"]) for row in slopes(content)] == [("batch", "2"), ("width", "2")]
    journal = folder / "sweep-batch.jsonl"
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:-1]))  # the last block of the largest size
    assert [row["blocks"] for row in slopes(load(folder))] == ["1 to 2", "2"]
    text = report.build(folder).read_text()
    assert {"curves_batch.svg", "curves_width.pdf"} <= {path.name for path in (folder / "figures").iterdir()}
    assert 'id="figure-curves_batch"' in text and "torch, vae-width-8 train: fail: verify, float64: failed: 3 (gradients)" in text
    assert "isoform sweep batch --out" not in text and "isoform quality --out" in text
    plant(folder, failed("torch"))  # in the run itself: then it has no curve either
    content = load(folder)
    assert content.curves.empty and content.slopes.empty
    assert "point-64" not in report.build(folder).read_text()


def test_a_sweep_of_another_machine_is_not_mixed_in(folder):
    write_sweep(folder, "batch", MACHINE | {"cores": 64})
    content = load(folder)
    assert content.curves.empty
    assert "sweep-batch.jsonl was measured on another machine" in report.build(folder).read_text()


# Commands and sources.


def test_the_command_of_a_cell_measures_that_cell(folder):
    from click.testing import CliRunner

    from harness.cli import main

    content = load(folder)
    cell = content.cells.to_dict("records")[1]
    words = command(content, cell).split()
    assert words[:6] == ["isoform", "bench", "--spec", "vae", "--impl", "torch"] and words[-2:] == ["--level", "quick"]
    assert words[words.index("--batch") + 1] == "128" and words[words.index("--dtype") + 1] == "float32"
    done = CliRunner().invoke(main, [*words[1:], "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "--batch" not in command(content, cell | {"operation": "fit"})
    assert given("isoform bench --spec deep/my_vae.toml --spec=other.toml", "my_vae") == "deep/my_vae.toml"
    assert given("isoform bench", "vae") == "vae" and given("isoform bench", "mine") == "mine.toml"


def test_a_source_is_shown_word_for_word_and_once(folder):
    from html import unescape

    ranked(folder)
    page = report.build(folder).read_text()
    shown = sources.sources(load(folder))
    names = [one.name for one in shown]
    assert len(names) == len(set(names)) and {f"impls/{name}/vae.py" for name in NAMES} <= set(names)
    for one in shown:
        (inside,) = re.findall(rf'id="{one.anchor}".*?<code>(.*?)</code>', page, re.DOTALL)
        assert unescape(re.sub(r"</?b[^>]*>", "", inside)) == (sources.ROOT / one.name).read_text()
    assert '<b class="k">def </b><b class="f">kl</b>' in next(one.html for one in shown if one.name == "impls/torch/vae.py")
    assert sources.changed(load(folder)) == list(NAMES)  # the hash of the folder made by hand is none


def test_the_code_that_was_measured_is_told_from_another(folder):
    import impls
    from harness.verify.certificate import code_hash

    text = (folder / "verify.json").read_text()
    (folder / "verify.json").write_text(text.replace('"c0de"', f'"{code_hash(impls.load("torch"))}"'))
    assert sources.changed(load(folder)) == ["numpy", "jax"]
