"""Canonical parameter names, shapes and initial values, as NumPy arrays."""

import numpy as np

from specs.schema import Spec


def layers(spec: Spec) -> list[tuple[str, int, int]]:
    """(name, d_in, d_out) of every dense layer, in canonical order. Empty for PCA."""
    d_x, d_z, hidden = spec.d_x, spec.d_z, spec.hidden
    if spec.model == "pca":
        return []
    if spec.model == "linear_ae":
        return [("z", d_x, d_z), ("x_hat", d_z, d_x)]
    heads = ["mu", "logvar"] if spec.model == "vae" else ["z"]
    return [
        *_stack("encoder", (d_x, *hidden)),
        *[(head, spec.d_h, d_z) for head in heads],
        *_stack("decoder", (d_z, *reversed(hidden))),
        ("logits", spec.d_g, d_x),
    ]


def _stack(name: str, sizes: tuple[int, ...]) -> list[tuple[str, int, int]]:
    return [(f"{name}.{i}", sizes[i], sizes[i + 1]) for i in range(len(sizes) - 1)]


def shapes(spec: Spec) -> dict[str, tuple[int, ...]]:
    """{name: shape} in canonical order: `encoder.0.w (d_in, d_out)`, `encoder.0.b (d_out,)`."""
    if spec.model == "pca":
        return {"mean": (spec.d_x,), "components": (spec.d_z, spec.d_x), "explained_variance": (spec.d_z,)}
    return {f"{name}.{part}": shape for name, d_in, d_out in layers(spec) for part, shape in (("w", (d_in, d_out)), ("b", (d_out,)))}


def initial(spec: Spec, dtype: str = "float64") -> dict[str, np.ndarray]:
    """Initial values: weights by Glorot & Bengio 2010 (eq. 16), biases uniform within 1/sqrt(d_in).

    Biases are not zero, so that an implementation that forgets one is found at the first step.
    PCA has nothing to initialise; its parameters are what `fit` finds.
    """
    rng = np.random.default_rng([spec.seed, 0])
    values = {}
    for name, d_in, d_out in layers(spec):
        bound = np.sqrt(6 / (d_in + d_out))
        values[f"{name}.w"] = rng.uniform(-bound, bound, (d_in, d_out)).astype(dtype)
        values[f"{name}.b"] = rng.uniform(-1, 1, d_out).astype(dtype) / np.asarray(np.sqrt(d_in), dtype)
    return values
