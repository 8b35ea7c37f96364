"""Bare PyTorch: nn.Linear, autograd, fused Adam, no compilation."""

import torch
import torch.nn.functional as F
from torch import nn

LAYERS = ("encoder.0", "mu", "logvar", "decoder.0", "logits")


class Bare:
    def __init__(self, parameters, x, steps, seed, adam):
        self.x, self.steps = torch.tensor(x), steps
        self.generator = torch.Generator().manual_seed(seed)
        self.layers = nn.ModuleList(nn.Linear(*parameters[f"{name}.w"].shape, dtype=self.x.dtype) for name in LAYERS)
        with torch.no_grad():
            for name, layer in zip(LAYERS, self.layers, strict=True):
                layer.weight.copy_(torch.tensor(parameters[f"{name}.w"].T))
                layer.bias.copy_(torch.tensor(parameters[f"{name}.b"]))
        betas = (adam.beta1, adam.beta2)
        self.optimizer = torch.optim.Adam(self.layers.parameters(), lr=adam.learning_rate, betas=betas, eps=adam.epsilon, fused=True)

    def step(self, eps):
        encoder, to_mu, to_logvar, decoder, to_logits = self.layers
        h = F.relu(encoder(self.x))
        mu, logvar = to_mu(h), to_logvar(h)
        logits = to_logits(F.relu(decoder(mu + torch.exp(0.5 * logvar) * eps)))
        nll = F.binary_cross_entropy_with_logits(logits, self.x, reduction="sum")
        kl = 0.5 * torch.sum(torch.exp(logvar) + mu**2 - 1.0 - logvar)
        value = (nll + kl) / self.x.shape[0]
        self.optimizer.zero_grad()
        value.backward()
        self.optimizer.step()
        return value.detach()

    def run(self):
        n, d_z = self.x.shape[0], self.layers[1].out_features
        self.losses = [self.step(torch.randn(n, d_z, generator=self.generator, dtype=self.x.dtype)) for _ in range(self.steps)]

    def block(self):
        pass  # on a CPU, PyTorch has returned only when it is done

    def train(self, noise):
        return torch.stack([self.step(torch.tensor(eps)) for eps in noise]).numpy()

    def parameters(self):
        found = {}
        for name, layer in zip(LAYERS, self.layers, strict=True):
            found |= {f"{name}.w": layer.weight.detach().numpy().T, f"{name}.b": layer.bias.detach().numpy()}
        return found


class Products:
    """The step's matrix products alone."""

    def __init__(self, pairs, steps):
        self.pairs, self.steps = [(torch.tensor(a), torch.tensor(b)) for a, b in pairs], steps

    def run(self):
        for _ in range(self.steps):
            self.out = [a @ b for a, b in self.pairs]

    def block(self):
        pass


def fit_parts(x, d_z):
    """{what: a call of it}, of a PCA by the covariance."""
    x = torch.tensor(x)
    covariance = x.T @ x
    return {"product: mm": lambda: x.T @ x, "eigenvectors: all": lambda: torch.linalg.eigh(covariance)}
