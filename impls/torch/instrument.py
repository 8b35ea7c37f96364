"""PyTorch on the card."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from impls.instrument import Base


class Instrument(Base):
    def __init__(self, device: str, dtype: str):
        super().__init__(device, dtype)
        torch.set_float32_matmul_precision("highest")

    def random(self, *shape: int) -> Any:
        return torch.randn(shape, device=self.device).to(getattr(torch, self.dtype))

    def matmul(self, a: Any, b: Any) -> Callable:
        out = torch.empty((a.shape[0], b.shape[1]), dtype=a.dtype, device=a.device)
        return lambda: torch.matmul(a, b, out=out)

    def lu(self, a: Any) -> Callable:
        return lambda: torch.linalg.lu_factor(a)

    def triad(self, a: Any, b: Any) -> Callable:
        out = torch.empty_like(a)
        return lambda: torch.add(a, b, alpha=3, out=out)

    def add_one(self, x: Any) -> Callable:
        return lambda: x + 1

    def to_device(self, host: np.ndarray) -> Callable:
        source = torch.from_numpy(host)
        return lambda: source.to(self.device)

    def to_host(self, array: Any) -> Callable:
        return lambda: array.cpu()

    def wait(self, result: Any) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()
