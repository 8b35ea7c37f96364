"""The shapes that the model files' signatures give are those that run: jaxtyping and beartype check every call of every function."""

import pytest

import impls

CHECKED = """
import functools, importlib, inspect, sys
import numpy as np
from beartype import beartype
from jaxtyping import TypeCheckError, jaxtyped
import impls, specs
from harness import data
from specs.noise import batches

one, called = impls.load("{name}"), set()
every = [*map(specs.load, specs.names()), specs.load("ae").replace(architecture={{"activation": "gelu"}})]
files = [importlib.import_module(f"impls.{{one.folder}}.{{name}}") for name in ("layers", *specs.MODELS)]

@functools.cache
def checked(function):
    strict = jaxtyped(function, typechecker=beartype)
    def call(*args, **kwargs):
        called.add(function.__qualname__)
        return strict(*args, **kwargs)
    return functools.wraps(function)(call)

def ours(value):
    return inspect.isfunction(value) and value.__module__ in {{file.__name__ for file in files}} and "Float[" in inspect.getsource(value)

annotated = set()
for file in files:
    for owner in [file, *(value for value in vars(file).values() if inspect.isclass(value) and value.__module__ == file.__name__)]:
        for key, value in list(vars(owner).items()):
            if ours(value) and key != "__init__":
                annotated.add(value.__qualname__)
                setattr(owner, key, checked(value))
            elif isinstance(value, dict) and owner is file:  # a table of functions
                for name, row in value.items():
                    if isinstance(row, tuple):
                        value[name] = tuple(checked(entry) if ours(entry) else entry for entry in row)

for spec in every:
    model = one.build(spec, dtype="float64")
    x = data.load(spec).train
    if spec.trains:
        given = list(batches(spec, x, 2))
        model.terms(given[0]), model.gradients(given[0]), model.train(given)
    else:
        model.fit(x)
    model.encode({{"x": x[:7]}}), model.decode(np.zeros((7, spec.d_z)))
vae = sys.modules[f"impls.{{one.folder}}.vae"]
print(sorted(annotated - called))
try:
    vae.kl({array}, {array}[:, :1])
except TypeCheckError:
    print("caught")
"""
ARRAY = {
    "numpy": "np.zeros((3, 2))",
    "torch": "sys.modules['torch'].zeros((3, 2))",
    "jax": "sys.modules['jax'].numpy.zeros((3, 2))",
    "keras-torch": "sys.modules['torch'].zeros((3, 2))",
}


@pytest.mark.parametrize("implementation", ARRAY)
def test_every_annotated_function_is_called_with_the_shapes_it_names(python, implementation):
    code = CHECKED.format(name=implementation, array=ARRAY[implementation])
    uncalled, caught = python(code, **dict(impls.load(implementation).environment)).splitlines()
    assert caught == "caught"
    assert uncalled == "[]"
