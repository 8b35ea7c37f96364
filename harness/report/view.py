"""What both pages show, Markdown and HTML, from the tables: the values that their templates are filled with."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.report import derived, machine, sentences
from harness.report.answer import answer, needs
from harness.report.content import START, Content, differences
from harness.report.formats import blocks, missing
from harness.report.further import SIGNS

# what each column of memory is; in bytes, in a process of its own
DEFINITIONS = {
    "host_peak": "the most that was resident (VmHWM, reset before) over the level after import: build, first call and a few steps",
    "alloc_peak": "the most that the framework's own allocator had handed out at once",
    "device_reserved_peak": "the most that the framework had reserved of the device, in use or not",
    "device_used_peak": "the most that the device's driver counted as used, by whatever (NVML)",
    "planned_peak": "what the compiler has planned to use: arguments, results and temporaries",
}
SHORT = {"host_peak": "host", "alloc_peak": "allocator", "device_reserved_peak": "device reserved",
         "device_used_peak": "device used", "planned_peak": "planned"}  # fmt: skip


def view(content: Content) -> dict[str, Any]:
    cells = content.cells.to_dict("records")
    measured = content.runs[-1] if content.runs else content.verify
    main, cell_of = derived.main_cells(content).to_dict("records"), finder(cells)
    return {
        "content": content,
        "verify": content.verify,
        "machine": measured["machine"],
        "versions": measured["versions"],
        "measured": machine.view(content.card, measured["versions"]) if content.card else None,
        "elsewhere": differences(content.verify["machine"], measured["machine"]),
        "answer": answer(content),
        "sentences": sentences,
        "cells": cells,
        "cell_of": cell_of,
        "ids": lambda row, *names: short([cell_of({**row, "implementation": name}) for name in names or (row["implementation"],)]),
        "main": main,
        "start_names": START,
        "matrices": derived.matrices(content) if cells else [],
        "reasons": cell_reasons(cells),
        "uneven": uneven(cells),
        "runs": content.runs,
        "failures": [message for row in content.verify["rows"] for message in row.get("failures", [])],
        "memory_names": SHORT,
        "definitions": DEFINITIONS,
        "missing_memory": memory_reasons(cells),
        "planned": derived.planned(content).to_dict("records"),
        "rankings": derived.rankings(content),
        "noise": content.noise.to_dict("records"),
        "break_even": first_behind(content.even.to_dict("records")),
        "roofline": [cell for cell in content.shown.to_dict("records") if not missing(cell.get("flops_per_s"))] if content.card else [],
        "curves": content.curves.to_dict("records"),
        "points": points(content.curves.to_dict("records")),
        "sweep_reasons": cell_reasons(content.sweeps.to_dict("records")) if len(content.curves) else [],
        "slopes": slopes(content),
        "quality": derived.seeds(content),
        "strips": strips(content),
        "rule_titles": {int(row.rule): row.title for row in content.rules.itertuples()},
        "signs": SIGNS,
        "left_out": left_out(content),
        "needs": needs,
        "paid_off": paid_off,
    }


def finder(cells: list[dict]) -> Callable[[dict], dict | None]:
    """From a row that says so much of it to its cell."""
    from harness.bench.ratios import GROUP

    known = {tuple(cell[name] for name in (*GROUP, "implementation")): cell for cell in cells}
    return lambda row: known.get(tuple(row.get(name) for name in (*GROUP, "implementation")))


def first_behind(rows: list[dict]) -> list[dict]:
    """Of each implementation the row against the one that starts first."""
    latest: dict[tuple, dict] = {}
    for row in rows:
        key = row["spec"], row["spec_hash"], row["operation"], row["implementation"]
        if key not in latest or row["later_s"] > latest[key]["later_s"]:
            latest[key] = row
    return list(latest.values())


def paid_off(row: dict) -> str:
    """After how many steps, never, or that it cannot be told: what the interval of the ratio allows."""
    from harness.report.formats import count

    if row["verdict"] == "slower" or row["steps"] == row["steps_low"] == float("inf"):
        return "never"
    ends = "" if missing(row["steps_low"]) else f"{count(row['steps_low'])} to {_or_never(row['steps_high'])}"
    if row["verdict"] == "faster":
        return f"{count(row['steps'])}{f' ({ends})' if ends else ''}"
    return f"cannot tell{f' ({ends})' if ends else ''}"


def _or_never(steps: float) -> str:
    from harness.report.formats import count

    return "never" if steps == float("inf") else count(steps)


def cell_key(cell: dict) -> tuple:
    from harness.bench.cells import CELL_FIELDS

    return tuple(cell[name] for name in CELL_FIELDS)


def strips(content: Content) -> dict[tuple, list[dict]]:
    """{key of a cell: its rules in their order}."""
    found: dict[tuple, list[dict]] = {}
    for row in content.rules.to_dict("records"):
        found.setdefault(cell_key(row), []).append(row)
    return {key: sorted(rows, key=lambda row: row["rule"]) for key, rows in found.items()}


def vouched(content: Content) -> dict[tuple, str]:
    """{key of a cell: its certificate, how many rules of its card passed and did not, its blocks where few}, for a figure."""
    found, cards = {}, strips(content)
    for cell in content.cells[content.cells["state"] == "ok"].to_dict("records"):
        states = [rule["state"] for rule in cards.get(cell_key(cell), [])]
        signs = [f"{SIGNS[state]}{states.count(state)}" for state in ("PASS", "WARN", "FAIL") if state in states]
        fewer = [f"{blocks(cell)} blocks"] if cell["blocks"] < cell["group_blocks"] else []
        found[cell_key(cell)] = " ".join([cell["certificate"][:8], *signs, *fewer])
    return found


def short(cells: list[dict | None]) -> str:
    """The certificates of cells, as Markdown has them."""
    return ", ".join(f"`{cell['certificate'][:8]}`" for cell in cells if cell and cell["state"] == "ok")


def slopes(content: Content) -> list[dict]:
    """Each with the certificates of the points that it is drawn through, and how many blocks made a point."""
    key = ("sweep", "spec", "operation", "implementation", "dtype", "device")
    found: dict[tuple, list[dict]] = {}
    for point in content.curves.to_dict("records"):
        found.setdefault(tuple(point[name] for name in key), []).append(point)
    made = []
    for row in content.slopes.to_dict("records"):
        points = found[tuple(row[name] for name in key)]
        counts = [int(point["blocks"]) for point in points]
        ends = dict.fromkeys((min(counts), max(counts)))
        made.append(
            row | {"certificates": list(dict.fromkeys(point["certificate"] for point in points)), "blocks": " to ".join(map(str, ends))}
        )
    return made


def points(rows: list[dict]) -> list[tuple[str, list[str], list[dict]]]:
    """(sweep, its sizes as column heads, its curves), a curve with its point at each size, and each rule card with its certificates."""
    made = []
    for of in dict.fromkeys(row["sweep"] for row in rows):
        found = [row for row in rows if row["sweep"] == of]
        sizes = sorted({row["size"] for row in found})
        lines: dict[tuple, dict] = {}
        for row in found:
            key = row["spec"], row["operation"], row["implementation"], row["dtype"], row["device"]
            line = lines.setdefault(
                key, {**{name: row[name] for name in ("spec", "operation", "implementation")}, "by_size": {}, "cards": {}}
            )
            line["by_size"][row["size"]] = row
            line["cards"].setdefault(row["rules"], {})[row["certificate"]] = None
        for line in lines.values():
            line |= {
                "at": [line["by_size"].get(size) for size in sizes],
                "vouched": [(card, list(ids)) for card, ids in line["cards"].items()],
            }
        made.append((of, [f">{size}" for size in sizes], list(lines.values())))
    return made


def left_out(content: Content) -> list[str]:
    """What this report could show and does not, and the command that makes it."""
    lines = list(content.notes)
    if content.cells.empty:
        return lines
    if content.card is None:
        lines.append(
            "This machine, measured; roofline, and how much was reached of what the machine can do: `isoform machine --out THIS_FOLDER`"
        )
    if content.note:
        lines.append("Who is faster, and after how many steps a slow start has paid off: `isoform bench --level report`")
    if content.noise.empty:
        lines.append("Noise floor: `isoform bench`, two blocks or more")
    if content.rules.empty:
        lines.append("Rule card: `isoform bench`, of this version")
    lines += untimed(content)
    swept = set(content.curves["sweep"]) if len(content.curves) else set()
    lines += [f"Seconds a step over the {of}: `isoform sweep {of} --out THIS_FOLDER`" for of in ("batch", "width") if of not in swept]
    if content.quality.empty:
        lines.append("Time to quality: `isoform quality --out THIS_FOLDER`")
    return lines


def untimed(content: Content) -> list[str]:
    """What the specs could be timed at and were not; in a folder of its own, since a page shows the last run of a journal."""
    import specs
    from harness.bench.cells import TIMED
    from impls.surface import operations

    run, timed = content.runs[-1], set(content.cells["operation"])
    missed = {operation for spec in content.specs.values() for operation in operations(spec)} - timed
    if not missed:
        return []
    wanted = [name for name in TIMED if name in missed]
    names = list(dict.fromkeys(content.cells["spec"]))
    parts = [] if set(names) == set(specs.names()) else [word for name in names for word in ("--spec", given(run["command"], name))]
    parts += [word for name in wanted for word in ("--operation", name)]
    how = shlex.join(["isoform", "bench", *parts, "--level", run["level"], "--out", "ANOTHER_FOLDER"])
    return [f"Not timed: {', '.join(wanted)}. `{how}`, after `isoform verify --out ANOTHER_FOLDER`: a page shows one run"]


def cell_reasons(cells: list[dict]) -> list[str]:
    """Each reason once, with the cells that it holds for."""
    found: dict[tuple, dict[str, list[str]]] = {}
    for cell in cells:
        if not missing(cell["reason"]):
            specs = found.setdefault((cell["implementation"], cell["state"], cell["reason"]), {})
            specs.setdefault(cell["spec"], []).append(cell["operation"])
    return [
        f"{name}, {'; '.join(f'{spec} ' + ', '.join(dict.fromkeys(done)) for spec, done in specs.items())}: "
        f"{'' if state == 'ok' else f'{state}: '}{reason}"
        for (name, state, reason), specs in found.items()
    ]


def uneven(cells: list[dict]) -> list[str]:
    """Each cell with a rate over fewer blocks than what it is compared with."""
    return [
        f"{cell['implementation']}, {cell['spec']} {cell['operation']} {cell['batch_size']} ({blocks(cell)})"
        for cell in cells
        if cell["state"] == "ok" and cell["blocks"] < cell["group_blocks"]
    ]


def memory_reasons(cells: list[dict]) -> dict[str, list[str]]:
    """{column: reasons for its N/A, each once, with the implementations that it holds for}."""
    found: dict[str, dict[str, dict[str, None]]] = {}
    for cell in cells:
        if cell["state"] == "ok" and cell["operation"] in derived.MAIN:
            for column, reason in cell["memory_reasons"].items():
                found.setdefault(column, {}).setdefault(reason, {})[cell["implementation"]] = None
    return {column: [f"{reason} ({', '.join(names)})" for reason, names in reasons.items()] for column, reasons in found.items()}


def command(content: Content, cell: dict) -> str:
    """What measures this very cell again."""
    run = content.runs[-1]
    parts = ["isoform", "bench", "--spec", given(run["command"], cell["spec"]), "--impl", cell["implementation"]]
    parts += ["--operation", cell["operation"], "--dtype", cell["dtype"], "--device", cell["device"]]
    if cell["operation"] != "fit":  # that takes the whole training set
        parts += ["--batch", str(cell["batch_size"])]
    return shlex.join([*parts, "--level", run["level"]])


def given(command_line: str, spec: str) -> str:
    """By what the run's own command called a spec: a shipped one by its name, another by its file."""
    import specs

    files = [part.removeprefix("--spec=") for part in shlex.split(command_line) if part.endswith(".toml")]
    return next((file for file in files if Path(file).stem == spec), spec if spec in specs.names() else f"{spec}.toml")
