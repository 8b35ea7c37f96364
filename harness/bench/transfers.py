"""Does a round move arrays between host and device behind one's back? Asks the frameworks that can tell to make that an error."""

import contextlib
import sys
from collections.abc import Iterator

from impls import Model


def implicit(model: Model) -> tuple[int | None, str | None]:
    """(0, None) after a round without implicit transfers, (1, what the framework said) after one with, (None, why) where none can tell.

    The state of the model goes on by a round.
    """
    own = model.facts()["versions"]
    guards = [guard for name, guard in GUARDS.items() if name in own and _applies(name, model)]
    if not guards:
        return None, "no framework here tells of transfers"
    try:
        with contextlib.ExitStack() as stack:
            for guard in guards:
                stack.enter_context(guard())
            model.run()
            model.block()
    except Exception as error:
        if any(mark in str(error).lower() for mark in ("disallowed", "synchroniz", "transfer")):
            return 1, f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        raise
    return 0, None


def _applies(framework: str, model: Model) -> bool:
    return framework == "jax" or model.device == "cuda"


def _jax():
    return sys.modules["jax"].transfer_guard("disallow")


@contextlib.contextmanager
def _torch() -> Iterator[None]:
    """CUDA: whatever waits for the device, as every copy to the host does, is an error."""
    cuda = sys.modules["torch"].cuda
    before = cuda.get_sync_debug_mode()
    cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        cuda.set_sync_debug_mode(before)


GUARDS = {"jax": _jax, "torch": _torch}
