"""What lies side by side is not put together, and a bar that is written into its place is not copied there."""

import numpy as np
import pytest
import standin
from hypothesis import given
from hypothesis import strategies as st
from support import host, spec

from minidit import ops
from minidit.autograd import Gradients, NoTwin, Tensor, no_grad
from minidit.backend import flat_buffer, side_by_side, to_device
from minidit.kernels import pieces

CUPY = standin.install()


def shares(a, b):
    return bool(CUPY.shares_memory(a, b)) if isinstance(a, CUPY.ndarray) else np.shares_memory(a, b)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.sampled_from([(), (3,), (2, 2)]), st.sampled_from(["cpu", "cuda"]))
def test_neighbours_are_seen_as_one(rows, rest, device):
    whole = flat_buffer(sum(rows) * int(np.prod(rest)), np.float32, device).reshape(-1, *rest)
    whole[...] = to_device(np.arange(whole.size, dtype=np.float32).reshape(whole.shape), device)
    ends = np.cumsum(rows)
    parts = [whole[e - n : e] for n, e in zip(rows, ends, strict=True)]
    one = side_by_side(parts)
    assert shares(one, whole) and np.array_equal(host(one), host(whole))
    if len(parts) > 1:
        assert side_by_side(parts[::-1]) is None
        assert side_by_side([parts[0], parts[1].copy()]) is None
        assert side_by_side([parts[0], parts[1].astype("float64")]) is None
    if len(parts) > 2:
        assert side_by_side([parts[0], parts[2]]) is None


def test_arrays_of_different_memory_are_no_neighbours_wherever_they_lie(xp):
    assert side_by_side([xp.zeros((2, 3)), xp.zeros((2, 3))]) is None
    x = xp.zeros((4, 3))
    assert side_by_side([x[:2, :2], x[2:, :2]]) is None and side_by_side([x[0, 0], x[0, 1]]) is None


@spec("A.9")
@pytest.mark.parametrize("order", ["neighbours", "apart", "with one gradient written before"])
def test_the_gradient_of_joined_weights_is_written_where_each_has_its_own(device, order):
    flat, grad = flat_buffer(18, np.float32, device), flat_buffer(18, np.float32, device)
    flat[...] = to_device(np.arange(18, dtype=np.float32), device)
    cut = [slice(0, 6), slice(6, 12)] if order != "apart" else [slice(0, 6), slice(12, 18)]
    weights, views = ([a[c].reshape(2, 3) for c in cut] for a in (flat, grad))
    leaves, x = [Tensor(w) for w in weights], to_device(np.ones((5, 3), np.float32), device)
    with Gradients(weights, views) as home:
        if order.startswith("with"):
            (leaves[1] * 1.0).backward(to_device(np.full((2, 3), 7, np.float32), device))
        joined = ops.concat(*leaves, axis=0)
        assert shares(joined.data, flat) is (order != "apart")
        y = ops.linear(x, joined)
        y.backward(to_device(np.tile(np.arange(4, dtype=np.float32), (5, 1)), device))
        assert len(home.written) == 2
    expected = 5.0 * np.repeat(np.arange(4.0), 3).reshape(2, 2, 3)
    expected[1] += 7 if order.startswith("with") else 0
    for view, e in zip(views, expected, strict=True):
        assert np.array_equal(host(view), e)


@spec("A.9")
@pytest.mark.parametrize("nested", [False, True])
def test_bars_that_were_written_into_their_places_are_not_copied(nested):
    x = CUPY.asarray(np.arange(24, dtype=np.float32).reshape(2, 12))
    ys, vjp = pieces.split(x, parts=3)
    y, parts = (ys[1], 2) if nested else (x, 3)
    inner, inner_vjp = pieces.split(y, parts=parts) if nested else (ys, vjp)
    homes = [pieces.home_of_bar(z) for z in inner]
    for k, h in enumerate(homes):
        h[...] = float(k)
    with standin.counting() as spent:
        (bar,) = inner_vjp(*homes)
    assert spent.launches == 0
    assert np.array_equal(host(bar), np.repeat(np.tile(np.arange(float(parts)), (2, 1)), y.shape[1] // parts, axis=1))
    again = pieces.home_of_bar(inner[0])  # a second use of a piece has memory of its own
    assert not shares(again, bar)
    if nested:
        others = [CUPY.ones((2, 4), "float32")] * 2
        with standin.counting() as spent:
            (whole,) = vjp(others[0], bar, others[1])
        assert spent.launches == 2 and shares(whole, bar)  # two bars came from elsewhere
        assert np.array_equal(host(whole)[:, 4:8], host(bar)) and (host(whole)[:, :4] == 1).all()


def test_a_piece_that_is_used_twice_gets_the_sum():
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    bars = []
    for device in ("cpu", "cuda"):
        t = Tensor(to_device(x, device))
        a, b = ops.split(t, parts=2)
        h = to_device(np.ones((2, 1, 2), np.float32), device)
        y = ops.gated_residual(ops.gated_residual(Tensor(h), a, h), a, h * 2.0) + b.reshape(2, 1, 2)
        y.backward(h)
        bars.append(host(t.grad))
    assert np.array_equal(*bars)


def test_nothing_is_remembered_of_what_is_gone():
    x = CUPY.zeros((2, 4), "float32")
    before = len(pieces._cut), len(pieces._joined)
    with no_grad():
        ops.split(Tensor(x), parts=2)
        ops.concat(Tensor(x[:1]), Tensor(x[1:]), axis=0)
    assert (len(pieces._cut), len(pieces._joined)) == before
    for twin, args, axis in ((pieces.split, (x,), 0), (pieces.concat, (x, x), 1), (pieces.concat, (x, x), 0)):
        with pytest.raises(NoTwin):
            twin(*args, axis=axis, **({"parts": 2} if twin is pieces.split else {}))


def test_an_array_cut_into_one_piece_has_a_bar_of_its_own(device):
    x = to_device(np.arange(6, dtype=np.float32).reshape(2, 3), device)
    (y,), vjp = pieces.split(x, parts=1)
    assert y is not x and shares(y, x)
    place = pieces.home_of_bar(y)
    place[...] = 2
    assert vjp(place)[0] is not x and host(vjp(place)[0]).tolist() == [[2.0] * 3] * 2
