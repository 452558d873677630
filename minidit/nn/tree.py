"""A network as a tree of its parts, for `print(network)` and for notebooks: names, kinds, shapes, counts of parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Protocol

from minidit.shown import escape, folded


class Part(Protocol):
    """A Module, as far as a tree needs it: `Module.named_children` and `Module.own_shapes`."""

    def named_children(self) -> Iterator[tuple[str, Any]]: ...

    def own_shapes(self) -> dict[str, tuple[int, ...]]: ...


def count(part: Part) -> int:
    """The numbers of trained parameters in a part and all below it."""
    return sum(map(math.prod, part.own_shapes().values())) + sum(count(child) for _, child in part.named_children())


def form(part: Part) -> str:
    """A text that two parts share exactly if they are built alike."""
    return f"{type(part).__name__}{part.own_shapes()}[{'; '.join(form(child) for _, child in part.named_children())}]"


def branches(part: Part) -> list[tuple[str, Part]]:
    """(names, part) of the children; neighbours in a list that are built alike are one branch, as "blocks.0 … blocks.5"."""
    groups: list[tuple[list[str], tuple[str, str], Part]] = []
    for name, child in part.named_children():
        stem, dot, _ = name.rpartition(".")
        key = (stem if dot else name, form(child))
        if groups and groups[-1][1] == key:
            groups[-1][0].append(name)
        else:
            groups.append(([name], key, child))
    return [(names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}", child) for names, _, child in groups]


def headline(name: str, part: Part) -> str:
    """One line: name, kind, the shapes of its own parameters, and the number of all."""
    shapes = ", ".join(f"{key} {' × '.join(map(str, shape)) or '1'}" for key, shape in part.own_shapes().items())
    n = count(part)
    each = " each" if "…" in name else ""
    return f"{name}: {type(part).__name__}" + (f"({shapes})" if shapes else "") + (f", {n:,} parameters{each}" if n else "")


def text_of(part: Part, depth: int = 0) -> str:
    """The branches of a part as indented lines."""
    lines = []
    for name, child in branches(part):
        lines.append("  " * (depth + 1) + headline(name, child))
        lines += [text_of(child, depth + 1)] if branches(child) else []
    return "\n".join(lines)


def html_of(part: Part) -> str:
    """The branches of a part, each to be unfolded."""
    parts = []
    for name, child in branches(part):
        line, inner = headline(name, child), html_of(child)
        parts.append(folded(line, inner) if inner else f'<div style="margin-left:2em">{escape(line)}</div>')
    return "".join(parts)
