"""How does the time of a step grow with the work? The same cells at many batch sizes, or at many widths of the hidden layers.

Each sweep has a journal of its own beside the run's: sweep-batch.jsonl, sweep-width.jsonl. A width makes another spec, with a hash and
certificates of its own, which lie in sweep-width.verify.json.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from harness.bench.statistics import CONFIDENCE
from harness.errors import UserError
from specs import Spec

if TYPE_CHECKING:
    import pandas as pd

SIZES = {"batch": (1, 4, 16, 64, 256, 1024, 4096), "width": (16, 32, 64, 128, 256, 512, 1024)}
WIDENED = re.compile(r"(.+)-width-(\d+)")
CURVES = ("sweep", "spec", "operation", "implementation", "dtype", "device", "size", "step_s", "step_low_s", "step_high_s")
SLOPES = ("sweep", "spec", "operation", "implementation", "dtype", "device", "slope", "low", "high", "from_size")
FEWEST = 3  # points of a line that has an interval


def journal_name(of: str) -> str:
    return f"sweep-{of}.jsonl"


def verify_name(of: str) -> str:
    """Where the certificates of a sweep's specs lie: with those of the run, but for the widths'."""
    return f"sweep-{of}.verify.json" if of == "width" else "verify.json"


def widened(spec: Spec, widths: tuple[int, ...] = SIZES["width"]) -> list[Spec]:
    """The spec with all its hidden layers so wide. Raises UserError where it has none."""
    if not spec.hidden:
        raise UserError(f"spec {spec.name} has no hidden layers to widen\n  mend: one that has, such as --spec vae, or sweep batch")
    hidden = [[width] * len(spec.hidden) for width in widths]
    return [
        spec.replace(name=f"{spec.name}-width-{width}", architecture={"hidden": one}) for width, one in zip(widths, hidden, strict=True)
    ]


def curves(cells: pd.DataFrame) -> pd.DataFrame:
    """From a summary: seconds a step over batch size, and over width; a curve has two sizes or more."""
    import pandas as pd

    rows = []
    for cell in cells.to_dict("records") if len(cells) else []:
        if cell["state"] == "ok":
            head = {name: cell[name] for name in CURVES if name in cell}
            if found := WIDENED.fullmatch(cell["spec"]):
                rows.append(head | {"sweep": "width", "spec": found[1], "size": int(found[2])})
            else:
                rows.append(head | {"sweep": "batch", "size": cell["batch_size"]})
    table = pd.DataFrame(rows, columns=list(CURVES))
    several = table.groupby(list(CURVES[:6]))["size"].transform("nunique") > 1
    return table[several].sort_values([*CURVES[:6], "size"], kind="stable").reset_index(drop=True)


def slopes(curves: pd.DataFrame) -> pd.DataFrame:
    """Of the larger half of a curve, least squares of log seconds on log size: 1 where a step costs in proportion, 0 where the same.

    The interval is that of the regression. Small sizes cost what a call costs, whatever the work, so they are left out: `from_size` tells.
    """
    import pandas as pd

    rows = []
    for head, curve in curves.groupby(list(CURVES[:6]), sort=False):
        large = curve.nlargest(max(math.ceil(len(curve) / 2), 2), "size")
        rows.append((*head, *_line(large["size"].to_numpy(float), large["step_s"].to_numpy(float)), int(large["size"].min())))
    return pd.DataFrame(rows, columns=list(SLOPES))


def _line(size: np.ndarray, seconds: np.ndarray) -> tuple[float, float, float]:
    if len(size) < 2:
        return math.nan, math.nan, math.nan
    fitted = stats.linregress(np.log(size), np.log(seconds))
    if len(size) < FEWEST:
        return float(fitted.slope), math.nan, math.nan
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(size) - 2) * fitted.stderr)
    return float(fitted.slope), float(fitted.slope) - half, float(fitted.slope) + half
