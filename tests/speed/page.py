"""The twin of the JSON file for people: `python -m tests.speed.page FILE.json` writes FILE.md."""

import json
import sys
import tomllib
from pathlib import Path
from statistics import geometric_mean

from harness.bench.statistics import paired
from harness.files import write_text
from tests.speed import measure

WHY = Path(__file__).parent / "why.toml"  # {"spec criterion": what the profile shows}, read by a person
SHOWN = 8  # rows of a profile
HOW = {
    "pair": "each contestant in a fresh process, all side by side; {rounds} rounds of each, in turn and in random order, of which the "
    "median counts; `loop:`, `bare:` and `products:` are what `contestants.py` says",
    "harness": "bench's code and the loop by hand, of one model in one process, {turns} turns of both; in a turn the median of {rounds} "
    "rounds of each, and the turn with the median ratio counts",
    "worker": "a worker of bench, and the loop by hand in two processes more (one of them is `another:`), {worker_turns} turns of the "
    "three in random order; in a turn and of the turns the same counts as for `harness`",
    "command": "a command as a user starts it, in seconds: the fastest of {repeats} runs",
    "parent": "`isoform bench` of torch at level quick, watched from outside: CPU seconds of its parent process a second, while a cell "
    "is timed",
}  # a block is
BY = {
    "function": "functions of Python's, each without those it calls, but with what Python's profiler does not see, as BLAS called by SciPy",
    "operator": "operators of PyTorch's, each without those it calls, in a run of their own",
    "part": "parts of a fit, each timed alone and as a whole; a function has the same time once more",
}
OLDER = "older code"  # of a row from before rows told theirs


def markdown(found: dict, why: dict[str, str]) -> str:
    rows, card = found["criteria"], found["machine"]
    numbers = {"rounds": found["rounds"], "turns": measure.TURNS, "worker_turns": measure.WORKER_TURNS, "repeats": measure.REPEATS}
    head = [
        "# Speed of the implementations themselves",
        "",
        f"On {card['cpu']}, {card['cores']} cores. A value is the ratio of the seconds of the first to those of the second, or seconds, or "
        "a share of a core; its interval has 95 %, over blocks. *met*: all of the interval is within the limits; *missed*: all of it is "
        "beyond one of them; *cannot tell*: it reaches over a limit, or there is one block only. A block is, by kind:",
        "",
        *(f"- `{kind}`: {how.format(**numbers)}." for kind, how in HOW.items() if kind in {row["kind"] for row in rows}),
        "",
        "| what | kind | value | 95 % interval | limit | ms a step | blocks | made | commit, code | verdict |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines = [line(row) for row in rows]
    open_ = [row for row in rows if row["verdict"] != "met"]
    words = ["", *(f"`{command}`" for command in dict.fromkeys(row["command"] for row in rows))]
    words += ["", "## What is not met, and why", ""] if open_ else []
    words += [f"- **{row['text']}** ({row['value']:.3f}, {row['verdict']}): {reason(row, why)}" for row in open_]
    wanted = {f"{row['spec']} {name}" for row in open_ if row["kind"] == "pair" for name in (row["new"], row["base"])}
    return "\n".join(head + lines + words + profiles({name: of for name, of in found["profiles"].items() if name in wanted})) + "\n"


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
    cells = [row["text"], row["kind"], f"{row['value']:.3f}", interval, limit, each, str(len(row["blocks"]))]
    cells += [row["made"][:16], source(row), row["verdict"]]
    return f"| {' | '.join(cells)} |"


def source(row: dict) -> str:
    """The commit, and the first digits of the hash of each implementation's code."""
    if "commit" not in row:
        return OLDER
    return ", ".join([row["commit"] or "no commit", *(f"{name} {code[:8]}" for name, code in row["code"].items())])


def profiles(found: dict[str, list[dict]]) -> list[str]:
    if not found:
        return []
    lines = [
        "",
        "## Where the time goes, of pairs that are not met",
        "",
        "Share of a round, and calls a step, largest first; `README.md` in `tests/` says how. Each list counts the round once, so shares "
        "add up within one and not across them. Other kinds have no profile: both sides of `harness` and `worker` run the same step.",
    ]
    lines += ["", *(f"- {by}: {said}." for by, said in BY.items())]
    for name, rows in found.items():
        lines += ["", f"**{name}**", ""]
        for by in dict.fromkeys(row.get("by") for row in rows):
            largest = sorted((row for row in rows if row.get("by") == by), key=lambda row: -row["share"])[:SHOWN]
            told = "; ".join(f"`{row['what']}` {row['share']:.1%} ({row['calls_a_step']:.3g})" for row in largest)
            lines.append(f"- {by or f'{OLDER}, not told apart'}: {told}")
    return lines


def write(path: Path) -> None:
    found = json.loads(path.read_text(encoding="utf-8"))
    why = tomllib.loads(WHY.read_text(encoding="utf-8"))
    write_text(path.with_suffix(".md"), markdown(found, why))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
