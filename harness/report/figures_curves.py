"""Figures of sweeps, and of the time to a quality."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.report.content import Content
from harness.report.derived import seeds
from harness.report.figures import frame, panels, reach, usual
from harness.report.formats import factor
from harness.report.theme import BLUE, INK, marks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE = {"batch": "rows a batch", "width": "width of the hidden layers"}


def curves(content: Content, sweep: str) -> Figure | None:
    """Seconds a step over size, log-log, with intervals; the slope in the legend: 1 is proportional, 0 is overhead alone."""
    table = content.curves
    table = table if table.empty else table[table["sweep"] == sweep]
    if table.empty:
        return None
    parts = list(table.groupby(["spec", "operation", "dtype", "device"], sort=False))
    figure, axes = panels(len(parts), width=10, height=3.6, most=2)
    looks = marks(usual(list(dict.fromkeys(table["implementation"]))))
    slopes = content.slopes
    for one, ((spec, operation, *_), part) in zip(axes, parts, strict=True):
        for name in looks:
            line = part[part["implementation"] == name].sort_values("size")
            if line.empty:
                continue
            of = slopes[(slopes["sweep"] == sweep) & (slopes["spec"] == spec) & (slopes["operation"] == operation)]
            slope = of.loc[of["implementation"] == name, "slope"]
            label = f"{name} ({factor(slope.iloc[0])})" if len(slope) else name
            whiskers = reach(line["step_s"], line["step_low_s"], line["step_high_s"])
            one.errorbar(line["size"], line["step_s"], yerr=whiskers, lw=1.1, ms=4.5, capsize=2, label=label, **looks[name])
        one.set_xscale("log", base=2)
        one.set_yscale("log")
        one.set_ylim(part["step_s"].min() / 3, part["step_s"].max() * 3)  # an interval of few blocks may end beyond
        one.set_xlabel(f"{SIZE[sweep]} (log)")
        one.set_ylabel("seconds a step (log)")
        one.set_title(f"{spec}: {operation}", loc="left")
        one.grid(alpha=0.25, lw=0.5)
        one.legend(fontsize=7, title="slope in brackets", title_fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def quality(content: Content) -> Figure | None:
    """Seconds to the target, a dot a seed, a bar at the median; what has not reached it is a labelled line."""
    rows = seeds(content)
    if not rows:
        return None
    figure, ((axes,),) = frame(9, 1.2 + 0.28 * len(rows))
    for k, row in enumerate(rows):
        of = content.quality
        of = of[(of["spec"] == row["spec"]) & (of["implementation"] == row["implementation"]) & (of["target"] == row["target"])]
        values = of.loc[of["state"] == "ok", "seconds"].dropna().to_numpy(float)
        axes.plot(values, np.full(len(values), k), "o", color=BLUE, alpha=0.6, ms=5, mec="none")
        if np.isfinite(row["seconds"]):
            axes.plot(row["seconds"], k, "|", color=INK, ms=14, mew=1.8)
        if row["failed"]:
            text = ", ".join(dict.fromkeys(state for state, _ in row["failed"]))
            axes.text(0.99, k, f"{row['seeds'] - row['reached']} of {row['seeds']}: {text}", transform=axes.get_yaxis_transform(),
                      ha="right", va="center", style="italic")  # fmt: skip
    axes.set_yticks(range(len(rows)), [f"{row['spec']}  {row['implementation']}" for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    if any(row["reached"] for row in rows):
        axes.set_xscale("log")
    axes.set_xlabel("seconds to the target (log); a dot a seed that reached it, a bar at the median of all")
    axes.set_title("Time to quality", loc="left")
    return figure
