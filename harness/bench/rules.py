"""The card beside every number: which of the twelve rules of measurement were kept, by what the journal says, and why.

A rule that the bench enforces cannot fail unseen: a cell that broke it has no number, and its card says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from harness.bench.cells import CELL_FIELDS, REMEMBERED
from harness.bench.journal import read
from harness.bench.quiet import disturbed
from harness.bench.ratios import GROUP, Members, control, groups
from harness.bench.rounds import OVERHEAD, SHORTEST_ON_DEVICE_S, SHORTEST_S
from harness.bench.statistics import EQUAL, noise_floor
from harness.bench.table import by_cell, finished, line, mismatched, place, step_seconds

if TYPE_CHECKING:
    import pandas as pd

OUTLIER = 5.0  # median absolute deviations from the median of a process's rounds
SCATTER = 0.10  # standard deviation of the logarithm of processes' times, above which they had more than one speed
FEW = 5  # processes, below which an interval is too wide to be of much use
SELFTEST_BYTES = 2 << 20  # by which a known allocation may be misread


class Said(NamedTuple):
    state: str  # PASS, WARN, FAIL or N-A
    detail: str


@dataclass(frozen=True)
class Facts:
    """What is known of a cell. `good`: its finish rows with times; `all`: with the failed ones."""

    cell: dict
    all: list[dict]
    good: list[dict]
    told: dict  # its line of the summary
    memory: list[dict]
    members: Members  # of its group: everything it is compared with
    run: dict
    selftests: dict[tuple[str, str], dict]
    peaks: dict | None  # machine.json


def card(journal: Path) -> pd.DataFrame:
    """One row a cell and rule of the last run: the cell's fields, `rule`, `title`, `state`, `detail`."""
    import pandas as pd

    rows = [
        {**facts.cell, "rule": number, "title": title, "state": said.state, "detail": said.detail}
        for facts in _facts(journal)
        for number, (title, judge) in RULES.items()
        for said in [judge(facts) if facts.good or number == 1 else Said("N-A", f"not measured: {facts.told['state']}")]
    ]
    return pd.DataFrame(rows, columns=[*CELL_FIELDS, "rule", "title", "state", "detail"])


def _facts(journal: Path) -> list[Facts]:
    from harness.hardware.card import read as machines_card

    content = read(journal).last_run
    rows, beside = finished(content), groups(journal)
    void, timed, memory = mismatched(rows), by_cell(rows, "time"), by_cell(rows, "memory")
    peaks = machines_card(journal.parent)
    selftests = {(row["implementation"], row["column"]): row for row in content if row["row"] == "selftest"}
    found = []
    for one in timed:
        cell = timed[one][0]["cell"]
        if cell["replica"]:
            continue
        told = line(cell, timed[one], memory.get(one, []), void)
        good = [row for row in timed[one] if row["state"] == "ok"] if told["state"] == "ok" else []
        members = beside.get(tuple(cell[name] for name in GROUP), {})
        found.append(Facts(cell, timed[one], good, told, memory.get(one, []), members, content[0], selftests, peaks))
    return sorted(found, key=lambda facts: place(facts.cell))


def _certificate(f: Facts) -> Said:
    if f.good:
        return Said("PASS", f"renewed in each of {len(f.good)} processes before it was timed: {f.good[0]['certificate']}")
    if f.told["state"] in ("n-a", "not-installed", "unsupported"):
        return Said("N-A", f"{f.told['state']}: {f.told['reason']}")
    return Said("FAIL", f"no number: {f.told['state']}: {f.told['reason']}")


def _replicates(f: Facts) -> Said:
    text = f"{len(f.good)} fresh processes, one a block, in random order (seed {f.run['seed']})"
    failed = len(f.all) - len(f.good)
    if failed:
        return Said("WARN", f"{text}; {failed} more have failed")
    return Said("PASS" if len(f.good) >= FEW else "WARN", text if len(f.good) >= FEW else f"{text}: too few for a ranking")


def _three_times(f: Facts) -> Said:
    cold, compiles = sum(row["first_call_s"] is not None for row in f.good), {row["compiles"] for row in f.good}
    told = "nothing here compiles" if compiles == {None} else "no compilation in the timed rounds"
    if not cold:
        return Said("WARN", f"import, build and first call were not timed; {told}")
    return Said("PASS", f"import, build and first call apart, in {cold} cold processes; {told}")


def _waiting(f: Facts) -> Said:
    share = max(row["wait_s"] / median(row["rounds_s"]) for row in f.good)
    moved = {row["transfers"] for row in f.good}
    told = "implicit transfers: none" if moved == {0} else "implicit transfers: the framework cannot tell here"
    text = f"wait and timer take {100 * share:.2g} % of a round at most; {told}"
    least, wanted = min(median(row["rounds_s"]) for row in f.good), SHORTEST_S.get(f.cell["device"], SHORTEST_ON_DEVICE_S)
    if least < wanted:
        text += f"; the shortest rounds last {1e3 * least:.2g} ms, less than the {1e3 * wanted:.0f} that are asked for"
    return Said("PASS" if share <= OVERHEAD and least >= wanted else "WARN", text)


def _statistic(f: Facts) -> Said:
    rounds = [step_seconds(row) for row in f.good]
    out = sum(outliers(one) for one in rounds)
    text = (
        f"median of {min(map(len, rounds))} rounds a process, Student's t over {len(rounds)} processes; {out} outlying rounds, none dropped"
    )
    return Said("PASS" if len(rounds) > 1 else "WARN", text if len(rounds) > 1 else f"{text}; one process has no interval")


def outliers(seconds: list[float]) -> int:
    """Rounds further than OUTLIER median absolute deviations from the median."""
    values = np.asarray(seconds)
    away = np.abs(values - np.median(values))
    return int((away > OUTLIER * np.median(away)).sum())


def _comparison(f: Facts) -> Said:
    mine = f.members.get((f.cell["implementation"], 0), {})
    others = {name for (name, replica), blocks in f.members.items() if not replica and set(blocks) & set(mine)}
    others.discard(f.cell["implementation"])
    if not others:
        return Said("N-A", "nothing was measured beside it")
    return Said("PASS", f"ratios to {len(others)} others are paired by block; verdicts are adjusted for all pairs (Benjamini and Hochberg)")


def _control(f: Facts) -> Said:
    twin = control(f.members)
    floor = noise_floor(twin)
    if math.isnan(floor):
        return Said("WARN", "no A/A control beside it: nobody knows the noise floor")
    name = next(name for name, replica in f.members if replica)
    text = f"A/A control {name}: {twin.value:.3f} of itself, so the noise floor is {100 * floor:.2g} %"
    return Said("PASS" if floor <= EQUAL else "WARN", text)


def _same_work(f: Facts) -> Said:
    """Another affinity, thread count or dtype than that of the run has no number."""
    threads = {row["threads"] for row in f.good}
    told = "threads follow the affinity, and cannot be read" if threads == {None} else f"{', '.join(map(str, threads))} threads"
    text = f"{f.cell['dtype']}, products {f.cell['precision']}, batch {f.cell['batch_size']}, CPUs {f.run['affinity']}, {told}: read back"
    return Said("PASS" if all(row["affinity"] in (None, f.run["affinity"]) for row in f.good) else "FAIL", text)


def _quiet(f: Facts) -> Said:
    falling = sum(bool(row["warm_up"] and row["warm_up"]["still_falling"]) for row in f.good)
    known = [row["quiet"] for row in f.good if row["quiet"]]
    if not known:
        return Said("N-A", "written by an earlier version, which did not watch the machine while it timed")
    spoilt = {row["block"]: why for row in f.good if (why := disturbed(row["quiet"]))}
    told = [f"block {block}: {', '.join(why)}" for block, why in spoilt.items()]
    if spoilt:
        told.append("kept, and measured once more where the level allows")
    if falling:
        told.append(f"rounds were still getting faster after the warm-up in {falling} processes")
    if (between := f.told["between_sd"]) > SCATTER:
        told.append(
            f"processes differ by {100 * between:.0f} % (standard deviation), rounds within one by {100 * f.told['within_sd']:.2g} %: the "
            "same code runs here at more than one speed, and the interval spans them"
        )
    state, watched = "WARN" if told else "PASS", watch(known)
    if watched is None:
        state, watched = "WARN" if told else "N-A", "this system does not tell what else it did meanwhile"
    return Said(state, "; ".join([*(told or ["warm-up ended by itself"]), watched]))


def watch(known: list[dict]) -> str | None:
    """The most that was found of whatever was watched, and what was not, in words; None where nothing was."""
    texts = {
        "foreign": "other processes took {:.1%} of the CPUs",
        "stolen": "the host {:.1%}",
        "swapped": "{} pages were swapped",
        "throttled": "a CPU was throttled {} times",
    }
    seen = {name: [one[name] for one in known if one[name] is not None] for name in texts}
    if not any(seen.values()):
        return None
    most = ", ".join(texts[name].format(max(values)) for name, values in seen.items() if values)
    unread = ", ".join(name for name, values in seen.items() if not values)
    return f"at most {most}" + (f"; not readable here: {unread}" if unread else "")


def _memory(f: Facts) -> Said:
    if f.cell["operation"] not in REMEMBERED:
        return Said("N-A", f"measured for {' and '.join(REMEMBERED)} only")
    if not f.memory or f.memory[-1]["state"] != "ok":
        return Said("WARN", "not measured" + (f": {f.memory[-1]['state']}: {f.memory[-1]['reason']}" if f.memory else ""))
    test = f.selftests.get((f.cell["implementation"], "host_peak"))
    if test is None or test["got"] is None:
        why = f": {test['reason']}" if test else ""
        return Said("WARN", f"in a process of its own; no known allocation was read back{why}")
    off = test["got"] - test["expected"]
    text = f"in a process of its own; a known allocation of {test['expected'] >> 20} MiB was read back within {abs(off) / 2**20:.2g} MiB"
    return Said("PASS" if abs(off) <= SELFTEST_BYTES else "FAIL", text)


def _bound(f: Facts) -> Said:
    from harness.hardware.bound import bound
    from specs import Spec

    full = f.run["specs"].get(f.cell["spec_hash"])
    if not (f.peaks and full and f.peaks["machine"] == f.run["machine"] and f.peaks["device"] == f.cell["device"]):
        return Said("N-A", "this machine's rates were not measured: isoform machine --out THIS_FOLDER")
    best = bound(f.peaks, Spec.model_validate(full), f.cell["operation"], f.cell["batch_size"], f.cell["dtype"])
    if best is None:
        return Said("N-A", f"the machine's card has no rate of {f.cell['dtype']}")
    share = best.seconds / f.told["step_s"]
    text = f"{100 * share:.2g} % of what the machine can do at most, bound by {best.by}"
    return Said("PASS" if share <= 1 else "FAIL", text)  # above 1, one of the two is wrong


def _energy(f: Facts) -> Said:
    found = [row["energy"] for row in f.good if row["energy"]]
    known = [one["joules_per_step"] for one in found if one["joules_per_step"] is not None]
    if not known:
        return Said("N-A", found[0]["reason"] if found else "written by an earlier version, which did not look for a counter")
    return Said("PASS", f"{median(known):.3g} J a step, by {found[0]['counter']} over {found[0]['window_s']:.1f} s")


RULES: dict[int, tuple[str, Callable[[Facts], Said]]] = {
    1: ("certificate renewed", _certificate),
    2: ("fresh processes, interleaved", _replicates),
    3: ("three times apart, nothing compiled", _three_times),
    4: ("waited for the device", _waiting),
    5: ("processes, not rounds, are the replicates", _statistic),
    6: ("paired comparison", _comparison),
    7: ("noise floor", _control),
    8: ("same work", _same_work),
    9: ("warm, and undisturbed", _quiet),
    10: ("memory apart", _memory),
    11: ("upper bound", _bound),
    12: ("energy", _energy),
}
