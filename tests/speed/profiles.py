"""Where an implementation's time goes: `python -m tests.speed.profiles IMPLEMENTATION SPEC STEPS` prints it as JSON, largest first.

Python's own profiler for all; for what runs on PyTorch, its operators too. Shares are of the time of a round.
"""

import cProfile
import json
import os
import pstats
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import impls
from harness.processes import ROOT, THREAD_VARIABLES, cpus

ROWS = 12


def of(implementation: str, which: str, steps: int) -> list[dict]:
    """[{"what", "share", "calls_a_step"}, ...], measured in a process of its own."""
    own = dict(impls.load(implementation).environment)
    variables = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(len(cpus()))), **own, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.speed.profiles", implementation, which, str(steps)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True, timeout=300)
    return json.loads(done.stdout.splitlines()[-1])


def python_functions(run, steps: int) -> list[dict]:
    profile = cProfile.Profile()
    profile.runcall(run)
    stats = pstats.Stats(profile).stats
    total = sum(own for _, _, own, _, _ in stats.values())
    rows = sorted(stats.items(), key=lambda item: -item[1][2])[:ROWS]
    return [{"what": said(*where), "share": own / total, "calls_a_step": calls / steps} for where, (_, calls, own, _, _) in rows]


def said(file: str, line: int, function: str) -> str:
    return function if file == "~" else f"{Path(file).name} {function}"


def torch_operators(run, steps: int) -> list[dict]:
    import torch

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        start = perf_counter()
        run()
        total = perf_counter() - start
    rows = sorted(profile.key_averages(), key=lambda row: -row.self_cpu_time_total)[:ROWS]
    return [{"what": row.key, "share": row.self_cpu_time_total * 1e-6 / total, "calls_a_step": row.count / steps} for row in rows]


def main(implementation: str, which: str, steps: str) -> None:
    from tests.speed.child import warm_up
    from tests.speed.contestants import make

    answers = os.dup(1)
    os.dup2(2, 1)
    one = make(implementation, which, int(steps))
    warm_up(one)

    def run() -> None:
        one.run()
        one.block()

    rows = python_functions(run, int(steps))
    if "torch" in implementation:
        rows += torch_operators(run, int(steps))
    os.write(answers, json.dumps(rows).encode() + b"\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
