"""Linear maps, convolutions and losses: by hand, against the sums they stand for, and in closed form."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import agree, host, spec

from minidit import ops
from minidit.autograd import Tensor
from minidit.ops.conv import columns_of, image_of

SEEDS = st.integers(0, 2**32 - 1)
SMALL = st.integers(1, 3)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


@spec("A.11", "A.12")
def test_products_by_hand(xp):
    """x = (1, 2), W = ((3, 4), (5, 6)), b = (7, 8): y = (18, 25); for ȳ = (1, 10): x̄ = (53, 64), W̄ = ((1, 2), (10, 20))."""
    x, w, b = (Tensor(xp.asarray(a)) for a in ([[1.0, 2.0]], [[3.0, 4.0], [5.0, 6.0]], [7.0, 8.0]))
    y = ops.linear(x, w, b)
    y.backward(xp.asarray([[1.0, 10.0]]))
    assert [host(a).tolist() for a in (y, x.grad, w.grad, b.grad)] == [[[18, 25]], [[53, 64]], [[1, 2], [10, 20]], [1, 10]]


@spec("A.11", "A.12")
@given(SEEDS, st.lists(SMALL, max_size=2))
def test_a_linear_layer_is_a_matrix_product_plus_a_sum(seed, leading):
    x, w, b = Tensor(normal(seed, *leading, 3)), Tensor(normal(seed + 1, 4, 3)), Tensor(normal(seed + 2, 4))
    y_bar, grads = normal(seed + 3, *leading, 4), []
    for y in (ops.linear(x, w, b), ops.reshape(x, shape=(-1, 3)) @ w.transpose(1, 0) + b):
        y.backward(y_bar.reshape(y.shape))
        grads.append([t.grad for t in (x, w, b)])
        x.grad = w.grad = b.grad = None
    for one, other in zip(*grads, strict=True):
        agree(one, other, bound=1e-13, of=("A.11", "A.12"))


@spec("A.12", "A.5")
@given(SEEDS)
def test_linear_gelu_is_gelu_after_linear(seed):
    x, w, b = normal(seed, 5, 3), normal(seed + 1, 4, 3), normal(seed + 2, 4)
    agree(ops.linear_gelu(x, w, b), ops.gelu(ops.linear(x, w, b)), bound=0, of="A.12")


# ------------------------------------------------------------------------------------------------ convolution


@spec("A.22")
def test_a_convolution_by_hand(xp):
    """A 2 × 2 window over a 2 × 3 image: a correlation, the window is not mirrored."""
    x = xp.asarray([[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]]])
    w = xp.asarray([[[[1.0, 10.0], [100.0, 1000.0]]]])
    assert host(ops.conv2d(x, w, xp.asarray([0.5]))).tolist() == [[[[5421.5, 6532.5]]]]


CONVOLUTIONS = st.tuples(SEEDS, SMALL, SMALL, SMALL, SMALL, SMALL, SMALL, st.integers(0, 2), st.integers(0, 3), st.integers(0, 3))


def drawn(draw):
    seed, B, C, O, kh, kw, s, p, more_h, more_w = draw
    H, W = max(1, kh - 2 * p) + more_h, max(1, kw - 2 * p) + more_w
    return normal(seed, B, C, H, W), normal(seed + 1, O, C, kh, kw), normal(seed + 2, O), s, p


@spec("A.22")
@given(CONVOLUTIONS)
def test_a_convolution_is_the_sum_that_it_stands_for(draw):
    x, w, bias, s, p = drawn(draw)
    y = ops.conv2d(x, w, bias, stride=s, padding=p)
    (B, C, H, W), (O, _, kh, kw) = x.shape, w.shape
    assert y.shape == (B, O, (H + 2 * p - kh) // s + 1, (W + 2 * p - kw) // s + 1)
    expected = np.zeros(y.shape)
    for b, o, r, c in np.ndindex(*y.shape):
        expected[b, o, r, c] = bias[o] + sum(
            w[o, k, i, j] * x[b, k, s * r + i - p, s * c + j - p]
            for k, i, j in np.ndindex(C, kh, kw)
            if 0 <= s * r + i - p < H and 0 <= s * c + j - p < W
        )
    agree(y, expected, bound=1e-13, of="A.22")


@spec("A.23")
@given(CONVOLUTIONS)
def test_the_adjoint_of_cutting_windows_puts_them_back(draw):
    """⟨columns x, c⟩ = ⟨x, image c⟩, and ⟨conv x, y⟩ = ⟨x, convᵀ y⟩."""
    x, w, _, s, p = drawn(draw)
    columns = columns_of(x, w.shape[2:], s, p)
    c = normal(0, *columns.shape)
    agree((columns * c).sum(), (x * image_of(c, x.shape, s, p)).sum(), bound=1e-12, of="A.23")
    y, vjp = ops.conv2d.plain(x, w, stride=s, padding=p)
    y_bar = normal(1, *y.shape)
    x_bar, w_bar, _ = vjp(y_bar)
    agree((y * y_bar).sum(), (x * x_bar()).sum(), bound=1e-12, of="A.23")
    agree((y * y_bar).sum(), (w * w_bar).sum(), bound=1e-12, of="A.23")


@spec("A.22", "A.12")
@given(SEEDS)
def test_a_one_by_one_convolution_is_a_linear_layer_on_channels(seed):
    x, w, b = normal(seed, 2, 3, 4, 5), normal(seed + 1, 6, 3), normal(seed + 2, 6)
    y = ops.linear(x.transpose(0, 2, 3, 1), w, b).transpose(0, 3, 1, 2)
    agree(ops.conv2d(x, w[:, :, None, None], b), y, bound=1e-13, of="A.22")


@spec("A.22", "T.1")
@given(SEEDS, SMALL)
def test_a_convolution_whose_stride_is_its_window_is_patchify_and_a_linear_layer(seed, p):
    x, w, b = normal(seed, 2, 3, 2 * p, 4 * p), normal(seed + 1, 5, 3, p, p), normal(seed + 2, 5)
    y = ops.linear(ops.patchify(x, patch_size=p), w.reshape(5, -1), b)
    agree(ops.conv2d(x, w, b, stride=p), y.transpose(0, 2, 1).reshape(2, 5, 2, 4), bound=1e-13, of=("A.22", "T.1"))


# ------------------------------------------------------------------------------------------------ losses


@spec("A.25")
def test_squares_by_hand(xp):
    """x - target = (1, -2), (3, 0): the means of 1, 4 and of 9, 0 are 2.5 and 4.5; the weights 2 and 1 make them 5 and 4.5."""
    x, target = Tensor(xp.asarray([[1.0, 0.0], [4.0, 1.0]])), xp.asarray([[0.0, 2.0], [1.0, 1.0]])
    assert host(ops.mse(x, target).data).tolist() == [2.5, 4.5]
    loss = ops.mse(x, target, xp.asarray([2.0, 1.0]))
    loss.mean().backward()
    assert host(loss.data).tolist() == [5.0, 4.5]
    assert host(x.grad).tolist() == [[1, -2], [1.5, 0]]


@spec("A.25")
def test_a_weighted_square_of_three_entries_has_two_thirds_of_its_difference_as_slope(xp):
    x = Tensor(xp.asarray([[3.0, 0.0, -6.0]]))
    ops.mse(x, xp.zeros((1, 3)), xp.asarray([0.5])).sum().backward()
    agree(x.grad, [[1.0, 0.0, -2.0]], bound=1e-15, of="A.25")


@pytest.mark.parametrize("shapes", [((3,), (3, 1)), ((3, 1), (3,)), ((2, 3), (2, 2)), ((2, 2), (2, 3))])
def test_squares_of_other_shapes_are_refused(shapes):
    with pytest.raises(ValueError, match="must be the same"):
        ops.mse(*map(np.ones, shapes))


@spec("A.25", "A.26")
@given(SEEDS, st.integers(1, 5))
def test_a_batch_in_pieces_has_the_loss_and_the_gradient_of_the_whole(seed, cut):
    """A loss is one number per sample: it does not know its batch."""
    x, target, labels = normal(seed, 6, 4), normal(seed + 1, 6, 4), np.random.default_rng(seed).integers(0, 4, 6)
    f = lambda a, b: ops.mse(a, target[b]) + ops.cross_entropy(a, labels=labels[b])
    t = Tensor(x)
    whole = f(t, slice(None))
    whole.backward(np.full(6, 1 / 6))
    pieces, parts = [], []
    for b in (slice(0, cut), slice(cut, 6)):
        part = Tensor(x[b])
        loss = f(part, b)
        loss.backward(np.full(len(part), 1 / 6))
        pieces, parts = [*pieces, *loss.data], [*parts, part.grad]
    agree(np.array(pieces), whole.data, bound=1e-13, of=("A.25", "A.26"))
    agree(np.concatenate(parts), t.grad, bound=1e-14, of=("A.25", "A.26"))


@spec("A.26")
@pytest.mark.parametrize("K", [1, 2, 10, 1000])
def test_uniform_logits_cost_the_logarithm_of_the_number_of_classes(xp, K):
    logits, labels = xp.full((3, K), 7.0), xp.asarray([0, K - 1, K // 2])
    agree(ops.cross_entropy(logits, labels=labels), np.full(3, math.log(K)), bound=1e-14, of="A.26")


@spec("A.26", "A.13")
@given(SEEDS, st.floats(-1e3, 1e3))
def test_cross_entropy_is_minus_the_log_of_softmax_and_notices_no_shift(seed, shift):
    logits, labels = 3 * normal(seed, 4, 5), np.random.default_rng(seed).integers(0, 5, 4)
    y, vjp = ops.cross_entropy.plain(logits, labels=labels)
    agree(y, -np.log(ops.softmax(logits))[np.arange(4), labels], bound=1e-13, of="A.26")
    agree(ops.cross_entropy(logits + shift, labels=labels), y, bound=1e-11, of="A.26")
    agree(vjp(np.full(4, 0.25))[0], (ops.softmax(logits) - np.eye(5)[labels]) / 4, bound=1e-15, of="A.26")


@spec("A.26")
def test_a_certain_and_wrong_answer_costs_its_logit_and_no_infinity():
    logits = np.array([[1e4, 0.0]], np.float32)
    assert ops.cross_entropy(logits, labels=np.array([1])).tolist() == [1e4]
    assert ops.cross_entropy(logits, labels=np.array([0])).tolist() == [0]


@spec("A.27")
def test_the_divergence_from_the_normal_by_hand(xp):
    """N(2, e^0): ½ · 4 = 2. N(0, 4): ½ (4 - 1 - ln 4). N(0, 1): exactly 0."""
    kl = lambda m, v: float(ops.gaussian_kl(xp.asarray([m]), xp.asarray([math.log(v)]))[0])
    agree([kl(2.0, 1.0), kl(0.0, 4.0), kl(0.0, 1.0)], [2.0, 0.5 * (3 - math.log(4)), 0.0], bound=1e-15, of="A.27")


@spec("A.27")
@given(SEEDS)
def test_the_divergence_is_never_negative_flat_at_the_normal_and_a_sum_over_entries(seed):
    m, v = normal(seed, 2, 3), normal(seed + 1, 2, 3)
    total = ops.gaussian_kl(m, v)
    assert (total >= 0).all()
    agree(sum(ops.gaussian_kl(m[:, j], v[:, j]) for j in range(3)), total, bound=1e-13, of="A.27")
    for bar in ops.gaussian_kl.plain(np.zeros(3), np.zeros(3))[1](np.ones(3)):
        assert not bar.any()


@spec("A.27")
@pytest.mark.parametrize("mean, logvar", [(0.7, -1.3), (-2.0, 0.9)])
def test_the_divergence_is_the_integral_that_it_stands_for(mean, logvar):
    x, sd = np.linspace(-40, 40, 400_001), math.exp(logvar / 2)
    log_p = -0.5 * ((x - mean) / sd) ** 2 - logvar / 2
    integral = (np.exp(log_p) * (log_p + 0.5 * x * x)).sum() * (x[1] - x[0]) / math.sqrt(2 * math.pi)
    agree(ops.gaussian_kl(np.array([mean]), np.array([logvar]))[0], integral, bound=1e-10, of="A.27")
