"""Verify's answer for people: the four-part message of a failure, and the matrix spec x implementation."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from specs import given

if TYPE_CHECKING:
    from harness.verify.run import Pair

SHORT = {"n-a": "n/a", "not-installed": "absent", "unsupported": "n/a"}


def failures(pair: Pair) -> list[str]:
    """What, where, expected and got, likely cause, command to repeat; a message a failed check."""
    repeat = (
        f"isoform verify --spec {shlex.quote(given(pair.spec))} --impl {pair.implementation.name} --dtype {pair.dtype}"
        f" --device {pair.device} --level {pair.certificate['level'] if pair.certificate else 'ci'}"
    )
    messages = []
    for check in pair.checks:
        if check["state"] != "fail":
            continue
        where = f"{pair.implementation.name}, spec {pair.spec.name}, {pair.dtype}, {pair.device}"
        lines = [f"check {check['number']} failed: {check['name']}", f"  where:    {where}"]
        if check["what"] and check["expected"]:
            gate = f"error {check['error']:.3g}, gate {check['gate']:.3g}"
            lines += [f"  what:     {check['what']} ({gate}; {check['reason']})"]
            lines += [f"  expected: {check['expected']}", f"  got:      {check['got']}"]
        else:
            lines += [f"  what:     {check['reason']}"]
        lines += [f"  likely:   {check['cause']}", f"  repeat:   {repeat}"]
        messages.append("\n".join(lines))
    return messages


def matrix(rows: list[dict], dtype: str) -> tuple[list[str], list[list[str]]]:
    """(header, lines) of the worst margin, error over gate, of each spec and implementation."""
    specs = list(dict.fromkeys(row["spec"] for row in rows))
    implementations = list(dict.fromkeys(row["implementation"] for row in rows))
    cells = {(row["spec"], row["implementation"]): row for row in rows if row["dtype"] == dtype}
    lines = [[spec, *(cell(cells.get((spec, name))) for name in implementations)] for spec in specs]
    return ["spec", *implementations], lines


def cell(row: dict | None) -> str:
    if row is None:
        return ""
    if row["state"] == "pass":
        return f"{row['margin']:.1e}"
    if row["state"] == "fail":
        return "FAIL" if row["margin"] is None or row["margin"] <= 1 else f"FAIL {row['margin']:.1e}"
    return SHORT.get(row["state"], row["state"])


def footnotes(rows: list[dict]) -> list[str]:
    """Each reason once, with the implementations and specs that it holds for."""
    reasons: dict[tuple[str, str], dict[str, list[str]]] = {}
    for row in rows:
        if row["state"] not in ("pass", "fail"):
            where = reasons.setdefault((row["state"], row["reason"] or ""), {})
            where.setdefault(row["implementation"], []).append(row["spec"])
    return [
        f"{state}: {', '.join(name + ' (' + ', '.join(dict.fromkeys(specs)) + ')' for name, specs in where.items())}: {reason}"
        for (state, reason), where in reasons.items()
    ]
