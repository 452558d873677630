"""Values as JSON: what goes in comes out, large arrays by their place, and what is no value is told."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minidit.verify.core.values import ValueFormError, packed, unpacked

NUMBERS = st.floats(width=64) | st.integers(-(2**53), 2**53) | st.booleans() | st.none() | st.text('abc ᾱ"\\')
ARRAYS = st.sampled_from([np.float64, np.float32, np.int64, np.bool_]).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
)
KEYS = st.text("abc", max_size=2)
VALUES = st.recursive(NUMBERS | ARRAYS, lambda v: st.lists(v, max_size=3) | st.dictionaries(KEYS, v, max_size=3))


def same(a, b):
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or a != a)


@given(VALUES, st.integers(0, 9))
def test_a_value_survives_json(value, inline):
    kept = {}

    def keep(array):
        kept[name := f"t{len(kept)}"] = array
        return {"file": "f", "name": name}

    line = json.dumps(packed(value, keep, inline=inline), allow_nan=False)
    assert same(value, unpacked(json.loads(line), lambda file, name: kept[name]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"shape": [2], "data": [1]},
        {"shape": [1], "data": ["x"]},
        {"shape": [1], "file": "no", "name": "a"},
        {"shape": "x", "data": [1]},
        {"shape": [1], "data": [1], "dtype": "float999"},
    ],
)
def test_an_array_that_is_not_what_it_says_is_told(wrong):
    with pytest.raises(ValueFormError, match="an array that cannot be read: "):
        unpacked(wrong, lambda file, name: {}[name])


def test_functions_go_where_they_may_only():
    assert packed([len], None, lambda f: f.__name__) == [{"call": "len"}]
    with pytest.raises(ValueFormError, match="a function cannot be written down"):
        packed(len, None)
