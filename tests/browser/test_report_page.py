"""The report as people see it: it renders, filters, sorts, opens and prints; by mouse, by keyboard, without JavaScript, light and dark."""

import re
from pathlib import Path

import pandas as pd
import pytest

from harness import report
from harness.report.theme import THEME
from tests.journal_rows import Whole
from tests.results_folder import (
    MACHINE,
    NAMES,
    absent,
    cell,
    failed,
    ranked,
    row,
    write_card,
    write_journal,
    write_quality,
    write_sweep,
    write_verify,
)

pytestmark = pytest.mark.browser

DESKTOP, PHONE = {"width": 1440, "height": 1000}, {"width": 390, "height": 844}
SHOWN = "#speed tbody tr:not([hidden])"


@pytest.fixture(name="results", scope="session")
def results_fixture(tmp_path_factory) -> Path:
    """A folder with all that a report can show: verdicts, failures, what is absent, sweeps, time to quality, the machine's card."""
    folder = tmp_path_factory.mktemp("results")
    write_verify(folder, [row("numpy"), row("torch"), failed("jax", "float32"), absent("keras-jax")])
    write_quality(folder)
    write_sweep(folder, "batch")
    write_card(folder)
    ranked(folder, absent=("keras-jax",))
    report.build(folder)
    return folder


@pytest.fixture(name="path")
def path_fixture(results) -> Path:
    return results / "report.html"


def colour(page, selector: str, what: str = "backgroundColor") -> str:
    """As #rrggbb."""
    found = page.eval_on_selector(selector, f"node => getComputedStyle(node).{what}")
    return "#" + "".join(f"{int(part):02x}" for part in re.findall(r"\d+", found)[:3])


def in_view(page, selector: str) -> bool:
    """Whether a person sees it: it is there, not folded away, and within the window."""
    return page.eval_on_selector(
        selector,
        "node => { const box = node.getBoundingClientRect();"
        " return node.checkVisibility() && box.height > 0 && box.bottom > 0 && box.top < innerHeight; }",
    )


def test_it_renders(visit, path):
    page = visit(path, viewport=DESKTOP)
    assert page.title() == f"isoform: {MACHINE['cpu']}, 2026-01-02"
    assert "numpy trains vae" in page.inner_text("#answer")
    for link in page.query_selector_all(".contents a"):
        assert page.locator(link.get_attribute("href")).is_visible()
    drawings = page.query_selector_all("figure svg")
    assert len(drawings) >= 6 and all(one.bounding_box()["height"] > 50 for one in drawings)
    assert page.evaluate("[...document.querySelectorAll('figure svg text')].every(one => one.getBBox().width > 0)")
    matrix = page.inner_text("#matrix")
    assert "2.0 ms" in matrix.replace("1.98", "2.0") or "us" in matrix or "ms" in matrix
    assert page.locator("#matrix td.bad").count() == 1 and "fail" in page.inner_text("#matrix td.bad")


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_nothing_is_wider_than_the_window(visit, path, size):
    page = visit(path, viewport=size)
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    assert page.locator(".contents ol").is_visible() is (size is DESKTOP)  # folded on a phone


def test_it_filters(visit, path):
    page = visit(path, viewport=DESKTOP)
    whole = page.locator(SHOWN).count()
    assert whole == len(pd.read_csv(path.parent / "tables" / "speed.csv")) == 4
    assert page.inner_text("#shown") == f"{whole} of {whole} cells shown"
    page.select_option("#f-implementation", "torch")
    assert [one.inner_text() for one in page.query_selector_all(f"{SHOWN} td:nth-child(3)")] == ["torch"]
    assert page.inner_text("#shown") == f"1 of {whole} cells shown"
    assert page.locator("#cells details.cell:visible").count() == 1 and page.locator("#ranking tbody tr:visible").count() == 1
    assert page.locator("#matrix thead th:visible").all_inner_texts() == ["spec", "torch"]
    page.click("#filter button[type=reset]")
    assert page.locator(SHOWN).count() == whole
    page.fill("#f-text", "NOT-INST")
    assert [one.inner_text() for one in page.query_selector_all(f"{SHOWN} td:nth-child(3)")] == ["keras-jax"]
    page.fill("#f-text", "no such words")
    assert page.locator(SHOWN).count() == 0 and page.inner_text("#shown") == f"0 of {whole} cells shown"
    assert page.get_attribute("#shown", "aria-live") == "polite"


def test_it_sorts_by_any_column_with_what_is_missing_last(visit, path):
    page = visit(path, viewport=DESKTOP)
    table = pd.read_csv(path.parent / "tables" / "speed.csv")
    heads = page.locator("#speed thead th")
    names = [text.split("\n")[0].strip() for text in heads.all_inner_texts()]
    assert heads.count() == page.locator("#speed thead th button").count() >= 10
    at = names.index("rows / s")
    for click, ascending in ((1, True), (2, False)):
        heads.nth(at).locator("button").click()
        got = [one.inner_text() for one in page.query_selector_all("#speed tbody td:nth-child(3)")]
        known = table.dropna(subset=["samples_per_s"]).sort_values("samples_per_s", ascending=ascending)["implementation"]
        assert got[: len(known)] == list(known) and set(got[len(known) :]) == {"jax", "keras-jax"}, click
        assert heads.nth(at).get_attribute("aria-sort") == ("ascending" if ascending else "descending")
    heads.nth(names.index("implementation")).locator("button").click()
    assert [one.inner_text() for one in page.query_selector_all("#speed tbody td:nth-child(3)")] == ["jax", "keras-jax", "numpy", "torch"]
    assert heads.nth(at).get_attribute("aria-sort") == "none"


def test_what_was_never_reached_sorts_behind_what_was(visit, tmp_path):
    write_verify(tmp_path, [row(name) for name in NAMES])
    with Whole(tmp_path / "quality.jsonl") as journal:
        journal.write("run", machine=MACHINE)
        fields = {"pass": "quality", "certificate": "renewed", "code_hash": "c0de", "versions": {"numpy": "2.4.6"}, "target": -24.5}
        for name, seconds in (("numpy", 110.0), ("torch", None), ("jax", 20.0)):
            steps = None if seconds is None else 900
            journal.write("finish", **fields, cell=cell(name), block=0, seed=0, loss=-24.6, steps=steps, seconds=seconds, reason=None)
    write_journal(tmp_path)
    page = visit(report.build(tmp_path), viewport=DESKTOP)
    names = lambda: page.locator("#quality tbody td:nth-child(2)").all_inner_texts()
    assert names() == ["jax", "numpy", "torch"] and "not reached by half of the seeds" in page.inner_text("#quality tbody")
    head = page.locator("#quality thead th", has_text="seconds").first.locator("button")
    head.click()
    assert names() == ["jax", "numpy", "torch"]
    head.click()
    assert names() == ["torch", "numpy", "jax"]


def test_the_keyboard_goes_everywhere(visit, path):
    page = visit(path, viewport=DESKTOP)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip" and in_view(page, ".skip")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    seen = set()
    for _ in range(400):
        page.keyboard.press("Tab")
        where = page.evaluate("(() => { const a = document.activeElement; return a.id || a.className || a.textContent.trim(); })()")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", f"no focus can be seen at {where}"
        seen.add(where)
        if where.startswith("rows / s"):
            page.keyboard.press("Enter")
        if where.startswith("command, rules, source"):
            break
    assert {"f-spec", "f-operation", "f-implementation", "f-text"} <= seen
    assert page.locator("#speed thead th[aria-sort=ascending]").count() == 1
    target = page.evaluate("document.activeElement.getAttribute('href')")
    page.keyboard.press("Enter")
    page.wait_for_function("target => document.activeElement.id === target.slice(1)", arg=target)
    assert in_view(page, target) and "isoform bench --spec vae" in page.inner_text(f"{target} pre")
    page.focus(f"{target} a[href^='#certificate-']")
    page.keyboard.press("Enter")
    page.wait_for_function("document.activeElement.id.startsWith('certificate-')")
    certificate = "#" + page.evaluate("document.activeElement.id")
    assert in_view(page, certificate) and "gradients" in page.inner_text(certificate)
    page.focus(f"{target} a[href^='#source-']")
    page.keyboard.press("Enter")
    page.wait_for_function("document.activeElement.id.startsWith('source-')")
    assert "class VAE" in page.inner_text("#" + page.evaluate("document.activeElement.id"))


def test_a_bar_leads_to_the_command_the_rules_the_certificate_and_the_source(visit, path):
    page = visit(path, viewport=DESKTOP)
    cell = "#cell-vae-train-torch-float32-cpu-128"
    assert not in_view(page, cell)
    page.locator(f"#figure-throughput a[href='{cell}'] path").first.click()
    page.wait_for_function("cell => document.querySelector(cell).checkVisibility()", arg=cell)
    text = page.inner_text(cell)
    assert in_view(page, cell) and "--impl torch" in text and "impls/torch/vae.py" in text and "float64 torch-fl" in text
    rules = pd.read_csv(path.parent / "tables" / "rules.csv").query("implementation == 'torch'")
    assert page.locator(f"{cell} .card li").count() == len(rules) > 5
    page.locator("#f-implementation").select_option("numpy")  # what is filtered away comes back when a link leads to it
    page.evaluate("location.hash = ''")
    page.evaluate("cell => { location.hash = cell; }", cell)
    page.wait_for_function("cell => document.querySelector(cell).checkVisibility()", arg=cell)


def unreadable(page) -> list:
    """Texts whose contrast with what is behind them is below 4.5."""
    return page.evaluate(
        """() => {
        const parse = text => text.match(/[\\d.]+/g).map(Number);
        const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
            .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
        const found = [];
        for (const node of document.querySelectorAll("body *")) {
            const own = [...node.childNodes].some(one => one.nodeType === 3 && one.textContent.trim());
            if (!own || node.closest("svg, script, style, select, .skip") || !node.checkVisibility()) continue;
            let behind = node, ground = [0, 0, 0, 0];
            while (behind && !(ground = parse(getComputedStyle(behind).backgroundColor)).slice(0, 4).every((v, k) => k < 3 || v !== 0)) {
                behind = behind.parentElement;
            }
            const [low, high] = [light(parse(getComputedStyle(node).color)), light(ground)].sort((a, b) => a - b);
            const ratio = (high + 0.05) / (low + 0.05);
            if (ratio < 4.5) found.push([node.tagName, node.className, node.textContent.trim().slice(0, 40), ratio]);
        }
        return found;
    }"""
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_in_both_themes(visit, path, scheme):
    page = visit(path, viewport=DESKTOP, color_scheme=scheme)
    paper = {name: colours[scheme == "dark"] for name, colours in THEME.items()}
    assert colour(page, "body") == paper["paper"] and colour(page, "#figure-throughput svg", "fill") == paper["ink"]
    assert colour(page, "#figure-throughput svg a path", "fill") == paper["blue"]
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert unreadable(page) == []
    page.add_style_tag(content=".note { color: #888 !important; background: #777; }")
    assert len(unreadable(page)) > 0  # the measure can fail


def test_the_theme_can_be_chosen_and_is_kept(visit, path):
    page = visit(path, viewport=DESKTOP, color_scheme="dark")
    page.select_option("#theme", "light")
    assert colour(page, "body") == THEME["paper"][0]
    page.reload()
    assert colour(page, "body") == THEME["paper"][0] and page.input_value("#theme") == "light"
    page.select_option("#theme", "")
    assert colour(page, "body") == THEME["paper"][1]


def test_without_javascript_it_is_all_there(visit, path):
    page = visit(path, viewport=DESKTOP, java_script_enabled=False)
    assert not page.locator("#filter").is_visible() and not page.locator("#theme").is_visible()
    rows = pd.read_csv(path.parent / "tables" / "speed.csv")
    assert page.locator("#speed tbody tr:visible").count() == len(rows)
    cell = "#cell-vae-train-torch-float32-cpu-128"
    assert not page.locator(f"{cell} pre").is_visible()
    page.locator(f"#speed a[href='{cell}']").last.click()  # the browser itself opens what a link leads into
    assert page.locator(f"{cell} pre").is_visible()
    page.locator("#certificates summary").first.click()
    assert page.locator("#certificates table").first.is_visible()


def test_it_prints_whole_and_light(visit, path, tmp_path):
    page = visit(path, viewport=DESKTOP, color_scheme="dark")
    page.emulate_media(media="print")
    assert colour(page, "body") == THEME["paper"][0] and colour(page, "body", "color") == THEME["ink"][0]
    for gone in (".contents", "#filter", "#theme"):
        assert not page.locator(gone).is_visible()
    folded = "[...document.querySelectorAll('details > div')].filter(one => !one.checkVisibility({contentVisibilityAuto: true})).length"
    assert page.evaluate(folded) == 0 and page.locator("details").count() > 10
    page.emulate_media(media="screen")
    assert page.evaluate(folded) > 0
    printed = page.pdf(format="A4")
    (tmp_path / "report.pdf").write_bytes(printed)
    assert printed.startswith(b"%PDF-") and len(re.findall(rb"/Type\s*/Page\b", printed)) > 5


def test_motion_is_reduced_where_that_is_asked_for(visit, path):
    moving = "[...document.querySelectorAll('*')].filter(one => parseFloat(getComputedStyle(one).transitionDuration) > 0).length"
    page = visit(path, reduced_motion="reduce")
    assert page.evaluate(moving) == 0
    page.emulate_media(reduced_motion="no-preference")
    assert page.evaluate(moving) > 0


def test_what_has_no_certificate_has_no_bar_and_no_number(visit, path):
    page = visit(path, viewport=DESKTOP)
    cell = "#cell-vae-train-jax-float32-cpu-128"
    (line,) = [one.inner_text() for one in page.query_selector_all("#speed tbody tr") if "\tjax\t" in one.inner_text()]
    assert "fail" in line and not re.search(r"\d (us|ms|s)\b", line)
    widths = [one.bounding_box()["width"] for one in page.query_selector_all(f"#figure-throughput a[href='{cell}'] path")]
    assert widths and max(widths) < 1
    assert NAMES[0] in page.inner_text("#speed")


def test_a_picture_of_it(visit, path, request, tmp_path):
    """With --screenshot FOLDER of that folder's page, into its figures."""
    wanted = request.config.getoption("--screenshot")
    source = Path(wanted) / "report.html" if wanted else path
    target = (Path(wanted) / "figures" if wanted else tmp_path) / "report.png"
    page = visit(source.resolve(), viewport=DESKTOP, color_scheme="light")
    page.screenshot(path=target)
    assert target.read_bytes().startswith(b"\x89PNG") and target.stat().st_size > 20_000
