"""The surface that users, tests and the harness see: NumPy arrays in and out, checked in, copied out."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from impls.errors import BadArray, Unsupported
from specs import Spec
from specs.parameters import shapes

Arrays = dict[str, np.ndarray]


def operations(spec: Spec) -> tuple[str, ...]:
    """What a model of this spec can be timed at."""
    if not spec.trains:
        return ("fit", "encode", "decode")
    return ("train", "loss", "encode", "decode", *(["generate"] if spec.noisy else []))


class Model:
    """A built model, over an `impls.contract.Backend`. Arrays must be finite, of the right shape, and are cast to the model's dtype.

    Batches: {"x": (n, d_x)} and, for a VAE, {"eps": (n, d_z)}. Parameters: {name: array}, canonical names and shapes.
    Raises BadArray or Unsupported. What comes back is never a view of the model's own memory.
    """

    def __init__(self, backend: Any, spec: Spec, implementation: str, device: str, dtype: str, precision: str):
        self.backend, self.spec = backend, spec
        self.implementation, self.device, self.dtype, self.precision = implementation, device, dtype, precision
        self.given: Arrays = {}  # to the last `prepare`

    def __repr__(self) -> str:
        return f"<{self.spec.name} in {self.implementation}: {self.dtype} on {self.device}>"

    def parameters(self) -> Arrays:
        return _copies(self.backend.parameters())

    def set_parameters(self, values: Mapping[str, np.ndarray]) -> None:
        self.backend.set_parameters(self._named(values, "parameter"))

    def fit(self, x: np.ndarray) -> None:
        """PCA only: mean, components and explained variance of the rows of x (n, d_x), n >= 2."""
        self._only(not self.spec.trains, "fit")
        x = self._x(x)
        if len(x) < max(2, self.spec.d_z):
            raise BadArray(f"fit needs at least {max(2, self.spec.d_z)} rows for {self.spec.d_z} components, got {len(x)}")
        self.backend.fit(x)

    def terms(self, batch: Mapping[str, np.ndarray]) -> Arrays:
        """{"reconstruction": (n,), ...}, per example, unweighted."""
        self._only(self.spec.trains, "terms")
        return _copies(self.backend.terms(self._batch(batch)))

    def gradients(self, batch: Mapping[str, np.ndarray]) -> Arrays:
        """Gradient of the loss (the mean over the batch of the weighted terms), {name: array}."""
        self._only(self.spec.trains, "gradients")
        return _copies(self.backend.gradients(self._batch(batch)))

    def train(self, batches: Iterable[Mapping[str, np.ndarray]]) -> np.ndarray:
        """One optimizer step a batch. Returns each step's loss, before its update: (steps,). State carries on."""
        self._only(self.spec.trains, "train")
        return np.array(self.backend.train(self._batches(batches)))

    def apply_gradients(self, gradients: Mapping[str, np.ndarray]) -> None:
        """One optimizer step with the given gradients."""
        self._only(self.spec.trains, "apply_gradients")
        self.backend.apply_gradients(self._named(gradients, "gradient"))

    def optimizer_state(self) -> dict:
        """{"step": int, "m": {name: array}, "v": {name: array}}: first and second moments, not bias-corrected."""
        self._only(self.spec.trains, "optimizer_state")
        state = self.backend.optimizer_state()
        return {"step": int(state["step"]), "m": _copies(state["m"]), "v": _copies(state["v"])}

    def set_optimizer_state(self, state: Mapping) -> None:
        self._only(self.spec.trains, "set_optimizer_state")
        moments = {part: self._named(_get(state, part), f"moment {part} of") for part in ("m", "v")}
        self.backend.set_optimizer_state({"step": int(_get(state, "step")), **moments})

    def encode(self, batch: Mapping[str, np.ndarray]) -> Arrays:
        """{"z": (n, d_z)}, or {"mu": (n, d_z), "logvar": (n, d_z)} for a VAE."""
        self._fitted()
        return _copies(self.backend.encode(self._x(_get(batch, "x") if isinstance(batch, Mapping) else batch)))

    def decode(self, z: np.ndarray, label: np.ndarray | None = None) -> np.ndarray:
        """Mean in data space (n, d_x)."""
        self._fitted()
        return np.array(self.backend.decode(self._array("z", z, self.spec.d_z), label))

    def generate(self, n: int, seed: int) -> np.ndarray:
        """Means (n, d_x) of n draws from the prior, by the framework's own generator."""
        self._only(self.spec.noisy, "generate")
        self.prepare({"x": np.zeros((n, self.spec.d_x))}, 1, operation="generate", seed=seed)
        self.run()
        self.block()
        return self.outcome()["x_hat"]

    def native_noise(self, n: int, steps: int, seed: int) -> np.ndarray:
        """(steps, n, d_z): what `run` will draw after `prepare(..., seed=seed)`."""
        self._only(self.spec.noisy, "native_noise")
        return np.array(self.backend.native_noise(n, steps, seed))

    def prepare(self, batch: Mapping[str, np.ndarray], steps: int, operation: str = "train", seed: int = 0) -> None:
        """Untimed: put `batch` on the device and make `run` repeat `operation` `steps` times with native noise."""
        self._only(operation in operations(self.spec), operation)
        if steps < 1:
            raise BadArray(f"steps must be at least 1, got {steps}")
        if operation == "decode":
            self.given = {"z": self._array("z", _get(batch, "z"), self.spec.d_z)}
        else:
            self.given = {"x": self._x(_get(batch, "x"))}
        self.backend.prepare(operation, self.given, steps, seed)
        self.run, self.block = self.backend.run, self.backend.block  # type: ignore[method-assign]  # nothing of ours inside a timed region

    def refill(self, batch: Mapping[str, np.ndarray]) -> None:
        """Untimed: other rows, as many, in place of those that `prepare` was given; nothing else is prepared anew."""
        if not self.given:
            raise Unsupported("refill() comes after prepare()")
        other = {name: self._array(name, _get(batch, name), array.shape[1]) for name, array in self.given.items()}
        for name, array in self.given.items():
            if len(other[name]) != len(array):
                raise BadArray(f"spec {self.spec.name}: '{name}' was prepared with {len(array)} rows, got {len(other[name])}")
        self.backend.refill(other)

    def run(self) -> None:
        raise Unsupported("run() comes after prepare()")

    def block(self) -> None:
        raise Unsupported("block() comes after prepare()")

    def outcome(self) -> Arrays:
        """What the last `run` computed: {"loss": (steps,)} after "train" and "loss"; else the arrays of its last repetition."""
        return _copies(self.backend.outcome())

    def facts(self) -> dict:
        return dict(self.backend.facts())

    def memory(self) -> dict:
        return dict(self.backend.memory())

    def _only(self, condition: bool, operation: str) -> None:
        if not condition:
            raise Unsupported(
                f"model '{self.spec.model}' (spec {self.spec.name}) has no '{operation}'; it has {', '.join(operations(self.spec))}"
            )

    def _fitted(self) -> None:
        if not self.spec.trains and not self.backend.parameters():
            raise Unsupported(f"spec {self.spec.name}: call fit(x) or set_parameters(...) before encode and decode")

    def _batches(self, batches: Iterable[Mapping[str, np.ndarray]]) -> Iterator[Arrays]:
        count = 0
        for count, batch in enumerate(batches, 1):
            yield self._batch(batch)
        if count == 0:
            raise BadArray("train needs at least one batch, got none")

    def _batch(self, batch: Mapping[str, np.ndarray]) -> Arrays:
        wanted = {"x": self.spec.d_x} | ({"eps": self.spec.d_z} if self.spec.noisy else {})
        if set(batch) != set(wanted):
            raise BadArray(f"spec {self.spec.name}: a batch has the keys {sorted(wanted)}, got {sorted(batch)}")
        checked = {name: self._array(name, batch[name], width) for name, width in wanted.items()}
        rows = {name: len(array) for name, array in checked.items()}
        if len(set(rows.values())) != 1:
            raise BadArray(f"spec {self.spec.name}: the arrays of a batch differ in rows: {rows}")
        return checked

    def _x(self, x: np.ndarray) -> np.ndarray:
        return self._array("x", x, self.spec.d_x)

    def _array(self, name: str, value: np.ndarray, width: int) -> np.ndarray:
        array = np.asarray(value)
        if array.ndim != 2 or array.shape[1] != width or len(array) == 0:
            raise BadArray(f"spec {self.spec.name}: '{name}' must have shape (n, {width}) with n >= 1, got {array.shape}")
        return self._finite(name, array)

    def _named(self, values: Mapping[str, np.ndarray], what: str) -> Arrays:
        wanted = shapes(self.spec)
        if set(values) != set(wanted):
            missing, extra = sorted(set(wanted) - set(values)), sorted(set(values) - set(wanted))
            raise BadArray(f"spec {self.spec.name}: {what} names do not fit: missing {missing}, unknown {extra}")
        for name, shape in wanted.items():
            if np.shape(values[name]) != shape:
                raise BadArray(f"spec {self.spec.name}: {what} '{name}' must have shape {shape}, got {np.shape(values[name])}")
        return {name: self._finite(name, np.asarray(values[name])) for name in wanted}

    def _finite(self, name: str, array: np.ndarray) -> np.ndarray:
        if array.dtype.kind not in "fiu":
            raise BadArray(f"spec {self.spec.name}: '{name}' must hold real numbers, got dtype {array.dtype}")
        cast = np.ascontiguousarray(array, self.dtype)
        if not np.isfinite(cast).all():
            where = tuple(int(i) for i in np.argwhere(~np.isfinite(cast))[0])
            raise BadArray(f"spec {self.spec.name}: '{name}' holds {cast[where]} at {where}; every value must be finite in {self.dtype}")
        return cast


def _get(values: Mapping, key: str) -> Any:
    if key not in values:
        raise BadArray(f"'{key}' is missing; given are {sorted(values)}")
    return values[key]


def _copies(arrays: Mapping) -> Arrays:
    return {name: np.array(array) for name, array in arrays.items()}
