"""Shipped specs on few random rows: importing digits takes a second, in every process."""

import json
from pathlib import Path

import specs
from specs import Spec

DATA = {"name": "random_bernoulli", "shape": [8, 8], "train": 256, "test": 64}


def small(name: str, **data) -> Spec:
    return specs.load(name).replace(data=DATA | data)


def small_file(folder: Path, name: str, **data) -> Path:
    """The same as a file, for the command line."""
    path = folder / f"{name}.toml"
    shipped = Path(specs.__file__).with_name(path.name).read_text(encoding="utf-8")
    rows = [f"{key} = {json.dumps(value)}" for key, value in (DATA | data).items()]
    path.write_text("\n".join([shipped, "[data]", *rows]), encoding="utf-8")
    return path
