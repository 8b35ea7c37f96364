"""The kill matrix: `python -m tests.mutants [--impl NAME]... [--count N] [--seed S] [--out FILE]`.

Exit code 0: every mutant was killed, by two checks or more, or is listed in equivalent.toml with the reason why not. 1: one survived.
"""

import json
import os
import queue
import random
import re
import subprocess
import sys
import threading
import tomllib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path

import click

import impls
import specs
from harness.files import write_text
from harness.processes import THREAD_VARIABLES, cpus
from harness.verify.certificate import code_hash
from tests.mutants.child import ENOUGH
from tests.mutants.mutate import Mutant, mutants

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
DEEP_VAE, DEEP_AE = str(HERE / "deep_vae.toml"), str(HERE / "deep_ae.toml")
ENGINES = {"keras-jax": "Jax", "keras-torch": "Torch", "keras-tensorflow": "TensorFlow"}  # classes that only one of them runs
FILES = {  # file of a framework's folder -> specs that go through it
    "ae.py": ("ae", DEEP_AE),
    "vae.py": ("vae", DEEP_VAE, "linear_vae"),
    "layers.py": ("vae", "ae", DEEP_VAE, DEEP_AE, "linear_vae"),
    "adam.py": ("vae", DEEP_VAE),
    "backend.py": ("vae", DEEP_AE, "pca"),
    "engines.py": ("vae", DEEP_AE, "pca"),
}
ROOMS = ("backend.py", "engines.py")  # not the mathematics, but how it runs


VERDICTS = ("killed", "killed by one", "equivalent", "survived")


def reason_for(row: dict) -> str | None:
    """Why a mutant computes the same function, or is for one check alone, if equivalent.toml has it: this change in this very function."""
    text = re.sub(r"\.py:\d+ ", ".py ", row["mutant"], count=1)
    for entry in tomllib.loads((HERE / "equivalent.toml").read_text(encoding="utf-8"))["equivalent"]:
        same = text == entry["mutant"] and row["within"] in entry["within"]
        if same and any(fnmatch(row["implementation"], pattern) for pattern in entry["of"]):
            return entry["reason"]
    return None


def without_folders(text: str) -> str:
    """A framework's messages name files; where they lie on this machine is nobody's business, and no result."""
    return re.sub(r"(?:/[\w.+-]+)+/(?=[\w.+-]+)", "", text)


def judged(rows: list[dict]) -> list[dict]:
    """The rows, each with its verdict: "killed", by two checks or more; with its reason "killed by one" or "equivalent"; or "survived"."""
    for row in rows:
        row["killed_by"] = [[*check, without_folders(what)] for *check, what in row["killed_by"]]
        row["reason"] = None if len(row["killed_by"]) >= ENOUGH else reason_for(row)
        excused = ("killed by one" if row["killed_by"] else "equivalent") if row["reason"] else "survived"
        row["verdict"] = "killed" if len(row["killed_by"]) >= ENOUGH else excused
    return rows


def chosen(name: str, count: int, seed: int) -> list[Mutant]:
    """`count` mutants of what an implementation runs, from the model files and the machine room in equal parts, drawn by `seed`."""
    implementation, found = impls.load(name), {True: [], False: []}
    without = tuple(engine for other, engine in ENGINES.items() if other != name)
    without += ("PCA",) if implementation.reason_against(specs.load("pca")) else ()
    for file in FILES:
        path = ROOT / "impls" / implementation.folder / file
        if path.exists():
            found[file in ROOMS] += list(mutants(path, without))
    rng = random.Random(seed)
    for part in found.values():
        rng.shuffle(part)
    rooms = min(count // 2, len(found[True]))
    return found[False][: count - rooms] + found[True][:rooms]


class Matrix:
    """The rows so far, in `path` too. A row that is there already counts, unless the code has changed since."""

    def __init__(self, path: Path | None, seed: int):
        self.path, self.head, self.lock = path, {"schema": 1, "made": "", "seed": seed, "enough": ENOUGH}, threading.Lock()
        self.rows: dict[tuple, dict] = {}
        self.before = {}
        if path and path.exists():
            now = {name: code_hash(one) for name, one in impls.available().items() if one.folder}
            found = json.loads(path.read_text(encoding="utf-8"))["rows"]
            self.before = {self.key(row): row for row in found if row["code"] == now.get(row["implementation"])}

    @staticmethod
    def key(row: dict) -> tuple:
        return row["implementation"], row["code"], row["id"]

    def add(self, row: dict) -> None:
        with self.lock:
            self.rows[self.key(row)] = row
            self.write()

    def write(self) -> None:
        if self.path:
            rows = judged([*(row for key, row in self.before.items() if key not in self.rows), *self.rows.values()])
            made = datetime.now(UTC).isoformat(timespec="seconds")
            write_text(self.path, json.dumps(self.head | {"made": made, "rows": rows}, indent=1) + "\n")


def examine(name: str, planned: list[Mutant], free: queue.Queue, matrix: Matrix, on_row: Callable[[dict], None]) -> None:
    """Run verify on every mutant of one implementation, on a CPU of its own."""
    cpu = free.get()
    implementation = impls.load(name)
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1"), **dict(implementation.environment), "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.mutants.child", name, str(cpu)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment, cwd=ROOT,
    )  # fmt: skip
    code = code_hash(implementation)
    for mutant in planned:
        head = {"implementation": name, "code": code, "id": mutant.id, "mutant": str(mutant), "within": mutant.within, "kind": mutant.kind}
        row = matrix.before.get(matrix.key(head))
        if row is None:
            module = f"impls.{implementation.folder}.{mutant.file.removesuffix('.py')}"
            request = {"module": module, "file": mutant.file, "source": mutant.source, "specs": FILES[mutant.file]}
            child.stdin.write(json.dumps(request) + "\n")
            child.stdin.flush()
            row = head | json.loads(child.stdout.readline())
        judged([row])
        matrix.add(row)
        on_row(row)
    child.stdin.close()
    child.wait()
    free.put(cpu)


@click.command()
@click.option("--impl", "names", multiple=True, help="Implementation; repeatable. Default: all shipped.")
@click.option("--count", default=64, show_default=True, help="Mutants for each implementation.")
@click.option("--seed", default=0, show_default=True, help="Which mutants. -1: others each time.")
@click.option("--jobs", default=len(cpus()), show_default=True, help="Implementations at once.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file for the kill matrix; what it has already is not run again.")
@click.option("--rejudge", is_flag=True, help="Run nothing: judge the rows of --out again by equivalent.toml.")
def main(names: tuple[str, ...], count: int, seed: int, jobs: int, out: Path | None, rejudge: bool) -> None:
    """Plant faults in implementations and see that verify catches them."""
    if rejudge:
        matrix = Matrix(out, seed)
        matrix.write()
        rows = judged(list(matrix.before.values()))
    else:
        rows = plant(names, count, seed, jobs, out)
    for name in dict.fromkeys(row["implementation"] for row in rows):
        verdicts = Counter(row["verdict"] for row in rows if row["implementation"] == name)
        counts = "".join(f"{verdicts[verdict]:>5} {verdict}" for verdict in VERDICTS)
        click.echo(f"{name:<18}{verdicts.total():>4} mutants{counts}")
    sys.exit(any(row["verdict"] == "survived" for row in rows))


def plant(names: tuple[str, ...], count: int, seed: int, jobs: int, out: Path | None = None) -> list[dict]:
    names = names or tuple(name for name, one in impls.available().items() if one.folder)
    seed = random.SystemRandom().randrange(2**32) if seed < 0 else seed
    click.echo(f"mutants: {count} for each of {', '.join(names)}, seed {seed}", err=True)
    plan, matrix = {name: chosen(name, count, seed) for name in names}, Matrix(out, seed)
    free: queue.Queue = queue.Queue()
    for cpu in range(jobs):
        free.put(cpus()[cpu % len(cpus())])
    with (
        click.progressbar(length=sum(map(len, plan.values())), label="mutants", file=sys.stderr) as progress,
        ThreadPoolExecutor(jobs) as pool,
    ):

        def on_row(row: dict) -> None:
            progress.update(1)
            if row["verdict"] == "survived":
                name, killed = row["implementation"], len(row["killed_by"])
                click.echo(f"\n{name} survived: {row['mutant']} (killed by {killed} of {ENOUGH} checks)", err=True)

        list(pool.map(lambda name: examine(name, plan[name], free, matrix, on_row), names))
    return list(matrix.rows.values())


if __name__ == "__main__":
    main()
