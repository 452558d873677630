"""The page of a verification: it says what the report says, escapes what came from outside, and works in a real browser."""

import json
import re
from html import unescape

import pytest

from minidit import verify
from minidit.cli import main
from minidit.html.verdicts import write_verdicts
from minidit.verify import DEVIATIONS, TOPICS
from minidit.verify.core.reference import Reference


def asked(*ids, topics=("ddim_step", "posterior_variance", "layer_norm", "step_pairs")):
    """The report on the reference with these mistakes in it."""
    R = Reference(DEVIATIONS[i] for i in ids)
    return verify.check({name: TOPICS[name].by(R) for name in topics})


def text_of(html):
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html.split("</style>")[1])).split())


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    report = asked("M02", "M61")
    report.findings += verify.check({"linear_betas": lambda T: 1 / 0, "cosine_betas": lambda T: [0.1] * T}).findings
    report.target = "<script>alert(1)</script>"
    return write_verdicts(tmp_path_factory.mktemp("page") / "new" / "verdicts.html", json.loads(json.dumps(report.as_dict())))


def test_the_page_says_what_is_wrong_what_is_right_and_why(page_file):
    text = text_of(page_file.read_text("utf-8"))
    assert "with M02 ALPHA_PREV_INDEX" in text and DEVIATIONS["M02"].wrong in text and DEVIATIONS["M02"].right in text
    assert "with M61" in text and "ZeroDivisionError: division by zero" in text and "No known mistake explains this" in text
    assert "posterior_variance D.18" in text.split("What holds")[1] and "smallest question" in text


def test_what_is_different_stands_on_the_page(tmp_path):
    right = TOPICS["q_sample"].by(Reference())
    report = verify.check({"q_sample": lambda x_0, eps, t, alpha_bar: right(x_0, -eps, t, alpha_bar)})
    text = text_of(write_verdicts(tmp_path / "p.html", report.as_dict()).read_text("utf-8"))
    assert "Equals D.1 with minus ε." in text and "No known mistake" not in text


def test_what_came_from_outside_is_text(page_file):
    html = page_file.read_text("utf-8")
    assert "<script" not in html and "&lt;script&gt;alert(1)" in html


def test_a_clean_target_has_a_page_without_complaints(tmp_path):
    text = text_of(write_verdicts(tmp_path / "v.html", asked().as_dict()).read_text("utf-8"))
    assert "What does not hold" not in text and "Matches minidit's conventions" in text


def test_a_browser_shows_it_without_errors_at_any_width(page_file, page):
    for width in (1280, 390):
        page.set_width(width)
        page.open(page_file)
        assert (page.errors, page.requests, page.overflow()) == ([], [], 0)
    assert page.evaluate("document.querySelectorAll('article').length") == 4


def test_the_command_writes_it(tmp_path, capsys):
    (tmp_path / "mine.py").write_text("def linear_betas(T):\n    return [0.1] * T\n")
    assert main(["verify", str(tmp_path / "mine.py"), "--html", str(tmp_path / "mine.html")]) == 1
    assert "linear_betas" in (tmp_path / "mine.html").read_text("utf-8")
