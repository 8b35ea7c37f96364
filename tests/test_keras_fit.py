"""Keras' own loop, `compile` and `fit`, trains the models as this suite's loop does: compute_loss works on every backend."""

import pytest

import impls

FIT = """
import keras, numpy as np
import impls, specs
from harness import data
from specs.noise import batches

class Watch(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.sums = [0.0]

    def on_train_batch_end(self, batch, logs):
        self.sums.append((batch + 1) * float(logs["loss"]))  # Keras reports the mean of the losses so far, rounded to float32

for name in ("vae", "ae", "linear_ae"):
    spec = specs.load(name).replace(training={{"batch_size": 50}})
    given = list(batches(spec, data.load(spec).train, 6))
    backend = impls.load("{name}").build(spec, dtype="float64").backend
    reference = impls.load("numpy").build(spec, dtype="float64")
    losses, watch = reference.train(given), Watch()
    with backend.engine.scope():
        backend.model.compile(optimizer=backend.optimizer)
        x = {{key: np.concatenate([batch[key] for batch in given]) for key in given[0]}}
        backend.model.fit(x, batch_size=50, shuffle=False, verbose=0, callbacks=[watch])
    assert np.allclose(np.diff(watch.sums), losses, rtol=1e-5, atol=0), (name, np.diff(watch.sums), losses)
    for key, value in reference.parameters().items():
        off = np.abs(backend.host(backend.named)[key] - value).max() / np.abs(value).max()
        assert off <= spec.gates.parameters, (name, key, off)
print("equal")
"""


@pytest.mark.parametrize("implementation", ["keras-jax", "keras-torch", "keras-tensorflow"])
def test_fit_follows_the_same_trajectory(python, implementation):
    assert python(FIT.format(name=implementation), **dict(impls.load(implementation).environment)) == "equal"
