"""The machine's card: FLOPs as another library counts them, rates that a clock would show, bounds that cannot be beaten."""

import json

import numpy as np
import pytest

import impls
import specs
from harness.errors import NOTHING_RAN, UserError, WorkerDied
from harness.hardware import bound, card, measure
from harness.report import content as report_content
from impls import Implementation
from specs import Spec
from specs.noise import batch as make_batch
from tests.test_cli import isoform

DEEP = {"latent": 3, "hidden": [11, 7], "activation": "tanh"}


def content(**changes):
    row = {"framework": "numpy", "size": 1, "unit": "FLOP/s", "low": None, "high": None, "reason": None}
    rows = [
        {**row, "operation": "matmul", "dtype": "float32", "value": 1e9},
        {**row, "operation": "matmul", "dtype": "float32", "value": 4e9, "framework": "jax"},
        {**row, "operation": "matmul", "dtype": "float64", "value": 2e9},
        {**row, "operation": "triad", "dtype": "float64", "value": 1e10, "unit": "B/s"},
        {**row, "operation": "triad", "dtype": "float64", "value": None, "unit": "B/s", "framework": "torch"},
    ]
    return {"rows": rows, "cache_bytes": 0} | changes


@pytest.mark.needs("torch")
@pytest.mark.parametrize("name", ["vae", "ae", "linear_ae", "linear_vae", "deep"])
def test_flops_are_those_that_pytorch_counts(name):
    from torch.utils.flop_counter import FlopCounterMode

    deep = Spec.model_validate({"name": "deep", "model": "vae", "architecture": DEEP, "training": {"batch_size": 9}})
    spec, n = deep if name == "deep" else specs.load(name), 9
    model = impls.load("torch").build(spec)
    batch, z = make_batch(spec, np.full((n, spec.d_x), 0.5), 0, "float32"), np.zeros((n, spec.d_z))
    calls = {"train": lambda: model.gradients(batch), "encode": lambda: model.encode(batch), "decode": lambda: model.decode(z)}
    for operation, call in calls.items():
        with FlopCounterMode(display=False) as counter:
            call()
        assert bound.flops(spec, operation, n) == counter.get_total_flops(), operation


def test_the_bound_is_the_larger_of_two_times():
    spec, n = specs.load("vae"), 128
    compute = bound.flops(spec, "train", n) / 4e9
    assert bound.bound(content(cache_bytes=None), spec, "train", n, "float32") == bound.Bound(compute, "compute")
    slow = content()
    slow["rows"][3]["value"] = 1e3
    through = bound.moved(spec, "train", n, "float32")
    assert bound.bound(slow, spec, "train", n, "float32") == bound.Bound(through / 1e3, "bandwidth")
    assert bound.bound(slow | {"cache_bytes": int(through)}, spec, "train", n, "float32").by == "compute"  # it all fits the cache
    assert bound.bound(content(rows=[]), spec, "train", n, "float32") is None
    weights = sum(value.size for value in specs.parameters.initial(spec).values())
    assert through == 4 * (n * 64 + 6 * weights)


class Watch:
    """An instrument on a clock of its own: a call takes `seconds`, a wait for the device nothing."""

    def __init__(self, monkeypatch, seconds):
        self.seconds, self.now, self.calls = seconds, 0.0, 0
        monkeypatch.setattr(measure, "perf_counter", lambda: self.now)

    def __call__(self):
        self.calls += 1
        self.now += self.seconds * (5 if self.calls == 1 else 1)  # the first one compiles

    def wait(self, result):
        pass


@pytest.mark.parametrize("seconds", [1e-7, 1e-3, 0.5])
def test_a_call_takes_what_the_clock_says(monkeypatch, seconds):
    watch = Watch(monkeypatch, seconds)
    assert measure.per_call(watch, watch) == pytest.approx(seconds, rel=1e-6)
    assert watch.now < max(100 * measure.ROUND_S, 12 * seconds)


def test_what_takes_long_is_called_twice_and_has_a_reason(monkeypatch):
    watch, events = Watch(monkeypatch, 40.0), []
    assert measure.per_call(watch, watch) == pytest.approx(40.0) and watch.calls == 2
    monkeypatch.setattr(measure, "per_call", lambda instrument, call: 40.0)
    measure.handle(impls.load("numpy"), {"device": "cpu", "cases": [["float64", "lu", 8]]}, lambda event, **fields: events.append(fields))
    assert events[0]["seconds"] is None and events[0]["reason"] == "a call takes 40 s; nothing above 5 s is measured"


@pytest.mark.parametrize(("deadly", "lost", "processes"), [({16}, {16}, 3), ({8, 16, 32}, {8, 16, 32}, 2), ({16, 32}, {16, 32, 64}, 3)])
def test_a_case_that_kills_its_process_costs_that_case(monkeypatch, deadly, lost, processes):
    """Which is not asked for again; a framework that dies of everything costs two processes, not one a case."""
    started = []

    class Mortal:
        def __init__(self, one):
            started.append(one.name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def request(self, task, silence_s, cases, device):
            for _, _, size in cases:
                if size in deadly:
                    raise WorkerDied("timeout", f"at {size}")
                yield {"event": "row", "seconds": 1.0, "work": 1.0, "reason": None}
            yield {"event": "done"}

    monkeypatch.setattr(card, "Worker", Mortal)
    monkeypatch.setattr(card, "PROCESSES", 2)
    monkeypatch.setattr(card, "DTYPES", ("float64",))
    monkeypatch.setattr(card, "SIZES", {"matmul": (4, 8, 16, 32, 64)} if deadly != {8, 16, 32} else {"matmul": (8, 16, 32)})
    rows = card.measure([impls.load("numpy")], "cpu", lambda event: None)
    assert {row.size for row in rows if row.value is None} == lost and len(started) == processes
    assert next(row.reason for row in rows if row.size == min(lost)) == f"timeout: at {min(lost)}"


@pytest.mark.parametrize("implementation", [name for name, one in impls.available().items() if one.instrument])
def test_each_framework_computes_what_is_timed(python, implementation):
    assert python(COMPUTED.format(name=implementation), **dict(impls.load(implementation).environment)) == "right"


COMPUTED = """
import numpy as np, scipy.linalg
import impls
for dtype, digits in (("float64", 1e-13), ("float32", 1e-4)):
    one = impls.load("{name}").instrument_module().Instrument("cpu", dtype)
    a, b = one.random(50, 50), one.random(50, 50)
    x, y = np.asarray(a).copy(), np.asarray(b).copy()
    assert x.dtype == dtype and x.std() > 0.5
    assert np.allclose(np.asarray(one.matmul(a, b)()), x @ y, atol=20 * digits)
    assert np.allclose(np.asarray(one.triad(a, b)()), x + 3 * y, atol=10 * digits)
    lu = np.asarray(one.lu(a)()[0])
    assert np.allclose(lu, scipy.linalg.lu_factor(x)[0], atol=50 * digits)
    single = one.random(1)
    assert np.allclose(np.asarray(one.add_one(single)()), np.asarray(single) + 1)
    assert one.reason_against("matmul") is None and "CPU" in one.reason_against("to_host")
print("right")
"""


def test_a_card_has_a_row_for_all_that_was_asked_for_and_a_reason_where_there_is_none(monkeypatch, tmp_path):
    monkeypatch.setattr(card, "PROCESSES", 2)
    monkeypatch.setattr(card, "SIZES", {"matmul": (16,), "lu": (16,), "triad": (1000,), "dispatch": (1,), "to_device": (10,)})
    events = []
    absent = Implementation(
        name="jax",
        module="no_such_package.backend",
        text="",
        requires=("no_such_package",),
        install="pip install no_such_package",
        instrument=True,
    )
    rows = card.measure([impls.load("numpy"), absent], "cpu", events.append)
    found = {(row.framework, row.operation, row.dtype): row for row in rows}
    assert len(found) == len(rows) == 2 * 9
    known = [row for row in rows if row.value is not None]
    assert {(row.operation, row.dtype) for row in known} == {
        ("matmul", "float64"), ("matmul", "float32"), ("lu", "float64"), ("lu", "float32"), ("triad", "float64"), ("dispatch", "float32"),
    }  # fmt: skip
    assert all(row.framework == "numpy" and row.low <= row.value <= row.high and row.value > 0 for row in known)
    assert all(row.reason for row in rows if row.value is None)
    assert "no_such_package" in found["jax", "matmul", "float32"].reason
    assert sum(event["event"] == "row" for event in events) == 6 + 9  # what cannot be measured is asked for once
    path = card.write(card.card(rows, "cpu", "isoform machine"), tmp_path)
    assert card.read(tmp_path)["rows"] == json.loads(path.read_text())["rows"]
    assert bound.bound(card.read(tmp_path), specs.load("vae"), "encode", 10, "float32").seconds > 0


def test_the_report_says_how_much_of_the_bound_was_reached(tmp_path):
    from harness.report.page import render, write
    from tests.results_folder import MACHINE, NAMES, SECONDS, STEPS, row, write_journal, write_verify

    spec, rows = specs.load("vae"), [row(name) for name in NAMES]
    write_verify(tmp_path, rows)
    write_journal(tmp_path)
    for path in (tmp_path / "verify.json", tmp_path / "journal.jsonl"):  # the hash of a spec that is there
        path.write_text(path.read_text().replace("5" * 64, spec.hash))
    lines = (tmp_path / "journal.jsonl").read_text().splitlines()
    head = json.loads(lines[0]) | {"specs": {spec.hash: spec.model_dump(mode="json")}}
    (tmp_path / "journal.jsonl").write_text("\n".join([json.dumps(head), *lines[1:]]) + "\n")
    assert "of the bound" not in write(tmp_path).read_text()
    known = content(schema=1, machine=head["machine"], device="cpu", cache_bytes=None)
    (tmp_path / card.FILE).write_text(json.dumps(known))
    loaded = report_content.load(tmp_path)
    for cell in loaded.cells.to_dict("records"):
        assert cell["bound_s"] == bound.flops(spec, "train", 128) / 4e9 and cell["bound_by"] == "compute"
        assert cell["of_bound"] == pytest.approx(cell["bound_s"] / (SECONDS[cell["implementation"]] * 1.01 / STEPS), rel=1e-4)
    page = render(loaded)
    assert "| a step | of the bound | blocks |" in page and f"{100 * loaded.cells['of_bound'].iloc[0]:.2g} %" in page
    (tmp_path / card.FILE).write_text(json.dumps(known | {"machine": MACHINE | {"cpu": "another"}}))
    assert report_content.load(tmp_path).card is None  # the bound of another machine is none


def test_a_damaged_card_is_a_message(tmp_path):
    assert card.read(tmp_path) is None
    for text in ("{", "[]", '{"schema": 7, "rows": []}', '{"schema": 1}'):
        (tmp_path / card.FILE).write_text(text)
        with pytest.raises(UserError, match=r"machine.json is not a whole card .*\n  mend: isoform machine"):
            card.read(tmp_path)


def test_where_nothing_can_be_measured_the_command_says_so(tmp_path):
    done = isoform("machine", "--impl", "numpy", "--device", "cuda", "--out", tmp_path)
    assert done.returncode == NOTHING_RAN and "cuda" in done.stderr and "Traceback" not in done.stderr
