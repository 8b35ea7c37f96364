"""Bare TensorFlow: variables, a GradientTape and TensorFlow's own fused Adam kernel in one tf.function; compiled by XLA or not."""

import math

import numpy as np
import tensorflow as tf


class Bare:
    xla = False

    def __init__(self, parameters, x, steps, seed, adam):
        self.x, self.steps, self.rule = tf.constant(x), steps, adam
        self.p = {name: tf.Variable(value) for name, value in parameters.items()}
        self.m, self.v = ([tf.Variable(tf.zeros_like(one)) for one in self.p.values()] for _ in range(2))
        self.t = tf.Variable(tf.zeros((), self.x.dtype))
        self.generator = tf.random.Generator.from_seed(seed, alg="philox")
        self.compiled = tf.function(self.native, jit_compile=self.xla)
        self.given = tf.function(self.step, jit_compile=self.xla)

    def loss(self, eps):
        p, x = self.p, self.x
        h = tf.nn.relu(x @ p["encoder.0.w"] + p["encoder.0.b"])
        mu, logvar = h @ p["mu.w"] + p["mu.b"], h @ p["logvar.w"] + p["logvar.b"]
        z = mu + tf.exp(0.5 * logvar) * eps
        logits = tf.nn.relu(z @ p["decoder.0.w"] + p["decoder.0.b"]) @ p["logits.w"] + p["logits.b"]
        nll = tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=logits))
        kl = 0.5 * tf.reduce_sum(tf.exp(logvar) + mu**2 - 1.0 - logvar)
        return (nll + kl) / x.shape[0]

    def step(self, eps):
        variables = list(self.p.values())
        with tf.GradientTape() as tape:
            value = self.loss(eps)
        t, s = self.t.assign_add(1.0), self.rule
        powers = [tf.exp(t * math.log(beta)) for beta in (s.beta1, s.beta2)]
        epsilon = s.epsilon * tf.sqrt(1 - powers[1])  # the kernel's is the paper's epsilon hat
        for one, m, v, gradient in zip(variables, self.m, self.v, tape.gradient(value, variables), strict=True):
            tf.raw_ops.ResourceApplyAdam(
                var=one.handle, m=m.handle, v=v.handle, beta1_power=powers[0], beta2_power=powers[1], lr=s.learning_rate,
                beta1=s.beta1, beta2=s.beta2, epsilon=epsilon, grad=gradient,
            )  # fmt: skip
        return value

    def native(self):
        return self.step(self.generator.normal((self.x.shape[0], self.p["mu.b"].shape[0]), dtype=self.x.dtype))

    def run(self):
        self.losses = [self.compiled() for _ in range(self.steps)]

    def block(self):
        tf.test.experimental.sync_devices()

    def train(self, noise):
        return np.array([self.given(tf.constant(eps)).numpy() for eps in noise])

    def parameters(self):
        return {name: value.numpy() for name, value in self.p.items()}


class Compiled(Bare):
    xla = True
