"""Numbers as people read them. What is missing is N/A, never nan."""

from __future__ import annotations

import math
import re
from typing import Any

WIDEST = 4  # ends of an interval, one over the other


def missing(value: Any) -> bool:
    """None, NaN, or pandas' own word for it, which is equal to nothing and to nothing else."""
    return value is None or str(value) in ("nan", "<NA>", "NaT")


def half(text: str, median: float) -> str:
    """A median over seeds, or that there is none."""
    return "not reached by half of the seeds" if median == math.inf else text


def spread(cell: dict) -> str:
    """How much processes differ, and how much the rounds within one: standard deviations of log seconds, in percent."""
    return f"{share(cell['between_sd'])} / {share(cell['within_sd'])}"


def span(cell: dict, name: str) -> str:
    """From the least to the most of import_s, build_s or first_call_s over the cold processes; empty where there is but one."""
    low, high = (cell[name.replace("_s", f"_{end}_s")] for end in ("low", "high"))
    return between(low, high) if cell["cold_processes"] > 1 else ""


def processes(count: int) -> str:
    return f"{count} process{'' if count == 1 else 'es'}"


def number(value: float) -> str:
    """Three significant figures, grouped: 12 300."""
    if missing(value):
        return "N/A"
    return f"{float(f'{value:.3g}'):,.0f}".replace(",", " ") if value >= 100 else f"{value:.3g}"


def count(value: float) -> str:
    """A whole number, three significant figures, grouped."""
    return "N/A" if missing(value) else f"{float(f'{value:.3g}'):,.0f}".replace(",", " ")


def seconds(value: float) -> str:
    """In the unit that suits: s, ms or us."""
    if missing(value):
        return "N/A"
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-6:.3g} us"


def between(low: float, high: float) -> str:
    """An interval of seconds, both ends in one unit: 2.1 to 2.4 ms."""
    if missing(low) or missing(high):
        return "cannot tell"
    unit, size = next(((unit, size) for unit, size in (("s", 1.0), ("ms", 1e-3)) if low >= size), ("us", 1e-6))
    return f"{number(low / size)} to {number(high / size)} {unit}"


def interval(cell: dict) -> str:
    """The interval of rows a second, or that it cannot be told: one block has none, and a few noisy ones one that says nothing."""
    if missing(cell["samples_low"]):
        return "cannot tell: one block"
    if cell["samples_high"] > WIDEST * cell["samples_low"]:
        return f"cannot tell: wider than a factor of {WIDEST}"
    return f"{number(cell['samples_low'])} to {number(cell['samples_high'])}"


def blocks(cell: dict) -> str:
    """How many; and of how many, where what it is compared with has more."""
    return f"{cell['blocks']} of {cell['group_blocks']}" if cell["blocks"] < cell["group_blocks"] else str(cell["blocks"])


def factor(value: float) -> str:
    """How many times: 1.91, 22.8."""
    return "N/A" if missing(value) else f"{value:.3g}"


def ends(low: float, high: float) -> str:
    """An interval of ratios or slopes."""
    return "cannot tell" if missing(low) or missing(high) else f"{factor(low)} to {factor(high)}"


def percent(value: float) -> str:
    return "unknown" if missing(value) else f"{100 * value:.2g} %"


def share(value: float) -> str:
    return "N/A" if missing(value) else f"{100 * value:.2g} %"


def mib(value: float) -> str:
    """Of bytes; below 0.1 MiB in KiB, which it says."""
    if missing(value):
        return "N/A"
    return f"{value / 2**10:.3g} KiB" if 0 < abs(value) < 0.1 * 2**20 else f"{value / 2**20:.1f}"


def rate(value: float) -> str:
    """FLOP/s."""
    if missing(value):
        return "N/A"
    for unit, size in (("TFLOP/s", 1e12), ("GFLOP/s", 1e9), ("MFLOP/s", 1e6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} FLOP/s"


def error(value: float) -> str:
    return "N/A" if missing(value) else f"{value:.1e}" if value else "0"


def digits(value: float) -> str:
    """Decimal digits that a relative error leaves right."""
    if value == 0:
        return "the last bit"
    return f"{max(math.floor(-math.log10(value)), 0)} digits"


def words(value: object) -> str:
    """A value of the machine's card; a list is read out."""
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def escape(text: object) -> str:
    """For a cell of a Markdown table."""
    return str(text).replace("|", "\\|").replace("\n", " ")


FILTERS = {
    "half": half,
    "spread": spread,
    "span": span,
    "processes": processes,
    "number": number,
    "count": count,
    "seconds": seconds,
    "between": between,
    "interval": interval,
    "blocks": blocks,
    "factor": factor,
    "ends": ends,
    "percent": percent,
    "share": share,
    "mib": mib,
    "rate": rate,
    "error": error,
    "digits": digits,
    "words": words,
    "cell": escape,
}


def slug(*parts: object) -> str:
    """A name that may stand in an address."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", " ".join(map(str, parts))).strip("-")


def anchor(cell: dict) -> str:
    """Where the page says all that it knows of a cell."""
    precision = () if cell["precision"] == "highest" else (cell["precision"],)
    keys = ("spec", "operation", "implementation", "dtype", "device", "batch_size")
    return slug("cell", *(cell[key] for key in keys), *precision)
