"""One implementation of one spec within one block: its process, and its cells that are still to be measured."""

from dataclasses import dataclass, field
from pathlib import Path

from harness.bench.cells import Cell, label
from harness.errors import WorkerDied
from harness.processes import Worker, cpus
from impls import Implementation
from specs import Spec


@dataclass(frozen=True)
class Outcome:
    """How a cell ended: its state, the reason unless that is "ok", and what was measured if it is."""

    state: str
    reason: str | None = None
    measured: dict = field(default_factory=dict)


class Station:
    """Workers die; a station opens another one for the cells that are left.

    `environment`: of its process, besides the usual; `root`: as of Worker.
    """

    def __init__(
        self,
        implementation: Implementation,
        spec: Spec,
        cells: list[Cell],
        environment: dict[str, str],
        seed: int,
        silence_s: float,
        root: Path | None = None,
    ):
        self.implementation, self.spec, self.cells = implementation, spec, cells
        self.environment, self.seed, self.silence_s = environment, seed, silence_s
        self.root = root
        self.worker: Worker | None = None
        self.prepared: dict | None = None
        self.reopened = False

    def open(self) -> dict[Cell, Outcome]:
        """Start a process, if there is none. Returns what was lost. From the main thread: a worker dies with the thread that started it."""
        try:
            self.worker = self.worker or Worker(self.implementation, environment=self.environment, root=self.root)
        except WorkerDied as death:
            return self._lose(self.cells, Outcome(death.state, death.detail))
        return {}

    def prepare(self) -> dict[Cell, Outcome]:
        """Import, build, first calls, certificate. Returns what was lost; where that is not everything, open and prepare again."""
        in_flight = None
        try:
            for event in self._request("measure", phase="prepare", cells=[cell.row() for cell in self.cells]):
                if event["event"] == "begin":
                    in_flight = event["cell"]
                elif event["event"] == "prepared":
                    self.prepared = event
                elif event["event"] == "error":
                    raise WorkerDied(event["kind"], event["message"])
        except WorkerDied as failure:
            lost = [cell for cell in self.cells if in_flight in (None, label(cell.row()))]
            return self._lose(lost, Outcome(failure.state, failure.detail))
        if not self.prepared["passed"]:
            return self._lose(self.cells, Outcome("mismatch", self.prepared["reason"]))
        return {}

    def time(self, cell: Cell, rounds: int, energy: bool = False) -> Outcome:
        """Time one cell, after `prepare`; `energy`: also count joules, which takes seconds."""
        self.cells = [other for other in self.cells if other != cell]
        known = {name: self.prepared[name] for name in ("certificate", "code_hash", "versions", "margin", "import_s", "build_s")}
        known["first_call_s"] = self.prepared["first_call_s"][label(cell.row())]
        return self._one("measure", known, phase="time", cell=cell.row(), rounds=rounds, affinity=cpus(), energy=energy)

    def remember(self, cell: Cell) -> Outcome:
        """The memory pass of one cell, in place of all else."""
        return self._one("memory", {}, phase="cell", cell=cell.row())

    def reach(self, cell: Cell, target: float, most_steps: int) -> Outcome:
        """Certify it, then train it until its loss on the test data is `target`, in nats an example."""
        return self._one("quality", {}, cell=cell.row(), target=target, most_steps=most_steps)

    def selftest(self, device: str) -> Outcome:
        """A known allocation, made and read back in a fresh process."""
        return self._one("memory", {}, phase="selftest", device=device)

    def close(self) -> None:
        """At once: a worker has nothing to save, and frameworks take seconds to leave."""
        if self.worker:
            self.worker.kill()
            self.worker.close()
            self.reopened = True
        self.worker = self.prepared = None

    def _one(self, task: str, known: dict, **fields: object) -> Outcome:
        outcome = Outcome("error", "the worker has answered nothing")
        try:
            for event in self._request(task, **fields):
                if event["event"] == "measured":
                    measured = {key: value for key, value in event.items() if key not in ("event", "state", "reason")}
                    state = event.get("state", "ok")
                    outcome = Outcome(state, event.get("reason"), {**known, **measured} if state == "ok" else {})
                elif event["event"] == "error":
                    outcome = Outcome(event["kind"], event["message"])
        except WorkerDied as death:
            outcome = Outcome(death.state, death.detail)
        if outcome.state != "ok":
            self.close()  # nobody knows what state it is in
        return outcome

    def _request(self, task: str, **fields: object):
        return self.worker.request(task, silence_s=self.silence_s, spec=self.spec.model_dump_json(), seed=self.seed, **fields)

    def _lose(self, cells: list[Cell], outcome: Outcome) -> dict[Cell, Outcome]:
        self.close()
        self.cells = [cell for cell in self.cells if cell not in cells]
        return dict.fromkeys(cells, outcome)
