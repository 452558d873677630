"""SPEC.md, the code and the tests are tied to each other: every equation has its line and its proof."""

from pathlib import Path

import pytest

from minidit.html.spec import read
from minidit.html.ties import problems

ROOT = Path(__file__).resolve().parents[1]


def test_every_equation_is_done_in_one_place_and_proved_and_nothing_cites_another():
    if not (ROOT / "SPEC.md").exists():
        pytest.skip("no SPEC.md beside the tests")
    untied = problems(read(ROOT))
    if untied:
        pytest.fail(f"{len(untied)} untied:\n" + "\n".join(untied), pytrace=False)
