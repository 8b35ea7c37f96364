"""What is timed and how: rounds, memory, compilations, and that the work was really done."""

import sys
import types

import numpy as np
import pytest

import impls
import specs
from harness.bench import measure, memory, rounds
from harness.bench.cells import Cell


def test_doubling_the_work_doubles_the_time():
    model = impls.load("numpy").build(specs.load("vae"), dtype="float32")
    batch = {"x": np.random.default_rng(0).random((128, 64))}
    seconds = {20: [], 40: []}
    for _ in range(15):
        for steps, found in seconds.items():
            model.prepare(batch, steps)
            found += rounds.timed(model, 2)
    assert 1.6 < min(seconds[40]) / min(seconds[20]) < 2.5


IMPORTED = """
import sys, impls, specs
from harness.bench.measure import build, import_framework
implementation, spec = impls.load(NAME), specs.load(SPEC)
import_framework(implementation, spec)
before = set(sys.modules)
build(implementation, spec, {"device": "cpu", "dtype": "float32", "precision": "highest"})
print(sorted(set(sys.modules) - before))
"""


@pytest.mark.parametrize("spec", ["linear_vae", "vae", "pca"])
@pytest.mark.parametrize("name", ["numpy", pytest.param("torch", marks=pytest.mark.needs("torch"))])
def test_to_build_a_model_imports_nothing(python, name, spec):
    """What a framework itself puts off until then, JAX and Keras some of theirs, is its own affair."""
    assert python(IMPORTED.replace("NAME", repr(name)).replace("SPEC", repr(spec))) == "[]"


class Clockwork:
    """A model whose step takes `step_s` and whose first `slow` rounds take ten times that."""

    def __init__(self, monkeypatch, step_s, slow=0, block_s=0.0):
        self.now, self.step_s, self.slow, self.block_s, self.prepared = 0.0, step_s, slow, block_s, []
        monkeypatch.setattr(rounds, "perf_counter", lambda: self.now)

    def prepare(self, batch, steps, operation, seed):
        self.prepared.append(steps)

    def run(self):
        self.now += self.prepared[-1] * self.step_s * (10 if self.slow > 0 else 1)
        self.slow -= 1

    def block(self):
        self.now += self.block_s


@pytest.mark.parametrize(
    ("step_s", "block_s", "device", "enough"),
    [(1e-4, 1e-9, "cpu", 0.01), (0.5, 0, "cpu", 0.5), (1e-5, 0, "cuda", 1e-3), (1e-3, 1e-3, "cpu", 0.1)],
)
def test_a_round_is_long_enough_for_the_clock(monkeypatch, step_s, block_s, device, enough):
    settled = rounds.settle(model := Clockwork(monkeypatch, step_s, block_s=block_s), "train", {}, 0, device)
    assert enough <= settled.steps * step_s + block_s <= 2 * enough and settled.steps == model.prepared[-1]
    assert settled.wait_s <= 0.01 * rounds.timed(model, 1)[0] or settled.steps == 1


def test_a_round_stays_long_enough_if_it_gets_a_little_faster(monkeypatch):
    assert rounds.settle(Clockwork(monkeypatch, 0.0105), "train", {}, 0, "cpu").steps == 2


def test_rounds_that_get_faster_are_warm_up(monkeypatch):
    settled = rounds.settle(model := Clockwork(monkeypatch, 0.021, slow=7), "train", {}, 0, "cpu")
    assert settled == rounds.Settled(1, 0.0, 12, 12) and model.slow < 0


def test_just_before_it_is_timed_a_model_is_steady_again(monkeypatch):
    """A garbage collection and counting leave the caches cold."""
    for slow, wanted in ((0, 15), (3, 9)):  # rounds: 15 are the first groups of three to last 0.3 s
        model = Clockwork(monkeypatch, 0.021, slow)
        model.prepare({}, 1, "train", 0)
        assert rounds.steady(model) == (wanted, False) and model.now >= rounds.STEADY_S


def test_rounds_that_get_slower_are_not_endless(monkeypatch):
    model = Clockwork(monkeypatch, 1e-3)
    monkeypatch.setattr(
        model, "prepare", lambda batch, steps, operation, seed: (model.prepared.append(steps), setattr(model, "step_s", 1e-3 * steps))
    )
    with pytest.raises(RuntimeError, match="no number of steps"):
        monkeypatch.setattr(rounds, "TRIES", 1)
        rounds.settle(model, "train", {}, 0, "cpu")


PEAK = """
import numpy as np
from harness.bench.memory import host_peak
np.ones(1 << 25)  # taken and given back before: it must not count
print(*[host_peak(lambda size=size: np.ones(size << 17))[0] - (size << 20) for size in (64, 128, 0)])
"""


def test_a_known_allocation_is_read_back(python):
    assert all(abs(int(error)) < 2 << 20 for error in python(PEAK).split())


def test_a_peak_that_cannot_be_told_says_why(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "CLEAR", tmp_path / "absent" / "clear_refs")
    done = []
    value, reason = memory.host_peak(lambda: done.append(1))
    assert value is None and "clear_refs" in reason and done == [1]


def test_memory_in_use_on_a_device(monkeypatch):
    used = {0: 5, 1: 7}
    fake = types.SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda k: k,
        nvmlDeviceGetMemoryInfo=lambda handle: types.SimpleNamespace(used=used[handle]),
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    assert memory.device_used("cuda") == (12, None)
    assert memory.device_used("cpu") == (None, "no device: runs on the CPU")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "pip install nvidia-ml-py" in memory.device_used("cuda")[1]


COMPILES = {
    "jax": "import jax; f = jax.jit(lambda x: x + 1); one, two = jax.numpy.zeros(1), jax.numpy.zeros(2)",
    "torch": "import torch; f = torch.compile(lambda x: x + 1, backend='eager', dynamic=False); one, two = torch.zeros(1), torch.zeros(2)",
    "tensorflow": "import tensorflow as tf; f = tf.function(lambda x: x + 1); one, two = tf.zeros(1), tf.zeros(2)",
}


@pytest.mark.parametrize("framework", [pytest.param(name, marks=pytest.mark.needs(name)) for name in COMPILES])
def test_compilations_are_counted(python, framework):
    counts = "[counts.append(compiles.count()) for x in (one, one, two, two) if f(x) is not None]"
    code = f"from harness.bench import compiles; {COMPILES[framework]}; counts = [compiles.count()]; {counts}; print(*counts)"
    before, *after = map(int, python(code).split())
    assert [count - before for count in after] == [1, 1, 2, 2]


def test_without_a_compiler_there_is_no_count(python):
    assert python("import numpy; from harness.bench import compiles; print(compiles.count())") == "None"


def test_batches_are_rows_of_the_training_data_over_again():
    from harness import data

    spec = specs.load("vae")
    x = data.load(spec).train
    cell = Cell("vae", spec.hash, "numpy", "train", "cpu", "float32", "highest", 2000).row()
    batch = measure.batch_of(spec, cell)
    assert batch["x"].shape == (2000, 64) and (batch["x"][:1437] == x).all() and (batch["x"][1437:] == x[:563]).all()
    z = measure.batch_of(spec, {**cell, "operation": "decode"})["z"]
    assert z.shape == (2000, spec.d_z) and abs(z.std() - 1) < 0.05 and abs(z.mean()) < 0.05


def test_work_that_no_machine_does_in_that_time_was_not_done():
    cell = {"operation": "train", "batch_size": 128, "device": "cpu"}
    assert measure.impossible(specs.load("vae"), cell, 1e-4) is None
    assert "cannot be" in measure.impossible(specs.load("vae"), cell, 1e-8)
    assert "cannot be" in measure.impossible(specs.load("vae"), cell | {"device": "cuda"}, 1e-10)


def test_a_step_of_no_time_is_refused(monkeypatch):
    with pytest.raises(RuntimeError, match="has left the work out, or block"):
        rounds.settle(Clockwork(monkeypatch, 1e-10), "train", {}, 0, "cpu")


class Late(Clockwork):
    """Its result arrives `late` seconds after block() has returned; to fetch it takes `fetch` seconds more."""

    def __init__(self, monkeypatch, late, fetch):
        super().__init__(monkeypatch, 1e-3)
        monkeypatch.setattr(rounds, "sleep", self.rest)
        self.late, self.fetch, self.there, self.prepared = late, fetch, 0.0, [10]

    def run(self):
        super().run()
        self.there = self.now + self.late

    def rest(self, seconds):
        self.now += seconds

    def outcome(self):
        self.now = max(self.now, self.there) + self.fetch


@pytest.mark.parametrize(
    ("late", "fetch", "seen"),
    [(0.0, 1e-5, False), (1e-3, 1e-5, False), (5e-3, 1e-5, True), (0.0, 5e-3, False), (0.0, 50e-3, False), (5e-3, 5e-3, True)],
)
def test_a_block_that_does_not_wait_is_seen_and_the_way_from_a_device_is_not_taken_for_it(monkeypatch, late, fetch, seen):
    assert (rounds.not_waited_for(Late(monkeypatch, late, fetch), 10e-3) is not None) == seen
