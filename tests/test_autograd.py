"""The tape: sums over uses, order, operators, and what is refused."""


import numpy as np
import pytest
import standin
from finite import check_adjoint
from hypothesis import given
from hypothesis import strategies as st
from support import agree, host, spec

from minidit import ops
from minidit.autograd import Primitive, Tensor
from minidit.backend import xp_of

CUPY = standin.install()
SEEDS = st.integers(0, 2**32 - 1)


def leaf(*xs, xp=np):
    return Tensor(xp.asarray(np.array(xs, np.float64)))


# ------------------------------------------------------------------------------------------------ by hand


@spec("A.1", "A.2")
def test_the_gradient_of_xy_plus_x_squared(xp):
    """z = xy + x² at x = 3, y = 5:   z = 24,  ∂z/∂x = y + 2x = 11,  ∂z/∂y = x = 3."""
    x, y = leaf(3.0, xp=xp), leaf(5.0, xp=xp)
    z = (x * y + x * x).sum()
    z.backward()
    assert (float(z), host(x.grad).tolist(), host(y.grad).tolist()) == (24.0, [11.0], [3.0])


@spec("A.2")
def test_a_diamond_adds_its_two_sides(xp):
    """y = 2x, z = y² + 3y: ∂z/∂x = (2y + 3) 2 = 30 at x = 3. The node of y must wait for both of its uses."""
    x = leaf(3.0, xp=xp)
    y = 2.0 * x
    (y * y + 3.0 * y).backward(xp.ones(1))
    assert host(x.grad).tolist() == [30.0]


@spec("A.2")
def test_the_order_of_uses_and_of_depths_changes_nothing():
    """The long way round reaches y after the short one: y must not run before both have come back."""
    for order in (0, 1):
        x = leaf(2.0)
        y = x * x
        long = y
        for _ in range(5):
            long = long * 1.0
        z = y + long if order else long + y
        z.backward(np.ones(1))
        assert x.grad.tolist() == [8.0]


# ------------------------------------------------------------------------------------------------ identities


@spec("A.2")
@given(st.integers(1, 40), st.booleans())
def test_a_value_used_k_times_gets_k_bars(k, through_a_node):
    x = leaf(1.0, -2.0)
    y = x * 1.0 if through_a_node else x
    total = 0.0
    for i in range(k):
        total = total + float(i + 1) * y
    total.backward(np.array([1.0, 10.0]))
    agree(x.grad, np.array([1.0, 10.0]) * k * (k + 1) / 2, bound=1e-14, of="A.2")


@spec("A.2")
def test_a_chain_of_many_thousand_nodes_needs_no_stack():
    x = leaf(1.0)
    y = x
    for _ in range(5_000):
        y = y + 1e-4
    y.backward(np.ones(1))
    assert x.grad.tolist() == [1.0]
    for _ in range(5_000):  # and dies without having run
        y = x * 1.0
    del y


SMOOTH = [
    lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b, lambda a, b: a / (b * b + 1.0), lambda a, b: ops.tanh(a),
    lambda a, b: ops.silu(b), lambda a, b: ops.exp(ops.tanh(a)),
]  # fmt: skip
STEPS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=14)


def graph(leaves, steps):
    """A random directed graph of smooth elementwise primitives; every step takes any two of the values made so far."""
    made = list(leaves)
    for kind, i, j in steps:
        a, b = made[i % len(made)], made[j % len(made)]
        made.append(SMOOTH[kind](a, b))
    return sum(made[1:], made[0])


@spec("A.2")
@given(SEEDS, STEPS)
def test_a_random_graph_has_the_derivative_that_the_chain_rule_has(seed, steps):
    """Against central differences: every bar of a shared node is counted exactly once."""
    r = np.random.default_rng(seed)
    xs, u = r.uniform(-1, 1, (3, 2)), r.standard_normal((3, 2))
    leaves = [Tensor(x) for x in xs]
    y = graph(leaves, steps)
    bar = r.standard_normal(2)
    y.backward(bar)
    back = sum(float((t.grad * d).sum()) for t, d in zip(leaves, u, strict=True) if t.grad is not None)
    check_adjoint(back, lambda s: graph(list(xs + s * u), steps), bar, bound=1e-7, of="A.2", floor=float(np.abs(y.data).max()))


@spec("A.2")
def test_leaves_gather_over_several_backwards(xp):
    x = leaf(1.0, 2.0, xp=xp)
    for k in range(1, 4):
        (x * x).sum().backward()
        agree(x.grad, k * 2 * host(x.data), bound=0, of="A.2")


@spec("A.2")
def test_a_gradient_that_two_leaves_share_is_not_added_to_in_place():
    """a + b hands one and the same ȳ to both: what comes later for one must not reach the other, nor the caller's seed."""
    a, b, seed = leaf(1.0), leaf(2.0), np.ones(1)
    (a + b).backward(seed)
    (3.0 * a).backward(np.ones(1))
    assert (a.grad.tolist(), b.grad.tolist(), seed.tolist()) == ([4.0], [1.0], [1.0])


@spec("A.2")
def test_sums_in_the_tape_leave_every_bar_that_others_hold_alone():
    """y is used by three sums: its first two bars go to fresh memory, and only that is added to in place."""
    x, seed = leaf(1.0), np.ones(1)
    y = x * 2.0
    ((y + y) + y).backward(seed)
    assert (x.grad.tolist(), seed.tolist()) == ([6.0], [1.0])


@spec("A.2")
def test_an_output_that_nobody_used_has_the_gradient_zero(xp):
    x = leaf(1.0, 2.0, 3.0, 4.0, xp=xp)
    _, b = ops.split(x, parts=2)
    (b * b).sum().backward()
    assert host(x.grad).tolist() == [0, 0, 6, 8]


@spec("A.2")
def test_a_branch_without_gradients_does_not_hold_up_the_rest():
    """The weight of mse gets no bar; a node that hangs on nothing else gets none either, and the others still run."""
    x, w = leaf(1.0, 3.0), leaf(1.0, 1.0)
    weight = w * 2.0
    (ops.mse(x * 1.0, np.zeros(2), weight).mean() + (weight * x).sum()).backward()
    assert x.grad.tolist() == [2 * 1 + 2, 2 * 3 + 2]
    assert w.grad.tolist() == [2, 6]
    w.grad = None
    ops.mse(x * 1.0, np.zeros(2), w * 2.0).mean().backward()
    assert w.grad is None


@spec("A.2")
def test_an_argument_that_is_left_out_needs_no_bar():
    x, w = leaf(1.0, 2.0), Tensor(np.eye(2))
    ops.linear(x, w).sum().backward()
    assert w.grad.tolist() == [[1, 2], [1, 2]]


@spec("A.1")
def test_lazy_bars_are_computed_only_for_those_who_wait():
    asked = []

    def both(a, b):
        return a + b, lambda y_bar: (lambda: asked.append("a") or y_bar, lambda: asked.append("b") or y_bar)

    p = Primitive(both)
    p(leaf(1.0), np.ones(1)).backward(np.ones(1))
    assert asked == ["a"]


# ------------------------------------------------------------------------------------------------ operators and refusals


@spec("A.3")
def test_operators_reach_the_tensor_from_both_sides(xp):
    a, x = xp.asarray([1.0, 2.0]), leaf(4.0, 8.0, xp=xp)
    for y, expected in (
        (a * x, [4, 16]), (x * a, [4, 16]), (a + x, [5, 10]), (x + a, [5, 10]), (a - x, [-3, -6]), (x - a, [3, 6]),
        (a / x, [0.25, 0.25]), (x / a, [4, 4]), (2.0 * x, [8, 16]),
        (x / 2, [2, 4]), (1 - x, [-3, -7]), (2 / x, [0.5, 0.25]), (1 + x, [5, 9]),
        (-x, [-4, -8]), (x**2, [16, 64]), (x @ a, 20), (a @ x, 20), (x[1], 8), (x[::-1], [8, 4]),
        (x.reshape(2, 1).transpose(1, 0), [[4, 8]]), (x.reshape((1, 2)), [[4, 8]]), (x.sum(), 12), (x.mean(), 6),
        (x.sum(0, True), [12]),
        (xp.float64(2.0) * x, [8, 16]), (np.float64(2.0) * x, [8, 16]),
    ):  # fmt: skip
        assert type(y) is Tensor
        assert xp_of(y.data) is xp
        assert host(y).tolist() == expected


def test_a_tensor_tells_what_it_is():
    x = Tensor([[1.0, 2.0, 3.0]])
    assert (x.shape, x.ndim, x.size, len(x), x.dtype) == ((1, 3), 2, 3, 1, np.float32)
    assert float(Tensor(2.5)) == 2.5
    assert repr(leaf(1.0)) == "Tensor((1,) float64, leaf, [1.0])"


def test_a_result_without_axes_is_an_array_all_the_same():
    x = Tensor(np.asarray(3.0))
    y = x * x + x
    y.backward()
    assert (type(y.data), type(x.grad), float(x.grad)) == (np.ndarray, np.ndarray, 7.0)


@pytest.mark.parametrize("bad", [np.arange(3), np.ones(2, bool), np.int64(3), 3, "x", None, np.ones(2, complex)])
def test_a_tensor_of_anything_but_floats_is_refused(bad):
    with pytest.raises(TypeError, match=r"floating-point numbers, got .*: labels and rungs stay plain arrays"):
        Tensor(bad)
    with pytest.raises(TypeError, match="got a Tensor"):
        Tensor(leaf(1.0))


def single(x):
    return Tensor(np.asarray(x, np.float32))


@pytest.mark.parametrize("f, error, message", [
    (lambda: single([1.0]) * leaf(1.0), TypeError, "^mul: mixed precision, float32 with float64: cast one of them explicitly$"),
    (lambda: single([1.0]) * np.float64(2), TypeError, "^mul: a NumPy float64 scalar would promote float32: use a Python number"),
    (lambda: np.float64(2) * single([1.0]), TypeError, "^mul: a NumPy float64 scalar would promote float32: use a Python number"),
    (lambda: np.float64(2) - single([1.0]), TypeError, "^sub: a NumPy float64 scalar would promote float32: use a Python number"),
    (lambda: single([1.0]) * np.int64(2), TypeError, "^mul: a NumPy int64 scalar would promote float32: use a Python number"),
    (lambda: single([1.0]) * np.arange(1), TypeError, "^mul: an array of int64 would promote float32: use a Python number"),
    (lambda: ops.add([1.0], single([1.0])), TypeError, "^add: expected an array or a Tensor, got list$"),
    (lambda: ops.linear(single([1.0]), single([[1.0]]), bias=single([1.0])), TypeError, "^linear: arrays are passed by position"),
    (lambda: (leaf(1.0, 2.0) * 1.0).backward(), ValueError, r"^backward of a Tensor of shape \(2,\) needs its gradient"),
    (lambda: leaf(1.0, 2.0).backward(np.ones(3)), ValueError, r"^backward: the gradient has shape \(3,\), the Tensor \(2,\)$"),
    (lambda: single([1.0]).backward(np.ones(1)), TypeError, "^backward: mixed precision, float32 with float64"),
])  # fmt: skip
def test_what_would_go_wrong_silently_is_refused_in_one_sentence(f, error, message):
    with pytest.raises(error, match=message):
        f()


def test_numpy_scalars_that_promote_nothing_are_welcome():
    x = single([1.0, 2.0])
    assert (x * np.float32(2)).dtype == np.float32
    assert (leaf(1.0) * np.float32(2)).dtype == np.float64


def test_arrays_of_two_homes_meet_nowhere(xp):
    other = np.ones(1) if xp is not np else CUPY.ones(1)
    y = leaf(1.0, xp=xp) * 1.0
    for f in (lambda: ops.add(xp.ones(1), other), lambda: y * other, lambda: other * y, lambda: y.backward(other)):
        with pytest.raises(ValueError, match=r"different homes \(\w+ and \w+\): move them together with to_device"):
            f()


# ------------------------------------------------------------------------------------------------ changed in place


@pytest.mark.parametrize("shape", [(), (3,), (40, 50)])
@pytest.mark.parametrize("f", [lambda x, w: x * w, lambda x, w: x / w, lambda x, w: (w * w) * x, lambda x, w: w**3.0 * x])
def test_an_array_that_an_adjoint_reads_may_not_change_before_it_does(shape, f):
    x, w = Tensor(np.full(shape, 2.0)), Tensor(np.full(shape, 3.0))
    y = f(x, w).sum() if shape else f(x, w)
    w.data -= 1.0
    with pytest.raises(ValueError, match=r"an array of shape .* was changed in place after it was used"):
        y.backward()


def test_an_intermediate_value_is_looked_at_as_well():
    x = Tensor(np.ones(4))
    h = x * 2.0
    y = (h * h).sum()
    h.data[1] = 7.0
    with pytest.raises(ValueError, match="changed in place"):
        y.backward()


def test_an_array_that_no_adjoint_reads_may_change():
    x, w = Tensor(np.ones(3)), Tensor(np.ones(3))
    y = (x + w).sum()
    w.data -= 1.0
    y.backward()
    np.testing.assert_array_equal(x.grad, np.ones(3))


def test_a_change_after_backward_is_nobodys_business():
    x, w = Tensor(np.ones(3)), Tensor(np.full(3, 2.0))
    (x * w).sum().backward()
    w.data -= 1.0
    (x * w).sum().backward()
    np.testing.assert_array_equal(x.grad, np.full(3, 3.0))
