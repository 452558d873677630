"""Images in memory: the two maps between levels and values, sub-sets, and what is held out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import agree, spec

from minidit import data
from minidit.data.dataset import Dataset


def random_set(seed, n=20, classes=3, channels=1, size=(4, 6), levels=256, crop=0):
    r = np.random.default_rng(seed)
    images = r.integers(0, levels, (n, channels, *size)).astype(np.uint8)
    labels = r.integers(0, classes, n) if classes else None
    return Dataset("random", images, labels, tuple(f"class {i}" for i in range(classes)), levels, crop)


@given(st.integers(2, 256))
def test_black_is_minus_one_white_is_one_and_the_levels_between_are_even_steps(levels):
    x = data.from_uint8(np.arange(levels), levels, np.float64)
    assert x[0] == -1 and x[-1] == 1
    agree(np.diff(x), np.full(levels - 1, 2 / (levels - 1)), bound=1e-15)


@spec("E.8")
@given(st.sampled_from([np.float16, np.float32, np.float64]))
def test_every_byte_survives_the_way_to_a_float_and_back(dtype):
    k = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(data.to_uint8(data.from_uint8(k, dtype=dtype)), k)
    half = data.from_uint8(k, dtype=np.float64) + 1.01 / 255  # a little more than half a level up: the next byte
    np.testing.assert_array_equal(data.to_uint8(half), np.minimum(k.astype(int) + 1, 255))


def test_the_seventeen_levels_of_the_digits_fill_the_whole_range():
    d = data.digits()
    x = d.x_0(dtype=np.float64)
    assert x.min() == -1 and x.max() == 1
    agree(x, d.images / 8.0 - 1, bound=1e-15)


@given(st.integers(0, 99), st.sampled_from([7, -1, slice(3, 9), [5, 5, 0], np.arange(20) % 3 == 0]))
def test_an_index_gives_the_same_images_as_floats_and_as_a_sub_set(seed, index):
    d = random_set(seed)
    x, sub = d.x_0(index), d.take(index)
    assert x.dtype == np.float32 and x.ndim == 4
    np.testing.assert_array_equal(x, sub.x_0())
    np.testing.assert_array_equal(sub.labels, np.atleast_1d(d.labels[index]))
    assert (sub.name, sub.class_names, sub.levels) == (d.name, d.class_names, d.levels)


def test_padding_is_cut_from_figures():
    d = random_set(0, size=(8, 8), crop=2)
    np.testing.assert_array_equal(d.inner(d.images), d.images[:, :, 2:6, 2:6])
    whole = random_set(0, size=(8, 8))
    np.testing.assert_array_equal(whole.inner(whole.images), whole.images)


@given(st.integers(0, 99), st.integers(2, 60), st.integers(0, 5), st.data())
def test_a_split_is_disjoint_complete_repeatable_and_fair_to_every_class(seed, n, classes, drawn):
    d = random_set(seed, n, classes)
    d = Dataset("numbered", np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1), d.labels, d.class_names)
    count = drawn.draw(st.integers(1, n - 1))
    train, held = d.split(count, seed=seed)
    assert len(held) == count
    ids = [s.images.ravel().tolist() for s in (train, held)]
    assert sorted(ids[0] + ids[1]) == list(range(n)) and ids[0] == sorted(ids[0]) and ids[1] == sorted(ids[1])
    assert ids[1] == d.split(count, seed=seed)[1].images.ravel().tolist()
    if classes:
        share = np.bincount(held.labels, minlength=classes) - np.bincount(d.labels, minlength=classes) * count / n
        assert np.abs(share).max() <= 1, "every class gives its share, to within one image"
        np.testing.assert_array_equal(d.labels[ids[1]], held.labels)


@given(st.lists(st.integers(0, 9), min_size=3, max_size=40), st.data(), st.integers(0, 9))
def test_equal_pictures_stay_on_one_side_of_a_split(values, drawn, seed):
    """Pictures of few kinds, many of them equal: no kind is on both sides, and every class may hold any of them."""
    n, kinds = len(values), len(set(values))
    labels = np.asarray(drawn.draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)))
    d = Dataset("copies", np.asarray(values, np.uint8).reshape(n, 1, 1, 1), labels, ("a", "b"))
    count = drawn.draw(st.integers(1, n - 1))
    if kinds == 1:
        with pytest.raises(data.DataError, match="they are all the same"):
            d.split(count, seed)
        return
    train, held = d.split(count, seed)
    sides = [set(s.images.ravel().tolist()) for s in (train, held)]
    assert not sides[0] & sides[1] and sides[0] | sides[1] == set(values) and len(train) + len(held) == n
    fits = min(values.count(v) for v in set(values)) <= count
    assert len(held) <= count if fits else len(held) == min(values.count(v) for v in set(values))


def test_the_print_of_a_picture_is_that_of_its_bytes():
    d = random_set(3, 6)
    twice = d.take([0, 1, 2, 0, 3, 1])
    assert np.array_equal(np.unique(twice.prints, return_inverse=True)[1].reshape(-1)[[0, 1]],
                          np.unique(twice.prints, return_inverse=True)[1].reshape(-1)[[3, 5]])  # fmt: skip
    assert len(np.unique(twice.prints)) == 4 and len(np.unique(d.prints)) == 6


def test_seeds_hold_out_different_images_and_a_share_is_a_count():
    d = random_set(1, 200)
    a, b = d.split(50, seed=0)[1], d.split(50, seed=1)[1]
    assert not np.array_equal(a.images, b.images)
    np.testing.assert_array_equal(d.split(0.25, seed=0)[1].images, a.images)


@pytest.mark.parametrize("held_out", [0, 20, -1, 0.0, 1.0, 0.001, 1.5, True])
def test_a_split_that_leaves_a_side_empty_is_refused(held_out):
    with pytest.raises(data.DataError, match="cannot hold out"):
        random_set(0).split(held_out)


@pytest.mark.parametrize(("change", "words"), [
    ({"images": np.zeros((2, 1, 4, 4), np.float32)}, "uint8"),
    ({"images": np.zeros((2, 4, 4), np.uint8)}, "uint8"),
    ({"images": np.zeros((0, 1, 4, 4), np.uint8), "labels": np.zeros(0, np.int64)}, "holds no images"),
    ({"labels": np.zeros(2, np.int32)}, "int64"),
    ({"labels": np.zeros(3, np.int64)}, "3 labels for 2 images"),
    ({"labels": np.array([0, 2])}, "label 2 is out of range"),
    ({"labels": np.array([0, -1])}, "label -1 is out of range"),
    ({"labels": None}, "no labels"),
    ({"class_names": ("a", "a")}, "same name"),
    ({"class_names": ()}, "there are 0 classes"),
    ({"levels": 1}, "levels"),
    ({"levels": 17, "images": np.full((2, 1, 4, 4), 17, np.uint8)}, "grey level 17"),
    ({"crop": 2}, "crop 2"),
])
def test_parts_that_do_not_fit_together_are_refused(change, words):
    good = {"images": np.zeros((2, 1, 4, 4), np.uint8), "labels": np.array([0, 1]), "class_names": ("a", "b")}
    Dataset("set", **good)
    with pytest.raises(data.DataError, match=words):
        Dataset("set", **{**good, **change})
