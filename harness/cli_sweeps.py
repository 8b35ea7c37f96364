"""The commands `sweep` and `quality`: how cost grows with the work, and what it takes to learn."""

import contextlib
import sys

import click

from harness.errors import UserError
from harness.options import Finite, chosen_impls, chosen_specs, command_line, folder_for, limits, options

NOTHING_TO_TRAIN = "mend: a spec that trains, such as --spec vae"


@click.command()
@click.argument("of", type=click.Choice(("batch", "width")))
@options("spec-or-vae", "impl", "operation", "dtype", "device", "budget", "timeout", "out")
@click.option("--size", "sizes", multiple=True, type=click.IntRange(min=1), help="Repeatable. Default: batch 1 to 4096, width 16 to 1024.")
def sweep(of, specs, impls, operations, dtypes, device, budget, timeout, out, sizes) -> None:
    """How does the time of a step grow with the batch size, or with the width of the hidden layers?

    Into sweep-batch.jsonl or sweep-width.jsonl of the results folder, where the report finds it. A width is another spec, verified first.
    """
    from harness import show
    from harness.bench import schedule, sweeps

    if len(dtypes) > 1:
        raise UserError("a sweep takes one --dtype a run; run it once for each")
    wanted, chosen, folder = tuple(sizes) or sweeps.SIZES[of], chosen_specs(specs or ("vae",)), folder_for(out)
    how = {"dtype": (dtypes or ("float32",))[0], "device": device, "operations": operations, "batch_sizes": wanted if of == "batch" else ()}
    if of == "width":
        chosen = [one for spec in chosen for one in sweeps.widened(spec, wanted)]
        certify(chosen, chosen_impls(impls), device, folder / sweeps.verify_name(of))
    with show.bench_progress() as on_event:
        path = schedule.bench(
            chosen, chosen_impls(impls), level="sweep", folder=folder, name=sweeps.journal_name(of), command=command_line(),
            on_event=on_event, **how, **limits(None, budget, timeout),
        )  # fmt: skip
    finish(path)


def certify(specs: list, implementations: list, device: str, path) -> None:
    """Verify at level quick, and write the certificates to a file of their own."""
    from harness import show
    from harness.verify import run

    pairs = run.plan(specs, implementations, ["float64"], device, "highest")
    with show.verify_progress(pairs, "quick") as on_event:
        run.verify(pairs, "quick", on_event)
    found = run.content(pairs, "quick", command_line(), 0.0)
    show.matrix(found["rows"])
    run.write(found, path.parent, path.name)


@click.command()
@options("spec-or-vae", "impl", "dtype", "device", "timeout", "out")
@click.option("--seeds", type=click.IntRange(min=1), default=5, show_default=True, help="Trainings of each implementation.")
@click.option(
    "--target", type=Finite(), metavar="NATS", help="Test loss an example. Default: the reference's half-way through the spec's steps."
)
def quality(specs, impls, dtypes, device, timeout, out, seeds, target) -> None:
    """Seconds and steps until the loss on the test data is low enough, with each framework's own noise.

    Into quality.jsonl of the results folder, where the report finds it.
    """
    from harness import show
    from harness.bench import quality as qualities

    if len(dtypes) > 1:
        raise UserError("quality takes one --dtype a run; run it once for each")
    chosen = [spec for spec in chosen_specs(specs or ("vae",)) if spec.trains]
    if not chosen:
        raise UserError(f"PCA is fitted in closed form: there is nothing to train\n  {NOTHING_TO_TRAIN}")
    with show.bench_progress() as on_event:
        path = qualities.measure(
            chosen, chosen_impls(impls), dtype=(dtypes or ("float32",))[0], device=device, folder=folder_for(out), seeds=seeds,
            target=target, command=command_line(), on_event=on_event, silence_s=limits(None, None, timeout)["silence_s"],
        )  # fmt: skip
    finish(path)


def finish(path) -> None:
    from harness import show
    from harness.bench import schedule

    with contextlib.suppress(BrokenPipeError):
        show.reasons(path)
        click.echo(f"journal: {path}\nnow:     isoform report {path.parent}", err=True)
    sys.exit(schedule.exit_code(path))
