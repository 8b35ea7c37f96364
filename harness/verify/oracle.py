"""The specs' mathematics a second time, sharing no code with `impls`: what the NumPy reference itself is checked against.

Every function takes complex parameters. A step h = 1e-30 along the imaginary axis gives the derivative to full precision
(Squire & Trapp 1998). Where a form is not analytic (relu, the branches of softplus) the branch is taken on the real part,
which makes the complex number a dual number, a + b h with h^2 = 0 to rounding.
"""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from scipy.special import erf

from specs import Spec

H = 1e-30
Arrays = dict[str, np.ndarray]


def _softplus(x: np.ndarray) -> np.ndarray:
    big = x.real > 0
    return np.where(big, x, 0) + np.log1p(np.exp(np.where(big, -x, x)))


def _gelu(x: np.ndarray) -> np.ndarray:
    u = x / np.sqrt(2)
    cdf = erf(u.real) + 1j * u.imag * 2 / np.sqrt(np.pi) * np.exp(-(u.real**2))  # dual number
    return x / 2 * (1 + cdf)


ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "identity": lambda x: x,
    "relu": lambda x: np.where(x.real > 0, x, 0),
    "tanh": np.tanh,
    "softplus": _softplus,
    "gelu": _gelu,
}


def _layers(spec: Spec, p: Mapping[str, np.ndarray], stack: str, h: np.ndarray) -> np.ndarray:
    for i in range(len(spec.hidden)):
        h = ACTIVATIONS[spec.activation](h @ p[f"{stack}.{i}.w"] + p[f"{stack}.{i}.b"])
    return h


def encode(spec: Spec, p: Mapping[str, np.ndarray], x: np.ndarray) -> Arrays:
    """{"z": (n, d_z)} or {"mu": ..., "logvar": ...}, complex."""
    heads = ("mu", "logvar") if spec.model == "vae" else ("z",)
    h = _layers(spec, p, "encoder", x + 0j)
    return {head: h @ p[f"{head}.w"] + p[f"{head}.b"] for head in heads}


def decode(spec: Spec, p: Mapping[str, np.ndarray], z: np.ndarray) -> np.ndarray:
    """Logits (n, d_x), complex; for the linear autoencoder x_hat itself."""
    last = "x_hat" if spec.model == "linear_ae" else "logits"
    return _layers(spec, p, "decoder", z + 0j) @ p[f"{last}.w"] + p[f"{last}.b"]


def x_hat(spec: Spec, p: Mapping[str, np.ndarray], z: np.ndarray) -> np.ndarray:
    """Mean in data space (n, d_x)."""
    logits = decode(spec, p, z).real
    bernoulli = spec.likelihood == "bernoulli" and spec.model != "linear_ae"
    return np.exp(-_softplus(-logits)) if bernoulli else logits


def terms(spec: Spec, p: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray]) -> Arrays:
    """Complex terms per example, (n,) each."""
    p = {name: np.asarray(value, complex) for name, value in p.items()}
    x, found = batch["x"], {}
    code = encode(spec, p, x)
    if spec.model == "vae":
        mu, logvar = code["mu"], code["logvar"]
        z = mu + np.sqrt(np.exp(logvar)) * batch["eps"]
        found["kl"] = ((np.exp(logvar) - 1 - logvar) / 2 + mu * mu / 2).sum(1)
    else:
        z = code["z"]
    logits = decode(spec, p, z)
    if spec.model == "linear_ae":
        found["reconstruction"] = ((logits - x) ** 2).sum(1)
    elif spec.likelihood == "bernoulli":  # -x log s(l) - (1-x) log s(-l)
        found["reconstruction"] = (x * _softplus(-logits) + (1 - x) * _softplus(logits)).sum(1)
    else:
        v = spec.variance
        found["reconstruction"] = ((logits - x) ** 2).sum(1) / (2 * v) + x.shape[1] / 2 * np.log(2 * np.pi * v)
    return found


def loss(spec: Spec, p: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray]) -> complex:
    found = terms(spec, p, batch)
    total = found["reconstruction"].sum() + (spec.beta * found["kl"].sum() if "kl" in found else 0)
    return total / len(batch["x"])


def gradients(spec: Spec, p: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray], sample: int | None = None, seed: int = 0) -> Arrays:
    """{name: gradient}, one complex step per entry; NaN in the entries left out where `sample` limits them per tensor."""
    rng = np.random.default_rng(seed)
    moved = {name: np.array(value, complex) for name, value in p.items()}
    found = {}
    for name, value in moved.items():
        gradient = np.full(value.shape, np.nan)
        chosen = np.arange(value.size) if sample is None or value.size <= sample else rng.choice(value.size, sample, replace=False)
        for k in chosen:
            where = np.unravel_index(k, value.shape)
            value[where] += 1j * H
            gradient[where] = loss(spec, moved, batch).imag / H
            value[where] = value[where].real
        found[name] = gradient
    return found


def slope(
    spec: Spec, p: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray], direction: Mapping[str, np.ndarray]
) -> tuple[float, float]:
    """(loss, derivative of the loss along `direction`), by one complex step."""
    value = loss(spec, {name: p[name] + 1j * H * direction[name] for name in p}, batch)
    return value.real, value.imag / H


class Adam:
    """Kingma & Ba 2015, Algorithm 1, as printed."""

    def __init__(self, spec: Spec, p: Mapping[str, np.ndarray]):
        self.spec, self.t = spec.optimizer, 0
        self.p = {name: np.array(value, np.float64) for name, value in p.items()}
        self.m = {name: np.zeros_like(value) for name, value in self.p.items()}
        self.v = {name: np.zeros_like(value) for name, value in self.p.items()}

    def step(self, g: Mapping[str, np.ndarray]) -> None:
        s = self.spec
        self.t += 1
        for name in self.p:
            gradient = np.asarray(g[name], np.float64)
            self.m[name] = s.beta1 * self.m[name] + (1 - s.beta1) * gradient
            self.v[name] = s.beta2 * self.v[name] + (1 - s.beta2) * gradient * gradient
            rate = s.learning_rate / (1 - s.beta1**self.t)
            self.p[name] = self.p[name] - rate * self.m[name] / (np.sqrt(self.v[name] / (1 - s.beta2**self.t)) + s.epsilon)


def tape(spec: Spec, p: Mapping[str, np.ndarray], steps: int, dtype: str, seed: int = 0) -> Iterable[Arrays]:
    """Gradients of `steps` steps on many scales, some entries exactly zero, to drive an optimizer alone."""
    rng = np.random.default_rng([seed, 5])
    scale = {name: 10.0 ** rng.uniform(-6, 2, np.shape(value)) for name, value in p.items()}
    for _ in range(steps):
        yield {name: (s * rng.standard_normal(s.shape) * (rng.random(s.shape) > 0.1)).astype(dtype) for name, s in scale.items()}
