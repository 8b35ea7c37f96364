"""What does float32 determine of a training? Entries that rounding alone moves say nothing about an implementation.

Adam divides each gradient by its own size, so an entry that is nothing but rounding still moves by the learning rate, and a relu may
fall on either side of its tie. So the float64 reference is trained several times more, with parameters and data rounded anew, by chance,
before each gradient. An entry that then differs by a quarter of the gate is left out of the comparison.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from harness.verify import oracle
from impls import Model
from impls.surface import Arrays
from specs import Spec, parameters

ROUNDING = 2.0**-21  # 4 times the unit roundoff of float32: what a sum over a batch accumulates
DISTURBED = 10  # runs: a relu at a tie flips in one of two, so all of them miss it once in a thousand times
LEAST_STEPS, LEAST_SHARE = 10, 0.98  # of steps, and of parameters, that float32 must determine


def kept(values: Arrays, mask: Arrays) -> Arrays:
    """The values with 0 wherever float32 does not determine them; all of them where it determines too few, and whatever is not finite."""
    if sum(m.sum() for m in mask.values()) < LEAST_SHARE * sum(m.size for m in mask.values()):
        return values
    return {name: np.where(mask[name] | ~np.isfinite(value), value, 0) for name, value in values.items()}


def determined(spec: Spec, reference: Model, batches: Iterable[Arrays], draw: np.random.Generator) -> tuple[int, Arrays, Arrays]:
    """(steps, parameters, {name: which entries}): the most steps after which float32 still determines LEAST_SHARE of all entries."""
    start = parameters.initial(spec, "float32")
    good = (0, start, {name: np.ones(value.shape, bool) for name, value in start.items()})
    for step, (p, mask) in enumerate(disturbed(spec, reference, batches, draw), 1):
        if sum(m.sum() for m in mask.values()) < LEAST_SHARE * sum(m.size for m in mask.values()):
            return good
        good = (step, p, mask)
    return good


def disturbed(spec: Spec, reference: Model, batches: Iterable[Arrays], draw: np.random.Generator) -> Iterator[tuple[Arrays, Arrays]]:
    """After each step: the float64 reference's parameters, and which entries float32 determines. Uses up the state of `reference`."""
    start, gate = parameters.initial(spec, "float32"), spec.gates.parameters_float32
    straight, *others = [oracle.Adam(spec, start) for _ in range(1 + DISTURBED)]
    noise = ROUNDING * draw.standard_normal(1 << 20)

    def rounded(arrays: Arrays, *key: int) -> Arrays:
        """Other noise for each step, run and array; slices of one draw, since drawing takes longer than training."""
        at = [int(k) for k in np.random.default_rng(key).integers(0, noise.size // 2, len(arrays))]
        return {name: a * (1 + np.resize(noise[i:], a.shape)) for (name, a), i in zip(arrays.items(), at, strict=True)}

    for step, batch in enumerate(batches):
        reference.set_parameters(straight.p)
        straight.step(reference.gradients(batch))
        mask = {}
        for k, adam in enumerate(others):
            reference.set_parameters(rounded(adam.p, step, k, 0))
            adam.step(rounded(reference.gradients(rounded(batch, step, k, 1)), step, k, 2))
        for name, value in straight.p.items():
            apart = np.max([np.abs(adam.p[name] - value) for adam in others], axis=0)
            mask[name] = apart <= gate / 4 * np.abs(value).max()
        yield dict(straight.p), mask
