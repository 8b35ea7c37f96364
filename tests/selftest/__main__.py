"""`isoform gate HEAD` in clones of the present commit: on an unchanged tree, and on one with a slowdown planted, several times.

Runs are added to a file one by one: what is there is not done again.
"""

import argparse
import json
import math
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness import machine
from harness.bench import gate, trees
from harness.bench.interleave import Block
from harness.bench.journal import now
from harness.bench.statistics import LEAST, Estimate, noise_floor, verdicts
from harness.bench.stopping import LEVELS
from harness.errors import FAILED, OK
from harness.files import results_folder, write_text
from harness.processes import ROOT
from tests.selftest import slowdown

SCHEMA = 1
KINDS = ("unchanged", "planted")


@dataclass(frozen=True)
class Test:
    """`share`: how much longer a step takes where a slowdown is planted; `runs`: of each kind; `outcome`: of a run, and what it must be."""

    what: str
    file: str
    share: float
    blocks: int
    runs: dict[str, int]
    outcome: Callable[[dict], object]
    right: dict[str, tuple]


def verdict(run: dict) -> str:
    """By p and the noise floor; besides that, a gate asks for a certain size."""
    (row,) = run["rows"]
    ratio, control = (estimate(row["first"][name]) for name in ("ratio", "control"))
    words = [verdicts([ratio], [noise_floor(control)], least)[0].word for least in (0.0, LEAST)]
    return next((word for word in words if word in ("slower", "faster")), words[1])


TESTS = {
    "gate": Test(
        "the gate: exit code 0 for an unchanged tree, 1 where a step takes 10 % longer", "gate.json", 0.10, gate.BLOCKS,
        {"unchanged": 20, "planted": 5}, lambda run: run["exit_code"], {"unchanged": (OK,), "planted": (FAILED,)},
    ),
    "planted": Test(
        "as many blocks as at level report; a step that takes 5 % longer is slower, and nothing is faster or slower than itself",
        "planted.json", 0.05, LEVELS["report"].blocks,
        {"unchanged": 2, "planted": 2}, verdict, {"unchanged": ("equal within noise", "cannot tell"), "planted": ("slower",)},
    ),
}  # fmt: skip


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.selftest", description=__doc__)
    parser.add_argument("test", choices=TESTS)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--now", type=int, default=sys.maxsize, metavar="N", help="runs in this call, at most; the next one goes on")
    asked = parser.parse_args(arguments)
    test = TESTS[asked.test]
    path = results_folder(asked.out) / test.file
    with tempfile.TemporaryDirectory(prefix="isoform-") as folder:
        clones = {kind: clone(Path(folder) / kind) for kind in KINDS}
        found = begun(path) or begin(test, clones["planted"])
        slowdown.plant(clones["planted"] / "impls" / "numpy" / "backend.py", found["slowdown"]["elements"], test.share)
        due = [kind for kind in KINDS for _ in range(test.runs[kind] - len(found["runs"][kind]))]
        for kind in due[: asked.now]:
            run = once(clones[kind], test.blocks)
            found["runs"][kind].append({"outcome": test.outcome(run), **run})
            found["conclusion"] = conclusion(test, found["runs"])
            write_text(path, json.dumps(found, indent=1) + "\n")
            print(f"{kind} {len(found['runs'][kind])}: {test.outcome(run)}; so far {found['conclusion']}", file=sys.stderr)
    return FAILED if any(run["outcome"] not in test.right[kind] for kind in KINDS for run in found["runs"][kind]) else OK


def clone(folder: Path) -> Path:
    subprocess.run(["git", "clone", "-q", "--shared", str(ROOT), str(folder)], check=True)
    return folder


def begin(test: Test, tree: Path) -> dict:
    return {
        "schema": SCHEMA,
        "what": test.what,
        "command": shlex.join(["python", "-m", "tests.selftest", *sys.argv[1:]]),
        "commit": trees.commit("HEAD"),
        "machine": machine.card(),
        "versions": machine.versions(),
        "slowdown": {"asked": test.share, "source": slowdown.SOURCE, **slowdown.calibrated(tree, "vae", test.share)},
        "right": test.right,
        "conclusion": "",
        "runs": {kind: [] for kind in KINDS},
    }


def begun(path: Path) -> dict | None:
    """What an earlier call has measured of the same code on the same machine."""
    if not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    here = {"schema": SCHEMA, "commit": trees.commit("HEAD"), "machine": machine.card(), "versions": machine.versions()}
    for name, value in here.items():
        if found[name] != value:
            sys.exit(f"{path} has another {name}: {found[name]}; here it is {value}\n  mend: another --out FOLDER, or take that file away")
    return found


def once(tree: Path, blocks: int) -> dict:
    command = [sys.executable, "-m", "harness.cli", "gate", "HEAD", "--spec", "vae", "--impl", "numpy", "--blocks", str(blocks), "--json"]
    done = subprocess.run(command, cwd=tree, env={**os.environ, "PYTHONPATH": str(tree)}, capture_output=True, text=True)
    if not done.stdout:
        raise RuntimeError(done.stderr)
    found = json.loads(done.stdout)
    return {
        "made": now(),
        "exit_code": done.returncode,
        "seconds": found["seconds"],
        "seed": found["seed"],
        "rows": [short(row) for row in found["rows"]],
    }


def short(row: dict) -> dict:
    """A row of the gate, with the ratios of its blocks in place of the seconds of every visit."""
    passes = [[Block(**block) for block in blocks] for blocks in row["blocks"]]
    return {
        **{name: row[name] for name in ("cell", "verdict", "reason", "first", "again")},
        "ratios": [[round(block.ratio, 4) for block in blocks] for blocks in passes],
        "controls": [[round(block.control, 4) for block in blocks] for blocks in passes],
        "disturbed_visits": [sum(visit is not None for block in blocks for visit in block.disturbed) for blocks in passes],
        "certificates": sorted({one for blocks in passes for block in blocks for one in block.certificates.values()}),
    }


def conclusion(test: Test, runs: dict[str, list[dict]]) -> str:
    told = []
    for kind, found in runs.items():
        ratios = [row["first"]["ratio"]["value"] for run in found for row in run["rows"] if row["first"]]
        right = sum(run["outcome"] in test.right[kind] for run in found)
        told.append(f"{kind}: {right} of {len(found)} right" + (f", ratios {min(ratios):.3f} to {max(ratios):.3f}" if ratios else ""))
    return "; ".join(told)


def estimate(plain: dict) -> Estimate:
    return Estimate(**{name: math.nan if value is None else value for name, value in plain.items()})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
