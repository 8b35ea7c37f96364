"""The machine room of NumPy: parameters in and out, dtype, noise, the loop."""

import importlib
import math

import numpy as np
import scipy
from threadpoolctl import threadpool_info

from impls.errors import DeviceAbsent
from impls.numpy.adam import Adam
from specs import MODELS, Spec
from specs.parameters import layers, shapes


def devices() -> list[str]:
    return ["cpu"]


def build(spec: Spec, *, variant: str | None = None, device: str = "cpu", dtype: str = "float32", precision: str = "highest"):
    if device not in devices():
        raise DeviceAbsent("numpy", device, devices())
    return (Trainable if spec.trains else PCA)(spec, variant or "hand", dtype)


class Base:
    """What PCA and trained models share: arrays in and out, and the timed triple."""

    def __init__(self, spec: Spec, variant: str, dtype: str):
        self.spec, self.variant, self.dtype = spec, variant, np.dtype(dtype)
        self.model_file = importlib.import_module(f"impls.numpy.{spec.model}")
        self.model = getattr(self.model_file, MODELS[spec.model])(spec)

    def encode(self, x):
        return self.model_file.latent(self.model, x)

    def decode(self, z, label=None):
        return self.model_file.x_hat(self.model, z)

    def prepare(self, operation, batch, steps, seed):
        self.generator = np.random.default_rng(seed)
        self.batch = dict(batch)
        self.timed = getattr(self, f"timed_{operation}")(self.batch)
        self.operation, self.steps = operation, steps

    def refill(self, batch):
        self.batch.update(batch)

    def run(self):
        self.results = [self.timed() for _ in range(self.steps)]

    def block(self):
        """NumPy has returned only when it is done."""

    def outcome(self):
        return {"loss": np.array(self.results)} if self.operation in {"train", "loss"} else self.results[-1]

    def timed_encode(self, batch):
        return lambda: self.encode(batch["x"])

    def timed_decode(self, batch):
        return lambda: {"x_hat": self.decode(batch["z"])}

    def facts(self):
        built = np.show_config("dicts")["Build Dependencies"]["blas"]  # SciPy brings one of its own, which threadpool_info lists too
        pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
        own = min(pools, key=lambda pool: "numpy" not in pool["filepath"], default={})
        return {
            "versions": {"numpy": np.__version__, "scipy": scipy.__version__, "blas": f"{built['name']} {built['version']}"},
            "variant": self.variant,
            "device": "cpu",
            "dtype": self.dtype.name,
            "threads": own.get("num_threads"),
            "precision": "highest",  # BLAS has no other products
        }

    def memory(self):
        return {"alloc_peak": None, "device_reserved_peak": None}


class Trainable(Base):
    def __init__(self, spec, variant, dtype):
        super().__init__(spec, variant, dtype)
        self.layers = {name: layer(self.model, name) for name, _, _ in layers(spec)}
        self.shapes = {f"{name}.{part}": getattr(one, part).shape for name, one in self.layers.items() for part in ("w", "b")}
        self.flat, self.d_flat = np.zeros((2, sum(map(math.prod, self.shapes.values()))), self.dtype)
        self.named, self.d_named = self.views(self.flat), self.views(self.d_flat)
        for name, one in self.layers.items():
            one.w, one.b, one.d_w, one.d_b = (named[f"{name}.{part}"] for named in (self.named, self.d_named) for part in ("w", "b"))
        self.optimizer = Adam(spec.optimizer, self.flat)

    def views(self, flat):
        """{name: its part of the flat array}: the optimizer passes over all tensors at once."""
        parts = np.split(flat, np.cumsum([math.prod(shape) for shape in self.shapes.values()])[:-1])
        return {name: part.reshape(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def parameters(self):
        return self.named

    def set_parameters(self, values):
        assign(self.named, values)

    def terms(self, batch):
        return self.model_file.terms(self.model, **batch)

    def gradients(self, batch):
        self.model_file.backward(self.model, **batch)
        return self.d_named

    def train(self, batches):
        return np.array([self.step(batch) for batch in batches])

    def step(self, batch):
        terms = self.model_file.backward(self.model, **batch)
        self.optimizer.update(self.flat, self.d_flat)
        return self.model_file.loss(self.spec, terms)

    def apply_gradients(self, gradients):
        assign(self.d_named, gradients)
        self.optimizer.update(self.flat, self.d_flat)

    def optimizer_state(self):
        return {"step": self.optimizer.step, "m": self.views(self.optimizer.m), "v": self.views(self.optimizer.v)}

    def set_optimizer_state(self, state):
        self.optimizer.step = state["step"]
        assign(self.views(self.optimizer.m), state["m"])
        assign(self.views(self.optimizer.v), state["v"])

    def noise(self, n):
        return self.generator.standard_normal((n, self.spec.d_z), self.dtype)

    def native_noise(self, n, steps, seed):
        self.generator = np.random.default_rng(seed)
        return np.stack([self.noise(n) for _ in range(steps)])

    def drawn(self, batch):
        return batch | {"eps": self.noise(len(batch["x"]))} if self.spec.noisy else batch

    def timed_train(self, batch):
        return lambda: self.step(self.drawn(batch))

    def timed_loss(self, batch):
        return lambda: self.model_file.loss(self.spec, self.terms(self.drawn(batch)))

    def timed_generate(self, batch):
        return lambda: {"x_hat": self.decode(self.noise(len(batch["x"])))}


class PCA(Base):
    def fit(self, x):
        self.model.fit(x)

    def parameters(self):
        return {} if self.model.mean is None else {name: getattr(self.model, name) for name in shapes(self.spec)}

    def set_parameters(self, values):
        for name in shapes(self.spec):
            setattr(self.model, name, values[name].copy())

    def timed_fit(self, batch):
        names = tuple(shapes(self.spec))

        def fit():
            self.model.fit(batch["x"])
            return {name: getattr(self.model, name) for name in names}

        return fit


def layer(model, name: str):
    """encoder.0 -> model.encoder.layers[0]"""
    stack, _, index = name.partition(".")
    return getattr(model, stack).layers[int(index)] if index else getattr(model, stack)


def assign(arrays, values):
    for name, array in arrays.items():
        array[...] = values[name]


def copied(source: np.ndarray, device: str):
    """In memory of the framework's own."""
    return source.copy()
