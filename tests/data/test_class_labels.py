"""Classes as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidit.data import DataError, parse_labels
from minidit.data.idx import FASHION

DIGITS = tuple("0123456789")


@pytest.mark.parametrize(("text", "names", "labels"), [
    ("0-9", DIGITS, list(range(10))),
    ("3", DIGITS, [3]),
    ("3,3,1", DIGITS, [3, 3, 1]),
    ("shirt,bag", FASHION, [6, 8]),
    (" Ankle Boot , t-shirt/TOP,2-4,9", FASHION, [9, 0, 2, 3, 4, 9]),
    ("2", ("10", "2"), [1]),  # a name wins over a number
    ("0", ("10", "2"), [0]),
    ("tench, Tinca tinca", ("goldfish", "tench, Tinca tinca"), [1]),
    ("cat", ("Cat", "cat"), [1]),
    ("1-2", ("a", "1-2", "b"), [1]),
    ("1 - 2", ("a", "b", "c"), [1, 2]),
])
def test_names_numbers_and_ranges_mix(text, names, labels):
    assert parse_labels(text, names) == labels


@given(st.lists(st.integers(0, 9), min_size=1), st.randoms(use_true_random=False))
def test_what_is_written_from_labels_reads_back(labels, random):
    words = [random.choice([str(i), FASHION[i], FASHION[i].upper(), f"{i}-{i}"]) for i in labels]
    assert parse_labels(",".join(words), FASHION) == labels


@pytest.mark.parametrize("text", ["3", "0-3", "10", "3-11", "5-2", "", "a", "1,,2", "-1", "²", "0-99999999999999999999",
                                  "9" * 5000, "CAT"])
def test_anything_else_is_an_error_that_lists_the_names(text):
    with pytest.raises(DataError, match=r"the 3 classes are: 0 Cat, 1 cat, 2 dog"):
        parse_labels(text, ("Cat", "cat", "dog"))


def test_a_near_miss_is_answered_with_the_name():
    with pytest.raises(DataError, match="did you mean 'Sneaker'"):
        parse_labels("sneakers", FASHION)


def test_a_word_of_a_name_is_answered_with_the_name():
    with pytest.raises(DataError, match="did you mean 'Ankle boot'"):
        parse_labels("boot", FASHION)


def test_a_set_without_classes_says_so():
    with pytest.raises(DataError, match="no classes"):
        parse_labels("0", ())
