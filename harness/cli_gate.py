"""The command `gate`, and what a person sees of it."""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from harness.errors import CANNOT_TELL, OK
from harness.options import Finite

SPECS, IMPLS, OPERATIONS = ("vae",), ("numpy", "torch", "jax"), ("train",)
FILE = "gate.json"


@click.command()
@click.argument("base_rev")
@click.option("--spec", "specs", multiple=True, default=SPECS, show_default=True, metavar="NAME|FILE", help="Repeatable.")
@click.option("--impl", "impls", multiple=True, default=IMPLS, show_default=True, metavar="NAME", help="Repeatable.")
@click.option("--operation", "operations", multiple=True, default=OPERATIONS, show_default=True, help="Repeatable.")
@click.option("--dtype", type=click.Choice(("float32", "float64")), default="float32", show_default=True)
@click.option("--device", default="cpu", show_default=True, help="cpu, or cuda where there is one.")
@click.option("--batch", type=click.IntRange(min=1), help="Rows a batch. Default: the spec's.")
@click.option("--blocks", type=click.IntRange(min=2), help="Fresh processes of either side; up to twice that where it cannot be told yet.")
@click.option("--budget", type=Finite(min=0), metavar="MINUTES", help="No block that would end later, in either pass.")
@click.option("--seed", type=click.IntRange(min=0), help="Of the random order. Default: drawn, and recorded.")
@click.option("--out", type=click.Path(path_type=Path), help=f"Folder for {FILE}. Default: none is written.")
@click.option("--allow-cannot-tell", is_flag=True, help="Exit code 0 in place of 4, where the machine is too noisy to tell.")
@click.option("--json", "as_json", is_flag=True, help="Data as JSON on stdout.")
@click.option("--dry-run", is_flag=True, help="Say what would be measured, and how long at most.")
def gate(base_rev, specs, impls, operations, dtype, device, batch, blocks, budget, seed, out, allow_cannot_tell, as_json, dry_run) -> None:
    """Is the working tree slower than BASE_REV, or wrong? Both are measured now, side by side.

    Exit code 0: no; 1: yes, something is, twice over; 3: they have nothing in common; 4: the machine is too noisy to tell.
    """
    from harness.bench import gate as gating
    from harness.files import results_folder, write_text
    from harness.options import chosen_impls, chosen_specs, command_line

    sizes = (batch,) if batch else ()
    chosen = {"specs": chosen_specs(specs), "implementations": chosen_impls(impls), "operations": operations}
    chosen |= {"dtype": dtype, "device": device, "batch_sizes": sizes}
    blocks, budget_s = blocks or gating.BLOCKS, gating.BUDGET_S if budget is None else 60 * budget
    if dry_run:
        with tempfile.TemporaryDirectory(prefix="isoform-") as place:
            show_plan(gating.plan(base_rev, Path(place), **chosen), blocks, budget_s)
        return
    folder = results_folder(out) if out else None
    with progress() as on_event:
        found = gating.run(base_rev, command=command_line(), chosen=chosen, blocks=blocks, budget_s=budget_s, seed=seed, on_event=on_event)
    if as_json:
        click.echo(json.dumps(found, indent=1))
    show(found)
    if folder:
        write_text(folder / FILE, json.dumps(found, indent=1) + "\n")
        click.echo(f"written: {folder / FILE}", err=True)
    code = found["exit_code"]
    if code == CANNOT_TELL and allow_cannot_tell:
        mark = "::warning title=isoform gate::" if os.environ.get("GITHUB_ACTIONS") == "true" else ""  # it shows on the pull request
        click.echo(f"{mark}cannot tell: too noisy here; exit code 0 in place of 4, as --allow-cannot-tell asks", err=True)
        code = OK
    sys.exit(code)


def named(commit: str, changed: list[str]) -> str:
    """The working tree."""
    return commit[:12] + (f" with {len(changed)} files changed since" if changed else "")


@contextmanager
def progress() -> Iterator[Callable[[dict], None]]:
    """A bar over the blocks of all cells; yields the function that takes the gate's events."""
    from rich.markup import escape

    from harness.show import _progress

    with _progress() as bar:
        task = bar.add_task("gate", total=None)
        passes: list[str] = []

        def on_event(event: dict) -> None:
            if event["event"] == "pass":
                passes.append("once more, what looks slower" if passes else "gate")
                bar.update(task, total=(bar.tasks[0].total or 0) + event["cells"] * event["blocks"], description=passes[-1])
            elif event["event"] == "more":
                bar.update(task, total=bar.tasks[0].total + event["cells"])
            else:
                cell = event["cell"]
                bar.update(task, advance=1, description=escape(f"{passes[-1]} {cell['implementation']}/{cell['spec']} {cell['operation']}"))

        yield on_event


def show(found: dict) -> None:
    """A line a cell, the verdict last; then the reasons, and what was compared."""
    from rich.box import SIMPLE
    from rich.markup import escape
    from rich.table import Table

    from harness.show import BAD, DULL, GOOD, console

    head, base = named(found["head"]["commit"], found["head"]["changed"]), found["base"]["commit"][:12]
    table = Table(title=f"seconds a step, working tree ({head}) over base ({base})", title_justify="left", box=SIMPLE)
    for name in ("spec", "operation", "implementation"):
        table.add_column(name)
    for name in ("ratio", "95 % interval", "noise floor", "once more", "blocks"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    styles = {"slower": BAD, "fails": BAD, "not slower": GOOD, "faster": GOOD, "not slower again": GOOD}
    for row in found["rows"]:
        cell, first, again = row["cell"], row["first"], row["again"]
        numbers = [f"{first['ratio']['value']:.3f}", interval(first), floor(first)] if first else ["", "", ""]
        numbers.append(f"{again['ratio']['value']:.3f} ({interval(again)})" if again else "")
        numbers.append(" + ".join(str(len(blocks)) for blocks in row["blocks"]))
        names = (cell["spec"], cell["operation"], cell["implementation"])
        table.add_row(*map(escape, names), *numbers, f"[{styles.get(row['verdict'], DULL)}]{row['verdict']}[/]")
    console.print(table)
    for row in found["rows"]:
        if reason := row["reason"] or blindness(row, found["rule"]):
            line = f"{row['cell']['implementation']}, {row['cell']['spec']} {row['cell']['operation']}: {row['verdict']}: {reason}"
            console.print(escape(line), style=styles.get(row["verdict"], DULL), highlight=False, soft_wrap=True)


def interval(one: dict) -> str:
    low, high = one["ratio"]["low"], one["ratio"]["high"]
    return "one block" if low is None else f"{low:.3f} to {high:.3f}"


def floor(one: dict) -> str:
    return "unknown" if one["floor"] is None else f"{100 * one['floor']:.1f} %"


def blindness(row: dict, rule: dict) -> str | None:
    """Why it cannot be told."""
    if row["verdict"] != "cannot tell":
        return None
    last = row["again"] or row["first"]
    return (
        f"a slowdown of {100 * rule['size']:.0f} % might not have shown here: the interval is {interval(last)}, the control differs from "
        f"itself by up to {floor(last)}; likely something else runs on this machine; more blocks may help: --blocks {2 * rule['blocks']}"
    )


def show_plan(plan, blocks: int, budget_s: float) -> None:
    from harness import show as general
    from harness.bench.interleave import ROUNDS, VISITS

    general.plan([entry.row() for entry in plan.entries])
    click.echo(f"base: {plan.sha[:12]}; head: the working tree, {named(plan.head, plan.changed)}")
    click.echo(f"{blocks} blocks, up to {2 * blocks} where it cannot be told; a block of a cell is 3 fresh processes")
    click.echo(f"each of them is visited {VISITS} times for {ROUNDS} rounds")
    click.echo(f"minutes: {budget_s / 60:.3g} at most (--budget), and as many again where something looks slower and is measured once more")
