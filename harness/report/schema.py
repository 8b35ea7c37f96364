"""What a report reads of verify.json and of machine.json, and what is wrong with one that was edited. Other fields may be there too."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Dtype = Literal["float64", "float32"]
Name = Annotated[str, Field(min_length=1)]


class Part(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class Machine(Part):
    cpu: str
    cores: int
    gpu: list[str]


class Worst(Part):
    check: int
    what: str | None
    error: float
    gate: float


class Row(Part):
    spec: Name
    implementation: Name
    dtype: Dtype
    device: Name
    precision: str
    state: str
    reason: str | None
    margin: float | None
    worst: Worst | None
    comparisons: int
    certificate: str | None
    failures: list[str] = []


class Check(Part):
    number: int
    name: str
    state: str
    reason: str | None
    comparisons: int
    error: float | None
    gate: float | None
    margin: float | None
    what: str | None


class Certificate(Part):
    id: Name
    spec: Name
    spec_hash: str
    implementation: Name
    dtype: Dtype
    device: Name
    precision: str
    code_hash: str
    versions: dict[str, Any]
    passed: bool
    checks: list[Check]


class Verify(Part):
    made: str
    command: str
    level: str
    machine: Machine
    versions: dict[str, Any]
    seconds: float
    rows: list[Row]
    certificates: list[Certificate]


class Capacity(Part):
    """A row of machine.json."""

    framework: Name
    operation: Name
    dtype: str
    size: int
    unit: Literal["FLOP/s", "B/s", "s"]
    value: float | None
    low: float | None
    high: float | None
    reason: str | None


class Card(Part):
    machine: dict[str, Any]
    device: str
    cache_bytes: int | None
    versions: dict[str, Any] = {}
    clock_mhz: dict[str, float] | None = None
    rows: list[Capacity]


def wrong_verify(content: dict) -> str | None:
    """What is wrong with verify.json, or None."""
    if problem := _problem(Verify, content):
        return problem
    if not content["rows"]:
        return "it has no rows"
    for number, row in enumerate(content["rows"], 1):
        if row["state"] == "pass" and (row["certificate"] is None or row["margin"] is None or not math.isfinite(row["margin"])):
            return f"row {number} is a pass without a margin or a certificate"
    return None


def wrong_card(content: dict) -> str | None:
    """What is wrong with machine.json, or None."""
    return _problem(Card, content)


def _problem(model: type[BaseModel], content: dict) -> str | None:
    try:
        model.model_validate(content)
    except ValidationError as error:
        first, *rest = error.errors(include_url=False)
        within = first["loc"][:-1]
        if first["type"] == "missing":
            absent = [one["loc"][-1] for one in (first, *rest) if one["type"] == "missing" and one["loc"][:-1] == within]
            return f"{f'{_place(within)} is ' if within else ''}missing {', '.join(map(str, absent))}"
        expected = first["msg"].removeprefix("Input should be ").split(" or instance of")[0]
        got = json.dumps(first["input"], default=str)
        return (
            f"{_place(first['loc'])} is not what it should be\n"
            f"  expected: {expected}\n"
            f"  got:      {got if len(got) <= 60 else f'{got[:57]}...'}"
        )
    return None


def _place(loc: tuple[int | str, ...]) -> str:
    """("certificates", 1, "checks", 0, "gate") as certificate 2, check 1, gate."""
    parts: list[str] = []
    for one in loc:
        if isinstance(one, int):
            parts[-1] = f"{parts[-1].removesuffix('s')} {one + 1}"
        else:
            parts.append(one)
    return ", ".join(parts)
