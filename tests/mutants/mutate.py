"""Every mutant of a source file: one small change of its syntax tree each."""

import ast
import copy
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

# functions that report about the machine or serve other devices: what they say is not part of the function computed
SKIPPED_FUNCTIONS = {"facts", "memory", "planned", "lowered", "copied", "devices", "present", "block"}
RENAMED = {
    "sum": "mean",
    "mean": "sum",
    "exp": "cosh",
    "sigmoid": "tanh",
    "expit": "tanh",
    "maximum": "minimum",
    "relu": "sigmoid",
    "tanh": "sin",
    "softplus": "relu",
    "log": "log1p",
    "sqrt": "square",
    "bernoulli_nll": "gaussian_nll",
    "mu": "logvar",
    "encoder": "decoder",
    "flip": "asarray",
}
SWAPPED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
COMMUTATIVE = {"maximum", "minimum", "multiply", "add"}
COMPARED = {ast.Gt: ast.Lt, ast.Lt: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is}


@dataclass(frozen=True)
class Mutant:
    file: str  # name inside the framework's folder
    line: int
    within: str  # the function or class that it is in, as Class.method; empty at the top of the file
    kind: str
    before: str  # the expression or statement
    after: str
    make: Callable[[], str]

    @property
    def source(self) -> str:
        """Of the whole mutated file."""
        return self.make()

    @property
    def id(self) -> str:
        return hashlib.sha256(f"{self.file} {self.kind} {self.before} {self.after} {self.line}".encode()).hexdigest()[:8]

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.kind}: {self.before} -> {self.after}"


def mutants(path: Path, without: tuple[str, ...] = ()) -> Iterator[Mutant]:
    """All mutants of a file, in order of their place. Docstrings, annotations, imports, reports and classes `without` are left alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for trail, within, node in _walk(tree, (), (), without):
        for kind, replacement in _changes(node):
            after = "(deleted)" if isinstance(replacement, ast.Pass) else _text(replacement)
            make, line = partial(_planted, tree, trail, replacement), getattr(node, "lineno", 0)
            yield Mutant(path.name, line, ".".join(within), kind, _text(node), after, make)


def _planted(tree: ast.AST, trail: tuple, replacement: ast.AST) -> str:
    mutated = copy.deepcopy(tree)
    _put(mutated, trail, replacement)
    return ast.unparse(ast.fix_missing_locations(mutated))


def _walk(
    node: ast.AST, trail: tuple, within: tuple[str, ...], without: tuple[str, ...]
) -> Iterator[tuple[tuple, tuple[str, ...], ast.AST]]:
    """(trail, within, node): the field names and indices that lead to it, and the names of the classes and functions around it."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        within = (*within, node.name)
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_comment", "bases"):
            continue
        children = enumerate(value) if isinstance(value, list) else [(None, value)]
        for index, child in children:
            if not isinstance(child, ast.AST) or isinstance(child, ast.Import | ast.ImportFrom | ast.expr_context):
                continue
            if isinstance(child, ast.FunctionDef) and child.name in SKIPPED_FUNCTIONS:
                continue
            if isinstance(child, ast.ClassDef) and child.name in without:
                continue
            if isinstance(child, ast.Raise) or (isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)):
                continue  # a message or a docstring
            if isinstance(child, ast.keyword) and child.arg == "strict":
                continue  # zip's guard: of lists that have the same length by construction
            here = (*trail, (name, index))
            yield here, within, child
            yield from _walk(child, here, within, without)


def _put(tree: ast.AST, trail: tuple, replacement: ast.AST) -> None:
    for name, index in trail[:-1]:
        tree = getattr(tree, name) if index is None else getattr(tree, name)[index]
    name, index = trail[-1]
    if index is None:
        setattr(tree, name, copy.deepcopy(replacement))
    else:
        getattr(tree, name)[index] = copy.deepcopy(replacement)


def _same(one: ast.AST, other: ast.AST) -> bool:
    return ast.dump(one) == ast.dump(other)


def _text(node: ast.AST) -> str:
    return " ".join(ast.unparse(node).split())


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """(kind, replacement) of each change that this node admits."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        if isinstance(node.value, bool):
            yield "flag", ast.Constant(not node.value)
        else:
            yield "constant", ast.Constant(node.value + 1 if isinstance(node.value, int) else node.value * 1.25)
    elif isinstance(node, ast.BinOp):
        if type(node.op) in SWAPPED:
            yield "operator", ast.BinOp(node.left, SWAPPED[type(node.op)](), node.right)
        if isinstance(node.op, ast.Add | ast.Sub):
            yield "dropped term", node.left
        if isinstance(node.op, ast.Mult | ast.Div):
            yield "dropped factor", node.left
            if isinstance(node.op, ast.Mult):
                yield "dropped factor", node.right
        if isinstance(node.op, ast.MatMult):
            yield "swapped product", ast.BinOp(node.right, ast.MatMult(), node.left)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
        yield "sign", node.operand
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARED:
        yield "comparison", ast.Compare(node.left, [COMPARED[type(node.ops[0])]()], node.comparators)
    elif isinstance(node, ast.IfExp):
        yield "branch", ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.Attribute) and node.attr in RENAMED:
        yield "name", ast.Attribute(node.value, RENAMED[node.attr], node.ctx)
    elif isinstance(node, ast.Attribute) and node.attr == "T":
        yield "transpose", node.value
    elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice) and isinstance(node.ctx, ast.Load):
        yield "slice", node.value
    elif isinstance(node, ast.Call):
        yield from _call_changes(node)
    elif isinstance(node, ast.Tuple) and len(node.elts) == 2 and isinstance(node.ctx, ast.Load) and not _same(*node.elts):
        yield "swapped pair", ast.Tuple(node.elts[::-1], node.ctx)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "statement", ast.Pass()
    elif isinstance(node, ast.AugAssign):
        yield "statement", ast.Pass()
        if type(node.op) in SWAPPED:
            yield "operator", ast.AugAssign(node.target, SWAPPED[type(node.op)](), node.value)


def _call_changes(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node.func, ast.Attribute) and node.func.attr in ("detach", "copy") and not node.args:
        yield "dropped call", node.func.value
    name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    pair = len(node.args) >= 2 and not any(isinstance(arg, ast.Starred) for arg in node.args[:2])
    if pair and name not in COMMUTATIVE and not _same(*node.args[:2]):
        yield "swapped arguments", ast.Call(node.func, [node.args[1], node.args[0], *node.args[2:]], node.keywords)
    if (
        isinstance(node.func, ast.Attribute)
        and node.func.attr in ("exp", "tanh", "square", "square", "sigmoid", "sqrt")
        and len(node.args) == 1
    ):
        yield "dropped function", node.args[0]
    for k, keyword in enumerate(node.keywords):
        if keyword.arg and keyword.arg != "strict":
            yield "dropped keyword", ast.Call(node.func, node.args, node.keywords[:k] + node.keywords[k + 1 :])
