"""The machine-readable record that an implementation passed every check for one spec, dtype, device, precision and variant."""

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.verify.compare import Comparison
from impls import Implementation
from specs import Spec

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Result:
    """The outcome of one check. `error`, `gate` and `what` are those of the comparison with the worst margin."""

    number: int
    name: str
    state: str  # pass, fail, n-a
    reason: str | None
    comparisons: int
    error: float | None = None
    gate: float | None = None
    margin: float | None = None
    what: str | None = None
    expected: str | None = None
    got: str | None = None
    cause: str | None = None
    seconds: float = 0.0


def judge(number: int, name: str, cause: str, made: list[Comparison], count: int, seconds: float) -> Result:
    """Pass only if every comparison passed and their number is the one announced."""
    worst = max(made, key=lambda one: (not one.passed, one.margin, one.error), default=None)
    failed = [one for one in made if not one.passed]
    reason = None
    if failed:
        reason = f"{len(failed)} of {len(made)} comparisons exceed their gate"
    elif len(made) != count:
        reason = f"{len(made)} comparisons were made, {count} are required"
    fields: dict[str, Any] = {"error": worst.error, "gate": worst.gate, "margin": worst.margin, "what": worst.what} if worst else {}
    shown: dict[str, Any] = {"expected": worst.expected, "got": worst.got, "cause": cause} if failed else {}
    return Result(number, name, "fail" if reason else "pass", reason, len(made), seconds=round(seconds, 4), **fields, **shown)


@cache
def code_hash(implementation: Implementation) -> str:
    """SHA-256 of the sources that decide what is computed and how it is checked."""
    folders = [ROOT / "specs", ROOT / "harness" / "verify", ROOT / "harness" / "data", ROOT / "impls" / "numpy"]
    folders.append(ROOT / "impls" / implementation.folder if implementation.folder else _package(implementation.module))
    digest = hashlib.sha256()
    for folder in dict.fromkeys(folders):
        files = sorted(folder.rglob("*")) if folder.is_dir() else [folder]
        for path in files:
            if path.suffix == ".py" or path.name == "framework.toml":  # specs in TOML have hashes of their own
                digest.update(path.name.encode() + b"\0" + path.read_bytes())
    for name in ("__init__.py", "surface.py"):
        digest.update((ROOT / "impls" / name).read_bytes())
    return digest.hexdigest()


def _package(module: str) -> Path:
    found = find_spec(module.split(".")[0])
    origin = Path(found.origin)
    return origin.parent if origin.name == "__init__.py" else origin


def certificate(
    implementation: Implementation, spec: Spec, dtype: str, device: str, precision: str, level: str, facts: dict, results: list[Result]
) -> dict:
    """A JSON-ready certificate. Its id is a hash of all it says but the time."""
    content = {
        "spec": spec.name,
        "spec_hash": spec.hash,
        "implementation": implementation.name,
        "variant": implementation.variant,
        "device": device,
        "dtype": dtype,
        "precision": precision,
        "code_hash": code_hash(implementation),
        "versions": facts.get("versions", {}),
        "level": level,
        "passed": bool(results) and any(r.state == "pass" for r in results) and all(r.state in ("pass", "n-a") for r in results),
        "checks": [asdict(result) for result in results],
    }
    timeless = json.dumps(content | {"checks": [{**check, "seconds": 0} for check in content["checks"]]}, sort_keys=True)
    made = datetime.now(UTC).isoformat(timespec="seconds")
    return {"id": hashlib.sha256(timeless.encode()).hexdigest()[:16], "made": made, **content}
