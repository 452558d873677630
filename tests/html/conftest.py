"""A browser for the tests of pages, started once and reset for every test; this checkout and its book; a run and its report."""

import importlib.util
from pathlib import Path

import pytest
from run_folder import write_run

from minidit.html import report
from minidit.html.spec import read

ROOT = Path(__file__).resolve().parents[2]


def load_chromium():
    where = importlib.util.spec_from_file_location("chromium", Path(__file__).with_name("chromium.py"))
    module = importlib.util.module_from_spec(where)
    where.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def chromium_page():
    chromium = load_chromium()
    if reason := chromium.reason_to_skip():
        pytest.skip(reason)
    with chromium.Page() as page:
        yield page


@pytest.fixture
def page(chromium_page):
    """One tab of a headless Chromium, 1280 pixels wide and light; skipped with a reason where there is none."""
    chromium_page.set_width(1280)
    chromium_page.set_dark(False)
    return chromium_page


@pytest.fixture(scope="session")
def checkout():
    """This checkout's own SPEC.md, code and tests."""
    if not (ROOT / "SPEC.md").exists():
        pytest.skip("no SPEC.md beside the tests")
    return read(ROOT)


@pytest.fixture(scope="session")
def book(checkout):
    """The pages of its book, made once: name -> HTML."""
    from minidit.html.book import pages
    from minidit.html.mistakes import Mistake
    from minidit.verify.bank import DEVIATIONS

    mistakes = [Mistake(d.id, d.name, d.spec, d.wrong, d.right, d.seen) for d in DEVIATIONS.values()]
    return dict(pages(checkout, mistakes))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "digits & co")


@pytest.fixture(scope="module")
def html(run):
    return report.write_report(run).read_text("utf-8")
