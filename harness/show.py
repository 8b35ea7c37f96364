"""What a person sees in the terminal: progress with time left, the matrix, failures. All on stderr."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from harness.errors import UserError
from harness.verify.table import footnotes
from harness.verify.table import matrix as cells

if TYPE_CHECKING:
    from harness.bench.agreement import Order
    from harness.bench.forecast import Forecast

console = Console(stderr=True)
GOOD, BAD, DULL = "green", "bold red", "dim"


def _progress() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        refresh_per_second=2,  # while something is timed, the parent must take next to nothing of a CPU
    )


@contextmanager
def verify_progress(pairs: list, level: str) -> Iterator[Callable[[dict], None]]:
    """A bar over all checks; yields the function that takes verify's events."""
    from harness.verify.ladder import due as checks_due

    due = {id(pair): len(checks_due(level, pair.dtype)) for pair in pairs if pair.state == "pending"}
    with _progress() as progress:
        task = progress.add_task("verify", total=sum(due.values()))
        running: dict[str, str] = {}

        def on_event(event: dict) -> None:
            if event["event"] == "begin":
                running[event["implementation"]] = f"{event['implementation']}/{event['spec']} {event['number']}"
            elif event["event"] == "check":
                progress.advance(task)
            elif event["event"] == "pair":
                running.pop(event["implementation"], None)
                if event["state"] not in ("pass", "n-a"):
                    progress.console.print(f"[{BAD}]{escape(event['state'])}[/] {event['implementation']} {event['spec']} {event['dtype']}")
            progress.update(task, description="verify " + escape(", ".join(running.values())))

        yield on_event
        progress.update(task, completed=sum(due.values()), description="verify")


@contextmanager
def bench_progress() -> Iterator[Callable[[dict], None]]:
    """A bar over all cells; yields the function that takes bench's events."""
    with _progress() as progress:
        task, told = progress.add_task("bench", total=None), set()

        def on_event(event: dict) -> None:
            if event["event"] == "plan":
                progress.update(task, total=event["total"])
            elif event["event"] == "more":
                progress.update(task, total=progress.tasks[task].total + event["cells"])
            elif event["event"] == "end":
                progress.console.print(f"[{DULL}]stopped by {escape(event['stopped'])}[/]")
            elif event["event"] == "cell":
                cell = event["cell"]
                name = f"{cell['implementation']}/{cell['spec']} {cell['operation']}"
                progress.update(task, advance=1, description=f"bench {escape(name)}")
                if event["state"] not in ("ok", "n-a", "not-installed", "unsupported") and (event["state"], name) not in told:
                    told.add((event["state"], name))  # once, and not again in each block
                    progress.console.print(f"[{BAD}]{escape(event['state'])}[/] {name}")

        yield on_event


@contextmanager
def machine_progress() -> Iterator[Callable[[dict], None]]:
    """A bar over all measurements of the machine's card."""
    with _progress() as progress:
        task = progress.add_task("machine", total=None)

        def on_event(event: dict) -> None:
            if event["event"] == "plan":
                progress.update(task, total=event["total"])
            else:
                progress.update(task, advance=1, description=f"machine {escape(event['implementation'])}")

        yield on_event


def card(content: dict) -> None:
    """The machine's card: a line an operation, dtype and size, a column a framework."""
    rows = content["rows"]
    frameworks = list(dict.fromkeys(row["framework"] for row in rows))
    one = content["machine"]
    table = Table(title=f"{one['cpu']}, {content['threads']} threads; device: {content['device']}", title_justify="left")
    for name in ("operation", "dtype", "size", "unit"):
        table.add_column(name)
    for name in frameworks:
        table.add_column(name, justify="right")
    found = {(row["operation"], row["dtype"], row["size"], row["framework"]): row for row in rows}
    for operation, dtype, size in dict.fromkeys(key[:3] for key in found):
        line = [found[operation, dtype, size, name] for name in frameworks]
        scale, unit = {"FLOP/s": (1e-9, "GFLOP/s"), "B/s": (1e-9, "GB/s"), "s": (1e6, "us")}[line[0]["unit"]]
        values = ["n/a" if row["value"] is None else f"{row['value'] * scale:.3g}" for row in line]
        if any(row["value"] is not None for row in line):
            table.add_row(operation, dtype, str(size), unit, *values)
    console.print(table)
    for reason, names in _by_reason(rows).items():
        console.print(f"[{DULL}]n/a {escape(', '.join(names))}: {escape(reason)}[/]")


def _by_reason(rows: list[dict]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in rows:
        if row["reason"] and row["framework"] not in found.setdefault(row["reason"], []):
            found[row["reason"]].append(row["framework"])
    return found


def matrix(rows: list[dict]) -> None:
    """The worst margin of each spec and implementation, a table a dtype, then reasons and failures. Fits into 80 columns."""
    for dtype in dict.fromkeys(row["dtype"] for row in rows):
        (_, *names), lines = cells(rows, dtype)
        title, caption = f"worst error / gate, {dtype}", "at most 1 passes"
        table = Table(title=title, title_justify="left", caption=caption, caption_justify="left", box=None, padding=(0, 2, 0, 0))
        table.add_column("", no_wrap=True)
        for spec, *_ in lines:
            table.add_column(escape(spec), justify="right", min_width=7, overflow="fold")
        for k, name in enumerate(names, 1):
            table.add_row(name, *(f"[{_style(line[k])}]{escape(line[k])}[/]" if line[k] else "" for line in lines))
        console.print(table)
    for note in footnotes(rows):
        console.print(f"[{DULL}]{escape(note)}[/]")
    for row in rows:
        for message in row["failures"]:
            console.print(escape(message), style=BAD, highlight=False, soft_wrap=True)


def replaced(path: Path, rows: list[dict]) -> None:
    """Which certificates of an earlier verify.json go as this one takes its place."""
    from harness.report.content import read_verify

    try:
        before = read_verify(path)["rows"]
    except UserError:
        return  # none, or one that nobody could have read
    of = lambda rows: {(row["spec"], row["implementation"], row["dtype"], row["device"]) for row in rows if row["state"] == "pass"}
    if gone := of(before) - of(rows):
        text = f"{path}: replaces {len(gone)} certificates of an earlier run ({', '.join(sorted({spec for spec, *_ in gone}))})"
        console.print(escape(f"{text}; to keep them: --out ANOTHER_FOLDER"))


def reasons(journal: Path) -> None:
    """Why there is no number, each reason once, of the last run in a journal."""
    from harness.bench.journal import read

    found: dict[tuple, None] = {}
    for row in read(journal).last_run:
        if row["row"] == "finish" and row["state"] != "ok":
            found[row["cell"]["implementation"], row["cell"]["spec"], row["state"], row["reason"]] = None
    for name, spec, state, reason in found:
        console.print(f"[{DULL}]{escape(f'{name}, {spec}: {state}: {reason}')}[/]")


def comparison(rows: list, ranks: "Order") -> None:
    """A line a cell, the verdict last; then whether both put the implementations in the same order."""
    table = Table(title="seconds a step, new over base", title_justify="left", box=SIMPLE)
    for name in ("spec", "operation", "implementation", "dtype", "batch"):
        table.add_column(name)
    for name in ("ratio", "95 % interval", "noise floor"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    styles = {"slower": BAD, "fails": BAD, "faster": GOOD, "equal within noise": GOOD, "not slower again": GOOD}
    for row in rows:
        cell, ratio, style = row.cell, row.ratio, styles.get(row.verdict, DULL)
        interval = f"{ratio.low:.3g} to {ratio.high:.3g}" if ratio.low == ratio.low else "one block"
        floor = f"{100 * row.floor:.2g} %" if row.floor == row.floor else "unknown"
        numbers = (f"{ratio.value:.3g}", interval, floor) if ratio.n else ("", "", "")
        head = (cell.spec, cell.operation, cell.implementation, cell.dtype, str(cell.batch_size))
        table.add_row(*map(escape, head), *numbers, f"[{style}]{row.text}[/]")
    console.print(table)
    for row in rows:
        if row.reason:
            told = f"{row.cell.implementation}, {row.cell.spec} {row.cell.operation}: {row.text}: {row.reason}"
            console.print(escape(told), style=styles.get(row.verdict, DULL), highlight=False, soft_wrap=True)
    console.print(escape(str(ranks)), highlight=False, soft_wrap=True)


def _style(text: str) -> str:
    if text[0].isdigit():
        return GOOD
    return DULL if text in ("n/a", "absent") else BAD


def forecast(found: "Forecast") -> None:
    """Cells, minutes and bytes of a bench that was not run, on stdout."""
    plan([entry.row() for entry in found.entries])
    out, stop = Console(soft_wrap=True), found.stop
    blocks = f"{stop.blocks} blocks" + (f", up to {stop.most}" if stop.most > stop.blocks else "")
    out.print(
        f"{blocks}; journal: about {found.journal_bytes / 2**20:.1g} MiB; arrays of the largest worker: {found.array_bytes / 2**20:.3g} MiB"
    )
    if found.minutes is None:
        out.print("minutes: not known, since no run on this machine lies below results/; the progress bar will tell after the first block")
    else:
        low, high = found.minutes
        out.print(
            f"minutes: about {low:.0f}"
            + (f", {high:.0f} at most" if stop.most > stop.blocks else "")
            + f", by {escape(str(found.pace.journal))}"
        )


def plan(rows: list[dict]) -> None:
    """What a dry run would do, on stdout."""
    out = Console()
    keys = [
        key
        for key in ("spec", "implementation", "operation", "dtype", "device", "batch_size", "state", "reason")
        if any(key in row for row in rows)
    ]
    table = Table(title=f"{sum(row.get('state') in ('pending', None) for row in rows)} to run")
    for key in keys:
        table.add_column(key)
    for row in rows:
        table.add_row(*(escape(str(row.get(key) if row.get(key) is not None else "")) for key in keys))
    out.print(table)
