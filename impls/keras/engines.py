"""What differs between the backends of Keras: devices, derivatives, compilation, the loop, waiting, and what each tells of itself."""

import contextlib
import importlib
import os
from collections import OrderedDict

import numpy as np


class Engine:
    """What the Keras backends have in common; a subclass holds what differs."""

    def __init__(self, device: str, dtype: str, precision: str, eager: bool):
        self.device, self.dtype, self.precision, self.eager = device, dtype, precision, eager
        self.keras = importlib.import_module("keras")  # not before: the backend is known only now

    @contextlib.contextmanager
    def scope(self):
        """Where everything of this model runs, so that models of other dtypes and devices can live beside it."""
        config = self.keras.config
        policy, floatx = config.dtype_policy(), config.floatx()
        config.set_floatx(self.dtype)  # of Python constants
        config.set_dtype_policy(self.dtype)  # of layers
        try:
            with self.keras.device("gpu" if self.device == "cuda" else "cpu"):
                yield
        finally:
            config.set_floatx(floatx)
            config.set_dtype_policy(policy)

    def loop(self, function, variables):
        """batches -> [function(batch), ...], fast."""
        step = function if self.eager else self.compiled(function)

        def run(batches):
            with self.scope():
                return [step(batch) for batch in batches]

        return run

    @staticmethod
    def copied(source, device):
        from keras import device as on  # not before: the backend is known only now
        from keras import ops

        with on("gpu" if device == "cuda" else "cpu"):
            return ops.convert_to_tensor(source)

    def update(self, optimizer, variables, gradients):
        """One step of the optimizer within a training step."""
        optimizer.apply(gradients)

    def generator(self):
        """A source of noise; (it, the variables that are its state, so that a compiled function goes on with them)."""
        generator = self.keras.random.SeedGenerator(0)
        return generator, [generator.state]

    def seed(self, generator, seed):
        generator.state.assign(np.array([seed, 0], np.uint32).astype(generator.state.dtype))

    def normal(self, shape, generator):
        return self.keras.random.normal(shape, dtype=self.dtype, seed=generator)

    def planned(self, function, variables, batch):
        """Bytes that a compiler has planned for a step: arguments, results, scratch, less what shares memory. None where none tells."""
        return None

    def tensor(self, array):
        """On the scope's device, of the model's dtype; always a copy: frameworks may share NumPy's memory."""
        return self.keras.ops.convert_to_tensor(np.array(array, self.dtype))

    def fed(self, array):
        """What a loop takes of a batch's arrays."""
        return self.tensor(array)


class Jax(Engine):
    @staticmethod
    def copied(source, device):
        import jax

        to = jax.devices("gpu" if device == "cuda" else "cpu")[0]
        return jax.block_until_ready(jax.device_put(source, to, may_alias=False))  # API: else it goes on using NumPy's memory

    @staticmethod
    def devices():
        import jax

        with contextlib.suppress(RuntimeError):  # API: raised where there is none
            return ["cpu", *(["cuda"] if jax.devices("gpu") else [])]
        return ["cpu"]

    @contextlib.contextmanager
    def scope(self):
        import jax

        with jax.enable_x64(self.dtype == "float64"), jax.default_matmul_precision(self.precision), super().scope():
            yield

    def tensor(self, array):
        import jax

        return jax.device_put(np.array(array, self.dtype))

    def fed(self, array):
        """API: jit itself puts NumPy's arrays on the device, in less time than a call for each; a copy, since it may go on using it."""
        return self.tensor(array) if self.eager else np.array(array, self.dtype)

    def pure(self, function, variables):
        """API: JAX differentiates and compiles functions of values; a StatelessScope makes one of a function of variables."""

        def of_values(values, batch):
            with self.keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))) as scope:
                result = function(batch)
            if isinstance(result, dict):
                result = OrderedDict(result)  # API: JAX returns a plain dict's keys sorted
            return result, [scope.get_current_value(variable) for variable in variables]

        return of_values

    def value_and_gradients(self, function, variables, batch):
        import jax

        values = [variable.value for variable in variables]
        (value, _), gradients = jax.value_and_grad(self.pure(function, variables), has_aux=True)(values, batch)
        return value, gradients

    def loop(self, function, variables):
        import jax

        if self.eager:
            return super().loop(function, variables)
        step = jax.jit(self.pure(function, variables), donate_argnums=0)

        def run(batches):
            with self.scope():
                values, results = [variable.value for variable in variables], []
                try:
                    for batch in batches:
                        result, values = step(values, batch)
                        results.append(result)
                finally:  # the old values were donated: whatever happens, keep the new ones
                    for variable, value in zip(variables, values, strict=True):
                        variable.assign(value)
            return results

        return run

    def planned(self, function, variables, batch):
        import jax

        with self.scope():
            step = jax.jit(self.pure(function, variables), donate_argnums=0)
            plan = step.lower([variable.value for variable in variables], batch).compile().memory_analysis()
        return plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes - plan.alias_size_in_bytes

    def block(self, values):
        import jax

        jax.block_until_ready(values)

    def facts(self):
        import jax

        return {
            "versions": {"jax": jax.__version__},
            "device": jax.devices("gpu")[0].device_kind if self.device == "cuda" else "cpu",
            "threads": None,  # XLA follows the CPU affinity
            "precision": jax.config.jax_default_matmul_precision,
        }

    def memory(self):
        import jax

        stats = jax.devices("gpu")[0].memory_stats() if self.device == "cuda" else {}
        return {"alloc_peak": stats.get("peak_bytes_in_use"), "device_reserved_peak": stats.get("peak_pool_bytes")}


class Torch(Engine):
    PRECISION = {"highest": ("highest", False), "high": ("high", True), "default": ("medium", True)}  # of matmul; TF32 in cuDNN

    @staticmethod
    def devices():
        import torch

        return ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]

    def __init__(self, device, dtype, precision, eager):
        import torch

        super().__init__(device, dtype, precision, eager)
        matmul, torch.backends.cudnn.allow_tf32 = self.PRECISION[precision]  # on by default: set it, whatever the case
        torch.set_float32_matmul_precision(matmul)

    def compiled(self, function):
        import torch

        return torch.no_grad()(function)

    def value_and_gradients(self, function, variables, batch):
        import torch

        with torch.enable_grad():
            value = function(batch)
            gradients = torch.autograd.grad(value, [variable.value for variable in variables])
        return value.detach(), gradients

    def update(self, optimizer, variables, gradients):
        """adam.py's formula by PyTorch's fused kernel, for all tensors at once: one by one, each is a dozen calls."""
        import torch
        from torch.optim.adam import adam

        p, m, v = ([one.value for one in group] for group in (variables, optimizer.m, optimizer.v))
        steps = list(optimizer.iterations.value.to(torch.float32).repeat(len(p)).unbind())
        rule = {"lr": float(optimizer.learning_rate), "beta1": optimizer.beta1, "beta2": optimizer.beta2, "eps": optimizer.epsilon}
        adam(p, list(gradients), m, v, [], steps, fused=True, amsgrad=False, weight_decay=0.0, maximize=False, **rule)
        optimizer.iterations.value.add_(1)  # API: assign_add would make a tensor of the 1, which on a device has to wait for it

    def generator(self):
        """API: Keras' own makes one of PyTorch's for each draw, and its seed goes to the device and back."""
        import torch

        return torch.Generator(self.device), []

    def seed(self, generator, seed):
        generator.manual_seed(seed)

    def normal(self, shape, generator):
        import torch

        return torch.randn(shape, generator=generator, dtype=getattr(torch, self.dtype), device=self.device)

    def block(self, values):
        import torch

        if self.device == "cuda":
            torch.cuda.synchronize()

    def facts(self):
        import torch

        in_force = (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32)
        return {
            "versions": {"torch": torch.__version__},
            "device": torch.cuda.get_device_name() if self.device == "cuda" else "cpu",
            "threads": torch.get_num_threads(),
            "precision": next((name for name, flags in self.PRECISION.items() if flags == in_force), f"matmul, cuDNN's TF32: {in_force}"),
        }

    def memory(self):
        import torch

        if self.device != "cuda":
            return {"alloc_peak": None, "device_reserved_peak": None}
        return {"alloc_peak": torch.cuda.max_memory_allocated(), "device_reserved_peak": torch.cuda.max_memory_reserved()}


class TensorFlow(Engine):
    @staticmethod
    def devices():
        import tensorflow as tf

        return ["cpu", *(["cuda"] if tf.config.list_physical_devices("GPU") else [])]

    def __init__(self, device, dtype, precision, eager):
        import tensorflow as tf

        with contextlib.suppress(RuntimeError):  # fixed at TensorFlow's first operation; facts() tells what is in force
            for gpu in tf.config.list_physical_devices("GPU"):
                tf.config.experimental.set_memory_growth(gpu, True)
            if (threads := os.environ.get("OMP_NUM_THREADS", "")).isdigit():  # API: TensorFlow itself does not read it
                tf.config.threading.set_intra_op_parallelism_threads(int(threads))
        tf.config.experimental.enable_tensor_float_32_execution(precision != "highest")
        tf.get_logger().setLevel("ERROR")  # its retracing warning counts models, not retraces of one
        super().__init__(device, dtype, precision, eager)

    def tensor(self, array):
        import tensorflow as tf

        return tf.constant(np.asarray(array, self.dtype))

    def compiled(self, function):
        import tensorflow as tf

        return tf.function(function)

    def value_and_gradients(self, function, variables, batch):
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = function(batch)
        return value, tape.gradient(value, [variable.value for variable in variables])

    def update(self, optimizer, variables, gradients):
        """adam.py's formula by TensorFlow's fused kernel. Its epsilon is the paper's "epsilon hat", and in float32 it would round the
        bias corrections: it is given what makes both right."""
        import tensorflow as tf

        from impls.keras.adam import correction

        t = tf.cast(optimizer.iterations.value + 1, self.dtype)
        beta1, beta2, zero = (tf.constant(value, self.dtype) for value in (optimizer.beta1, optimizer.beta2, 0.0))
        root = tf.sqrt(correction(optimizer.beta2, t))
        rate, epsilon = optimizer.learning_rate * root / correction(optimizer.beta1, t), optimizer.epsilon * root
        for variable, m, v, gradient in zip(variables, optimizer.m, optimizer.v, gradients, strict=True):
            p, m, v = (one.value.handle for one in (variable, m, v))
            tf.raw_ops.ResourceApplyAdam(
                var=p, m=m, v=v, beta1_power=zero, beta2_power=zero, lr=rate, beta1=beta1, beta2=beta2, epsilon=epsilon, grad=gradient
            )
        optimizer.iterations.assign_add(1)

    def block(self, values):
        import tensorflow as tf

        tf.test.experimental.sync_devices()

    def facts(self):
        import tensorflow as tf

        gpus, tf32 = tf.config.list_physical_devices("GPU"), tf.config.experimental.tensor_float_32_execution_enabled()
        return {
            "versions": {"tensorflow": tf.__version__},
            "device": tf.config.experimental.get_device_details(gpus[0])["device_name"] if self.device == "cuda" else "cpu",
            "threads": tf.config.threading.get_intra_op_parallelism_threads() or None,  # 0: it follows the CPU affinity
            "precision": self.precision if tf32 == (self.precision != "highest") else f"TF32: {tf32}",  # it knows two
        }

    def memory(self):
        import tensorflow as tf

        peak = tf.config.experimental.get_memory_info("GPU:0")["peak"] if self.device == "cuda" else None
        return {"alloc_peak": peak, "device_reserved_peak": None}


ENGINES = {"jax": Jax, "torch": Torch, "tensorflow": TensorFlow}
