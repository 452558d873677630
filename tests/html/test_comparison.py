"""Several runs on one page: what differs, their curves together, and whether their measures may be compared."""

import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from run_folder import write_run

from minidit.html import chart
from minidit.html.comparison import names_of, write_comparison
from minidit.html.folder import ReportError


class Text(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.parts, self.open = [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.parts.append(data)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    folders = [write_run(place / name, seed) for name, seed in (("a & b", 1), ("<c>", 2))]
    config = folders[1] / "config.toml"
    config.write_text(config.read_text("utf-8").replace("depth = 2", "depth = 4").replace("null = []", "extra = 1"), "utf-8")
    return folders


@pytest.fixture(scope="module")
def written(runs):
    return write_comparison(runs, runs[0].parent / "compared.html")


def test_the_page_is_well_formed_and_shows_names_as_they_are(written):
    text = Text(written.read_text("utf-8"))
    assert text.open == [] and "a & b and <c>" in text.parts and "2 runs compared." in text.parts


def test_only_settings_that_differ_are_listed_and_a_missing_one_is_a_dash(written):
    part = re.search(r'(?s)<section id="settings".*?</section>', written.read_text("utf-8"))[0]
    rows = [re.findall(r"<(?:th scope=\"row\"|td)[^>]*>(.*?)</t[hd]>", row) for row in re.findall("(?s)<tr>(.*?)</tr>", part)]
    plain = [[unescape(re.sub("<.*?>", "", cell)) for cell in row] for row in rows if row]
    assert plain == [["model.depth", "2", "4"], ["model.null", "[]", "–"], ["model.extra", "–", "1"]]
    assert "The other 3 settings are the same." in part


def test_equal_runs_differ_in_nothing_and_are_told_apart(runs, tmp_path):
    page = write_comparison([runs[0], runs[0]], tmp_path / "same.html").read_text("utf-8")
    assert "None: the configurations are the same." in page and "a &amp; b (1) and a &amp; b (2)" in page


def test_every_measure_is_one_chart_with_a_line_per_run(written):
    page = written.read_text("utf-8")
    charts = re.findall(r'(?s)<figure class="chart"><figcaption><span><strong>(.*?)</strong>.*?</figure>', page)
    assert charts == ["tokenizer: loss", "tokenizer: psnr", "model: loss", "tokenizer: lr", "model: lr"]
    assert all(page.count(f'class="mean run{k}" d="M5') + page.count(f'circle class="run{k}"') == 5 for k in (0, 1))


def test_measures_stand_side_by_side_and_other_judges_are_pointed_out(runs, written, tmp_path):
    page = written.read_text("utf-8")
    assert "DDIM 50, w = 2" in page and "The judges were trained alike" in page
    other = write_run(tmp_path / "other")
    config = other / "config.toml"
    config.write_text(config.read_text("utf-8") + "[judge_train]\nsteps = 7\n", "utf-8")
    page = write_comparison([runs[0], other], tmp_path / "page.html").read_text("utf-8")
    assert "cannot be compared directly" in page


def test_names_are_the_shortest_ends_of_the_paths_that_tell_the_runs_apart(tmp_path):
    assert names_of([tmp_path / "x" / "run", tmp_path / "y" / "run"]) == ["x/run", "y/run"]
    assert names_of([tmp_path / "x", tmp_path / "y"]) == ["x", "y"]


@pytest.mark.parametrize("count, message", [(1, "1 runs: a page compares 2 to 6"), (7, "7 runs")])
def test_too_few_and_too_many_runs_are_refused(runs, tmp_path, count, message):
    with pytest.raises(ReportError, match=message):
        write_comparison([runs[0]] * count, tmp_path / "page.html")


def test_a_folder_that_is_no_run_is_named(runs, tmp_path):
    with pytest.raises(ReportError, match=f"{tmp_path}: no run there"):
        write_comparison([runs[0], tmp_path], tmp_path / "page.html")


def test_a_run_is_left_out_of_the_values_at_steps_that_it_has_not_made():
    figure = unescape(chart.several("loss", [("a", [1, 2], [5.0, 4.0]), ("b", [2, 3], [3.0, float("nan")]), ("c", [], [])]))
    assert '"a 5"' in figure and '"a 4, b 3"' in figure and "a 4 at step 2; b 3 at step 2" in figure and "run2" not in figure
    assert chart.several("loss", [("a", [1], [float("inf")])]) == ""


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_a_desk_and_a_telephone_and_its_charts_answer_the_keyboard(page, written, width):
    page.set_width(width)
    page.open(written)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    page.settle()
    assert page.overflow() == 0 and page.errors == [] and page.requests == []
    page.evaluate("document.querySelector('figure.chart svg').focus()")
    page.press("Home")
    assert page.evaluate("document.querySelector('figure.chart output').textContent").endswith("at step 0")


def test_a_page_is_named_after_its_runs_and_replaces_none_of_other_runs(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in ("x", "y"):
        for name in ("one", "two"):
            write_run(tmp_path / place / name)
    pair, others = ([tmp_path / place / name for name in ("one", "two")] for place in ("x", "y"))
    page = write_comparison(pair)
    first = page.read_bytes()
    assert page == Path("compared-one-two.html") and write_comparison(pair) == page and page.read_bytes() == first
    with pytest.raises(ReportError, match=r"compared-one-two\.html: there is a page of other runs of these names.*--out FILE"):
        write_comparison(others)
    assert page.read_bytes() == first and write_comparison(others, page) == page and page.read_bytes() != first
    assert write_comparison([pair[0], others[0]]) == Path("compared-x_one-y_one.html")
    assert write_comparison(pair[::-1]) == Path("compared-two-one.html")


def test_a_long_path_leaves_the_columns_of_all_runs_on_a_narrow_screen(tmp_path, page):
    runs = [write_run(tmp_path / name) for name in ("one", "two")]
    config = runs[1] / "config.toml"
    long = "/home/" + "a-very-long-name/" * 8 + "tokenizer.safetensors"
    config.write_text(config.read_text().replace("[data]", f'[data]\ntokenizer = "{long}"', 1))
    page.set_width(390)
    page.open(write_comparison(runs, tmp_path / "page.html"))
    ends = "[...document.querySelectorAll('#settings th, #settings td')].map(cell => cell.getBoundingClientRect().right)"
    assert page.overflow() == 0 and max(page.evaluate(ends)) <= 390
