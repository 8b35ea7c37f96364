"""Do two runs put the implementations in the same order? Kendall's tau (Biometrika 1938), over what at least one of them tells apart."""

from dataclasses import dataclass
from pathlib import Path

from harness.bench.ratios import GROUP, ratios

TOLD = ("faster", "slower")


@dataclass(frozen=True)
class Order:
    """Of pairs of implementations at the same work. `tau`: (agreed - reversed) / both; None where neither run tells any pair apart."""

    tau: float | None
    agreed: int
    reversed: list[str]  # in words
    left_out: int  # equal within noise in both, or not told apart in either

    def __str__(self) -> str:
        if self.tau is None:
            return "rank order: neither run tells two implementations apart"
        told = self.agreed + len(self.reversed)
        return "\n".join([f"rank order: Kendall's tau {self.tau:.3f} over {told} pairs told apart, {self.left_out} others", *self.reversed])


def order(one: Path, two: Path) -> Order:
    """Of two journals: what both have measured, in the same group, of the same two implementations."""
    import pandas as pd

    key = [*GROUP, "base", "implementation"]
    both = pd.merge(ratios(one), ratios(two), on=key, suffixes=("_one", "_two"))
    told = both[both.verdict_one.isin(TOLD) | both.verdict_two.isin(TOLD)]
    turned = told[(told.ratio_one > 1) != (told.ratio_two > 1)]
    agreed = len(told) - len(turned)
    words = [
        f"  {row.spec} {row.operation} at {row.batch_size}: {row.implementation} over {row.base} "
        f"{row.ratio_one:.3g} ({row.text_one}), then {row.ratio_two:.3g} ({row.text_two})"
        for row in turned.itertuples()
    ]
    return Order((agreed - len(turned)) / len(told) if len(told) else None, agreed, words, len(both) - len(told))
