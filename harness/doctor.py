"""Does each implementation start on this machine? One small model, one step, in a worker."""

from collections.abc import Callable

from harness.errors import WorkerDied
from impls import Implementation


def examine(implementations: list[Implementation]) -> dict[str, dict[str, str]]:
    """{name: {"state": "ok" or a reason's kind, "detail": versions and devices, or what to do}}. The parent's side."""
    from harness.processes import Worker

    found = {}
    for one in implementations:
        if one.missing:
            found[one.name] = {"state": "not-installed", "detail": f"needs {', '.join(one.missing)}: {one.install}"}
            continue
        try:
            with Worker(one) as worker:
                *_, facts, last = [{}, *worker.request("doctor", silence_s=120)]
        except WorkerDied as death:
            found[one.name] = {"state": death.state, "detail": death.detail}
            continue
        if last["event"] == "done":
            versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
            found[one.name] = {"state": "ok", "detail": f"{versions}; devices {', '.join(facts['devices'])}"}
        else:
            found[one.name] = {"state": last["kind"], "detail": last["message"]}
    return found


def handle(implementation: Implementation, request: dict, emit: Callable[..., None]) -> None:
    """The worker's side: build the smallest spec and train one step."""
    import specs
    from harness import data
    from specs.noise import batches

    spec = specs.load("linear_ae")
    model = implementation.build(spec)
    model.train(batches(spec, data.load(spec).train, 1, model.dtype))
    emit("facts", versions=model.facts()["versions"], devices=implementation.backend_module().devices())
