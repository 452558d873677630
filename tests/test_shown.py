"""Objects show themselves in a notebook: as pictures, curves, tables and trees, and a name never becomes markup."""

from __future__ import annotations

import base64
import io
import itertools
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

import minidit as md
from minidit import shown
from minidit.nn import tree

TEXT = st.text(max_size=20)
NAMES = ["<script>alert(1)</script>", 'a "b" & c', "plain"]


def small_dit():
    return md.DiT(md.DiTConfig(input_size=4, in_channels=1, hidden_size=8, depth=3, num_heads=2, num_classes=3), md.Philox(0))


class Tags(HTMLParser):
    """The tags, the text and the unclosed elements of some HTML."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in ("img", "path"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert tag == "path" or self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def objects():
    network, x = small_dit(), md.Tensor(np.ones((2, 3), np.float32))
    wrong = md.verify.check({"guide": lambda eps_u, eps_c, w: eps_u + w * eps_c})
    return {
        "ladder": md.Schedule.cosine(10), "straight": md.Straight(), "exploding": md.Exploding(), "digits": md.data.digits(),
        "network": network, "layer": network.blocks[0], "primitive": md.ops.softmax, "report": wrong,
        "finding": wrong.findings[0], "leaf": x, "tensor": md.ops.softmax(x), "pipeline": md.load(),
        "pictures": md.Pictures(np.zeros((3, 1, 4, 4)), NAMES), "fresh": md.DDPM, "solver": md.AB2, "answer": md.EPS,
    }  # fmt: skip


OBJECTS = objects()


@pytest.mark.parametrize("name", OBJECTS)
def test_a_repr_is_short_and_shows_no_address(name):
    text = repr(OBJECTS[name])
    assert "0x" not in text and "\n" not in text and 2 < len(text) < 300


@pytest.mark.parametrize("name", [name for name, thing in OBJECTS.items() if hasattr(thing, "_repr_html_")])
def test_the_html_of_an_object_is_well_formed_and_fetches_nothing(name):
    html = OBJECTS[name]._repr_html_()
    page = Tags(html)
    assert not page.open and "script" not in page.tags and len(html) < 200_000
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'src="([^"]*)"', html))


@given(TEXT, TEXT)
def test_text_becomes_text_and_never_markup(name, value):
    for html in (shown.card(name), shown.facts({name: value}), shown.code(value), shown.folded(name), shown.picture(b"", value),
                 shown.chart(name, [0, 1], {value: [0.0, 1.0]})):  # fmt: skip
        page = Tags(html)
        assert not page.open and set(page.tags) <= {"div", "strong", "table", "tr", "th", "td", "span", "pre", "code", "details",
                                                    "summary", "figure", "img", "figcaption", "svg", "path", "text"}  # fmt: skip


def test_a_class_with_a_dangerous_name_is_shown_literally():
    data = md.data.Dataset("<b>x</b>", np.zeros((3, 1, 4, 4), np.uint8), np.arange(3), tuple(NAMES))
    page = Tags(data._repr_html_())
    assert "script" not in page.tags and "<script>alert(1)</script>" in page.text and "<b>x</b>" in page.text


@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.sampled_from([1, 3]), st.integers(1, 6), st.integers(1, 6))))
@settings(max_examples=30)
def test_a_single_picture_is_shown_pixel_by_pixel(x):
    html = md.Pictures(x)._repr_html_()
    seen = [pixels(base64.b64decode(source)) for source in re.findall(r"base64,([^\"]+)", html)]
    assert len(seen) == len(x)
    for picture, one in zip(seen, x, strict=True):
        assert (picture.reshape(*one.shape[1:], -1) == np.moveaxis(one, 0, -1)).all()


@given(st.integers(1, 12), st.data())
def test_captions_follow_their_pictures_through_any_index(n, data):
    values = np.arange(n, dtype=np.float32)[:, None, None, None] / n
    x = md.Pictures(np.broadcast_to(values, (n, 1, 2, 2)), list(map(str, range(n))))
    index = data.draw(st.slices(n) | st.lists(st.integers(-n, n - 1), min_size=1) | st.integers(-n, n - 1))
    part = x[index]
    if part.size:
        first = np.asarray(part).reshape(-1, 4)[:, 0]
        assert part.captions == tuple(str(round(v * n)) for v in first)


def test_whatever_is_computed_from_pictures_is_a_plain_array():
    x = md.Pictures(np.ones((2, 1, 4, 4), np.float32), ["a", "b"])
    assert type(x + 1) is np.ndarray and type(-x) is np.ndarray and isinstance(x.mean(), np.float32)
    assert type(x[0]) is md.Pictures and x.reshape(2, 16)._repr_html_() is None and x[:, :, 0].captions == ()
    assert pixels(x._repr_png_()).ndim == 3


@pytest.mark.parametrize("shape", [(2, 2, 4, 4), (4, 4), (2, 1, 0, 4)])
def test_other_arrays_are_no_pictures(shape):
    with pytest.raises(ValueError, match="pictures are"):
        md.Pictures(np.zeros(shape))
    with pytest.raises(ValueError, match="1 captions for 2 pictures"):
        md.Pictures(np.zeros((2, 1, 4, 4)), ["a"])


def test_pictures_that_are_not_finite_are_shown_as_numbers():
    x = md.Pictures(np.full((1, 1, 2, 2), np.nan))
    assert x._repr_html_() is None and x._repr_png_() is None and "nan" in repr(x)


def test_the_tree_of_a_network_counts_every_parameter_once():
    network = small_dit()
    assert tree.count(network) == network.count_parameters()
    counts = [int(n.replace(",", "")) for n in re.findall(r"^  \w.*, ([\d,]+) parameters$", str(network), re.M)]
    each = [int(n.replace(",", "")) for n in re.findall(r"^  \w.*, ([\d,]+) parameters each$", str(network), re.M)]
    assert sum(counts) + network.config.depth * sum(each) == network.count_parameters()


@given(st.lists(st.sampled_from([1, 2]), min_size=1, max_size=5))
def test_neighbours_in_a_list_are_one_branch_only_if_they_are_built_alike(widths):
    network = md.nn.Module()
    network.parts = [md.nn.Linear(width, width) for width in widths]
    runs = sum(a != b for a, b in itertools.pairwise(widths)) + 1
    assert len(tree.branches(network)) == runs


def test_curves_leave_out_what_is_not_finite():
    html = shown.levels("p", [0.0, 0.5, 1.0], np.array([1.0, 0.5, 0.0]), np.array([0.0, 0.5, 1.0]))
    assert "nan" not in html and "inf" not in html and html.count("<path") == 5
    assert shown.chart("none", [0, 1], {"y": [np.nan, np.inf]}) == ""
