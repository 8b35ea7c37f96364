"""report.html: one file with all that it needs. Its parts are in `html/`; what they are filled with comes from `view`."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

from harness.report import sources as code
from harness.report.captions import every
from harness.report.content import Content
from harness.report.figures import PAGE
from harness.report.formats import FILTERS, anchor, missing
from harness.report.further import SIGNS
from harness.report.svg import inline
from harness.report.theme import THEME
from harness.report.view import SHORT, cell_key, command, view

FOLDER = Path(__file__).parent / "html"
SECTIONS = {  # in their order: what they are called in the contents, and what they are there for; None: always
    "answer": ("The answer", None), "matrix": ("Equal, and how fast", "cells"), "speed": ("How fast?", "cells"),
    "ranking": ("Who is faster?", "rankings"), "noise": ("The noise floor", "noise"), "start": ("Start and steady state", "cells"),
    "memory": ("Memory", "cells"), "roofline": ("Roofline", "roofline"), "curves": ("Batch and width", "curves"),
    "quality": ("Time to quality", "quality"), "rules": ("The rule card", "strips"), "equal": ("The same function?", None),
    "cells": ("Cell by cell", "cells"), "certificates": ("Certificates", None), "sources": ("Sources", "sources"),
    "measured": ("This machine, measured", "measured"), "machine": ("Machine, versions, commands", None),
}  # fmt: skip
LIMIT = 2_000_000  # bytes of the page
MAY_GO = ("throughput_more", "roofline", "memory", "three_times")  # drawings that a page beyond it leaves to their files, in this order
STATE = {sign: state for state, sign in SIGNS.items()}
SPOKEN = {"PASS": "pass", "WARN": "warning", "FAIL": "fail", "N-A": "not applicable"}


def html(content: Content, figures: Path) -> str:
    """The page. `figures`: the folder that has them as SVG."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {**FILTERS, "marked": marked}
    environment.tests["missing"] = missing
    values = view(content)
    captions = every(content.dtypes)
    shown = code.sources(content)
    values |= {
        **links(content, shown),
        "figures": drawings(figures, captions),
        "captions": captions,
        "theme": THEME,
        "memory_heads": [f">{name}" for name in SHORT.values()],
        "sources": [{"name": one.name, "lines": one.lines, "anchor": one.anchor, "html": one.html} for one in shown],
        "changed": code.changed(content),
        "anchor": anchor,
        "key": cell_key,
        "command": lambda cell: command(content, cell),
        "spoken": spoken,
        "spoken_signs": lambda signs: spoken([{"rule": k, "state": STATE[sign]} for k, sign in enumerate(signs, 1)]),
        "by_rule": lambda rules: {rule["rule"]: rule for rule in rules},
        "runs_of": runs_of,
    }
    values["contents"] = [(name, title) for name, (title, needed) in SECTIONS.items() if needed is None or values[needed]]
    for without in range(len(MAY_GO) + 1):
        values["in_files"] = [name for name in MAY_GO[:without] if name in values["figures"]]
        text = narrow(environment.get_template("page.html.j2").render(values))
        if len(text.encode()) <= LIMIT:
            break
    return text


def narrow(text: str) -> str:
    """Without empty lines, but for those of what stands as it is."""
    parts = re.split(r"(<pre.*?</pre>)", text, flags=re.DOTALL)
    return "".join(part if part.startswith("<pre") else re.sub(r"\n\s*\n+", "\n", part) for part in parts)


def marked(text: str) -> str:
    """As HTML, the little Markdown that sentences have: **bold** and `code`. All else is text."""
    made = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escape(text))
    return re.sub(r"`(.+?)`", r"<code>\1</code>", made)


def drawings(folder: Path, captions: dict[str, tuple[str, str]]) -> dict[str, str]:
    return {
        path.stem: inline(path.read_text(encoding="utf-8"), path.stem, f"f{k}-", *captions[path.stem], page=PAGE)
        for k, path in enumerate(sorted(folder.glob("*.svg")))
    }


def links(content: Content, shown: list[code.Source]) -> dict[str, Any]:
    """From a cell to the certificates of its pair, to the one in its dtype, and to its source."""
    ids: dict[tuple, dict[str, str]] = {}
    for row in content.verify["rows"]:
        if row["certificate"]:
            ids.setdefault((row["spec"], row["implementation"], row["device"]), {})[row["dtype"]] = row["certificate"]
    embedded = {one["id"] for one in content.verify["certificates"]}
    by_name, known = {one.name: one for one in shown}, code.models(content)

    def of(cell: dict) -> dict[str, str]:
        found = ids.get((cell["spec"], cell["implementation"], cell.get("device", "cpu")), {})
        return {dtype: id for dtype, id in found.items() if id in embedded}

    def certificate_of(cell: dict) -> str | None:
        found = of(cell)
        return found.get(cell["dtype"]) or next(iter(found.values()), None)

    def source_of(cell: dict) -> code.Source | None:
        return by_name.get(code.of(cell["implementation"], known.get(cell["spec"])) or "")

    certificates_of: Callable = lambda cell: [(id, dtype) for dtype, id in of(cell).items()]
    pairs = {(row["spec"], row["implementation"], row["dtype"]): row["certificate"] for row in content.verify["rows"]}
    return {
        "certificate_of": certificate_of,
        "certificates_of": certificates_of,
        "source_of": source_of,
        "pair_certificates": {key: id for key, id in pairs.items() if id in embedded},
    }


def runs_of(rules: list[dict]) -> list[tuple[str, str]]:
    """(state, its sign as often as it comes in a row)."""
    return [(state, SIGNS[state] * len(list(same))) for state, same in groupby(rule["state"] for rule in rules)]


def spoken(rules: list[dict]) -> str:
    """10 pass, 1 warning (rule 9), 1 not applicable."""
    parts = []
    for state, word in SPOKEN.items():
        which = [str(rule["rule"]) for rule in rules if rule["state"] == state]
        if which:
            named = f" (rule{'s' if len(which) > 1 else ''} {', '.join(which)})" if state in ("WARN", "FAIL") else ""
            parts.append(f"{len(which)} {word}{named}")
    return ", ".join(parts)
