"""The kill matrix: `python -m tests.mutants [--impl NAME]... [--count N] [--seed S] [--out FILE]`.

Exit code 0: every mutant was killed, by two checks or more, or is listed in equivalent.toml with its reason. 1: one survived.
"""

import json
import os
import random
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

import impls
from harness.processes import THREAD_VARIABLES
from tests.mutants.child import ENOUGH
from tests.mutants.mutate import Mutant, mutants

ROOT = Path(__file__).parents[2]
FILES = ("ae.py", "vae.py", "layers.py", "adam.py", "backend.py")
SPECS = ("vae", "ae", *(str(Path(__file__).parent / name) for name in ("deep_vae.toml", "deep_ae.toml")), "linear_vae", "pca")


def listed() -> dict[tuple[str, str], str]:
    """{(framework, mutant text without its line): reason} of the mutants that compute the same function."""
    content = tomllib.loads((Path(__file__).parent / "equivalent.toml").read_text(encoding="utf-8"))
    return {(entry["framework"], entry["mutant"]): entry["reason"] for entry in content["equivalent"]}


def key(framework: str, mutant: Mutant) -> tuple[str, str]:
    return framework, f"{mutant.file} {mutant.kind}: {mutant.before}  ->  {mutant.after}"


def chosen(folder: Path, count: int, seed: int) -> list[Mutant]:
    """`count` mutants, from the model files and the machine room in equal parts, drawn by `seed`."""
    found: dict[bool, list[Mutant]] = {True: [], False: []}
    for name in FILES:
        if (folder / name).exists():
            found[name == "backend.py"] += list(mutants(folder / name))
    rng = random.Random(seed)
    for part in found.values():
        rng.shuffle(part)
    rooms = min(count // 2, len(found[True]))
    return found[False][: count - rooms] + found[True][:rooms]


def examine(name: str, planned: list[Mutant], progress: object) -> list[dict]:
    """Run verify on every mutant of one implementation."""
    implementation = impls.load(name)
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1"), **dict(implementation.environment), "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.mutants.child", name],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment, cwd=ROOT,
    )  # fmt: skip
    rows = []
    for mutant in planned:
        module = f"impls.{implementation.folder}.{mutant.file.removesuffix('.py')}"
        child.stdin.write(json.dumps({"module": module, "file": mutant.file, "source": mutant.source, "specs": SPECS}) + "\n")
        child.stdin.flush()
        answer = json.loads(child.stdout.readline())
        reason = listed().get(key(implementation.folder, mutant))
        rows.append({"implementation": name, "id": mutant.id, "mutant": str(mutant), "kind": mutant.kind, **answer, "equivalent": reason})
        progress.update(1)
        if len(answer["killed_by"]) < ENOUGH and not reason:
            click.echo(f"\n{name} survived: {mutant} (killed by {len(answer['killed_by'])} of {ENOUGH} checks)", err=True)
    child.stdin.close()
    child.wait()
    return rows


@click.command()
@click.option("--impl", "names", multiple=True, help="Implementation; repeatable. Default: all shipped.")
@click.option("--count", default=64, show_default=True, help="Mutants for each implementation.")
@click.option("--seed", default=0, show_default=True, help="Which mutants. -1: others each time.")
@click.option("--jobs", default=os.cpu_count(), show_default=True, help="Implementations at once.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file for the kill matrix.")
def main(names: tuple[str, ...], count: int, seed: int, jobs: int, out: Path | None) -> None:
    """Plant faults in implementations and see that verify catches them."""
    names = names or tuple(name for name, one in impls.available().items() if one.folder)
    seed = random.SystemRandom().randrange(2**32) if seed < 0 else seed
    click.echo(f"mutants: {count} for each of {', '.join(names)}, seed {seed}", err=True)
    plan = {name: chosen(ROOT / "impls" / impls.load(name).folder, count, seed) for name in names}
    with (
        click.progressbar(length=sum(map(len, plan.values())), label="mutants", file=sys.stderr) as progress,
        ThreadPoolExecutor(jobs) as pool,
    ):
        rows = [row for rows in pool.map(lambda name: examine(name, plan[name], progress), names) for row in rows]
    alive = [row for row in rows if len(row["killed_by"]) < ENOUGH and not row["equivalent"]]
    for name in names:
        mine = [row for row in rows if row["implementation"] == name]
        killed = sum(len(row["killed_by"]) >= ENOUGH for row in mine)
        same = sum(bool(row["equivalent"]) and len(row["killed_by"]) < ENOUGH for row in mine)
        click.echo(f"{name:<18}{len(mine):>4} mutants  {killed:>4} killed  {same:>3} equivalent  {len(mine) - killed - same:>3} survived")
    if out:
        out.write_text(json.dumps({"schema": 1, "seed": seed, "enough": ENOUGH, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    sys.exit(1 if alive else 0)


if __name__ == "__main__":
    main()
