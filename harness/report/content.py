"""What a report says, as tables: read from verify.json and the journal, nothing made up in between."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import UserError
from harness.verify.table import footnotes, matrix

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
MEMORY = ("host_peak", "alloc_peak", "device_reserved_peak", "device_used_peak", "planned_peak")
START = ("import_s", "build_s", "first_call_s")
STEP = ("step_s", "step_low_s", "step_high_s")
RATE = ("samples_per_s", "samples_low", "samples_high")
SPREAD = ("within_sd", "between_sd")
BOUND = ("bound_s", "bound_by", "of_bound")
MEASURED = (*STEP, *RATE, *START, *SPREAD, *MEMORY)
LEFT_OUT = {"n-a": "not applicable", "not-installed": "not installed", "unsupported": "unsupported here"}

# what a report reads of each part of verify.json
FILE = ("made", "command", "level", "machine", "versions", "seconds", "rows", "certificates")
ROW = ("spec", "implementation", "dtype", "device", "precision", "state", "reason", "margin", "worst", "comparisons", "certificate")
OF_CERTIFICATE = ("spec", "spec_hash", "implementation", "dtype", "device", "precision")
CERTIFICATE = ("id", *OF_CERTIFICATE, "code_hash", "versions", "passed", "checks")
CHECK = ("number", "name", "state", "reason", "comparisons", "error", "gate", "margin", "what")


@dataclass
class Content:
    verify: dict  # verify.json
    runs: list[dict]  # "run" rows of the journal: machine, versions, command, level
    equivalence: pd.DataFrame  # one row a spec, implementation and dtype
    checks: pd.DataFrame  # one row a check of a certificate
    cells: pd.DataFrame  # one row a measured cell; no measured value without a certificate
    long: pd.DataFrame  # one row a measured value
    ratios: pd.DataFrame  # one row for each two implementations of a spec and operation, with the verdict
    card: dict | None = None  # machine.json, what the machine can do at most

    @property
    def dtypes(self) -> list[str]:
        return list(dict.fromkeys(self.equivalence["dtype"]))

    def matrix(self, dtype: str) -> tuple[list[str], list[list[str]]]:
        return matrix(self.verify["rows"], dtype)

    def certificates(self, dtype: str) -> list[list[str]]:
        """Lines that stand below the header of `matrix`: the first eight characters of each certificate's id."""
        header, _ = self.matrix(dtype)
        ids = {(row["spec"], row["implementation"]): row["certificate"] for row in self.verify["rows"] if row["dtype"] == dtype}
        specs = dict.fromkeys(row["spec"] for row in self.verify["rows"])
        return [[spec, *(f"`{one[:8]}`" if (one := ids.get((spec, name))) else "" for name in header[1:])] for spec in specs]

    @property
    def footnotes(self) -> list[str]:
        return footnotes(self.verify["rows"])


def load(folder: Path) -> Content:
    """Raises UserError where verify.json is missing, cut off, incomplete or of another schema, or the journal is damaged."""
    import pandas as pd

    verify = read_verify(folder / "verify.json")
    equivalence = pd.DataFrame([{**{key: row[key] for key in ROW if key != "worst"}, **_worst(row)} for row in verify["rows"]])
    checks = pd.DataFrame(
        [_check(one, check) for one in verify["certificates"] for check in one["checks"]], columns=["certificate", *OF_CERTIFICATE, *CHECK]
    )
    runs, cells, values, ratios = _bench(folder / "journal.jsonl")
    cells, values, ratios = only_certified(verify, cells, values, ratios)
    card = machines_card(folder, runs)
    return Content(verify, runs, equivalence, checks, bounded(cells, runs, card), values, ratios, card)


def machines_card(folder: Path, runs: list[dict]) -> dict | None:
    """machine.json, if it is of the machine that was timed. Raises UserError if it is damaged."""
    from harness.hardware.card import read

    found = read(folder)
    return found if found and runs and found["machine"] == runs[-1]["machine"] else None


def bounded(cells: pd.DataFrame, runs: list[dict], card: dict | None) -> pd.DataFrame:
    """With `bound_s`, which no step on the machine can be faster than, `bound_by`, and `of_bound`, the share of it that was reached."""
    from harness.hardware.bound import bound
    from specs import Spec

    if cells.empty:
        return cells
    known = {hash: Spec.model_validate(full) for hash, full in runs[-1].get("specs", {}).items()} if card else {}

    def of(cell: Any) -> tuple[float, str | None]:
        spec = known.get(cell["spec_hash"])
        found = (
            bound(card, spec, cell["operation"], cell["batch_size"], cell["dtype"]) if spec and card["device"] == cell["device"] else None
        )
        return (found.seconds, found.by) if found else (float("nan"), None)

    bounds = [of(cell) for _, cell in cells.iterrows()]
    cells = cells.assign(bound_s=[seconds for seconds, _ in bounds], bound_by=[by for _, by in bounds])
    return cells.assign(of_bound=cells["bound_s"] / cells["step_s"])


def read_verify(path: Path) -> dict:
    again = f"make it anew: isoform verify --out {path.parent}"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is not there: a report shows no number without a certificate\n  {again}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}\n  {again}") from None
    except ValueError as error:
        raise UserError(f"{path} is not whole: {error}\n  likely:  it was cut off while it was copied\n  {again}") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else None
        raise UserError(f"{path} has schema {found}, this version reads {SCHEMA}\n  {again}")
    if problem := _incomplete(content):
        raise UserError(f"{path} is not whole: {problem}\n  likely:  it was edited, or written by another version\n  {again}")
    return content


def _incomplete(content: dict) -> str | None:
    if missing := [key for key in FILE if key not in content]:
        return f"missing {', '.join(missing)}"
    if not content["rows"]:
        return "it has no rows"
    checks = [check for one in content["certificates"] for check in one.get("checks", [])]
    parts = {"row": (content["rows"], ROW), "certificate": (content["certificates"], CERTIFICATE), "check": (checks, CHECK)}
    for what, (some, keys) in parts.items():
        for number, part in enumerate(some, 1):
            if missing := [key for key in keys if key not in part]:
                return f"{what} {number} is missing {', '.join(missing)}"
    for number, row in enumerate(content["rows"], 1):
        if row["state"] == "pass" and (row["margin"] is None or row["certificate"] is None):
            return f"row {number} is a pass without a margin or a certificate"
    return None


def _worst(row: dict) -> dict:
    worst = row["worst"] or {}
    return {f"worst_{key}": worst.get(key) for key in ("check", "what", "error", "gate")}


def _check(certificate: dict, check: dict) -> dict:
    # without the seconds that a check took: they would be a speed, of an implementation that may be wrong
    return {"certificate": certificate["id"], **{key: certificate[key] for key in OF_CERTIFICATE}, **{key: check[key] for key in CHECK}}


def _bench(journal: Path) -> tuple[list[dict], pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    import pandas as pd

    if not journal.exists():
        return [], pd.DataFrame(), pd.DataFrame(), pd.DataFrame()
    from harness.bench.journal import read
    from harness.bench.ratios import ratios
    from harness.bench.table import long, summary

    runs = [row for row in read(journal).last_run if row["row"] == "run"]
    return runs, summary(journal), long(journal), ratios(journal)


def only_certified(
    verify: dict, cells: pd.DataFrame, values: pd.DataFrame, ratios: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """All three without any measured value of a pair that verify failed or never saw, or whose renewal failed.

    Whatever one dtype of a pair does wrong, no dtype of it has a speed. A certificate counts for the spec's hash it was made for.
    """
    from harness.bench.ratios import GROUP

    if cells.empty:
        return cells, values, ratios
    judge, good = Judge(verify), set()
    cells = cells.astype({"reason": object, "certificate": object})
    for index, cell in cells.iterrows():
        state, reason = judge(cell)
        if state == "ok":
            good.add(tuple(cell[name] for name in (*GROUP, "implementation")))
            continue
        cells.loc[index, ["state", "reason", "certificate", "margin"]] = [state, reason, None, float("nan")]
        cells.loc[index, list(MEASURED)] = float("nan")
        cells.loc[index, ["blocks", "rounds"]] = 0
        cells.at[index, "memory_reasons"] = dict.fromkeys(MEMORY, f"not measured: {state}")

    def kept(table: pd.DataFrame, who: str) -> np.ndarray:
        return np.array([tuple(one) in good for one in table[[*GROUP, who]].itertuples(index=False)], dtype=bool)

    ratios = ratios[kept(ratios, "base")]
    return cells, values[kept(values, "implementation")], ratios[kept(ratios, "implementation")]


class Judge:
    """Says of a cell with which state and reason it may be shown; only "ok" may have numbers."""

    def __init__(self, verify: dict):
        passes = {row["certificate"] for row in verify["rows"] if row["state"] == "pass"}
        self.failed = {_pair(row): row for row in verify["rows"] if row["state"] not in ("pass", *LEFT_OUT)}
        good = [one for one in verify["certificates"] if one["passed"] and one["id"] in passes]
        self.passed = {(*_pair(one), one["spec_hash"]) for one in good}
        self.code = {(*_pair(one), one["spec_hash"], json.dumps([one["code_hash"], one["versions"]], sort_keys=True)) for one in good}

    def __call__(self, cell: Any) -> tuple[str, str | None]:
        reason = cell["reason"] if isinstance(cell["reason"], str) else None
        if cell["state"] in LEFT_OUT:
            return cell["state"], reason
        if row := self.failed.get(_pair(cell)):
            return row["state"], f"verify, {row['dtype']}: {row['reason']}"
        if cell["state"] != "ok":
            return cell["state"], reason
        if (*_pair(cell), cell["spec_hash"]) not in self.passed:
            return "no-certificate", "verify.json holds none for this implementation and this very spec: isoform verify --out THIS_FOLDER"
        if (*_pair(cell), cell["spec_hash"], cell["code"]) not in self.code:
            return (
                "no-certificate",
                "what was timed is not what was verified, its code or a library has changed: isoform run --out A_NEW_FOLDER",
            )
        return "ok", reason


def _pair(row: Any) -> tuple[str, str, str]:
    return row["spec"], row["implementation"], row["device"]
