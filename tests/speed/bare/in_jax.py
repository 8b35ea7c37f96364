"""Bare JAX: a pytree of arrays, optax.adam, one jitted step whose state is donated; or one lax.scan over the steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax


def loss(p, x, eps):
    h = jax.nn.relu(x @ p["encoder.0.w"] + p["encoder.0.b"])
    mu, logvar = h @ p["mu.w"] + p["mu.b"], h @ p["logvar.w"] + p["logvar.b"]
    z = mu + jnp.exp(0.5 * logvar) * eps
    logits = jax.nn.relu(z @ p["decoder.0.w"] + p["decoder.0.b"]) @ p["logits.w"] + p["logits.b"]
    nll = jnp.sum(jax.nn.softplus(logits) - x * logits)
    kl = 0.5 * jnp.sum(jnp.exp(logvar) + mu**2 - 1.0 - logvar)
    return (nll + kl) / x.shape[0]


class Bare:
    scan = False

    def __init__(self, parameters, x, steps, seed, adam):
        self.adam = optax.adam(adam.learning_rate, b1=adam.beta1, b2=adam.beta2, eps=adam.epsilon)
        p = {name: jnp.array(value) for name, value in parameters.items()}
        self.x, self.steps, self.n, self.d_z = jnp.array(x), steps, x.shape[0], parameters["mu.b"].shape[0]
        self.carry = (p, self.adam.init(p), jax.random.PRNGKey(seed))
        self.given = jax.jit(self.step)
        self.one = jax.jit(self.native, donate_argnums=0)
        self.many = jax.jit(self.scanned, donate_argnums=0)

    def step(self, p, moments, x, eps):
        value, gradients = jax.value_and_grad(loss)(p, x, eps)
        updates, moments = self.adam.update(gradients, moments, p)
        return optax.apply_updates(p, updates), moments, value

    def native(self, carry, x):
        p, moments, key = carry
        key, part = jax.random.split(key)
        p, moments, value = self.step(p, moments, x, jax.random.normal(part, (self.n, self.d_z), x.dtype))
        return (p, moments, key), value

    def scanned(self, carry, x):
        return jax.lax.scan(lambda carry, _: self.native(carry, x), carry, length=self.steps)

    def run(self):
        if self.scan:
            self.carry, self.losses = self.many(self.carry, self.x)
            return
        self.losses = []
        for _ in range(self.steps):
            self.carry, value = self.one(self.carry, self.x)
            self.losses.append(value)

    def block(self):
        jax.block_until_ready(self.carry)

    def train(self, noise):
        losses = []
        for eps in noise:
            p, moments, value = self.given(*self.carry[:2], self.x, jnp.array(eps))
            self.carry = (p, moments, self.carry[2])
            losses.append(value)
        return np.array(jax.device_get(losses))

    def parameters(self):
        return {name: np.array(value) for name, value in self.carry[0].items()}


class Scan(Bare):
    scan = True


class Products:
    """The step's matrix products alone."""

    def __init__(self, pairs, steps):
        self.pairs, self.steps = [(jnp.array(a), jnp.array(b)) for a, b in pairs], steps
        self.all = jax.jit(lambda pairs: [a @ b for a, b in pairs])

    def run(self):
        for _ in range(self.steps):
            self.out = jax.block_until_ready(self.all(self.pairs))

    def block(self):
        jax.block_until_ready(self.out)


def fit_parts(x, d_z):
    """{what: a call of it}, of a PCA by the covariance."""
    x = jnp.array(x)
    product, eigenvectors = jax.jit(lambda x: x.T @ x), jax.jit(jnp.linalg.eigh)
    covariance = product(x)
    return {
        "product: dot": lambda: jax.block_until_ready(product(x)),
        "eigenvectors: all": lambda: jax.block_until_ready(eigenvectors(covariance)),
    }
