"""Primitives that move numbers: each arrives once, where it should, and patches stand in the order that they are said to."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import agree, host, spec

from minidit import ops
from minidit.autograd import Tensor
from minidit.ops import shape

SMALL = st.integers(1, 3)


@spec("T.1")
def test_patches_run_along_rows_and_a_patch_is_channel_row_column(xp):
    """2 channels, 2 × 4 pixels, P = 2: two patches; each lists its first channel's pixels row by row, then the second's."""
    x = xp.arange(16.0).reshape(1, 2, 2, 4)
    tokens = host(ops.patchify(x, patch_size=2))
    assert tokens.tolist() == [[[0, 1, 4, 5, 8, 9, 12, 13], [2, 3, 6, 7, 10, 11, 14, 15]]]


@spec("T.2")
def test_a_token_that_leaves_is_row_column_channel(xp):
    """One token of P P C = 8 numbers, P = 2, C = 2: neighbours in the token are the channels of one pixel."""
    x = xp.arange(8.0).reshape(1, 1, 8)
    image = host(ops.unpatchify(x, patch_size=2, size=(2, 2)))
    assert image.tolist() == [[[[0, 2], [4, 6]], [[1, 3], [5, 7]]]]


@spec("T.1")
@given(SMALL, SMALL, SMALL, SMALL, SMALL)
def test_each_number_of_a_patch_is_the_pixel_that_the_equation_names(B, C, h, w, p):
    x = np.arange(float(B * C * h * p * w * p)).reshape(B, C, h * p, w * p)
    tokens = ops.patchify(x, patch_size=p)
    for b, r, c, k, i, j in np.ndindex(B, h, w, C, p, p):
        assert tokens[b, r * w + c, (k * p + i) * p + j] == x[b, k, r * p + i, c * p + j]


@spec("T.2")
@given(SMALL, SMALL, SMALL, SMALL, SMALL)
def test_each_pixel_is_the_number_of_the_token_that_the_equation_names(B, C, h, w, p):
    x = np.arange(float(B * h * w * p * p * C)).reshape(B, h * w, p * p * C)
    image = ops.unpatchify(x, patch_size=p, size=(h * p, w * p))
    for b, r, c, i, j, k in np.ndindex(B, h, w, p, p, C):
        assert image[b, k, r * p + i, c * p + j] == x[b, r * w + c, (i * p + j) * C + k]


@spec("T.1", "T.2")
@given(SMALL, SMALL, SMALL, SMALL, SMALL)
def test_a_linear_map_that_permutes_joins_the_two_layouts(B, C, h, w, p):
    """unpatchify ∘ L ∘ patchify = 1 for L that carries (C, P, P) to (P, P, C); without L only where C = 1 or P = 1."""
    x = np.random.default_rng(0).standard_normal((B, C, h * p, w * p))
    back = lambda tokens: ops.unpatchify(tokens, patch_size=p, size=(h * p, w * p))
    L = np.eye(C * p * p)[np.arange(C * p * p).reshape(C, p, p).transpose(1, 2, 0).ravel()]
    agree(back(ops.linear(ops.patchify(x, patch_size=p), L)), x, bound=0, of=("T.1", "T.2"))
    if C == 1 or p == 1:
        agree(back(ops.patchify(x, patch_size=p)), x, bound=0, of=("T.1", "T.2"))
    else:
        assert np.abs(back(ops.patchify(x, patch_size=p)) - x).max() > 0


MOVES = [
    lambda x: ops.reshape(x, shape=(4, 6)), lambda x: ops.transpose(x, axes=(2, 0, 1)), lambda x: ops.concat(x, x[:1], axis=0),
    lambda x: ops.split(x, parts=2, axis=2)[1], lambda x: x[:, 1:, ::2], lambda x: x[np.array([0, 1])][:, None],
    lambda x: ops.patchify(ops.reshape(x, shape=(1, 1, 4, 6)), patch_size=2),
]  # fmt: skip


@spec("A.9")
@pytest.mark.parametrize("move", MOVES)
def test_what_was_moved_keeps_its_length_where_it_is_moved_back(move):
    """Px holds each number at most once (concat: twice), so PᵀPx is x on what was taken and 0 elsewhere."""
    x = Tensor(np.arange(1.0, 25).reshape(2, 3, 4))
    y = move(x)
    values, counts = np.unique(y.data, return_counts=True)
    expected = np.zeros(25)
    expected[values.astype(int)] = values * counts
    y.backward(y.data.copy())
    agree(x.grad.ravel(), expected[1:], bound=0, of="A.9")


@spec("A.9")
def test_an_index_that_repeats_adds_up(xp):
    x = Tensor(xp.asarray([1.0, 2.0, 3.0]))
    y = x[xp.asarray([0, 0, 2])]
    y.backward(xp.asarray([1.0, 2.0, 4.0]))
    assert host(y).tolist() == [1, 1, 3]
    assert host(x.grad).tolist() == [3, 0, 4]


@spec("A.10")
def test_a_pixel_becomes_a_square_and_the_square_comes_back_as_a_sum(xp):
    x = Tensor(xp.asarray([[[[1.0, 2.0]]]]))
    y = ops.upsample_nearest(x, factor=2)
    assert host(y).tolist() == [[[[1, 1, 2, 2], [1, 1, 2, 2]]]]
    y.backward(xp.arange(8.0).reshape(1, 1, 2, 4))
    assert host(x.grad).tolist() == [[[[0 + 1 + 4 + 5, 2 + 3 + 6 + 7]]]]


@spec("A.10", "A.8")
@given(SMALL, SMALL, SMALL)
def test_the_mean_of_each_square_is_the_pixel_it_came_from(H, W, f):
    x = np.random.default_rng(0).standard_normal((2, 3, H, W))
    y = ops.upsample_nearest(x, factor=f)
    agree(ops.mean(ops.reshape(y, shape=(2, 3, H, f, W, f)), axis=(3, 5)), x, bound=1e-15, of="A.10")


@spec("A.9")
def test_pieces_are_cut_along_the_last_axis_unless_told(xp):
    x = xp.asarray(np.arange(24.0).reshape(2, 2, 6))
    for ours, theirs in zip(ops.split(x, parts=2), np.split(host(x), 2, axis=2), strict=True):
        np.testing.assert_array_equal(host(ours), theirs)
    np.testing.assert_array_equal(host(ops.concat(x, x)), np.concatenate([host(x)] * 2, axis=2))
    assert ops.upsample_nearest(x[None]).shape == (1, 2, 4, 12)


@spec("A.9")
def test_plain_indices_assign_their_gradient_and_only_arrays_of_indices_scatter_it(xp, monkeypatch):
    """Nothing is taken twice by slices, numbers, … and None: adding would be slower and no more right."""
    scattered, real = [], shape.scatter_add
    monkeypatch.setattr(shape, "scatter_add", lambda *a: (scattered.append(a[1]), real(*a))[1])
    for index in (1, slice(1, None), (slice(None), 0), (Ellipsis, 1), (None, 0), (0, None, slice(None, None, 2))):
        x = Tensor(xp.asarray(np.arange(6.0).reshape(2, 3)))
        x[index].sum().backward()
        expected = np.zeros((2, 3))
        expected[index] = 1
        np.testing.assert_array_equal(host(x.grad), expected)
    assert not scattered
    x = Tensor(xp.asarray(np.arange(6.0).reshape(2, 3)))
    x[(xp.asarray([0, 0]), slice(None))].sum().backward()
    assert len(scattered) == 1 and host(x.grad).tolist() == [[2, 2, 2], [0, 0, 0]]


@spec("A.9")
def test_five_pieces_of_different_lengths_get_their_own_gradients(xp):
    xs = [Tensor(xp.zeros((2, n))) for n in (3, 1, 4, 2, 5)]
    ops.concat(*xs).backward(xp.arange(30.0).reshape(2, 15))
    np.testing.assert_array_equal(np.concatenate([host(x.grad) for x in xs], axis=1), np.arange(30.0).reshape(2, 15))
    assert [x.grad.shape for x in xs] == [(2, n) for n in (3, 1, 4, 2, 5)]
