"""What follows from the tables of `content`: when a slow start has paid off, planned against measured memory, who is faster, the matrix."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from harness.report.content import START, Content
from harness.report.formats import missing

if TYPE_CHECKING:
    import pandas as pd

MAIN = ("train", "fit")  # what a spec is timed for in the first place
TURNED = {"faster": "slower", "slower": "faster"}
EVEN = (
    "spec", "spec_hash", "operation", "device", "dtype", "precision", "batch_size", "implementation", "base", "later_s", "steps",
    "steps_low", "steps_high", "after_s", "verdict",
)  # fmt: skip
HELD = ("held_against", "planned_over_measured", "measured_minus_planned", "not_held_because")
KINDS = ("alloc_peak", "device_used_peak", "device_reserved_peak", "host_peak")  # what a plan is held against: the first that is known


def main_cells(content: Content) -> pd.DataFrame:
    """Of `shown`, those of training or fitting that have numbers."""
    cells = content.shown
    return cells if cells.empty else cells[cells["operation"].isin(MAIN) & (cells["state"] == "ok")]


def pairs_of(content: Content, cells: pd.DataFrame) -> pd.DataFrame:
    """The ratios of one group of cells."""
    from harness.bench.ratios import GROUP

    ratios, first = content.ratios, cells.iloc[0]
    for name in GROUP:
        ratios = ratios[ratios[name] == first[name]]
    return ratios


def against(pairs: pd.DataFrame, base: str) -> list[dict]:
    """The rows of a table of ratios that have `base` in them, turned so that it is the base."""
    rows = pairs[pairs["base"] == base].to_dict("records")
    for row in pairs[pairs["implementation"] == base].to_dict("records"):
        word, text = TURNED.get(row["verdict"], row["verdict"]), TURNED.get(row["text"], row["text"])
        turned = {"implementation": row["base"], "ratio": 1 / row["ratio"], "low": 1 / row["high"], "high": 1 / row["low"]}
        rows.append({**row, **turned, "base": base, "verdict": word, "text": text})
    return rows


def rankings(content: Content) -> list[dict]:
    """{"spec", "operation", "batch_size", "fastest", "beaten", "equal", "floor", "twin", "rows", "apart"} of what is trained or
    fitted; in the rows each other implementation's time over the fastest's; `equal`: every pair is, of all; `apart`: those that shared no
    block with the fastest. None at level quick."""
    cells = main_cells(content)
    if cells.empty or content.note:
        return []
    found = []
    for (spec, operation, _), part in cells.groupby(["spec", "operation", "spec_hash"], sort=False):
        if len(part) > 1:
            names, pairs = list(part["implementation"]), pairs_of(content, part)
            fastest, beaten = fastest_of(names, pairs)
            rows = sorted(against(pairs, fastest), key=lambda row: row["ratio"])
            apart = [name for name in names if name not in {fastest, *(row["implementation"] for row in rows)}]
            head = {"spec": spec, "operation": operation, "batch_size": int(part["batch_size"].iloc[0]), "fastest": fastest}
            equal = len(pairs) == math.comb(len(names), 2) and bool((pairs["verdict"] == "equal within noise").all())
            head |= {"beaten": beaten, "equal": equal, "floor": pairs["floor"].max(), "twin": _twin(pairs)}
            found.append({**head, "rows": rows, "apart": apart})
    return found


def _twin(pairs: pd.DataFrame) -> str | None:
    return next((name for name in pairs["twin"] if not missing(name)), None)


def fastest_of(names: list[str], pairs: pd.DataFrame) -> tuple[str, bool]:
    """The implementation that none is shown to be faster than; of several the one with the least geometric mean of its paired ratios to
    the others of them. And whether there is none, so that this is the one that the fewest are faster than.

    Paired, as the verdicts are: whose blocks failed while the machine was slow has the best mean of what is left.
    """
    rows = {name: against(pairs, name) for name in names}
    ahead = {name: sum(row["verdict"] == "faster" for row in rows[name]) for name in names}
    least = min(ahead.values())
    best = [name for name in names if ahead[name] == least]

    def behind(name: str) -> float:
        logs = [-math.log(row["ratio"]) for row in rows[name] if row["implementation"] in best]
        return sum(logs) / len(logs) if logs else math.inf

    return min(best, key=behind), least > 0


def break_even(content: Content) -> pd.DataFrame:
    """One row for each two implementations of a spec of which one (`implementation`) has its first result later than the other (`base`).

    `later_s`: by how much, of import, build and first call together. `steps`: after how many more steps it has done as many as the other
    and is ahead; infinite where it never is. `steps_low`, `steps_high`: the same at the ends of the interval of the paired ratio.
    `after_s`: seconds from the start of its process until then. Empty at level quick.
    """
    import pandas as pd

    cells, rows = main_cells(content), []
    if not cells.empty and not content.note:
        for _, part in cells.groupby(["spec", "operation", "spec_hash"], sort=False):
            pairs, known = pairs_of(content, part), part.dropna(subset=list(START))
            for base in known.to_dict("records"):
                ratios = {row["implementation"]: row for row in against(pairs, base["implementation"])}
                rows += [
                    _even(base, new, ratios.get(new["implementation"])) for new in known.to_dict("records") if start(new) > start(base)
                ]
    return pd.DataFrame(rows, columns=list(EVEN))


def start(cell: dict) -> float:
    return sum(cell[name] for name in START)


def _even(base: dict, new: dict, ratio: dict | None) -> dict:
    later = start(new) - start(base)
    ends = (ratio["ratio"], ratio["low"], ratio["high"]) if ratio else (new["step_s"] / base["step_s"], math.nan, math.nan)
    steps, low, high = (overtakes(later, base["step_s"], one) for one in ends)
    after = start(new) + steps * ends[0] * base["step_s"]
    head = {name: new[name] for name in EVEN[:8]}
    return {
        **head, "base": base["implementation"], "later_s": later, "steps": steps, "steps_low": low, "steps_high": high, "after_s": after,
        "verdict": ratio["verdict"] if ratio else None,
    }  # fmt: skip


def overtakes(later_s: float, step_s: float, ratio: float) -> float:
    """The first whole number of steps after which one that starts `later_s` later is ahead of one whose step takes `step_s`, if its own
    takes `ratio` times that. Infinite: never; NaN: the ratio is not known."""
    if missing(ratio):
        return math.nan
    return math.floor(later_s / (step_s * (1 - ratio))) + 1 if ratio < 1 else math.inf


def planned(content: Content) -> pd.DataFrame:
    """Memory: what the compiler has planned over what was measured, or the reason why that cannot be told."""
    cells = main_cells(content)
    return cells.assign(**_columns([reconciled(cell) for cell in cells.to_dict("records")])) if len(cells) else cells


def _columns(rows: list[dict]) -> dict[str, list]:
    return {name: [row[name] for row in rows] for name in HELD}


def reconciled(cell: dict) -> dict:
    """The values of HELD for a cell: against the first of KINDS that is known; the difference in bytes; or why there is none."""
    against = next((name for name in KINDS if not missing(cell[name]) and cell[name] > 0), None)
    if missing(cell["planned_peak"]):
        why = cell["memory_reasons"].get("planned_peak", "no plan is known")
    elif against is None:
        why = cell["memory_reasons"].get("host_peak", "no peak was measured")
    else:
        plan, measured = cell["planned_peak"], cell[against]
        return dict(zip(HELD, (against, plan / measured, measured - plan, None), strict=True))
    return dict(zip(HELD, (None, math.nan, math.nan, why), strict=True))


def matrices(content: Content) -> list[dict]:
    """{"operation", "names", "lines"} for each operation: a line a spec, in it a cell an implementation, None where nothing is known of it.

    Each cell has "pair", verify's row in the dtype that was timed (else the first), and "cell", the measured one, or None.
    """
    shown = content.shown.to_dict("records")
    verified = content.equivalence.to_dict("records")
    names = list(dict.fromkeys([row["implementation"] for row in verified] + [cell["implementation"] for cell in shown]))
    operations = list(dict.fromkeys(cell["operation"] for cell in shown))
    operations.sort(key=lambda one: one not in MAIN)  # stable: the rest stay in their order
    made = []
    for operation in operations:
        cells = {(cell["spec"], cell["implementation"]): cell for cell in shown if cell["operation"] == operation}
        specs = list(dict.fromkeys(spec for spec, _ in cells))
        lines = [{"spec": spec, "cells": [_entry(verified, cells.get((spec, name)), spec, name) for name in names]} for spec in specs]
        made.append({"operation": operation, "names": names, "lines": lines})
    return made


def _entry(verified: list[dict], cell: dict | None, spec: str, name: str) -> dict | None:
    rows = [row for row in verified if (row["spec"], row["implementation"]) == (spec, name)]
    same = [row for row in rows if cell and row["dtype"] == cell["dtype"]]
    row: Any = (same or rows or [None])[0]
    return {"pair": row, "cell": cell} if row or cell else None


def seeds(content: Content) -> list[dict]:
    """Time to quality, a row a spec and implementation, the fastest first: the median over all seeds, where one that has not reached the
    target took for ever, and the range of those that have. NaN where no seed was trained and certified."""
    if content.quality.empty:
        return []
    made = []
    for (spec, name, target, device, dtype), part in content.quality.groupby(
        ["spec", "implementation", "target", "device", "dtype"], sort=False, dropna=False
    ):
        trained = part["state"] == "ok"
        reached, failed = part[trained & part["steps"].notna()], part[~trained | part["steps"].isna()]
        states = failed["state"].replace("ok", "not reached")
        row = {"spec": spec, "implementation": name, "target": target, "device": device, "dtype": dtype, "seeds": len(part),
               "reached": len(reached), "failed": list(dict.fromkeys(zip(states, failed["reason"], strict=True))),
               "certificate": part.loc[trained, "certificate"].iloc[0] if trained.any() else None}  # fmt: skip
        for what in ("seconds", "steps"):
            values = reached[what]
            row |= {what: part[what].where(trained).fillna(math.inf).median() if trained.any() else math.nan}
            row |= {f"{what}_low": values.min(), f"{what}_high": values.max()}
        made.append(row)
    specs = list(dict.fromkeys(row["spec"] for row in made))
    return sorted(made, key=lambda row: (specs.index(row["spec"]), missing(row["seconds"]), row["seconds"], -row["reached"] / row["seeds"]))
