"""A browser for the tests of pages, started once and reset for every test; a run folder and its report."""

import importlib.util
from pathlib import Path

import pytest
from run_folder import write_run

from minidit.html import report


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


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "digits & co")


@pytest.fixture(scope="module")
def html(run):
    return report.write_report(run).read_text("utf-8")
