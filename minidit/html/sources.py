"""Reads what the code and the tests say about equations from their text, without importing or running them.

A citation is an id in parentheses, (X.n) or (X.n, X.m), in a comment or a docstring. A proof is a test function that
carries the mark spec("X.n"). A symbol is a dotted name within its file: function, Class.method, outer.inner, CONSTANT.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CITATION = re.compile(r"\(([A-Z]\.\d+(?:,\s*[A-Z]\.\d+)*)\)")
EQUATION_ID = re.compile(r"[A-Z]\.\d+")
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Lines:
    """Lines first..last of a file, counted from 1, both included."""

    first: int
    last: int

    def __contains__(self, line: int) -> bool:
        return self.first <= line <= self.last


@dataclass(frozen=True)
class Citation:
    """One citation of an equation. on_code: in a trailing comment, which says "this line computes it"."""

    id: str
    path: str
    line: int
    on_code: bool


@dataclass(frozen=True)
class Proof:
    """A test function and the equations that its mark names."""

    name: str
    path: str
    lines: Lines
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """One file, read: its text, the lines of each symbol in it, its citations, its module docstring."""

    path: str
    text: str
    symbols: dict[str, list[Lines]]
    citations: tuple[Citation, ...]
    docstring: str

    def span(self, symbol: str) -> list[Lines]:
        """The lines of a symbol, empty if there is none. In a file that is not Python: the lines that name it."""
        if self.path.endswith(".py"):
            return self.symbols.get(symbol, [])
        word = re.compile(rf"\b{re.escape(symbol)}\b")
        return [Lines(i, i) for i, line in enumerate(self.text.splitlines(), 1) if word.search(line)]


def lines_of(node: ast.stmt) -> Lines:
    """The lines of a statement, decorators included."""
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
    return Lines(first, node.end_lineno or node.lineno)


def names_in(target: ast.expr) -> Iterator[str]:
    """The plain names that an assignment binds."""
    for node in ast.walk(target):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def symbols_of(node: ast.AST, scope: str = "", in_function: bool = False) -> Iterator[tuple[str, Lines]]:
    """Every function, class, method and module- or class-level name below the node, with its lines."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            yield scope + child.name, lines_of(child)
            yield from symbols_of(child, f"{scope}{child.name}.", in_function or not isinstance(child, ast.ClassDef))
        elif isinstance(child, ast.Assign | ast.AnnAssign) and not in_function:
            for target in child.targets if isinstance(child, ast.Assign) else [child.target]:
                for name in names_in(target):
                    yield scope + name, lines_of(child)
        elif isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):  # an `if` or `try` opens no scope
            yield from symbols_of(child, scope, in_function)


def docstrings_of(node: ast.AST) -> Iterator[tuple[str, int]]:
    """(text, its first line) of every docstring in a module; no expression is looked into."""
    body = getattr(node, "body", None)
    if isinstance(node, ast.Module | Definition) and body and isinstance(body[0], ast.Expr):
        value = body[0].value
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield value.value, value.lineno
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield from docstrings_of(child)


def ids_in(text: str) -> Iterator[tuple[str, int]]:
    """(equation id, lines below the start of the text) of every citation in it."""
    for match in CITATION.finditer(text):
        for i in EQUATION_ID.findall(match[1]):
            yield i, text.count("\n", 0, match.start())


def citations_of(path: str, text: str, tree: ast.AST) -> Iterator[Citation]:
    """The citations in the comments and docstrings of a Python file."""
    if any("#" in line and CITATION.search(line) for line in text.splitlines()):
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                trailing = bool(token.line[: token.start[1]].strip())
                for i, _ in ids_in(token.string):
                    yield Citation(i, path, token.start[0], trailing)
    for docstring, line in docstrings_of(tree):
        for i, below in ids_in(docstring):
            yield Citation(i, path, line + below, False)


def read_source(root: Path, path: Path) -> Source:
    """Reads one file of the package. Raises SyntaxError for Python that cannot be parsed."""
    name = path.relative_to(root).as_posix()
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        citations = tuple(Citation(i, name, 1 + below, False) for i, below in ids_in(text))
        return Source(name, text, {}, citations, "")
    tree = ast.parse(text, name)
    symbols: dict[str, list[Lines]] = {}
    for symbol, lines in symbols_of(tree):
        symbols.setdefault(symbol, []).append(lines)
    return Source(name, text, symbols, tuple(citations_of(name, text, tree)), ast.get_docstring(tree) or "")


def name_of(function: ast.expr) -> str:
    """The last name of what is called: spec of pytest.mark.spec."""
    return function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""


def marks_of(nodes: list[ast.expr]) -> Iterator[str]:
    """The ids in decorators of the form spec("X.n", …) or pytest.mark.spec("X.n", …)."""
    for node in nodes:
        if isinstance(node, ast.Call) and name_of(node.func) == "spec":
            for argument in node.args:
                yield str(argument.value) if isinstance(argument, ast.Constant) else ast.unparse(argument)


def proofs_of(path: str, tree: ast.AST, inherited: tuple[str, ...] = (), scope: str = "") -> Iterator[Proof]:
    """The marked test functions below the node; a mark on a class applies to its methods."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, Definition):
            ids = inherited + tuple(marks_of(child.decorator_list))
            if isinstance(child, ast.ClassDef):
                yield from proofs_of(path, child, ids, f"{scope}{child.name}.")
            elif child.name.startswith("test") and ids:
                yield Proof(scope + child.name, path, lines_of(child), ids)
        elif isinstance(child, ast.stmt):
            yield from proofs_of(path, child, inherited, scope)


def recorded_in(path: str, tree: ast.AST) -> Iterator[Citation]:
    """The equations for which a test file records residuals: agree(…, of="X.n"), where they are written out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and name_of(node.func) == "agree":
            for value in (k.value for k in node.keywords if k.arg == "of"):
                for constant in ast.walk(value):
                    if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                        yield Citation(constant.value, path, constant.lineno, False)


def read_tests(root: Path, path: Path) -> tuple[list[Proof], list[Citation], str]:
    """The proofs in a test file, the equations that it records residuals for, and its text."""
    name = path.relative_to(root).as_posix()
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text, name)
    return list(proofs_of(name, tree)), list(recorded_in(name, tree)), text
