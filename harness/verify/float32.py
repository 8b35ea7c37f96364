"""What does float32 determine of a training? Entries that rounding alone moves say nothing about an implementation.

Adam divides each gradient by its own size, so an entry that is nothing but rounding still moves by the learning rate, and a relu may
fall on either side of its tie. So the float64 reference is trained several times more, with parameters and data rounded anew, by chance,
before each gradient. An entry that then differs by a quarter of the gate is left out of the comparison: of the parameters, of Adam's
moments, of the gradients and of the losses.

How much rounding: as much as makes the reference take every turn that some framework has been seen to take. XLA on a CPU rounds most:
with a quarter of OF_PRODUCTS, one of the seeds 100 to 104 of the spec "vae" has a tie that none of the disturbed runs falls over.
"""

from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np

from harness.verify import oracle
from harness.verify.checks_function import mean_loss
from harness.verify.compare import Comparisons
from impls import Model
from impls.surface import Arrays
from specs import Spec, parameters

UNIT = 2.0**-24  # the unit roundoff of float32
OF_PRODUCTS = 32 * UNIT  # as if done to parameters and data, of what follows from them: products, exp, log
OF_SUMS = 8 * UNIT  # what the sum over a batch accumulates, in gradients and losses
DISTURBED = 10  # runs: a relu at a tie flips in one of two, so all of them miss it once in a thousand times
LEAST_STEPS, LEAST_SHARE = 10, 0.98  # of steps, and of a part's entries, that float32 must determine
PARTS = ("loss", "gradient", "parameter", "m", "v")  # what rounding may move
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


def determined(spec: Spec, reference: Model, batches: Iterable[Arrays], draw: np.random.Generator) -> tuple[int, Arrays, Arrays, int]:
    """(steps, parameters, {name: which entries}, steps): the first steps after each of which float32 determines LEAST_SHARE of all
    parameters, these after the last of them, and the first steps whose losses it determines."""
    p = parameters.initial(spec, "float32")
    known, mask, losses = 0, {name: np.ones(value.shape, bool) for name, value in p.items()}, 0
    for step, (after, masks) in enumerate(disturbed(spec, reference, batches, draw, ("parameter", "loss")), 1):
        if known == step - 1 and enough(masks["parameter"]):
            known, p, mask = step, after, masks["parameter"]
        if losses == step - 1 and enough(masks["loss"]):
            losses = step
        if max(known, losses) < step:
            break
    return known, p, mask, losses


def disturbed(
    spec: Spec, reference: Model, batches: Iterable[Arrays], draw: np.random.Generator, of: tuple[str, ...] = PARTS
) -> Iterator[tuple[Arrays, Masks]]:
    """After each step: the float64 reference's parameters, and which entries of these parts float32 determines.

    Uses up the state of `reference`.
    """
    start, gates = parameters.initial(spec, "float32"), spec.gates
    straight, *others = [oracle.Adam(spec, start) for _ in range(1 + DISTURBED)]
    noise = draw.standard_normal(1 << 20)

    def rounded(arrays: Arrays, by: float, *key: int) -> Arrays:
        """Other noise for each step, run and array; slices of one draw, since drawing takes longer than training."""
        at = [int(k) for k in np.random.default_rng(key).integers(0, noise.size // 2, len(arrays))]
        return {name: a * (1 + by * np.resize(noise[i:], a.shape)) for (name, a), i in zip(arrays.items(), at, strict=True)}

    def stepped(adam: oracle.Adam, batch: Arrays, *key: int) -> Masks:
        """The parts after a step of `adam`; with a key, disturbed."""
        found: Masks = {}
        if "loss" in of:
            reference.set_parameters(adam.p)
            found["loss"] = {"loss": np.array([mean_loss(spec, reference.terms(batch))])}
        reference.set_parameters(rounded(adam.p, OF_PRODUCTS, *key, 0) if key else adam.p)
        found["gradient"] = reference.gradients(rounded(batch, OF_PRODUCTS, *key, 1) if key else batch)
        if key:
            found = {part: rounded(arrays, OF_SUMS, *key, 2) for part, arrays in found.items()}
        adam.step(found["gradient"])
        found |= {"parameter": adam.p, "m": adam.m, "v": adam.v}
        return {part: found[part] for part in of}

    for step, batch in enumerate(batches):
        exact = stepped(straight, batch)
        apart = {part: {name: np.zeros(value.shape) for name, value in arrays.items()} for part, arrays in exact.items()}
        for k, adam in enumerate(others):
            for part, arrays in stepped(adam, batch, step, k).items():
                for name, value in arrays.items():
                    np.maximum(apart[part][name], np.abs(value - exact[part][name]), out=apart[part][name])
        masks, gate = {}, {"gradient": gates.gradients_float32, "loss": gates.losses_float32}
        for part, gaps in apart.items():
            limit = gate.get(part, gates.parameters_float32) / 4
            masks[part] = {name: gap <= limit * np.abs(exact[part][name]).max() for name, gap in gaps.items()}
        yield dict(straight.p), masks
