"""The result in words, every figure in it computed from the tables."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.report.content import LEFT_OUT, Content

if TYPE_CHECKING:
    import pandas as pd

# the check that says best how closely implementations agree: its number and what it compares
CLOSENESS = {"float64": (3, "gradients"), "float32": (7, "a training trajectory")}
NAMED = 5  # failures that are named; the table below has them all


def answer(content: Content) -> list[str]:
    """Sentences: for each dtype how many pairs agree, how closely, what was left out and why, what failed; then of the speeds."""
    return [*(_of_dtype(content, dtype) for dtype in content.dtypes), *_of_speed(content)]


def _of_dtype(content: Content, dtype: str) -> str:
    rows = [row for row in content.verify["rows"] if row["dtype"] == dtype]
    passed = [row for row in rows if row["state"] == "pass"]
    failed = [row for row in rows if row["state"] not in ("pass", *LEFT_OUT)]
    specs, names = {row["spec"] for row in passed}, {row["implementation"] for row in passed}
    text = f"In {dtype}, {len(passed)} of {len(rows)} pairs of spec and implementation compute the same function"
    if passed:
        text += f" ({_count(specs, 'spec')}, {_count(names, 'implementation')})" + _closely(content, dtype)
    text += "." + _left_out(rows)
    if failed:
        shown = [f"{row['implementation']} {row['spec']} ({row['state']})" for row in failed[:NAMED]]
        more = f", and {len(failed) - NAMED} more" if len(failed) > NAMED else ""
        text += f" **{len(failed)} failed, with no speed on this page: {', '.join(shown)}{more}.**"
    return text


def _count(things: set, name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def _closely(content: Content, dtype: str) -> str:
    """The worst error of the check that says it best, and of the pairs that it does not apply to."""
    number, what = CLOSENESS[dtype]
    table, certified = content.checks, content.equivalence[content.equivalence["state"] == "pass"]
    certified = certified[certified["dtype"] == dtype]
    table = table[table["certificate"].isin(certified["certificate"]) & (table["number"] == number) & (table["state"] == "pass")]
    table = table[table["error"].notna()]
    rest = certified[~certified["certificate"].isin(table["certificate"]) & certified["worst_error"].notna()]
    parts = []
    if len(table):
        parts.append(f"{what} agree{'s' if number == 7 else ''} to {_where(table, 'error', 'gate')}")
    if len(rest):
        specs = ", ".join(dict.fromkeys(rest["spec"]))
        parts.append(f"the worst of all checks of {specs} agrees to {_where(rest, 'worst_error', 'worst_gate')}")
    return "; " + "; ".join(parts) if parts else ""


def _where(table: pd.DataFrame, error: str, gate: str) -> str:
    ordered = table.astype({error: float, gate: float}).sort_values([error, gate], kind="stable")
    worst = ordered.iloc[-1]  # of equal errors, that with a gate
    allowed = f", gate {worst[gate]:.0e}" if worst[gate] else ""
    return f"{digits(worst[error])} (worst error {worst[error]:.1e}{allowed}: {worst['implementation']}, {worst['spec']})"


def digits(error: float) -> str:
    """Decimal digits that a relative error leaves right."""
    if error == 0:
        return "the last bit"
    return f"{max(math.floor(-math.log10(error)), 0)} digits"


def _left_out(rows: list[dict]) -> str:
    found: dict[str, list[str]] = {}
    for row in rows:
        if row["state"] in LEFT_OUT:
            found.setdefault(row["state"], []).append(row["reason"] or "no reason given")
    if not found:
        return ""
    parts = (f"{len(reasons)} {LEFT_OUT[state]} ({'; '.join(dict.fromkeys(reasons))})" for state, reasons in found.items())
    return f" Left out: {'; '.join(parts)}."


def _of_speed(content: Content) -> list[str]:
    if content.cells.empty:
        return ["Nothing was timed: there is no measurement in this folder's journal (`isoform bench`)."]
    good = content.cells[content.cells["state"] == "ok"]
    bad = len(content.cells[~content.cells["state"].isin(["ok", *LEFT_OUT])])
    if good.empty:
        return [f"**No speed is shown: none of {len(content.cells)} cells was certified and measured.**"]
    low, high = good["blocks"].min(), good["blocks"].max()
    blocks = f"{low} block{'' if low == 1 else 's'}" if low == high else f"{low} to {high} blocks"
    run = content.runs[-1]
    text = f"{len(good)} cells were timed at level {run['level']}"
    text += f"; {run['note']}: {blocks}" if run.get("note") else f", in {blocks} each"
    return [f"{text}.{f' Cells without a speed: {bad}; the reasons are below.' if bad else ''}"]
