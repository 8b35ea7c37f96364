"""Layers, activations and likelihoods, in PyTorch.

    Dense          x            -> y           y = x w + b
    MLP            x            -> h           Dense and activation, once per width
    bernoulli_nll  logits, x    -> (n,)        -log Bernoulli(x; sigmoid logits), nats, stable for large logits
    gaussian_nll   logits, x    -> (n,)        -log N(x; logits, variance), nats
    data_mean      logits       -> x_hat       the likelihood's mean
"""
import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor as Array
from torch import nn

from specs import Spec

ACTIVATIONS = {
    "identity": lambda x: x,
    "relu": F.relu,
    "tanh": torch.tanh,
    "softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)),  # API: F.softplus is linear above 20, off by 2e-9
    "gelu": F.gelu,  # API: exact (erf) by default
}


Dense = nn.Linear  # API: weight is (d_out, d_in), the transpose of w


class MLP(nn.Module):
    def __init__(self, d_in: int, widths: tuple[int, ...], activation: str):
        super().__init__()
        sizes = (d_in, *widths)
        self.layers = nn.ModuleList(Dense(sizes[i], sizes[i + 1]) for i in range(len(widths)))
        self.activation = ACTIVATIONS[activation]

    def forward(self, h: Float[Array, "n d_in"]) -> Float[Array, "n d_h"]:
        for layer in self.layers:
            h = self.activation(layer(h))
        return h


def bernoulli_nll(logits: Float[Array, "n d_x"], x: Float[Array, "n d_x"]) -> Float[Array, " n"]:
    return torch.sum(F.binary_cross_entropy_with_logits(logits, x, reduction="none"), dim=-1)  # API: one fused kernel


def gaussian_nll(logits: Float[Array, "n d_x"], x: Float[Array, "n d_x"], variance: float) -> Float[Array, " n"]:
    return 0.5 * torch.sum((x - logits) ** 2 / variance + math.log(2 * math.pi * variance), dim=-1)


def nll(spec: Spec, logits: Float[Array, "n d_x"], x: Float[Array, "n d_x"]) -> Float[Array, " n"]:
    return bernoulli_nll(logits, x) if spec.likelihood == "bernoulli" else gaussian_nll(logits, x, spec.variance)


def data_mean(spec: Spec, logits: Float[Array, "n d_x"]) -> Float[Array, "n d_x"]:
    return torch.sigmoid(logits) if spec.likelihood == "bernoulli" else logits
