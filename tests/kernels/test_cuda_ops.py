"""CUDA twins of the primitives, run on the CPU by the stand-in, against the plain text in float64."""

import numpy as np
import pytest
import standin
from hypothesis import given, settings
from hypothesis import strategies as st
from support import agree, host, spec

from minidit import ops
from minidit.autograd import PRIMITIVES, Gradients, NoTwin, Tensor, plain_text
from minidit.backend import xp_of
from minidit.kernels import cuda_blas, cuda_launch, cuda_normalise

CUPY = standin.install()
REAL = not getattr(CUPY, "__standin__", False)
pytestmark = pytest.mark.skipif(not REAL and standin.raw.compiler() is None, reason="no g++ to run kernels on the CPU")

U = 2.0**-24  # the rounding unit of float32
B16 = 2.0**-8  # of bfloat16
SEEDS = st.integers(0, 2**32 - 1)
FEW = st.integers(1, 3)


@st.composite
def normal(draw, shape, std=1.0):
    return (np.random.default_rng(draw(SEEDS)).standard_normal(shape) * std).astype(np.float32)


WIDTHS = st.sampled_from([1, 3, 4, 20, 33, 36, 128, 132])  # with and without four neighbours, less and more than a warp has lanes
ROWS = st.sampled_from([1, 2, 7, 33, 70])


@st.composite
def softmaxes(draw):
    return (draw(normal((draw(FEW), draw(ROWS), draw(WIDTHS)), 3.0)),), {}


@st.composite
def norms(draw):
    D = draw(WIDTHS)
    return (draw(normal((draw(FEW), draw(ROWS), D))), draw(normal((D,))), draw(normal((D,)))), {"eps": 1e-2 if D < 4 else 1e-6}


@st.composite
def modulations(draw):
    B, D = draw(FEW), draw(WIDTHS)
    both = draw(normal((B, 3 * D)))  # slices of one product, as a block makes them
    return (draw(normal((B, draw(ROWS), D))), both[:, :D], both[:, D : 2 * D]), {"eps": 1e-2 if D < 4 else 1e-6}


@st.composite
def residuals(draw):
    B, N, D = draw(FEW), draw(ROWS), draw(WIDTHS)
    return (draw(normal((B, N, D))), draw(normal((B, 2 * D)))[:, D:], draw(normal((B, N, D)))), {}


@st.composite
def silus(draw):
    return (draw(normal((draw(FEW), draw(WIDTHS)), 4.0)),), {}


@st.composite
def linears(draw, bias=True):
    shape = draw(st.sampled_from([(7,), (2, 35), (1,), (3, 1, 9)]))
    n, m = draw(st.integers(1, 40)), draw(WIDTHS)
    args = draw(normal((*shape, n))), draw(normal((m, n), n**-0.5))
    return ((*args, draw(normal((m,)))) if bias or draw(st.booleans()) else args), {}


@st.composite
def convolutions(draw):
    """Pictures that lie channels first or last, with and without four neighbouring channels."""
    B, O, kh, kw, stride = (draw(FEW) for _ in range(5))
    C = draw(st.sampled_from([1, 3, 4, 8]))
    padding = draw(st.integers(0, 2) | st.tuples(st.integers(0, 2), st.integers(0, 2)))
    around = 2 * padding if isinstance(padding, int) else sum(padding)
    H, W = (max(1, k - around) + draw(st.integers(0, 6)) for k in (kh, kw))
    x = draw(normal((B, H, W, C))).transpose(0, 3, 1, 2) if draw(st.booleans()) else draw(normal((B, C, H, W)))
    args = x, draw(normal((O, C, kh, kw)))
    return ((*args, draw(normal((O,)) | normal((B, O)))) if draw(st.booleans()) else args), {"stride": stride, "padding": padding}


@st.composite
def tables(draw):
    K, shape = draw(st.integers(1, 9)), draw(st.sampled_from([(1,), (5,), (3, 4)]))
    index = np.random.default_rng(draw(SEEDS)).integers(0, K, shape)
    return (draw(normal((K, draw(WIDTHS)))),), {"index": index}


@st.composite
def attentions(draw):
    B, N, h = draw(st.integers(1, 2)), draw(st.sampled_from([1, 5, 31, 33, 64, 70])), draw(st.integers(1, 2))
    K = draw(st.sampled_from([7, 32, 64, 72]))
    return (draw(normal((B, N, 3 * h * K))),), {"heads": h}


@st.composite
def projections(draw):
    x, (K, h) = (draw(st.integers(1, 2)), draw(st.sampled_from([1, 5, 33, 70])), draw(st.integers(1, 20))), (
        draw(st.sampled_from([7, 32, 64])), draw(st.integers(1, 2)))  # fmt: skip
    weight = draw(normal((3 * h * K, x[-1]), x[-1] ** -0.5))
    return (draw(normal(x)), weight, draw(normal((3 * h * K,)))), {"heads": h}


@st.composite
def linear_residuals(draw, then=0):
    B, N, n, D = draw(FEW), draw(ROWS), draw(st.integers(1, 40)), draw(WIDTHS)
    both = draw(normal((B, 4 * D)))
    args = draw(normal((B, N, D))), both[:, D : 2 * D], draw(normal((B, N, n))), draw(normal((D, n), n**-0.5)), draw(normal((D,)))
    modulation = (both[:, :D], both[:, 3 * D :])[:then]
    return (*args, *modulation), {"eps": 1e-2 if D < 4 else 1e-6} if then else {}


@st.composite
def mlp_residuals(draw, then=0):
    B, N, D = draw(FEW), draw(ROWS), draw(WIDTHS)
    both = draw(normal((B, 4 * D)))
    tokens = draw(normal((B, N, D))), both[:, D : 2 * D], draw(normal((B, N, D)))
    n = draw(WIDTHS)
    first = draw(normal((n, D), D**-0.5)), draw(normal((n,)))
    args = *tokens, *first, draw(normal((D, n), n**-0.5)), draw(normal((D,)))
    return (*args, *(both[:, :D], both[:, 3 * D :])[:then]), {"eps": 1e-2 if D < 4 else 1e-6} if then else {}


TWINS = {  # the draw; the bound in rounding units, relative to the largest number of the array compared; its equation
    "softmax": (softmaxes(), 16, "A.13"),  # the exponential carries the rounding of x - max, up to 12
    "layer_norm": (norms(), 64, "A.14"),  # sums over up to 210 rows
    "layer_norm_modulate": (modulations(), 64, "A.15"),
    "gated_residual": (residuals(), 16, "A.21"),  # one product, one sum, and a sum over 70 rows
    "silu": (silus(), 8, "A.4"),
    "linear": (linears(bias=False), 32, "A.12"),
    "linear_gelu": (linears(), 32, "A.12"),
    "embedding": (tables(), 8, "A.24"),
    "conv2d": (convolutions(), 32, "A.23"),  # sums of at most 72 products; for the weights, of 3 · 81
    "self_attention": (attentions(), 64, "A.19"),  # |logits| of up to 5, products from three of tf32
    "projected_attention": (projections(), 128, "A.19"),
    "linear_residual": (linear_residuals(), 64, "A.21"),  # sums over 210 rows
    "mlp_residual": (mlp_residuals(), 128, ("A.5", "A.21")),
    "linear_residual_modulate": (linear_residuals(then=2), 128, ("A.15", "A.21")),
    "mlp_residual_modulate": (mlp_residuals(then=2), 128, ("A.5", "A.15", "A.21")),
}
EXAMPLES = {"self_attention": 8}


def wide(x):
    return x.astype(np.float64) if x.dtype.kind == "f" else x


def moved(x):
    return CUPY.asarray(x)


def settled(bars):
    return [b() if callable(b) else b for b in bars]


def close(actual, expected, units, of=(), scale=0.0):
    s = max(float(np.abs(expected).max()), scale, 1e-30)
    agree(host(actual).astype(np.float64) / s, expected / s, bound=units, of=of)


def both(name, args, static, device=moved):
    """((y, bars) of the twin, the same of the plain text in float64, how large each bar usually is)."""
    p = PRIMITIVES[name]
    y, vjp = p.cuda(*map(device, args), **{k: moved(v) if isinstance(v, np.ndarray) else v for k, v in static.items()})
    e, plain_vjp = p.plain(*map(wide, args), **static)
    ys, es = (y, e) if isinstance(e, tuple) else ((y,), (e,))
    r = np.random.default_rng(es[0].size)
    bars = [r.standard_normal(a.shape).astype(np.float32) for a in es]
    flips = [[wide(bar) * r.choice([-1.0, 1.0], bar.shape) for bar in bars] for _ in range(4)]
    usual = [max(np.abs(b).max() for b in bs) if bs[0] is not None else 0.0
             for bs in zip(*(settled(plain_vjp(*flipped)) for flipped in flips), strict=True)]  # fmt: skip
    if name == "softmax":  # x̄ = y (ȳ - Σ ȳ y): where y is nearly 1 the two cancel, whatever the signs
        usual = [max(usual[0], float(np.abs(wide(bars[0]) * es[0]).max()))]
    return (ys, settled(vjp(*map(device, bars)))), (es, settled(plain_vjp(*map(wide, bars)))), usual


MOVED = {"concat", "split", "cast"}  # that compute nothing: tests/kernels/test_pieces.py, or round: test_cuda_elementwise.py
ELSEWHERE = {"attention"}  # in bfloat16: test_attention_bf16.py; in float32: tests/processes/test_tokens_on_a_device.py


def test_every_twin_is_in_the_table():
    assert {n for n, p in PRIMITIVES.items() if p.cuda} == set(TWINS) | MOVED | ELSEWHERE


@spec("A.4", "A.12", "A.13", "A.14", "A.15", "A.18", "A.19", "A.20", "A.21", "A.23", "A.24")
@pytest.mark.parametrize("name", sorted(TWINS))
def test_a_twin_says_what_the_plain_text_says(name):
    draws, units, equation = TWINS[name]

    @settings(max_examples=EXAMPLES.get(name, 15))
    @given(draws, st.sampled_from([0, 1, 5]))
    def check(case, order):
        with standin.kernels(order):
            (ys, bars), (es, expected), usual = both(name, *case)
        for y, e in zip(ys, es, strict=True):
            close(y, e, units * U, equation, scale=1.0)
        for a, b, x, size in zip(case[0], bars, expected, usual, strict=False):
            assert xp_of(b) is CUPY and (b.shape, b.dtype) == (a.shape, np.float32)
            close(b, x, units * U, equation, size)

    check()


@pytest.mark.skipif(REAL, reason="the order of threads is not ours to choose")
@pytest.mark.parametrize("name", sorted(TWINS))
def test_no_bit_depends_on_the_order_of_threads_and_blocks(name):
    """A barrier that is missing would show: what one thread reads would be written before or after, as the order says."""
    r = np.random.default_rng(3)
    f = lambda *shape: r.standard_normal(shape).astype(np.float32)
    cases = {
        "softmax": ((f(9, 36),), {}), "layer_norm": ((f(1, 70, 36), f(36), f(36)), {}),
        "layer_norm_modulate": ((f(2, 70, 36), f(2, 36), f(2, 36)), {}), "silu": ((f(5, 36),), {}),
        "gated_residual": ((f(2, 70, 36), f(2, 36), f(2, 70, 36)), {}), "linear": ((f(70, 12), f(36, 12), f(36)), {}),
        "linear_gelu": ((f(70, 12), f(36, 12), f(36)), {}), "embedding": ((f(4, 36),), {"index": np.array([1, 1, 3])}),
        "conv2d": ((f(2, 4, 9, 8), f(5, 4, 3, 3), f(5)), {"stride": 2, "padding": (0, 1)}),
        "self_attention": ((f(1, 70, 3 * 32),), {"heads": 1}),
        "projected_attention": ((f(1, 70, 6), f(96, 6), f(96)), {"heads": 1}),
        "linear_residual": ((f(3, 300, 36), f(3, 36), f(3, 300, 5), f(36, 5), f(36)), {}),
        "mlp_residual": ((f(2, 70, 36), f(2, 36), f(2, 70, 36), f(40, 36), f(40), f(36, 40), f(36)), {}),
        "linear_residual_modulate": ((f(2, 70, 36), f(2, 36), f(2, 70, 5), f(36, 5), f(36), f(2, 36), f(2, 36)), {}),
        "mlp_residual_modulate": (
            (f(2, 70, 36), f(2, 36), f(2, 70, 36), f(40, 36), f(40), f(36, 40), f(36), f(2, 36), f(2, 36)), {}),
    }  # fmt: skip
    runs = []
    for order in (0, 1, 2, 3):
        with standin.kernels(order):
            (ys, bars), _, _ = both(name, *cases[name])
        runs.append([host(a) for a in (*ys, *bars) if a is not None])
    assert all(np.array_equal(a, b) for run in runs[1:] for a, b in zip(run, runs[0], strict=True))


@pytest.mark.parametrize("name", sorted(n for n in TWINS if not n.startswith(("linear", "mlp", "projected", "conv2d"))))
def test_activations_may_be_stored_in_bfloat16(name):
    """Storage rounds to 2⁻⁸, sums stay in float32: each array is within a few roundings of the plain text."""
    ml_dtypes = pytest.importorskip("ml_dtypes")

    @settings(max_examples=4)
    @given(TWINS[name][0])
    def check(case):
        args = tuple(a.astype(ml_dtypes.bfloat16).astype(np.float32) for a in case[0])
        with standin.kernels():
            ((y,), bars), ((e,), expected), usual = both(name, args, case[1], lambda a: moved(a.astype(ml_dtypes.bfloat16)))
        close(y, e, 8 * B16, scale=1.0)
        for b, x, size in zip(bars, expected, usual, strict=False):
            assert b.dtype == ml_dtypes.bfloat16
            close(b, x, 8 * B16, scale=size)

    check()


def test_bfloat16_is_rounded_to_the_nearest_and_ties_to_even():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    r = np.random.default_rng(0)
    x, h = (r.standard_normal((1, 4, 64)).astype(ml_dtypes.bfloat16) for _ in range(2))
    h[0, 0] = x[0, 0] * 2.0**-8  # half a unit of the last place: the ties
    h[0, 1] = np.nan
    with standin.kernels():
        y, _ = ops.gated_residual.cuda(moved(x), moved(np.ones((1, 64), ml_dtypes.bfloat16)), moved(h))
    expected = (x.astype(np.float32) + h.astype(np.float32)).astype(ml_dtypes.bfloat16)
    assert np.array_equal(host(y)[0, [0, 2, 3]].view(np.uint16), expected[0, [0, 2, 3]].view(np.uint16))
    assert np.isnan(host(y)[0, 1].astype(np.float32)).all()


@spec("A.18", "A.19")
@pytest.mark.parametrize(("precision", "units"), [("float32", 64 * U), ("tf32", 2.0**-8), ("bf16", 2.0**-5)])
def test_the_factors_of_attention_are_as_precise_as_asked(precision, units):
    r = np.random.default_rng(1)
    x = r.standard_normal((1, 70, 3 * 2 * 16)).astype(np.float32)
    with standin.kernels(), cuda_blas.using_precision(precision):
        ((y,), bars), ((e,), expected), _ = both("self_attention", (x,), {"heads": 2})
    close(y, e, units)
    close(bars[0], expected[0], units)
    if precision != "float32":
        assert np.abs(host(y) - e).max() > 100 * U  # the precision was indeed lowered


@spec("A.18", "A.19")
@pytest.mark.parametrize("size", [30, 300, 3000])
def test_attention_survives_large_logits(size):
    """Rounding a logit moves its exponential by |logit| units: that is the conditioning, and the bound."""
    r = np.random.default_rng(size)
    x = r.standard_normal((1, 40, 3, 1, 8)).astype(np.float32)
    logits = np.einsum("bnhk,bmhk->bhnm", x[:, :, 0], x[:, :, 1]) * 8**-0.5
    x[:, :, :2] *= np.sqrt(size / np.abs(logits).max())
    with standin.kernels():
        ((y,), bars), ((e,), expected), _ = both("self_attention", (x.reshape(1, 40, 24),), {"heads": 1})
    close(y, e, 16 * size * U)
    close(bars[0], expected[0], 16 * size * U)


def test_heads_wider_than_the_kernel_go_through_batched_products():
    r = np.random.default_rng(0)
    x = r.standard_normal((2, 9, 3 * 2 * 130)).astype(np.float32)
    with standin.kernels() as state:
        state.launched.clear()
        ((y,), bars), ((e,), expected), _ = both("self_attention", (x,), {"heads": 2})
        assert "attention" not in state.launched
    close(y, e, 64 * U)
    close(bars[0], expected[0], 64 * U)


def test_bars_that_are_no_block_of_memory_are_taken_as_they_are():
    r = np.random.default_rng(0)
    f = lambda *shape: r.standard_normal(shape).astype(np.float32)
    with standin.kernels():
        for name, args, static in (
            ("layer_norm_modulate", (f(2, 5, 8), f(2, 8), f(2, 8)), {}),
            ("silu", (f(2, 8),), {}),
            ("gated_residual", (f(2, 5, 8), f(2, 8), f(2, 5, 8)), {}),
            ("linear_gelu", (f(2, 8), f(8, 8), f(8)), {}),
            ("self_attention", (f(1, 5, 24),), {"heads": 1}),
        ):
            y, vjp = PRIMITIVES[name].cuda(*map(moved, args), **static)
            bar = f(*y.shape)
            turned = moved(np.ascontiguousarray(bar.swapaxes(0, -1))).swapaxes(0, -1)
            for a, b in zip(settled(vjp(moved(bar))), settled(vjp(turned)), strict=True):
                agree(a, host(b), bound=16 * U)  # another width of loads may order the sums otherwise


# ------------------------------------------------------------------------------------------------ the choice


def test_float64_and_the_switch_choose_the_plain_text():
    x = CUPY.asarray(np.ones((1, 2, 6), np.float32))
    with standin.kernels() as state:
        state.launched.clear()
        ops.self_attention(x.astype(np.float64), heads=1)
        with plain_text():
            ops.self_attention(x, heads=1)
            assert not cuda_launch.available("attention")
        assert state.launched == []
        ops.self_attention(x, heads=1)
        assert (REAL or state.launched == ["attention"]) and cuda_launch.available("attention")
        with pytest.raises(NoTwin):
            cuda_normalise.softmax(x, axis=0)
    if not REAL:
        assert not cuda_launch.available("attention")  # no RawModule: nothing is compiled, the plain text runs
        assert ops.self_attention(x, heads=1).shape == (1, 2, 2)


@spec("A.2")
def test_a_bar_that_meets_another_is_added_by_its_own_kernel():
    """x goes into a layer norm and around it: the tape hands the norm's adjoint what came around."""
    r = np.random.default_rng(0)
    f = lambda *shape: r.standard_normal(shape).astype(np.float32)
    x, b, s, g = f(2, 7, 8), f(2, 8), f(2, 8), f(2, 8)

    def gradients(array):
        leaves = [Tensor(array(a)) for a in (x, b, s, g)]
        h = leaves[0] * 2.0  # so that x̄ meets at a node, not at a leaf
        y = ops.gated_residual(h, leaves[3], ops.layer_norm_modulate(h, leaves[1], leaves[2]))
        with standin.counting() as n:
            y.backward(array(np.ones(y.shape, np.float32)))
        return [host(t.grad) for t in leaves], n.launches

    with standin.kernels():
        bars, launches = gradients(moved)
    expected, _ = gradients(lambda a: a.astype(np.float64))
    for a, e in zip(bars, expected, strict=True):
        close(a, e, 32 * U)
    assert REAL or launches == 3 + 4  # the residual, the norm and its sum, and 2 h̄; then each leaf copies its gradient


@spec("A.12", "A.24")
def test_weight_gradients_are_written_into_the_flat_buffer():
    r = np.random.default_rng(0)
    f = lambda *shape: moved(r.standard_normal(shape).astype(np.float32))
    table, weight, bias = f(5, 8), f(8, 8), f(8)
    flat = CUPY.zeros(40 + 64 + 8, np.float32)
    views = [flat[:40].reshape(5, 8), flat[40:104].reshape(8, 8), flat[104:]]
    with standin.kernels():
        leaves = [Tensor(a) for a in (table, weight, bias)]
        y = ops.linear_gelu(ops.embedding(leaves[0], index=moved(np.array([0, 3, 3]))), *leaves[1:])
        with Gradients([table, weight, bias], views), standin.counting() as n:
            y.backward(CUPY.ones(y.shape, np.float32))
    assert REAL or n.launches == 1 + 4  # ȳ's ones; gelu, two products, the table: no copies
    assert all(t.grad is None for t in leaves) and np.abs(host(flat)).min(where=host(flat) != 0, initial=1) > 0
