"""TensorFlow on the card, as Keras' backend that has no folder of its own."""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import tensorflow as tf

from impls.instrument import Base


class Instrument(Base):
    triad_arrays = 5  # a product and a sum

    def __init__(self, device: str, dtype: str):
        super().__init__(device, dtype)
        self.place = "GPU:0" if device == "cuda" else "CPU:0"
        with suppress(RuntimeError):  # fixed at TensorFlow's first operation
            tf.config.threading.set_intra_op_parallelism_threads(int(os.environ.get("OMP_NUM_THREADS", "0")))  # 0: its own choice
        tf.config.experimental.enable_tensor_float_32_execution(False)

    def random(self, *shape: int) -> Any:
        with tf.device(self.place):
            return tf.cast(tf.random.normal(shape, seed=0), self.dtype)

    def _compiled(self, function: Callable, *arrays: Any) -> Callable:
        compiled = tf.function(function)

        def run() -> Any:
            with tf.device(self.place):
                return compiled(*arrays)

        return run

    def matmul(self, a: Any, b: Any) -> Callable:
        return self._compiled(tf.matmul, a, b)

    def lu(self, a: Any) -> Callable:
        return self._compiled(tf.linalg.lu, a)

    def triad(self, a: Any, b: Any) -> Callable:
        return self._compiled(lambda a, b: a + 3 * b, a, b)

    def add_one(self, x: Any) -> Callable:
        return self._compiled(lambda x: x + 1, x)

    def to_device(self, host: np.ndarray) -> Callable:
        def run() -> Any:
            with tf.device(self.place):
                return tf.identity(host)

        return run

    def to_host(self, array: Any) -> Callable:
        return lambda: array.numpy()

    def wait(self, result: Any) -> None:
        if self.device == "cuda":
            tf.test.experimental.sync_devices()
