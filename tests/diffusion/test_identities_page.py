"""docs/identities.md names tests and equations that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_every_test_and_equation_that_the_page_names_exists():
    page = ROOT / "docs" / "identities.md"
    if not page.exists():
        pytest.skip("no docs beside the tests")
    text = page.read_text()
    written = set(re.findall(r"def (test_\w+)", "\n".join(p.read_text() for p in (ROOT / "tests").rglob("test_*.py"))))
    named = set(re.findall(r"`(test_\w+)`", text))
    assert len(named) > 60 and named <= written, named - written
    ids = set(re.findall(r"^### ([A-Z]\.\d+) ", (ROOT / "SPEC.md").read_text(), re.MULTILINE))
    cited = set(re.findall(r"\b([A-Z]\.\d+)\b", text))
    assert cited <= ids, cited - ids
