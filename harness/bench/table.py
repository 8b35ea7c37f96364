"""From a journal to tables: `long` has every measured value, `summary` one row a cell with its interval. Of the last run in the journal.

Where one cell of a spec and implementation is a mismatch, no number of that pair is given.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from harness.bench.cells import CELL_FIELDS, REMEMBERED, TIMED
from harness.bench.journal import read
from harness.bench.memory import COLUMNS as MEMORY
from harness.bench.statistics import Estimate, estimate

if TYPE_CHECKING:
    import pandas as pd

PAIR = ("spec", "spec_hash", "implementation", "device", "dtype", "precision")
PER_BLOCK = ("import_s", "build_s", "first_call_s", "wait_s", "steps_per_round", "compiles", "margin")
START = ("import_s", "build_s", "first_call_s")


def long(journal: Path) -> pd.DataFrame:
    """One row a value: the cell's fields, block, round (missing unless the metric is step_s), metric, value.

    Metrics: step_s (seconds a step, one value a round), import_s, build_s, first_call_s, wait_s, steps_per_round, compiles,
    margin (one value a block), and the memory columns in bytes (block 0). What was not measured has no row.
    """
    import pandas as pd

    values = []
    rows = finished(read(journal).last_run)
    void = mismatched(rows)
    for row in rows:
        if row["state"] != "ok" or pair(row["cell"]) in void:
            continue
        head = {**row["cell"], "block": row["block"]}
        if row["pass"] == "time":
            values += [{**head, "round": k, "metric": "step_s", "value": value} for k, value in enumerate(step_seconds(row))]
        names = PER_BLOCK if row["pass"] == "time" else MEMORY
        values += [{**head, "round": None, "metric": name, "value": row[name]} for name in names if row[name] is not None]
    table = pd.DataFrame(values, columns=[*CELL_FIELDS, "block", "round", "metric", "value"])
    return table.astype({"block": "int64", "round": "Int64", "value": "float64"})


def summary(journal: Path) -> pd.DataFrame:
    """One row a cell: its state and reason, the certificate, seconds a step with a 95 % interval, rows a second, the three times, memory.

    step_s is the geometric mean over blocks of the median over rounds; the interval is Student's t over the logarithms of these medians,
    one a process, and missing with one block. within_sd and between_sd are of log seconds: of rounds in a process, of processes.
    """
    import pandas as pd

    content = read(journal).last_run
    rows = finished(content)
    void = mismatched(rows)
    cells = {key(row["cell"]): row["cell"] for row in content if row["row"] in ("start", "finish") and not row["cell"]["replica"]}
    timed, memory = by_cell(rows, "time"), by_cell(rows, "memory")
    order = sorted(cells, key=lambda one: place(cells[one]))
    return pd.DataFrame([line(cells[one], timed.get(one, []), memory.get(one, []), void) for one in order])


def line(cell: dict, timed: list[dict], memory: list[dict], void: dict[tuple, str]) -> dict:
    state, reason = verdict(timed)
    if pair(cell) in void:
        state, reason = "mismatch", void[pair(cell)]
    good = [row for row in timed if row["state"] == "ok"] if state == "ok" else []
    return {
        **cell,
        "state": state,
        "reason": reason,
        "certificate": good[0]["certificate"] if good else None,
        "code": code_of(good),
        "margin": max((row["margin"] for row in good), default=np.nan),
        "blocks": len(good),
        "rounds": sum(len(row["rounds_s"]) for row in good),
        **speed([step_seconds(row) for row in good], cell["batch_size"]),
        **{name: middle([row[name] for row in good]) for name in START},
        **memory_of(cell, state, memory),
    }


def code_of(rows: list[dict]) -> str | None:
    """What was timed, as JSON: the hash of its sources and the versions of its libraries. None where blocks differ in it."""
    found = {json.dumps([row.get("code_hash"), row.get("versions")], sort_keys=True) for row in rows}
    return found.pop() if len(found) == 1 else None


def speed(blocks: list[list[float]], batch_size: int) -> dict[str, float]:
    """Of seconds a step: a list of rounds for each block."""
    nothing = Estimate(np.nan, np.nan, np.nan, np.nan, 0, np.nan)
    whole = estimate([median(rounds) for rounds in blocks]) if blocks else nothing
    logs = [np.log(rounds) for rounds in blocks]
    several = blocks and all(len(one) > 1 for one in logs)
    return {
        "step_s": whole.value,
        "step_low_s": whole.low,
        "step_high_s": whole.high,
        "samples_per_s": batch_size / whole.value,
        "samples_low": batch_size / whole.high,
        "samples_high": batch_size / whole.low,
        "within_sd": np.sqrt(np.mean([one.var(ddof=1) for one in logs])) if several else np.nan,
        "between_sd": whole.sd,
    }


def memory_of(cell: dict, state: str, rows: list[dict]) -> dict:
    """The memory columns, NaN where not known, and the reason for each NaN."""
    if state != "ok":
        why = f"not measured: {state}"
    elif cell["operation"] not in REMEMBERED:
        why = f"measured for {' and '.join(REMEMBERED)} only"
    else:
        why = "; ".join(filter(None, (rows[-1]["state"], rows[-1]["reason"]))) if rows else "not measured: the run has ended before"
    measured = rows[-1] if rows and state == "ok" and rows[-1]["state"] == "ok" else {}
    reasons = measured.get("reasons", {})
    values = {name: np.nan if measured.get(name) is None else float(measured[name]) for name in MEMORY}
    return {**values, "memory_reasons": {name: reasons.get(name, why) for name, value in values.items() if np.isnan(value)}}


def verdict(rows: list[dict]) -> tuple[str, str | None]:
    """State and reason of a cell from its blocks: "ok" if any is, but with what went wrong in the others as the reason."""
    failed = [row for row in rows if row["state"] != "ok"]
    if not rows:
        return "interrupted", "the run has ended while this was measured"
    if not failed:
        return "ok", None
    first = failed[0]
    if len(failed) == len(rows):
        return first["state"], first["reason"]
    return "ok", f"{len(failed)} of {len(rows)} blocks failed, the first with {first['state']}: {first['reason']}"


def finished(rows: list[dict]) -> list[dict]:
    return [row for row in rows if row["row"] == "finish"]


def mismatched(rows: list[dict]) -> dict[tuple, str]:
    """{pair: reason} of what was shown to compute something else."""
    return {pair(row["cell"]): row["reason"] for row in rows if row["state"] == "mismatch"}


def by_cell(rows: list[dict], which: str) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    for row in rows:
        if row["pass"] == which:
            found.setdefault(key(row["cell"]), []).append(row)
    return found


def step_seconds(row: dict) -> list[float]:
    return [seconds / row["steps_per_round"] for seconds in row["rounds_s"]]


def middle(values: list[float | None]) -> float:
    known = [value for value in values if value is not None]
    return median(known) if known else np.nan


def key(cell: dict) -> str:
    return json.dumps(cell, sort_keys=True)


def pair(cell: dict) -> tuple:
    return tuple(cell[name] for name in PAIR)


def place(cell: dict) -> tuple:
    """Where a cell stands in a table: specs, operations and implementations in their usual order, others after them by name."""
    import impls
    import specs

    usual = (("spec", specs.names()), ("operation", list(TIMED)), ("implementation", list(impls.available())))
    return tuple((known.index(cell[name]) if cell[name] in known else len(known), cell[name]) for name, known in usual) + (key(cell),)
