"""The notebooks run from top to bottom, and are kept without outputs, which would go stale and hide what changed."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import pytest

import minidit as md

FOLDER = Path(__file__).parent.parent / "notebooks"
NAMES = sorted(path.name for path in FOLDER.glob("*.ipynb"))
KINDS = {"one_picture.ipynb": 10, "digits.ipynb": 6}  # outputs that a reader sees


def test_the_notebooks_are_there():
    assert set(NAMES) == set(KINDS)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_kept_without_outputs_and_in_short_lines(name):
    for cell in json.loads((FOLDER / name).read_text("utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            assert all(len(line) <= 100 for line in "".join(cell["source"]).splitlines())


@pytest.mark.parametrize("name", NAMES)
def test_what_a_notebook_asks_of_the_package_is_there(name):
    source = "".join("".join(cell["source"]) + "\n" for cell in json.loads((FOLDER / name).read_text("utf-8"))["cells"])
    asked = set(re.findall(r"\bmd((?:\.[A-Za-z_]\w*)+)", source))
    assert asked
    for names in asked:
        functools.reduce(getattr, names[1:].split("."), md)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_and_shows_what_it_has(name, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient, of the extra notebook")
    pytest.importorskip("ipykernel", reason="needs ipykernel beside nbclient, of the extra notebook")
    import nbformat

    monkeypatch.setenv("PYTHONPATH", str(Path(md.__file__).parent.parent))  # also where it is not installed
    book = nbformat.read(FOLDER / name, 4)
    nbclient.NotebookClient(book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}).execute()
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    shown = [output for output in outputs if {"text/html", "image/png"} & set(output.get("data", ()))]
    assert len(shown) == KINDS[name]
