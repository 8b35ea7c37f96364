"""What does float32 determine of a training? Entries that rounding alone moves say nothing about an implementation.

Adam divides each gradient by its own size, so an entry that is nothing but rounding still moves by the learning rate, and a relu may
fall on either side of its tie. So the float64 reference is trained several times more, with parameters and data rounded anew, by chance,
before each gradient. An entry that then differs by a quarter of the gate is left out of the comparison: of the parameters, of Adam's
moments and of the gradients.
"""

from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np

from harness.verify import oracle
from harness.verify.compare import Comparisons
from impls import Model
from impls.surface import Arrays
from specs import Spec, parameters

ROUNDING = 2.0**-21  # 4 times the unit roundoff of float32: what a sum over a batch accumulates
DISTURBED = 10  # runs: a relu at a tie flips in one of two, so all of them miss it once in a thousand times
LEAST_STEPS, LEAST_SHARE = 10, 0.98  # of steps, and of a part's entries, that float32 must determine
PARTS = ("gradient", "parameter", "m", "v")  # what rounding may move
Masks = dict[str, Arrays]  # {part: {name: which entries}}


def enough(mask: Arrays) -> bool:
    return sum(m.sum() for m in mask.values()) >= LEAST_SHARE * sum(m.size for m in mask.values())


def kept(values: Arrays, mask: Arrays) -> Arrays:
    """The values with 0 wherever float32 does not determine them; all of them where it determines too few, and whatever is not finite."""
    if not enough(mask):
        return values
    return {name: np.where(mask[name] | ~np.isfinite(value), value, 0) for name, value in values.items()}


class Determined:
    """Compares what float32 determines after each of a few steps; in float64, all.

    `reference`, whose state is used up, is only run if there is need.
    """

    def __init__(self, spec: Spec, reference: Model, batches: Iterable[Arrays], dtype: str):
        self.source, self.dtype = (spec, reference, batches), dtype

    @cached_property
    def steps(self) -> list[Masks]:
        return [masks for _, masks in disturbed(*self.source, np.random.default_rng([self.source[0].seed, 8]))]

    def closes(self, record: Comparisons, what: str, got: Arrays, expected: Arrays, gate: float, step: int, part: str) -> None:
        """`record.closes`; where not all of it is close, of what float32 determines of this part at this step (-1: the last)."""
        plain = Comparisons()
        plain.closes(what, got, expected, gate)
        if self.dtype == "float32" and not all(one.passed for one in plain.made) and sorted(got) == sorted(expected):
            mask = self.steps[step][part]
            got, expected = kept(got, mask), kept(expected, mask)
        record.closes(what, got, expected, gate)


def determined(spec: Spec, reference: Model, batches: Iterable[Arrays], draw: np.random.Generator) -> tuple[int, Arrays, Arrays]:
    """(steps, parameters, {name: which entries}): the most steps after which float32 still determines LEAST_SHARE of all entries."""
    start = parameters.initial(spec, "float32")
    good = (0, start, {name: np.ones(value.shape, bool) for name, value in start.items()})
    for step, (p, masks) in enumerate(disturbed(spec, reference, batches, draw, ("parameter",)), 1):
        if not enough(masks["parameter"]):
            return good
        good = (step, p, masks["parameter"])
    return good


def disturbed(
    spec: Spec, reference: Model, batches: Iterable[Arrays], draw: np.random.Generator, of: tuple[str, ...] = PARTS
) -> Iterator[tuple[Arrays, Masks]]:
    """After each step: the float64 reference's parameters, and which entries of these parts float32 determines.

    Uses up the state of `reference`.
    """
    start, gates = parameters.initial(spec, "float32"), spec.gates
    straight, *others = [oracle.Adam(spec, start) for _ in range(1 + DISTURBED)]
    noise = ROUNDING * draw.standard_normal(1 << 20)

    def rounded(arrays: Arrays, *key: int) -> Arrays:
        """Other noise for each step, run and array; slices of one draw, since drawing takes longer than training."""
        at = [int(k) for k in np.random.default_rng(key).integers(0, noise.size // 2, len(arrays))]
        return {name: a * (1 + np.resize(noise[i:], a.shape)) for (name, a), i in zip(arrays.items(), at, strict=True)}

    def parts(adam: oracle.Adam, gradient: Arrays) -> Masks:
        found = {"gradient": gradient, "parameter": adam.p, "m": adam.m, "v": adam.v}
        return {part: found[part] for part in of}

    for step, batch in enumerate(batches):
        reference.set_parameters(straight.p)
        gradient = reference.gradients(batch)
        straight.step(gradient)
        exact = parts(straight, gradient)
        apart = {part: {name: np.zeros(value.shape) for name, value in arrays.items()} for part, arrays in exact.items()}
        for k, adam in enumerate(others):
            reference.set_parameters(rounded(adam.p, step, k, 0))
            gradient = rounded(reference.gradients(rounded(batch, step, k, 1)), step, k, 2)
            adam.step(gradient)
            for part, arrays in parts(adam, gradient).items():
                for name, value in arrays.items():
                    np.maximum(apart[part][name], np.abs(value - exact[part][name]), out=apart[part][name])
        masks = {}
        for part, gaps in apart.items():
            gate = gates.gradients_float32 if part == "gradient" else gates.parameters_float32
            masks[part] = {name: gap <= gate / 4 * np.abs(exact[part][name]).max() for name, gap in gaps.items()}
        yield dict(straight.p), masks
