"""What stands below each figure: its name, and how it is to be read."""

from __future__ import annotations

from collections.abc import Iterable

CAPTIONS = {
    "throughput": ("Rows a second in training and fitting", "A bar an implementation, whiskers are 95 % intervals over processes; what has "
                   "no number says why. A bar leads to its command, certificate and source; so does its row in the table below."),
    "throughput_more": ("Rows a second in the other operations", "As above."),
    "three_times": ("Import, build, first call and the spec's whole training, stacked; beside them a step in the steady state",
                    "Where a late starter is shown to overtake the one that starts first, the step at which it does stands at its bar."),
    "memory": ("Peak memory", "MiB above the level after import, of the columns that can be measured here."),
    "ratios": ("Time of a step over that of the fastest", "Dots are paired ratios, whiskers 95 % intervals, grey is the noise floor."),
    "noise": ("The A/A control", "Time of a twin over that of the same implementation: what differs by less than this is not told apart."),
    "roofline": ("Roofline", "FLOP/s reached over FLOPs a byte; the line is what this machine can do at most."),
    "curves_batch": ("Seconds a step over the batch", "Both axes are logarithmic, whiskers 95 % intervals, slopes in the legend."),
    "curves_width": ("Seconds a step over the width", "Both axes are logarithmic, whiskers 95 % intervals, slopes in the legend."),
    "quality": ("Time to quality", "Seconds to the target, a dot a seed that reached it, a bar at the median of all."),
}  # fmt: skip


def every(dtypes: Iterable[str]) -> dict[str, tuple[str, str]]:
    """{figure: its name, how it is to be read}."""
    how = "Of all checks; at most 1 passes. A cell leads to its certificate, as does the table below."
    return {**CAPTIONS, **{f"equivalence_{dtype}": (f"Worst error over gate, {dtype}", how) for dtype in dtypes}}
