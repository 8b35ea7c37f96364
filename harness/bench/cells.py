"""What there is to measure: one cell for each spec, implementation and operation."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import NamedTuple

from impls import Implementation
from impls.surface import operations
from specs import Spec

TIMED = ("train", "loss", "fit", "encode", "decode", "generate")
REMEMBERED = ("train", "fit")  # what the memory pass runs


@dataclass(frozen=True)
class Cell:
    __pydantic_config__ = {"extra": "forbid"}  # where it is read from a journal

    spec: str
    spec_hash: str
    implementation: str
    operation: str  # one of impls.surface.operations
    device: str
    dtype: str
    precision: str
    batch_size: int  # rows that one step of the operation takes in
    replica: int = 0  # 1: the same once more, the A/A control

    def row(self) -> dict:
        return asdict(self)


def label(cell: dict) -> str:
    """Of a cell within one process: the operation and how many rows a step of it takes in."""
    return f"{cell['operation']} {cell['batch_size']}"


CELL_FIELDS = tuple(field.name for field in fields(Cell))


class Entry(NamedTuple):
    """A cell and what is known of it before anything runs. `state`: pending, n-a or not-installed; `reason`: why not pending."""

    cell: Cell
    state: str
    reason: str | None

    def row(self) -> dict:
        return {**self.cell.row(), "state": self.state, "reason": self.reason}


def cells(
    specs: Iterable[Spec],
    implementations: Iterable[Implementation],
    operations_wanted: Iterable[str] = TIMED,
    dtype: str = "float32",
    device: str = "cpu",
    batch_sizes: Sequence[int] = (),
    precision: str = "highest",
) -> list[Entry]:
    """Every combination; those that do not apply, or are not installed, with the reason. `batch_sizes`: by default each spec's own."""
    wanted, implementations = set(operations_wanted), list(implementations)
    return [
        Entry(
            Cell(spec.name, spec.hash, implementation.name, operation, device, dtype, precision, size),
            *_standing(implementation, spec),
        )
        for spec in specs
        for operation in operations(spec)
        if operation in wanted
        for size in rows(spec, operation, batch_sizes)
        for implementation in implementations
    ]


def rows(spec: Spec, operation: str, batch_sizes: Sequence[int] = ()) -> list[int]:
    """A fit takes in the whole training set, every other operation a batch: how many rows, each number once."""
    return [spec.data.train] if operation == "fit" else list(dict.fromkeys(batch_sizes)) or [spec.training.batch_size]


def _standing(implementation: Implementation, spec: Spec) -> tuple[str, str | None]:
    if reason := implementation.reason_against(spec):
        return "n-a", reason
    if implementation.missing:
        return "not-installed", f"needs {', '.join(implementation.missing)}: {implementation.install}"
    return "pending", None
