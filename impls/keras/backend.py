"""The machine room of Keras: parameters in and out, device, dtype, precision, noise, the fast loop.

Everything that runs is a function batch -> arrays that reads and assigns Keras variables. An engine makes a loop of it: JAX
threads the variables' values through a jitted function, TensorFlow traces it, PyTorch calls it.
"""

import importlib
import itertools
import os
import sys

import numpy as np

from impls.errors import DeviceAbsent, Unsupported
from impls.keras.engines import ENGINES, Engine
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


class Base:
    """What PCA and trained models share: arrays in and out, and the timed triple."""

    operation = None  # until prepare()

    def __init__(self, spec: Spec, variant: str, engine: Engine):
        self.spec, self.variant, self.engine, self.keras = spec, variant, engine, engine.keras
        self.model_file = importlib.import_module(f"impls.keras.{spec.model}")
        with engine.scope():
            self.model = getattr(self.model_file, MODELS[spec.model])(spec)
            self.generator, its_state = engine.generator()
        self.named, self.others = self.variables()
        self.state = [*self.named.values(), *self.others, *its_state]
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

    def refill(self, batch):
        self.batch.update(self.on_device(batch))

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
        with self.engine.scope():
            self.engine.seed(self.generator, seed)

    def facts(self):
        with self.engine.scope():
            facts = {"variant": self.variant, "dtype": self.keras.config.floatx(), **self.engine.facts()}
        return facts | {"versions": {"keras": self.keras.__version__, **facts["versions"]}}

    def memory(self):
        planned = self.operation and self.engine.planned(self.functions()[self.operation], self.state, self.batch)
        return {**self.engine.memory(), "planned_peak": planned}


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
        return self.engine.normal((batch["x"].shape[0], self.spec.d_z), self.generator)

    def draw(self, batch):
        return self.x_hat({"z": self.noise(batch)})

    def terms(self, batch):
        return self.once("terms", batch)

    def gradients(self, batch):
        return self.once("gradients", batch)

    def train(self, batches):
        given = ({name: self.engine.fed(array) for name, array in batch.items()} for batch in batches)  # made within the loop's own scope
        return self.stacked("loss", self.loops["train"](given))["loss"]

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
