"""The source of the implementations as the page shows it: each file once, its words told apart."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

from harness.report.content import Content
from harness.report.formats import slug

ROOT = Path(__file__).parents[2]
BESIDE = ("layers.py", "backend.py", "adam.py")  # what the model files of a framework are made with


@dataclass(frozen=True)
class Source:
    name: str  # as in the repository
    html: str
    lines: int

    @property
    def anchor(self) -> str:
        return slug("source", self.name)


def models(content: Content) -> dict[str, str]:
    """{spec: its model}, of the specs that the journal has in full and of shipped ones that are still the same."""
    import specs

    found: dict[str, str] = {spec.name: spec.model for spec in content.specs.values()}
    for one in content.verify["certificates"]:
        if one["spec"] not in found and one["spec"] in specs.names():
            spec = specs.load(one["spec"])
            if spec.hash == one["spec_hash"]:
                found[spec.name] = spec.model
    return found


def of(implementation: str, model: str | None) -> str | None:
    """The file in which a shipped implementation has this model."""
    import impls

    folder = impls.available()[implementation].folder if implementation in impls.available() else None
    path = f"impls/{folder}/{model}.py"
    return path if folder and model and (ROOT / path).is_file() else None


def sources(content: Content) -> list[Source]:
    """Every model file that the page is about, then what they are made with; a framework after the other."""
    known = models(content)
    pairs = [(row["implementation"], known.get(row["spec"])) for row in content.verify["rows"]]
    paths = dict.fromkeys(path for name, model in pairs if (path := of(name, model)))
    folders = dict.fromkeys(str(Path(path).parent) for path in paths)
    ordered = []
    for folder in folders:
        ordered += [path for path in paths if str(Path(path).parent) == folder]
        ordered += [f"{folder}/{name}" for name in BESIDE if (ROOT / folder / name).is_file()]
    return [_source(path) for path in ordered]


def changed(content: Content) -> list[str]:
    """Implementations whose code is no longer that of their certificates, so that the source shown is not what was measured."""
    import impls
    from harness.verify.certificate import code_hash

    known = impls.available()
    hashes = {one["implementation"]: one["code_hash"] for one in content.verify["certificates"]}
    shipped = [name for name in hashes if name in known and known[name].folder]
    return [name for name in shipped if code_hash(known[name]) != hashes[name]]


def _source(path: str) -> Source:
    text = (ROOT / path).read_text(encoding="utf-8")
    return Source(path, highlighted(text), len(text.splitlines()))


def highlighted(text: str) -> str:
    """Python as HTML: keywords, strings, comments, numbers and what is defined have a class of one letter; the rest is plain."""
    from pygments.lexers.python import PythonLexer
    from pygments.token import Comment, Keyword, Name, Number, Operator, String

    classes = (
        (Comment, "c"), (Keyword, "k"), (Operator.Word, "k"), (String, "s"), (Number, "m"), (Name.Function, "f"), (Name.Class, "f"),
        (Name.Decorator, "d"),
    )  # fmt: skip
    parts: list[tuple[str, str]] = []
    for token, value in PythonLexer(stripnl=False).get_tokens(text):
        kind = next((letter for of, letter in classes if token in of), "")
        if parts and (parts[-1][0] == kind or not value.strip()):
            parts[-1] = (parts[-1][0], parts[-1][1] + value)
        else:
            parts.append((kind, value))
    return "".join(f'<b class="{kind}">{escape(value, quote=False)}</b>' if kind else escape(value, quote=False) for kind, value in parts)
