"""Where a contestant's time goes: `python -m tests.speed.profiles CONTESTANT SPEC STEPS` prints it as JSON, largest first.

Python's own profiler for all; for what runs on PyTorch, its operators too; for PCA, the parts of a fit, each timed alone as its framework
has it. Shares are of the time of a round, counted once by each of the three (`by`), so they add up within one and not across them.
"""

import cProfile
import importlib
import json
import os
import pstats
import subprocess
import sys
import timeit
from pathlib import Path
from statistics import median
from time import perf_counter

import impls
from harness.processes import ROOT, THREAD_VARIABLES, cpus
from tests.speed.contestants import implementation_of, make, rows, spec_of

ROWS = 12


def of(contestant: str, which: str, steps: int) -> list[dict]:
    """[{"by", "what", "share", "calls_a_step"}, ...], measured in a process of its own."""
    own = dict(impls.load(name).environment) if (name := implementation_of(contestant)) else {}
    variables = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(len(cpus()))), **own, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.speed.profiles", contestant, which, str(steps)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True, timeout=300)
    return json.loads(done.stdout.splitlines()[-1])


def python_functions(run, steps: int) -> list[dict]:
    """Own time. What the profiler does not see is its caller's: a routine of BLAS that SciPy calls is no function of Python's."""
    profile = cProfile.Profile()
    profile.runcall(run)
    stats = pstats.Stats(profile).stats
    total = sum(own for _, _, own, _, _ in stats.values())
    largest = sorted(stats.items(), key=lambda item: -item[1][2])[:ROWS]
    return [
        {"by": "function", "what": said(*where), "share": own / total, "calls_a_step": calls / steps}
        for where, (_, calls, own, _, _) in largest
    ]


def said(file: str, line: int, function: str) -> str:
    return function if file == "~" else f"{Path(file).name} {function}"


def torch_operators(run, steps: int) -> list[dict]:
    """Own time, without that of the operators that one calls."""
    import torch

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        start = perf_counter()
        run()
        total = perf_counter() - start
    largest = sorted(profile.key_averages(), key=lambda row: -row.self_cpu_time_total)[:ROWS]
    known = [(row.key, row.self_cpu_time_total * 1e-6, row.count) for row in largest]
    return [{"by": "operator", "what": what, "share": own / total, "calls_a_step": calls / steps} for what, own, calls in known]


def fit_parts(name: str, which: str, round_s: float) -> list[dict]:
    """The product and the eigenvectors of a fit, of data that are centred already: all of the time of each, which its caller has too."""
    spec = spec_of(which)
    x = rows(spec)
    found = []
    for what, run in importlib.import_module(f"tests.speed.bare.in_{name}").fit_parts(x, spec.d_z).items():
        run()
        seconds = median(timeit.repeat(run, repeat=5, number=1))
        found.append({"by": "part", "what": what, "share": seconds / round_s, "calls_a_step": 1.0})
    return found


def main(contestant: str, which: str, steps: str) -> None:
    from tests.speed.child import warm_up

    answers = os.dup(1)
    os.dup2(2, 1)
    one = make(contestant, which, int(steps))
    warm_up(one)

    def run() -> None:
        one.run()
        one.block()

    found = python_functions(run, int(steps))
    if "torch" in contestant:
        found += torch_operators(run, int(steps))
    if contestant in ("numpy", "torch", "jax") and not spec_of(which).trains:
        found += fit_parts(contestant, which, median(timeit.repeat(run, repeat=5, number=1)))
    os.write(answers, json.dumps(found).encode() + b"\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
