"""bench's number and a loop by hand, of one model in one process: `python -m tests.speed.same NAME SPEC CPU,CPU TURNS SEED`.

The same loop differs by some percent between two processes, and between two models in one: by where their arrays happen to lie. Here
nothing differs but who measures. Prints, for each turn, the seconds a step that bench's code finds and those of the loop by hand
(`child.one_round`).
"""

import json
import os
import sys
from statistics import median


def main(name: str, which: str, cpus: str, turns: str, seed: str) -> None:
    use = [int(cpu) for cpu in cpus.split(",")]
    os.sched_setaffinity(0, set(use))  # before any import that sizes a thread pool
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    import impls
    from harness.bench import measure
    from tests.speed.child import one_round
    from tests.speed.contestants import SEED, rows, spec_of
    from tests.speed.measure import ROUNDS, WARM_UP, cell_of

    spec, found = spec_of(which), {}
    cell = cell_of(name, spec).row()
    emit = lambda event, **fields: found.update({event: fields})
    measure.prepare(impls.load(name), spec, {"cells": [cell], "seed": SEED}, emit)
    if not found["prepared"]["passed"]:
        raise SystemExit(found["prepared"]["reason"])

    def bench() -> float:
        request = {"cell": cell, "rounds": ROUNDS, "affinity": sorted(use), "seed": SEED}
        measure.time_cell(measure.HELD["model"], spec, request, emit)
        if found["measured"]["state"] != "ok":
            raise SystemExit(found["measured"]["reason"])
        return median(found["measured"]["rounds_s"]) / found["measured"]["steps_per_round"]

    bench()
    model, steps = measure.HELD["model"], found["measured"]["steps_per_round"]

    def by_hand() -> float:
        model.prepare({"x": rows(spec)}, steps, "train", SEED)
        return median([one_round(model) for _ in range(WARM_UP + ROUNDS)][WARM_UP:]) / steps

    pieces = {"bench": bench, "by hand": by_hand}
    for turn in range(int(turns)):
        order = sorted(pieces, reverse=bool((turn + int(seed)) % 2))
        times = {piece: pieces[piece]() for piece in order}
        answers.write(json.dumps(times) + "\n")
    answers.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
