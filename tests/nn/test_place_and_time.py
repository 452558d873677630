"""Positions and times as sines and cosines: values by hand, norms, and what depends on differences only."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import agree, host, spec

from minidit.nn import sincos_2d, timestep_embedding

quarter = st.integers(1, 8)
side = st.integers(1, 7)


@spec("N.6", "N.7")
@given(quarter, side, side)
def test_a_row_of_the_table_is_its_column_and_then_its_row(quarter, h, w):
    D = 4 * quarter
    table = sincos_2d(D, h, w)
    assert table.shape == (h * w, D) and table.dtype == np.float64
    expected = np.empty((h, w, D))
    for r in range(h):
        for c in range(w):
            for half, s in enumerate((c, r)):  # the column first
                for i in range(quarter):
                    omega = 10000 ** (-i / quarter)
                    expected[r, c, half * D // 2 + i] = math.sin(s * omega)
                    expected[r, c, half * D // 2 + quarter + i] = math.cos(s * omega)
    agree(table, expected.reshape(h * w, D), bound=1e-12, of=("N.6", "N.7"))


@spec("N.6", "N.7")
def test_known_places_of_the_table():
    table = sincos_2d(8, 2, 3)  # two frequencies, 1 and 1/100
    s, c = math.sin, math.cos
    agree(table[0], np.array([0, 0, 1, 1, 0, 0, 1, 1.0]), bound=0, of="N.7")
    agree(table[1], np.array([s(1), s(0.01), c(1), c(0.01), 0, 0, 1, 1]), bound=1e-15, of="N.7")  # row 0, column 1
    agree(table[3], np.array([0, 0, 1, 1, s(1), s(0.01), c(1), c(0.01)]), bound=1e-15, of="N.7")  # row 1, column 0
    agree(table[5], np.array([s(2), s(0.02), c(2), c(0.02), s(1), s(0.01), c(1), c(0.01)]), bound=1e-15, of="N.7")


@spec("N.6", "N.7")
@given(quarter, side, side, st.data())
def test_places_know_their_distance_and_nothing_else(quarter, h, w, data):
    D = 4 * quarter
    table = sincos_2d(D, h, w).reshape(h, w, D)
    agree((table**2).sum(-1), np.full((h, w), D / 2), bound=1e-12, of="N.7")
    dr, dc = data.draw(st.integers(0, h - 1)), data.draw(st.integers(0, w - 1))
    products = (table[dr:, dc:] * table[: h - dr, : w - dc]).sum(-1)
    omega = 10000.0 ** (-np.arange(quarter) / quarter)
    agree(products, np.full_like(products, np.cos(dr * omega).sum() + np.cos(dc * omega).sum()), bound=1e-12, of="N.6")


@spec("N.7")
@pytest.mark.parametrize("width", [2, 6, 9])
def test_a_width_that_does_not_divide_into_four_is_refused(width):
    with pytest.raises(ValueError, match=f"divisible by 4, got {width}"):
        sincos_2d(width, 2, 2)


@spec("N.8")
@given(st.lists(st.floats(0, 1000), min_size=1, max_size=5), st.sampled_from([2, 8, 256]))
def test_time_is_cosines_and_then_sines(xp, times, d):
    emb = timestep_embedding(xp.asarray(times), d, np.float64)
    half = d // 2
    expected = [[f(t * 10000 ** (-i / half)) for f in (math.cos, math.sin) for i in range(half)] for t in times]
    agree(emb, np.array(expected), bound=1e-10, of="N.8")
    agree((host(emb) ** 2).sum(1), np.full(len(times), d / 2), bound=1e-12, of="N.8")


@spec("N.11")
def test_the_sine_may_come_first(xp):
    t = xp.asarray([0.0, 1.0, 999.5])
    emb, other = (host(timestep_embedding(t, 6, np.float64, shift=1, sine_first=first)) for first in (False, True))
    agree(other, np.concatenate([emb[:, 3:], emb[:, :3]], axis=1), bound=0, of="N.11")
    assert (other[0] == [0, 0, 0, 1, 1, 1]).all()


@spec("N.8")
def test_known_times(xp):
    emb = host(timestep_embedding(xp.asarray([0, 1, 999]), 256, np.float64))
    assert (emb[0] == [1.0] * 128 + [0.0] * 128).all()
    last = 10000 ** (-127 / 128)  # not 10000^-1: divided by half, not by half - 1
    agree(np.arcsin(emb[1, 255]) / last, np.float64(1), bound=1e-12, of="N.8")
    agree(emb[1, [0, 128]], np.array([math.cos(1), math.sin(1)]), bound=1e-15, of="N.8")
    agree(emb[2, [1, 129]], np.array([f(999 * 10000 ** (-1 / 128)) for f in (math.cos, math.sin)]), bound=1e-12, of="N.8")


@spec("N.8")
def test_integers_and_floats_are_one_time_and_every_rung_another_embedding(xp):
    t = xp.arange(1000)
    whole, half = timestep_embedding(t, 256), timestep_embedding(t.astype(xp.float32), 256)
    np.testing.assert_array_equal(host(whole), host(half))
    assert len({row.tobytes() for row in host(whole)}) == 1000


@spec("N.8")
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_angles_are_taken_in_float64_whatever_the_result_is(xp, dtype):
    t = xp.arange(0, 1000, 37)
    emb = timestep_embedding(t, 256, dtype)
    exact = host(timestep_embedding(t, 256, np.float64))
    assert emb.dtype == dtype and isinstance(emb, xp.ndarray)
    np.testing.assert_array_equal(host(emb), exact.astype(dtype))


@spec("N.10")
@given(st.lists(st.floats(0, 1000), min_size=1, max_size=5), st.sampled_from([4, 8, 256]))
def test_the_other_frequencies_end_at_one_ten_thousandth(xp, times, d):
    emb = timestep_embedding(xp.asarray(times), d, np.float64, shift=1)
    half = d // 2
    expected = [[f(t * 10000 ** (-i / (half - 1))) for f in (math.cos, math.sin) for i in range(half)] for t in times]
    agree(emb, np.array(expected), bound=1e-10, of="N.10")
    agree(host(emb)[:, -1], np.sin(np.array(times) / 10000), bound=1e-12, of="N.10")
    zero = xp.zeros(1)
    agree(timestep_embedding(zero, d, np.float64, shift=1), timestep_embedding(zero, d, np.float64), bound=0, of="N.10")
