"""What the machine can do, from machine.json: as a table, and as both pages show it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.report.formats import mib, missing, number

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("quantity", "dtype", "size", "implementation", "unit", "value", "low", "high", "detail")
CALLED = {
    "matmul": "product of two matrices",
    "lu": "LU decomposition",
    "triad": "memory bandwidth (triad)",
    "dispatch": "dispatch of one operation",
    "to_device": "copy to the device",
    "to_host": "copy to the host",
}
SCALES = {"FLOP/s": (1e9, "GFLOP/s"), "B/s": (1e9, "GB/s"), "s": (1e-6, "us")}
UNTOLD = "the system does not tell"


def table(card: dict) -> pd.DataFrame:
    """One row a quantity and implementation, in FLOP/s, B/s and seconds, with its 95 % interval over processes; then what the system tells
    of cores, caches, clocks and power, without one. `detail`: why there is no value."""
    import pandas as pd

    rows = [
        (row["operation"], row["dtype"], row["size"], row["framework"], *(row[name] for name in ("unit", "value", "low", "high", "reason")))
        for row in card["rows"]
    ]
    rows += [(name, None, None, None, unit, value, None, None, detail) for name, unit, value, detail in facts(card)]
    numbers = dict.fromkeys(("value", "low", "high"), "float64")
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({**numbers, "size": "Int64"})


def facts(card: dict) -> list[tuple[str, str, float | None, str | None]]:
    """(quantity, unit, value, why it has none or what it is)."""
    machine, clock = card["machine"], card.get("clock_mhz") or {}
    told: list[tuple[str, str, Any]] = [
        ("cores that may be used", "", machine.get("cores")),
        ("physical cores", "", machine.get("cores_physical")),
        ("threads of a process", "", card.get("threads")),
        ("last cache", "B", card.get("cache_bytes")),
        *((f"clock, {name}", "MHz", clock.get(name)) for name in ("current", "min", "max")),
    ]
    known = [(name, unit, value or None, None if value else UNTOLD) for name, unit, value in told]
    return [*known, ("power", "", None, card.get("energy") or UNTOLD)]


def view(card: dict, versions: dict[str, str]) -> dict[str, Any]:
    """The card with a line a quantity, dtype and size, and in it a cell an implementation. `versions`: those that the run was made with."""
    rows = card["rows"]
    names = list(dict.fromkeys(row["framework"] for row in rows))
    found = {(row["operation"], row["dtype"], row["size"], row["framework"]): row for row in rows}
    lines = []
    for operation, dtype, size in dict.fromkeys(key[:3] for key in found):
        cells = [found.get((operation, dtype, size, name)) for name in names]
        scale, unit = SCALES[next(cell["unit"] for cell in cells if cell)]
        head = {"quantity": CALLED.get(operation, operation), "dtype": dtype, "size": size, "unit": unit}
        lines.append({**head, "cells": [_cell(cell, scale) for cell in cells]})
    own = card.get("versions") or {}
    return {
        **{name: card.get(name) for name in ("made", "command", "device", "threads")},
        "names": names,
        "lines": lines,
        "reasons": _reasons(rows),
        "facts": [(name, detail if missing(value) else _told(value, unit)) for name, unit, value, detail in facts(card)],
        "other": [f"{name} {own[name]} and {versions[name]}" for name in own if name in versions and own[name] != versions[name]],
    }


def _told(value: float, unit: str) -> str:
    return f"{mib(value)} MiB" if unit == "B" else f"{number(value)} {unit}".strip()


def _cell(row: dict | None, scale: float) -> dict | None:
    if row is None:
        return None
    value, low, high = (None if row[name] is None else row[name] / scale for name in ("value", "low", "high"))
    return {"value": value, "text": number(value), "interval": "" if low is None or high is None else f"{number(low)} to {number(high)}"}


def _reasons(rows: list[dict]) -> list[str]:
    """Each reason for an N/A once, with what and whom it holds for."""
    found: dict[str, tuple[dict, dict]] = {}
    for row in rows:
        if row["value"] is None:
            names, quantities = found.setdefault(row["reason"] or "no reason given", ({}, {}))
            names[row["framework"]] = quantities[CALLED.get(row["operation"], row["operation"])] = None
    return [f"{', '.join(names)}: {', '.join(quantities)}: {reason}" for reason, (names, quantities) in found.items()]
