"""The result in words, every figure in it computed from the tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.bench.statistics import MOST_MORE
from harness.report.content import LEFT_OUT, Content
from harness.report.derived import rankings
from harness.report.formats import digits, ends, factor, missing

if TYPE_CHECKING:
    import pandas as pd

# the check that says best how closely implementations agree: its number and what it compares
CLOSENESS = {"float64": (3, "gradients"), "float32": (7, "a training trajectory")}
NAMED = 5  # failures that are named; the table below has them all


# what says that two are equal: in float64, the number of the check and what it is of
EQUAL = {2: "losses", 3: "gradients", 6: "whole trainings"}
NEAREST = " Of each check, the error given here is that of the comparison that comes nearest to its gate."
DOES = {"train": "trains", "fit": "fits"}


def answer(content: Content) -> list[str]:
    """Sentences: who is how much faster, at what error; then for each dtype how many pairs agree, how closely, what was left out and
    why, what failed; then what was timed."""
    equal = [_of_dtype(content, dtype) for dtype in content.dtypes]
    if any(row["state"] == "pass" for row in content.verify["rows"]):
        equal[-1] += NEAREST
    return [*headlines(content), *equal, *_of_speed(content)]


def headlines(content: Content) -> list[str]:
    """A sentence a spec that is trained or fitted: the fastest against each other one, and how equal they are. None at level quick."""
    return [_headline(one) + _equal(content, one) for one in rankings(content) if one["rows"] or one["apart"]]


def _headline(one: dict) -> str:
    told = [] if one["beaten"] else [row for row in one["rows"] if row["verdict"] == "slower"]
    equal = [row["implementation"] for row in one["rows"] if row["verdict"] == "equal within noise"]
    open_ = [row for row in one["rows"] if row["verdict"] == "cannot tell"]
    verb = DOES[one["operation"]]
    if told:
        first, *rest = told
        text = f"**{one['fastest']} {verb} {one['spec']} {_times(first)} here, 95 % interval {_interval(first)} (paired by block).**"
        text += f" It is {', '.join(f'{_times(row)} ({_interval(row)})' for row in rest)}." if rest else ""
    elif one["equal"]:
        text = f"**All implementations are equally fast here in what {verb} {one['spec']}.**"
    else:
        text = f"**Which implementation {verb} {one['spec']} the fastest cannot be told here.**"
    if equal:
        text += f" Equal within noise: {one['fastest']} and {', '.join(equal)}."
    if open_:
        text += f" This run cannot tell {one['fastest']} from {', '.join(_open(row) for row in open_)}."
    if one["apart"]:
        text += f" Not compared with {one['fastest']}, for want of a block that both have: {', '.join(one['apart'])}."
    if one["beaten"]:
        text += " The verdicts go round in a circle, since pairs have different blocks; they are below."
    return text


def _times(row: dict) -> str:
    return f"{factor(row['ratio'])} times as fast as {row['implementation']}"


def _interval(row: dict) -> str:
    return ends(row["low"], row["high"])


def _open(row: dict) -> str:
    """Whatever it is that would tell: more blocks, or less noise."""
    return f"{row['implementation']} (ratio {factor(row['ratio'])}, {_interval(row)}; {needs(row)})"


def needs(row: dict) -> str:
    """What it takes to tell two apart, of a row of ratios that cannot."""
    more = row["more_blocks"]
    if missing(more):
        return "more blocks will not do: the difference is within the noise floor" if row["floor"] == row["floor"] else "no noise floor"
    if more >= MOST_MORE:
        return f"needs more than {MOST_MORE} more blocks"
    return f"needs {more} more block{'' if more == 1 else 's'}"


def _equal(content: Content, one: dict) -> str:
    """The worst error, over all that the sentence is about, of each check that says it; of all checks where none of those applies."""
    names = {one["fastest"], *(row["implementation"] for row in one["rows"])}
    checks, rows = content.checks, content.equivalence
    certified = rows[(rows["spec"] == one["spec"]) & rows["implementation"].isin(names) & (rows["state"] == "pass")]
    double = certified[certified["dtype"] == "float64"]
    checks = checks[checks["certificate"].isin(double["certificate"]) & (checks["state"] == "pass") & checks["error"].notna()]
    parts = []
    for number, what in EQUAL.items():
        errors = checks.loc[checks["number"] == number, "error"].astype(float)
        if len(errors):
            parts.append(f"{what} to {errors.max():.1e}")
    if parts:
        return f" In float64 they have equal {', '.join(parts)}."
    dtype = "float64" if len(double) else next(iter(certified["dtype"]), None)
    worst = certified.loc[certified["dtype"] == dtype, "worst_error"].dropna().astype(float)
    return f" In {dtype} they are equal in all checks to {worst.max():.1e}." if len(worst) else ""


def _of_dtype(content: Content, dtype: str) -> str:
    rows = [row for row in content.verify["rows"] if row["dtype"] == dtype]
    passed = [row for row in rows if row["state"] == "pass"]
    failed = [row for row in rows if row["state"] not in ("pass", *LEFT_OUT)]
    specs, names = {row["spec"] for row in passed}, {row["implementation"] for row in passed}
    text = f"In {dtype}, {_of_pairs(len(passed), rows)} compute the same function"
    if passed:
        text += f" ({_count(specs, 'spec')}, {_count(names, 'implementation')})" + _closely(content, dtype)
    text += "." + _left_out(rows)
    if failed:
        shown = [f"{row['implementation']} {row['spec']} ({row['state']})" for row in failed[:NAMED]]
        more = f", and {len(failed) - NAMED} more" if len(failed) > NAMED else ""
        text += f" **{len(failed)} failed, with no speed on this page: {', '.join(shown)}{more}.**"
    return text


# of states that are no failures: what a pair that is due does, what one that is not does not, and what several do not
DUE = {
    "n-a": ("apply", "does not", "do not"),
    "not-installed": ("are installed", "is not", "are not"),
    "unsupported": ("are supported here", "is not", "are not"),
}


def _of_pairs(passed: int, rows: list[dict]) -> str:
    """How many of those that it can be asked of: all 46 pairs of spec and implementation that apply (2 do not)."""
    out = {state: count for state in DUE if (count := sum(row["state"] == state for row in rows))}
    due = len(rows) - sum(out.values())
    text = f"{f'all {due}' if passed == due > 1 else f'{passed} of {due}'} pairs of spec and implementation"
    if out:
        without = (f"{count} {DUE[state][1 if count == 1 else 2]}" for state, count in out.items())
        text += f" that {' and '.join(DUE[state][0] for state in out)} ({', '.join(without)})"
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
    without = f" Cells without a speed: {bad}; the reasons are below." if bad else ""
    return [f"{text}.{without}{_ended(run)}{_wide(content, run)}"]


def _ended(run: dict) -> str:
    if not run["ended"]:
        return " The run was cut off before its end."
    why = dict.fromkeys(one.split("; ")[0] for one in run["ended"] if one)  # how many intervals are too wide is said of the cells shown
    return f" The run ended for this reason: {'; '.join(why)}." if why else ""


def _wide(content: Content, run: dict) -> str:
    """How many intervals are short of what the run was to reach."""
    target = (run.get("stop") or {}).get("target")
    low, high = (content.cells.loc[content.cells["state"] == "ok", name].astype(float) for name in ("step_low_s", "step_high_s"))
    half = ((high / low) ** 0.5 - 1).dropna()
    if target is None or half.empty:
        return ""
    wide = int((half > target).sum())
    verb = "is" if wide < 2 else "are"
    return f" {wide or 'None'} of {len(half)} intervals {verb} wider than {100 * target:.3g} % either way, the run's target."
