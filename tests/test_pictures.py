"""Arrays become pictures: bytes by hand, pixels where they belong, files that are the same every time."""

import io
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from support import agree, spec

from minidit import curves, pictures
from minidit.images import Pictures


def images(b=6, c=1, h=8, w=8, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (b, c, h, w)).astype(np.float32)


# ------------------------------------------------------------------------------------------------ bytes


@spec("E.8")
def test_bytes_by_hand_rounding_and_not_truncating():
    """M94: -0.5 lies at 63.75, so at 64; truncating 255 (x + 1)/2 would make every picture half a level darker."""
    x = np.array([-1.0, -0.5, 0.0, 1 / 255, 0.5, 254 / 255 * 2 - 1 + 0.003, 1.0, -7.0, 7.0])
    agree(pictures.to_uint8(x), [0, 64, 128, 128, 191, 254, 255, 0, 255], bound=0, of="E.8")


@spec("E.8")
def test_every_byte_survives_the_way_to_a_value_and_back():
    u = np.arange(256, dtype=np.uint8)
    agree(pictures.to_uint8((u / 127.5 - 1).astype(np.float32)), u, bound=0, of="E.8")
    assert pictures.to_uint8(u) is u


@spec("E.8")
@given(hnp.arrays(np.float64, 7, elements=st.floats(-1, 1)))
def test_a_byte_is_never_further_than_half_a_step_from_its_value(x):
    assert np.abs(pictures.to_uint8(x) - 255 * (x + 1) / 2).max() <= 0.5 + 1e-12


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_have_no_byte(bad):
    with pytest.raises(ValueError, match="1 values that are not finite"):
        pictures.to_uint8(np.array([0.0, bad]))


# ------------------------------------------------------------------------------------------------ grids


@spec("E.8")
@given(st.integers(1, 7), st.integers(1, 5), st.sampled_from([1, 3]), st.integers(1, 3), st.integers(0, 3))
def test_every_tile_of_a_grid_is_its_image_with_each_pixel_a_square(b, columns, c, scale, gap):
    x = images(b, c, 3, 4)
    sheet = np.asarray(pictures.grid(x, columns, scale=scale, gap=gap))
    across = min(columns, b)
    assert sheet.shape == (-(-b // columns) * (3 * scale + gap) + gap, across * (4 * scale + gap) + gap, 3)
    for n in range(b):
        i, j = divmod(n, across)
        top, left = gap + i * (3 * scale + gap), gap + j * (4 * scale + gap)
        tile = sheet[top:top + 3 * scale, left:left + 4 * scale]
        expected = pictures.to_uint8(x[n]).transpose(1, 2, 0).repeat(scale, 0).repeat(scale, 1)
        assert (tile == np.broadcast_to(expected, tile.shape)).all()


def test_small_digits_are_enlarged_and_large_pictures_are_not():
    assert pictures.grid(images(1, h=8, w=8), 1, gap=0).size == (56, 56)
    assert pictures.grid(images(1, h=28, w=28), 1, gap=0).size == (56, 56)
    assert pictures.grid(images(1, h=256, w=256), 1, gap=0).size == (256, 256)


def test_labels_and_title_are_written_beside_the_tiles_and_never_over_them():
    x = images(4)
    plain = np.asarray(pictures.grid(x, 2))
    told = np.asarray(pictures.grid(x, 2, title="ε̂ at η = 0", row_labels=["ankle boot", "bag"], column_labels=["real", "sample"]))
    h, w = plain.shape[:2]
    assert (told[-h:, -w:][2:, 2:] == plain[2:, 2:]).all()
    assert (told[:-h] != 255).any()  # title and column labels above
    assert (told[-h:, :-w] != 255).any()  # row labels to the left


@pytest.mark.parametrize("x, arguments, message", [
    (np.zeros((4, 2, 8, 8)), {}, "C = 1 or 3"), (np.zeros((1, 8, 8)), {}, "C = 1 or 3"),
    (np.zeros((0, 1, 8, 8)), {}, "C = 1 or 3"),
    (np.zeros((4, 1, 8, 8)), {"row_labels": ["one"]}, "1 row labels for 2 rows"),
    (np.zeros((4, 1, 8, 8)), {"column_labels": list("abc")}, "3 column labels for 2 columns"),
])
def test_a_grid_says_what_it_cannot_draw(x, arguments, message):
    with pytest.raises(ValueError, match=message):
        pictures.grid(x, 2, **arguments)


def test_a_strip_has_a_column_for_each_frame_and_a_row_for_each_sample():
    frames = images(15).reshape(5, 3, 1, 8, 8)
    expected = pictures.grid(frames.transpose(1, 0, 2, 3, 4).reshape(15, 1, 8, 8), 5)
    assert pictures.strip(frames).tobytes() == expected.tobytes()
    assert pictures.strip(frames[:, 0]).size == pictures.grid(frames[:, 0], 5).size
    with pytest.raises(ValueError, match="strip"):
        pictures.strip(images(1)[0, 0])


def test_pictures_put_together_are_all_there():
    a, b = pictures.grid(images(4), 2), pictures.grid(images(6, c=3), 3)
    row, column = pictures.side_by_side([a, b], gap=10), pictures.stack([a, b], gap=10)
    assert row.size == (a.width + 10 + b.width, max(a.height, b.height))
    assert column.size == (max(a.width, b.width), a.height + 10 + b.height)
    assert row.crop((a.width + 10, 0, row.width, b.height)).tobytes() == b.tobytes()
    assert column.crop((0, a.height + 10, b.width, column.height)).tobytes() == b.tobytes()
    captioned = pictures.stack([a, b], ["real", "reconstructed"])
    assert captioned.height > column.height
    assert captioned.crop((0, captioned.height - b.height, b.width, captioned.height)).tobytes() == b.tobytes()
    with pytest.raises(ValueError, match="no pictures"):
        pictures.stack([])


# ------------------------------------------------------------------------------------------------ files


def test_a_png_of_an_array_is_that_of_its_grid(tmp_path):
    x = images(12, 3)
    whole = pictures.save_png(tmp_path / "grid.png", pictures.grid(x, 10)).read_bytes()
    assert pictures.save_png(tmp_path / "array.png", x).read_bytes() == whole
    assert pictures.save_png(tmp_path / "pictures.png", Pictures(x)).read_bytes() == whole
    one = pictures.save_png(tmp_path / "one.png", pictures.grid(x[:1], 1)).read_bytes()
    assert pictures.save_png(tmp_path / "first.png", Pictures(x)[0]).read_bytes() == one
    with pytest.raises(ValueError, match="a grid needs images"):
        pictures.save_png(tmp_path / "flat.png", x[0, 0])
    assert not (tmp_path / "flat.png").exists()


@pytest.mark.parametrize("c, mode", [(1, "L"), (3, "RGB")])
def test_a_png_is_the_picture_and_the_same_bytes_every_time(tmp_path, c, mode):
    sheet = pictures.grid(images(6, c), 3, title="samples")
    one, two = pictures.save_png(tmp_path / "new" / "one.png", sheet), pictures.save_png(tmp_path / "new" / "two.png", sheet)
    assert one.read_bytes() == two.read_bytes()
    with Image.open(one) as back:
        assert back.mode == mode
        assert back.convert("RGB").tobytes() == sheet.tobytes()
    assert sorted(p.name for p in one.parent.iterdir()) == ["one.png", "two.png"]  # no temporary file is left


@pytest.mark.parametrize("c, worst", [(1, 0), (3, 60)])
def test_a_gif_plays_every_frame_and_holds_the_last(tmp_path, c, worst):
    x = images(5, c)
    frames = [pictures.grid(x[i:i + 1], 1) for i in range(5)]
    one, two = (pictures.save_gif(tmp_path / name, frames, ms=40, hold=900) for name in ("one.gif", "two.gif"))
    assert one.read_bytes() == two.read_bytes()
    durations = []
    with Image.open(io.BytesIO(one.read_bytes())) as film:
        assert film.n_frames == 5
        assert film.info["loop"] == 0
        for i in range(5):
            film.seek(i)
            durations.append(film.info["duration"])
            shown, meant = np.asarray(film.convert("RGB"), int), np.asarray(frames[i], int)
            assert np.abs(shown - meant).max() <= worst
    assert durations == [40, 40, 40, 40, 900]


def test_a_gif_needs_frames_of_one_size(tmp_path):
    for frames in ([], [pictures.grid(images(1), 1), pictures.grid(images(2), 2)]):
        with pytest.raises(ValueError, match="one size"):
            pictures.save_gif(tmp_path / "a.gif", frames)


# ------------------------------------------------------------------------------------------------ curves


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_round_evenly_spaced_and_inside(low, width):
    high = low + width
    found = curves.ticks(low, high)
    if not high > low:
        return
    steps = np.diff(found)
    assert 2 <= len(found) <= 12
    slack = 1e-6 * width + 1e-9 * abs(low)
    assert low - slack <= found[0] and found[-1] <= high + slack
    assert np.allclose(steps, steps[0], rtol=1e-4, atol=1e-9 * abs(low))
    mantissa = steps[0] / 10 ** math.floor(math.log10(steps[0]) + 1e-4)
    assert min(abs(mantissa - m) for m in (1, 2, 5, 10)) < 1e-2


def test_ticks_by_hand():
    agree(curves.ticks(0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1], bound=1e-12)
    agree(curves.ticks(0, 2990, 7), [0, 500, 1000, 1500, 2000, 2500], bound=0)
    agree(curves.log_ticks(0.9, 25), [1, 2, 5, 10, 20], bound=1e-12)
    agree(curves.log_ticks(1e-4, 2), [1e-4, 1e-3, 1e-2, 1e-1, 1], bound=1e-12)
    assert [curves.number(v) for v in (0.25, 1500, 20000, 1.5e6, 1e-5, 0)] == ["0.25", "1500", "20k", "1.5M", "1e-05", "0"]


@given(st.integers(1, 80), st.floats(0.5, 9), st.floats(-3, 3))
def test_an_average_keeps_constants_and_never_lags_behind_a_slope(n, span, slope):
    agree(curves.smoothed(np.full(n, slope), span), np.full(n, slope), bound=1e-12)
    line = slope * np.arange(n)
    inner = slice(math.ceil(3 * span), n - math.ceil(3 * span))
    agree(curves.smoothed(line, span)[inner], line[inner], bound=1e-9)


def test_an_average_removes_what_alternates():
    assert np.abs(curves.smoothed([1.0, -1.0] * 50, 4)[12:-12]).max() < 1e-3


@pytest.mark.parametrize("log", [False, True])
def test_a_curve_runs_from_its_first_value_to_its_last(log):
    x = np.arange(0, 101, 10)
    picture = np.asarray(curves.curves({"loss": (x, np.linspace(4, 1, 11))}, "loss", log=log, smooth=False), int)
    blue = np.abs(picture - curves.COLOURS[0]).max(-1) < 8
    blue[:40] = False  # the legend
    rows, columns = np.nonzero(blue)
    first, last = rows[columns == columns.min()].mean(), rows[columns == columns.max()].mean()
    assert (columns.min(), columns.max()) == pytest.approx((62, 702), abs=3)
    assert first < 80 and last > 320
    middle = rows[np.abs(columns - 382) < 2].mean()
    straight = (first + last) / 2
    assert middle == pytest.approx(straight, abs=3) if not log else middle < straight - 20  # log of a falling line bulges upwards


def test_curves_skip_what_is_not_finite_draw_single_points_and_refuse_nothing_at_all():
    told = curves.curves({"a": ([1, 2, 3], [1.0, np.nan, 2.0]), "b": ([1], [1.5]), "none": ([], [])}, "t")
    assert told.tobytes() == curves.curves({"a": ([1, 3], [1.0, 2.0]), "b": ([1], [1.5])}, "t").tobytes()
    with pytest.raises(ValueError, match="no finite value"):
        curves.curves({"a": ([1, 2], [0.0, -1.0])}, "t", log=True)
    with pytest.raises(ValueError, match="as many steps"):
        curves.curves({"a": ([1, 2], [0.0])}, "t")
