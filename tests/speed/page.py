"""The twin of the JSON file for people: `python -m tests.speed.page FILE.json` writes FILE.md."""

import json
import sys
import tomllib
from pathlib import Path
from statistics import geometric_mean

from harness.bench.statistics import paired
from harness.files import write_text

WHY = Path(__file__).parent / "why.toml"  # {"spec criterion": what the profile shows}, read by a person
SHOWN = 8  # rows of a profile


def markdown(found: dict, why: dict[str, str]) -> str:
    rows, card = found["criteria"], found["machine"]
    head = [
        "# Speed of the implementations themselves",
        "",
        f"On {card['cpu']}, {card['cores']} cores: blocks of fresh processes that run side by side, {found['rounds']} rounds of each in "
        "random order. A value is the ratio of seconds, or seconds; its interval has 95 %, over blocks. *met*: all of the interval is "
        "within the limit; *missed*: none of it is.",
        "",
        "| what | value | 95 % interval | limit | ms a step | blocks | made | verdict |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines = [line(row) for row in rows]
    open_ = [row for row in rows if row["verdict"] != "met"]
    words = ["", *(f"`{command}`" for command in dict.fromkeys(row["command"] for row in rows))]
    words += ["", "## What is not met, and why", ""] if open_ else []
    words += [f"- **{row['text']}** ({row['value']:.3f}, {row['verdict']}): {reason(row, why)}" for row in open_]
    return "\n".join(head + lines + words + profiles(found["profiles"])) + "\n"


def key(row: dict) -> str:
    return f"{row['spec']} {row['criterion']}"


def reason(row: dict, why: dict[str, str]) -> str:
    """What a person has read in a profile; and where two processes of one contestant were there, how far they were apart."""
    said = why.get(key(row), "not explained yet")
    if (twin := f"another:{row['base']}") not in row["blocks"][0]:
        return said
    one, two = ({k: block[name] for k, block in enumerate(row["blocks"])} for name in (row["base"], twin))
    found = paired(one, two)
    apart = f"{found.value:.3f} of each other, {found.low:.3f} to {found.high:.3f}"
    return f"{said} Two processes of the loop by hand, in the same blocks: {apart}."


def line(row: dict) -> str:
    interval = "" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}"
    limit = f"{row['least']:.2f} to {row['limit']:.2f}" if row["least"] else f"{row['limit']:.2f}"
    timed = row["kind"] in ("pair", "harness", "worker")
    seconds = {name: geometric_mean([block[name] for block in row["blocks"]]) for name in row["blocks"][0]} if timed else {}
    each = ", ".join(f"{name} {1e3 * value:.2f}" for name, value in seconds.items())
    cells = [row["text"], f"{row['value']:.3f}", interval, limit, each, str(len(row["blocks"])), row["made"][:16], row["verdict"]]
    return f"| {' | '.join(cells)} |"


def profiles(found: dict[str, list[dict]]) -> list[str]:
    lines = ["", "## Where the time goes, of what is not met", "", "Share of a round, and calls a step; `README.md` in `tests/` says how."]
    for name, rows in found.items():
        largest = sorted(rows, key=lambda row: -row["share"])[:SHOWN]
        lines += ["", f"**{name}**: " + "; ".join(f"`{row['what']}` {row['share']:.1%} ({row['calls_a_step']:.3g})" for row in largest)]
    return lines if found else []


def write(path: Path) -> None:
    found = json.loads(path.read_text(encoding="utf-8"))
    why = tomllib.loads(WHY.read_text(encoding="utf-8"))
    write_text(path.with_suffix(".md"), markdown(found, why))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
