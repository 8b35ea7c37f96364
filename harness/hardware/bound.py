"""No step is faster than its products at the machine's best rate, nor than its bytes at its best bandwidth (Williams et al. 2009).

FLOPs are counted from the spec's formulas: 2 n d_in d_out for a dense layer. Training takes two products more of each layer, for the
gradients of its weights and of its input; but those that read x need none of the latter. Activations, loss, optimizer and PCA's
eigenvectors are not counted. Bytes: the batch is read once; so is every parameter, and in training Adam's two moments, and all three
are written; but what the last cache can hold from step to step need not pass through memory. What is left out makes the bound lower,
never wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

from specs import Spec
from specs.parameters import layers

WIDTH = {"float64": 8, "float32": 4}


@dataclass(frozen=True)
class Bound:
    seconds: float  # a step
    by: str  # "compute" or "bandwidth"


def flops(spec: Spec, operation: str, n: int) -> float:
    """Of one step on n rows: multiplications and additions of its matrix products."""
    if operation == "fit":
        return float(n) * spec.d_x**2  # the covariance, of which half is redundant
    if spec.model == "pca":
        return 2.0 * n * spec.d_x * spec.d_z
    products = sum(d_in * d_out for d_in, d_out in sizes(spec, operation))
    if operation == "train":
        products = 3 * products - spec.d_x * sum(d_out for name, _, d_out in layers(spec) if reads_x(spec, name))
    return 2.0 * n * products


def moved(spec: Spec, operation: str, n: int, dtype: str) -> float:
    """Bytes of one step that must pass through memory if caches hold everything within a step and nothing from the one before."""
    if spec.model == "pca":
        parameters = spec.d_x * spec.d_z
    else:
        parameters = sum(d_in * d_out + d_out for d_in, d_out in sizes(spec, operation))
    rows = n * (spec.d_z if operation in ("decode", "generate") else spec.d_x)
    return float(WIDTH[dtype]) * (rows + parameters * (6 if operation == "train" else 1))


def sizes(spec: Spec, operation: str) -> list[tuple[int, int]]:
    """(d_in, d_out) of the layers that an operation runs through."""
    half = {"encode": True, "decode": False, "generate": False}
    return [(d_in, d_out) for name, d_in, d_out in layers(spec) if operation not in half or encodes(name) == half[operation]]


def encodes(layer: str) -> bool:
    return layer.startswith("encoder.") or layer in ("z", "mu", "logvar")


def reads_x(spec: Spec, layer: str) -> bool:
    return layer == "encoder.0" if spec.hidden else encodes(layer)


def peak(card: dict, operation: str, dtype: str | None = None) -> float | None:
    """The best that any framework has reached on the machine, at any size; None if nothing was measured."""
    rows = [row for row in card["rows"] if row["operation"] == operation and dtype in (None, row["dtype"]) and row["value"]]
    return max((row["value"] for row in rows), default=None)


def bound(card: dict, spec: Spec, operation: str, n: int, dtype: str) -> Bound | None:
    """The larger of both times; None where the card does not know the machine's rates."""
    rate, bandwidth, cache = peak(card, "matmul", dtype), peak(card, "triad"), card["cache_bytes"]
    if rate is None:
        return None
    compute = flops(spec, operation, n) / rate
    through = 0.0 if cache is None else max(0.0, moved(spec, operation, n, dtype) - cache)
    memory = through / bandwidth if bandwidth else 0.0
    return Bound(compute, "compute") if compute >= memory else Bound(memory, "bandwidth")
