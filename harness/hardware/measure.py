"""The worker's side: seconds of each operation, one event an operation. An `instrument` is what `impls.instrument` describes."""

from collections.abc import Callable
from itertools import groupby
from operator import itemgetter
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from impls import DeviceAbsent, Implementation

ROUND_S, ROUNDS = 20e-3, 5
LIMIT_S = 5.0  # a product in a dtype that the CPU lacks can take a minute; nobody learns from three of them


def handle(implementation: Implementation, request: dict, emit: Callable[..., None]) -> None:
    """Event "row" for each case (dtype, operation, size), in their order: its seconds, or the reason why there are none."""
    device, here = request["device"], implementation.backend_module().devices()
    if device not in here:
        raise DeviceAbsent(implementation.name, device, here)
    for dtype, cases in groupby(request["cases"], key=itemgetter(0)):
        instrument = implementation.instrument_module().Instrument(device, dtype)
        for _, operation, size in cases:
            reason = instrument.reason_against(operation)
            seconds = None if reason else per_call(instrument, prepared(instrument, operation, size))
            if seconds and seconds > LIMIT_S:
                seconds, reason = None, f"a call takes {seconds:.2g} s; nothing above {LIMIT_S:.0f} s is measured"
            emit("row", dtype=dtype, operation=operation, size=size, seconds=seconds, work=work(instrument, operation, size), reason=reason)


def prepared(instrument: Any, operation: str, size: int) -> Callable[[], Any]:
    if operation == "matmul":
        return instrument.matmul(instrument.random(size, size), instrument.random(size, size))
    if operation == "lu":
        return instrument.lu(instrument.random(size, size))
    if operation == "triad":
        return instrument.triad(instrument.random(size), instrument.random(size))
    if operation == "to_device":
        return instrument.to_device(np.ones(size))
    if operation == "to_host":
        return instrument.to_host(instrument.random(size))
    return instrument.add_one(instrument.random(size))


def work(instrument: Any, operation: str, size: int) -> float:
    """Of one call: floating-point operations of a product (2 n^3) or an LU decomposition (2/3 n^3), bytes moved, or 1 call."""
    if operation == "matmul":
        return 2.0 * size**3
    if operation == "lu":
        return 2.0 / 3.0 * size**3
    width = {"float64": 8.0, "float32": 4.0, "bfloat16": 2.0}[instrument.dtype]
    return {"triad": width * size * instrument.triad_arrays, "to_device": 8.0 * size, "to_host": width * size}.get(operation, 1.0)


def per_call(instrument: Any, call: Callable[[], Any]) -> float:
    """Median over rounds of seconds a call, after one call that does not count; as many calls a round as the clock needs.

    A call that takes longer than LIMIT_S is called no more.
    """
    calls, seconds = 1, 0.0
    instrument.wait(call())
    while (seconds := once(instrument, call, calls)) < ROUND_S:
        calls = max(2 * calls, int(calls * min(1.2 * ROUND_S / max(seconds, 1e-9), 100)))
    if seconds > LIMIT_S:
        return seconds / calls
    return median(once(instrument, call, calls) for _ in range(ROUNDS)) / calls


def once(instrument: Any, call: Callable[[], Any], calls: int) -> float:
    start, result = perf_counter(), None
    for _ in range(calls):
        result = call()
    instrument.wait(result)
    return perf_counter() - start
