"""Specs: what is computed, with no framework in it. `specs.load("vae")` or `specs.load("my_vae.toml")`."""

import difflib
import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from specs.errors import SpecError
from specs.schema import DATA_SETS, MODELS, Spec

__all__ = ["MODELS", "Spec", "SpecError", "load", "names"]

FOLDER = Path(__file__).parent
ORDER = ("pca", "linear_ae", "ae", "vae", "beta_vae", "linear_vae")  # simplest first; others follow by name


def names() -> list[str]:
    """Names of the shipped specs."""
    stems = {path.stem for path in FOLDER.glob("*.toml")}
    return [name for name in ORDER if name in stems] + sorted(stems - set(ORDER))


def load(name: str | os.PathLike) -> Spec:
    """The spec of a shipped name or of a TOML file's path. Raises SpecError."""
    text = os.fspath(name)
    path = Path(text)
    if text in names():
        path = FOLDER / f"{text}.toml"
    elif path.suffix != ".toml":
        near = difflib.get_close_matches(text, names(), 1)
        raise SpecError(
            f"unknown spec '{text}'{_did_you_mean(near)}\n"
            f"  expected: one of {', '.join(names())}, or the path of a .toml file\n"
            f"  see:      isoform list"
        )
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"cannot read the spec {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is not UTF-8 text: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{path} is not valid TOML: {error}") from None
    content["name"] = path.stem
    try:
        spec = Spec.model_validate(content)
    except ValidationError as error:
        raise SpecError(_explain(error, path)) from None
    if text not in names():
        READ_FROM[spec.name, spec.hash] = text
    return spec


READ_FROM: dict[tuple[str, str], str] = {}  # (name, hash) -> the file that a user's own spec was read from


def given(spec: Spec) -> str:
    """By what `load` finds the spec: the name of a shipped one, the path of another."""
    return READ_FROM.get((spec.name, spec.hash), spec.name)


def _did_you_mean(near: list[str]) -> str:
    return f"; did you mean '{near[0]}'?" if near else ""


def _explain(error: ValidationError, path: Path) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        *sections, key = [part for part in problem["loc"] if part not in DATA_SETS] or [""]
        table = f" [{'.'.join(str(part) for part in sections)}]" if sections else ""
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(key), _keys(problem["loc"][:-1]), 1)
            lines.append(f"unknown key '{key}' in {path}{table}{_did_you_mean(near)}")
        elif problem["type"] == "missing":
            lines.append(f"missing key '{key}' in {path}{table}")
        elif key == "":
            lines.append(f"{path}: {problem['msg'].removeprefix('Value error, ')}")
        else:
            got = problem.get("input")
            shown = "" if isinstance(got, dict) else f", got {got!r}"
            lines.append(f"bad value for '{key}' in {path}{table}: {_lower(problem['msg'].removeprefix('Value error, '))}{shown}")
    return "\n".join(lines)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _keys(where: tuple) -> list[str]:
    """The keys of the table at `where`, such as ("data", "digits") or ("optimizer",)."""
    if where[:1] == ("data",):
        return list(DATA_SETS[where[1]].model_fields) if len(where) > 1 else ["name"]
    table: Any = Spec.model_fields[where[0]].annotation if where else Spec
    return [key for key in table.model_fields if table is not Spec or key != "name"]
