"""The report of a run in a real browser: sliders, charts, screens, errors."""

import re
from pathlib import Path

import numpy as np
import pytest
from run_folder import N, trace

from minidit.html import report

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
    assert page.evaluate(visible) == ["after 1,000 updates"]
    slide(page, "data-frames", 0)
    assert page.evaluate(visible) == ["after 0 updates"]
    assert page.evaluate("document.querySelector('[data-frames] output').textContent") == "after 0 updates"
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


def test_grids_of_pictures_use_the_width_of_a_desktop_and_never_leave_a_phone(page, run, html):
    widths = "[...document.querySelectorAll('#samples img')].map(i => i.getBoundingClientRect()).map(b => [b.left, b.right])"
    page.set_width(1400)
    page.open(run / "report.html")
    boxes = page.evaluate(widths)
    assert len(boxes) >= 2 and boxes[0][1] < boxes[1][0]  # beside each other
    page.set_width(390)
    page.open(run / "report.html")
    assert all(left >= 0 and right <= 390 for left, right in page.evaluate(widths))


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
