"""Equations and tables in the docstring of a module stand apart from its prose, indented, as a reader expects them."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "minidit"
COLUMNS = re.compile(r"\S {3,}\S")  # a gap that only a table or an equation has


def at_the_margin(text):
    """The lines of a docstring that have columns and are not indented."""
    return [line for line in text.splitlines()[1:] if not line.startswith(" ") and COLUMNS.search(line)]


@pytest.mark.parametrize("room", sorted({p.relative_to(PACKAGE).parts[0] for p in PACKAGE.rglob("*.py")}))
def test_equations_of_a_module_are_indented(room):
    files = [p for p in PACKAGE.rglob("*.py") if p.relative_to(PACKAGE).parts[0] == room]
    docs = {p: ast.get_docstring(ast.parse(p.read_text("utf-8")), clean=False) or "" for p in files}
    assert {str(p): lines for p, text in docs.items() if (lines := at_the_margin(text))} == {}


def test_a_line_with_columns_at_the_margin_is_found():
    assert at_the_margin("Title.\n\ny = x      (A.1)\n    y = x      (A.2)\nprose.  More.") == ["y = x      (A.1)"]
