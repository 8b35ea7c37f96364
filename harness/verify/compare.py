"""One comparison, and the list of them that a check makes. Nothing that is NaN, missing, empty or of another shape passes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Comparison:
    """`error` is max|got - expected| / max|expected| and must not exceed `gate`; an exact comparison has gate 0."""

    what: str
    error: float
    gate: float
    expected: str
    got: str

    @property
    def passed(self) -> bool:
        return self.error <= self.gate  # False for NaN

    @property
    def margin(self) -> float:
        """Error over gate: at most 1 passes."""
        if self.gate == 0:
            return 0.0 if self.error == 0 else float("inf")
        return self.error / self.gate


def error(got: ArrayLike, expected: ArrayLike, scale: float | None = None) -> float:
    """max|got - expected| / scale, where scale is max|expected| unless given. Infinite for anything that cannot be compared."""
    got, expected = np.asarray(got), np.asarray(expected)
    if got.shape != expected.shape or got.size == 0 or got.dtype.kind not in "fiub":
        return float("inf")
    if not (np.isfinite(got).all() and np.isfinite(expected).all()):
        return float("inf")
    difference = float(np.abs(got.astype(np.float64) - expected.astype(np.float64)).max())
    size = float(np.abs(expected).max()) if scale is None else scale
    if difference == 0:
        return 0.0
    return difference / size if size > 0 else float("inf")


@dataclass
class Comparisons:
    """Collects what a check compares."""

    made: list[Comparison] = field(default_factory=list)

    def close(self, what: str, got: ArrayLike, expected: ArrayLike, gate: float, scale: float | None = None) -> None:
        found = error(got, expected, scale)
        show = _worst(got, expected) if found > gate else ("", "")
        self.made.append(Comparison(what, found, gate, *show))

    def closes(self, what: str, got: Mapping, expected: Mapping, gate: float, floor: float = 0.0) -> None:
        """Each tensor of a dict; a missing or additional name fails. `floor`: smallest scale, relative to the largest tensor's."""
        self.same(f"{what}: names", sorted(got), sorted(expected))
        top = max((float(np.abs(value).max()) for value in expected.values() if np.size(value)), default=0.0)
        for name, value in expected.items():
            scale = max(float(np.abs(value).max()), floor * top) if floor else None
            self.close(f"{what} {name}", got.get(name, np.empty(0)), value, gate, scale)

    def same(self, what: str, got: object, expected: object) -> None:
        """Exact equality of plain values."""
        self.made.append(Comparison(what, 0.0 if got == expected else float("inf"), 0.0, str(expected), str(got)))

    def bitwise(self, what: str, got: ArrayLike, expected: ArrayLike) -> None:
        self.close(what, got, expected, 0.0)
        self.same(f"{what}: dtype", np.asarray(got).dtype.name, np.asarray(expected).dtype.name)

    def bitwises(self, what: str, got: Mapping, expected: Mapping) -> None:
        self.same(f"{what}: names", sorted(got), sorted(expected))
        for name, value in expected.items():
            self.bitwise(f"{what} {name}", got.get(name, np.empty(0)), value)

    def at_most(self, what: str, value: float, bound: float) -> None:
        """A one-sided bound, such as an excess over an optimum."""
        found = float(value) if np.isfinite(value) else float("inf")
        self.made.append(Comparison(what, max(found, 0.0), bound, f"at most {bound:.3g}", f"{value:.6g}"))


def _worst(got: ArrayLike, expected: ArrayLike) -> tuple[str, str]:
    """Expected and got, at the entry where they differ most."""
    got, expected = np.asarray(got), np.asarray(expected)
    if got.shape != expected.shape or got.size == 0:
        return f"shape {expected.shape}", f"shape {got.shape}"
    where = np.unravel_index(np.argmax(np.nan_to_num(np.abs(got - expected), nan=np.inf)), got.shape)
    at = f" at {tuple(int(i) for i in where)}" if where else ""
    return f"{expected[where]:.17g}{at}", f"{got[where]:.17g}{at}"
