"""The figures, from the same tables as the page. Colours from cividis and Okabe & Ito, which the colour-blind can tell apart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.report.content import LEFT_OUT, MEMORY, Content
from harness.verify.table import cell as word

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#BBBBBB"
STYLE: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "isoform", "svg.fonttype": "none"}


def save(content: Content, folder: Path) -> None:
    """NAME.png and NAME.svg of every figure. The style holds while they are written too: the same content gives the same SVG."""
    from matplotlib import rc_context

    with rc_context(STYLE):
        for name, figure in draw(content).items():
            figure.savefig(folder / f"{name}.png", dpi=130)
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})


def draw(content: Content) -> dict[str, Figure]:
    """{name: figure}. Figures of speed only where something was measured."""
    made = {f"equivalence_{dtype}": equivalence(content, dtype) for dtype in content.dtypes}
    if not content.cells.empty:
        made |= {"throughput": throughput(content.cells), "three_times": three_times(content.cells), "memory": memory(content.cells)}
    return made


def _figure(width: float, height: float, columns: int = 1, rows: int = 1, **options) -> tuple[Figure, np.ndarray]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def equivalence(content: Content, dtype: str) -> Figure:
    """log10 of error over gate, with the number in each cell; hatched grey, with its word, where there is none."""
    from matplotlib.patches import Rectangle

    rows = [row for row in content.verify["rows"] if row["dtype"] == dtype]
    specs = list(dict.fromkeys(row["spec"] for row in rows))
    names = list(dict.fromkeys(row["implementation"] for row in rows))
    figure, ((axes,),) = _figure(max(1.6 + 1.05 * len(names), 6), max(1.3 + 0.42 * len(specs), 2.4))
    values, cells = np.full((len(specs), len(names)), np.nan), {}
    for row in rows:
        at = specs.index(row["spec"]), names.index(row["implementation"])
        cells[at] = row
        if row["state"] == "pass":
            values[at] = np.log10(max(row["margin"], 1e-5))
    image = axes.imshow(np.ma.masked_invalid(values), cmap="cividis", vmin=-5, vmax=0, aspect="auto")
    axes.set_facecolor(GREY)
    for (i, j), row in cells.items():
        dark = row["state"] == "pass" and values[i, j] < -2.7
        if row["state"] != "pass":
            axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=GREY, edgecolor="#DDDDDD", hatch="///", linewidth=0))
        failed = row["state"] not in ("pass", *LEFT_OUT)
        axes.text(j, i, word(row), ha="center", va="center", color="white" if dark else "black", weight="bold" if failed else "normal")
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set_yticks(range(len(specs)), specs)
    axes.tick_params(length=0)
    axes.set_title(f"Worst error over gate, all checks, {dtype} (at most 1 passes)", loc="left")
    figure.colorbar(image, ax=axes, label="log10(error / gate)", fraction=0.04)
    return figure


def _panels(cells: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    shown = cells[cells["state"] != "n-a"]
    return [(f"{spec}: {operation}", part) for (spec, operation), part in shown.groupby(["spec", "operation"], sort=False)]


def throughput(cells: pd.DataFrame) -> Figure:
    """Rows a second, with the 95 % interval (it may end beyond the axis); a failure is a labelled line, not a gap."""
    panels = _panels(cells)
    columns = 3 if len(panels) > 2 else max(1, len(panels))
    lines = max(len(part) for _, part in panels)
    rows = -(-len(panels) // columns)
    figure, axes = _figure(11, 0.4 + (0.9 + 0.24 * lines) * rows, columns, rows)
    figure.suptitle("Throughput in the steady state, with 95 % intervals over processes", x=0.01, ha="left")
    for one in axes.flat[len(panels) :]:
        one.set_visible(False)
    for one, (title, part) in zip(axes.flat, panels, strict=False):
        value = part["samples_per_s"].to_numpy(float)
        bounds = np.abs(np.stack([value - part["samples_low"], part["samples_high"] - value]).astype(float))
        y = np.arange(len(part))
        one.barh(y, np.nan_to_num(value), color=BLUE, height=0.65)
        one.errorbar(value, y, xerr=bounds, fmt="none", ecolor="black", capsize=2.5, lw=1)
        for k, state in enumerate(part["state"]):
            if state != "ok":
                one.text(0, k, f" {state}", va="center", color="black", style="italic")
        one.set_yticks(y, part["implementation"])
        one.invert_yaxis()
        one.set_title(f"{title} (batch {part['batch_size'].iloc[0]})", loc="left")
        one.set_xlabel("rows / s")
        one.ticklabel_format(axis="x", style="sci", scilimits=(0, 4))
        one.set_xlim(0, 1.5 * np.nanmax(value, initial=1e-9, where=np.isfinite(value)))  # an interval of few blocks may end beyond
    return figure


def three_times(cells: pd.DataFrame) -> Figure:
    """Import, build and first call, stacked; and beside them one step in the steady state, on its own axis."""
    work = cells[cells["operation"].isin(["train", "fit"]) & (cells["state"] == "ok")]
    labels = [f"{spec}  {name}" for spec, name in zip(work["spec"], work["implementation"], strict=True)]
    figure, ((start, steady),) = _figure(11, 1.5 + 0.24 * max(len(work), 1), 2, width_ratios=(3, 2))
    y, left = np.arange(len(work)), np.zeros(len(work))
    for name, colour, text in (("import_s", BLUE, "import"), ("build_s", ORANGE, "build"), ("first_call_s", GREEN, "first call")):
        value = work[name].fillna(0).to_numpy(float)
        start.barh(y, value, left=left, color=colour, label=text, height=0.7)
        left += value
    start.set_yticks(y, labels)
    start.invert_yaxis()
    start.set_xlabel("seconds, once a process")
    start.set_title("Before the first result", loc="left")
    figure.legend(frameon=False, loc="outside lower left", ncols=3)
    step = 1e3 * work["step_s"].to_numpy(float)
    steady.barh(y, step, color=GREY, height=0.7)
    bounds = 1e3 * np.abs(np.stack([work["step_s"] - work["step_low_s"], work["step_high_s"] - work["step_s"]]).astype(float))
    steady.errorbar(step, y, xerr=bounds, fmt="none", ecolor="black", capsize=2.5, lw=1)
    steady.set_yticks(y, [""] * len(y))
    steady.invert_yaxis()
    if len(step):  # nothing has no logarithm
        steady.set_xscale("log")
        steady.set_xlim(step.min() / 4, step.max() * 4)
    steady.set_xlabel("milliseconds a step (log)")
    steady.set_title("In the steady state", loc="left")
    return figure


def memory(cells: pd.DataFrame) -> Figure:
    """Peaks in MiB, of those columns that this machine can measure."""
    known = [name for name in MEMORY if cells[name].notna().any()]
    work = cells[cells[known].notna().any(axis=1)] if known else cells.iloc[:0]
    figure, ((axes,),) = _figure(9, 1.5 + 0.26 * max(len(work), 1))
    y, height = np.arange(len(work)), 0.8 / max(len(known), 1)
    for k, (name, colour) in enumerate(zip(known, (BLUE, ORANGE, GREEN, GREY, "#CC79A7"), strict=False)):
        axes.barh(y + (k - (len(known) - 1) / 2) * height, work[name] / 2**20, height=height, color=colour, label=name)
    axes.set_yticks(
        y,
        [
            f"{spec} {operation}  {name}"
            for spec, operation, name in zip(work["spec"], work["operation"], work["implementation"], strict=True)
        ],
    )
    axes.invert_yaxis()
    axes.set_xlabel("MiB above the level after import")
    axes.set_title("Peak memory", loc="left")
    if known:
        figure.legend(frameon=False, loc="outside lower left", ncols=len(known))
    else:
        axes.text(0.5, 0.5, "nothing measured", transform=axes.transAxes, ha="center")
    return figure
