"""What a type checker tells a user: misspelt options, wrong types, and the types of what comes back."""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import pytest

import minidit as md
from minidit.processes.options import SamplingOptions, TrainingOptions
from minidit.runs.walks import Options, Settings

PROGRAM = Path(__file__).parent / "typed" / "program.py"
PACKAGE = Path(md.__file__).parent


def wanted(text):
    """(line, kind, words) of every expectation in a program: kind is "error" or "note"."""
    for number, line in enumerate(text.splitlines(), 1):
        if match := re.search(r"\)  # (error:|is) (.*)$|\]\)  # (is) (.*)$", line):
            kind, words = [part for part in match.groups() if part]
            yield number, "error" if kind == "error:" else "note", words


def test_a_misspelt_option_and_a_wrong_type_are_found_and_types_are_revealed(tmp_path):
    pytest.importorskip("mypy", reason="mypy is a dev tool")
    shutil.copy(PROGRAM, tmp_path / "program.py")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", "cache", "program.py"]
    env = {"PATH": "/usr/bin:/bin", "MYPYPATH": "" if "site-packages" in PACKAGE.parts else str(PACKAGE.parent)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=env, check=False)
    says = {}
    for line in done.stdout.splitlines():
        if match := re.match(r"program\.py:(\d+): (error|note): (.*)", line):
            number, kind, words = match.groups()
            says.setdefault((int(number), kind), []).append(words)
    expected = list(wanted(PROGRAM.read_text("utf-8")))
    assert len(expected) > 20, done.stdout + done.stderr
    for number, kind, words in expected:
        assert any(words in text for text in says.get((number, kind), ())), (number, words, says.get((number, kind)), done.stderr)
    errors = {number for number, kind in says if kind == "error"}
    assert errors == {number for number, kind, _ in expected if kind == "error"}, done.stdout


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").exists()


@pytest.mark.parametrize(("options", "config"), [(SamplingOptions, md.Sampling), (TrainingOptions, md.LoopConfig)])
def test_the_keywords_for_editors_are_the_fields_of_the_configuration(options, config):
    hints, types = get_type_hints(options), get_type_hints(config)
    assert hints == {field.name: types[field.name] for field in fields(config)}


def test_the_keywords_of_a_pipeline_for_editors_are_those_that_it_takes():
    hints, taken = get_type_hints(Settings), inspect.signature(md.Pipeline.settings).parameters
    assert list(hints) == [name for name in taken if name != "self"]
    more = set(get_type_hints(Options)) - set(hints)
    assert more == {"n", "x_T", "progress"} < set(inspect.signature(md.Pipeline.sample).parameters)
