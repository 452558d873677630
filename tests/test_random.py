"""Philox: the published answers, an independent scalar version, and noise that does not depend on who draws it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from support import agree, host, spec

from minidit import random as philox
from minidit.backend import to_device, xp_of
from minidit.random import Philox, philox4x32

words32 = st.integers(0, 2**32 - 1)
seeds = st.integers(0, 2**64 - 1)
shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)


def scalar_philox(counter, key):
    """Philox4x32-10 on Python integers, written from the definition: two multiplications, two xors, a Weyl key."""
    (l0, r0, l1, r1), (k0, k1) = counter, key
    for i in range(10):
        hi0, lo0 = divmod(0xD2511F53 * l0, 1 << 32)
        hi1, lo1 = divmod(0xCD9E8D57 * l1, 1 << 32)
        l0, r0 = hi1 ^ r0 ^ (k0 + i * 0x9E3779B9) % (1 << 32), lo1
        l1, r1 = hi0 ^ r1 ^ (k1 + i * 0xBB67AE85) % (1 << 32), lo0
    return [l0, r0, l1, r1]


def on(xp, counter):
    return [xp.full((1,), w, dtype="uint64") for w in counter]


@spec("R.1")
@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [  # the file kat_vectors of Random123
        ([0] * 4, [0] * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_the_published_known_answers_come_out(xp, counter, key, answer):
    assert " ".join(f"{int(w[0]):08x}" for w in philox4x32(on(xp, counter), key)) == answer
    assert " ".join(f"{w:08x}" for w in scalar_philox(counter, key)) == answer


@spec("R.1")
@given(st.lists(words32, min_size=4, max_size=4), st.lists(words32, min_size=2, max_size=2))
def test_the_arrays_compute_what_single_integers_compute(xp, counter, key):
    assert [int(w[0]) for w in philox4x32(on(xp, counter), key)] == scalar_philox(counter, key)


def word(seed, stream, draw, sample, position):
    """The word that the layout puts at `position` within a sample."""
    return scalar_philox((position // 4, draw, sample, stream), (seed % 2**32, seed >> 32))[position % 4]


@spec("R.5")
@given(seed=seeds, stream=words32, draw=words32, shape=shapes)
def test_the_counter_is_block_draw_sample_stream_and_the_key_is_the_seed(xp, device, seed, stream, draw, shape):
    words = host(Philox(seed, stream, draw).words(shape, device=device))
    assert words.shape == shape and words.dtype == np.uint64
    flat = words.reshape(shape[0] if shape else 1, -1) if words.size else np.empty((0, 0), int)
    for (sample, position), w in np.ndenumerate(flat):
        assert w == word(seed, stream, draw, sample, position)


place = st.tuples(words32, words32, words32, words32)


@spec("R.5")
@given(seed=seeds, places=st.lists(place, min_size=2, max_size=12, unique=True))
def test_different_places_have_different_counters(seed, places):
    """Philox is a bijection for a fixed key, so equal outputs would mean equal counters; (block, draw, sample, stream) is one."""
    counters = [np.array(w, np.uint64) for w in zip(*places, strict=True)]
    out = np.stack(philox4x32(counters, (seed & 0xFFFFFFFF, seed >> 32)))
    assert len({tuple(column) for column in out.T.tolist()}) == len(places)


small = st.tuples(st.integers(0, 2), st.integers(0, 3))


@spec("R.5")
@given(seed=seeds, a=small, b=small)
def test_streams_and_draws_do_not_repeat_each_other(seed, a, b):
    x, y = (Philox(seed, stream, draw).words((3, 9)) for stream, draw in (a, b))
    assert (a == b) == np.array_equal(x, y)
    assert len(np.unique(x.reshape(-1)[:4])) == 4


@spec("R.5")
@pytest.mark.parametrize("draw", ["words", "uniform", "normal"])
@given(seed=seeds, state=words32, rest=st.lists(st.integers(1, 4), max_size=2).map(tuple), data=st.data())
def test_noise_depends_neither_on_the_batch_nor_on_who_draws_it(xp, device, draw, seed, state, rest, data):
    def drawn(n, samples=None):
        rng = Philox(seed, state=state)
        return host(getattr(rng, draw)((n, *rest), samples, device))

    whole = drawn(7)
    some = np.array(data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=9)))
    assert np.array_equal(drawn(len(some), to_device(some, device)), whole[some])
    assert np.array_equal(drawn(3), whole[:3])
    assert np.array_equal(drawn(len(some), some.tolist()), whole[some])


@spec("R.1", "R.2", "R.3", "R.4")
@given(seed=seeds, shape=shapes)
def test_both_backends_draw_the_same(xp, device, seed, shape):
    here, there = Philox(seed), Philox(seed)
    assert np.array_equal(here.words(shape), host(there.words(shape, device=device)))
    assert np.array_equal(here.integers(-3, 9, shape), host(there.integers(-3, 9, shape, device=device)))
    agree(there.uniform(shape, device=device, dtype="float64"), here.uniform(shape, dtype="float64"), bound=0, of="R.2")
    agree(there.normal(shape, device=device, dtype="float64"), here.normal(shape, dtype="float64"), bound=1e-13, of="R.3")
    order = there.permutation(5, device=device)
    assert xp_of(order) is xp and np.array_equal(here.permutation(5), host(order)) and here.state == there.state == 5


@given(seed=seeds, draws=st.integers(0, 5))
def test_the_state_is_an_int_that_can_be_saved_and_set(seed, draws):
    rng = Philox(seed, stream=2)
    for _ in range(draws):
        rng.normal((2, 3))
    assert rng.state == draws and type(rng.state) is int
    saved, x = rng.state, rng.normal((4,))
    rng.uniform((9,))
    rng.state = saved
    assert np.array_equal(rng.normal((4,)), x) and np.array_equal(Philox(seed, 2, saved).normal((4,)), x)


@spec("R.2", "R.3")
@given(seed=seeds, shape=shapes)
def test_precision_only_rounds_the_noise(xp, device, seed, shape):
    for draw, of in (("uniform", "R.2"), ("normal", "R.3")):
        fine = getattr(Philox(seed), draw)(shape, device=device, dtype=xp.float64)
        coarse = getattr(Philox(seed), draw)(shape, device=device)
        assert fine.dtype == xp.float64 and coarse.dtype == xp.float32 and fine.shape == coarse.shape == shape
        assert np.array_equal(host(fine).astype(np.float32), host(coarse))
        agree(coarse, fine, bound=2**-24, of=of)


@spec("R.2")
def test_uniforms_never_reach_an_end(monkeypatch):
    monkeypatch.setattr(Philox, "words", lambda rng, shape, *_: np.resize(np.array([0, 2**32 - 1], np.uint64), shape))
    assert Philox(0).uniform((2,), dtype=np.float64).tolist() == [2.0**-33, 1 - 2.0**-33]
    assert np.isfinite(Philox(0).normal((2, 1))).all()  # the logarithm of the smallest u is finite


@spec("R.2")
def test_uniforms_are_uniform():
    u = Philox(2024).uniform((200, 500), dtype=np.float64).ravel()
    assert u.min() > 0 and u.max() < 1
    assert stats.kstest(u, "uniform").pvalue > 0.01
    for k in (1, 2, 3, 4):
        assert abs(np.mean(u**k) - 1 / (k + 1)) < 4 / np.sqrt(u.size * (2 * k + 1))


@spec("R.3")
def test_normals_are_normal():
    z = Philox(7).normal((200, 501), dtype=np.float64)  # an odd number: the last pair is half used
    flat = z.ravel()
    assert stats.kstest(flat, "norm").pvalue > 0.01
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(np.mean(flat**power) - moment) < 4 * np.sqrt(variance / flat.size)
    assert abs(np.mean(z[:, 0:500:2] * z[:, 1:500:2])) < 4 / np.sqrt(50_000)  # the two of a pair
    assert abs(np.mean(z[1:] * z[:-1])) < 4 / np.sqrt(flat.size)  # neighbouring samples


@spec("R.3")
@given(seed=seeds, n=st.integers(1, 9))
@settings(max_examples=20)
def test_a_normal_is_the_box_muller_of_its_two_words(seed, n):
    z, expected = Philox(seed).normal((1, n), dtype=np.float64)[0], []
    for i in range(0, n, 2):
        u, v = ((word(seed, 0, 0, 0, i + k) + 0.5) / 2**32 for k in (0, 1))
        r = np.sqrt(-2 * np.log(u))
        expected += [r * np.cos(2 * np.pi * v), r * np.sin(2 * np.pi * v)]
    agree(z, np.array(expected[:n]), bound=1e-14, of="R.3")


@spec("R.4")
@given(seed=seeds, low=st.integers(-(2**40), 2**40), span=st.one_of(st.integers(1, 40), st.integers(2**32 - 3, 2**32)))
def test_integers_scale_the_word_into_their_range(xp, device, seed, low, span):
    n = host(Philox(seed).integers(low, low + span, (4, 3), device=device))
    k = Philox(seed).words((4, 3))
    assert n.dtype == np.int64 and n.tolist() == [[low + int(w) * span // 2**32 for w in row] for row in k]
    assert low <= n.min() and n.max() < low + span


@spec("R.4")
def test_the_widest_range_is_the_word_itself():
    assert np.array_equal(Philox(3).integers(0, 2**32, (5,)), Philox(3).words((5,)))


@spec("R.4")
def test_integers_are_uniform():
    counts = np.bincount(Philox(1).integers(0, 10, (100, 1000)).ravel(), minlength=10)
    assert stats.chisquare(counts).pvalue > 0.01


@given(seed=seeds, n=st.integers(0, 50))
def test_a_permutation_has_every_number_once(xp, device, seed, n):
    assert sorted(host(Philox(seed).permutation(n, device)).tolist()) == list(range(n))


def test_permutations_are_all_equally_likely():
    rng = Philox(11)
    counts = {}
    for _ in range(1200):
        order = tuple(rng.permutation(3).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6 and stats.chisquare(list(counts.values())).pvalue > 0.01


@pytest.mark.parametrize(("seed", "stream"), [(-1, 0), (2**64, 0), (0, -1), (0, 2**32)])
def test_a_seed_or_stream_out_of_range_is_refused(seed, stream):
    with pytest.raises(ValueError, match="must be in 0"):
        Philox(seed, stream)


@pytest.mark.parametrize(("low", "high"), [(0, 0), (3, 2), (0, 2**32 + 1)])
def test_an_empty_or_too_wide_range_is_refused(low, high):
    with pytest.raises(ValueError, match="the range must hold 1 to"):
        Philox(0).integers(low, high)


@pytest.mark.parametrize("draw", ["words", "uniform", "normal"])
def test_there_is_one_index_for_each_sample(draw):
    rng = Philox(0)
    with pytest.raises(ValueError, match="2 sample indices for a shape"):
        getattr(rng, draw)((3, 4), samples=np.arange(2))
    assert rng.state == 0  # a refused draw is not counted


def test_the_first_and_the_last_seed_and_stream_are_fine_and_defaults_are_zero():
    for seed, stream in ((0, 0), (2**64 - 1, 2**32 - 1)):
        assert Philox(seed, stream).words((3, 5)).shape == (3, 5)
    assert np.array_equal(Philox(5).words((4,)), Philox(5, stream=0, state=0).words((4,)))
    assert Philox(5).state == 0


@pytest.mark.parametrize("per_sample, words", [(1, 2), (2, 2), (3, 4), (4, 4), (5, 6)])
def test_a_normal_takes_two_words_for_two_numbers_and_no_more(monkeypatch, per_sample, words):
    drawn, real = [], Philox.words
    monkeypatch.setattr(Philox, "words", lambda self, shape, *rest: (drawn.append(shape), real(self, shape, *rest))[1])
    Philox(0).normal((3, per_sample))
    assert drawn == [(3, words)]


def test_numbers_without_a_shape_are_one_number_in_single_precision():
    for draw in (Philox(0).uniform, Philox(0).normal):
        assert draw().shape == () and draw().dtype == np.float32
    assert Philox(0).integers(0, 9).shape == ()


@pytest.mark.parametrize("per_sample, blocks", [(1, 1), (3, 1), (4, 1), (5, 2), (8, 2), (9, 3), (0, 0)])
def test_no_more_blocks_are_computed_than_hold_the_words(monkeypatch, per_sample, blocks):
    sizes, real = [], philox.philox4x32
    monkeypatch.setattr(philox, "philox4x32", lambda counter, key: (sizes.append(counter[0].size), real(counter, key))[1])
    Philox(0).words((3, per_sample))
    assert sizes == [3 * blocks]
