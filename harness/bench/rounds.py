"""The clock. A round is `run` and then `block`: so many steps, then one wait for the device."""

import gc
import math
from dataclasses import dataclass
from statistics import median
from time import perf_counter, sleep

from impls import Model

SHORTEST_S = {"cpu": 10e-3}  # of a round
SHORTEST_ON_DEVICE_S = 1e-3
SPARE = 1.25  # times as long as that must a round be at first: rounds get a little faster still
OVERHEAD = 0.01  # wait and timer, as a share of a round, at most
GROUP = 3  # rounds whose median is one look at the trend
WARM_UP_ROUNDS, WARM_UP_S = 60, 5.0  # at most
STEADY_S = 0.3  # at least, just before the timed rounds: TensorFlow's get faster for as long, by too little a round for the rule to see
LONGEST = 10  # a round needs no more than this many times what is enough; else what is slow would take for ever
TRIES = 12
MOST_STEPS = 10**6  # in a round: a step of 10 ns is none
LATE = 0.2  # of a round, that its result may take to arrive after block()


@dataclass(frozen=True)
class Settled:
    steps: int  # in a round
    wait_s: float  # one block() and the timer, with nothing to wait for
    warm_up_rounds: int
    prepared_rounds: int  # run since the last `prepare`


def timed(model: Model, rounds: int) -> list[float]:
    """Seconds of each round, with garbage collection off."""
    run, block, seconds = model.run, model.block, []
    gc.disable()
    try:
        for _ in range(rounds):
            start = perf_counter()
            run()
            block()
            seconds.append(perf_counter() - start)
    finally:
        gc.enable()
    if min(seconds) < 0:
        raise RuntimeError(f"the clock has gone back by {-min(seconds):.2g} s within a round: no time of this machine can be trusted")
    return seconds


def settle(model: Model, operation: str, batch: dict, seed: int, device: str) -> Settled:
    """Find how many steps make a round long enough for the clock, and run until rounds get no faster. `steady` has to follow."""
    steps, warmed = 1, 0
    for _ in range(TRIES):
        model.prepare(batch, steps, operation, seed)
        seconds, _ = warm_up(model)
        warmed += len(seconds)
        wait = wait_s(model)
        enough, found = max(SHORTEST_S.get(device, SHORTEST_ON_DEVICE_S), wait / OVERHEAD), median(seconds[-GROUP:])
        if found >= SPARE * enough and (found <= LONGEST * enough or steps == 1):
            gc.collect()  # once, now: within the rounds it is off
            return Settled(steps, wait, warmed, len(seconds))
        step_s, steps = found / steps, math.ceil(steps * min(1.5 * enough / found, 1000))
        if steps > MOST_STEPS:
            raise RuntimeError(
                f"a step seems to take {step_s:.2g} s: a compiler or a cache has left the work out, or block() does not wait"
            )
    raise RuntimeError(f"no number of steps makes a round of {enough:.2g} to {LONGEST * enough:.2g} s; the last took {found:.2g} s")


def steady(model: Model) -> tuple[int, bool]:
    """Warm up once more, just before the timed rounds: a garbage collection and counting leave the caches cold.

    Returns the rounds that it took, and whether they were still getting faster at its limit.
    """
    seconds, still_falling = warm_up(model, STEADY_S)
    return len(seconds), still_falling


def warm_up(model: Model, least_s: float = 0.0) -> tuple[list[float], bool]:
    """Run for `least_s`, and until the median of the last rounds is not below that of those before them, or a limit is reached."""
    start = perf_counter()
    seconds = timed(model, GROUP)
    while len(seconds) < WARM_UP_ROUNDS and perf_counter() - start < WARM_UP_S:
        seconds += timed(model, GROUP)
        if median(seconds[-GROUP:]) >= median(seconds[-2 * GROUP : -GROUP]) and perf_counter() - start >= least_s:
            return seconds, False
    return seconds, True


def wait_s(model: Model, repeats: int = 50) -> float:
    """Median seconds of one block() and the timer when nothing is under way."""
    block, seconds = model.block, []
    for _ in range(repeats):
        start = perf_counter()
        block()
        seconds.append(perf_counter() - start)
    return median(seconds)


def not_waited_for(model: Model, round_s: float) -> float | None:
    """Seconds for which a round's result was late although block() had returned, or None. Three times late: machines hiccup.

    To fetch a result takes its time, from a device above all: so it is fetched at once, and after a rest in which it must have come.
    """
    start = perf_counter()
    fetched(model)
    rest, late = perf_counter() - start, []
    for _ in range(3):
        rested = fetched(model, rest)
        late.append(fetched(model) - rested)
        if late[-1] <= LATE * max(round_s, rested):
            return None
    return min(late)


def fetched(model: Model, rest: float = 0.0) -> float:
    """Seconds in which the result of a round is fetched, after a rest."""
    model.run()
    model.block()
    sleep(rest)
    start = perf_counter()
    model.outcome()
    return perf_counter() - start
