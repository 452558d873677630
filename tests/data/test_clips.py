"""Clips that obey a law, what is read from them, and the rule that a clip is its frames for everything that knows pictures."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import agree, spec

from minidit.data import DataError, digits, load
from minidit.data.clips import FOUR, clips, mixed, moving, obedience, shifts, shuffled, within
from minidit.frames import clips_of, frames_of, in_strips, on_frames


@spec("E.21")
@settings(max_examples=15)
@given(st.integers(1, 5), st.integers(8, 11), st.integers(1, 3), st.integers(0, 9))
def test_every_frame_is_the_one_before_rolled_by_the_velocity(frames, size, speed, seed):
    data, sprites = moving(digits(), 12, frames=frames, size=size, velocities=within(speed), seed=seed), digits()
    known = {np.asarray(image).tobytes() for image in sprites.images}
    for clip, label in zip(data.images[:, 0], data.labels, strict=True):
        steps = [v for v in within(speed) if all((np.roll(a, v, (0, 1)) == b).all() for a, b in pairwise(clip))]
        assert steps, "no velocity explains all frames"
        turned = (np.roll(clip[0], (-r, -c), (0, 1)) for r in range(size) for c in range(size))
        first = next(t for t in turned if t[:8, :8].tobytes() in known and not t[8:].any() and not t[:, 8:].any())
        same = [k for k, image in enumerate(sprites.images[:, 0]) if (image == first[:8, :8]).all()]
        assert label in sprites.labels[same]


@spec("E.22", "E.23")
@settings(max_examples=15)
@given(st.sampled_from([FOUR, within(1), within(2)]), st.integers(0, 99))
def test_the_velocity_is_read_from_clips_of_the_law(velocities, seed):
    x = moving(digits(), 40, velocities=velocities, seed=seed).x_0()
    s = shifts(x)
    assert (s == s[:, :1]).all() and {tuple(v) for v in s[:, 0]} <= set(velocities)
    assert obedience(x, velocities) == {"steady": 1.0, "lawful": 1.0, "error": 0.0}
    assert obedience(x, [(3, 3), velocities[0]])["lawful"] == (s[:, 0] == velocities[0]).all(axis=1).mean()
    assert obedience(-0.3 * (x - 1)) != {} and np.array_equal(shifts(0.3 * x + 0.2), s)  # neither contrast nor light matters


@spec("E.22")
def test_shifts_are_the_best_of_all_by_loops():
    x, best = np.random.default_rng(0).standard_normal((3, 2, 3, 4, 6)), []
    for clip in x:
        for k in range(2):
            a, b = (f - f.mean(axis=(1, 2), keepdims=True) for f in (clip[:, k], clip[:, k + 1]))
            scores = {(r, c): (a * np.roll(b, (-r, -c), (1, 2))).sum() for r in range(-2, 2) for c in range(-3, 3)}
            best.append(max(scores, key=scores.get))
    assert [tuple(s) for s in shifts(x).reshape(-1, 2)] == best


@spec("E.23")
def test_frames_out_of_order_or_of_other_clips_are_not_steady():
    x = clips("test").x_0(slice(300))
    order, others = obedience(shuffled(x)), obedience(mixed(x))
    assert order["steady"] < 0.02 and order["error"] > 2 and others["steady"] < 0.02 and others["error"] > 3
    assert np.array_equal(np.sort(shuffled(x), axis=2), np.sort(x, axis=2))
    y = np.arange(3)[:, None, None, None, None] + np.zeros((3, 1, 4, 1, 1))
    assert mixed(y)[0, 0, :, 0, 0].tolist() == [0, 2, 1, 0]


@spec("E.23")
def test_a_clip_that_stands_still_is_steady_and_not_lawful():
    x = np.repeat(clips("test").x_0(slice(9))[:, :, :1], 6, axis=2)
    assert obedience(x) == {"steady": 1.0, "lawful": 0.0, "error": 0.0}


@spec("E.23")
def test_an_error_on_a_torus_goes_the_short_way():
    """Shifts of 7, -8, 7 pixels on a circle of 16 are one pixel apart, not fifteen."""
    frame, x = np.zeros((16, 16)), []
    frame[3, 5] = 1
    for at in (0, 7, -1, 6):
        x.append(np.roll(frame, at, 0))
    measured = obedience(np.stack(x)[None, None])
    agree(np.float64(measured["error"]), np.float64(1 / 3), bound=1e-12, of="E.23")
    assert measured["steady"] == 0


def test_the_parts_of_the_clips_share_no_digit_and_a_name_loads_them():
    train, test = load("clips"), load("clips", part="test")
    assert (len(train), len(test), train.shape, train.words) == (12000, 600, (1, 6, 16, 16), "clips of 6 frames")
    assert np.array_equal(clips().images, train.images) and train.class_names == digits().class_names
    assert set(train.prints).isdisjoint(test.prints)
    assert load("clips", part="test", frames=3, size=10, channels=3).shape == (3, 3, 10, 10)
    with pytest.raises(DataError, match="holds pictures, not clips: leave out --frames"):
        load("digits", frames=4)
    with pytest.raises(DataError, match="cannot show pictures of 8 x 8 that move"):
        load("clips", size=7)


def test_a_set_of_clips_is_a_set_with_one_more_axis():
    data = clips("test", frames=3)
    assert data.x_0(4).shape == (1, 1, 3, 16, 16) and data.x_0([4, 5]).shape == (2, 1, 3, 16, 16)
    assert (data.size, data.channels, data.take([1, 2]).shape) == ((16, 16), 1, data.shape)
    frames = data.pictures()
    assert frames.shape == (1, 16, 16) and len(frames) == 1800 and frames.pictures() is frames
    assert np.array_equal(frames.images[5], data.images[1, :, 2]) and frames.labels[5] == data.labels[1]
    assert data.split(0.1)[1].shape == data.shape
    with pytest.raises(DataError, match=r"must be uint8 \(N, C, H, W\), or clips"):
        replace(data, images=data.images[0, 0])


@given(st.integers(0, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))
def test_frames_come_back_as_the_clips_that_they_were(T, B, C, H, W):
    shape = (B, C, *([T] if T else []), H, W)
    x = np.arange(np.prod(shape)).reshape(shape)
    frames = frames_of(x)
    assert frames.shape == (B * max(T, 1), C, H, W) and np.array_equal(clips_of(frames, shape), x)
    assert np.array_equal(on_frames(lambda f: f[:, :1] + 1, x), x[:, :1] + 1)
    strip = in_strips(x)
    assert strip.shape == (B, C, H, max(T, 1) * W)
    for k in range(T):
        assert np.array_equal(frames.reshape(B, T, C, H, W)[:, k], x[:, :, k])
        assert np.array_equal(strip[..., k * W : (k + 1) * W], x[:, :, k])
    if not T:
        assert frames.base is not None and np.array_equal(frames, x) and np.array_equal(strip, x)
