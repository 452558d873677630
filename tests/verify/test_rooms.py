"""The room is in order: arrows of imports point one way, every topic is listed once, a mistake changes parts and nothing else."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import minidit as md
from minidit.verify import DEVIATIONS, TOPICS, topics
from minidit.verify.core.reference import Part, Reference, Topic, part

ROOM = Path(md.verify.__file__).parent
MAY_KNOW = {"core": {"core"}, "topics": {"core", "topics"}, "bank": {"core", "topics", "bank"}}


@pytest.mark.parametrize("folder", MAY_KNOW)
def test_a_folder_knows_only_what_stands_before_it(folder):
    for path in (ROOM / folder).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("minidit.verify"):
                assert (node.module or "").split(".")[2:3][0] in MAY_KNOW[folder], f"{path.name} imports {node.module}"


def test_every_topic_is_listed():
    modules = [m for name, m in vars(topics).items() if getattr(m, "__name__", "").startswith("minidit.verify.topics.")]
    assert len(modules) == len(list((ROOM / "topics").glob("[!_]*.py")))
    assert {t for m in modules for t in vars(m).values() if isinstance(t, Topic)} == set(TOPICS.values())


def test_a_mistake_changes_parts():
    assert len(DEVIATIONS) == 584
    assert all(isinstance(p, Part) for d in DEVIATIONS.values() for p in d.patches)


def test_two_parts_of_one_name_are_two_parts():
    def twice():
        @part
        def f(R, x):
            return 2 * x

        return f

    one, other = twice(), twice()
    R = Reference([md.verify.DEVIATIONS["M02"]])
    R.changed[one] = lambda R, x: 3 * x
    assert (one(R, 1), other(R, 1)) == (3, 2) and R.touched == {one, other}


def test_the_kit_and_its_borders_are_loaded_when_they_are_used():
    code = "import sys, minidit; print([m for m in sys.modules if m.startswith('minidit.verify') or m in ('torch', 'diffusers')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_topics_are_named_by_one_word_too():
    report = md.verify.check({"gelu": lambda x: x, "silu": lambda x: x}, topics="gelu")
    assert [f.topic.name for f in report.findings] == ["gelu"]
