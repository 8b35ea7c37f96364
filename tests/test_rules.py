"""The card of rules: each of the twelve can be kept and can be broken, and is told from what the journal says."""

import json

import pytest

from harness import machine
from harness.bench import rules
from harness.hardware.card import FILE
from tests.journal_rows import CELL, MACHINE, Whole

CALM = {"window_s": 1.0, "foreign": 0.0, "stolen": 0.0, "swapped": 0, "throttled": None, "foreign_gpu": None}
COUNTED = {"joules_per_step": 0.25, "counter": "RAPL", "window_s": 5.0, "reason": None}
GOOD = {
    "import_s": 1.0, "build_s": 1.0, "first_call_s": 1.0, "rounds_s": [0.4, 0.41, 0.39, 0.4, 0.4], "wait_s": 1e-6, "compiles": 0,
    "transfers": 0, "quiet": CALM, "energy": COUNTED, "affinity": [0, 1], "threads": 2, "warm_up": {"rounds": 6, "still_falling": False},
}  # fmt: skip
TORCH, TWIN = CELL | {"implementation": "torch"}, CELL | {"replica": 1}
PEAKS = {"host_peak": 2**20, "reasons": {}}


def card(tmp_path, *, changes=None, blocks=6, spec=None, selftest=2**26, beside=(TORCH, TWIN), only=None, peaks=True, finish=None):
    """{rule: (state, detail)} of NumPy's training, whose first block has these changes."""
    path = tmp_path / "journal.jsonl"
    with Whole(path) as out:
        out.write("run", specs={CELL["spec_hash"]: spec} if spec else {})
        for block in range(blocks):
            for cell in (CELL, *beside):
                mine = changes if changes and cell is CELL and block == 0 else {}
                if finish and cell is CELL and block == 0:
                    out.write("finish", cell=cell, block=block, **finish)
                else:
                    out.write("finish", cell=cell, block=block, **(GOOD | mine))
        if selftest is not None:
            out.write("selftest", got=selftest)
        if peaks:
            out.write("finish", **{"pass": "memory"}, cell=CELL, block=0, **PEAKS)
        out.write("end")
    table = rules.card(path)
    assert len(table) == 12 * len({cell["implementation"] for cell in (CELL, *beside)}) and not table.replica.any()
    mine = table[table.implementation == "numpy"]
    return {row["rule"]: (row["state"], row["detail"]) for row in mine.to_dict("records")}


def test_a_cell_that_keeps_all_rules(tmp_path):
    found = card(tmp_path)
    assert {number for number, (state, _) in found.items() if state == "PASS"} == {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12}
    assert found[11] == ("N-A", "this machine's rates were not measured: isoform machine --out THIS_FOLDER")
    assert "abc" in found[1][1] and "6 fresh processes" in found[2][1] and "seed 11" in found[2][1]
    assert "0.25 J a step, by RAPL" in found[12][1] and "64 MiB was read back within 0 MiB" in found[10][1]


BROKEN = {
    "fails now and then": (2, "WARN", {"finish": {"state": "crash:SIGSEGV", "reason": "why"}}, "1 more have failed"),
    "too few": (2, "WARN", {"blocks": 3}, "too few for a ranking"),
    "no start": (3, "PASS", {"changes": {"first_call_s": None}}, "in 5 cold processes"),
    "no compiler": (3, "PASS", {"blocks": 1, "changes": {"compiles": None}}, "nothing here compiles"),
    "waits": (4, "WARN", {"changes": {"wait_s": 0.02}}, "5 % of a round"),
    "cannot tell of transfers": (4, "PASS", {"changes": {"transfers": None}}, "cannot tell"),
    "one block": (5, "WARN", {"blocks": 1}, "one process has no interval"),
    "outliers": (5, "PASS", {"changes": {"rounds_s": [0.4, 0.41, 0.39, 9.0, 0.4]}}, "1 outlying rounds, none dropped"),
    "alone": (6, "N-A", {"beside": ()}, "nothing was measured beside it"),
    "no twin": (7, "WARN", {"beside": (TORCH,)}, "nobody knows the noise floor"),
    "noisy": (7, "WARN", {"changes": {"rounds_s": [0.8] * 5}}, "noise floor is"),
    "other CPUs": (8, "FAIL", {"changes": {"affinity": [0]}}, "CPUs [0, 1]"),
    "falling": (9, "WARN", {"changes": {"warm_up": {"rounds": 60, "still_falling": True}}}, "still getting faster after the warm-up in 1"),
    "disturbed": (9, "WARN", {"changes": {"quiet": CALM | {"stolen": 0.5}}}, "block 0: the host took 50 %"),
    "blind": (9, "N-A", {"blocks": 1, "changes": {"quiet": dict.fromkeys(CALM)}}, "does not tell what else"),
    "partly blind": (
        9,
        "PASS",
        {},
        "at most other processes took 0.0% of the CPUs, the host 0.0%, 0 pages were swapped; not readable here: throttled",
    ),
    "in two states": (
        9,
        "WARN",
        {"changes": {"rounds_s": [0.8, 0.82, 0.78]}},
        "processes differ by 28 % (standard deviation), rounds within",
    ),
    "short": (4, "WARN", {"changes": {"rounds_s": [8e-3, 9e-3, 8e-3]}}, "the shortest rounds last 8 ms, less than the 10"),
    "unwatched": (9, "N-A", {"blocks": 1, "changes": {"quiet": None}}, "earlier version"),
    "misread": (10, "FAIL", {"selftest": 2**26 + 2**22}, "within 4 MiB"),
    "no self-test": (10, "WARN", {"selftest": None}, "no known allocation"),
    "no memory": (10, "WARN", {"peaks": False}, "not measured"),
    "no counter": (12, "N-A", {"blocks": 1, "changes": {"energy": COUNTED | {"joules_per_step": None, "reason": "no RAPL"}}}, "no RAPL"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_rule_that_is_not_kept_is_told(tmp_path, name):
    rule, state, how, text = BROKEN[name]
    found = card(tmp_path, **how)
    assert found[rule][0] == state and text in found[rule][1], found[rule]


def test_without_a_certificate_there_is_nothing_to_say_but_that(tmp_path):
    found = card(tmp_path, finish={"state": "mismatch", "reason": "gradient is off"})
    assert found.pop(1) == ("FAIL", "no number: mismatch: gradient is off")
    assert {said for said in found.values()} == {("N-A", "not measured: mismatch")}
    absent = card(
        tmp_path / "x" if (tmp_path / "x").mkdir() is None else tmp_path, blocks=1, finish={"state": "not-installed", "reason": "pip"}
    )
    assert absent[1] == ("N-A", "not-installed: pip")


def test_the_bound(tmp_path):
    import specs

    spec = specs.load("vae").model_dump(mode="json")
    row = {
        "framework": "numpy",
        "operation": "matmul",
        "dtype": "float32",
        "size": 1,
        "unit": "FLOP/s",
        "low": None,
        "high": None,
        "reason": None,
    }
    content = {"schema": 1, "machine": MACHINE, "device": "cpu", "cache_bytes": None, "rows": [row | {"value": 1e9}]}
    (tmp_path / FILE).write_text(json.dumps(content))
    state, text = card(tmp_path, spec=spec)[11]
    assert state == "PASS" and "bound by compute" in text
    for folder, rate in (("slow", 1.0), ("other", None)):
        (tmp_path / folder).mkdir()
        content["rows"][0]["value"] = rate or 1e9
        (tmp_path / folder / FILE).write_text(json.dumps(content | ({} if rate else {"machine": machine.card()})))
    assert card(tmp_path / "slow", spec=spec)[11][0] == "FAIL"  # faster than what the machine can do: one of the two is wrong
    assert card(tmp_path / "other", spec=spec)[11][0] == "N-A"  # another machine's
