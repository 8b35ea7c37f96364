"""The figures, from the same tables as the page, each as PNG, SVG and PDF. What is drawn where: `figures_speed`, `figures_curves`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.report.content import LEFT_OUT, MEMORY, Content
from harness.report.derived import MAIN
from harness.report.formats import anchor
from harness.report.theme import BLUE, GREEN, GREY, LINE, ON_DARK, ON_LIGHT, ORANGE, PURPLE
from harness.report.view import cell_key, vouched
from harness.verify.table import cell as word

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "isoform",
    "svg.fonttype": "none",
}
PAGE = "../report.html#"  # what a bar leads to, from the folder of the figures


def save(content: Content, folder: Path) -> list[str]:
    """NAME.png, NAME.svg and NAME.pdf of every figure; returns the names. The style holds while they are written too: the same content
    gives the same files."""
    from matplotlib import rc_context

    with rc_context(STYLE):
        made = draw(content)
        for name, figure in made.items():
            figure.draw_without_rendering()
            figure.set_layout_engine("none")  # once is enough for three files
            figure.savefig(folder / f"{name}.png", dpi=130)
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
            figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None})
    return list(made)


def draw(content: Content) -> dict[str, Figure]:
    """{name: figure}. Figures of speed only where something was measured, and of what was measured."""
    from harness.report import figures_curves, figures_speed

    made = {f"equivalence_{dtype}": equivalence(content, dtype) for dtype in content.dtypes}
    if content.cells.empty:
        return made
    cells = content.shown
    main, more = cells[cells["operation"].isin(MAIN)], cells[~cells["operation"].isin(MAIN)]
    vouch = vouched(content)
    made |= {f"throughput{name}": figures_speed.throughput(part, vouch) for name, part in (("", main), ("_more", more)) if len(part)}
    made |= {"three_times": figures_speed.three_times(content, vouch), "memory": memory(main, vouch)}
    optional = {
        "ratios": figures_speed.ratios(content),
        "noise": figures_speed.noise(content),
        "roofline": figures_speed.roofline(content),
        "curves_batch": figures_curves.curves(content, "batch"),
        "curves_width": figures_curves.curves(content, "width"),
        "quality": figures_curves.quality(content),
    }
    return made | {name: figure for name, figure in optional.items() if figure is not None}


def frame(width: float, height: float, columns: int = 1, rows: int = 1, **options) -> tuple[Figure, np.ndarray]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def panels(count: int, width: float = 11, height: float = 3.0, most: int = 3) -> tuple[Figure, list]:
    """A figure of at most `most` panels a row; those that are not needed are not seen."""
    columns = min(max(count, 1), most)
    rows = -(-max(count, 1) // columns)
    figure, axes = frame(width, 0.4 + height * rows, columns, rows)
    for one in axes.flat[count:]:
        one.set_visible(False)
    return figure, list(axes.flat[:count])


def named_rows(axes: Any, cells: pd.DataFrame, labels: list[str]) -> np.ndarray:
    """One line a cell, the first on top, its name and its state a link to what is known of it; returns their heights. A cell without
    numbers says why: a failure is a labelled line, not a gap."""
    y = np.arange(len(cells))
    axes.set_yticks(y, labels)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(cells) - 0.4, -0.6)
    for label, cell in zip(axes.get_yticklabels(), cells.to_dict("records"), strict=True):
        label.set_url(PAGE + anchor(cell))
    for k, state in enumerate(cells["state"]):
        if state != "ok":
            axes.text(0.01, k, state, va="center", style="italic", transform=axes.get_yaxis_transform())
    return y


def vouchers(axes: Any, cells: pd.DataFrame, vouch: dict[tuple, str]) -> None:
    """At the end of each line what vouches for it: the certificate, and the rule card in short."""
    for k, cell in enumerate(cells.to_dict("records")):
        if cell["state"] == "ok":
            axes.text(1.01, k, vouch[cell_key(cell)], transform=axes.get_yaxis_transform(), va="center", fontsize=6, color=GREY)


def linked(bars: Any, cells: pd.DataFrame) -> None:
    for bar, cell in zip(bars, cells.to_dict("records"), strict=True):
        bar.set_url(PAGE + anchor(cell))


def reach(value: Any, low: Any, high: Any) -> np.ndarray:
    """For `errorbar`: how far an interval goes to either side."""
    return np.abs(np.stack([np.asarray(value, float) - np.asarray(low, float), np.asarray(high, float) - np.asarray(value, float)]))


def equivalence(content: Content, dtype: str) -> Figure:
    """log10 of error over gate, with the number in each cell; hatched grey, with its word, where there is none."""
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm
    from matplotlib.patches import Rectangle

    rows = [row for row in content.verify["rows"] if row["dtype"] == dtype]
    specs = list(dict.fromkeys(row["spec"] for row in rows))
    names = list(dict.fromkeys(row["implementation"] for row in rows))
    figure, ((axes,),) = frame(max(1.6 + 1.05 * len(names), 6), max(1.3 + 0.42 * len(specs), 2.4))
    norm = BoundaryNorm(np.arange(-5, 0.1, 0.5), 256)
    scale = ScalarMappable(norm, matplotlib.colormaps["cividis"])
    for row in rows:
        i, j = specs.index(row["spec"]), names.index(row["implementation"])
        passed = row["state"] == "pass"
        value = np.log10(min(max(row["margin"], 1e-5), 0.999)) if passed else None
        colour = {"facecolor": scale.to_rgba(value)} if passed else {"facecolor": GREY, "hatch": "///"}
        box = Rectangle((j - 0.5, i - 0.5), 1, 1, edgecolor=LINE, linewidth=0.5, **colour)
        if row["certificate"]:
            box.set_url(f"{PAGE}certificate-{row['certificate']}")
        axes.add_patch(box)
        failed = row["state"] not in ("pass", *LEFT_OUT)
        ink = ON_DARK if passed and value < -2.5 else ON_LIGHT
        axes.text(j, i, word(row), ha="center", va="center", color=ink, weight="bold" if failed else "normal")
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(len(specs) - 0.5, -0.5)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set_yticks(range(len(specs)), specs)
    axes.tick_params(length=0)
    axes.set_title(f"Worst error over gate, all checks, {dtype} (at most 1 passes)", loc="left")
    figure.colorbar(scale, ax=axes, label="log10(error / gate)", fraction=0.04)
    return figure


def usual(names: list[str]) -> list[str]:
    """In their usual order, third parties last."""
    import impls

    known = list(impls.available())
    return sorted(names, key=lambda name: known.index(name) if name in known else len(known))


def groups(cells: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """A title and its cells for each spec, operation and batch size; without those that do not apply."""
    shown = cells[cells["state"] != "n-a"]
    for (spec, operation, batch), part in shown.groupby(["spec", "operation", "batch_size"], sort=False):
        yield f"{spec}: {operation} ({'rows' if operation == 'fit' else 'batch'} {batch})", part


def memory(cells: pd.DataFrame, vouch: dict[tuple, str]) -> Figure:
    """Peaks in MiB, of those columns that this machine can measure."""
    known = [name for name in MEMORY if cells[name].notna().any()]
    work = cells[cells["state"] != "n-a"]
    figure, ((axes,),) = frame(9, 1.5 + 0.28 * max(len(work), 1))
    labels = [f"{spec} {operation}  {name}" for spec, operation, name in zip(*(work[key] for key in LABEL), strict=True)]
    y, height = named_rows(axes, work, labels), 0.8 / max(len(known), 1)
    for k, (name, colour) in enumerate(zip(known, (BLUE, ORANGE, GREEN, GREY, PURPLE), strict=False)):
        at = y + (k - (len(known) - 1) / 2) * height
        linked(axes.barh(at, work[name].fillna(0) / 2**20, height=height, color=colour, label=name), work)
    vouchers(axes, work, vouch)
    axes.set_xlabel("MiB above the level after import")
    axes.set_title("Peak memory", loc="left")
    if known:
        figure.legend(loc="outside lower left", ncols=len(known))
    else:
        axes.text(0.5, 0.5, "nothing measured", transform=axes.transAxes, ha="center")
    return figure


LABEL = ("spec", "operation", "implementation")
