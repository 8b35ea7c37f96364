"""The machine room of JAX: parameters in and out, device, dtype, precision, compile variant, the fast loop."""

import importlib
from collections import OrderedDict
from contextlib import contextmanager
from functools import partial, wraps
from itertools import groupby, islice
from typing import NamedTuple

import flax
import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import optax
from flax import nnx

from impls.errors import DeviceAbsent
from specs import MODELS, Spec
from specs.parameters import shapes

CHUNK = 100  # steps in one scan over given batches: bounds the memory that their stack takes


def devices() -> list[str]:
    return ["cpu", *(name for name in ("cuda", "tpu") if present(name))]


def present(platform: str) -> bool:
    try:
        return bool(jax.devices(platform))
    except RuntimeError:
        return False


def build(spec: Spec, *, variant: str | None = None, device: str = "cpu", dtype: str = "float32", precision: str = "highest"):
    if device not in devices():
        raise DeviceAbsent("jax", device, devices())
    return (Trainable if spec.trains else PCA)(spec, variant or "step", device, dtype, precision)


def scoped(method):
    """The method, run in its backend's own settings: two builds in one process do not disturb each other."""

    @wraps(method)
    def inside(self, *args):
        with self.scope():
            return method(self, *args)

    return inside


class Base:
    """What PCA and trained models share: arrays in and out, and the timed triple."""

    operation = None  # until prepare()

    def __init__(self, spec: Spec, variant: str, device: str, dtype: str, precision: str):
        self.spec, self.variant, self.precision = spec, variant, precision
        self.device, self.dtype = jax.devices(device)[0], jnp.dtype(dtype)
        self.model_file = importlib.import_module(f"impls.jax.{spec.model}")
        self.model_class = getattr(self.model_file, MODELS[spec.model])
        self.latent = jax.jit(lambda params, x: OrderedDict(self.model_file.latent(self.merge(params), x)))
        self.x_hat = jax.jit(lambda params, z: {"x_hat": self.model_file.x_hat(self.merge(params), z)})

    @contextmanager
    def scope(self):
        """All of these are part of what `jax.jit` caches by, so entering again never compiles again."""
        x64, eager = jax.enable_x64(self.dtype == "float64"), jax.disable_jit(self.variant == "eager")
        with x64, eager, jax.default_matmul_precision(self.precision), jax.default_device(self.device):
            yield

    def array(self, array) -> jax.Array:
        """On the scope's device. API: with a device named it would be "committed"; the generator's key is not, and jit compiles once for
        each mixture."""
        return jax.device_put(np.array(array, self.dtype))  # a copy: on CPU, JAX may go on using NumPy's memory

    def arrays(self, values) -> dict[str, jax.Array]:
        return OrderedDict((name, self.array(array)) for name, array in values.items())  # API: jit would sort the keys of a dict

    def parameters(self):
        return host(self.params)

    @scoped
    def encode(self, x):
        return host(self.latent(self.params, self.array(x)))

    @scoped
    def decode(self, z, label=None):
        return host(self.x_hat(self.params, self.array(z)))["x_hat"]

    @scoped
    def prepare(self, operation, batch, steps, seed):
        self.key = jax.random.PRNGKey(seed)  # API: a typed jax.random.key among the results takes jit off its fast path
        self.operation, self.steps, self.repeats = operation, steps, steps
        self.batch = self.arrays(batch)
        self.timed = getattr(self, f"timed_{operation}")(self.batch)

    @scoped
    def refill(self, batch):
        self.batch.update(self.arrays(batch))

    @scoped
    def run(self):
        self.results = [self.timed() for _ in range(self.repeats)]

    def block(self):
        jax.block_until_ready((self.params, self.results[-1]))  # the last to start is the last to end, and waiting for each costs time

    def outcome(self):
        results = jax.device_get(self.results)
        return {"loss": np.ravel(results)} if self.operation in {"train", "loss"} else results[-1]

    def done(self, result):
        """On CPU, wait: computations that do not depend on each other run side by side and end in any order."""
        return jax.block_until_ready(result) if self.device.platform == "cpu" else result

    def timed_encode(self, batch):
        return lambda: self.done(self.latent(self.params, batch["x"]))

    def timed_decode(self, batch):
        return lambda: self.done(self.x_hat(self.params, batch["z"]))

    @scoped
    def facts(self):
        return {
            "versions": {module.__name__: module.__version__ for module in (jax, jaxlib, flax, optax)},
            "variant": self.variant,
            "device": self.device.device_kind,
            "dtype": self.dtype.name,
            "threads": None,  # XLA's CPU pool follows the process's CPU affinity and keeps no count to read
            "x64": jax.config.jax_enable_x64,
            "precision": jax.config.jax_default_matmul_precision,
        }

    def memory(self):
        stats = self.device.memory_stats() or {}  # None on CPU
        return {
            "alloc_peak": stats.get("peak_bytes_in_use"),
            "device_reserved_peak": stats.get("peak_pool_bytes", stats.get("peak_bytes_reserved")),
            "planned_peak": self.planned(),
        }

    @scoped
    def planned(self):
        """Bytes that XLA has planned for one dispatch of "train" or "fit": arguments, results, scratch, less what shares memory."""
        if self.operation not in ("train", "fit"):
            return None
        plan = self.lowered().compile().memory_analysis()
        return plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes - plan.alias_size_in_bytes


class State(NamedTuple):
    params: dict[str, jax.Array]
    moments: optax.OptState


class Trainable(Base):
    def __init__(self, spec, variant, device, dtype, precision):
        super().__init__(spec, variant, device, dtype, precision)
        self.graphdef, abstract = nnx.split(nnx.eval_shape(lambda: self.model_class(spec, rngs=nnx.Rngs(0))))
        declared = {canonical(path): (path, variable.shape) for path, variable in nnx.to_flat_state(abstract)}
        self.paths = {name: path for name, (path, _) in declared.items()}
        adam = spec.optimizer
        self.optimizer = optax.adam(adam.learning_rate, b1=adam.beta1, b2=adam.beta2, eps=adam.epsilon)
        self.compiled_terms = jax.jit(self.pure_terms)
        self.compiled_gradients = jax.jit(jax.grad(self.pure_loss))
        jit = partial(jax.jit, donate_argnums=() if variant == "undonated" else (0,))  # the old state's memory is the new one's
        self.compiled_update = jit(self.pure_update)
        self.compiled_train = jit(self.pure_steps if variant == "scan" else self.pure_step)
        self.compiled_native_loss = jax.jit(self.pure_native_loss)
        self.compiled_native_step = jit(self.pure_native_step)
        self.compiled_native_steps = jit(self.pure_native_steps, static_argnames="steps")
        self.compiled_noise = jax.jit(self.pure_noise, static_argnums=1)
        self.compiled_generate = jax.jit(self.pure_generate, static_argnums=2)
        with self.scope():
            params = self.arrays({name: np.zeros(declared[name][1]) for name in shapes(spec)})
            self.state = State(params, jax.jit(self.optimizer.init)(params))

    @property
    def params(self):
        return self.state.params

    # Pure functions, for jit, grad and scan. The model lives only while they are traced.

    def merge(self, params):
        return nnx.merge(self.graphdef, nnx.from_flat_state({path: params[name] for name, path in self.paths.items()}))

    def pure_terms(self, params, batch):
        return OrderedDict(self.model_file.terms(self.merge(params), **batch))

    def pure_loss(self, params, batch):
        return self.model_file.loss(self.spec, self.pure_terms(params, batch))

    def pure_update(self, state, gradients):
        updates, moments = self.optimizer.update(gradients, state.moments, state.params)
        return State(optax.apply_updates(state.params, updates), moments)

    def pure_step(self, state, batch):
        value, gradients = jax.value_and_grad(self.pure_loss)(state.params, batch)
        return self.pure_update(state, gradients), value

    def pure_steps(self, state, batches):
        return jax.lax.scan(self.pure_step, state, batches)

    def pure_noise(self, key, n):
        key, part = jax.random.split(key)
        return key, jax.random.normal(part, (n, self.spec.d_z), self.dtype)

    def pure_drawn(self, key, batch):
        if not self.spec.noisy:
            return key, batch
        key, eps = self.pure_noise(key, len(batch["x"]))
        return key, {**batch, "eps": eps}

    def pure_native_loss(self, params, key, batch):
        key, batch = self.pure_drawn(key, batch)
        return key, self.pure_loss(params, batch)

    def pure_native_step(self, carry, batch):
        state, key = carry
        key, batch = self.pure_drawn(key, batch)
        state, value = self.pure_step(state, batch)
        return (state, key), value

    def pure_native_steps(self, carry, batch, steps):
        return jax.lax.scan(lambda carry, _: self.pure_native_step(carry, batch), carry, length=steps)

    def pure_generate(self, params, key, n):
        key, z = self.pure_noise(key, n)
        return key, {"x_hat": self.model_file.x_hat(self.merge(params), z)}

    # What the surface calls.

    @scoped
    def set_parameters(self, values):
        self.state = self.state._replace(params=self.arrays(values))

    @scoped
    def terms(self, batch):
        return host(self.compiled_terms(self.params, self.arrays(batch)))

    @scoped
    def gradients(self, batch):
        return host(self.compiled_gradients(self.params, self.arrays(batch)))

    @scoped
    def train(self, batches):
        losses = []
        for given in self.dispatches(batches):
            self.state, values = self.compiled_train(self.state, given)
            losses.append(values)
        return np.concatenate(jax.device_get(losses), axis=None)  # of scalars, or of one array a scan

    def dispatches(self, batches):
        """The batches one by one, or stacked for a scan: consecutive ones of equal shapes. API: jit itself puts NumPy's arrays on the
        device, in less time than a call for each; copies, since it may go on using their memory."""
        if self.variant != "scan":
            yield from (OrderedDict((name, np.array(array, self.dtype)) for name, array in batch.items()) for batch in batches)
            return
        for _, alike in groupby(batches, key=lambda batch: [array.shape for array in batch.values()]):
            while chunk := list(islice(alike, CHUNK)):
                yield OrderedDict((name, np.stack([batch[name] for batch in chunk], dtype=self.dtype)) for name in chunk[0])

    @scoped
    def apply_gradients(self, gradients):
        self.state = self.compiled_update(self.state, self.arrays(gradients))

    def optimizer_state(self):
        adam = self.state.moments[0]  # API: optax.adam is a chain; its first part keeps the moments
        return {"step": int(adam.count), "m": host(adam.mu), "v": host(adam.nu)}

    @scoped
    def set_optimizer_state(self, state):
        adam, *rest = self.state.moments
        count = jax.device_put(np.int32(state["step"]))
        adam = adam._replace(count=count, mu=self.arrays(state["m"]), nu=self.arrays(state["v"]))
        self.state = self.state._replace(moments=(adam, *rest))

    @scoped
    def native_noise(self, n, steps, seed):
        key, draws = jax.random.PRNGKey(seed), []
        for _ in range(steps):
            key, eps = self.compiled_noise(key, n)
            draws.append(eps)
        return np.stack(jax.device_get(draws))

    def timed_train(self, batch):
        advance = self.compiled_native_step
        if self.variant == "scan":
            advance, self.repeats = partial(self.compiled_native_steps, steps=self.steps), 1

        def train():
            (self.state, self.key), losses = advance((self.state, self.key), batch)
            return losses

        return train

    def lowered(self):
        if self.variant == "scan":
            return self.compiled_native_steps.lower((self.state, self.key), self.batch, steps=self.steps)
        return self.compiled_native_step.lower((self.state, self.key), self.batch)

    def timed_loss(self, batch):  # no scan: XLA would take out of it whatever does not depend on the noise
        def loss():
            self.key, value = self.compiled_native_loss(self.params, self.key, batch)
            return self.done(value)

        return loss

    def timed_generate(self, batch):
        def generate():
            self.key, x_hat = self.compiled_generate(self.params, self.key, len(batch["x"]))
            return self.done(x_hat)

        return generate


class PCA(Base):
    def __init__(self, spec, variant, device, dtype, precision):
        super().__init__(spec, variant, device, dtype, precision)
        self.params = {}
        self.compiled_fit = jax.jit(self.pure_fit)

    def merge(self, params):
        model = self.model_class(self.spec)
        for name in shapes(self.spec):
            setattr(model, name, params[name])
        return model

    def pure_fit(self, x):
        model = self.model_class(self.spec)
        model.fit(x)
        return OrderedDict((name, getattr(model, name)) for name in shapes(self.spec))

    @scoped
    def fit(self, x):
        self.params = self.compiled_fit(self.array(x))

    @scoped
    def set_parameters(self, values):
        self.params = self.arrays(values)

    def lowered(self):
        return self.compiled_fit.lower(self.batch["x"])

    def timed_fit(self, batch):
        def fit():
            self.params = self.done(self.compiled_fit(batch["x"]))
            return self.params

        return fit


def canonical(path: tuple) -> str:
    """("encoder", "layers", 0, "kernel") -> encoder.0.w"""
    name = ".".join(str(part) for part in path)
    return name.replace(".layers.", ".").replace(".kernel", ".w").replace(".bias", ".b")


def host(values):
    return jax.tree.map(np.array, values)


def copied(source: np.ndarray, device: str):
    """In memory of the framework's own."""
    return jax.block_until_ready(jax.device_put(source, jax.devices(device)[0], may_alias=False))
