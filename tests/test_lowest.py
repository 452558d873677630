"""The lower bounds of pyproject.toml have the form that tools/lowest.py installs, and the page for users says the same."""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOOL, PAGE = ROOT / "tools" / "lowest.py", ROOT / "docs" / "dependencies.md"

pytestmark = pytest.mark.skipif(not TOOL.exists() or not PAGE.exists(), reason="a checkout of its repository is needed")


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("lowest", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def test_every_requirement_has_a_lower_bound_and_extras_hold_those_of_others(tool, project):
    tables = project["project"]["optional-dependencies"]
    for extra in tables:
        bounds = tool.lowest(project, [extra])
        assert tool.lowest(project, []).items() <= bounds.items()
    assert tool.lowest(project, ["test"]).items() <= tool.lowest(project, ["dev"]).items()
    assert len(dict(tool.pinned(project["build-system"]["requires"]))) == 1


@pytest.mark.parametrize("line", ["numpy", "numpy<3", "numpy>=2.2,<3", "numpy~=2.2"])
def test_another_form_is_refused_with_its_line(tool, line):
    with pytest.raises(ValueError, match=re.escape(repr(line))):
        list(tool.pinned([line]))


def test_the_page_says_what_is_required(tool, project):
    text = PAGE.read_text("utf-8")
    libraries = dict(re.findall(r"^\| (\S+) \| ([\d.]+) \|", text, re.M))
    assert libraries.pop("Python") == project["project"]["requires-python"].removeprefix(">=")
    assert {name.lower(): version for name, version in libraries.items()} == tool.lowest(project, [])


@pytest.mark.parametrize("output, line", [
    ("The conflict is caused by:\n  The user requested numpy==2.2\n  scipy 1.11.0 depends on numpy<1.28\nERROR: no resolution",
     "The user requested numpy==2.2; scipy 1.11.0 depends on numpy<1.28"),
    ("ERROR: Could not find one\nERROR: No matching distribution found for a==1", "No matching distribution found for a==1"),
    ("Traceback:\n  TypeError: a field\nerror: metadata-generation-failed", "TypeError: a field"),
    ("", "pip fails silently"),
])  # fmt: skip
def test_what_pip_says_in_many_lines_is_said_in_one(tool, output, line):
    assert tool.why_not(output) == line
