"""How often has this process compiled? Asks the frameworks that are loaded, and loads none."""

import gc
import sys
from functools import cache


def count() -> int | None:
    """Compilations of JAX, frames of torch.compile and traces of TensorFlow so far; None where no framework is there to tell.

    Only the difference of two counts means something: JAX is counted from the first call of this function on.
    """
    counters = {"jax": _jax, "torch": _torch, "tensorflow": _tensorflow}
    counts = [counter() for name, counter in counters.items() if name in sys.modules]
    return sum(counts) if counts else None


def _jax() -> int:
    return len(_jax_compilations())


@cache
def _jax_compilations() -> list[str]:
    compilations: list[str] = []

    def on_event(name: str, *_: object, **__: object) -> None:
        if name.endswith("backend_compile_duration"):
            compilations.append(name)

    sys.modules["jax"].monitoring.register_event_duration_secs_listener(on_event)
    return compilations


def _torch() -> int:
    if "torch._dynamo.utils" not in sys.modules:  # the compiler has not even been imported
        return 0
    return sys.modules["torch._dynamo.utils"].counters["frames"]["total"]


def _tensorflow() -> int:
    """Traces of every tf.function that is alive: TensorFlow keeps no total that can be read."""
    function = type(sys.modules["tensorflow"].function(lambda: None))
    return sum(one.experimental_get_tracing_count() for one in gc.get_objects() if type(one) is function)
