"""What a report says, as tables: read from verify.json and the journal, nothing made up in between."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UserError
from harness.verify.table import footnotes, matrix

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
MEMORY = ("host_peak", "alloc_peak", "device_reserved_peak", "device_used_peak", "planned_peak")


@dataclass
class Content:
    verify: dict  # verify.json
    runs: list[dict]  # "run" rows of the journal: machine, versions, command, level
    equivalence: pd.DataFrame  # one row a spec, implementation and dtype
    checks: pd.DataFrame  # one row a check of a certificate
    cells: pd.DataFrame  # one row a measured cell; no times where the pair failed a check
    long: pd.DataFrame  # one row a measured value

    @property
    def dtypes(self) -> list[str]:
        return list(dict.fromkeys(self.equivalence["dtype"]))

    def matrix(self, dtype: str) -> tuple[list[str], list[list[str]]]:
        return matrix(self.verify["rows"], dtype)

    @property
    def footnotes(self) -> list[str]:
        return footnotes(self.verify["rows"])


def load(folder: Path) -> Content:
    """Raises UserError where verify.json is missing, cut off or of another schema."""
    import pandas as pd

    verify = read_verify(folder / "verify.json")
    equivalence = pd.DataFrame([{**row, **_worst(row)} for row in verify["rows"]]).drop(columns=["worst", "failures"])
    checks = pd.DataFrame(
        [
            {"certificate": one["id"], **{k: one[k] for k in ("spec", "implementation", "dtype", "device", "precision")}, **check}
            for one in verify["certificates"]
            for check in one["checks"]
        ]
    )
    runs, cells, long = _bench(folder / "journal.jsonl")
    return Content(verify, runs, equivalence, checks, *_only_certified(verify["rows"], cells, long))


def read_verify(path: Path) -> dict:
    again = f"isoform verify --out {path.parent}"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is not there: a report shows no number without a certificate\n  make it: {again}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise UserError(f"{path} is not whole: {error}\n  likely:  it was cut off while it was copied\n  make it anew: {again}") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else None
        raise UserError(f"{path} has schema {found}, this version reads {SCHEMA}\n  make it anew: {again}")
    return content


def _worst(row: dict) -> dict:
    worst = row["worst"] or {}
    return {f"worst_{key}": worst.get(key) for key in ("check", "what", "error", "gate")}


def _bench(journal: Path) -> tuple[list[dict], pd.DataFrame, pd.DataFrame]:
    import pandas as pd

    if not journal.exists():
        return [], pd.DataFrame(), pd.DataFrame()
    from harness.bench.journal import read
    from harness.bench.table import long, summary

    runs = [row for row in read(journal).last_run if row["row"] == "run"]
    return runs, summary(journal), long(journal)


def _only_certified(rows: list[dict], cells: pd.DataFrame, long: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Take every measured value away from a pair that failed, in verify or when its certificate was renewed."""
    if cells.empty:
        return cells, long
    failed = {
        (row["spec"], row["implementation"]): row for row in rows if row["state"] not in ("pass", "n-a", "not-installed", "unsupported")
    }
    cells, keep = cells.copy(), []
    for index, cell in cells.iterrows():
        row = failed.get((cell["spec"], cell["implementation"]))
        if row is not None:
            cells.loc[index, ["state", "reason"]] = [row["state"], f"verify: {row['reason']}"]
        if cells.loc[index, "state"] != "ok" or not cell["certificate"]:
            numbers = [name for name in MEASURED if name in cells.columns]
            cells.loc[index, numbers] = float("nan")
            keep.append((cell["spec"], cell["implementation"], cell["operation"]))
    bad = set(keep)
    good = [key not in bad for key in zip(long["spec"], long["implementation"], long["operation"], strict=True)]
    return cells, long[good]


MEASURED = (
    "step_s", "step_low_s", "step_high_s", "samples_per_s", "samples_low", "samples_high", "import_s", "build_s", "first_call_s",
    "within_sd", "between_sd", *MEMORY,
)  # fmt: skip


def answer(content: Content) -> list[str]:
    """The result in words, sentence by sentence."""
    rows, sentences = content.verify["rows"], []
    for dtype in content.dtypes:
        mine = [row for row in rows if row["dtype"] == dtype]
        passed = [row for row in mine if row["state"] == "pass"]
        failed = [row for row in mine if row["state"] not in ("pass", "n-a", "not-installed", "unsupported")]
        absent = len(mine) - len(passed) - len(failed)
        specs, names = {row["spec"] for row in passed}, {row["implementation"] for row in passed}
        sentence = f"In {dtype}, {len(passed)} pairs of {len(specs)} specs and {len(names)} implementations compute the same function"
        sentence += _agreement(content, dtype)
        if absent:
            sentence += f" {absent} further pairs do not apply or are not installed; the reasons are below."
        if failed:
            sentence += f" **{len(failed)} pairs failed or crashed, and have no speed here.**"
        sentences.append(sentence)
    if content.runs and content.runs[-1].get("note"):
        blocks = int(content.cells["blocks"].max())
        sentences.append(f"Speeds come from {blocks} blocks at level {content.runs[-1]['level']}: {content.runs[-1]['note']}.")
    return sentences


def _agreement(content: Content, dtype: str) -> str:
    """How closely: the largest error of terms and gradients, or of losses in float32."""
    if content.checks.empty:
        return "."
    number, what = (
        (3, "gradients") if dtype == "float64" else (7, "200 steps of training" if content.verify["level"] == "report" else "training")
    )
    mine = content.checks[(content.checks["dtype"] == dtype) & (content.checks["number"] == number) & (content.checks["state"] == "pass")]
    mine = mine[mine["implementation"] != "numpy"]
    if mine.empty:
        return "."
    worst = mine.loc[mine["error"].idxmax()]
    where = f"{worst['implementation']}, {worst['spec']}, gate {worst['gate']:.0e}"
    return f"; the largest relative error of {what} is {worst['error']:.1e} ({where})."
