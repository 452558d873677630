"""Twins against the text they stand for: float32 tiles against the plain primitive in float64, and against themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ops.cases import SEEDS, frozen, is_array, laid_out, settled
from support import agree, spec

from minidit import backend, ops
from minidit.autograd import PRIMITIVES, Gradients, Tensor, no_grad, plain_text
from minidit.backend import Arena
from minidit.kernels import blas, cpu, cpu_conv, cpu_norm, cpu_winograd

U = 2.0**-24  # the rounding unit of float32
FEW = st.integers(1, 3)
LAYOUTS = st.sampled_from(["plain", "plain", "fortran", "backwards", "gaps"])


@st.composite
def normal(draw, shape, std=1.0):
    """A float32 array of normal numbers in some layout."""
    x = np.random.default_rng(draw(SEEDS)).standard_normal(shape).astype(np.float32) * np.float32(std)
    return laid_out(x, draw(LAYOUTS))


@st.composite
def linears(draw, bias=True, widths=(1, 24)):
    shape = draw(st.sampled_from([(7,), (2, 5), (1,), (3, 1, 9), ()]))
    n, m = draw(st.integers(1, 40)), draw(st.integers(*widths))
    args = draw(normal((*shape, n))), draw(normal((m, n), n**-0.5))
    return ((*args, draw(normal((m,)))) if bias or draw(st.booleans()) else args), {}


@st.composite
def mlps(draw):
    args, _ = draw(linears(widths=(16, 24)))
    m, k = len(args[1]), draw(st.integers(1, 8))
    return (*args, draw(normal((k, m), m**-0.5)), draw(normal((k,)))), {}


@st.composite
def modulations(draw):
    B, N, D = draw(st.integers(1, 5)), draw(st.integers(1, 9)), draw(st.integers(16, 40))
    return (draw(normal((B, N, D))), draw(normal((B, D))), draw(normal((B, D)))), {"eps": draw(st.sampled_from([1e-6, 1e-5]))}


@st.composite
def attentions(draw):
    B, N, h, K = draw(FEW), draw(st.integers(1, 9)), draw(st.integers(1, 4)), draw(st.integers(1, 8))
    return (draw(normal((B, N, 3 * h * K))),), {"heads": h}


@st.composite
def crossed_attentions(draw):
    """Queries, keys and values of their own, as parts of packed rows or not, with a mask or without."""
    B, h, N, M, K, V = draw(FEW), draw(FEW), draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(FEW), draw(FEW)
    args = [draw(normal((B, h, N, K))), draw(normal((B, h, M, K))), draw(normal((B, h, M, V)))]
    if draw(st.booleans()):
        args = [np.ascontiguousarray(a.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3) for a in args]
    if draw(st.booleans()):
        args.append(draw(normal(draw(st.sampled_from([(N, M), (1, M), (M,), (B, 1, N, M), (B, h, N, M)])))))
    return tuple(args), {}


@st.composite
def head_norms(draw):
    (qkv,), static = draw(attentions())
    K = qkv.shape[-1] // 3 // static["heads"]
    angles = np.random.default_rng(draw(SEEDS)).uniform(-100, 100, (qkv.shape[1], K // 2)).astype(np.float32)
    tables = (np.cos(angles), np.sin(angles)) if K % 2 == 0 and draw(st.booleans()) else ()
    return (qkv, draw(normal((K,))), draw(normal((K,))), *tables), {**static, "eps": 1e-2}


@st.composite
def turns(draw):
    B, N, h, pairs = draw(FEW), draw(st.integers(1, 9)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    angles = np.random.default_rng(draw(SEEDS)).uniform(-100, 100, (N, pairs))
    tables = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    return (draw(normal((B, N, 6 * h * pairs))), *tables), {"heads": h}


@st.composite
def residuals(draw):
    B, N, D = draw(st.integers(1, 5)), draw(st.integers(1, 9)), draw(st.integers(1, 20))
    return (draw(normal((B, N, D))), draw(normal((B, D))), draw(normal((B, N, D)))), {}


@st.composite
def convolutions(draw):
    B, C, O, kh, kw, stride = (draw(FEW) for _ in range(6))
    padding = draw(st.integers(0, 2) | st.tuples(st.integers(0, 2), st.integers(0, 2)))
    around = 2 * padding if isinstance(padding, int) else sum(padding)
    H, W = (max(1, k - around) + draw(st.integers(0, 6)) for k in (kh, kw))
    args = draw(normal((B, C, H, W))), draw(normal((O, C, kh, kw)))
    return ((*args, draw(normal((O,)) | normal((B, O)))) if draw(st.booleans()) else args), {"stride": stride, "padding": padding}


@st.composite
def tiled_convolutions(draw):
    """Those that are computed in tiles of 4 × 4 outputs; pictures may end within a tile."""
    B, C, O = draw(st.integers(1, 20)), draw(st.integers(2, 5)), draw(st.integers(2, 5))
    H, W = draw(st.integers(3, 13)), draw(st.integers(3, 13))
    args = draw(normal((B, C, H, W))), draw(normal((O, C, 3, 3)))
    return ((*args, draw(normal((O,)) | normal((B, O)))) if draw(st.booleans()) else args), {"stride": 1, "padding": 1}


@st.composite
def square_convolutions(draw):
    """Those whose adjoint is a convolution with the mirrored kernels."""
    k, B, C, O = draw(st.integers(2, 3)), draw(FEW), draw(FEW), draw(FEW)
    args = draw(normal((B, C, draw(st.integers(3, 6)), draw(st.integers(3, 6))))), draw(normal((O, C, k, k)))
    return args, {"stride": 1, "padding": draw(st.integers(0, k - 1))}


@st.composite
def enlarged(draw):
    return (draw(normal((draw(FEW), draw(FEW), draw(FEW), draw(FEW)))),), {"factor": draw(FEW)}


@st.composite
def groups(draw):
    g, per, B = draw(FEW), draw(FEW), draw(FEW)
    shape = (B, g * per, draw(st.integers(4, 6)), draw(st.integers(4, 7)))
    return (draw(normal(shape)), draw(normal(shape[1:2])), draw(normal(shape[1:2]))), {"groups": g}


TWINS = {  # the draw, and the bound: rounding units, relative to the largest number of the array that is compared
    "linear": (linears(bias=False), 16),  # sums of at most 40 products, or of 27 rows for a bar: √40 units, times 2 to 3
    "mlp": (mlps(), 128),  # in the slope the rounding of 1 - Φ is multiplied by 2 a u' ≈ 56 at a = 6
    "layer_norm_modulate": (modulations(), 64),  # the mean of 16 or more numbers cancels, 1/σ is rounded, sums over 9 tokens
    "self_attention": (attentions(), 64),  # |logits| of up to 20 carry their rounding into the exponent
    "attention": (crossed_attentions(), 64),  # likewise
    "qk_norm": (head_norms(), 64),  # 1/σ is rounded; sums over 27 tokens
    "qk_rope": (turns(), 4),  # two products and a sum
    "gated_residual": (residuals(), 8),  # one product, one sum, and a sum over 9 tokens
    "conv2d": (convolutions(), 32),  # sums of at most 27 products; for the weights, of 3 · 81
    "group_norm": (groups(), 64),  # as layer norm
    "group_norm_silu": (groups(), 96),  # and tanh
    "upsample_nearest": (enlarged(), 8),  # sums of at most 9
}
EQUATIONS = {"linear": "A.12", "mlp": "N.5", "layer_norm_modulate": "A.15", "self_attention": "A.19", "attention": "A.19",
             "qk_norm": "A.29", "qk_rope": "A.30", "gated_residual": "A.21", "conv2d": "A.23", "group_norm": "A.17",
             "group_norm_silu": "A.17", "upsample_nearest": "A.10"}  # fmt: skip


@pytest.fixture(params=["whole", "small tiles"])
def tiles(request, monkeypatch):
    """Tiles as they are (everything fits into one) and so small that every drawn shape crosses their borders."""
    if request.param == "small tiles":
        monkeypatch.setattr(cpu, "TILE", 30)
        monkeypatch.setattr(cpu, "SCORES", 40)
        monkeypatch.setattr(cpu_conv, "COLUMNS", 50)
        monkeypatch.setattr(cpu_norm, "WHOLE", 50)
        monkeypatch.setattr(cpu_winograd, "STRIP", 50)
        monkeypatch.setattr(cpu, "FEW", 4)
        monkeypatch.setattr(backend, "SMALL", 0)


def test_every_twin_is_in_the_table():
    assert (
        {n for n, p in PRIMITIVES.items() if p.cpu} - {"concat"} == set(TWINS) == set(EQUATIONS)
    )  # concat: below, and test_pieces.py


def close(actual, expected, units, of, scale=0.0):
    """Agreement that counts rounding units, relative to the largest number expected here or, where sums cancel, elsewhere."""
    s = max(float(np.abs(expected).max()), scale, 1e-30)
    agree(actual / s, expected / s, bound=units * U, of=of)


def usual_sizes(vjp, y_bar, name):
    """How large each bar is for ȳ of this size and other signs: what a bar is compared with where its own sums cancel."""
    flips = np.random.default_rng(0).choice([-1, 1], (16, *y_bar.shape)).astype(y_bar.dtype)
    bars = [settled(vjp(y_bar * f)) for f in flips]
    sizes = [max(np.abs(b).max() for b in bs) if bs[0] is not None else 0.0 for bs in zip(*bars, strict=True)]
    # with one key the bars of q and k are zero, and their rounding is as large as that of the bar of v
    return [max(sizes)] * len(sizes) if name == "attention" else sizes


def wide(x):
    return x.astype(np.float64) if is_array(x) else x


MORE = [("conv2d", tiled_convolutions()), ("conv2d", square_convolutions())]  # the same twin, other arguments
DRAWS = [*((name, TWINS[name][0]) for name in sorted(TWINS)), *MORE]


@spec("A.4", "A.10", "A.12", "A.15", "A.17", "A.19", "A.20", "A.21", "A.22", "A.23", "A.28", "A.29", "A.30", "N.5")
@pytest.mark.parametrize(("name", "draws"), DRAWS, ids=[*sorted(TWINS), "conv2d in tiles", "conv2d of square kernels"])
@pytest.mark.usefixtures("tiles")
def test_a_twin_says_what_the_plain_text_says(name, draws):
    p, units = PRIMITIVES[name], TWINS[name][1]

    @settings(max_examples=30)
    @given(draws, SEEDS)
    def check(case, seed):
        args, static = tuple(frozen(a) for a in case[0]), case[1]
        expected, plain_vjp = p.plain(*map(wide, args), **static)
        y, vjp = p.cpu(*args, **static)
        close(y, expected, units, EQUATIONS[name], scale=1.0)
        y_bar = frozen(np.random.default_rng([seed, 1]).standard_normal(y.shape).astype(np.float32))
        bars, expected_bars = settled(vjp(y_bar)), settled(plain_vjp(wide(y_bar)))
        for a, b, e, size in zip(args, bars, expected_bars, usual_sizes(plain_vjp, wide(y_bar), name), strict=False):
            if e is None:
                assert b is None
                continue
            assert (b.shape, b.dtype) == (a.shape, np.float32)
            close(b, e, units, EQUATIONS[name], size)
        with no_grad():
            again, _ = p.cpu(*args, **static)
        assert (again == y).all()  # what is kept for the adjoint changes no bit of the value
        with Arena():
            for _ in range(2):  # the second time in memory that the first has written to
                here, vjp = p.cpu(*args, **static)
                there = settled(vjp(y_bar))
                assert (here == y).all()
                assert all((s == t).all() for s, t in zip(there, bars, strict=True) if t is not None)
                del here, vjp, there

    check()


def test_the_switch_chooses_between_the_twin_and_the_plain_text(monkeypatch):
    def twin(x, *, heads):
        return x[..., :1] * 0 + 7, None

    monkeypatch.setattr(ops.self_attention, "cpu", twin)
    x = np.ones((1, 2, 3), np.float32)
    assert ops.self_attention(x, heads=1).max() == 7
    assert ops.self_attention(x.astype(np.float64), heads=1).max() == 1  # twins are for float32
    with plain_text():
        assert ops.self_attention(x, heads=1).max() == 1


# ------------------------------------------------------------------------------------------------ where twins could go wrong


@spec("A.18", "A.19")
@pytest.mark.parametrize("size", [30, 60, 150, 3000])
@pytest.mark.usefixtures("tiles")
def test_attention_survives_large_logits_and_small_gradients(size):
    """Logits of ±size need the softmax shift, and the bars hold down to the gradients of a long mean. Rounding a logit moves its
    exponential by |logit| units: that is the conditioning, and the bound."""
    r = np.random.default_rng(size)
    B, N, h, K = 2, 6, 2, 4
    x = r.standard_normal((B, N, 3, h, K)).astype(np.float32)
    logits = np.einsum("bnhk,bmhk->bhnm", x[:, :, 0], x[:, :, 1]) * K**-0.5
    x[:, :, :2] *= np.sqrt(size / np.abs(logits).max())
    x = x.reshape(B, N, 3 * h * K)
    y_bar = (r.standard_normal((B, N, h * K)) * 1e-18).astype(np.float32)
    expected, plain_vjp = ops.self_attention.plain(wide(x), heads=h)
    y, vjp = ops.self_attention.cpu(x, heads=h)
    close(y, expected, 8 * size, ("A.18",))
    close(*(f(g)[0] for f, g in ((vjp, y_bar), (plain_vjp, wide(y_bar)))), 8 * size, ("A.19",))


@spec("A.13", "A.18")
def test_only_the_tile_that_needs_the_shift_pays_for_it_and_a_common_shift_changes_nothing(monkeypatch):
    """q = (a, 0) and k = (±a, b): adding one number to all logits of a row leaves the weights as they were."""
    monkeypatch.setattr(cpu, "SCORES", 4)
    q, b, v = 12.0, np.array([0.0, 1.0]), np.array([1.0, 3.0])
    for shift in (0.0, 10.0, -10.0, 90.0, -90.0):  # e^±90 is beyond float32
        qkv = np.zeros((1, 2, 6), np.float32)
        qkv[0, :, :2] = np.sqrt(2) * np.array([shift / q, 1.0])
        qkv[0, :, 2], qkv[0, :, 3], qkv[0, :, 4] = q, b, v
        weight = np.e / (1 + np.e)  # of the second key
        agree(ops.self_attention(qkv, heads=1)[0, :, 0], np.full(2, 1 - weight + 3 * weight), bound=100 * U, of="A.18")


@spec("A.5")
def test_the_slope_of_gelu_holds_far_out():
    x = np.array([[-1e4, -40, -12, -6, -5, -3, -1, -1e-20, 0, 1e-20, 1, 3, 5, 6, 12, 40, 1e4]], np.float32).T
    one = np.ones((1, 1), np.float32)
    expected, plain_vjp = ops.mlp.plain(wide(x), wide(one), np.zeros(1), wide(one), np.zeros(1))
    y, vjp = ops.mlp.cpu(x, one, np.zeros(1, np.float32), one, np.zeros(1, np.float32))
    agree(y / np.maximum(1, np.abs(x)), expected / np.maximum(1, np.abs(x)), bound=4 * U, of="A.5")
    agree(settled(vjp(np.ones_like(x)))[0], settled(plain_vjp(np.ones(x.shape)))[0], bound=40 * U, of="A.5")


@spec("A.12", "A.15")
@pytest.mark.parametrize("name", sorted(TWINS))
@pytest.mark.usefixtures("tiles")
def test_a_bar_that_is_no_block_of_memory_is_taken_as_it_is(name):
    p = PRIMITIVES[name]

    @settings(max_examples=10)
    @given(TWINS[name][0], st.sampled_from(["fortran", "backwards", "gaps"]))
    def check(case, layout):
        args, static = case
        y, vjp = p.cpu(*args, **static)
        y_bar = np.random.default_rng(0).standard_normal(y.shape).astype(np.float32)
        straight, sizes = settled(vjp(y_bar)), usual_sizes(vjp, y_bar, name)
        for b, e, size in zip(settled(vjp(frozen(laid_out(y_bar, layout)))), straight, sizes, strict=True):
            if e is not None:
                close(b, wide(e), TWINS[name][1], EQUATIONS[name], size)

    check()


# ------------------------------------------------------------------------------------------------ gradients at home


@spec("A.2", "A.12")
@pytest.mark.parametrize("name", ["linear", "mlp", "conv2d", "group_norm", "group_norm_silu"])
def test_weight_gradients_are_written_into_the_flat_buffer_and_added_the_second_time(name):
    @settings(max_examples=10)
    @given(TWINS[name][0])
    def check(case):
        args, static = case
        weights = [np.ascontiguousarray(a) for a in args[1:]]

        def gradients_of(uses, home=None):
            leaves = [Tensor(w) for w in weights]
            ys = [PRIMITIVES[name](Tensor(args[0] * np.float32(1 + i)), *leaves, **static) for i in range(uses)]
            total = sum(ys[1:], ys[0])
            bar = np.random.default_rng(5).standard_normal(total.shape).astype(np.float32)
            if home is None:
                total.backward(bar)
                return [t.grad for t in leaves]
            with home:
                total.backward(bar)
            assert all(t.grad is None for t in leaves)
            return list(home.views.values())

        for uses in (1, 2, 3):
            flat = np.full(sum(w.size for w in weights), np.nan, np.float32)
            ends = np.cumsum([w.size for w in weights])
            views = [flat[e - w.size : e].reshape(w.shape) for w, e in zip(weights, ends, strict=True)]
            home = Gradients(weights, views)
            for free, view in zip(gradients_of(uses), gradients_of(uses, home), strict=True):
                assert np.shares_memory(view, flat)
                assert (free == view).all()

    check()


@spec("A.12")
def test_the_matrix_product_is_pluggable():
    calls = []

    def gemm(a, b, out):
        calls.append((a.shape, b.shape))
        np.matmul(a, b, out=out)

    x, w = np.ones((3, 2), np.float32), Tensor(np.ones((4, 2), np.float32))
    with blas.using(blas.Blas("counting", gemm)):
        assert blas.name_of_blas() == "counting"
        y = ops.linear(Tensor(x), w)
        y.backward(np.ones((3, 4), np.float32))
    assert len(calls) == 3  # y, x̄, W̄
    assert "(NumPy's)" in blas.name_of_blas()
    agree(w.grad, np.full((4, 2), 3.0), bound=0, of="A.12")


# ------------------------------------------------------------------------------------------------ where pictures lie


@spec("A.9")
@given(st.lists(FEW, min_size=1, max_size=4), FEW, FEW, FEW, SEEDS)
def test_pictures_are_put_together_along_their_channels(channels, B, H, W, seed):
    rng = np.random.default_rng(seed)
    xs = [rng.standard_normal((B, c, H, W)).astype(np.float32) for c in channels]
    y, vjp = ops.concat.cpu(*xs, axis=1)
    expected, plain_vjp = ops.concat.plain(*xs, axis=1)
    assert (y == expected).all()
    for bar, e in zip(vjp(y), plain_vjp(expected), strict=True):
        assert (bar == e).all()


def test_pictures_stay_pixels_first_from_layer_to_layer():
    """No twin of a convolutional network makes the next one copy: every output is dense as (H, W, B, C)."""
    x, w, ones = np.ones((2, 4, 6, 8), np.float32), np.ones((4, 4, 3, 3), np.float32), np.ones(4, np.float32)
    for kernel, stride, padding in ((w, 1, 1), (w, 2, (0, 1)), (w[:, :, :1, :1], 1, 0)):
        y, vjp = ops.conv2d.cpu(x, kernel, ones, stride=stride, padding=padding)
        chain = [y, ops.group_norm_silu.cpu(y, ones, ones, groups=2)[0], ops.upsample_nearest.cpu(y)[0], settled(vjp(y))[0]]
        chain.append(ops.concat.cpu(y, y, axis=1)[0])
        for a in chain:
            assert cpu_conv.pixels_first(a).base is not None and np.shares_memory(cpu_conv.pixels_first(a), a)
