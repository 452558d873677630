"""The report of a run: one file that loads nothing, says what the folder holds, and works in a real browser."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from run_folder import N, S, trace, write_run

from minidit import pictures
from minidit.html import chart, measures, moments, report
from minidit.html.folder import Run, seconds_of

VOID = {"meta", "img", "input", "br", "hr"}


class Tree(HTMLParser):
    """Checks that every element is closed in order, and keeps all start tags and all text outside of scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(text)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):  # the self-closing elements of SVG
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.text.append(data)


def sections(html):
    return [a["id"] for tag, a in Tree(html).tags if tag == "section"]


# ------------------------------------------------------------------------------------------------ how long it was trained


@given(st.floats(0.02, 2), st.integers(8, 3000), st.floats(1e-3, 1e3))
def test_a_loss_that_is_a_power_of_the_updates_falls_by_that_power_in_its_second_half(power, n, unit):
    steps = np.unique(np.linspace(1, n, min(n, 200)).round())
    part, errors = measures.fall_of(list(steps), list(unit * steps**-power))
    assert part == pytest.approx(1 - 0.5**power, abs=1e-9) and errors > 1e6


def bare_run(lines, **config):
    return Run("r", config, lines, evaluation={}, samples=[], pictures={}, trace=None)


@pytest.mark.parametrize(("losses", "verdict"), [
    (lambda s, noise: s**-0.5 + 0.001 * noise, "400 updates are few: in their second half the loss still fell by 29%."),
    (lambda s, noise: 1 + 0.3 * noise - s / 4000, ""),  # noise, and a fall that is hidden in it
    (lambda s, noise: 1 + s**-1.0, ""),  # it hardly falls any more
])  # fmt: skip
def test_the_report_says_of_a_short_training_that_its_loss_still_fell(losses, verdict):
    steps = np.arange(0, 401, 10) + 0.0
    steps[0] = 1
    values = losses(steps, np.random.default_rng(0).normal(size=41)).tolist()
    lines = [{"phase": "model", "step": int(s), "loss": x} for s, x in zip(steps, values, strict=True)]
    assert report.about_length(bare_run(lines)) == verdict and verdict in report.header(bare_run(lines))
    assert report.about_length(bare_run(lines[:2])) == "10 updates are few: too few to tell whether the loss still falls."
    assert report.about_length(bare_run(lines, process={"kind": "consistency"})) == "" == report.about_length(bare_run([]))


# ------------------------------------------------------------------------------------------------ the file


def test_the_page_is_well_formed_and_everything_it_shows_has_a_name(html):
    tree = Tree(html)
    identifiers = [a["id"] for _, a in tree.tags if "id" in a]
    assert len(identifiers) == len(set(identifiers))
    for tag, a in tree.tags:
        if tag == "img":
            assert a["src"].startswith("data:image/")
            assert "alt" in a and (a["alt"] or "hidden" in a)
        if tag in ("canvas", "svg"):
            assert a["role"] == "img" and a["aria-label"]
        if tag == "input":
            assert a["type"] == "range" and a["aria-label"]
    links = [a["href"] for tag, a in tree.tags if tag == "a"]
    assert links and all(h[0] == "#" and h[1:] in identifiers for h in links)


def test_the_page_loads_nothing_from_anywhere(html):
    for tag, a in Tree(html).tags:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        assert not (tag == "script" and "src" in a)
        for name in ("src", "href", "action", "poster", "srcset", "data", "xlink:href"):
            assert name not in a or a[name].startswith(("data:", "#")), (tag, name)
    assert "url(" not in html and "@import" not in html and "http://" not in html and "https://" not in html
    assert "default-src &#x27;none&#x27;" in html


def test_the_same_folder_gives_the_same_bytes(run, html, tmp_path):
    again = write_run(tmp_path / "digits & co")
    assert report.write_report(again).read_text("utf-8") == html
    assert report.write_report(run).read_text("utf-8") == html  # with the first report in the folder


def test_text_from_the_folder_is_shown_and_never_obeyed(html):
    assert "alert(1)</script>" not in html
    text = " ".join(Tree(html).text)
    for told in ("digits & co", "digits <8x8>", "real <held out>", "a & b", "<script>alert(1)</script>", "another <one>"):
        assert told in text


def test_the_numbers_of_the_folder_are_on_the_page(html):
    text = re.sub(r"\s+", " ", " ".join(Tree(html).text))
    for told in ("width 64, depth 2, patch 2", "196 updates", "95.4%", "15.1", "10.1×", "1,500",
                 "times that of “real <held out>”", "3.21",
                 "21.5 dB", "0.085", "0.204", "model: loss", "Samples drawn during training"):
        assert told in text, told


def test_a_folder_with_everything_has_all_sections_and_an_empty_one_has_none(html, tmp_path):
    assert sections(html) == ["denoising", "samples", "progress", "curves", "reconstructions", "evaluation", "neighbours", "more",
                              "configuration", "environment"]
    page = report.write_report(tmp_path).read_text("utf-8")
    assert sections(page) == []


@pytest.mark.parametrize("kept, expected", [
    ("config.toml", ["configuration", "environment"]), ("metrics.jsonl", ["curves"]), ("eval.json", ["evaluation", "neighbours"]),
    ("trace.npz", ["denoising"]), ("samples", ["progress"]), ("pictures/ddpm.png", ["samples"]),
    ("pictures/loss.png", ["curves"]), ("pictures/denoising.gif", ["denoising"]), ("pictures/neighbours.png", ["neighbours"])])
def test_each_input_alone_makes_its_own_sections(run, tmp_path, kept, expected):
    for path in [run / kept] if (run / kept).is_file() else sorted((run / kept).iterdir()):
        target = tmp_path / path.relative_to(run)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())
    assert sections(report.write_report(tmp_path).read_text("utf-8")) == expected


# ------------------------------------------------------------------------------------------------ complaints


def test_a_last_line_that_a_kill_has_cut_is_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"phase": "dit", "step": 1, "loss": 0.5}\n{"phase": "dit", "st', "utf-8")
    assert "0.5" in report.write_report(tmp_path).read_text("utf-8")


@pytest.mark.parametrize("name, content, message", [
    ("metrics.jsonl", '{"phase": "dit", "step": 1}\n{"phase": "dit", "st\n', r"metrics.jsonl, line 2: not a JSON object"),
    ("metrics.jsonl", '{"phase": "dit", "step": 1}\n\n{"phase": "dit", "step": 2}', r"metrics.jsonl, line 2: not a JSON object"),
    ("metrics.jsonl", "[1]\n", r"metrics.jsonl, line 1: not a JSON object.*; delete the line: only the curves need it"),
    ("metrics.jsonl", '{"phase": "dit"}\n', r'line 1: "phase" \(text\) and "step".*; delete the line: only'),
    ("eval.json", "{", r"eval.json: not JSON"), ("eval.json", '{"rows": [{"n": 1}]}', r'eval.json: "rows" must be'),
    ("eval.json", "[]", r'eval.json: "rows" must be'), ("config.toml", "a = \n", r"config.toml: not TOML"),
    ("trace.npz", "nothing", r"trace.npz: not a trace"), ("pictures/ddim.png", "nothing", r"ddim.png: not a picture"),
    ("samples/step_00000001.png", "nothing", r"step_00000001.png: not a picture"),
])
def test_a_garbled_file_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content, "utf-8")
    with pytest.raises(ValueError, match=message):
        report.write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("change, message", [
    ({"rungs": np.arange(3)}, r"got \(3,\)"), ({"x_t": np.zeros((S, N, 4, 6, 7), np.uint8)}, r"\(6, 5, 4, 6, 7\)"),
    ({"x_t": np.zeros((S, N, 1, 6, 7)), "x_0_hat": np.zeros((S, N, 1, 6, 7))}, "must be uint8")])
def test_a_trace_of_other_shapes_is_refused(tmp_path, change, message):
    np.savez(tmp_path / "trace.npz", **(trace() | change))
    with pytest.raises(ValueError, match=message):
        report.write_report(tmp_path)


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is not a run folder"):
        report.write_report(tmp_path / "nowhere")


# ------------------------------------------------------------------------------------------------ parts


@pytest.mark.parametrize("c", [1, 3])
def test_an_atlas_holds_every_tile_where_the_page_looks_for_it(c):
    tiles = trace(1, c)["x_t"]
    with Image.open(io.BytesIO(moments.atlas_png(tiles, 7))) as opened:
        sheet = np.asarray(opened).reshape(opened.height, opened.width, c)
    for k, tile in enumerate(tiles.reshape(S * N, c, 6, 7)):
        y, x = k // 7 * 6, k % 7 * 7
        assert (sheet[y:y + 6, x:x + 7] == tile.transpose(1, 2, 0)).all()


def test_of_very_many_sample_grids_some_are_shown_with_the_first_and_the_last(tmp_path):
    for i in range(100):
        pictures.save_png(tmp_path / "samples" / f"step_{i:08d}.png", Image.new("L", (4, 4), i))
    tags = Tree(report.write_report(tmp_path).read_text("utf-8")).tags
    frames = [a for tag, a in tags if tag == "img"]
    assert len(frames) == moments.MOST_FRAMES
    assert (frames[0]["alt"], frames[-1]["alt"]) == ("after 0 updates", "after 99 updates")
    assert ["hidden" in f for f in frames] == [True] * (len(frames) - 1) + [False]
    first = Image.open(io.BytesIO(base64.b64decode(frames[-1]["src"].partition(",")[2])))
    assert first.getpixel((0, 0)) == 99


def test_moments_are_evenly_spaced_with_both_ends_and_never_fewer_than_four():
    assert moments.spaced(41, 41.5) == list(range(41)) and moments.spaced(41, 5.9) == [0, 10, 20, 30, 40]
    assert moments.spaced(41, 0) == [0, 13, 27, 40] and moments.spaced(3, 1) == [0, 1, 2] and moments.spaced(1, 9) == [0]


def test_a_walk_of_many_noisy_pictures_leaves_a_page_below_a_megabyte_that_counts_all_steps(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (101, 10, 3, 32, 32), np.uint8)
    np.savez(tmp_path / "trace.npz", rungs=np.arange(101)[::-1], x_t=noise, x_0_hat=noise)
    pictures.save_png(tmp_path / "pictures" / "ddim.png", Image.fromarray(noise[:30].reshape(640, -1, 3)))
    page = report.write_report(tmp_path).read_text("utf-8")
    layout = json.loads(next(a["data-trace"] for _, a in Tree(page).tags if "data-trace" in a))
    assert len(page) < 1_000_000 and layout["steps"][0] == 0 and layout["steps"][-1] == 100 == 100 - layout["rungs"][-1]
    assert [100 - s for s in layout["steps"]] == layout["rungs"] and 4 <= len(layout["steps"]) < 101


def test_a_film_is_in_the_page_only_where_no_slider_shows_the_same(html, run, tmp_path):
    assert "image/gif" not in html and "As a film: pictures/denoising.gif" in html
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "denoising.gif").write_bytes((run / "pictures" / "denoising.gif").read_bytes())
    assert "image/gif" in report.write_report(tmp_path).read_text("utf-8")


def test_time_adds_up_whether_or_not_the_clock_starts_anew():
    def at(*seconds):
        return [{"wall_s": s} for s in seconds]

    assert seconds_of(at(1, 2, 5)) == 5
    assert seconds_of(at(1, 5, 0.5, 3)) == 8
    assert seconds_of([{}, *at(2), {"wall_s": None}]) == 2


def test_a_chart_puts_the_first_and_last_values_at_its_edges_and_leaves_out_what_is_not_finite():
    figure = chart.line_chart("dit: <loss>", [0, 10, 20, 30], [4.0, np.nan, 2.0, 1.0])
    path = next(a["d"] for tag, a in Tree(figure).tags if tag == "path" and a["class"] == "mean")
    points = [tuple(map(float, p.split())) for p in path[1:].split("L")]
    assert [p[0] for p in points] == pytest.approx([chart.LEFT, (chart.LEFT + 2 * chart.RIGHT) / 3, chart.RIGHT], abs=0.1)
    assert points[0][1] < points[1][1] < points[2][1]  # down the page: smaller
    assert "dit: &lt;loss&gt;" in figure
    assert chart.line_chart("nothing", [1, 2], [np.nan, np.inf]) == ""
    one = chart.line_chart("one", [5], [0.42])  # no axis could say anything
    assert "one value so far: 0.42 at step 5" in one and "<svg" not in one
    assert "smoothed" in chart.line_chart("many", range(20), range(1, 21)) and "smoothed" not in figure


def test_the_bend_of_trajectories_is_a_chart_over_time():
    figure = report.evaluation({"straightness": 0.25, "bends": {"t": [0.75, 0.25], "squares": [0.1, 0.4]}})
    tree = Tree(figure)
    svg = next(a for tag, a in tree.tags if tag == "svg")
    assert [point[1:] for point in json.loads(svg["data-points"])] == [[0.25, 0.4], [0.75, 0.1]] and svg["data-axis"] == "t"
    assert "0.1 at t 0.75" in tree.text


@pytest.mark.parametrize("measured", [None, 3, {}, {"t": [0.5], "squares": []}, {"t": [0.5], "squares": ["1"]}])
def test_bends_that_are_damaged_have_no_chart(measured):
    assert "<figure" not in report.evaluation({"straightness": 0.25, "bends": measured})


def test_a_chart_of_a_long_run_stays_small_and_a_loss_over_decades_is_logarithmic():
    steps = np.arange(50000)
    figure = chart.line_chart("loss", steps, np.exp(-steps / 10000), may_log=True)
    assert len(figure) < 60000
    assert "(log)" in figure
    points = json.loads(next(a["data-points"] for tag, a in Tree(figure).tags if tag == "svg"))
    assert (points[0][1], points[-1][1]) == (0, 49999)


def test_only_the_trainings_that_were_made_are_listed_among_the_settings():
    """A judge and a tokenizer that nobody trained have settings in config.toml that mean nothing for this run."""
    config = {"train": {}, "judge_train": {"steps": 9}, "tokenizer_train": {"steps": 7}, "environment": {}}
    metrics = [{"phase": "model", "step": 1}]

    def listed(*phases):
        return set(report.used(Run("run", config, [*metrics, *({"phase": p, "step": 1} for p in phases)], {}, [], {}, None)))

    assert listed() == {"train"} and listed("judge") == {"train", "judge_train"}
    assert listed("judge", "tokenizer") == {"train", "judge_train", "tokenizer_train"}


@pytest.mark.parametrize("wanted, said", [(500, "196 of 500 updates"), (196, "196 updates"), ("many", "196 updates")])
def test_the_page_of_a_stopped_training_says_how_far_it_is(tmp_path, wanted, said):
    run = write_run(tmp_path / "run")
    metrics = (run / "metrics.jsonl").read_text("utf-8")
    (run / "metrics.jsonl").write_text(metrics.replace('"phase": "dit"', '"phase": "model"'), "utf-8")
    with (run / "config.toml").open("a", encoding="utf-8") as config:
        config.write(f"[train]\nsteps = {wanted!r}\n")
    assert f"after {said} and " in report.write_report(run).read_text("utf-8")
