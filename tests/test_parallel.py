"""The model files read line for line in parallel: the same tables, names, order and signatures in every framework.

PyTorch's files are the pattern. What another framework does otherwise stands in ALLOWED, with its reason, and nowhere else.
"""

import ast
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from fnmatch import fnmatchcase
from itertools import zip_longest
from pathlib import Path

import pytest

from specs import MODELS

ROOT = Path(__file__).parents[1]
PATTERN = "torch"
FILES = [*(f"{model}.py" for model in MODELS), "layers.py"]
FILE_LINES, FUNCTION_LINES = 90, 15


@dataclass(frozen=True)
class Allowed:
    framework: str
    file: str  # a glob
    difference: str  # a glob
    reason: str


NO_AUTOGRAD = "there is no autograd: gradients are written by hand"
OWN_LAYERS = "there are no layers to take: Dense and its activations are written out"
CALL = "what a module runs has another name in each framework"
FIT = "what Keras' own loop, fit(), runs and minimizes"
RNGS = "Flax draws initial values from an explicit generator"
ALLOWED = [
    Allowed("numpy", "*ae.py", "adds backward", NO_AUTOGRAD),
    Allowed("numpy", "layers.py", "adds d_*", NO_AUTOGRAD),
    Allowed("numpy", "layers.py", "adds *.backward", NO_AUTOGRAD),
    Allowed("numpy", "layers.py", "MLP.__init__ binds *self.derivative*", NO_AUTOGRAD),
    Allowed("numpy", "layers.py", "MLP.__call__ binds *", NO_AUTOGRAD),
    Allowed("numpy", "layers.py", "adds softplus", OWN_LAYERS),
    Allowed("numpy", "layers.py", "adds normal_cdf", OWN_LAYERS),
    Allowed("numpy", "layers.py", "adds Dense.__*__", OWN_LAYERS),
    Allowed("numpy", "layers.py", "MLP.__call__ in place of MLP.forward", CALL),
    Allowed("jax", "layers.py", "MLP.__call__ in place of MLP.forward", CALL),
    Allowed("jax", "*.py", "*.__init__ takes also rngs: nnx.Rngs", RNGS),
    Allowed("keras", "*ae.py", "adds *.call", FIT),
    Allowed("keras", "*ae.py", "adds *.compute_loss", FIT),
    Allowed("keras", "layers.py", "MLP.call in place of MLP.forward", CALL),
    Allowed("keras", "layers.py", "MLP.__init__ binds * self.built in place of *", "a layer that builds its parts at once must say so"),
    Allowed("keras", "layers.py", "adds Dense.__init__", "the layer learns d_in from its first input, unless it is built by hand"),
    Allowed("keras", "layers.py", "adds Dense.call", "the layer's own product of float64 is in float32 on PyTorch"),
    Allowed("keras", "layers.py", "adds mean", "ops.mean of float64 is in float32 on JAX and PyTorch"),
]


@dataclass(frozen=True)
class Part:
    """A class, function, method or constant of a model file."""

    parameters: tuple[str, ...] = ()
    returns: str = ""
    binds: tuple[str, ...] = ()  # local names in order; in __init__, attributes too
    docstring: str = ""


def outline(source: str) -> dict[str, Part]:
    """{name: part} in the order of the file; a method's name is Class.method."""
    found: dict[str, Part] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign):
            found |= {ast.unparse(target): Part() for target in node.targets}
        elif isinstance(node, ast.ClassDef):
            found[node.name] = Part(docstring=ast.get_docstring(node) or "")
            found |= {f"{node.name}.{inner.name}": part(inner) for inner in node.body if isinstance(inner, ast.FunctionDef)}
        elif isinstance(node, ast.FunctionDef):
            found[node.name] = part(node)
    return found


def part(node: ast.FunctionDef) -> Part:
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    named = [f"{a.arg}: {annotation(a.annotation)}" if a.annotation else a.arg for a in arguments]
    return Part(tuple(named), annotation(node.returns), tuple(bound(node)), ast.get_docstring(node) or "")


def annotation(node: ast.expr | None) -> str:
    """As written, less the space by which jaxtyping tells a single dimension from a forward reference."""
    return ast.unparse(node).replace("' ", "'") if node else ""


def bound(function: ast.FunctionDef) -> Iterator[str]:
    for node in ast.walk(function):
        for target in node.targets if isinstance(node, ast.Assign) else ():
            for one in target.elts if isinstance(target, ast.Tuple) else (target,):
                if isinstance(one, ast.Name) or function.name == "__init__":
                    yield ast.unparse(one)


def differences(pattern: str, other: str) -> Iterator[str]:
    """What the source `other` does otherwise than the source `pattern`."""
    (title, *table), (other_title, *other_table) = (ast.get_docstring(ast.parse(s), clean=False).splitlines() for s in (pattern, other))
    start = title.split(", in ")[0] + ", in "
    if not other_title.startswith(start):
        yield f"title '{other_title}' in place of '{start}...'"
    for line, other_line in zip_longest(table, other_table, fillvalue=""):
        if line != other_line:
            yield f"table line '{other_line.strip()}' in place of '{line.strip()}'"
    parts, other_parts = outline(pattern), outline(other)
    for _, i, j, k, m in SequenceMatcher(None, list(parts), list(other_parts), autojunk=False).get_opcodes():
        for name, other_name in zip_longest(list(parts)[i:j], list(other_parts)[k:m]):
            if other_name is None:
                yield f"lacks {name}, or has it elsewhere"
            elif name is None:
                yield f"adds {other_name}"
            else:
                yield from part_differences(name, parts[name], other_name, other_parts[other_name])


def part_differences(name: str, part: Part, other_name: str, other: Part) -> Iterator[str]:
    if name != other_name:
        yield f"{other_name} in place of {name}"
    extra = [parameter for parameter in other.parameters if parameter not in part.parameters]
    if [parameter for parameter in other.parameters if parameter not in extra] != list(part.parameters):
        yield f"{other_name} takes ({', '.join(other.parameters)}) in place of ({', '.join(part.parameters)})"
    elif extra:
        yield f"{other_name} takes also {', '.join(extra)}"
    if part.returns != other.returns:
        yield f"{other_name} returns {other.returns} in place of {part.returns}"
    if part.binds != other.binds:
        yield f"{other_name} binds {' '.join(other.binds)} in place of {' '.join(part.binds)}"
    if part.docstring != other.docstring:
        yield f"{other_name} says '{other.docstring}' in place of '{part.docstring}'"


def untidy(source: str) -> Iterator[str]:
    """What a model file must not hold: it is for reading, and says only what is computed."""
    tree, length = ast.parse(source), len(source.splitlines())
    if length > FILE_LINES:
        yield f"has {length} lines; {FILE_LINES} are allowed"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and (lines := node.end_lineno - node.lineno + 1) > FUNCTION_LINES:
            yield f"{node.name} has {lines} lines; {FUNCTION_LINES} are allowed"
        if isinstance(node, ast.While) or (isinstance(node, (ast.For, ast.comprehension)) and not loops_over_layers(node.iter)):
            yield f"loops over {ast.unparse(node.iter) if hasattr(node, 'iter') else ast.unparse(node.test)}"
        name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
        if name in ("print", "device", "to", "cpu", "cuda", "device_put", "devices", "dtype_policy", "no_grad", "jit", "compile"):
            yield f"uses {name}: printing, devices and compilers belong elsewhere"


def loops_over_layers(iterable: ast.expr) -> bool:
    return any(
        isinstance(node, (ast.Name, ast.Attribute)) and ast.unparse(node) in ("widths", "self.layers") for node in ast.walk(iterable)
    )


def folders(root: Path) -> list[str]:
    return sorted(path.parent.name for path in root.glob("impls/*/framework.toml"))


def missing(root: Path) -> list[str]:
    """Model files that a framework's folder lacks."""
    return [
        f"impls/{folder}/{file} is missing: write it after impls/{PATTERN}/{file}"
        for folder in folders(root)
        for file in FILES
        if not (root / "impls" / folder / file).exists()
    ]


def read(folder: str, file: str) -> str:
    return (ROOT / "impls" / folder / file).read_text(encoding="utf-8")


def permits(one: Allowed, folder: str, file: str, difference: str) -> bool:
    return one.framework == folder and fnmatchcase(file, one.file) and fnmatchcase(difference, one.difference)


OTHERS = [(folder, file) for folder in folders(ROOT) for file in FILES if folder != PATTERN]


def test_every_framework_has_every_model_file():
    assert missing(ROOT) == []


def test_a_missing_model_file_is_named(tmp_path):
    shutil.copytree(ROOT / "impls", tmp_path / "impls")
    shutil.copytree(ROOT / "impls" / "jax", tmp_path / "impls" / "fifth")
    (tmp_path / "impls" / "fifth" / "vae.py").unlink()
    assert missing(tmp_path) == ["impls/fifth/vae.py is missing: write it after impls/torch/vae.py"]


@pytest.mark.parametrize(("folder", "file"), OTHERS)
def test_files_are_parallel(folder, file):
    found = differences(read(PATTERN, file), read(folder, file))
    assert [difference for difference in found if not any(permits(one, folder, file, difference) for one in ALLOWED)] == []


@pytest.mark.parametrize("one", ALLOWED, ids=lambda one: f"{one.framework} {one.difference}")
def test_every_allowed_difference_is_one(one):
    found = [(file, difference) for folder, file in OTHERS for difference in differences(read(PATTERN, file), read(folder, file))]
    assert one.reason
    assert any(permits(one, one.framework, file, difference) for file, difference in found), "nothing differs so: remove it from ALLOWED"


@pytest.mark.parametrize(("folder", "file"), [(PATTERN, file) for file in FILES] + OTHERS)
def test_model_files_are_for_reading(folder, file):
    assert list(untidy(read(folder, file))) == []


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        ("Variational autoencoder (", "Variational autoencoders (", "title"),
        ("KL(q(z|x) || N(0, I)), nats", "KL(q(z|x) || N(0, I)), bits", "table line"),
        ("    loss            terms", "\n    loss            terms", "table line"),
        ("def kl(", "def divergence(", "divergence in place of kl"),
        ("def decode(self, z:", "def decode(self, code:", "VAE.decode takes"),
        ('eps: Float[Array, "n d_z"]', 'eps: Float[Array, "n d_x"]', "reparameterize takes"),
        ("def kl(", "def extra(): ...\n\n\ndef kl(", "adds extra"),
        ('dict[str, Float[Array, "n d_z"]]:', "dict:", "latent returns"),
        ("z = reparameterize(", "code = reparameterize(", "terms binds"),
        ("self.mu = Dense", "self.mean = Dense", "VAE.__init__ binds"),
    ],
)
def test_a_planted_difference_is_found(old, new, difference):
    source = read(PATTERN, "vae.py")
    assert old in source and list(differences(source, source)) == []
    found = list(differences(source, source.replace(old, new, 1)))
    assert found and found[0].startswith(difference), found


def test_a_swapped_order_is_found():
    source = read(PATTERN, "vae.py")
    start, middle, end = source.index("def latent"), source.index("def x_hat"), len(source)
    swapped = source[:start] + source[middle:end] + "\n\n" + source[start:middle]
    assert any("elsewhere" in difference for difference in differences(source, swapped))


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("print(1)", "uses print"),
        ("x = x.to('cuda')", "uses to"),
        ("for row in x: pass", "loops over x"),
        ("total = [row for row in x]", "loops over x"),
        ("while x: pass", "loops over x"),
        ("\n" * FILE_LINES, f"has {FILE_LINES + 1} lines"),
        ("def f():\n" + "    x = 1\n" * FUNCTION_LINES, f"f has {FUNCTION_LINES + 1} lines"),
    ],
)
def test_a_planted_untidiness_is_found(line, fault):
    found = list(untidy(f"{line}\n"))
    assert len(found) == 1 and found[0].startswith(fault), found
