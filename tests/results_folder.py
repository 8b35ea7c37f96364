"""A results folder made by hand, for the tests of the report: what verify and bench would have written."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

import specs
from tests.journal_rows import Whole

NAMES = ("numpy", "torch", "jax")
HASH = "5" * 64
CODE = {"code_hash": "c0de", "versions": {"numpy": "2.4.6"}}
STEPS = 7
BATCH = 128
SECONDS = {"numpy": 0.013579, "torch": 0.024681, "jax": 0.031357}  # of a round; nothing else in the files has these digits
NOT_INSTALLED = "needs keras: python -m pip install 'isoform[keras]'"
MACHINE = {"name": "test-2cpu", "cpu": "Test CPU", "cores": 2, "memory_bytes": 2**34, "os": "Linux", "python": "3.11", "gpu": []}


def row(name: str, dtype: str = "float64", **changes: object) -> dict:
    made = {
        "spec": "vae",
        "implementation": name,
        "dtype": dtype,
        "device": "cpu",
        "precision": "highest",
        "state": "pass",
        "reason": None,
        "margin": {"numpy": 0.0025, "torch": 0.125, "jax": 0.0375}.get(name),
        "worst": {"check": 3, "what": "gradient mu.w", "error": 1e-14, "gate": 1e-12},
        "comparisons": 40,
        "certificate": f"{name}-{dtype}-certificate",
        "failures": [],
    }
    return {**made, **changes}


def failed(name: str, dtype: str = "float64", state: str = "fail", reason: str = "failed: 3 (gradients)") -> dict:
    return row(name, dtype, state=state, reason=reason, margin=4500.0, certificate=None, failures=["check 3 failed: gradients"])


def absent(name: str, state: str = "not-installed", reason: str = NOT_INSTALLED) -> dict:
    return row(name, state=state, reason=reason, margin=None, worst=None, comparisons=0, certificate=None)


def certificate(of: dict) -> dict:
    errors = {"float64": (3, "gradients", {"numpy": 0.0, "torch": 3e-14, "jax": 2e-15}), "float32": (7, "trajectory", {"torch": 4e-6})}
    number, name, error = errors[of["dtype"]]
    check = {
        "number": number,
        "name": name,
        "state": "pass",
        "reason": None,
        "comparisons": 40,
        "error": error.get(of["implementation"], 1e-9),
    }
    keys = ("spec", "implementation", "device", "dtype", "precision")
    return {
        **{key: of[key] for key in keys},
        "id": of["certificate"] or "none",
        "spec_hash": HASH,
        **CODE,
        "passed": of["state"] == "pass",
        "checks": [{**check, "gate": 1e-12, "margin": of["margin"], "what": "mu.w", "seconds": 123.456789}],
    }


def write_verify(folder: Path, rows: list[dict], **changes: object) -> None:
    content = {
        "schema": 1,
        "made": "2026-01-02T03:04:05+00:00",
        "command": "isoform run --level quick",
        "level": "quick",
        "machine": MACHINE,
        "versions": {"numpy": "2.4.6"},
        "seconds": 61.5,
        "rows": rows,
        "certificates": [certificate(one) for one in rows if one["comparisons"]],
    }
    (folder / "verify.json").write_text(json.dumps(content | changes))


def cell(name: str) -> dict:
    fixed = {"spec": "vae", "spec_hash": HASH, "operation": "train", "device": "cpu", "dtype": "float32", "precision": "highest"}
    return {**fixed, "implementation": name, "batch_size": BATCH, "replica": 0}


def rounds(name: str, block: int) -> list[float]:
    return [SECONDS[name] * (1 + 0.01 * block) * (1 + 0.02 * k) for k in (-1, 0, 1)]


def write_journal(
    folder: Path, blocks: int = 3, mismatch: tuple[str, ...] = (), absent: tuple[str, ...] = (), note: str | None = "no ranking"
) -> None:
    with Whole(folder / "journal.jsonl") as journal:
        common = {"made": "2026-01-02T03:05:00+00:00", "command": "isoform bench", "level": "quick", "seed": 11, "threads": 2}
        journal.write("run", **common, machine=MACHINE, versions={"numpy": "2.4.6"}, affinity=[0, 1], note=note)
        for name in absent:
            journal.write("finish", **{"pass": "time"}, cell=cell(name), block=0, state="not-installed", reason=NOT_INSTALLED)
        for block in range(blocks):
            for name, replica in [*((name, 0) for name in NAMES), ("numpy", 1)]:
                finish = {"pass": "time", "cell": cell(name) | {"replica": replica}, "block": block}
                if name in mismatch:
                    journal.write("finish", **finish, state="mismatch", reason="check 2: terms differ by 1e-3")
                    continue
                measured = {"import_s": 1.5 + SECONDS[name], "build_s": 0.5 + SECONDS[name], "first_call_s": 2.5 + SECONDS[name]}
                counts = {
                    "steps_per_round": STEPS,
                    "wait_s": 1e-6,
                    "compiles": 0,
                    "margin": 0.0625,
                    "certificate": f"renewed-{name}",
                } | CODE
                journal.write("finish", **finish, state="ok", reason=None, rounds_s=rounds(name, block), **measured, **counts)
        for name in [name for name in NAMES if name not in mismatch]:
            peaks = {"host_peak": int(SECONDS[name] * 1e10), "alloc_peak": None, "device_reserved_peak": None, "device_used_peak": None}
            reasons = {column: "no device: runs on the CPU" for column in (*list(peaks)[1:], "planned_peak")}
            fields = {"pass": "memory", "cell": cell(name), "block": 0, "state": "ok", "reason": None, "reasons": reasons}
            journal.write("finish", **fields, **peaks, planned_peak=None)
        journal.write("end", stopped=f"blocks: {blocks} blocks, as the level asks")


def ranked(folder: Path, blocks: int = 10, absent: tuple[str, ...] = ()) -> None:
    """As at level report: ten blocks, so that there are verdicts; of a spec that is there in full."""
    spec = specs.load("vae")
    (folder / "journal.jsonl").unlink(missing_ok=True)
    write_journal(folder, blocks=blocks, note=None, absent=absent)
    for path in (folder / "verify.json", *folder.glob("*.jsonl")):
        path.write_text(path.read_text().replace("5" * 64, spec.hash))
    first, *rest = (folder / "journal.jsonl").read_text().splitlines()
    head = json.dumps(json.loads(first) | {"specs": {spec.hash: spec.model_dump(mode="json")}})
    (folder / "journal.jsonl").write_text("\n".join([head, *rest]) + "\n")


def changed(folder: Path, change: Callable[[dict], dict | None], file: str = "journal.jsonl") -> None:
    """Each row of a journal as `change` returns it; without those of which it returns none."""
    rows = [change(json.loads(line)) for line in (folder / file).read_text().splitlines()]
    (folder / file).write_text("".join(json.dumps(row) + "\n" for row in rows if row is not None))


def write_quality(folder: Path, **changes: object) -> None:
    """Three seeds of torch, of which one has not reached the target; and one implementation that does not apply."""
    reached = {"pass": "quality", "state": "ok", "reason": None, "certificate": "renewed-torch", **CODE, "target": -24.5, "loss": -24.6}
    with Whole(folder / "quality.jsonl") as journal:
        journal.write("run", machine=MACHINE)
        fields = {"pass": "quality", "state": "n-a", "reason": "nothing to train"}
        journal.write("finish", **fields, cell=cell("jax"), block=0)
        for seed in range(3):
            of_torch = cell("torch") | {"spec_hash": changes.get("spec_hash", HASH)}
            done = {"steps": 900 + seed, "seconds": 71.5 + seed} if seed < 2 else {"steps": None, "seconds": None, "reason": "10,000 steps"}
            other = {name: value for name, value in changes.items() if name != "spec_hash"}
            journal.write("finish", **reached | {"seed": seed} | done | other, cell=of_torch, block=seed)


def write_card(folder: Path, **changes: object) -> list[dict]:
    """machine.json, of two operations in two libraries, of which one has no bfloat16; returns its rows."""
    products = {"operation": "matmul", "dtype": "bfloat16", "size": 1024, "unit": "FLOP/s", "low": None, "high": None, "value": None}
    dispatch = {"operation": "dispatch", "dtype": "float32", "size": 1, "unit": "s", "reason": None}
    rows = [
        {**products, "framework": "numpy", "reason": "NumPy has no bfloat16"},
        {**products, "framework": "torch", "value": 4.211e11, "low": 4.031e11, "high": 4.412e11, "reason": None},
        {**dispatch, "framework": "numpy", "value": 8.09e-7, "low": 7.99e-7, "high": 8.19e-7},
        {**dispatch, "framework": "torch", "value": 2.88e-6, "low": 2.74e-6, "high": 3.03e-6},
    ]
    card = {"schema": 1, "made": "2026-01-01T00:00:00+00:00", "command": "isoform machine", "machine": MACHINE,
            "versions": {"numpy": "2.4.6"}, "device": "cpu", "threads": 2, "clock_mhz": {"current": 2596.1, "min": 0.0, "max": 0.0},
            "cache_bytes": 2**25, "energy": "N/A: no RAPL counter", "rows": rows}  # fmt: skip
    (folder / "machine.json").write_text(json.dumps(card | changes))
    return rows


def write_sweep(folder: Path, of: str, machine: dict = MACHINE) -> None:
    """torch at five sizes: seconds a step are 1e-3 and 2e-5 times the size, in two blocks."""
    with Whole(folder / f"sweep-{of}.jsonl") as journal:
        journal.write("run", machine=machine)
        for size, block in itertools.product((1, 8, 64, 512, 4096), range(2)):
            changes = {"batch_size": size} if of == "batch" else {"spec": f"vae-width-{size}"}
            measured = {"steps_per_round": 1, "rounds_s": [1e-3 + 2e-5 * size], "certificate": f"point-{size}", **CODE}
            journal.write("finish", **{"pass": "time"}, cell=cell("torch") | changes, block=block, **measured)


@pytest.fixture(name="folder")
def folder_fixture(tmp_path) -> Path:
    """Three implementations that pass, one that is not installed; three blocks."""
    write_verify(tmp_path, [*map(row, NAMES), absent("keras-jax")])
    write_journal(tmp_path, absent=("keras-jax",))
    return tmp_path


@pytest.fixture(name="small_figures")
def small_figures_fixture(monkeypatch):
    """One small figure in place of all, for tests of something else."""

    def one(content: object) -> dict[str, Figure]:
        figure = Figure(figsize=(1, 1))
        figure.text(0, 0, "nothing")
        return {"throughput": figure}  # a name that has a caption

    monkeypatch.setattr("harness.report.figures.draw", one)


def table(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / "tables" / f"{name}.csv")


def written(folder: Path) -> dict[str, bytes]:
    """{path: content} of everything in the folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def lines(folder: Path, start: str) -> list[list[str]]:
    """Cells of the page's table lines that start so."""
    text = (folder / "report.md").read_text()
    return [[part.strip() for part in line.strip("|").split("|")] for line in text.splitlines() if line.startswith(start)]


def plant(folder: Path, *wrong: dict) -> None:
    taken = {(one["implementation"], one["dtype"]) for one in wrong}
    write_verify(folder, [row(name) for name in NAMES if (name, "float64") not in taken] + list(wrong))
