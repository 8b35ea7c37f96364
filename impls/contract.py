"""What an implementation is. A framework's `backend.py` has a `build` function that returns a `Backend`.

Users meet a backend only through `impls.surface.Model`, which checks every array on the way in and copies every array
on the way out. So a backend may trust its input, and may return whatever `numpy.asarray` can read.

Where what is announced for later goes, with nothing here to change:
- a `label` (conditional models) or a `permutation` (mutual information) is one more key of a batch;
- a codebook updated by moving averages is state beside the parameters: one more part of `parameters`, with a name and a shape in
  `specs.parameters` and no gradient, so that checks, save and resume see it;
- a `categorical` likelihood is one more name in the spec and in each framework's `nll` and `data_mean`;
- a target that can only be compiled for (a TPU from here) is a `device` whose `run` raises `Unsupported`, with `prepare` as its test;
- several devices are a `device` such as "cuda:4", known to the backend alone; a sweep is a loop of the harness over specs and batches;
- a decoder that runs alone is `decode`, which needs no batch; `label` is its second argument already;
- a convolution is a further layer kind in `specs.parameters` and one more mapping rule in each backend;
- `device` and `precision` are arguments of `build`; only a backend knows what they mean.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from numpy import ndarray

from specs import Spec

Batch = Mapping[str, ndarray]  # "x" (n, d_x); "eps" (n, d_z) where the model is noisy; C-contiguous, of the model's dtype


class Backend(Protocol):
    """One built model. `{name: array}` always has canonical names and shapes (`specs.parameters.shapes`)."""

    def parameters(self) -> Mapping[str, Any]:
        """{name: array}. PCA before `fit`: {}."""

    def set_parameters(self, values: Mapping[str, ndarray]) -> None:
        """The inverse of `parameters`. Leaves the optimizer alone."""

    def encode(self, x: ndarray) -> Mapping[str, Any]:
        """x (n, d_x) -> {"z": (n, d_z)}, or {"mu": (n, d_z), "logvar": (n, d_z)} for a VAE."""

    def decode(self, z: ndarray, label: ndarray | None = None) -> Any:
        """z (n, d_z) -> x_hat (n, d_x): a mean in data space, never logits."""

    def prepare(self, operation: str, batch: Batch, steps: int, seed: int) -> None:
        """Untimed set-up of `steps` repetitions of "train", "loss", "encode", "decode", "generate" or "fit".

        "train" and "loss" (its value alone: no gradient, no update) draw fresh noise for each repetition with the framework's own
        generator, started from `seed`, and draw the same; "decode" reads batch["z"].
        """

    def refill(self, batch: Batch) -> None:
        """These arrays, of the same names and shapes, in place of those of `prepare`: what `run` does must follow them, so that
        nothing of its work can have been done before."""

    def run(self) -> None:
        """The timed part: `steps` repetitions. State carries on from one run to the next. May return before the device is done."""

    def block(self) -> None:
        """Wait until everything that `run` started is done."""

    def outcome(self) -> Mapping[str, Any]:
        """What the last `run` computed: {"loss": (steps,)} after "train" and "loss", the last result of any other operation."""

    def facts(self) -> Mapping[str, Any]:
        """What is in force, read back from the framework, not what was asked for: "versions" {package: version}, "variant",
        "device" (its name), "dtype", "precision" (as `build` takes it) and "threads" (None where it keeps no count)."""

    def memory(self) -> Mapping[str, int | None]:
        """Bytes, from the framework's allocator: {"alloc_peak": ..., "device_reserved_peak": ...}; None where it keeps no count.
        "planned_peak", where there is a compiler that tells: what it has planned for a dispatch of the prepared "train" or "fit"."""


class TrainableBackend(Backend, Protocol):
    """Every model but PCA."""

    def terms(self, batch: Batch) -> Mapping[str, Any]:
        """{"reconstruction": (n,), ...} in nats (squared error for `linear_ae`), unweighted."""

    def gradients(self, batch: Batch) -> Mapping[str, Any]:
        """Gradient of the loss, {name: array}."""

    def train(self, batches: Iterable[Batch]) -> Any:
        """One optimizer step a batch, with the given noise. Returns the loss of each step, before its update: (steps,)."""

    def apply_gradients(self, gradients: Mapping[str, ndarray]) -> None:
        """One optimizer step with the given gradients."""

    def optimizer_state(self) -> Mapping[str, Any]:
        """{"step": int, "m": {name: array}, "v": {name: array}}: Adam's raw moments."""

    def set_optimizer_state(self, state: Mapping[str, Any]) -> None:
        """The inverse of `optimizer_state`."""

    def native_noise(self, n: int, steps: int, seed: int) -> Any:
        """(steps, n, d_z): the noise that `run` would draw after `prepare("train", ..., seed)`, or "loss". VAE only."""


class PCABackend(Backend, Protocol):
    def fit(self, x: ndarray) -> None:
        """x (n, d_x). Afterwards `parameters` has mean, components (rows, largest entry positive), explained_variance (n - 1)."""


class BackendModule(Protocol):
    """What `impls/<framework>/backend.py`, or the target of an entry point, provides."""

    def build(self, spec: Spec, *, variant: str | None, device: str, dtype: str, precision: str) -> Backend:
        """Raises `impls.DeviceAbsent`. `precision` is "highest" (IEEE float32 products), "high" or "default" (TF32, bf16 passes)."""

    def devices(self) -> list[str]:
        """Devices that are present: "cpu", and "cuda" where there is one."""

    def copied(self, source: ndarray, device: str) -> Any:
        """A copy of an array in the framework's own memory: to be read back, as a test of how peaks are measured."""
