"""Figures of time: throughput, before and in the steady state, who is faster, the noise, and the roofline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from harness.report.content import Content
from harness.report.derived import MAIN, rankings
from harness.report.figures import PAGE, frame, groups, linked, named_rows, panels, reach, usual, vouchers
from harness.report.formats import anchor, count, factor
from harness.report.theme import BLUE, GREEN, GREY, INK, ORANGE, VERMILLION, marks

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

WHISKER = {"fmt": "none", "ecolor": INK, "capsize": 2.5, "lw": 1}


def throughput(cells: pd.DataFrame, vouch: dict[tuple, str]) -> Figure:
    """Rows a second, with the 95 % interval (it may end beyond the axis); a failure is a labelled line, not a gap."""
    parts = list(groups(cells))
    lines = max((len(part) for _, part in parts), default=1)
    figure, axes = panels(len(parts), height=0.9 + 0.24 * lines)
    figure.suptitle("Throughput in the steady state, with 95 % intervals over processes", x=0.01, ha="left")
    for one, (title, part) in zip(axes, parts, strict=True):
        value = part["samples_per_s"].to_numpy(float)
        y = named_rows(one, part, list(part["implementation"]))
        linked(one.barh(y, np.nan_to_num(value), color=BLUE, height=0.65), part)
        one.errorbar(value, y, xerr=reach(value, part["samples_low"], part["samples_high"]), **WHISKER)
        vouchers(one, part, vouch)
        one.set_title(title, loc="left")
        one.set_xlabel("rows / s")
        one.ticklabel_format(axis="x", style="sci", scilimits=(0, 4))
        one.set_xlim(0, 1.5 * np.nanmax(value, initial=1e-9, where=np.isfinite(value)))  # an interval of few blocks may end beyond
    return figure


def three_times(content: Content, vouch: dict[tuple, str]) -> Figure:
    """Import, build, first call and the steps of the spec's whole training, stacked; beside them one step, on its own axis.

    Where one that starts late is shown to overtake the one that starts first, the step at which it does stands at its bar.
    """
    cells = content.shown
    work = cells[cells["operation"].isin(MAIN) & (cells["state"] != "n-a")]
    labels = [f"{spec}  {name}" for spec, name in zip(work["spec"], work["implementation"], strict=True)]
    figure, ((whole, steady),) = frame(11, 1.5 + 0.26 * max(len(work), 1), 2, width_ratios=(3, 2))
    y, left = named_rows(whole, work, labels), np.zeros(len(work))
    steps = np.array([training_steps(content, cell) for cell in work.to_dict("records")])
    stacked = [(work[name], colour, text) for name, colour, text in STARTS]
    stacked.append((steps * work["step_s"], GREY, "steady: the spec's training (a fit: one)"))
    for values, colour, text in stacked:
        value = values.fillna(0).to_numpy(float)
        linked(whole.barh(y, value, left=left, color=colour, label=text, height=0.7), work)
        left = left + value
    for k, text in enumerate(overtaking(content, work)):
        whole.text(left[k], k, text, va="center", fontsize=7.5)
    whole.set_xlim(0, 1.3 * max(left, default=1) or 1)
    whole.set_xlabel("seconds from the start of the process")
    whole.set_title("Until the spec's training is done", loc="left")
    figure.legend(loc="outside lower left", ncols=4)
    step = 1e3 * work["step_s"].to_numpy(float)
    linked(steady.barh(y, np.nan_to_num(step), color=GREY, height=0.7), work)
    steady.errorbar(step, y, xerr=1e3 * reach(work["step_s"], work["step_low_s"], work["step_high_s"]), **WHISKER)
    steady.set_yticks(y, [""] * len(y))
    steady.tick_params(axis="y", length=0)
    steady.set_ylim(*whole.get_ylim())
    vouchers(steady, work, vouch)
    if np.isfinite(step).any():  # nothing has no logarithm
        steady.set_xscale("log")
        steady.set_xlim(np.nanmin(step) / 4, np.nanmax(step) * 4)
    steady.set_xlabel("milliseconds a step (log)")
    steady.set_title("In the steady state", loc="left")
    return figure


STARTS = (("import_s", BLUE, "import"), ("build_s", ORANGE, "build"), ("first_call_s", GREEN, "first call"))


def training_steps(content: Content, cell: dict) -> float:
    """Steps of the spec's training, one for a fit; none where the journal does not have the spec."""
    spec = content.specs.get(cell["spec_hash"])
    if cell["operation"] == "fit":
        return 1.0
    return float(spec.training.steps) if spec else 0.0


def overtaking(content: Content, work: pd.DataFrame) -> list[str]:
    """For each cell, from which step on it is ahead of the one that starts first; empty where that is not shown."""
    found: dict[tuple, str] = {}
    first: dict[tuple, float] = {}
    for row in content.even.to_dict("records"):
        key = row["spec_hash"], row["operation"]
        if row["later_s"] >= first.get((*key, row["implementation"]), 0.0):  # the latest behind: behind the first of all
            first[(*key, row["implementation"])] = row["later_s"]
            told = row["verdict"] == "faster" and np.isfinite(row["steps"])
            found[(*key, row["implementation"])] = f"  ahead of {row['base']} after {count(row['steps'])} steps" if told else ""
    return [found.get((cell["spec_hash"], cell["operation"], cell["implementation"]), "") for cell in work.to_dict("records")]


def ratios(content: Content) -> Figure | None:
    """Time of a step over that of the fastest, with its interval, paired by block; grey: what noise may make of equals."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ranked = [one for one in rankings(content) if one["rows"]]
    if not ranked:
        return None
    figure, axes = panels(len(ranked), height=0.9 + 0.26 * max(len(one["rows"]) for one in ranked))
    for one, ranking in zip(axes, ranked, strict=True):
        rows = ranking["rows"]
        value, low, high = (np.array([row[key] for row in rows], float) for key in ("ratio", "low", "high"))
        y = np.arange(len(rows))
        if ranking["floor"] == ranking["floor"]:
            one.axvspan(1 / (1 + ranking["floor"]), 1 + ranking["floor"], color=GREY, alpha=0.3, lw=0)
        one.axvline(1, color=INK, lw=0.8)
        one.errorbar(value, y, xerr=reach(value, low, high), **WHISKER)
        for k, row in enumerate(rows):
            told = row["verdict"] == "slower"
            one.plot(value[k], k, "o", color=VERMILLION if told else GREY, ms=5)
            one.annotate(f"{factor(row['ratio'])}  {row['verdict']}", (high[k] if high[k] == high[k] else value[k], k), (5, 0),
                         textcoords="offset points", va="center", fontsize=7.5)  # fmt: skip
        one.set_xscale("log")
        one.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        one.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        one.xaxis.set_minor_formatter(NullFormatter())
        one.set_xlim(min(0.7, np.nanmin(low) if np.isfinite(low).any() else 1), 6 * np.nanmax(np.append(high, value)))
        one.set_yticks(y, [row["implementation"] for row in rows])
        one.tick_params(axis="y", length=0)
        one.set_ylim(len(rows) - 0.4, -0.6)
        one.set_title(f"{ranking['spec']}: {ranking['operation']}, against {ranking['fastest']}", loc="left")
        one.set_xlabel("time over that of the fastest (log)")
    return figure


def noise(content: Content) -> Figure | None:
    """The A/A control: an implementation's twin over itself, with its interval."""
    rows = content.noise.to_dict("records")
    if not rows:
        return None
    figure, ((axes,),) = frame(9, 1.4 + 0.26 * len(rows))
    value, low, high = (np.array([row[key] for row in rows], float) for key in ("ratio", "low", "high"))
    y = np.arange(len(rows))
    axes.axvspan(1 / 1.05, 1.05, color=GREY, alpha=0.3, lw=0, label="within 5 %: equal, if the whole interval is")
    axes.axvline(1, color=INK, lw=0.8)
    axes.errorbar(value, y, xerr=reach(value, low, high), **WHISKER)
    axes.plot(value, y, "o", color=BLUE, ms=5)
    axes.set_yticks(y, [f"{row['spec']} {row['operation']} {row['batch_size']}  {row['implementation']}" for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("time of the twin over its own")
    axes.set_title("Noise floor: each against its own twin (A/A)", loc="left")
    figure.legend(loc="outside lower left")
    return figure


def roofline(content: Content) -> Figure | None:
    """FLOP/s reached over FLOPs a byte, under what the machine can do at most in that dtype."""
    from harness.hardware.bound import peak

    cells = content.shown
    cells = cells[cells["flops_per_s"].notna() & cells["of_bound"].notna()]
    if cells.empty or content.card is None:
        return None
    dtypes = list(dict.fromkeys(cells["dtype"]))
    figure, axes = panels(len(dtypes), width=9 if len(dtypes) == 1 else 11, height=4.2)
    for one, dtype in zip(axes, dtypes, strict=True):
        part = cells[cells["dtype"] == dtype]
        x = np.geomspace(part["flops_per_byte"].min() / 3, part["flops_per_byte"].max() * 5, 100)
        top, bandwidth = peak(content.card, "matmul", dtype), peak(content.card, "triad")
        roof = np.minimum(top, x * bandwidth) if bandwidth else np.full(len(x), top)
        one.plot(x, roof, color=INK, lw=1.5, label="at most: product peak, memory bandwidth")
        one.axhline(top, color=INK, lw=0.8, ls=":")
        _points(one, part, list(dict.fromkeys(content.cells["implementation"])))
        one.set_xscale("log")
        one.set_yscale("log")
        one.set_xlabel("FLOPs a byte that must pass through memory, caches empty (log)")
        one.set_ylabel("FLOP/s reached (log)")
        one.set_title(f"Roofline, {dtype}", loc="left")
        one.grid(alpha=0.25, lw=0.5)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    return figure


def _points(axes: Any, cells: pd.DataFrame, names: list[str]) -> None:
    looks = marks([name for name in usual(names) if name in set(cells["implementation"])])
    for name in looks:
        for k, cell in enumerate(cells[cells["implementation"] == name].to_dict("records")):
            (point,) = axes.plot(
                cell["flops_per_byte"], cell["flops_per_s"], ls="none", ms=6, label=name if k == 0 else None, **looks[name]
            )
            point.set_url(PAGE + anchor(cell))
