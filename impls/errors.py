"""Errors that a user of an implementation can meet. Each message says what, and the command or the change that mends it."""

from specs import SpecError


class UnknownImplementation(SpecError):
    pass


class MissingFramework(ImportError):
    def __init__(self, name: str, missing: list[str], install: str):
        super().__init__(f"implementation '{name}' needs {', '.join(missing)}, which is not installed\n  install: {install}")


class DeviceAbsent(RuntimeError):
    def __init__(self, framework: str, device: str, present: list[str]):
        super().__init__(f"{framework} sees no device '{device}' on this machine; it sees {', '.join(present)}")


class Unsupported(RuntimeError):
    """The model has no such operation, or the implementation is not made for the spec. The message is the reason."""


class BadArray(ValueError):
    """An array that does not fit: missing, wrong shape, wrong kind, NaN or infinite."""
