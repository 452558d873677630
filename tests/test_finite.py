"""The differences themselves: right, honest about their error, and no friend of a wrong adjoint."""

import math

import numpy as np
import pytest
from finite import check_adjoint, check_slope, slope
from hypothesis import given
from hypothesis import strategies as st

from minidit import ops

KNOWN = [
    (lambda s: np.sin(1 + s), math.cos(1)),
    (lambda s: np.exp(5 * s), 5.0),
    (lambda s: np.tanh(3e4 * s), 3e4),  # a ladder that began with small steps only would not need to see this
    (lambda s: 1e6 + np.sin(s), 1.0),  # almost all digits go to the constant
    (lambda s: np.cbrt(1e-6 + s), 1e4 / 3),
    (lambda s: s**2, 0.0),
    (lambda s: 0 * s, 0.0),
]


@pytest.mark.parametrize("f, exact", KNOWN)
def test_the_error_that_a_difference_names_is_no_less_than_the_error_it_makes(f, exact):
    for enough in (1e-6, 0.0):
        there = slope(f, enough=enough)
        assert abs(there.value - exact) <= 2 * there.error + 1e-15 * abs(exact)
        assert there.error <= 1e-4 * max(1, abs(exact))


@given(st.floats(-1, 1), st.floats(0, 5))
def test_a_slope_is_right_on_any_scale(x, log_rate):
    rate = 10**log_rate
    check_slope(rate * math.cos(rate * x), lambda s: np.sin(rate * (x + s)), bound=1e-6, floor=rate)


@pytest.mark.parametrize("x, log_rate", [(0.0, 4.41015625), (6.103515625e-05, 4.88671875)])
def test_steps_of_whole_periods_do_not_make_a_wave_look_flat(x, log_rate):
    """Found by a fresh seed when every step was a quarter of the one before."""
    rate = 10**log_rate
    check_slope(rate * math.cos(rate * x), lambda s: np.sin(rate * (x + s)), bound=1e-6, floor=rate)


def softmax_case():
    r = np.random.default_rng(0)
    x, u, bar = r.standard_normal((3, 2, 5))
    y, vjp = ops.softmax.plain(x)
    return x, u, bar, y, vjp


@pytest.mark.parametrize("wrong", [
    lambda x_bar, y, bar: -x_bar,
    lambda x_bar, y, bar: 1.00001 * x_bar,
    lambda x_bar, y, bar: y * bar,  # Σ ȳ⊙y forgotten
    lambda x_bar, y, bar: y * (bar - (bar * y).mean(axis=-1, keepdims=True)),
    lambda x_bar, y, bar: x_bar[:, ::-1],
    lambda x_bar, y, bar: 0 * x_bar,
    lambda x_bar, y, bar: x_bar.astype(np.float16),
])  # fmt: skip
def test_a_wrong_adjoint_fails(wrong):
    x, u, bar, y, vjp = softmax_case()
    f = lambda s: ops.softmax.plain(x + s * u)[0]
    (x_bar,) = vjp(bar)
    check_adjoint(float((x_bar * u).sum()), f, bar, bound=1e-6)
    with pytest.raises(AssertionError, match=r"^residual .* above 1e-06"):
        check_adjoint(float((wrong(x_bar, y, bar) * u).sum()), f, bar, bound=1e-6)


@pytest.mark.parametrize(
    "f", [lambda s: np.sign(s), lambda s: np.float32(math.sin(1 + s)) / math.cos(1), lambda s: np.sin(1e9 * s)]
)
def test_what_no_step_settles_is_not_called_right(f):
    with pytest.raises(AssertionError, match="no step settles the difference"):
        check_slope(1.0, f, bound=1e-6)
