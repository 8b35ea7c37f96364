"""Options that several commands share, and what becomes of them: specs, implementations, a results folder."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import click

from harness.errors import UserError

LEVELS = ("quick", "ci", "report")
DTYPES = ("float64", "float32")
OPERATIONS = ("train", "loss", "fit", "encode", "decode", "generate")


class Folder(click.Path):
    """A folder that is named: an empty text, as an unset variable of a shell gives, would be the current one."""

    def convert(self, value, param, ctx):
        if not str(value):
            self.fail("it is empty; give a folder, or leave --out away", param, ctx)
        return super().convert(value, param, ctx)


class Finite(click.FloatRange):
    """A number that a clock can wait for and JSON can hold: no NaN, which no range of click's excludes, and nothing beyond LARGEST."""

    LARGEST = 1e6  # of either sign; in seconds, half of what poll(2) can wait

    def convert(self, value, param, ctx):
        number = super().convert(value, param, ctx)
        if not abs(number) <= self.LARGEST:  # NaN is not
            self.fail(f"{value} is no number that can be used here; give a finite one, of at most {self.LARGEST:.0f}", param, ctx)
        return number


def spec(default: str) -> Callable:
    words = f"Spec by name or TOML file; repeatable. Default: {default}."
    return click.option("--spec", "specs", multiple=True, metavar="NAME|FILE", help=words)


def dtype(words: str) -> Callable:
    return click.option("--dtype", "dtypes", multiple=True, type=click.Choice(DTYPES), help=words)


def options(*names: str) -> Callable:
    """Options that several commands share."""
    known = {
        "spec": spec("all shipped specs"),
        "spec-or-vae": spec("vae"),
        "impl": click.option("--impl", "impls", multiple=True, metavar="NAME", help="Implementation; repeatable. Default: all."),
        "dtypes": dtype("Repeatable. Default: float64, from level ci on float32 too."),
        "dtype": dtype("One a run. Default: float32."),
        "device": click.option("--device", default="cpu", show_default=True, help="cpu, or cuda where there is one."),
        "batch": click.option(
            "--batch",
            "batch_sizes",
            multiple=True,
            type=click.IntRange(min=1),
            help="Rows a timed batch; beyond the data they repeat. Repeatable. Default: the spec's.",
        ),
        "operation": click.option(
            "--operation", "operations", multiple=True, type=click.Choice(OPERATIONS), help="Repeatable. Default: all of the level's."
        ),
        "target": click.option(
            "--target",
            type=Finite(min=0, min_open=True),
            metavar="PERCENT",
            help="More blocks, up to three times the level's, until each 95 % interval is within so much of its value.",
        ),
        "budget": click.option(
            "--budget",
            type=Finite(min=0, min_open=True),
            metavar="MINUTES",
            help="No block that would end later, after the first two. Default: none.",
        ),
        "timeout": click.option(
            "--timeout",
            type=Finite(min=0, min_open=True),
            metavar="SECONDS",
            help="A worker that says nothing for so long is ended. Default: 300.",
        ),
        "level": click.option("--level", type=click.Choice(LEVELS), default="quick", show_default=True, help="How much."),
        "out": click.option("--out", type=Folder(path_type=Path), help="Results folder. Default: results/<machine>/<date>."),
        "json": click.option("--json", "as_json", is_flag=True, help="Data as JSON on stdout."),
        "dry": click.option("--dry-run", is_flag=True, help="Say what would run, and run nothing."),
    }

    def decorate(function: Callable) -> Callable:
        for name in reversed(names):
            function = known[name](function)
        return function

    return decorate


def chosen_specs(names: tuple[str, ...]) -> list:
    import specs

    found: dict[str, specs.Spec] = {}
    for name in names or specs.names():
        spec = specs.load(name)
        if found.setdefault(spec.name, spec).hash != spec.hash:
            raise UserError(f"{name}: another spec is called '{spec.name}' too; results are told apart by name\n  mend: rename one of them")
    return list(found.values())


def chosen_impls(names: tuple[str, ...]) -> list:
    import impls

    return [impls.load(name) for name in dict.fromkeys(names or impls.available())]


def folder_for(out: Path | None) -> Path:
    from datetime import date

    from harness import machine
    from harness.files import results_folder

    return results_folder(out or Path("results") / machine.card()["name"] / date.today().isoformat())


def command_line() -> str:
    return shlex.join(["isoform", *sys.argv[1:]])


def limits(target: float | None, budget: float | None, timeout: float | None) -> dict:
    """As `schedule.bench` takes them."""
    from harness.bench.schedule import SILENCE_S

    return {
        "target": None if target is None else target / 100,
        "budget_s": None if budget is None else 60 * budget,
        "silence_s": timeout or SILENCE_S,
    }
