"""What each implementation must reach, and whether it does: met, missed or cannot tell."""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.bench.statistics import Estimate

IMPLEMENTATIONS = ("numpy", "torch", "torch-compile", "jax", "jax-scan", "keras-jax", "keras-torch", "keras-tensorflow")


KINDS = ("pair", "harness", "worker", "command", "parent")  # of measurement: `page.HOW` says how


@dataclass(frozen=True)
class Criterion:
    """seconds of `new` over those of `base`, or seconds of `new` alone, must be `limit` at most (and `least` at least)."""

    new: str
    base: str | None
    limit: float
    text: str
    least: float = 0.0
    spec: str = "vae"
    kind: str = "pair"  # one of KINDS

    @property
    def name(self) -> str:
        return f"{self.new} / {self.base}" if self.base else self.new

    @property
    def steps(self) -> int:
        return 25 if self.spec == "vae" else 1

    @property
    def contestants(self) -> tuple[str, ...]:
        """Without what is done with them: "loop:jax / jax" is about jax."""
        return tuple(dict.fromkeys(part.rpartition(":")[2] for part in (self.new, self.base) if part))

    def concerns(self, implementations: tuple[str, ...]) -> bool:
        return not implementations or bool(set(self.contestants) & set(implementations))


AGREEMENT = 1.02  # of the harness's number and a loop by hand
CRITERIA = (
    Criterion("jax-scan", "bare:jax-scan", 1.10, "jax-scan against a bare scan"),
    Criterion("jax", "bare:jax", 1.10, "jax against a bare pytree and optax: none of NNX's overhead a step"),
    Criterion("keras-jax", "jax", 1.15, "keras-jax against jax"),
    Criterion("numpy", "products:numpy", 1.75, "numpy against its own matrix products alone"),
    Criterion("numpy", "torch", 1.00, "numpy faster than torch"),
    Criterion("torch", "bare:torch", 1.05, "torch against a bare eager step with fused Adam"),
    Criterion("torch-compile", "torch", 1.00, "torch-compile not slower than torch"),
    Criterion("keras-tensorflow", "bare:tensorflow", 1.10, "keras-tensorflow against a bare compiled step"),
    Criterion("keras-torch", "torch", 1.40, "keras-torch against torch"),
    *(Criterion(f"loop:{name}", name, 1.10, f"the loop around the step of {name}: data, noise, checks") for name in IMPLEMENTATIONS),
    Criterion("numpy", "bare:sklearn", 1.00, "numpy at or ahead of scikit-learn's covariance_eigh", spec="pca"),
    Criterion("torch", "numpy", 1.60, "torch against numpy", spec="pca"),
    Criterion("jax", "numpy", 1.60, "jax against numpy", spec="pca"),
    *(
        Criterion(
            f"harness:{name}", name, AGREEMENT, f"bench's number of {name} against the same loop by hand", 1 / AGREEMENT, kind="harness"
        )
        for name in IMPLEMENTATIONS
    ),
    *(
        Criterion(f"worker:{name}", name, AGREEMENT, f"the same of {name}, in processes of their own", 1 / AGREEMENT, kind="worker")
        for name in IMPLEMENTATIONS
    ),
    Criterion("isoform list", None, 0.3, "seconds of `isoform list`", kind="command"),
    Criterion("isoform --help", None, 0.2, "seconds of `isoform --help`", kind="command"),
    Criterion("parent", None, 0.01, "share of a core that bench takes while a worker is timed", kind="parent"),
)
FLOORS = ("products:numpy", "products:torch", "products:jax")  # shown beside the steps, judged by none


def judge(found: Estimate | None, limit: float, least: float = 0.0) -> str:
    """met: the whole interval is within the limits; missed: all of it is beyond one; else, and where there is no interval, cannot tell."""
    if found is None or math.isnan(found.low):
        return "cannot tell"
    if least <= found.low and found.high <= limit:
        return "met"
    return "missed" if found.low > limit or found.high < least else "cannot tell"
