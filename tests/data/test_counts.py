"""How many pictures every class has, said in one or two lines."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidit.data.counts import class_lines
from minidit.data.dataset import Dataset


def counted(counts, names=None):
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int64)
    names = names or tuple(f"class{k}" for k in range(len(counts)))
    return Dataset("set", np.zeros((len(labels), 1, 1, 1), np.uint8), labels, tuple(names))


@pytest.mark.parametrize("counts, lines", [
    ([12, 30], ["2 classes: class0 12, class1 30"]),
    ([50, 50, 50], ["3 classes of 50 pictures each"]),
    ([7], ["1 class: class0 7", "warning: 1 class with fewer than 10 pictures: 7 (class0)"]),
    ([100, 4, 9], ["3 classes: class0 100, class1 4, class2 9",
                   "warning: 2 classes with fewer than 10 pictures: 4 (class1), 9 (class2); "
                   "class0 has 25 times as many pictures as class1"]),
    ([2000, 0], ["2 classes: class0 2,000, class1 0",
                 "warning: 1 class with fewer than 10 pictures: 0 (class1); class1 has no pictures"]),
])  # fmt: skip
def test_a_few_classes_are_listed_with_their_counts(counts, lines):
    assert class_lines(counted(counts)) == lines


def test_a_thousand_classes_take_two_lines():
    counts = [20 + k % 50 for k in range(1000)]
    assert class_lines(counted(counts)) == ["1,000 classes of 20 (class950) to 69 (class49) pictures, median 44"]
    lines = class_lines(counted([1, 2, 3, 4, 5, 6, *counts]))
    assert lines[0] == "1,006 classes of 1 (class0) to 69 (class55) pictures, median 44"
    assert lines[1] == ("warning: 6 classes with fewer than 10 pictures: 1 (class0), 2 (class1), 3 (class2), 4 (class3), "
                        "5 (class4), …; class55 has 69 times as many pictures as class0")  # fmt: skip


@given(st.lists(st.integers(0, 40), min_size=1, max_size=300).filter(any))
def test_there_are_never_more_than_two_lines_and_a_warning_exactly_where_it_is_due(counts):
    lines = class_lines(counted(counts))
    assert 1 <= len(lines) <= 2 and all("\n" not in line for line in lines)
    assert (len(lines) == 2) == (min(counts) < 10)  # 40 are ten times as many only as fewer than ten


def test_pictures_without_classes_have_no_line():
    assert class_lines(Dataset("set", np.zeros((3, 1, 1, 1), np.uint8), None, ())) == []
