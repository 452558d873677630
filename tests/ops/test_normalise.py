"""Normalisations: what they make of their input, and what they do not notice."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from support import agree, host, spec

from minidit import ops

SEEDS = st.integers(0, 2**32 - 1)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


@spec("A.13")
def test_softmax_by_hand(xp):
    """e^0 : e^ln2 : e^ln5 = 1 : 2 : 5."""
    agree(ops.softmax(xp.log(xp.asarray([1.0, 2.0, 5.0]))), [1 / 8, 2 / 8, 5 / 8], bound=1e-15, of="A.13")


@spec("A.13")
@given(SEEDS, st.floats(-1e4, 1e4), st.integers(-2, 1))
def test_softmax_rows_sum_to_one_and_a_shift_is_not_noticed(seed, shift, axis):
    x = 30 * normal(seed, 4, 5)
    y = ops.softmax(x, axis=axis)
    assert (y >= 0).all()
    agree(y.sum(axis, keepdims=True) * np.ones_like(y), np.ones_like(y), bound=1e-14, of="A.13")
    agree(ops.softmax(x + shift, axis=axis), y, bound=1e-10, of="A.13")  # x + shift rounds to 1e-12


@spec("A.13")
def test_softmax_of_very_large_numbers_is_one_hot_and_finite():
    agree(ops.softmax(np.array([1e30, -1e30, 0.0], np.float32)), [1, 0, 0], bound=0, of="A.13")
    agree(ops.softmax(np.array([0.0, -np.inf, 0.0])), [0.5, 0, 0.5], bound=0, of="A.13")


@spec("A.14")
def test_layer_norm_by_hand(xp):
    """x = (1, 3): μ = 2, σ = 1 (biased), x̂ = (-1, 1); times (2, 3), plus (10, 20)."""
    y = ops.layer_norm(xp.asarray([[1.0, 3.0]]), xp.asarray([2.0, 3.0]), xp.asarray([10.0, 20.0]), eps=0.0)
    agree(y, [[8.0, 23.0]], bound=1e-15, of="A.14")


@spec("A.14")
def test_eps_stands_under_the_root():
    """x = (1, 3) with ε = 3: x̂ = ±1/√(1 + 3) = ±½."""
    agree(ops.standardise(np.array([1.0, 3.0]), eps=3.0), [-0.5, 0.5], bound=1e-15, of="A.14")
    agree(ops.rms_norm(np.array([1.0, 1.0]), np.ones(2), eps=3.0), [0.5, 0.5], bound=1e-15, of="A.16")


@spec("A.14")
@given(SEEDS, st.floats(0.1, 10), st.floats(-10, 10))
def test_layer_norm_notices_neither_a_scale_nor_a_shift(seed, a, b):
    """LN(a x + b) = LN(x) for a > 0 and ε → 0; the mean of x̂ is 0, its square 1."""
    x = normal(seed, 3, 8)
    y = ops.standardise(x, eps=0.0)
    agree(ops.standardise(a * x + b, eps=0.0), y, bound=1e-11, of="A.14")
    agree(y.mean(-1), np.zeros(3), bound=1e-13, of="A.14")
    agree((y * y).mean(-1), np.ones(3), bound=1e-13, of="A.14")


@spec("A.15")
@given(SEEDS)
def test_scale_zero_and_shift_zero_leave_the_normalised_tokens_alone(seed):
    """1 + scale: a network whose modulation starts at zero is a plain layer norm, not a dead one."""
    x, s, b = normal(seed, 2, 3, 8), normal(seed + 1, 2, 8), normal(seed + 2, 2, 8)
    zero = np.zeros((2, 8))
    agree(ops.layer_norm_modulate(x, zero, zero), ops.standardise(x), bound=1e-14, of="A.15")
    agree(ops.layer_norm_modulate(x, b, zero) - ops.standardise(x), np.broadcast_to(b[:, None], x.shape), bound=1e-13, of="A.15")
    for i in range(2):  # each sample by its own numbers, as an affine layer norm
        agree(ops.layer_norm_modulate(x, b, s)[i], ops.layer_norm(x[i], 1 + s[i], b[i]), bound=1e-13, of="A.15")


@spec("A.16")
@given(SEEDS, st.floats(0.1, 10))
def test_rms_norm_notices_no_scale_and_equals_layer_norm_on_rows_without_mean(seed, a):
    x = normal(seed, 3, 8)
    agree(ops.rms_norm(a * x, np.ones(8), eps=0.0), ops.rms_norm(x, np.ones(8), eps=0.0), bound=1e-13, of="A.16")
    x = x - x.mean(-1, keepdims=True)
    agree(ops.rms_norm(x, np.ones(8)), ops.standardise(x), bound=1e-13, of=("A.16", "A.14"))


@spec("A.17")
@given(SEEDS, st.sampled_from([1, 2, 3, 6]))
def test_each_group_of_channels_is_normalised_on_its_own(seed, groups):
    """6 channels; groups = 6 is instance norm, groups = 1 layer norm over all that a sample has."""
    x, w, b = normal(seed, 2, 6, 3, 4), normal(seed + 1, 6), normal(seed + 2, 6)
    y, per = ops.group_norm(x, w, b, groups=groups), 6 // groups
    for n in range(2):
        for g in range(groups):
            part = x[n, g * per : (g + 1) * per]
            x_hat = (part - part.mean()) / np.sqrt(part.var() + 1e-6)
            for k, plane in enumerate(x_hat, g * per):
                agree(y[n, k], w[k] * plane + b[k], bound=1e-12, of="A.17")


@spec("A.14", "A.15", "A.16", "A.17")
def test_unless_told_epsilon_is_one_millionth_and_the_axis_the_last(xp):
    """Rows so small that ε is as large as their variance: a variance of 1e-6 becomes one half of x̂²."""
    x = xp.asarray(1e-3 * np.array([[[1.0, -1.0, 1.0, -1.0]]]))
    one, nothing, half = xp.ones(4), xp.zeros(4), np.sign(host(x)) / math.sqrt(2)
    agree(ops.standardise(x), half, bound=1e-12, of="A.14")
    agree(ops.layer_norm(x, one, nothing), half, bound=1e-12, of="A.14")
    agree(ops.layer_norm_modulate(x, nothing[None], nothing[None]), half, bound=1e-12, of="A.15")
    agree(ops.rms_norm(x, one), half, bound=1e-12, of="A.16")
    agree(ops.group_norm(x.reshape(1, 4, 1, 1), one, nothing, groups=1).reshape(1, 1, 4), half, bound=1e-12, of="A.17")
    agree(ops.softmax(xp.asarray([[0.0, 0.0], [0.0, math.log(3)]])), [[0.5, 0.5], [0.25, 0.75]], bound=1e-15, of="A.13")
