"""What a report says, as tables: read from verify.json and the journal, nothing made up in between."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import UserError
from harness.report import further
from harness.report.formats import words
from harness.report.schema import wrong_card, wrong_verify
from harness.verify.table import footnotes, matrix

if TYPE_CHECKING:
    import pandas as pd

    from specs import Spec

SCHEMA = 1
MEMORY = ("host_peak", "alloc_peak", "device_reserved_peak", "device_used_peak", "planned_peak")
START = ("import_s", "build_s", "first_call_s")
START_ENDS = tuple(name.replace("_s", f"_{end}_s") for name in START for end in ("low", "high"))  # over the cold processes
STEP = ("step_s", "step_low_s", "step_high_s")
RATE = ("samples_per_s", "samples_low", "samples_high")
SPREAD = ("within_sd", "between_sd")
BOUND = ("bound_s", "bound_by", "of_bound")
WORK = ("flops", "moved_bytes", "flops_per_s", "flops_per_byte")
MEASURED = (*STEP, *RATE, *START, *SPREAD, *MEMORY)
LEFT_OUT = {"n-a": "not applicable", "not-installed": "not installed", "unsupported": "unsupported here"}

# columns of the tables, of the fields of verify.json that `schema` knows
ROW = ("spec", "implementation", "dtype", "device", "precision", "state", "reason", "margin", "worst", "comparisons", "certificate")
OF_CERTIFICATE = ("spec", "spec_hash", "implementation", "dtype", "device", "precision")
CHECK = ("number", "name", "state", "reason", "comparisons", "error", "gate", "margin", "what")


@dataclass
class Content:
    verify: dict  # verify.json
    runs: list[dict]  # "run" rows of the journal: machine, versions, command, level; and "ended": why there were no more blocks
    equivalence: pd.DataFrame  # one row a spec, implementation and dtype
    checks: pd.DataFrame  # one row a check of a certificate
    cells: pd.DataFrame  # one row a measured cell; no measured value without a certificate
    long: pd.DataFrame  # one row a measured value
    ratios: pd.DataFrame  # one row for each two implementations of a spec and operation, with the verdict
    card: dict | None = None  # machine.json, what the machine can do at most, if it is of the machine that was timed
    specs: dict[str, Spec] = field(default_factory=dict)  # by hash, as far as the journal has them in full
    noise: pd.DataFrame = field(default_factory=further.nothing)  # one row a group of cells: an implementation's twin over itself
    rules: pd.DataFrame = field(default_factory=further.nothing)  # one row a cell and rule
    even: pd.DataFrame = field(default_factory=further.nothing)  # when one that starts late overtakes one that starts first
    sweeps: pd.DataFrame = field(default_factory=further.nothing)  # one row a cell of a sweep over batch or width
    notes: list[str] = field(default_factory=list)  # what lies in the folder and is not shown, and why
    curves: pd.DataFrame = field(default_factory=further.nothing)  # one row a point
    slopes: pd.DataFrame = field(default_factory=further.nothing)  # one row a curve
    quality: pd.DataFrame = field(default_factory=further.nothing)  # one row a training to a target, a seed each

    @property
    def dtypes(self) -> list[str]:
        return list(dict.fromkeys(self.equivalence["dtype"]))

    @property
    def note(self) -> str | None:
        """Why nothing is ranked here, or None."""
        return self.runs[-1].get("note") if self.runs else None

    @property
    def shown(self) -> pd.DataFrame:
        """The cells but for those that only a sweep is made of: of several batch sizes the spec's own, else the smallest."""
        if self.cells.empty:
            return self.cells
        own = []
        for _, part in self.cells.groupby(["spec", "spec_hash", "operation", "device", "dtype", "precision"], sort=False):
            sizes = sorted(set(part["batch_size"]))
            spec = self.specs.get(part["spec_hash"].iloc[0])
            size = spec.training.batch_size if spec and spec.training.batch_size in sizes else sizes[0]
            own += list(part.index[part["batch_size"] == size])
        return self.cells.loc[sorted(own)]

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

    from harness.hardware.card import read as read_card
    from harness.report.derived import break_even

    verify = read_verify(folder / "verify.json")
    equivalence = pd.DataFrame([{**{key: row[key] for key in ROW if key != "worst"}, **_worst(row)} for row in verify["rows"]])
    checks = pd.DataFrame(
        [_check(one, check) for one in verify["certificates"] for check in one["checks"]], columns=["certificate", *OF_CERTIFICATE, *CHECK]
    )
    journal = folder / "journal.jsonl"
    runs, cells, values, ratios = _bench(journal)
    cells, values, ratios = only_certified(verify, cells, values, ratios)
    card, known = read_card(folder), specs_of(runs)
    if card and (problem := wrong_card(card)):
        raise UserError(f"{folder / 'machine.json'} is not whole: {problem}\n  make it anew: isoform machine --out {folder}")
    notes = []
    if card and card["machine"] != (here := runs[-1]["machine"] if runs else verify["machine"]):
        notes = [f"machine.json is of another machine ({differences(card['machine'], here)})"]
        card = None
    cells = further.beside(bounded(cells, known, card), values)
    content = Content(verify, runs, equivalence, checks, cells, values, ratios, card, known, notes=notes)
    if not cells.empty:
        content.noise = further.noise(journal, cells)
        content.rules = further.rules(journal, cells)
        content.sweeps, apart = further.sweeps(folder, cells, runs[-1]["machine"], certified)
        content.notes += apart
        content.curves, content.slopes = further.curves(content.sweeps)
        content.even = break_even(content)
        content.quality = further.quality(folder, cells, Judge(verify))
    return content


def differences(one: dict, other: dict) -> str:
    """In what a machine differs from another, as "cores 2 and 64"; empty where in nothing."""
    names = [name for name in other if one.get(name) != other[name] and name != "name"]
    return "; ".join(f"{name} {words(one.get(name))} and {words(other[name])}" for name in names)


def specs_of(runs: list[dict]) -> dict[str, Spec]:
    from specs import Spec

    return {hash: Spec.model_validate(full) for run in runs for hash, full in run.get("specs", {}).items()}


def bounded(cells: pd.DataFrame, known: dict[str, Spec], card: dict | None) -> pd.DataFrame:
    """With the work of a step counted from its spec, and the rate that was reached; and where there is a card with `bound_s`, which no step
    on the machine can be faster than, `bound_by`, and `of_bound`, the share of it that was reached."""
    from harness.hardware.bound import bound, flops, moved

    if cells.empty:
        return cells
    nan = float("nan")
    rows: list[tuple[float, float, float, str | None]] = []
    for _, cell in cells.iterrows():
        spec = known.get(cell["spec_hash"])
        if spec is None:
            rows.append((nan, nan, nan, None))
            continue
        size = cell["operation"], cell["batch_size"]
        found = bound(card, spec, *size, cell["dtype"]) if card and card["device"] == cell["device"] else None
        of_bound = (found.seconds, found.by) if found else (nan, None)
        rows.append((flops(spec, *size), moved(spec, *size, cell["dtype"]), *of_bound))
    work, bytes_moved, least, by = zip(*rows, strict=True)
    cells = cells.assign(flops=work, moved_bytes=bytes_moved, bound_s=least, bound_by=by)
    return cells.assign(
        of_bound=cells["bound_s"] / cells["step_s"],
        flops_per_s=cells["flops"] / cells["step_s"],
        flops_per_byte=cells["flops"] / cells["moved_bytes"],
    )


def read_verify(path: Path) -> dict:
    makes = "sweep width" if path.name.startswith("sweep-width") else "verify"
    again = f"make it anew: isoform {makes} --out {path.parent}"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is not there: a report shows no number without a certificate\n  {again}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}\n  {again}") from None
    except ValueError as error:
        raise UserError(f"{path} is not whole: {error}\n  likely:   it was cut off while it was copied\n  {again}") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else None
        raise UserError(f"{path} has schema {found}, this version reads {SCHEMA}\n  {again}")
    if problem := wrong_verify(content):
        raise UserError(f"{path} is not whole: {problem}\n  likely:   it was edited, or written by another version\n  {again}")
    return content


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

    rows = read(journal).last_run
    ended = [row["stopped"] for row in rows if row["row"] == "end"]
    runs = [row | {"ended": ended} for row in rows if row["row"] == "run"]
    return runs, summary(journal), long(journal), further.twins(journal, ratios(journal))


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


def certified(verify: dict, cells: pd.DataFrame) -> pd.DataFrame:
    """`only_certified`, of cells alone."""
    from harness.bench.ratios import COLUMNS, GROUP
    from harness.report.further import nothing

    return only_certified(verify, cells, nothing().reindex(columns=[*GROUP, "implementation"]), nothing().reindex(columns=list(COLUMNS)))[0]


class Judge:
    """Says of a cell with which state and reason it may be shown; only "ok" may have numbers."""

    def __init__(self, verify: dict):
        passes = {row["certificate"] for row in verify["rows"] if row["state"] == "pass"}
        self.failed = {_pair(row): row for row in verify["rows"] if row["state"] not in ("pass", *LEFT_OUT)}
        good = [one for one in verify["certificates"] if one["passed"] and one["id"] in passes]
        self.passed = {(*_pair(one), one["spec_hash"]) for one in good}
        self.code = {(*_pair(one), one["spec_hash"], json.dumps([one["code_hash"], one["versions"]], sort_keys=True)) for one in good}

    def vouches(self, row: Any) -> bool:
        """Whether this very pair has passed, in every dtype that it was verified in; whatever the code was that ran."""
        return _pair(row) not in self.failed and (*_pair(row), row["spec_hash"]) in self.passed

    def knows(self, row: dict) -> bool:
        """Whether a row of a journal was measured with code that this pair was verified with."""
        cell, code = row["cell"], json.dumps([row["code_hash"], row["versions"]], sort_keys=True)
        return (*_pair(cell), cell["spec_hash"], code) in self.code

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
