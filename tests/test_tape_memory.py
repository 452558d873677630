"""What the tape keeps and when it lets go of it, and where gradients go: leaves, flat buffers, threads."""

import gc
import threading
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import host, spec

from minidit import backend, ops
from minidit.autograd import Gradients, Primitive, Tensor, kernels_on, no_grad, plain_text, recording, value
from minidit.backend import Arena


def leaf(*xs, xp=np):
    return Tensor(xp.asarray(np.array(xs, np.float64)))


# ------------------------------------------------------------------------------------------------ what is kept, and how long


def test_no_grad_leaves_no_history():
    x = leaf(1.0)
    assert recording()
    with no_grad():
        assert not recording()
        y = x * x
    assert recording()
    assert y.node is None
    with pytest.raises(ValueError, match="no history"):
        y.backward()
    z = y * x  # a value without history is a constant
    z.backward(np.ones(1))
    assert x.grad.tolist() == [1.0]


def test_plain_arrays_stay_plain_arrays(xp):
    assert type(ops.exp(xp.zeros(3))) is type(xp.zeros(3))
    assert value(leaf(1.0)).tolist() == [1.0]
    assert value(3) == 3


def test_the_switch_for_twins_is_undone():
    before = kernels_on()
    with plain_text():
        assert not kernels_on()
    assert kernels_on() == before


def watched(f):
    """f, and weak references to the arrays that its adjoints keep; each adjoint notes how many are alive when it runs."""
    refs, alive = [], []

    def plain(x):
        saved = np.array(x)
        refs.append(weakref.ref(saved))

        def vjp(y_bar):
            alive.append(sum(r() is not None for r in refs))
            return (y_bar * (saved * 0 + 1),)

        return f(x), vjp

    return Primitive(plain), refs, alive


def test_what_an_adjoint_saved_dies_right_after_it_ran():
    p, refs, alive = watched(lambda x: x + 1)
    y = leaf(1.0)
    for _ in range(4):
        y = p(y)
    y.backward(np.ones(1))
    assert alive == [4, 3, 2, 1]
    assert all(r() is None for r in refs)


def test_what_an_adjoint_saved_is_gone_before_its_bars_are_added_anywhere():
    """A sum that makes fresh memory may then use the memory that the adjoint has just set free."""

    class Watching(Gradients):
        def add(self, array, bar):
            alive_at_the_leaf.append(sum(r() is not None for r in refs))
            return super().add(array, bar)

    p, refs, _ = watched(lambda x: x + 1)
    x, alive_at_the_leaf = leaf(1.0), []
    with Watching([x.data], [np.zeros(1)]):
        p(x).backward(np.ones(1))
    assert alive_at_the_leaf == [0]


def test_a_value_that_no_adjoint_needs_is_freed_while_the_tape_grows():
    """Sums, shifts, slices and means keep shapes, not arrays; exp keeps its result; nothing waits for the collector of cycles."""
    gc.disable()
    try:
        x = leaf(*range(8))
        for f in (
            lambda a: a + 1.0, lambda a: a + x, lambda a: x - a, lambda a: a[2:] + 1.0, lambda a: a.mean(), lambda a: 2.0 * a,
            lambda a: a.reshape(2, 4) * 1.0, lambda a: a / 3.0, lambda a: ops.exp(a), lambda a: ops.softmax(a),
            lambda a: ops.gelu(a),
            lambda a: ops.concat(a, a), lambda a: ops.standardise(a),
            lambda a: ops.group_norm(a.reshape(1, 2, 2, 2) + 0.0, np.ones(2), np.ones(2), groups=1),
        ):  # fmt: skip
            a = x * 1.0
            dead = weakref.ref(a.data)
            y = f(a)
            del a
            assert dead() is None
            assert y.node is not None
    finally:
        gc.enable()


def test_a_leaf_that_nobody_holds_is_freed_at_once():
    gc.disable()
    try:
        x = leaf(1.0)
        dead = weakref.ref(x)
        del x
        assert dead() is None
    finally:
        gc.enable()


def test_a_graph_runs_backwards_once():
    x = leaf(1.0)
    y = x * x
    z = y + y
    z.backward(np.ones(1))
    with pytest.raises(ValueError, match="already run backwards"):
        z.backward(np.ones(1))
    with pytest.raises(ValueError, match="already run backwards"):
        (y * 2.0).backward(np.ones(1))
    assert x.grad.tolist() == [4.0]


@pytest.mark.parametrize("small", [0, 16384])
def test_an_arena_changes_no_bit_and_stops_growing(monkeypatch, small):
    monkeypatch.setattr(backend, "SMALL", small)
    r = np.random.default_rng(0)
    x = r.standard_normal((3, 8, 24)).astype(np.float32)
    ws = [r.standard_normal(s).astype(np.float32) for s in ((72, 24), (72,), (24, 24), (96, 24), (96,), (24, 96), (24,))]
    c = r.standard_normal((3, 24)).astype(np.float32)

    def step():
        w = [Tensor(a) for a in ws]
        h = ops.layer_norm_modulate(Tensor(x), c, c)
        a = ops.self_attention(ops.linear(h, w[0], w[1]), heads=3)
        y = ops.gated_residual(h, c, ops.linear(a, w[2]))
        y = ops.gated_residual(y, c, ops.mlp(y, *w[3:]))
        ops.mse(y, x).mean().backward()
        return [np.array(t.grad) for t in w]

    outside, sizes = step(), []
    with Arena() as arena:
        for _ in range(5):
            inside = step()
            sizes.append(arena.nbytes)
            assert all((a == b).all() for a, b in zip(inside, outside, strict=True))
    assert len(set(sizes[1:])) == 1
    assert sizes[0] > 0


# ------------------------------------------------------------------------------------------------ gradients in a flat buffer


def views_of(arrays, xp=np):
    flat = xp.full(sum(a.size for a in arrays), np.nan, arrays[0].dtype)
    ends = np.cumsum([a.size for a in arrays])
    return flat, [flat[e - a.size : e].reshape(a.shape) for a, e in zip(arrays, [int(e) for e in ends], strict=True)]


@spec("A.2")
def test_gradients_write_first_add_later_and_clear_what_nobody_wrote(xp):
    w, idle, outside = leaf(1.0, 2.0, xp=xp), leaf(5.0, xp=xp), leaf(7.0, xp=xp)
    flat, views = views_of([w.data, idle.data], xp)
    gradients = Gradients([w.data, idle.data], views)
    for _ in range(2):  # the second round starts afresh: nothing needs zeroing in between
        outside.grad = None
        with gradients:
            (w * w).sum().backward()
            assert host(flat)[:2].tolist() == [2, 4]
            (w * outside).sum().backward()
        assert host(flat).tolist() == [2 + 7, 4 + 7, 0]
        assert w.grad is None and idle.grad is None
        assert host(outside.grad).tolist() == [3]
    (w * w).sum().backward()
    assert host(w.grad).tolist() == [2, 4]  # outside `with`, as ever


@spec("A.2")
def test_threads_with_gradients_of_their_own_share_the_leaves(monkeypatch):
    r = np.random.default_rng(0)
    w, b = Tensor(r.standard_normal((5, 4)).astype(np.float32)), Tensor(np.zeros(5, np.float32))
    xs = [r.standard_normal((6, 4)).astype(np.float32) for _ in range(2)]
    flats, failures = [None, None], []

    def work(i):
        try:
            flat, views = views_of([w.data, b.data])
            with Arena(), Gradients([w.data, b.data], views):
                for _ in range(30):
                    y = ops.linear(xs[i], w, b)
                    (ops.tanh(y) * y + ops.silu(y)).sum().backward()
            flats[i] = flat
        except Exception as e:
            failures.append(e)

    alone = []
    for i in range(2):
        work(i)
        alone.append(flats[i].copy())
    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures
    for together, one in zip(flats, alone, strict=True):
        assert (together == one).all()
    assert w.grad is None


def test_history_is_recorded_in_a_new_thread_even_if_its_parent_records_none():
    seen = []
    with no_grad():
        t = threading.Thread(target=lambda: seen.append(recording()))
        t.start()
        t.join()
    assert seen == [True]


@settings(max_examples=10)
@given(st.integers(1, 4), st.integers(1, 5))
def test_an_adjoint_may_hand_its_bar_on_and_the_first_writer_still_wins(k, n):
    """sum hands back one number stretched over n places: a read-only view, which sums and flat buffers must take as it is."""
    x = leaf(*range(n))
    flat, views = views_of([x.data])
    with Gradients([x.data], views):
        sum((x * 1.0).sum() for _ in range(k)).backward()
        sum(x.sum() for _ in range(k)).backward()
    assert flat.tolist() == [2 * k] * n
