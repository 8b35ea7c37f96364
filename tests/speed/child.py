"""A contestant in a process of its own: `python -m tests.speed.child NAME SPEC STEPS CPU,CPU`.

Answers each line on stdin, the number of rounds wanted, with one line of JSON: their seconds a step. What a framework prints goes to
stderr. Warms up first, and then says {"ready": steps}.
"""

import gc
import json
import os
import sys
from statistics import median
from time import perf_counter

WARM_UP_S, WARM_UP_ROUNDS = 3.0, 3  # at most and at least


def main(contestant: str, which: str, steps: str, cpus: str) -> None:
    os.sched_setaffinity(0, {int(cpu) for cpu in cpus.split(",")})  # before any import that sizes a thread pool
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    from tests.speed.contestants import make

    one = make(contestant, which, int(steps))
    warm_up(one)

    def answer(content: object) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    answer({"ready": int(steps)})
    for line in sys.stdin:
        answer([one_round(one) / int(steps) for _ in range(int(line))])


def one_round(one) -> float:
    """Seconds. This is the loop by hand: nothing of the harness is in it."""
    gc.disable()
    start = perf_counter()
    one.run()
    one.block()
    seconds = perf_counter() - start
    gc.enable()
    return seconds


def warm_up(one) -> None:
    """Until rounds get no faster."""
    end, seconds = perf_counter() + WARM_UP_S, [one_round(one) for _ in range(WARM_UP_ROUNDS)]
    while perf_counter() < end and median(seconds[-3:]) < 0.99 * median(seconds[-6:-3] or [float("inf")]):
        seconds += [one_round(one) for _ in range(3)]


if __name__ == "__main__":
    main(*sys.argv[1:])
