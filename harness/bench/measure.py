"""The worker's side of the time pass: one model of one spec in a process of its own, certified, then timed.

Two kinds of request. "prepare": import, build, first call of each operation, renewal of the certificate; "time": one cell.
"""

import importlib
import os
from collections.abc import Callable
from statistics import median
from time import perf_counter

import numpy as np

import impls
from harness.bench import compiles, once_more, quiet, rounds, transfers
from harness.bench.cells import label
from harness.hardware import energy
from impls import Implementation, Model
from impls.surface import Arrays
from specs import Spec

HELD: dict[str, Model] = {}  # the one model of this process, once it is certified


def handle(implementation: Implementation, request: dict, emit: Callable[..., None]) -> None:
    spec = Spec.model_validate_json(request["spec"])
    if request["phase"] == "prepare":
        prepare(implementation, spec, request, emit)
    else:
        time_cell(HELD["model"], spec, request, emit)


def prepare(implementation: Implementation, spec: Spec, request: dict, emit: Callable[..., None]) -> None:
    """Events: "begin" with the label of the cell about to be called first, None for the renewal; then "prepared"."""
    from harness.worker import limit_memory

    limit_memory(request["cells"][0]["device"])
    start, cells = perf_counter(), request["cells"]
    import_framework(implementation, spec)
    imported = perf_counter()
    model = build(implementation, spec, cells[0])
    built = perf_counter()
    first_call_s = {}
    for cell in cells:
        emit("begin", cell=label(cell))
        first_call_s[label(cell)] = first_call(model, spec, cell, request["seed"])
    emit("begin", cell=None)

    from harness.verify.renew import renew  # not before: it imports much, which must not be taken off import_s

    renewed = renew(model, min(cell["batch_size"] for cell in cells), tuple(dict.fromkeys(cell["operation"] for cell in cells)))
    if renewed["passed"]:
        HELD["model"] = model
    emit(
        "prepared",
        passed=renewed["passed"],
        reason=renewed["message"],
        certificate=renewed["id"],
        code_hash=renewed["code_hash"],
        versions=renewed["versions"],
        margin=renewed["margin"] if renewed["passed"] else None,  # a failed one may be infinite
        import_s=imported - start,
        build_s=built - imported,
        first_call_s=first_call_s,
    )


def time_cell(model: Model, spec: Spec, request: dict, emit: Callable[..., None]) -> None:
    """Events: "settled", then "measured". Its state is "ok", or "mismatch" or "error" with a reason and without times."""
    cell, operation = request["cell"], request["cell"]["operation"]
    batch = batch_of(spec, cell)
    settled = rounds.settle(model, operation, batch, request["seed"], cell["device"])
    emit("settled", steps=settled.steps)
    steps_before, compiled_before = trained_steps(model), compiles.count()
    steady, still_falling = rounds.steady(model)
    before = quiet.counters()
    seconds = rounds.timed(model, request["rounds"])
    found = quiet.between(before, quiet.counters(), cell["device"])
    step_s = median(seconds) / settled.steps
    compiled, steps_done = difference(compiles.count(), compiled_before), trained_steps(model) - steps_before
    affinity, facts = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None, model.facts()
    counted = steady + len(seconds)  # rounds since the counting
    excess = steps_done - settled.steps * counted * (operation == "train")
    wrong = work_not_done(model, spec, operation, batch, settled.steps, excess) or impossible(spec, cell, step_s)
    if wrong := wrong or once_more.differs(model, cell, batch, settled, counted, median(seconds), request["seed"]):
        emit("measured", state="mismatch", reason=wrong)
    elif (moved := transfers.implicit(model))[0]:
        emit("measured", state="error", reason=f"a round moves arrays between host and device: {moved[1]}")
    elif late := rounds.not_waited_for(model, step_s * settled.steps):
        emit("measured", state="error", reason=f"block() does not wait: {late:.2g} s after it the result of a round was not there")
    elif compiled:
        emit("measured", state="error", reason=f"{compiled} compilations inside the timed rounds: that is no steady state")
    elif other := [f"{name} {facts[name]}, not {cell[name]}" for name in ("dtype", "precision") if facts[name] != cell[name]]:
        emit("measured", state="error", reason=f"runs in {' and '.join(other)}: read back after the timed rounds")
    elif (facts["device"] == "cpu") != (cell["device"] == "cpu"):
        emit("measured", state="error", reason=f"runs on {facts['device']}; asked for was {cell['device']}")
    elif affinity is not None and affinity != request["affinity"]:
        emit("measured", state="error", reason=f"runs on the CPUs {affinity}; given were {request['affinity']}")
    elif (threads := facts.get("threads")) not in (None, given := len(request["affinity"])):  # None: it follows the affinity
        emit("measured", state="error", reason=f"runs {threads} threads; given were {given}, as many as CPUs")
    else:
        emit(
            "measured",
            state="ok",
            reason=None,
            steps_per_round=settled.steps,
            rounds_s=seconds,
            wait_s=settled.wait_s,
            warm_up={"rounds": settled.warm_up_rounds + steady, "still_falling": still_falling},
            compiles=compiled,
            transfers=moved[0],
            quiet=found,
            energy=energy.per_step(lambda: once_more.a_round(model), settled.steps, cell["device"]) if request.get("energy") else None,
            affinity=affinity,
            threads=facts.get("threads"),
            facts=facts,
        )


def import_framework(implementation: Implementation, spec: Spec | None = None) -> None:
    """Its packages, its backend module, and the file of the spec's model. The worker itself has NumPy and pydantic already."""
    if not implementation.missing:
        for package in implementation.requires:
            importlib.import_module(package)
    implementation.backend_module()
    if spec and implementation.folder and not implementation.reason_against(spec):
        importlib.import_module(f"impls.{implementation.folder}.{spec.model}")


def build(implementation: Implementation, spec: Spec, cell: dict) -> Model:
    return implementation.build(spec, device=cell["device"], dtype=cell["dtype"], precision=cell["precision"])


def first_call(model: Model, spec: Spec, cell: dict, seed: int) -> float:
    """Seconds of the very first step of an operation: transfer, trace, lower, compile, run, wait."""
    batch = batch_of(spec, cell)
    if not spec.trains and cell["operation"] != "fit" and not model.parameters():
        model.fit(batch_of(spec, {"operation": "fit", "batch_size": spec.data.train})["x"])
    start = perf_counter()
    model.prepare(batch, 1, cell["operation"], seed)
    model.run()
    model.block()
    return perf_counter() - start


def batch_of(spec: Spec, cell: dict) -> Arrays:
    """Rows of the spec's own training data, over again where the batch is larger; for "decode", standard normal z."""
    from harness import data  # not before a framework's import was timed: it imports scikit-learn

    n = cell["batch_size"]
    if cell["operation"] == "decode":
        return {"z": np.random.default_rng([spec.seed, 5]).standard_normal((n, spec.d_z))}
    rows = data.load(spec).train
    return {"x": rows.take(np.arange(n) % len(rows), axis=0)}  # one array, so that a batch too large fails at once


def trained_steps(model: Model) -> int:
    return model.optimizer_state()["step"] if model.spec.trains else 0


def work_not_done(model: Model, spec: Spec, operation: str, batch: Arrays, steps: int, excess: int) -> str | None:
    """What is wrong with what the timed rounds left behind, or None. What is not trained is compared with NumPy in float64."""
    outcome = model.outcome()
    if operation in ("train", "loss"):
        losses = outcome["loss"]
        if excess:
            return f"the optimizer has made {abs(excess)} steps {'more' if excess > 0 else 'less'} than were timed"
        if losses.shape != (steps,) or not np.isfinite(losses).all():
            return f"a round of {steps} steps must leave {steps} finite losses; it left {losses[:8]}, shape {losses.shape}"
        return None
    if operation == "generate":  # its draws are the framework's own, and how many there were is known in `once_more`
        return None
    reference = impls.load("numpy").build(spec, dtype="float64")
    if operation == "fit":  # a fit is settled only up to the data's own symmetries; the renewal has compared it with LAPACK
        model.fit(batch["x"])
        return differs(model, operation, outcome, model.parameters())
    reference.set_parameters(model.parameters())
    if operation == "encode":
        return differs(model, operation, outcome, reference.encode(batch))
    return differs(model, operation, outcome, {"x_hat": reference.decode(batch["z"])})


FLOPS_A_CPU = 5e9 * 64  # a second, at most: two fused products and sums of 512 bits in float32 in each of 5e9 cycles; devices: 1e15


def impossible(spec: Spec, cell: dict, step_s: float) -> str | None:
    """Work that no machine does in that time was not done: hoisted out of the loop, or remembered."""
    from harness.hardware.bound import flops

    needed = flops(spec, cell["operation"], cell["batch_size"])
    most = FLOPS_A_CPU * len(os.sched_getaffinity(0)) if cell["device"] == "cpu" and hasattr(os, "sched_getaffinity") else 1e15
    if needed > most * step_s:
        return f"{needed:.2g} floating-point operations in {step_s:.2g} s a step cannot be: a compiler or a cache has left the work out"
    return None


def differs(model: Model, operation: str, got: Arrays, wanted: Arrays) -> str | None:
    """Where the model's gates are exceeded (NaN exceeds them too), or None."""
    from harness.verify.compare import Comparisons
    from harness.verify.renew import gates

    near, far = gates(model)
    record = Comparisons()
    record.closes(operation, got, wanted, far if np.isfinite(far) else near)
    for one in record.made:
        if not one.passed:
            return f"timed {one.what} is off by {one.error:.3g}, allowed is {one.gate:.3g}: expected {one.expected}, got {one.got}"
    return None


def difference(now: int | None, before: int | None) -> int | None:
    return None if now is None or before is None else now - before
