"""Parts of diffusers' VQModel, SD3 and FLUX transformers, asked by the kit: what differs has a name, and everything else agrees.

Needs the extra `peers` (torch on a CPU, diffusers); skipped without it.
"""

import warnings

import pytest

from minidit import verify

pytest.importorskip("torch", reason="the extra peers is not installed: torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("diffusers", reason="the extra peers is not installed: diffusers")

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def parts():
    from minidit.verify.borders import streams

    return streams.codes() | streams.streams()


def test_they_differ_by_what_the_page_of_findings_says_only(parts):
    """If this fails, a new version has corrected it: the page says until when it was there."""
    report = verify.check(parts)
    assert set(report.mistakes) == {"M130", "M159", "M169"} and report.fits == ["diffusers"]
    assert {f.topic.name for f in report.findings if f.verdict == "named"} == {"codebook_loss", "stream_final", "last_context"}


def test_in_its_dialect_all_of_them_are_right(parts):
    assert verify.check(parts, dialect="diffusers").ok
