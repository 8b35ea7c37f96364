"""The worker's side of verify: every check of a level, one after another, for one spec and one dtype."""

import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from harness.verify import checks_function, checks_training, checks_truth, relations  # noqa: F401 - they register their checks
from harness.verify.certificate import Result, certificate, judge
from harness.verify.check import CHECKS, Check
from harness.verify.compare import Comparisons
from harness.verify.context import Context
from impls import DeviceAbsent, Implementation, MissingFramework, Unsupported
from specs import Spec


def due(level: str, dtype: str) -> list[Check]:
    """The checks of a level for a dtype, by number."""
    return sorted((check for check in CHECKS if level in check.levels and dtype in check.dtypes), key=lambda check: check.number)


def handle(implementation: Implementation, request: dict, emit: Callable[..., None]) -> None:
    """Events: "begin" before and "check" after each check, then "certificate"."""
    spec = Spec.model_validate_json(request["spec"])
    context = Context(implementation, spec, request["dtype"], request["device"], request["precision"], request["level"])
    context.shelf = Path(request["shelf"]) if request.get("shelf") else None
    facts = context.build().facts()  # a missing framework or device is found here, before any check
    results = []
    for check in due(request["level"], request["dtype"]):
        emit("begin", number=check.number, name=check.name)
        result = perform(check, context)
        results.append(result)
        emit("check", **asdict(result))
    emit(
        "certificate",
        certificate=certificate(implementation, spec, context.dtype, context.device, context.precision, context.level, facts, results),
    )


def perform(check: Check, context: Context) -> Result:
    """Run one check. An exception inside it is a failure, not the end."""
    if reason := check.reason(context):
        return Result(check.number, check.name, "n-a", reason, 0)
    context.record = Comparisons()
    start = time.perf_counter()
    try:
        check.run(context)
    except (MissingFramework, DeviceAbsent, Unsupported, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever an implementation raises is its failure
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({where.filename.rsplit('/', 1)[-1]}:{where.lineno})"
        seconds = round(time.perf_counter() - start, 4)
        return Result(check.number, check.name, "fail", reason, len(context.record.made), cause=check.cause, seconds=seconds)
    return judge(check.number, check.name, check.cause, context.record.made, check.count(context), time.perf_counter() - start)
