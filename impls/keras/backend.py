"""The machine room of Keras: parameters in and out, device, dtype, precision, noise, the fast loop; an engine per Keras backend.

Everything that runs is a function batch -> arrays that reads and assigns Keras variables. An engine makes a loop of it: JAX
threads the variables' values through a jitted function, TensorFlow traces it, PyTorch calls it.
"""

import contextlib
import importlib
import itertools
import os
import sys
from collections import OrderedDict

import numpy as np

from impls.errors import DeviceAbsent, Unsupported
from specs import MODELS, Spec
from specs.parameters import layers, shapes

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's start-up notes


def chosen() -> str:
    """The backend that Keras has taken or will take. Imports nothing: Keras takes one backend per process, when it is imported."""
    return sys.modules["keras"].backend.backend() if "keras" in sys.modules else os.environ.get("KERAS_BACKEND", "tensorflow")


def devices() -> list[str]:
    return ENGINES[chosen()].devices()


def build(spec: Spec, *, variant: str | None = None, device: str = "cpu", dtype: str = "float32", precision: str = "highest"):
    variant = variant or chosen()
    name, _, mode = variant.partition("-")
    if "keras" in sys.modules and chosen() != name:
        raise Unsupported(f"Keras takes one backend per process, and this one has {chosen()}: start another process for {name}")
    present = ENGINES[name].devices()
    if device not in present:
        raise DeviceAbsent(f"Keras on {name}", device, present)
    os.environ["KERAS_BACKEND"] = name
    engine = ENGINES[name](device, dtype, precision, eager=mode == "eager")
    return (Trainable if spec.trains else PCA)(spec, variant, engine)


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

    def tensor(self, array):
        return self.keras.ops.convert_to_tensor(np.array(array, self.dtype))  # a copy: frameworks may share NumPy's memory


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

        def planned(batch):
            """Bytes that XLA has planned for a step: arguments, results, scratch, less what shares memory."""
            with self.scope():
                plan = step.lower([variable.value for variable in variables], batch).compile().memory_analysis()
            return plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes - plan.alias_size_in_bytes

        run.planned = planned
        return run

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
        optimizer.iterations.assign_add(1)

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

    def compiled(self, function):
        import tensorflow as tf

        return tf.function(function)

    def value_and_gradients(self, function, variables, batch):
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = function(batch)
        return value, tape.gradient(value, [variable.value for variable in variables])

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


class Base:
    """What PCA and trained models share: arrays in and out, and the timed triple."""

    def __init__(self, spec: Spec, variant: str, engine: Engine):
        self.spec, self.variant, self.engine, self.keras = spec, variant, engine, engine.keras
        self.model_file = importlib.import_module(f"impls.keras.{spec.model}")
        with engine.scope():
            self.model = getattr(self.model_file, MODELS[spec.model])(spec)
            self.generator = self.keras.random.SeedGenerator(0)
        self.named, self.others = self.variables()
        self.state = [*self.named.values(), *self.others, self.generator.state]
        self.loops = {name: engine.loop(function, self.state) for name, function in self.functions().items()}

    def functions(self):
        """All that can run, each batch -> arrays."""
        return {"encode": self.latent, "decode": self.x_hat}

    def latent(self, batch):
        return self.model_file.latent(self.model, batch["x"])

    def x_hat(self, batch):
        return {"x_hat": self.model_file.x_hat(self.model, batch["z"])}

    def once(self, name, batch):
        return self.host(self.loops[name]([self.on_device(batch)])[0])

    def encode(self, x):
        return self.once("encode", {"x": x})

    def decode(self, z, label=None):
        return self.once("decode", {"z": z})["x_hat"]

    def prepare(self, operation, batch, steps, seed):
        self.seed(seed)
        self.batch, self.timed, self.steps, self.operation = self.on_device(batch), self.loops[operation], steps, operation

    def run(self):
        self.results = self.timed(itertools.repeat(self.batch, self.steps))

    def block(self):
        last = self.results[-1]  # every step takes the state of the one before it, so the last to start is the last to end
        self.engine.block([last, [variable.value for variable in self.state]])

    def outcome(self):
        return self.stacked("loss", self.results) if self.operation in {"train", "loss"} else self.host(self.results[-1])

    def parameters(self):
        return self.host(self.named)

    def set_parameters(self, values):
        self.assign(self.named, values)

    def assign(self, variables, values):
        with self.engine.scope():
            for name, variable in variables.items():
                variable.assign(self.engine.tensor(values[name]))

    def on_device(self, batch):
        with self.engine.scope():
            return {name: self.engine.tensor(array) for name, array in batch.items()}

    def host(self, arrays):
        return {name: self.keras.ops.convert_to_numpy(value) for name, value in arrays.items()}

    def stacked(self, name, results):
        return {name: np.stack([self.keras.ops.convert_to_numpy(result) for result in results])}

    def seed(self, seed):
        """API: on PyTorch the generator counts up from its seed, so that neighbouring seeds would share their noise: spread them."""
        spread = np.random.SeedSequence(seed).generate_state(1)[0]
        with self.engine.scope():
            self.generator.state.assign(np.array([spread, 0], np.uint32).astype(self.generator.state.dtype))

    def facts(self):
        with self.engine.scope():
            facts = {"variant": self.variant, "dtype": self.keras.config.floatx(), **self.engine.facts()}
        return facts | {"versions": {"keras": self.keras.__version__, **facts["versions"]}}

    def memory(self):
        planned = getattr(self.timed, "planned", None)  # by an engine whose compiler tells
        return {**self.engine.memory(), "planned_peak": planned(self.batch) if planned else None}


class Trainable(Base):
    def variables(self):
        named = {
            f"{name}.{part}": getattr(layer(self.model, name), attribute)
            for name, _, _ in layers(self.spec)
            for part, attribute in (("w", "kernel"), ("b", "bias"))
        }
        adam = self.spec.optimizer
        with self.engine.scope():
            self.optimizer = importlib.import_module("impls.keras.adam").Adam(adam.learning_rate, adam.beta1, adam.beta2, adam.epsilon)
            self.optimizer.build(list(named.values()))
        self.moments = {part: dict(zip(named, getattr(self.optimizer, part), strict=True)) for part in ("m", "v")}
        return named, self.optimizer.variables

    def functions(self):
        trained = {"train": self.step, "terms": self.model_terms, "gradients": self.loss_gradients, "apply": self.apply}
        return super().functions() | trained | {"loss": self.native_loss, "generate": self.draw, "noise": self.noise}

    def model_terms(self, batch):
        return self.model.call(batch)

    def loss(self, batch):
        return self.model.compute_loss(y_pred=self.model_terms(batch))

    def loss_gradients(self, batch):
        _, gradients = self.engine.value_and_gradients(self.loss, list(self.named.values()), batch)
        return dict(zip(self.named, gradients, strict=True))

    def drawn(self, batch):
        return {**batch, "eps": self.noise(batch)} if self.spec.noisy and "eps" not in batch else batch

    def native_loss(self, batch):
        return self.loss(self.drawn(batch))

    def step(self, batch):
        value, gradients = self.engine.value_and_gradients(self.loss, list(self.named.values()), self.drawn(batch))
        self.engine.update(self.optimizer, list(self.named.values()), gradients)
        return value

    def apply(self, gradients):
        self.optimizer.apply([gradients[name] for name in self.named])

    def noise(self, batch):
        return self.keras.random.normal((batch["x"].shape[0], self.spec.d_z), dtype=self.engine.dtype, seed=self.generator)

    def draw(self, batch):
        return self.x_hat({"z": self.noise(batch)})

    def terms(self, batch):
        return self.once("terms", batch)

    def gradients(self, batch):
        return self.once("gradients", batch)

    def train(self, batches):
        return self.stacked("loss", self.loops["train"](self.on_device(batch) for batch in batches))["loss"]

    def apply_gradients(self, gradients):
        self.loops["apply"]([self.on_device(gradients)])

    def optimizer_state(self):
        return {"step": int(self.optimizer.iterations.numpy()), **{part: self.host(moment) for part, moment in self.moments.items()}}

    def set_optimizer_state(self, state):
        self.optimizer.iterations.assign(state["step"])
        for part, moment in self.moments.items():
            self.assign(moment, state[part])

    def native_noise(self, n, steps, seed):
        self.seed(seed)
        batch = self.on_device({"x": np.zeros((n, self.spec.d_x))})
        return self.stacked("eps", self.loops["noise"](itertools.repeat(batch, steps)))["eps"]


class PCA(Base):
    fitted = False

    def variables(self):
        return {name: getattr(self.model, name) for name in shapes(self.spec)}, []

    def functions(self):
        return super().functions() | {"fit": self.fit_model}

    def fit_model(self, batch):
        self.model.fit(batch["x"])
        return {name: variable.value for name, variable in self.named.items()}

    def fit(self, x):
        self.once("fit", {"x": x})
        self.fitted = True

    def parameters(self):
        return super().parameters() if self.fitted else {}

    def set_parameters(self, values):
        super().set_parameters(values)
        self.fitted = True


def layer(model, name: str):
    """encoder.0 -> model.encoder.layers[0]"""
    stack, _, index = name.partition(".")
    return getattr(model, stack).layers[int(index)] if index else getattr(model, stack)


def copied(source: np.ndarray, device: str):
    """In memory of the framework's own."""
    return ENGINES[chosen()].copied(source, device)
