"""The machine room of the example: what isoform's contract (impls/contract.py) asks for, for one model on the CPU."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from impls.errors import DeviceAbsent, Unsupported
from isoform_equinox import linear_ae
from specs import Spec

LAYERS = ("z", "x_hat")


def devices() -> list[str]:
    return ["cpu"]


def build(spec: Spec, *, variant: str | None = None, device: str = "cpu", dtype: str = "float32", precision: str = "highest"):
    if device not in devices():
        raise DeviceAbsent("isoform-equinox", device, devices())
    if spec.model != "linear_ae":
        raise Unsupported(f"isoform-equinox has linear_ae only, not '{spec.model}'")
    jax.config.update("jax_enable_x64", True)  # every array here has its dtype given
    return Trainable(spec, dtype)


class Trainable:
    def __init__(self, spec: Spec, dtype: str):
        self.spec, self.dtype, adam = spec, dtype, spec.optimizer
        self.model = linear_ae.LinearAE(spec, dtype)
        self.optimizer = optax.adam(adam.learning_rate, b1=adam.beta1, b2=adam.beta2, eps=adam.epsilon)
        self.moments = self.optimizer.init(eqx.filter(self.model, eqx.is_array))
        self.compiled_terms = eqx.filter_jit(linear_ae.terms)
        self.compiled_loss = eqx.filter_jit(self.loss)
        self.compiled_gradients = eqx.filter_jit(eqx.filter_grad(self.loss))
        self.compiled_step = eqx.filter_jit(self.pure_step)
        self.compiled_update = eqx.filter_jit(self.pure_update)
        self.latent, self.x_hat = eqx.filter_jit(linear_ae.latent), eqx.filter_jit(linear_ae.x_hat)

    # Pure functions.

    def loss(self, model, batch):
        return linear_ae.loss(self.spec, linear_ae.terms(model, **batch))

    def pure_update(self, model, moments, gradients):
        updates, moments = self.optimizer.update(gradients, moments, model)
        return eqx.apply_updates(model, updates), moments

    def pure_step(self, model, moments, batch):
        value, gradients = eqx.filter_value_and_grad(self.loss)(model, batch)
        return *self.pure_update(model, moments, gradients), value

    # Arrays in and out: canonical names, w as (d_in, d_out).

    def array(self, array):
        return jnp.array(array, self.dtype)

    def arrays(self, values):
        return {name: self.array(array) for name, array in values.items()}

    def named(self, tree):
        """{name: array} of a model, or of anything of its shape: its gradient, its moments."""
        layers = {name: getattr(tree, name) for name in LAYERS}
        return {f"{name}.{part}": value for name, layer in layers.items() for part, value in (("w", layer.weight.T), ("b", layer.bias))}

    def tree(self, values):
        """The inverse of `named`."""
        where = lambda model: [part for name in LAYERS for part in (getattr(model, name).weight, getattr(model, name).bias)]
        leaves = [self.array(array.T if name.endswith(".w") else array) for name, array in values.items()]
        return eqx.filter(eqx.tree_at(where, self.model, leaves), eqx.is_array)

    # What the surface calls.

    def parameters(self):
        return self.named(self.model)

    def set_parameters(self, values):
        self.model = eqx.combine(self.tree(values), self.model)

    def encode(self, x):
        return self.latent(self.model, self.array(x))

    def decode(self, z, label=None):
        return self.x_hat(self.model, self.array(z))

    def terms(self, batch):
        return self.compiled_terms(self.model, **self.arrays(batch))

    def gradients(self, batch):
        return self.named(self.compiled_gradients(self.model, self.arrays(batch)))

    def step(self, batch):
        self.model, self.moments, value = self.compiled_step(self.model, self.moments, batch)
        return value

    def train(self, batches):
        return jax.device_get([self.step(self.arrays(batch)) for batch in batches])

    def apply_gradients(self, gradients):
        self.model, self.moments = self.compiled_update(self.model, self.moments, self.tree(gradients))

    def optimizer_state(self):
        adam = self.moments[0]
        return {"step": int(adam.count), "m": self.named(adam.mu), "v": self.named(adam.nu)}

    def set_optimizer_state(self, state):
        adam, *rest = self.moments
        count = jnp.array(state["step"], jnp.int32)
        self.moments = (adam._replace(count=count, mu=self.tree(state["m"]), nu=self.tree(state["v"])), *rest)

    def prepare(self, operation, batch, steps, seed):
        self.batch = self.arrays(batch)
        repeated = {"train": self.step, "loss": self.timed_loss, "encode": self.timed_encode, "decode": self.timed_decode}
        self.timed = partial(repeated[operation], self.batch)
        self.operation, self.steps, self.results = operation, steps, []

    def refill(self, batch):
        self.batch.update(self.arrays(batch))

    def timed_loss(self, given):
        return self.compiled_loss(self.model, given)

    def timed_encode(self, given):
        return self.latent(self.model, given["x"])

    def timed_decode(self, given):
        return {"x_hat": self.x_hat(self.model, given["z"])}

    def run(self):
        self.results = [self.timed() for _ in range(self.steps)]

    def block(self):
        jax.block_until_ready((self.model, self.results))

    def outcome(self):
        results = jax.device_get(self.results)
        return {"loss": np.array(results)} if self.operation in ("train", "loss") else results[-1]

    def facts(self):
        versions = {"equinox": eqx.__version__, "jax": jax.__version__, "optax": optax.__version__}
        return {"versions": versions, "variant": None, "device": "cpu", "dtype": self.dtype, "threads": None, "precision": "highest"}

    def memory(self):
        return {"alloc_peak": None, "device_reserved_peak": None}
