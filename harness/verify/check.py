"""What a check is, and the list of all of them. A check compares; the ladder runs it and judges."""

from collections.abc import Callable
from dataclasses import dataclass

from harness.verify.context import Context
from specs import Spec
from specs.parameters import shapes

LEVELS = ("quick", "ci", "report")
BOTH = ("float32", "float64")


@dataclass(frozen=True)
class Check:
    number: int  # of DESIGN's ladder; the README lists them
    name: str
    run: Callable[[Context], None]
    count: Callable[[Context], int]  # how many comparisons it must make; another number fails
    cause: str  # the likely cause of a failure, for people
    dtypes: tuple[str, ...] = ("float64",)
    levels: tuple[str, ...] = LEVELS
    reason: Callable[[Context], str | None] = lambda c: None  # why it does not apply


CHECKS: list[Check] = []


def check(number: int, name: str, *, count: Callable[[Context], int], cause: str, **options) -> Callable:
    """Register the decorated function as a check."""

    def register(function: Callable[[Context], None]) -> Callable[[Context], None]:
        CHECKS.append(Check(number, name, function, count, cause, **options))
        return function

    return register


def trained(c: Context) -> str | None:
    return None if c.spec.trains else "PCA is fitted in closed form; check 12 holds it against LAPACK"


def n_terms(spec: Spec) -> int:
    return 2 if spec.model == "vae" else 1


def n_tensors(spec: Spec) -> int:
    return len(shapes(spec))
