"""Chapter G: two conventions, one line."""

import numpy as np
import pytest
from diffusion.draws import pictures
from hypothesis import given
from hypothesis import strategies as st
from support import agree, host, spec

from minidit.diffusion.guidance import guide, guide_from_conditional, guide_three_channels, interval, rescale
from minidit.diffusion.prediction import predict_score, predict_x_0
from minidit.diffusion.schedule import Schedule

scales = st.floats(-2, 10)


@spec("G.1", "G.2")
def test_one_pixel_by_hand():
    u, c = np.array([[1.0]]), np.array([[3.0]])
    agree(guide(u, c, 4.0), [[9.0]], bound=0, of="G.1")
    agree(guide_from_conditional(u, c, 3.0), [[9.0]], bound=0, of="G.2")


@spec("G.1")
@given(pictures(2), scales)
def test_zero_is_unconditional_one_is_conditional_and_between_is_a_line(xp, xs, w):
    u, c = map(xp.asarray, xs)
    agree(guide(u, c, 0.0), u, bound=0, of="G.1")
    agree(guide(u, c, 1.0), c, bound=1e-15, of="G.1")
    agree(guide(u, c, w), (1 - w) * guide(u, c, 0.0) + w * guide(u, c, 1.0), bound=1e-12, of="G.1")
    agree(guide(c, c, w), c, bound=1e-15, of="G.1")


@spec("G.2")
@given(pictures(2), scales)
def test_the_papers_scale_is_ours_minus_one(xp, xs, omega):
    u, c = map(xp.asarray, xs)
    agree(guide_from_conditional(u, c, omega), guide(u, c, 1 + omega), bound=1e-12, of="G.2")


@spec("G.1")
@given(pictures(3), scales)
def test_guidance_commutes_with_every_prediction(xs, w):
    (u, c, x_t), sch = xs, Schedule.linear(50)
    for law in (lambda e: predict_x_0(x_t, e, 20, sch), lambda e: predict_score(e, 20, sch)):
        agree(law(guide(u, c, w)), guide(law(u), law(c), w), bound=1e-10, of="G.1")


@spec("G.1")
@given(pictures(2))
def test_a_scale_for_each_sample(xp, xs):
    u, c = map(xp.asarray, xs)
    both = guide(u, c, xp.asarray([0.0, 3.0]))
    agree(both[0], u[0], bound=0, of="G.1")
    agree(both[1], guide(u[1:], c[1:], 3.0)[0], bound=1e-15, of="G.1")


@spec("G.3")
@given(pictures(2), st.floats(1, 8))
def test_full_rescaling_gives_each_sample_the_contrast_of_its_conditional(xp, xs, w):
    u, c = map(xp.asarray, xs)
    out = guide(u, c, w)
    std = lambda x: host(x).std(axis=(1, 2, 3))
    agree(std(rescale(out, c, phi=1.0)), std(c), bound=1e-12, of="G.3")
    agree(rescale(out, c, phi=0.0), out, bound=0, of="G.3")
    agree(rescale(out, c), 0.7 * rescale(out, c, phi=1.0) + 0.3 * out, bound=1e-12, of="G.3")
    agree(rescale(out, c)[:1], rescale(out[:1], c[:1]), bound=1e-15, of="G.3")


@spec("G.4")
@given(scales, st.integers(0, 50), st.integers(0, 50))
def test_outside_its_interval_guidance_is_plain_conditional(w, low, high):
    t = np.arange(1, 51)
    expected = np.where((low < t) & (t <= high), w, 1.0)
    agree(interval(w, t, low, high), expected, bound=0, of="G.4")
    agree([interval(w, int(r), low, high) for r in t], expected, bound=0, of="G.4")


@spec("G.5")
@given(pictures(2, (2, 8, 2, 2)), scales)
def test_the_official_quirk_guides_three_channels_and_leaves_the_rest_conditional(xp, xs, w):
    u, c = map(xp.asarray, xs)
    out = guide_three_channels(u, c, w)
    agree(out[:, :3], guide(u, c, w)[:, :3], bound=1e-15, of="G.5")
    agree(out[:, 3:], c[:, 3:], bound=0, of="G.5")


def test_outputs_of_different_shapes_are_refused():
    for law in (guide, guide_from_conditional):
        with pytest.raises(ValueError, match=r"\(2, 1\).*\(1, 1\)"):
            law(np.zeros((2, 1)), np.zeros((1, 1)), 2.0)
