"""The report of a run: one file that loads nothing, says what the folder holds, and works in a real browser."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minidit import pictures
from minidit.html import chart, report
from minidit.html.folder import seconds_of

S, N = 6, 5
RUNGS = [1000, 800, 600, 400, 200, 0]
VOID = {"meta", "img", "input", "br", "hr"}


def trace(seed=0, c=1):
    r = np.random.default_rng(seed)
    return {k: r.integers(0, 256, (S, N, c, 6, 7), np.uint8) for k in ("x_t", "x_0_hat")} | {"rungs": np.array(RUNGS)}


def write_run(folder, seed=0):
    """A run folder with everything in it; the pictures are noise."""
    r = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(
        'seed = 3\n[data]\nname = "digits <8x8>"\n[dit]\nhidden_size = 64\ndepth = 2\npatch_size = 2\nnull = []\n'
        '[environment]\npython = "3.11"\nnote = "<script>alert(1)</script>"\n', "utf-8")
    entries = [{"phase": phase, "step": s, "loss": float(np.exp(-s / 50) + 0.01 + 0.001 * r.random()), "lr": 0.001,
                "wall_s": 2.0 * k + s / 100} for k, phase in enumerate(("autoencoder", "dit")) for s in range(0, 200, 4)]
    entries[10] |= {"psnr": 21.5, "loss": float("nan")}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(e) + "\n" for e in entries), "utf-8")
    (folder / "eval.json").write_text(json.dumps({
        "rows": [{"name": "real <held out>", "n": 1500, "accuracy": 0.904, "frechet": 1.5, "multiple": 1.0},
                 {"name": "DDIM 50, w = 2", "n": 500, "accuracy": 0.954, "frechet": 15.1, "multiple": 10.07, "note": "a & b"},
                 {"name": "noise", "n": 500, "frechet": float("nan")}],
        "neighbours": {"sample_distance": {"q05": 0.085, "q50": 0.13, "q95": 0.204}, "held_out_distance": {"q05": 0.08}},
        "bits_per_dim": 3.21}), "utf-8")
    for i in (0, 500, 1000):
        pictures.save_png(folder / "samples" / f"step_{i:08d}.png", pictures.grid(r.uniform(-1, 1, (6, 1, 8, 8)), 3))
    for name in ("reconstructions", "ddim", "ddpm", "x0_strip", "neighbours", "loss", "another <one>"):
        pictures.save_png(folder / "pictures" / f"{name}.png", pictures.grid(r.uniform(-1, 1, (20, 3, 8, 8)), 10))
    pictures.save_gif(folder / "pictures" / "denoising.gif", [pictures.grid(r.uniform(-1, 1, (4, 1, 8, 8)), 2) for _ in range(3)])
    np.savez(folder / "trace.npz", **trace(seed))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "digits & co")


@pytest.fixture(scope="module")
def html(run):
    return report.write_report(run).read_text("utf-8")


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
    for told in ("width 64, depth 2, patch 2", "196 steps", "95.4%", "15.1", "10.1×", "1,500", "times “real <held out>”", "3.21",
                 "21.5 dB", "0.085", "0.204", "dit: loss", "Samples drawn during training"):
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
    ("metrics.jsonl", "[1]\n", r"metrics.jsonl, line 1: not a JSON object"),
    ("metrics.jsonl", '{"phase": "dit"}\n', r'metrics.jsonl, line 1: "phase" \(text\) and "step"'),
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
    with Image.open(io.BytesIO(report.atlas_png(tiles, 7))) as opened:
        sheet = np.asarray(opened).reshape(opened.height, opened.width, c)
    for k, tile in enumerate(tiles.reshape(S * N, c, 6, 7)):
        y, x = k // 7 * 6, k % 7 * 7
        assert (sheet[y:y + 6, x:x + 7] == tile.transpose(1, 2, 0)).all()


def test_of_very_many_sample_grids_some_are_shown_with_the_first_and_the_last(tmp_path):
    for i in range(100):
        pictures.save_png(tmp_path / "samples" / f"step_{i:08d}.png", Image.new("L", (4, 4), i))
    tags = Tree(report.write_report(tmp_path).read_text("utf-8")).tags
    frames = [a for tag, a in tags if tag == "img"]
    assert len(frames) == report.MOST_FRAMES
    assert (frames[0]["alt"], frames[-1]["alt"]) == ("after 0 steps", "after 99 steps")
    assert ["hidden" in f for f in frames] == [True] * (len(frames) - 1) + [False]
    first = Image.open(io.BytesIO(base64.b64decode(frames[-1]["src"].partition(",")[2])))
    assert first.getpixel((0, 0)) == 99


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
    assert "<circle" in chart.line_chart("one", [5], [0.0])


def test_a_chart_of_a_long_run_stays_small_and_a_loss_over_decades_is_logarithmic():
    steps = np.arange(50000)
    figure = chart.line_chart("loss", steps, np.exp(-steps / 10000), may_log=True)
    assert len(figure) < 60000
    assert "(log)" in figure
    points = json.loads(next(a["data-points"] for tag, a in Tree(figure).tags if tag == "svg"))
    assert (points[0][1], points[-1][1]) == (0, 49999)


# ------------------------------------------------------------------------------------------------ in a browser


PIXELS = """[...document.querySelectorAll('[data-trace] canvas')].map(c =>
    [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data])"""


def slide(page, box, value):
    page.evaluate(f"(() => {{ const s = document.querySelector('[{box}] input'); s.value = {value};"
                  " s.dispatchEvent(new Event('input', {bubbles: true})); })()")
    page.settle()


def canvases(page):
    """What the two canvases show, as (height, width) arrays of grey; where nothing is drawn, -1."""
    shape = page.evaluate("(c => [c.height, c.width])(document.querySelector('[data-trace] canvas'))")
    found = [np.array(p).reshape(*shape, 4) for p in page.evaluate(PIXELS)]
    return [np.where(p[..., 3] == 255, p[..., 0], -1) for p in found]


def test_the_slider_shows_the_pictures_of_every_rung_exactly(page, run, html):
    page.open(run / "report.html")
    page.evaluate("Promise.all([...document.querySelectorAll('[data-trace] img')].map(i => i.decode())).then(() => true)")
    page.settle()
    known = trace()
    for s, t in [(0, 1000), (3, 400), (5, 0)]:
        if s:
            slide(page, "data-trace", s)
        for shown, key in zip(canvases(page), ("x_t", "x_0_hat"), strict=True):
            expected = np.full((2 * 7 - 1, 3 * 8 - 1), -1)
            for j in range(N):
                y, x = j // 3 * 7, j % 3 * 8
                expected[y:y + 6, x:x + 7] = known[key][s, j, 0]
            assert (shown == expected).all()
        assert page.evaluate("document.querySelector('[data-trace] output').textContent") == f"t = {t}"
        assert f"t = {t}" in page.evaluate("document.querySelector('[data-trace] input').getAttribute('aria-valuetext')")
    assert page.errors == [] and page.requests == []


def test_the_keyboard_moves_the_sliders_and_presses_play(page, run, html):
    page.open(run / "report.html")
    page.evaluate("document.querySelector('[data-trace] input').focus()")
    page.press("ArrowRight")
    page.press("ArrowRight")
    assert page.evaluate("document.querySelector('[data-trace] output').textContent") == "t = 600"
    page.evaluate("document.querySelector('[data-trace] button').focus()")
    page.press("Enter")
    arrived = page.evaluate("""new Promise(done => { const slider = document.querySelector('[data-trace] input');
        const look = () => slider.value === slider.max ? done(true) : requestAnimationFrame(look); look(); })""")
    assert arrived
    page.settle()
    assert page.evaluate("document.querySelector('[data-trace] output').textContent") == "t = 0"
    assert page.evaluate("document.querySelector('[data-trace] button').textContent") == "Play"
    assert page.errors == []


def test_the_moments_of_the_training_are_shown_one_at_a_time(page, run, html):
    page.open(run / "report.html")
    visible = "[...document.querySelectorAll('[data-frames] img')].filter(i => i.offsetWidth > 0).map(i => i.alt)"
    assert page.evaluate(visible) == ["after 1,000 steps"]
    slide(page, "data-frames", 0)
    assert page.evaluate(visible) == ["after 0 steps"]
    assert page.evaluate("document.querySelector('[data-frames] output').textContent") == "after 0 steps"
    assert page.errors == []


def test_a_chart_tells_its_values_to_the_arrow_keys_and_to_the_pointer(page, run, html):
    page.open(run / "report.html")
    output = "document.querySelector('.chart output').textContent"
    resting = page.evaluate(output)
    page.evaluate("document.querySelector('.chart svg').focus()")
    page.press("Home")
    assert page.evaluate(output).endswith("at step 0")
    page.evaluate("document.querySelector('.chart svg').blur()")
    assert page.evaluate(output) == resting
    page.evaluate("document.querySelector('.chart svg').scrollIntoView()")
    x, y = page.evaluate("(b => [b.x + b.width / 2, b.y + 50])(document.querySelector('.chart svg').getBoundingClientRect())")
    page.move_mouse(x, y)
    step = int(page.evaluate(output).rpartition(" ")[2])
    assert 60 < step < 120


@pytest.mark.parametrize("width", [320, 375, 768, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_every_screen_light_and_dark(page, run, html, width, dark):
    page.set_width(width)
    page.set_dark(dark)
    page.open(run / "report.html")
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    page.settle()
    assert page.overflow() == 0
    ink, paper = (page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor"))
    brightness = [sum(map(int, re.findall(r"\d+", c)[:3])) for c in (ink, paper)]
    assert (brightness[0] > brightness[1]) == dark
    assert page.errors == []


def test_an_empty_run_is_a_page_without_errors(page, tmp_path):
    page.open(report.write_report(tmp_path))
    assert page.errors == [] and page.requests == []
    assert page.evaluate("document.querySelector('h1').textContent") == tmp_path.name


def test_the_browser_reports_errors_refused_fetches_and_uncaught_exceptions(page, tmp_path):
    path = Path(tmp_path) / "bad.html"
    path.write_text("<!DOCTYPE html><title>bad</title><img src='missing.png'>"
                    "<script>console.error('told'); throw new Error('thrown')</script>", "utf-8")
    page.open(path)
    assert any("told" in e for e in page.errors) and any("thrown" in e for e in page.errors)
    assert [Path(u).name for u in page.requests] == ["missing.png"]
    with pytest.raises(AssertionError, match="no such thing"):
        page.evaluate("(() => { throw new Error('no such thing') })()")


def test_a_browser_that_hangs_is_given_up_and_ended(chromium_page, tmp_path):
    with type(chromium_page)() as page:
        page.timeout = 0.3
        with pytest.raises(TimeoutError, match=r"within 0.3 s: Runtime.evaluate"):
            page.evaluate("new Promise(() => {})")
        assert page.ended()
