"""The kill matrix: `python -m tests.mutants [--impl NAME]... [--count N] [--seed S] [--out FILE]`.

Exit code 0: every mutant was killed, by two checks or more, or is listed in equivalent.toml with its reason. 1: one survived.
"""

import json
import os
import queue
import random
import re
import subprocess
import sys
import tomllib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path

import click

import impls
import specs
from harness.files import write_text
from harness.processes import THREAD_VARIABLES, cpus
from tests.mutants.child import ENOUGH
from tests.mutants.mutate import Mutant, mutants

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
DEEP_VAE, DEEP_AE = str(HERE / "deep_vae.toml"), str(HERE / "deep_ae.toml")
FILES = {  # file of a framework's folder -> specs that go through it
    "ae.py": ("ae", DEEP_AE),
    "vae.py": ("vae", DEEP_VAE, "linear_vae"),
    "layers.py": ("vae", "ae", DEEP_VAE, DEEP_AE, "linear_vae"),
    "adam.py": ("vae", DEEP_VAE),
    "backend.py": ("vae", DEEP_AE, "pca"),
}


def reason_for(implementation: str, mutant: str) -> str | None:
    """Why a mutant computes the same function, if equivalent.toml has it."""
    text = re.sub(r"\.py:\d+ ", ".py ", mutant, count=1)
    for entry in tomllib.loads((HERE / "equivalent.toml").read_text(encoding="utf-8"))["equivalent"]:
        if text == entry["mutant"] and any(fnmatch(implementation, pattern) for pattern in entry["of"]):
            return entry["reason"]
    return None


def judged(rows: list[dict]) -> list[dict]:
    """The rows, each with its verdict: "killed", by two checks or more; "equivalent", with its reason; or "survived"."""
    for row in rows:
        row["reason"] = reason_for(row["implementation"], row["mutant"])
        row["verdict"] = "killed" if len(row["killed_by"]) >= ENOUGH else "equivalent" if row["reason"] else "survived"
    return rows


def chosen(name: str, count: int, seed: int) -> list[Mutant]:
    """`count` mutants of what an implementation runs, from the model files and the machine room in equal parts, drawn by `seed`."""
    implementation, found = impls.load(name), {True: [], False: []}
    without = ("PCA",) if implementation.reason_against(specs.load("pca")) else ()
    for file in FILES:
        path = ROOT / "impls" / implementation.folder / file
        if path.exists():
            found[file == "backend.py"] += list(mutants(path, without))
    rng = random.Random(seed)
    for part in found.values():
        rng.shuffle(part)
    rooms = min(count // 2, len(found[True]))
    return found[False][: count - rooms] + found[True][:rooms]


def examine(name: str, planned: list[Mutant], free: queue.Queue, progress: object) -> list[dict]:
    """Run verify on every mutant of one implementation, on a CPU of its own."""
    cpu = free.get()
    implementation = impls.load(name)
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1"), **dict(implementation.environment), "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.mutants.child", name, str(cpu)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment, cwd=ROOT,
    )  # fmt: skip
    rows = []
    for mutant in planned:
        module = f"impls.{implementation.folder}.{mutant.file.removesuffix('.py')}"
        request = {"module": module, "file": mutant.file, "source": mutant.source, "specs": FILES[mutant.file]}
        child.stdin.write(json.dumps(request) + "\n")
        child.stdin.flush()
        answer = json.loads(child.stdout.readline())
        rows += judged([{"implementation": name, "id": mutant.id, "mutant": str(mutant), "kind": mutant.kind, **answer}])
        progress.update(1)
        if rows[-1]["verdict"] == "survived":
            click.echo(f"\n{name} survived: {mutant} (killed by {len(answer['killed_by'])} of {ENOUGH} checks)", err=True)
    child.stdin.close()
    child.wait()
    free.put(cpu)
    return rows


@click.command()
@click.option("--impl", "names", multiple=True, help="Implementation; repeatable. Default: all shipped.")
@click.option("--count", default=64, show_default=True, help="Mutants for each implementation.")
@click.option("--seed", default=0, show_default=True, help="Which mutants. -1: others each time.")
@click.option("--jobs", default=len(cpus()), show_default=True, help="Implementations at once.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file for the kill matrix.")
@click.option("--rejudge", is_flag=True, help="Run nothing: judge the rows of --out again by equivalent.toml.")
def main(names: tuple[str, ...], count: int, seed: int, jobs: int, out: Path | None, rejudge: bool) -> None:
    """Plant faults in implementations and see that verify catches them."""
    if rejudge:
        matrix = json.loads(out.read_text(encoding="utf-8"))
        matrix["rows"] = judged(matrix["rows"])
    else:
        matrix = plant(names, count, seed, jobs)
    rows = matrix["rows"]
    for name in dict.fromkeys(row["implementation"] for row in rows):
        verdicts = Counter(row["verdict"] for row in rows if row["implementation"] == name)
        counts = "".join(f"{verdicts[verdict]:>5} {verdict}" for verdict in ("killed", "equivalent", "survived"))
        click.echo(f"{name:<18}{verdicts.total():>4} mutants{counts}")
    if out:
        write_text(out, json.dumps(matrix, indent=1) + "\n")
    sys.exit(any(row["verdict"] == "survived" for row in rows))


def plant(names: tuple[str, ...], count: int, seed: int, jobs: int) -> dict:
    names = names or tuple(name for name, one in impls.available().items() if one.folder)
    seed = random.SystemRandom().randrange(2**32) if seed < 0 else seed
    click.echo(f"mutants: {count} for each of {', '.join(names)}, seed {seed}", err=True)
    plan = {name: chosen(name, count, seed) for name in names}
    free: queue.Queue = queue.Queue()
    for cpu in range(jobs):
        free.put(cpus()[cpu % len(cpus())])
    with (
        click.progressbar(length=sum(map(len, plan.values())), label="mutants", file=sys.stderr) as progress,
        ThreadPoolExecutor(jobs) as pool,
    ):
        rows = [row for rows in pool.map(lambda name: examine(name, plan[name], free, progress), names) for row in rows]
    return {"schema": 1, "made": datetime.now(UTC).isoformat(timespec="seconds"), "seed": seed, "enough": ENOUGH, "rows": rows}


if __name__ == "__main__":
    main()
