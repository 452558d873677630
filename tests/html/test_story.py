"""The story: every chapter leads on, names what it used, and moves in a browser by hand, by keyboard and by itself."""

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("latex2mathml")
pytest.importorskip("markdown_it")

import minidit as md
from minidit.html import moving
from minidit.html.chapters import chapters
from minidit.html.diagrams import DIAGRAMS, TAPE
from minidit.html.entry import decisive_line
from minidit.html.story import INSTRUCTION

ROOT = Path(__file__).resolve().parents[2]
STORY = chapters(ROOT / "docs/story")
pytestmark = pytest.mark.skipif(not STORY, reason="no story beside the tests")
LIMIT = 1_000_000  # bytes of a page


@pytest.fixture(scope="module")
def folder(book, tmp_path_factory):
    where = tmp_path_factory.mktemp("story")
    for name, text in book.items():
        (where / name).write_text(text, encoding="utf-8")
    return where


def instructions(kind):
    return [(c.page, words) for c in STORY for k, words in INSTRUCTION.findall(c.text) if k == kind]


def test_the_chapters_are_numbered_and_lead_from_the_first_to_the_last_and_back(book):
    assert [c.number for c in STORY] == list(range(1, 9))
    for c in STORY:
        turn = dict(re.findall(r'<a rel="(prev|next)" href="([\w.]+)"', book[f"{c.page}.html"]))
        assert turn.get("prev") == (f"story{c.number - 1}.html" if c.number > 1 else None)
        assert turn.get("next") == (f"story{c.number + 1}.html" if c.number < 8 else None)


def test_a_chapter_ends_at_equations_that_exist_each_with_its_lines_and_tests(checkout, book):
    used = dict(instructions("uses"))
    assert list(used) == [c.page for c in STORY]
    for page, words in used.items():
        end = book[f"{page}.html"].split('class="uses"')[1]
        for i in words.split():
            assert i in checkout.entries
            assert f'href="{i[0]}.html#{i}"' in end and f'href="{i[0]}.html#{i}-code"' in end
        assert end.count("<li>") >= len(words.split()) and end.count('class="l"') >= len(words.split())


def test_every_moving_part_and_every_diagram_is_told_of_once():
    assert sorted(words for _, words in instructions("moving")) == sorted(moving.PARTS)
    assert sorted(words for _, words in instructions("diagram")) == sorted(DIAGRAMS)


def test_a_moving_part_stands_in_the_place_of_the_picture_that_shows_the_same(book):
    for page, name in instructions("moving"):
        part = book[f"{page}.html"].split(f'id="{name}"')[1].split("</section>")[0]
        still, live = part.split('<div class="live" hidden>')
        assert still.count("<img ") == 1 and live.count("<canvas") >= 1 and live.count("<input") >= 1


def test_every_picture_has_a_short_description_and_a_caption_and_lies_in_the_folder():
    found = [(c, *m) for c in STORY for m in re.findall(r"!\[([^\]]*)\]\(([^)]*)\)(?:\n\n\*([^*]+)\*\n)?", c.text)]
    assert len(found) == len(list(STORY[0].path.parent.glob("pictures/*.png")))
    for chapter, description, target, caption in found:
        assert (chapter.path.parent / target).exists()
        assert 20 < len(description) < 90 and len(caption) > 60 and caption.endswith("."), target


def test_a_diagram_of_the_book_is_a_sketch_in_the_file(book):
    for page, name in instructions("diagram"):
        text = next(c.text for c in STORY if c.page == page)
        above = text.split(f"<!-- diagram: {name} -->")[0].rstrip()
        sketch = above.rpartition("```text\n")[2].removesuffix("```")
        assert above.endswith("```") and len(sketch.splitlines()) >= 2
        assert sketch.splitlines()[0] not in book[f"{page}.html"]


def test_links_of_the_files_themselves_lead_to_files():
    links = [(c.path.parent / target, c.path.name) for c in STORY for target in re.findall(r"\]\(([^)#]+)\)", c.text)]
    assert len(links) > 3 * len(STORY) and [where for where in links if not where[0].exists()] == []


def test_residuals_that_come_with_the_package_are_of_equations_and_below_their_bounds(checkout):
    shipped = json.loads((ROOT / "minidit/html/residuals.json").read_text())
    assert len(shipped) > 200 and set(shipped) <= set(checkout.entries)
    assert [i for i, r in shipped.items() if r["residual"] > r["bound"]] == []


def test_every_box_of_a_diagram_that_names_an_equation_leads_there_and_to_its_line(checkout, book):
    page = book["story7.html"]
    for figure in page.split('<figure class="drawn">')[1:]:
        places = re.findall(r'<a href="(\w\.html#(\w\.\d+)(-code)?)"', figure.split("</figure>")[0])
        assert len(places) >= 4 and all(i in checkout.entries for _, i, _ in places)
        assert sum(bool(code) for *_, code in places) == sum(not code for *_, code in places)


def test_the_tape_shows_what_the_tape_of_the_package_computes():
    x, w = (md.Tensor(np.float64(TAPE[k][0])) for k in "xw")
    p = w * x
    q = p + x
    L = q * q
    assert [float(v.data) for v in (p, q, L)] == [TAPE[k][0] for k in "pqL"]
    L.backward()
    assert [float(v.grad) for v in (x, w)] == [TAPE[k][1] for k in "xw"]
    assert 2 * TAPE["q"][0] == TAPE["q"][1] == TAPE["p"][1] and TAPE["L"][1] == 1


def test_every_page_of_the_book_is_smaller_than_a_megabyte(book):
    assert {name: len(text.encode()) for name, text in book.items() if len(text.encode()) >= LIMIT} == {}


def test_the_decisive_line_of_a_test_is_its_last_claim():
    text = "    def test_x():\n        a = f()\n        assert a\n        agree(a,\n              2, bound=1)\n        print(a)\n"
    assert decisive_line(text) == "agree(a, 2, bound=1)"
    assert decisive_line("def test_y():\n    with raises(ValueError):\n        f()\n") == "with raises(ValueError): f()"
    assert decisive_line("def test_z():\n    for i in x:\n        assert i\n    assert x\n") == "assert x"
    assert decisive_line("def test_nothing():\n    f()\n") == ""


# ------------------------------------------------------------------------------------------------ in a browser

CANVASES = "[...document.querySelectorAll('#{0} canvas')].map(c => c.toDataURL()).join()"
SET = "(() => {{ const e = document.querySelector('#{0} [name={1}]'); e.value = {2}; e.dispatchEvent(new Event('input')); }})()"
MOVES = {
    "slider": ("t", 900), "schedules": ("t", 100), "spacings": ("n", 3), "points": ("at", 900), "guidance": ("w", 6),
    "meanshift": ("at", 25),
}  # fmt: skip


@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize(("page_name", "name"), instructions("moving"))
def test_a_part_moves_when_its_control_does(folder, page, page_name, name, width):
    page.set_width(width)
    page.set_dark(False, reduced_motion=True)
    page.open(folder / f"{page_name}.html")
    assert page.evaluate(f"document.querySelector('#{name} .still').hidden && !document.querySelector('#{name} .live').hidden")
    before, said = page.evaluate(CANVASES.format(name)), page.evaluate(f"document.querySelector('#{name} .says').textContent")
    control, value = MOVES[name]
    page.evaluate(SET.format(name, control, value))
    assert page.evaluate(CANVASES.format(name)) != before
    assert page.evaluate(f"document.querySelector('#{name} .says').textContent") != said
    page.evaluate(f"document.querySelector('#{name} [name={control}]').focus()")
    before = page.evaluate(CANVASES.format(name))
    page.press("ArrowLeft")
    assert page.evaluate(CANVASES.format(name)) != before or name == "points"  # a twentieth of a step of the walk
    assert page.errors == [] and page.overflow() == 0


FARTHEST = """(() => {{
    const x = walked('{0}', 40).clouds.at(-1), {{ means, stds }} = MOVING.clouds;
    const far = [...Array(x.length / 2).keys()].map(i =>
        Math.min(...means.map(([a, b], k) => Math.hypot(x[2 * i] - a, x[2 * i + 1] - b) / stds[k])));
    return Math.max(...far);
}})()"""


@pytest.mark.parametrize("name", moving.SAMPLERS)
def test_every_sampler_walks_to_the_data(folder, page, name):
    """No point ends farther from its cloud than four and a half of its standard deviations."""
    page.set_dark(False, reduced_motion=True)
    page.open(folder / "story4.html")
    assert page.evaluate(FARTHEST.format(name)) < 4.5


def test_a_part_plays_by_itself_and_its_button_stops_it(folder, page):
    page.set_dark(False, reduced_motion=False)
    page.open(folder / "story4.html")
    page.evaluate("document.getElementById('points').scrollIntoView()")
    at = "document.querySelector('#points [name=at]').value"
    look = f"look = () => {at} !== first ? done(true) : requestAnimationFrame(look)"
    assert page.evaluate(f"new Promise(done => {{ const first = {at}, {look}; look(); }})")
    page.evaluate("document.querySelector('#points [name=play]').click()")
    assert page.evaluate("document.querySelector('#points [name=play]').textContent") == "Play"


def test_no_line_of_code_is_cut_off(folder, page):
    for width in (390, 900, 1400):
        page.set_width(width)
        for name in ("D", "T", "A"):
            page.open(folder / f"{name}.html")
            cut = "[...document.querySelectorAll('.source pre span.l')].filter(l => l.scrollWidth > l.clientWidth + 1).length"
            assert page.evaluate(cut) == 0, (name, width)
            boxes = "[...document.querySelectorAll('.source pre')].filter(p => p.scrollWidth > p.clientWidth + 1).length"
            assert page.evaluate(boxes) == 0, (name, width)


def test_a_phone_begins_with_the_first_equation_and_the_menu_is_in_words(folder, page):
    page.set_width(390)
    page.open(folder / "D.html")
    assert page.evaluate("document.querySelector('.contents').open") is False
    page.set_width(1400)
    page.open(folder / "D.html")
    assert page.evaluate("document.querySelector('.contents').open") is True
    page.evaluate("document.querySelector('.menu summary').click()")
    words = page.evaluate("[...document.querySelectorAll('.menu a')].map(a => a.textContent)")
    assert {"Diffusion", "Guidance", "Layers"} <= set(words) and all(len(word) > 4 for word in words)


def test_the_picture_of_the_slider_is_one_of_the_data():
    made = moving.script(np.full((32, 32), 7, np.uint8))
    assert base64.b64encode(bytes([7]) * 1024).decode() in made
