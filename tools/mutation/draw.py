"""What is mutated: places of the text, drawn uniformly, and one change in each."""

from __future__ import annotations

import ast
import functools
import hashlib
import pickle
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cosmic_ray.plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.work_item import MutationSpec

LEAST = 10  # places of a small file


@dataclass(frozen=True)
class Mutant:
    """One changed file. id : a hash of the definition around the change and of the change, so that an edit means a new run."""

    id: str
    path: str
    operator: str
    occurrence: int
    start: tuple[int, int]
    end: tuple[int, int]
    original: str
    text: str

    @property
    def spec(self) -> MutationSpec:
        return MutationSpec(
            module_path=Path(self.path), operator_name=self.operator, occurrence=self.occurrence,
            start_pos=self.start, end_pos=self.end,
        )  # fmt: skip


def program(text: str) -> str:
    """What a text does: its tree without annotations, docstrings, and the marks between kinds of arguments."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.arguments):
            node.args, node.posonlyargs, node.kwonlyargs = node.posonlyargs + node.args + node.kwonlyargs, [], []
            node.defaults, node.kw_defaults = node.defaults + [d for d in node.kw_defaults if d is not None], []
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            body[0].value = ast.Constant(None)
    return ast.dump(tree)


def hashed(*key: Any) -> str:
    return hashlib.sha256(repr(key).encode()).hexdigest()[:32]


def remembered(memory: Path, key: str, make: Callable[[], Any]) -> Any:
    """What `make` gives, or what it gave under this key when it was asked last."""
    if memory.exists():
        was, value = pickle.loads(memory.read_bytes())
        if was == key:
            return value
    value = make()
    memory.write_bytes(pickle.dumps((key, value)))
    return value


@functools.cache
def definitions(text: str) -> list[tuple[int, int, int]]:
    """(first line, last line, first line of the body) of all definitions and statements; the body of a function only."""
    tree, spans = ast.parse(text), []
    for node in [*tree.body, *(n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef)))]:
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        body = node.body[0].lineno if isinstance(node, ast.FunctionDef) else sys.maxsize
        spans.append((first, node.end_lineno or 0, body))
    return spans


def around(text: str, line: int) -> tuple[int, str, bool]:
    """(first line, source, whether the line is in the body of a function) of the innermost definition around a line.

    Decorators and defaults belong to the definition, but not to the body. Outside of all definitions it is the statement.
    """
    first, last, body = max(d for d in definitions(text) if d[0] <= line <= d[1])
    return first, "\n".join(text.splitlines()[first - 1 : last]), line >= body


def places(text: str) -> dict[tuple[Any, ...], list[tuple[str, int, Any, Any]]]:
    """(start, end, family of operators) -> the mutations that cosmic-ray knows there."""
    nodes, mutations = list(ast_nodes(get_ast(text))), defaultdict(list)
    for name in cosmic_ray.plugins.operator_names():
        operator = cosmic_ray.plugins.get_operator(name)
        if operator.arguments():
            continue
        spots = [spot for node in nodes for spot in operator().mutation_positions(node)]
        for occurrence, (start, end) in enumerate(spots):
            mutations[start, end, name.partition("/")[2].partition("_")[0]].append((name, occurrence, start, end))
    return mutations


def draw(texts: dict[str, str], sample: int, seed: int) -> tuple[list[Mutant], Counter[str]]:
    """path -> text; the mutants of the drawn places, and how many places each file has (those that are none left out)."""
    plain = {path: program(text) for path, text in texts.items()}
    order = []
    for path, text in texts.items():
        for (start, end, family), choices in places(text).items():
            first, source, _ = around(text, start[0])  # an edit elsewhere in the file moves a place and does not change its turn
            place = (path, source.split("\n")[0], start[0] - first, start[1], end[0] - first, end[1], family)
            order.append((hashed(seed, *place), path, choices))
    order.sort(key=lambda entry: entry[0])
    mutants, number = [], Counter(path for _, path, _ in order)
    drawn: Counter[str] = Counter()
    for key, path, choices in order:
        if len(mutants) >= sample and drawn[path] >= LEAST:
            continue
        random.Random(key).shuffle(choices)
        for name, occurrence, start, end in choices:
            text = mutate_code(texts[path], cosmic_ray.plugins.get_operator(name)(), occurrence)
            try:
                same = text is None or program(text) == plain[path]
            except SyntaxError:
                continue
            if not same:
                first, source, _ = around(texts[path], start[0])
                mark = hashed(path, source, start[0] - first, *change(texts[path], text))
                mutants.append(Mutant(mark, path, name, occurrence, start, end, texts[path], text))
                drawn[path] += 1
                break
        else:
            number[path] -= 1
    return mutants, number


def change(was_text: str, now_text: str) -> tuple[str, str]:
    """The lines that differ: (was, is), stripped."""
    was, now = was_text.splitlines(), now_text.splitlines()
    head = next(i for i, pair in enumerate(zip([*was, ""], [*now, ""], strict=False)) if pair[0] != pair[1])
    tail = 0
    while tail < min(len(was), len(now)) - head and was[-1 - tail] == now[-1 - tail]:
        tail += 1
    pick = lambda lines: " ".join(line.strip() for line in lines[head : len(lines) - tail])
    return pick(was), pick(now)
