"""The colours, once for the page and the figures: those of Okabe & Ito, which the colour-blind can tell apart, and neutral ones."""

from __future__ import annotations

# name: (light, dark); text on `paper`, `panel` or `raised` has a contrast of 4.5 or more, a mark of 3 or more
THEME = {
    "paper": ("#ffffff", "#14171a"),
    "panel": ("#f5f6f8", "#1b1f24"),
    "raised": ("#eceef2", "#252a31"),
    "line": ("#d5d9e0", "#363d46"),
    "ink": ("#16191d", "#e8eaed"),
    "muted": ("#555d68", "#a5adb8"),
    "link": ("#00599b", "#7cc0f5"),
    "good": ("#00694c", "#54cfa2"),
    "warn": ("#8a4b00", "#f0b45a"),
    "bad": ("#a83200", "#ff9166"),
    "blue": ("#0072b2", "#56b4e9"),
    "orange": ("#c27c00", "#e69f00"),
    "green": ("#009e73", "#2fc79a"),
    "vermillion": ("#d55e00", "#ff8a3d"),
    "purple": ("#b8578e", "#dd8fbd"),
    "grey": ("#7f8791", "#8b939d"),
}
TEXT = ("ink", "muted", "link", "good", "warn", "bad")
BACKGROUND = ("paper", "panel", "raised")
MARKS = ("blue", "orange", "green", "vermillion", "purple", "grey")
BLUE, ORANGE, GREEN, VERMILLION, PURPLE, GREY = (THEME[name][0] for name in MARKS)
LINE = THEME["line"][0]
INK = "#000000"  # what matplotlib draws with unless told
ON_DARK, ON_LIGHT = "#fefefe", "#111111"  # text on a cell of a heat map, the same in both themes

# a framework has a colour, its variants have marks: (colour, mark, filled)
MARK_OF = {
    "numpy": (INK, "o", True),
    "torch": (VERMILLION, "s", True),
    "torch-compile": (VERMILLION, "s", False),
    "jax": (BLUE, "D", True),
    "jax-scan": (BLUE, "D", False),
    "keras-jax": (GREEN, "^", True),
    "keras-torch": (GREEN, "v", True),
    "keras-tensorflow": (GREEN, "^", False),
}
OTHERS = ((PURPLE, "P", True), (PURPLE, "X", False), (ORANGE, "*", True), (GREY, "h", False))  # third parties, in their order


def marks(names: list[str]) -> dict[str, dict]:
    """{implementation: keywords of matplotlib's plot} for colour and mark."""
    strangers = [name for name in names if name not in MARK_OF]
    made = {}
    for name in names:
        colour, mark, filled = MARK_OF.get(name) or OTHERS[strangers.index(name) % len(OTHERS)]
        made[name] = {"color": colour, "marker": mark, "markerfacecolor": colour if filled else "none", "markeredgecolor": colour}
    return made
