"""`python -m tests.speed`: does each implementation reach what it must? See `criteria.py`; prints a table, and `--out` writes two files."""

import argparse
import json
import math
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

import impls
from harness import machine
from harness.bench.statistics import Estimate, estimate, paired
from harness.files import write_text
from harness.processes import ROOT
from harness.verify.certificate import code_hash
from tests.speed import measure, page, parent, profiles
from tests.speed.criteria import CRITERIA, FLOORS, KINDS, Criterion, judge

COMMANDS = {"isoform list": ["list"], "isoform --help": ["--help"]}
SOURCES = ("harness", "impls", "specs", "tests/speed")  # of what is measured, and of what measures


def main() -> int:
    asked = arguments()
    chosen = [one for one in CRITERIA if one.concerns(tuple(asked.impl)) and asked.only in f"{one.spec} {one.name} {one.kind}"]
    if not chosen:
        print("nothing to measure: no criterion is about that", file=sys.stderr)
        return 2
    note, card = Console(stderr=True).print, machine.card()
    earlier = json.loads(asked.out.read_text(encoding="utf-8")) if asked.out and asked.out.exists() else {"machine": card}
    if earlier["machine"] != card:
        print(f"{asked.out} is of another machine: {earlier['machine']['cpu']}; mend: another --out", file=sys.stderr)
        return 2
    rows = list(measured(chosen, asked.blocks, note))
    found = {
        "machine": card,
        "rounds": measure.ROUNDS,
        "criteria": together(earlier.get("criteria", []), rows),
        "profiles": earlier.get("profiles", {}) | (profiled(rows, note) if asked.profile else {}),
    }
    Console().print(table(rows))
    if asked.out:
        write_text(asked.out, json.dumps(found, indent=1, allow_nan=False) + "\n")
        page.write(asked.out)
    words = {row["verdict"] for row in rows}
    return 1 if "missed" in words else 4 if "cannot tell" in words else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.speed", description=__doc__)
    parser.add_argument("--impl", action="append", default=[], choices=list(impls.available()), help="what is about it alone; repeatable")
    parser.add_argument("--only", default="", help=f"criteria whose spec, name or kind ({' '.join(KINDS)}) holds this text")
    parser.add_argument("--blocks", type=int, default=5, help="of fresh processes; fewer than 2 cannot tell (default 5)")
    parser.add_argument("--profile", action="store_true", help="where the time goes of each pair that is not met")
    parser.add_argument("--out", type=Path, help="JSON, with a page for people beside it; what is not measured again stays")
    return parser.parse_args()


def measured(chosen: list[Criterion], blocks: int, note: Callable = print) -> Iterator[dict]:
    for k, one in enumerate(chosen, 1):
        note(f"{k}/{len(chosen)} {one.text}")
        seconds = [block(one, number) for number in range(blocks)]
        new = {number: of[one.new] for number, of in enumerate(seconds)}
        ratio = paired({number: of[one.base] for number, of in enumerate(seconds)}, new) if one.base else estimate(list(new.values()))
        yield row(one, ratio, seconds)


def block(one: Criterion, number: int) -> dict[str, float]:
    """{contestant: seconds a step}, {command: seconds}, or the parent's share."""
    if one.kind in ("harness", "worker"):
        return getattr(measure, one.kind)(one.base, one.spec, number)
    if one.kind == "command":
        return {one.new: min(measure.command(COMMANDS[one.new]) for _ in range(measure.REPEATS))}
    if one.kind == "parent":
        return {one.new: parent.share()}
    floors = FLOORS if "products" in one.name else ()
    return measure.pair(tuple(dict.fromkeys((one.new, one.base, *floors))), one.spec, one.steps, number)


def together(earlier: list[dict], rows: list[dict]) -> list[dict]:
    """What was measured again replaces what was there, in the order of the criteria."""
    found = {(one["spec"], one["criterion"]): one for one in [*earlier, *rows]}
    return [found[key] for one in CRITERIA if (key := (one.spec, one.name)) in found]


def row(one: Criterion, found: Estimate, seconds: list[dict[str, float]]) -> dict:
    known = {"low": found.low, "high": found.high}
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"), "command": shlex.join(["python", "-m", "tests.speed", *sys.argv[1:]]),
        "commit": commit(), "code": code(one),
        "criterion": one.name, "spec": one.spec, "kind": one.kind, "text": one.text, "new": one.new, "base": one.base,
        "limit": one.limit, "least": one.least, "value": found.value,
        **{name: None if math.isnan(value) else value for name, value in known.items()},
        "verdict": judge(found, one.limit, one.least), "blocks": seconds,
    }  # fmt: skip


def commit() -> str | None:
    """Of the sources, with "+" behind it where they differ from it; None where there is no git or no repository."""
    asked = [["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--", *SOURCES]]
    try:
        head, changed = (
            subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip() for words in asked
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changed else "")


def code(one: Criterion) -> dict[str, str]:
    """{implementation: the hash of its code, as in a certificate} of those that a criterion is about."""
    known = impls.available()
    return {name: code_hash(known[name]) for name in one.contestants if name in known}


def profiled(rows: list[dict], note: Callable) -> dict:
    """{contestant: where its time goes} of each pair that is not met: the two sides of another kind run the same step."""
    wanted = {
        (one["spec"], name) for one in rows if one["verdict"] != "met" and one["kind"] == "pair" for name in (one["new"], one["base"])
    }
    found = {}
    for which, name in sorted(wanted):
        if not name.startswith("products:"):
            note(f"profile of {name}, {which}")
            found[f"{which} {name}"] = profiles.of(name, which, 25 if which == "vae" else 1)
    return found


def table(rows: list[dict]) -> Table:
    made = Table("what", "value", "95 % interval", "limit", "ms", "verdict")
    for one in rows:
        interval = "-" if one["low"] is None else f"{one['low']:.3f} to {one['high']:.3f}"
        limit = f"{one['limit']:.2f}" if not one["least"] else f"{one['least']:.2f} to {one['limit']:.2f}"
        names = (one["new"], one["base"]) if one["base"] else ()
        milliseconds = " / ".join(f"{estimate([block[name] for block in one['blocks']]).value * 1e3:.2f}" for name in names)
        made.add_row(one["text"], f"{one['value']:.3f}", interval, limit, milliseconds, one["verdict"])
    return made


if __name__ == "__main__":
    sys.exit(main())
