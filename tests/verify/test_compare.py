"""The error of an answer: relative to the largest entry of its own array, infinite where the form differs."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import spec

import minidit as md
from minidit.verify.core.compare import difference, precision_of, together
from minidit.verify.core.forms import owned

numbers = st.lists(st.integers(-(10**6), 10**6).map(float), min_size=1, max_size=12).map(np.array)


@spec("E.10")
@given(numbers, st.floats(1e-9, 1e9), st.integers(0, 11), st.floats(-1, 1))
def test_the_error_is_relative_to_the_largest_entry_and_knows_no_unit(b, unit, place, by):
    if not b.any():
        b = b + 1.0
    a = b.copy()
    a[place % len(a)] += by * abs(b).max()
    assert math.isclose(difference(a, b).error, abs(by), rel_tol=1e-6, abs_tol=1e-12)
    assert math.isclose(difference(unit * a, unit * b).error, difference(a, b).error, rel_tol=1e-9, abs_tol=1e-12)


@spec("E.10")
def test_worked_by_hand():
    found = difference([1.0, 2.5, -4.0], np.array([1.0, 2.0, -4.0]))
    assert found.error == 0.125 and found.where == "[1]" and found.what == "got 2.5, expected 2"


@spec("E.10")
def test_small_arrays_are_not_judged_by_the_size_of_others():
    assert difference({"w": [1e-6], "b": [1e6]}, {"w": [2e-6], "b": [1e6]}).error == 0.5


@spec("E.10")
@pytest.mark.parametrize(
    "a, b",
    [(np.ones(3), np.ones((3, 1))), ([np.nan, 1], [2.0, 1]), ([np.inf, 1], [-np.inf, 1]), ({"a": 1}, {"b": 1}), ("x", [1.0]),
     ((1.0, np.ones(2)), (1.0, np.ones(3))), (None, [1.0])],
)  # fmt: skip
def test_another_form_is_infinitely_far(a, b):
    assert difference(a, b).error == math.inf


@spec("E.10")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_in_both_is_equal(value):
    assert difference([value, 1.0], [value, 1.0]).error == 0


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16])
def test_answers_of_any_nesting_and_home_are_arrays(kind):
    a = np.arange(3, dtype=kind)
    answer = ({"x": a}, [a, (1.0, 2.0)])
    assert [place for place, _, _ in together(owned(answer), answer)] == ["[0]['x']", "[1][0]", "[1][1]"]
    assert precision_of({"x": a, "y": [1, 2]}) == a.dtype.name
    assert difference(md.Tensor(a), a.astype(np.float64)).error == 0


def test_many_keys_that_are_lacking_are_counted_not_listed():
    weights = {f"blocks.{k}": [0.0] for k in range(40)}
    assert difference({}, weights).what == "the answer lacks blocks.0, blocks.1, blocks.10 and 37 more"
    assert difference(weights, {}).what == "the answer has too much: blocks.0, blocks.1, blocks.10 and 37 more"
    assert difference({"a": [0.0]}, {"a": [0.0], "b": [0.0]}).what == "the answer lacks b"
