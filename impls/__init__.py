"""Implementations: how each framework computes a spec. `impls.load("torch").build(spec)`; `impls.available()` imports none."""

import difflib
import importlib
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from impls.errors import BadArray, DeviceAbsent, MissingFramework, UnknownImplementation, Unsupported
from impls.surface import Model
from specs import Spec
from specs.parameters import initial

__all__ = [
    "BadArray",
    "DeviceAbsent",
    "Implementation",
    "MissingFramework",
    "Model",
    "UnknownImplementation",
    "Unsupported",
    "available",
    "load",
]

GROUP = "isoform.implementations"
DTYPES = ("float32", "float64")
PRECISIONS = ("highest", "high", "default")


@dataclass(frozen=True)
class Implementation:
    """What is known of an implementation without importing its framework."""

    name: str
    text: str
    module: str  # has build() and devices(): see impls.contract.BackendModule
    requires: tuple[str, ...] = ()
    install: str = ""
    variant: str | None = None
    agrees_with: tuple[str, ...] = ()  # other variants of the same backend that must give the same numbers
    not_for: tuple[tuple[str, str], ...] = ()  # (model, reason)
    folder: str | None = None  # of a shipped implementation; None for a third party's
    environment: tuple[tuple[str, str], ...] = ()  # must be set before the framework is imported
    instrument: bool = False  # its folder has an instrument.py that speaks for its framework on the machine's card

    @property
    def missing(self) -> list[str]:
        return [name for name in self.requires if find_spec(name) is None]

    def reason_against(self, spec: Spec) -> str | None:
        """Why this implementation does not apply to the spec, or None."""
        return dict(self.not_for).get(spec.model)

    def backend_module(self):
        if self.missing:
            raise MissingFramework(self.name, self.missing, self.install)
        try:
            return importlib.import_module(self.module)
        except ModuleNotFoundError as error:
            if self.folder:  # a shipped one has said what it requires: then this is a fault of ours
                raise
            raise MissingFramework(self.name, [str(error.name)], self.install) from None

    def instrument_module(self):
        """What `impls.instrument` describes. Raises MissingFramework."""
        self.backend_module()
        return importlib.import_module(f"impls.{self.folder}.instrument")

    def build(
        self, spec: Spec, *, device: str = "cpu", dtype: str = "float32", precision: str = "highest", variant: str | None = None
    ) -> Model:
        """The spec's model with its initial parameters. Raises MissingFramework, DeviceAbsent or Unsupported."""
        if dtype not in DTYPES or precision not in PRECISIONS:
            raise Unsupported(f"dtype must be one of {DTYPES} and precision one of {PRECISIONS}, got {dtype!r} and {precision!r}")
        if reason := self.reason_against(spec):
            raise Unsupported(reason)
        module = self.backend_module()
        backend = module.build(spec, variant=variant or self.variant, device=device, dtype=dtype, precision=precision)
        model = Model(backend, spec, self.name, device, dtype, precision)
        if spec.trains:
            model.set_parameters(initial(spec, dtype))
        return model


@cache
def available() -> dict[str, Implementation]:
    """Every implementation by name, shipped ones first, installed or not. Imports no framework."""
    found: dict[str, Implementation] = {}
    for path in sorted(Path(__file__).parent.glob("*/framework.toml"), key=lambda p: (ORDER + (p.parent.name,)).index(p.parent.name)):
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        for entry in content["implementation"]:
            requires = (*content["requires"], *entry.get("requires", ()))
            found[entry["name"]] = Implementation(
                name=entry["name"],
                text=entry["text"],
                module=f"impls.{path.parent.name}.backend",
                requires=requires,
                install=entry.get("install", content["install"]),
                variant=entry.get("variant"),
                agrees_with=tuple(entry.get("agrees_with", ())),
                not_for=tuple(entry.get("not_for", {}).items()),
                folder=path.parent.name,
                environment=tuple(entry.get("environment", {}).items()),
                instrument=entry.get("instrument", False),
            )
    for point in entry_points(group=GROUP):
        if point.name not in found:  # a shipped name cannot be taken over
            package = point.value.split(".")[0]
            distribution = point.dist.name if point.dist else package
            text = f"third party, from the package {distribution}"
            found[point.name] = Implementation(
                point.name, text, point.value, requires=(package,), install=f"python -m pip install {distribution}"
            )
    return found


ORDER = ("numpy", "torch", "jax", "keras")  # then others by name


def load(name: str) -> Implementation:
    """The implementation of that name. Raises UnknownImplementation; whether its framework is there shows at `build`."""
    known = available()
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise UnknownImplementation(
            f"unknown implementation '{name}'{hint}\n  expected: one of {', '.join(known)}\n  see:      isoform list"
        )
    return known[name]
