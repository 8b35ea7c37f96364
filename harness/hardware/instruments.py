"""The same few operations in each framework, as bare as it gets. An instrument makes arrays and returns functions to be timed.

random       shape           -> array on the device, standard normal
matmul       a, b            -> a @ b
lu           a               -> LU decomposition with partial pivoting
triad        a, b            -> a + 3 b, and how many arrays of that size pass through memory (McCalpin 1995)
add_one      x               -> x + 1, of one element: what a call costs
to_device    NumPy array     -> array on the device
to_host      array           -> NumPy array
wait         result          -> None, when the device is done
"""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

DTYPES = ("float64", "float32", "bfloat16")


class Instrument:
    device = "cpu"
    dtype: str
    triad_arrays = 3  # two are read, one is written

    def __init__(self, device: str, dtype: str):
        self.device, self.dtype = device, dtype

    def reason_against(self, operation: str) -> str | None:
        """Why this dtype cannot do an operation here."""
        if self.dtype == "bfloat16" and operation != "matmul":
            return "bfloat16 is for products"
        if operation in ("to_device", "to_host") and self.device == "cpu":
            return "on a CPU the device is the host"
        return None

    def wait(self, result: Any) -> None:
        pass


class NumPy(Instrument):
    triad_arrays = 5  # a product and a sum: NumPy does not fuse them

    def reason_against(self, operation: str) -> str | None:
        return "NumPy has no bfloat16" if self.dtype == "bfloat16" else super().reason_against(operation)

    def random(self, *shape: int) -> np.ndarray:
        return np.random.default_rng(0).standard_normal(shape).astype(self.dtype)

    def matmul(self, a: np.ndarray, b: np.ndarray) -> Callable:
        out = np.empty((a.shape[0], b.shape[1]), a.dtype)
        return lambda: np.matmul(a, b, out=out)

    def lu(self, a: np.ndarray) -> Callable:
        from scipy.linalg import lu_factor

        return lambda: lu_factor(a, check_finite=False)

    def triad(self, a: np.ndarray, b: np.ndarray) -> Callable:
        out, three = np.empty_like(a), a.dtype.type(3)

        def run() -> np.ndarray:
            np.multiply(b, three, out=out)
            return np.add(a, out, out=out)

        return run

    def add_one(self, x: np.ndarray) -> Callable:
        return lambda: x + x.dtype.type(1)


class Torch(Instrument):
    def __init__(self, device: str, dtype: str):
        import torch

        super().__init__(device, dtype)
        self.torch = torch
        torch.set_float32_matmul_precision("highest")

    def random(self, *shape: int) -> Any:
        return self.torch.randn(shape, device=self.device).to(getattr(self.torch, self.dtype))

    def matmul(self, a: Any, b: Any) -> Callable:
        out = self.torch.empty((a.shape[0], b.shape[1]), dtype=a.dtype, device=a.device)
        return lambda: self.torch.matmul(a, b, out=out)

    def lu(self, a: Any) -> Callable:
        return lambda: self.torch.linalg.lu_factor(a)

    def triad(self, a: Any, b: Any) -> Callable:
        out = self.torch.empty_like(a)
        return lambda: self.torch.add(a, b, alpha=3, out=out)

    def add_one(self, x: Any) -> Callable:
        return lambda: x + 1

    def to_device(self, host: np.ndarray) -> Callable:
        source = self.torch.from_numpy(host)
        return lambda: source.to(self.device)

    def to_host(self, array: Any) -> Callable:
        return lambda: array.cpu()

    def wait(self, result: Any) -> None:
        if self.device == "cuda":
            self.torch.cuda.synchronize()


class Jax(Instrument):
    def __init__(self, device: str, dtype: str):
        import jax

        super().__init__(device, dtype)
        self.jax, self.to = jax, jax.devices("gpu" if device == "cuda" else device)[0]
        jax.config.update("jax_enable_x64", dtype == "float64")
        jax.config.update("jax_default_matmul_precision", "highest" if dtype != "bfloat16" else "default")

    def random(self, *shape: int) -> Any:
        host = np.random.default_rng(0).standard_normal(shape)
        return self.jax.device_put(self.jax.numpy.asarray(host, getattr(self.jax.numpy, self.dtype)), self.to)

    def matmul(self, a: Any, b: Any) -> Callable:
        compiled = self.jax.jit(lambda a, b: a @ b)
        return lambda: compiled(a, b)

    def lu(self, a: Any) -> Callable:
        compiled = self.jax.jit(self.jax.scipy.linalg.lu_factor)
        return lambda: compiled(a)

    def triad(self, a: Any, b: Any) -> Callable:
        compiled = self.jax.jit(lambda a, b: a + 3 * b)
        return lambda: compiled(a, b)

    def add_one(self, x: Any) -> Callable:
        compiled = self.jax.jit(lambda x: x + 1)
        return lambda: compiled(x)

    def to_device(self, host: np.ndarray) -> Callable:
        return lambda: self.jax.device_put(host, self.to)

    def to_host(self, array: Any) -> Callable:
        return lambda: np.array(array + 0)  # API: an array keeps its copy on the host, so each time a new one

    def wait(self, result: Any) -> None:
        self.jax.block_until_ready(result)


class TensorFlow(Instrument):
    triad_arrays = 5  # a product and a sum

    def __init__(self, device: str, dtype: str):
        import tensorflow as tf

        super().__init__(device, dtype)
        self.tf, self.place = tf, "GPU:0" if device == "cuda" else "CPU:0"
        with suppress(RuntimeError):  # fixed at TensorFlow's first operation
            tf.config.threading.set_intra_op_parallelism_threads(int(os.environ.get("OMP_NUM_THREADS", "0")))  # 0: its own choice
        tf.config.experimental.enable_tensor_float_32_execution(False)

    def random(self, *shape: int) -> Any:
        with self.tf.device(self.place):
            return self.tf.cast(self.tf.random.normal(shape, seed=0), self.dtype)

    def _compiled(self, function: Callable, *arrays: Any) -> Callable:
        compiled = self.tf.function(function)

        def run() -> Any:
            with self.tf.device(self.place):
                return compiled(*arrays)

        return run

    def matmul(self, a: Any, b: Any) -> Callable:
        return self._compiled(self.tf.matmul, a, b)

    def lu(self, a: Any) -> Callable:
        return self._compiled(self.tf.linalg.lu, a)

    def triad(self, a: Any, b: Any) -> Callable:
        return self._compiled(lambda a, b: a + 3 * b, a, b)

    def add_one(self, x: Any) -> Callable:
        return self._compiled(lambda x: x + 1, x)

    def to_device(self, host: np.ndarray) -> Callable:
        def run() -> Any:
            with self.tf.device(self.place):
                return self.tf.identity(host)

        return run

    def to_host(self, array: Any) -> Callable:
        return lambda: array.numpy()

    def wait(self, result: Any) -> None:
        if self.device == "cuda":
            self.tf.test.experimental.sync_devices()


INSTRUMENTS: dict[str, type[Instrument]] = {"numpy": NumPy, "torch": Torch, "jax": Jax, "keras-tensorflow": TensorFlow}
