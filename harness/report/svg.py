"""A figure of matplotlib as part of the page: its colours those of the page, its ids its own, its links within the page; and small."""

from __future__ import annotations

import re
from collections import Counter
from html import escape
from xml.etree import ElementTree

from harness.report.theme import THEME

SVG, XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
COLOURS = {light: f"var(--{name})" for name, (light, _) in THEME.items() if name not in ("paper", "ink")}
COLOURS |= {"#000000": "var(--ink)", "#ffffff": "none"}  # what matplotlib draws with, and on
OFTEN, LONG = 3, 34  # a style that is used so often, and is so long, is written once


def inline(text: str, name: str, short: str, title: str, description: str, page: str) -> str:
    """The <svg> of a file that matplotlib wrote. `name` and `short`, which begins its classes: of this figure alone on the page.

    `page`: what links into the page begin with in the file.
    """
    root = ElementTree.fromstring(text)
    _remove(root, ("metadata", "style"))
    referred = [found for one in root.iter() for value in one.attrib.values() for found in re.findall(r"(?:url\(|^)#([^)]+)", value)]
    ids = {id: f"{short}i{k}" for k, id in enumerate(dict.fromkeys(referred))}
    for one in root.iter():
        _own(one, ids, page)
    styles = Counter(one.get("style") for one in root.iter() if one.get("style"))
    often = [style for style, count in styles.items() if count > OFTEN and len(style) > LONG]
    for one in root.iter():
        if one.get("style") in often:
            one.set("class", f"{short}{often.index(one.attrib.pop('style'))}")
    rules = "".join(f".{short}{k}{{{style}}}" for k, style in enumerate(often))
    head = f'<svg role="img" aria-labelledby="{name}-title {name}-desc" viewBox="{root.get("viewBox")}" xmlns="http://www.w3.org/2000/svg">'
    words = f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(description)}</desc>'
    inside = "".join(_written(one) for one in root)
    return f"{head}{words}{f'<style>{rules}</style>' if rules else ''}{inside}</svg>"


def _remove(parent: ElementTree.Element, names: tuple[str, ...]) -> None:
    for one in list(parent):
        if one.tag.removeprefix(SVG) in names:
            parent.remove(one)
        else:
            _remove(one, names)


def _own(one: ElementTree.Element, ids: dict[str, str], page: str) -> None:
    """Ids that nothing refers to go, the others are the figure's own; colours, fonts and digits become the page's."""
    one.attrib.pop("target", None)
    id, link = one.attrib.pop("id", None), one.attrib.pop(f"{XLINK}href", None)
    for key, value in one.attrib.items():
        one.set(key, _value(re.sub(r"url\(#([^)]+)\)", lambda found: f"url(#{ids[found[1]]})", value)))
    if one.get("transform", "").startswith("rotate(-0 "):
        del one.attrib["transform"]
    if id in ids:
        one.set("id", ids[id])
    if link and link.startswith(page):
        one.set("href", f"#{link.removeprefix(page)}")
        one.set("tabindex", "-1")  # the row of the table beside is the stop for the keyboard
    elif link:
        one.set("href", f"#{ids[link[1:]]}")


def _value(text: str) -> str:
    """With the page's colours and font, and no more digits than can be seen."""
    text = re.sub(r"#[0-9a-f]{6}\b", lambda found: COLOURS.get(found.group(), found.group()), text)
    text = re.sub(r"(; )?font-family: [^;]*", "", text)
    text = re.sub(r"font: ((?:\w+ )*)([\d.]+px) [^;]*", lambda found: f"{_weight(found[1])}font-size: {found[2]}", text)
    text = re.sub(r"-?\d+\.\d{2,}", lambda found: f"{float(found.group()):.1f}".removesuffix(".0"), text)
    return re.sub(r"\s+", " ", text).strip()


def _weight(words: str) -> str:
    known = {"bold": "font-weight: bold; ", "italic": "font-style: italic; "}
    return "".join(known.get(word, "") for word in words.split())


def _written(one: ElementTree.Element) -> str:
    """As text, without namespaces; a group that says nothing is only what is in it."""
    tag = one.tag.removeprefix(SVG)
    inside = escape((one.text or "").strip(), quote=False) + "".join(_written(child) for child in one)
    if tag == "g" and not one.attrib:
        return inside
    attributes = "".join(f' {key}="{escape(value)}"' for key, value in one.attrib.items())
    return f"<{tag}{attributes}>{inside}</{tag}>" if inside else f"<{tag}{attributes}/>"
