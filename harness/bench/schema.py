"""The rows of a journal: which fields each kind has, the schema of all of them, and how a row of an earlier version is read."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, TypeAdapter, ValidationError

from harness.bench.cells import Cell

VERSION = 3

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]
Bytes = Annotated[int, Field(ge=0)]


class Row(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True, serialize_by_alias=True)
    version: Literal[VERSION] = Field(alias="schema")  # type: ignore[valid-type]


class Plan(BaseModel):
    """What was asked for."""

    model_config = ConfigDict(extra="forbid")
    specs: dict[str, str]  # {name: hash}
    implementations: list[str]
    dtype: str
    device: str
    batch_sizes: list[int]  # none: each spec's own
    operations: list[str]


class Stop(BaseModel):
    """When the blocks are to end."""

    model_config = ConfigDict(extra="forbid")
    blocks: Count  # at least
    most: Count
    target: float | None  # half the width of every 95 % interval, as a share of its value
    budget_s: Seconds | None


class Run(Row):
    """A bench begins: what was asked for, and where."""

    row: Literal["run"]
    made: str  # time, as in all rows: UTC, ISO 8601
    command: str
    seed: Count
    level: str
    plan: Plan | None
    machine: dict[str, Any]
    versions: dict[str, str]
    affinity: list[int]  # CPUs that every worker may use
    threads: int
    specs: dict[str, dict]  # in full, by hash
    note: str | None
    stop: Stop | None
    joined: bool  # `isoform merge` has made one run of this and the joined ones beside it


class Resume(Row):
    """What follows belongs to the run above, which was cut off. It did not run beside what came before, not even in the same block."""

    row: Literal["resume"]
    made: str


class State(Row):
    """How busy the machine was before and after the cells of a spec in a block."""

    row: Literal["state"]
    block: Count
    spec: str
    when: Literal["before", "after"]
    at: str
    load: list[float]  # over 1, 5 and 15 minutes
    memory_available: Bytes
    swap_used: Bytes
    pressure: dict[str, float | None]  # percent of the last 10 s in which some process waited, by resource


class SelfTest(Row):
    """Is a known allocation, made through an implementation's framework, read back by the way in which peaks are measured?"""

    row: Literal["selftest"]
    implementation: str
    device: str
    column: str  # of the memory table
    expected: Bytes
    got: Bytes | None
    reason: str | None
    at: str


class OfCell(Row):
    of: Literal["time", "memory", "quality"] = Field(alias="pass")
    cell: Cell
    block: Count
    at: str


class Start(OfCell):
    """A cell is about to be measured."""

    row: Literal["start"]


class Failed(OfCell):
    """A cell that has no numbers, and why."""

    row: Literal["finish"]
    state: str
    reason: str | None
    certificate: str | None = None


class Timed(OfCell):
    """A cell that was timed, in one process."""

    row: Literal["finish"]
    state: Literal["ok"]
    reason: None
    certificate: Annotated[str, Field(min_length=1)]  # id of the one renewed in this process: no number without it
    code_hash: str | None
    versions: dict[str, str] | None
    margin: float  # worst error over gate of that renewal
    import_s: Seconds | None  # these three: None where the process was not a cold one
    build_s: Seconds | None
    first_call_s: Seconds | None
    steps_per_round: Annotated[int, Field(ge=1)]
    rounds_s: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]
    wait_s: Seconds  # what waiting for the device and reading the clock cost, in each round
    warm_up: dict[str, Any] | None
    compiles: Literal[0] | None  # within the timed rounds; None where the framework keeps no count
    transfers: Literal[0] | None  # implicit ones, in one more round; None where the framework cannot tell
    quiet: dict[str, Any] | None  # what else went on while it was timed: harness.bench.quiet
    energy: dict[str, Any] | None  # harness.hardware.energy
    affinity: list[int] | None  # as read back
    threads: int | None
    facts: dict[str, Any] | None  # what the framework says of itself


class Remembered(OfCell):
    """A cell whose memory was measured, in a process of its own. None where not known; `reasons` says why."""

    row: Literal["finish"]
    state: Literal["ok"]
    reason: None
    certificate: str | None  # of the time pass
    host_peak: Bytes | None
    alloc_peak: Bytes | None
    device_reserved_peak: Bytes | None
    device_used_peak: Bytes | None
    planned_peak: Bytes | None
    reasons: dict[str, str]


class Reached(OfCell):
    """A training that was to reach a loss on the test data; `block` counts the seeds."""

    row: Literal["finish"]
    state: Literal["ok"]
    reason: str | None  # why it has not reached it
    certificate: Annotated[str, Field(min_length=1)]
    code_hash: str | None
    versions: dict[str, str] | None
    seed: Count
    target: float  # nats an example
    loss: float  # at the end
    steps: Count | None  # None where it has not reached it
    seconds: Seconds | None  # of training alone: draws and steps, without evaluations


class End(Row):
    """Nothing was left to measure."""

    row: Literal["end"]
    at: str
    stopped: str | None  # why there were not more blocks


def kind(row: Any) -> str | None:
    """The tag of a row's model below; None where there is none."""
    if not isinstance(row, dict) or row.get("row") != "finish":
        return row.get("row") if isinstance(row, dict) else None
    measured = {"time": "timed", "memory": "remembered", "quality": "reached"}
    return measured.get(row.get("pass")) if row.get("state") == "ok" else "failed"


ANY: TypeAdapter = TypeAdapter(
    Annotated[
        Annotated[Run, Tag("run")]
        | Annotated[Resume, Tag("resume")]
        | Annotated[State, Tag("state")]
        | Annotated[SelfTest, Tag("selftest")]
        | Annotated[Start, Tag("start")]
        | Annotated[Failed, Tag("failed")]
        | Annotated[Timed, Tag("timed")]
        | Annotated[Remembered, Tag("remembered")]
        | Annotated[Reached, Tag("reached")]
        | Annotated[End, Tag("end")],
        Discriminator(kind),
    ]
)


def problem(line: bytes) -> str | None:
    """What is wrong with a line of a journal, or None."""
    try:
        ANY.validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"].startswith("union_tag"):
            return "it is of no kind that a journal has"
        where = ".".join(map(str, first["loc"][1:]))  # the first is the kind of row
        return f"{where}: {first['msg']}" if where else first["msg"]
    return None


def json_schema() -> dict:
    """JSON Schema (2020-12) of a row; a journal has one a line."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A row of isoform's journal"} | ANY.json_schema()


def _from_1(row: dict) -> dict:
    """Version 1 did not yet say what was asked for, the specs in full, nor which code had run."""
    new = {
        "run": {"plan": None, "specs": {}},
        "timed": dict.fromkeys(("code_hash", "versions", "warm_up", "facts", "affinity", "threads")),
    }
    return {**new.get(kind(row), {}), **row}


def _from_2(row: dict) -> dict:
    """Version 2 had one batch size, a fixed number of blocks, and did not watch what else went on."""
    if kind(row) == "run" and row["plan"]:
        plan = dict(row["plan"])
        size = plan.pop("batch_size")
        old = {"batch_sizes": [] if size is None else [size], "operations": ["train", "fit", "encode", "decode"]}
        row = row | {"plan": plan | old}
    new = {"run": {"stop": None, "joined": False}, "timed": dict.fromkeys(("transfers", "quiet", "energy")), "end": {"stopped": None}}
    return {**new.get(kind(row), {}), **row}


MIGRATIONS: dict[int, Callable[[dict], dict]] = {1: _from_1, 2: _from_2}  # from this version to the next


def migrated(row: dict) -> dict:
    """The row as the present version would have written it. Raises KeyError for a version that is not known."""
    while row["schema"] != VERSION:
        version = row["schema"]
        row = MIGRATIONS[version](row) | {"schema": version + 1}
    return row
