"""Tables beside those of speed: noise floor, rule card, sweeps, time to quality. Each only of what is certified."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

NOISE = ("implementation", "ratio", "low", "high", "floor", "blocks")
RULE = ("rule", "title", "state", "detail")
SIGNS = {"PASS": "●", "WARN": "▲", "FAIL": "✕", "N-A": "–"}
LEFT_OUT = ("n-a", "not-installed", "unsupported")
REFUSED = ("mismatch", "no-certificate")
VOUCHERS = ("blocks", "certificate", "rules")  # of a point of a curve: how many blocks made it, and who says that they may
CERTIFICATE_RULE = 1  # all that is said of a cell without a certificate is that it has none


def nothing() -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame()


def good(cells: pd.DataFrame, columns: tuple[str, ...], states: tuple[str, ...] = ("ok",)) -> set[tuple]:
    """The values of these columns in cells that are certified and measured, or in one of the states."""
    return set(cells.loc[cells["state"].isin(states), list(columns)].itertuples(index=False, name=None))


def among(table: pd.DataFrame, columns: tuple[str, ...], wanted: set[tuple]) -> pd.Series:
    import pandas as pd

    return pd.Series([one in wanted for one in table[list(columns)].itertuples(index=False, name=None)], index=table.index, dtype=bool)


def beside(cells: pd.DataFrame, values: pd.DataFrame) -> pd.DataFrame:
    """With `group_blocks`, the most blocks that any of the cells has that this one is compared with; and of import, build and first call
    the least and the most of all processes in which they were cold, `cold_processes`. `values`: the long table, certified."""
    from harness.bench.cells import CELL_FIELDS
    from harness.bench.ratios import GROUP
    from harness.bench.table import START

    if cells.empty:
        return cells
    cells = cells.assign(group_blocks=cells.groupby(list(GROUP), sort=False)["blocks"].transform("max"))
    ends = values[values["metric"].isin(START)].groupby([*CELL_FIELDS, "metric"])["value"].agg(["min", "max", "count"]).to_dict("index")
    keys = list(cells[list(CELL_FIELDS)].itertuples(index=False, name=None))
    for name in START:
        found = [ends.get((*key, name), {}) for key in keys]
        for end, which in (("low", "min"), ("high", "max")):
            cells[name.replace("_s", f"_{end}_s")] = [one.get(which, float("nan")) for one in found]
    return cells.assign(cold_processes=[ends.get((*key, START[0]), {}).get("count", 0) for key in keys])


def twins(journal: Path, ratios: pd.DataFrame) -> pd.DataFrame:
    """With `twin`: the implementation whose twin (A/A) makes the noise floor of the pair."""
    from harness.bench.ratios import GROUP, groups

    found = {
        group: next((name for name, replica in members if replica and (name, 0) in members), None)
        for group, members in groups(journal).items()
    }
    return ratios.assign(twin=[found.get(group) for group in ratios[list(GROUP)].itertuples(index=False, name=None)])


def noise(journal: Path, cells: pd.DataFrame) -> pd.DataFrame:
    """One row a group of cells that has an A/A control: seconds of the twin over those of the implementation, and the floor it makes."""
    import pandas as pd

    from harness.bench.ratios import GROUP, groups
    from harness.bench.statistics import noise_floor, paired

    rows = []
    for group, members in groups(journal).items():
        for name in [name for name, replica in members if replica and (name, 0) in members]:
            if twin := paired(members[name, 0], members[name, 1]):
                rows.append((*group, name, twin.value, twin.low, twin.high, noise_floor(twin), twin.n))
    table = pd.DataFrame(rows, columns=[*GROUP, *NOISE])
    key = (*GROUP, "implementation")
    return table[among(table, key, good(cells, key))].reset_index(drop=True)


def rules(journal: Path, cells: pd.DataFrame) -> pd.DataFrame:
    """The rule card, one row a cell and rule. Of a cell without a certificate only the rule that says so, without a detail."""
    from harness.bench.cells import CELL_FIELDS
    from harness.bench.rules import card

    table = card(journal)
    table = table[among(table, CELL_FIELDS, set(cells[list(CELL_FIELDS)].itertuples(index=False, name=None)))]
    certified = among(table, CELL_FIELDS, good(cells, CELL_FIELDS))
    bare = ~certified & (table["rule"] == CERTIFICATE_RULE)
    apart = bare & among(table, CELL_FIELDS, good(cells, CELL_FIELDS, LEFT_OUT))
    table.loc[bare, ["state", "detail"]] = ["FAIL", "no certificate, so no number"]
    table.loc[apart, ["state", "detail"]] = ["N-A", "not measured"]
    return table[certified | bare].reset_index(drop=True)


def sweeps(folder: Path, cells: pd.DataFrame, machine: dict, certified: Callable) -> tuple[pd.DataFrame, list[str]]:
    """The cells of both sweeps, each certified as `certified(verify, cells)` says, with their rules as signs; and what was not taken, why.

    The widths are specs of their own, with certificates of their own: but what failed in the run's verify.json has no curve either.
    """
    import pandas as pd

    from harness.bench.journal import read
    from harness.bench.sweeps import SIZES, WIDENED, journal_name, verify_name
    from harness.bench.table import summary
    from harness.report.content import Judge, read_verify

    found, notes, main = [], [], Judge(read_verify(folder / "verify.json"))
    for of in SIZES:
        path = folder / journal_name(of)
        if not path.exists():
            continue
        if [row for row in read(path).last_run if row["row"] == "run"][-1]["machine"] != machine:
            notes.append(f"{path.name} was measured on another machine: `isoform sweep {of} --out THIS_FOLDER`")
            continue
        some = certified(read_verify(folder / verify_name(of)), summary(path))
        for index, cell in some.iterrows():
            whole = WIDENED.fullmatch(cell["spec"])
            name = whole[1] if whole else cell["spec"]
            if main.failed.get((name, cell["implementation"], cell["device"])):
                some.loc[index, ["state", "reason"]] = [
                    "no-certificate",
                    f"verify.json holds a failure of {name} in {cell['implementation']}",
                ]
        found.append(some.assign(sweep=of, rules=signs(path, some)))
    if not found:
        found = [cells.assign(sweep="batch", rules="")]  # a run of several batch sizes is a sweep too
    return pd.concat(found, ignore_index=True), notes


def signs(journal: Path, cells: pd.DataFrame) -> list[str]:
    """For each cell its rule card, a sign a rule."""
    from harness.bench.cells import CELL_FIELDS

    cards: dict[tuple, list[tuple[int, str]]] = {}
    for row in rules(journal, cells).to_dict("records"):
        cards.setdefault(tuple(row[name] for name in CELL_FIELDS), []).append((row["rule"], SIGNS[row["state"]]))
    keys = cells[list(CELL_FIELDS)].itertuples(index=False, name=None)
    return ["".join(sign for _, sign in sorted(cards.get(key, []))) for key in keys]


def curves(cells: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(curves, slopes) of the certified cells of sweeps; each point with what vouches for it."""
    from harness.bench import sweeps

    good = cells[cells["state"] == "ok"]
    vouch = {}
    for cell in good.to_dict("records"):
        whole = sweeps.WIDENED.fullmatch(cell["spec"])
        spec, size = (whole[1], int(whole[2])) if whole else (cell["spec"], cell["batch_size"])
        key = spec, cell["operation"], cell["implementation"], cell["dtype"], cell["device"], size
        vouch["width" if whole else "batch", *key] = cell["blocks"], cell["certificate"], cell["rules"]
    found = sweeps.curves(good)
    points = found[[name for name in sweeps.CURVES if not name.startswith("step_")]].itertuples(index=False, name=None)
    vouchers = [vouch[point] for point in points]
    return found.assign(**{name: [one[k] for one in vouchers] for k, name in enumerate(VOUCHERS)}), sweeps.slopes(found)


def pair_of(cell: Any) -> tuple:
    return cell["spec"], cell["spec_hash"], cell["implementation"], cell["device"]


def quality(folder: Path, cells: pd.DataFrame, judge: Any) -> pd.DataFrame:
    """One row a seed; without seconds and steps where the pair is not certified, or anything else of it was refused a number."""
    from harness.bench.journal import read
    from harness.bench.quality import NAME, table
    from harness.bench.table import finished

    found = table(folder / NAME)
    if found.empty:
        return found
    found = found.astype({"state": object, "reason": object, "certificate": object})
    refused = {pair_of(cell) for cell in cells[cells["state"].isin(REFUSED)].to_dict("records")}
    refused |= {pair_of(row["cell"]) for row in finished(read(folder / NAME).last_run) if row["state"] == "ok" and not judge.knows(row)}
    targets = found.groupby("spec")["target"].first()  # what did not begin has none
    found["target"] = found["target"].fillna(found["spec"].map(targets))
    for index, row in found.iterrows():
        vouched = judge.vouches(row) and pair_of(row) not in refused and isinstance(row["certificate"], str)
        if row["state"] == "ok" and not vouched:
            found.loc[index, ["state", "reason"]] = ["no-certificate", "no certificate for this implementation and this very spec"]
        if found.loc[index, "state"] != "ok":
            found.loc[index, ["certificate", "loss", "steps", "seconds"]] = [None, float("nan"), float("nan"), float("nan")]
    return found
