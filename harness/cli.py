"""The command line. Data go to stdout, progress and prose to stderr. Exit codes: see harness.errors."""

import json
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import asdict
from pathlib import Path

import click

from harness.cli_gate import gate
from harness.cli_sweeps import quality, sweep
from harness.errors import BROKEN, FAILED, NOTHING_RAN, OK, USAGE, UserError
from harness.options import DTYPES, Folder, chosen_impls, chosen_specs, command_line, folder_for, limits, options


class Group(click.Group):
    """Turns errors that a user can mend into a message and an exit code."""

    def invoke(self, ctx: click.Context) -> object:
        from specs import SpecError

        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a job that is cancelled leaves no worker and no file behind
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(f"isoform: {error}", err=True)
            ctx.exit(error.exit_code)
        except SpecError as error:
            click.echo(f"isoform: {error}", err=True)
            ctx.exit(USAGE)
        except KeyboardInterrupt:
            click.echo("isoform: interrupted", err=True)
            ctx.exit(130)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:  # noqa: BLE001 - a crash must not be taken for "a check failed" or "slower"
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{where.filename.rsplit('/', 1)[-1]}:{where.lineno}"
            click.echo(f"isoform: unexpected {type(error).__name__}: {error} ({place})", err=True)
            click.echo("  likely: a damaged file, or a bug in isoform", err=True)
            ctx.exit(BROKEN)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="isoform")
def main() -> None:
    """One spec, many implementations, numerically the same; and only then, how fast each one is."""


@main.command("list")
@options("json")
def list_command(as_json: bool) -> None:
    """Specs and implementations, and what is not installed."""
    import impls
    import specs

    known_specs = [specs.load(name) for name in specs.names()]
    known = impls.available().values()
    if as_json:
        content = {
            "specs": [{"name": s.name, "title": s.title, "source": s.source, "model": s.model, "hash": s.hash} for s in known_specs],
            "implementations": [{"name": i.name, "text": i.text, "missing": i.missing, "install": i.install} for i in known],
        }
        click.echo(json.dumps(content, indent=1))
        return
    click.echo("specs")
    for spec in known_specs:
        click.echo(f"  {spec.name:<18}{spec.title} ({spec.source})")
    click.echo("implementations")
    for one in known:
        state = f"not installed: {one.install}" if one.missing else ""
        click.echo(f"  {one.name:<18}{one.text}{'; ' + state if state else ''}")


@main.command()
@options("json")
def doctor(as_json: bool) -> None:
    """This machine, the versions in use, and each implementation started once."""
    import impls
    from harness import machine
    from harness.doctor import examine

    found = {"machine": machine.card(), "versions": machine.versions(), "implementations": examine(list(impls.available().values()))}
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        for title in ("machine", "versions"):
            click.echo(title)
            for key, value in found[title].items():
                click.echo(f"  {key:<18}{value}")
        click.echo("implementations")
        for name, one in found["implementations"].items():
            click.echo(f"  {name:<18}{one['state']:<16}{one['detail']}")
    if not any(one["state"] == "ok" for one in found["implementations"].values()):
        raise UserError("no implementation works here", NOTHING_RAN)


@main.command("machine")
@options("impl", "device", "out", "json")
def machine_command(impls, device, out, as_json) -> None:
    """What this machine can do at most: products, LU, bandwidth, dispatch, copies, through each framework.

    Written to machine.json in the results folder, where the report finds it and bounds every throughput by it.
    """
    from harness import show

    chosen, folder = chosen_impls(impls), folder_for(out)
    content = measure_machine(chosen, device, folder)
    if as_json:
        click.echo(json.dumps(content, indent=1))
    show.card(content)
    click.echo(f"card: {folder / 'machine.json'}", err=True)
    if all(row["value"] is None for row in content["rows"]):
        raise UserError("nothing could be measured; the lines above say why", NOTHING_RAN)


def measure_machine(chosen: list, device: str, folder: Path) -> dict:
    from harness import show
    from harness.hardware import card

    with show.machine_progress() as on_event:
        rows = card.measure(chosen, device, on_event)
    content = card.card(rows, device, command_line())
    card.write(content, folder)
    return content


@main.command()
@options("spec", "impl", "dtypes", "device", "level", "out", "json", "dry")
@click.argument("more_specs", nargs=-1)
def verify(specs, impls, dtypes, device, level, out, as_json, dry_run, more_specs) -> None:
    """Prove that implementations compute the same function, and write their certificates.

    SPECS may also be given as arguments: isoform verify my_vae.toml
    """
    from harness import show
    from harness.verify import run

    pairs = plan_verify(specs + more_specs, impls, dtypes, device, level)
    if dry_run:
        show.plan([pair.row() for pair in pairs])
        return
    folder, start = folder_for(out), time.monotonic()
    with show.verify_progress(pairs, level) as on_event:
        run.verify(pairs, level, on_event)
    found = run.content(pairs, level, command_line(), time.monotonic() - start)
    code = verdict(found["rows"])
    if as_json:
        click.echo(json.dumps(found, indent=1))
    show.matrix(found["rows"])
    if code == NOTHING_RAN:
        raise UserError("nothing could be verified; the table above says why. Nothing was written", NOTHING_RAN)
    show.replaced(folder / "verify.json", found["rows"])
    click.echo(f"certificates: {run.write(found, folder)}", err=True)
    sys.exit(code)


def plan_verify(specs, impls, dtypes, device, level):
    from harness.verify import run

    # at quick level float64 only: its gates are the tight ones, and bench renews the certificate in the dtype it times
    default = ("float64",) if level == "quick" else DTYPES
    return run.plan(chosen_specs(specs), chosen_impls(impls), list(dtypes or default), device, "highest")


def verdict(rows: list[dict]) -> int:
    """Exit code of a verification."""
    states = {row["state"] for row in rows}
    if states <= {"n-a", "not-installed", "unsupported"}:
        return NOTHING_RAN
    return OK if states <= {"pass", "n-a", "not-installed", "unsupported"} else FAILED


@main.command()
@options("spec", "impl", "operation", "dtype", "device", "batch", "level", "target", "budget", "timeout", "out", "json", "dry")
@click.option("--seed", type=click.IntRange(min=0), help="Of the random order. Default: drawn, and recorded.")
@click.option("--resume", is_flag=True, help="Go on where the folder's last run was cut off: the same command once more, with this.")
@click.argument("more_specs", nargs=-1)
def bench(
    specs, impls, operations, dtypes, device, batch_sizes, level, target, budget, timeout, out, as_json, dry_run, seed, resume, more_specs
) -> None:
    """Measure speed and memory; each cell only after its certificate was renewed in the same process."""
    from harness import show
    from harness.bench import schedule

    if len(dtypes) > 1:
        raise UserError("bench takes one --dtype a run; run it once for each")
    how = {"level": level, "dtype": (dtypes or ("float32",))[0], "device": device, "batch_sizes": batch_sizes, "operations": operations}
    chosen = chosen_specs(specs + more_specs), chosen_impls(impls)
    if dry_run:
        from harness.bench.forecast import forecast

        until = limits(target, budget, timeout)
        show.forecast(forecast(*chosen, **how, target=until["target"], budget_s=until["budget_s"]))
        return
    how |= limits(target, budget, timeout)
    if resume and out and not out.exists():
        raise UserError(f"{out}: there is no run to resume\n  mend: give the folder of the run that was cut off, or leave --resume away")
    folder = folder_for(out)
    with show.bench_progress() as on_event:
        path = schedule.bench(*chosen, **how, folder=folder, seed=seed, command=command_line(), on_event=on_event, resume=resume)
    if as_json:
        from harness.bench.table import summary

        click.echo(summary(path).to_json(orient="records", indent=1, double_precision=15))
    show.reasons(path)
    first = "" if (folder / "verify.json").exists() else f"isoform verify --out {folder}, then "
    click.echo(f"journal: {path}\nnow:     {first}isoform report {folder}", err=True)
    sys.exit(schedule.exit_code(path))


@main.command()
@click.argument("journals", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--out", required=True, type=Folder(path_type=Path), help="Results folder.")
def merge(journals: tuple[Path, ...], out: Path) -> None:
    """Make one journal of several, of jobs that ran apart on one machine. In whichever order they are given, the result is the same."""
    from harness.bench.compare import journal_of
    from harness.bench.merge import merge as merged
    from harness.files import results_folder, write_text

    path, given = out / "journal.jsonl", [journal_of(one) for one in journals]
    if path.exists() and path.resolve() not in {one.resolve() for one in given}:
        raise UserError(f"{path} is another journal, which would be lost\n  mend: another --out FOLDER, or merge that one too: name it")
    text = merged(given)
    results_folder(out)
    write_text(path, text)
    click.echo(path)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
def report(folder: Path) -> None:
    """Write the page, tables and figures of a results folder."""
    from harness import report

    click.echo(report.build(folder))


@main.command()
@click.argument("base", type=click.Path(exists=True, path_type=Path))
@click.argument("new", type=click.Path(exists=True, path_type=Path))
@click.option("--no-rerun", is_flag=True, help="Do not measure again what looks slower; it stays unconfirmed.")
@options("json")
def compare(base: Path, new: Path, no_rerun: bool, as_json: bool) -> None:
    """Is NEW slower than BASE, and do both rank the implementations alike? Two results folders, or their journals, of one machine.

    What looks slower is measured once more, if this is the machine and the code of NEW: only what is slower both times is a regression.
    BASE is not measured again, and stored times prove little on a machine that others use too; `isoform gate BASE_REV` measures both now,
    side by side.

    Exit code 0: no; 1: yes, something is, or fails or was interrupted in NEW; 4: cannot tell, or unconfirmed; 3: nothing that can be
    compared.
    """
    from harness import show
    from harness.bench import compare as comparing
    from harness.bench.agreement import order
    from harness.bench.confirm import rerun

    rows = comparing.compare(base, new)
    with tempfile.TemporaryDirectory(prefix="isoform-") as folder:

        def measure(cells: list, journal: Path) -> dict:
            with show.bench_progress() as on_event:
                return rerun(cells, journal, Path(folder), on_event)

        rows = comparing.confirmed(rows, base, new, None if no_rerun else measure)
    ranks = order(comparing.journal_of(base), comparing.journal_of(new))
    if as_json:
        click.echo(json.dumps({"cells": comparing.as_dicts(rows), "order": asdict(ranks)}, indent=1))
    show.comparison(rows, ranks)
    sys.exit(comparing.exit_code(rows))


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def replay(folder: Path, arguments: tuple[str, ...]) -> None:
    """A measured folder through pytest-benchmark: its JSON, comparisons and histograms.

    ARGUMENTS are those of pytest, such as --benchmark-json=FILE, --benchmark-save=NAME, --benchmark-compare or -k vae.
    """
    from harness.bench import replay as replaying

    sys.exit(replaying.replay(folder, arguments))


@main.command()
@click.argument("of", type=click.Choice(("spec", "journal")))
def schema(of: str) -> None:
    """JSON Schema of a spec, or of a row of a journal, for editors and validators."""
    from harness.bench.schema import json_schema
    from specs import Spec

    click.echo(json.dumps(Spec.model_json_schema() if of == "spec" else json_schema(), indent=1))


@main.command("run")
@options("spec", "impl", "device", "batch", "level", "target", "budget", "timeout", "out")
@click.argument("more_specs", nargs=-1)
def run_command(specs, impls, device, batch_sizes, level, target, budget, timeout, out, more_specs) -> None:
    """The main job: verify, bench and report, into one results folder; from level ci on with the machine's card."""
    from harness import report, show
    from harness.bench import schedule
    from harness.verify import run

    pairs = plan_verify(specs + more_specs, impls, (), device, level)
    folder, start = folder_for(out), time.monotonic()
    with show.verify_progress(pairs, level) as on_event:
        run.verify(pairs, level, on_event)
    found = run.content(pairs, level, command_line(), time.monotonic() - start)
    show.matrix(found["rows"])
    code = verdict(found["rows"])
    if code == NOTHING_RAN:
        raise UserError("nothing could be verified, so nothing is timed; the table above says why", NOTHING_RAN)
    run.write(found, folder)
    if level != "quick":
        measure_machine(chosen_impls(impls), device, folder)
    timed = chosen_specs(specs + more_specs)
    if level == "quick" and not (specs or more_specs):
        timed = chosen_specs(("vae",))  # a first look takes minutes
    with show.bench_progress() as on_event:
        path = schedule.bench(
            timed, chosen_impls(impls), level=level, dtype="float32", device=device, batch_sizes=batch_sizes,
            folder=folder, command=command_line(), on_event=on_event, **limits(target, budget, timeout),
        )  # fmt: skip
    click.echo(f"page: {report.build(folder)}", err=True)
    sys.exit(code or schedule.exit_code(path))


for command in (gate, sweep, quality):
    main.add_command(command)

if __name__ == "__main__":
    main()
