"""Elementwise primitives by hand, in their limits, and against arbitrary precision; reductions and rows of tables."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import agree, host, spec

from minidit import ops
from minidit.autograd import Tensor

SEEDS = st.integers(0, 2**32 - 1)


@spec("A.3")
def test_a_stretched_axis_is_summed(xp):
    """a (2, 1) meets b (3,): each number of a is used three times, each of b twice."""
    a, b = Tensor(xp.asarray([[1.0], [2.0]])), Tensor(xp.asarray([10.0, 20.0, 30.0]))
    ((a + b) * xp.asarray([[1.0, 2, 3], [4, 5, 6]])).sum().backward()
    assert host(a.grad).tolist() == [[6], [15]]
    assert host(b.grad).tolist() == [5, 7, 9]


@spec("A.3")
def test_the_quotient_by_hand(xp):
    """y = a/b at a = 6, b = 3, ȳ = 1: ā = 1/3, b̄ = -a/b² = -2/3."""
    a, b = Tensor(xp.asarray([6.0])), Tensor(xp.asarray([3.0]))
    (a / b).backward(xp.ones(1))
    agree(a.grad, [1 / 3], bound=1e-15, of="A.3")
    agree(b.grad, [-2 / 3], bound=1e-15, of="A.3")


@spec("A.4")
def test_silu_by_hand():
    """silu(0) = 0, silu(ln 3) = ¾ ln 3, slope at 0 is ½, slope at ln 3 is ¾ (1 + ¼ ln 3)."""
    x = Tensor(np.array([0.0, math.log(3)]))
    y = ops.silu(x)
    y.backward(np.ones(2))
    agree(y, [0, 0.75 * math.log(3)], bound=1e-15, of="A.4")
    agree(x.grad, [0.5, 0.75 * (1 + 0.25 * math.log(3))], bound=1e-15, of="A.4")


@spec("A.4")
@given(st.floats(-700, 700))
def test_the_odd_part_of_silu_is_half_of_x(x):
    a = np.array([x])
    agree(ops.silu(a) - ops.silu(-a), a, bound=1e-14, of="A.4")
    agree(ops.sigmoid(a) + ops.sigmoid(-a), [1.0], bound=1e-15, of="A.4")


@spec("A.4", "A.5", "A.6")
def test_no_argument_overflows():
    """Far to the right every gate is open, far to the left shut, and the slopes are 1 and 0."""
    for dtype, far in ((np.float32, 1e4), (np.float64, 1e6)):
        for f in (ops.silu, ops.gelu, ops.gelu_erf):
            x = Tensor(np.array([far, -far], dtype))
            y = f(x)
            y.backward(np.ones(2, dtype))
            assert y.data.tolist() == [far, 0]
            assert x.grad.tolist() == [1, 0]
    agree(ops.sigmoid(np.array([1e4, -1e4])), [1, 0], bound=0, of="A.4")


@spec("A.5", "A.6")
@pytest.mark.parametrize("x", [-9.0, -3.3, -1.0, -0.25, 0.0, 1e-8, 0.5, 1.0, 2.0, 2.7, 6.0])
def test_gelu_and_its_exact_form_against_arbitrary_precision(x):
    with mpmath.workdps(40):
        u = mpmath.sqrt(2 / mpmath.pi) * (x + mpmath.mpf("0.044715") * mpmath.mpf(x) ** 3)
        forms = {ops.gelu: lambda: x * (1 + mpmath.tanh(u)) / 2, ops.gelu_erf: lambda: x * mpmath.ncdf(x)}
        for (f, exact), of in zip(forms.items(), ("A.5", "A.6"), strict=True):
            agree(f(np.array([x])), [float(exact())], bound=1e-15, of=of)


@spec("A.5", "A.6")
def test_the_two_forms_of_gelu_differ_most_near_2_70():
    """The gap is 4.73e-4, so whoever takes one for the other is within any loose tolerance: it must be named."""
    x = np.linspace(-8, 8, 160_001)
    gap = np.abs(ops.gelu(x) - ops.gelu_erf(x))
    agree(gap.max(), 4.73e-4, bound=1e-6, of="A.5")
    agree(np.abs(x[gap.argmax()]), 2.70, bound=0.02, of="A.5")


@spec("A.5", "A.6")
@given(st.floats(-30, 30))
def test_the_odd_part_of_gelu_is_half_of_x_too(x):
    a = np.array([x])
    for f, of in ((ops.gelu, "A.5"), (ops.gelu_erf, "A.6")):
        agree(f(a) - f(-a), a, bound=1e-14, of=of)


@spec("A.1")
@given(SEEDS)
def test_inverse_functions_undo_each_other(seed):
    x = np.random.default_rng(seed).uniform(0.1, 3, 5)
    for y in (ops.exp(ops.log(x)), ops.log(ops.exp(x)), ops.sqrt(x) ** 2, ops.power(x, p=0.5) ** 2, ops.neg(ops.neg(x)),
              ops.div(ops.mul(x, 3.0), 3.0), ops.sub(ops.add(x, 3.0), 3.0)):  # fmt: skip
        agree(y, x, bound=1e-14, of="A.1")
    agree(ops.tanh(x), 2 * ops.sigmoid(2 * x) - 1, bound=1e-14, of="A.1")


@spec("A.1")
def test_clip_lets_the_gradient_through_inside_only(xp):
    x = Tensor(xp.asarray([-2.0, -1.0, 0.5, 3.0]))
    y = ops.clip(x, low=-1.0, high=1.0)
    y.backward(xp.ones(4))
    assert host(y).tolist() == [-1, -1, 0.5, 1]
    assert host(x.grad).tolist() == [0, 1, 1, 0]


# ------------------------------------------------------------------------------------------------ reductions


@spec("A.7", "A.8")
def test_sums_and_means_by_hand(xp):
    x = Tensor(xp.asarray([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    assert host(x.sum(axis=0)).tolist() == [5, 7, 9]
    assert host(x.mean(axis=(0, 1), keepdims=True)).tolist() == [[3.5]]
    y = (x.mean(axis=-1) * xp.asarray([3.0, 6.0])).sum() + x.sum()
    y.backward()
    assert host(x.grad).tolist() == [[2, 2, 2], [3, 3, 3]]


@spec("A.7", "A.8")
@given(SEEDS, st.integers(0, 2), st.booleans())
def test_a_mean_is_a_sum_divided_by_the_numbers_summed(seed, axis, keepdims):
    x = np.random.default_rng(seed).standard_normal((2, 3, 4))
    n = x.shape[axis]
    agree(ops.mean(x, axis=axis, keepdims=keepdims) * n, ops.sum(x, axis=axis, keepdims=keepdims), bound=1e-14, of=("A.7", "A.8"))
    agree(ops.sum(ops.sum(x, axis=axis), axis=None), ops.sum(x), bound=1e-13, of="A.7")


# ------------------------------------------------------------------------------------------------ tables


@spec("A.24")
def test_a_row_that_is_taken_twice_gets_both_gradients(xp):
    table = Tensor(xp.asarray([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    y = ops.embedding(table, index=xp.asarray([2, 0, 2]))
    y.backward(xp.asarray([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]]))
    assert host(y).tolist() == [[5, 6], [1, 2], [5, 6]]
    assert host(table.grad).tolist() == [[2, 20], [0, 0], [5, 50]]


@spec("A.24", "A.11")
@given(SEEDS, st.lists(st.integers(0, 3), min_size=1, max_size=6))
def test_a_table_look_up_is_a_product_with_one_hot_rows(seed, index):
    table, one_hot = Tensor(np.random.default_rng(seed).standard_normal((4, 3))), np.eye(4)[index]
    y, z = ops.embedding(table, index=np.array(index)), one_hot @ table
    agree(y, z.data, bound=0, of="A.24")
    bar = np.random.default_rng(seed + 1).standard_normal(y.shape)
    y.backward(bar)
    agree(table.grad, one_hot.T @ bar, bound=1e-14, of="A.24")


@spec("A.3")
@pytest.mark.parametrize("a, b", [((0, 1), (0, 3)), ((1,), (0,)), ((2, 1, 1), (2, 0, 3)), ((1, 0), (4, 1))])
def test_the_gradient_of_nothing_is_nothing_or_zero(xp, a, b):
    """Axes without entries: shapes come back as they went in, and an entry that was stretched to none has the gradient 0."""
    x, y = Tensor(xp.ones(a)), Tensor(xp.ones(b))
    (x + y).sum().backward()
    for t, shape in ((x, a), (y, b)):
        assert t.grad.shape == shape and not host(t.grad).any()


@spec("A.8")
def test_a_mean_with_no_results_has_no_gradient(xp):
    x = Tensor(xp.ones((0, 3)))
    y = ops.mean(x, axis=1)
    assert y.shape == (0,)
    y.backward(xp.ones(0))
    assert x.grad.shape == (0, 3)


@spec("A.7", "A.8")
def test_unless_told_a_reduction_takes_all_axes_and_keeps_none(xp):
    x = xp.asarray(np.arange(6.0).reshape(2, 3))
    for law, whole, rows in ((ops.sum, 15.0, [3.0, 12.0]), (ops.mean, 2.5, [1.0, 4.0])):
        assert law(x).shape == () and float(host(law(x))) == whole
        assert law(x, axis=1).shape == (2,) and host(law(x, axis=1)).tolist() == rows
        assert law(x, axis=1, keepdims=True).shape == (2, 1)


def test_a_gradient_of_the_right_type_is_passed_on_as_it_is():
    x, bar = np.ones(3), np.ones(3)
    _, vjp = ops.cast.plain(x, dtype="float64")
    assert vjp(bar)[0] is bar
