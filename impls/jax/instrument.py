"""JAX on the card."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from impls.instrument import Base


class Instrument(Base):
    def __init__(self, device: str, dtype: str):
        super().__init__(device, dtype)
        self.to = jax.devices("gpu" if device == "cuda" else device)[0]
        jax.config.update("jax_enable_x64", dtype == "float64")
        jax.config.update("jax_default_matmul_precision", "highest" if dtype != "bfloat16" else "default")

    def random(self, *shape: int) -> Any:
        host = np.random.default_rng(0).standard_normal(shape)
        return jax.device_put(jnp.asarray(host, getattr(jnp, self.dtype)), self.to)

    def matmul(self, a: Any, b: Any) -> Callable:
        compiled = jax.jit(lambda a, b: a @ b)
        return lambda: compiled(a, b)

    def lu(self, a: Any) -> Callable:
        compiled = jax.jit(jax.scipy.linalg.lu_factor)
        return lambda: compiled(a)

    def triad(self, a: Any, b: Any) -> Callable:
        compiled = jax.jit(lambda a, b: a + 3 * b)
        return lambda: compiled(a, b)

    def add_one(self, x: Any) -> Callable:
        compiled = jax.jit(lambda x: x + 1)
        return lambda: compiled(x)

    def to_device(self, host: np.ndarray) -> Callable:
        return lambda: jax.device_put(host, self.to)

    def to_host(self, array: Any) -> Callable:
        return lambda: np.array(array + 0)  # API: an array keeps its copy on the host, so each time a new one

    def wait(self, result: Any) -> None:
        jax.block_until_ready(result)
