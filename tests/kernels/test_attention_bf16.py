"""Attention in bfloat16 on tensor cores: the very source, run on the CPU, against the plain text in float64."""

import numpy as np
import pytest
import standin
from hypothesis import given, settings
from hypothesis import strategies as st
from standin.device import Device
from support import agree, host, spec

from minidit import ops
from minidit.autograd import NoTwin
from minidit.kernels import cuda_attention, cuda_attention_bf16

CUPY = standin.install()
REAL = not getattr(CUPY, "__standin__", False)
pytestmark = pytest.mark.skipif(not REAL and standin.raw.compiler() is None, reason="no g++ to run kernels on the CPU")
ml_dtypes = pytest.importorskip("ml_dtypes")

B16 = 2.0**-8  # the rounding unit of bfloat16


def case(B, N, heads, K, biased=False, std=1.0):
    """(qkv and ȳ in bfloat16, the bias of qkv or None, heads)"""
    r = np.random.default_rng((B, N, heads, K))
    qkv, bar = (r.standard_normal((B, N, n * heads * K)).astype(np.float32) for n in (3, 1))
    bias = r.standard_normal(3 * heads * K).astype(np.float32) if biased else None
    return (qkv * std).astype(ml_dtypes.bfloat16), bar.astype(ml_dtypes.bfloat16), bias, heads


def twin(qkv, bar, bias, heads):
    """(y, the bar of qkv) of the kernels, in float64"""
    y, vjp = cuda_attention.fused_attention(CUPY.asarray(qkv), None if bias is None else CUPY.asarray(bias), heads)
    return [host(a).astype(np.float64) for a in (y, vjp(CUPY.asarray(bar))[0])]


def plain(qkv, bar, bias, heads):
    """The same by the plain text; and how large the bar usually is."""
    x = qkv.astype(np.float64) + (0 if bias is None else bias)
    y, vjp = ops.self_attention.plain(x, heads=heads)
    flips = [bar.astype(np.float64) * np.random.default_rng(i).choice([-1.0, 1.0], bar.shape) for i in range(4)]
    return y, vjp(bar.astype(np.float64))[0], max(np.abs(vjp(f)[0]).max() for f in flips)


def same(answers, expected, units=3):
    (y, bar), (e, e_bar, usual) = answers, expected
    agree(y, e, bound=units * B16 * max(1, np.abs(e).max()))
    agree(bar, e_bar, bound=units * B16 * max(1e-2, np.abs(e_bar).max(), usual))


@spec("A.18", "A.19", "A.20")
@settings(max_examples=25)
@given(
    st.tuples(st.integers(1, 2), st.sampled_from([1, 5, 63, 64, 65, 130, 256, 300]), st.integers(1, 2)),
    st.sampled_from([8, 24, 40, 64, 72, 96, 128]), st.booleans(), st.sampled_from([0, 1, 5]),
)  # fmt: skip
def test_it_says_what_the_plain_text_says(shape, K, biased, order):
    """Heads that end inside a slice of 16, rows that end inside a tile, one and several blocks of keys."""
    with standin.kernels(order) as state:
        state.launched.clear()
        c = case(*shape, K, biased)
        same(twin(*c), plain(*c))
        assert REAL or state.launched[0] == "attention_bf16"


@spec("A.12", "A.19")
@pytest.mark.parametrize(("N", "heads", "K"), [(5, 1, 8), (64, 2, 24), (130, 2, 72), (256, 1, 64), (300, 1, 64)])
def test_the_bar_of_the_bias_is_summed_by_the_kernel_of_the_adjoint(N, heads, K):
    """Over the rows of a sample where one block owns all keys; what is left is a sum over the samples."""
    qkv, bar, bias, heads = case(3, N, heads, K, biased=True)
    with standin.kernels(3) as state:
        _, vjp = cuda_attention.fused_attention(CUPY.asarray(qkv), CUPY.asarray(bias), heads)
        state.launched.clear()
        out, bias_bar = vjp(CUPY.asarray(bar))
        one = N <= 256
        assert REAL or state.launched == ["attention_bf16_backward", *([] if one else ["attention_bf16_parts"]), "column_sum"]
    out = host(out).astype(np.float64)
    expected = out.sum(axis=(0, 1))
    expected[heads * K : 2 * heads * K] = 0
    assert np.allclose(host(bias_bar), expected, rtol=0, atol=2.0**-18 * np.abs(out).sum(axis=(0, 1)).max())


@pytest.mark.skipif(REAL, reason="the order of threads is not ours to choose")
@pytest.mark.parametrize(("N", "K"), [(250, 72), (300, 64), (250, 128)])
def test_no_bit_depends_on_the_order_of_threads_blocks_and_copies(N, K):
    runs = []
    for order in range(4):  # of both kinds of copies, and of warps that run far ahead
        with standin.kernels(order):
            runs.append(twin(*case(1, N, 2, K, biased=True)))
    assert all(np.array_equal(a, b) for run in runs[1:] for a, b in zip(run, runs[0], strict=True))


@pytest.mark.skipif(REAL, reason="shared memory of other devices")
@pytest.mark.parametrize(("kilobytes", "N"), [(64, 256), (99, 256), (163, 300)])
def test_a_block_of_a_smaller_device_owns_fewer_keys_and_the_parts_are_summed(kilobytes, N, monkeypatch):
    monkeypatch.setattr(Device, "most_shared", kilobytes << 10)
    monkeypatch.setattr(cuda_attention_bf16, "_shared", {})
    with standin.kernels(1) as state:
        state.launched.clear()
        c = case(1, N, 1, 64, True)
        same(twin(*c), plain(*c))
        assert "attention_bf16_parts" in state.launched


@pytest.mark.skipif(REAL, reason="shared memory of other devices")
def test_without_enough_shared_memory_there_is_no_twin(monkeypatch):
    monkeypatch.setattr(Device, "most_shared", 64 << 10)
    monkeypatch.setattr(cuda_attention_bf16, "_shared", {})
    qkv, _, _, heads = case(1, 5, 1, 128)
    with standin.kernels():
        for x in (qkv, qkv.astype(np.float32)):
            with pytest.raises(NoTwin, match="shared memory"):
                cuda_attention.fused_attention(CUPY.asarray(x), None, heads)
            assert ops.self_attention(CUPY.asarray(x.astype(np.float32)), heads=heads).shape == (1, 5, 128)


def test_without_a_bias_the_rows_are_left_as_they_are():
    c = case(1, 70, 2, 24)
    with standin.kernels():
        there = CUPY.asarray(c[0])
        cuda_attention.fused_attention(there, None, c[3])
        assert np.array_equal(host(there).view(np.uint16), c[0].view(np.uint16))


@spec("A.18", "A.19")
@pytest.mark.parametrize("growth", [0.2, 4.0])
def test_logits_that_grow_from_tile_to_tile_shift_the_softmax_again(growth):
    """Key m is m · growth long: the largest logit is always in the last tile, a little or a thousand powers of two above."""
    qkv, bar, _, heads = case(1, 200, 1, 16)
    x = qkv.astype(np.float32).reshape(200, 3, 16)
    x[:, 0], x[:, 1] = np.abs(x[:, 0]), np.abs(x[:, 1]) * np.arange(200)[:, None] * growth / 16
    c = x.reshape(1, 200, 48).astype(ml_dtypes.bfloat16), bar, None, heads
    with standin.kernels(1):
        same(twin(*c), plain(*c), units=6)


@spec("A.18", "A.19")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("N", [77, 200])
def test_beyond_the_end_nothing_overflows_where_all_logits_are_far_below_zero(N, dtype):
    """All are about -128, where a key or query of zeros beyond the end would weigh e^128: ∞ in float32, and ∞ · 0 is NaN."""
    qkv, bar, _, heads = case(1, N, 1, 64)
    x = qkv.astype(np.float32).reshape(1, N, 3, 64)
    x[:, :, 0], x[:, :, 1] = 4 + x[:, :, 0] / 16, x[:, :, 1] / 16 - 4
    c = x.reshape(1, N, 192).astype(dtype), bar.astype(dtype), None, heads
    with standin.kernels(1) as state:
        state.launched.clear()
        same(twin(*c), plain(*c))
        assert REAL or state.launched[0] == ("attention_bf16" if dtype == "bfloat16" else "attention")


def test_a_bias_far_larger_than_the_rows_costs_no_precision_of_keys():
    """A bias of keys changes no weight: with 64 in every key the answer is that without, to the last bit."""
    qkv, bar, _, heads = case(1, 70, 1, 32)
    bias = np.zeros(96, np.float32)
    with standin.kernels():
        without = twin(qkv, bar, bias, heads)
        bias[32:64] = 64
        assert all(np.array_equal(a, b) for a, b in zip(twin(qkv, bar, bias, heads), without, strict=True))


def test_a_bar_that_starts_between_two_pieces_of_memory_is_copied():
    qkv, bar, _, heads = case(2, 9, 1, 16)
    with standin.kernels():
        whole = CUPY.asarray(np.concatenate([bar[:1, :1, :1].reshape(-1), bar.reshape(-1)]))
        odd = whole[1:].reshape(bar.shape)
        assert odd.data.ptr % 16
        _, vjp = cuda_attention.fused_attention(CUPY.asarray(qkv), None, heads)
        assert np.array_equal(*(host(vjp(b)[0]).view(np.uint16) for b in (odd, CUPY.asarray(bar))))


def test_a_bias_that_no_pair_can_be_loaded_from_is_added_by_the_other_kernel():
    c = case(1, 9, 1, 16, True)
    with standin.kernels() as state:
        state.launched.clear()
        odd = CUPY.asarray(np.concatenate([c[2][:1], c[2]]))[1:]
        assert odd.data.ptr % 8
        y, vjp = cuda_attention.fused_attention(CUPY.asarray(c[0]), odd, 1)
        same([host(a).astype(np.float64) for a in (y, vjp(CUPY.asarray(c[1]))[0])], plain(*c))
        assert "attention_bf16" not in state.launched


def test_nan_is_not_lost():
    qkv, bar, _, heads = case(1, 70, 1, 16)
    qkv[0, 3, 16] = np.nan  # a key
    with standin.kernels():
        y, _ = twin(qkv, bar, None, heads)
    assert np.isnan(y).all()


# ------------------------------------------------------------------------------- q, k and v of their own, and masks


def rows(*shape, seed=0):
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(ml_dtypes.bfloat16)


def attended(op, arrays, mask, bar):
    """[y, the bars of q, k, v and of the mask] in float64"""
    y, vjp = op(*arrays, *([] if mask is None else [mask]))
    *bars, last = vjp(bar)
    bars += [] if mask is None else [last()]
    return [(a if isinstance(a, np.ndarray) else host(a)).astype(np.float64) for a in (y, *bars)]


@spec("A.18", "A.19")
@settings(max_examples=15)
@given(
    st.tuples(st.integers(1, 2), st.integers(1, 2)), st.sampled_from([1, 33, 100]), st.sampled_from([1, 30, 77, 280]),
    st.sampled_from([8, 64, 72]), st.sampled_from([None, "NM", "1M", "M", "N1", "BhNM"]), st.booleans(), st.sampled_from([0, 1]),
)  # fmt: skip
def test_queries_look_at_other_keys_through_a_mask(Bh, N, M, K, mask, packed, order):
    """Views of rows whose heads lie side by side are read where they are; others are copied."""
    sizes = {"N": (N, M), "1": (1, M), "M": (M,), "B": (*Bh, N, M)}
    shape = None if mask is None else (N, 1) if mask == "N1" else sizes[mask[0]]
    arrays = [rows(Bh[0], n, Bh[1], K, seed=i).transpose(0, 2, 1, 3) for i, n in enumerate((N, M, M))]
    there = [CUPY.asarray(a.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3) if packed else CUPY.asarray(a) for a in arrays]
    add = None if shape is None else np.random.default_rng(1).standard_normal(shape).astype(np.float32) * 2
    bar = rows(*Bh, N, K, seed=9)
    with standin.kernels(order) as state:
        state.launched.clear()
        answers = attended(ops.attention.cuda, there, None if add is None else CUPY.asarray(add), CUPY.asarray(bar))
        assert REAL or "attention_bf16" in state.launched
    wide = [a.astype(np.float64) for a in arrays]
    expected = attended(ops.attention.plain, wide, None if add is None else add.astype(np.float64), bar.astype(np.float64))
    for a, e, units in zip(answers, expected, (3, 3, 3, 3, 8), strict=False):  # y is rounded before it meets ȳ: a number per row
        agree(a, e, bound=units * B16 * max(1, np.abs(e).max()))


@spec("A.18")
def test_what_the_mask_forbids_is_not_looked_at():
    """Causal, over two tiles of keys: a query sees itself and what was before, whatever lies behind."""
    q, k, v = (rows(1, 150, 1, 64, seed=i).transpose(0, 2, 1, 3) for i in range(3))
    causal = CUPY.asarray(np.where(np.tri(150), 0, -np.inf).astype(np.float32))
    changed = [a.copy() for a in (k, v)]
    for a in changed:
        a[:, :, 100:] = 7
    with standin.kernels(1):
        both = [attended(ops.attention.cuda, map(CUPY.asarray, (q, *kv)), causal, CUPY.asarray(q))[0] for kv in ((k, v), changed)]
    assert np.array_equal(both[0][:, :, :100], both[1][:, :, :100]) and np.isfinite(both[0]).all()


MASKS = {  # of queries and keys, places and levels in order: a query looks where this is true
    "causal": lambda n, m, N, M: m <= n + max(0, M - N),
    "by level": lambda n, m, N, M: m // 96 <= n // 96,
    "a window": lambda n, m, N, M: abs(n - m) < 40,
    "one tile": lambda n, m, N, M: (m >= 64) & (m < 96),
}


@spec("A.18", "A.19")
@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize(("N", "M", "K"), [(200, 200, 64), (150, 300, 64), (130, 290, 24), (300, 300, 72)])
def test_tiles_that_a_mask_forbids_are_not_computed_and_change_nothing(name, N, M, K):
    """The answers are those of the plain text, and the flags those of the tiles."""
    n, m = np.arange(N)[:, None], np.arange(M)
    seen = np.broadcast_to(MASKS[name](n, m, N, M), (N, M))
    mask = np.where(seen, np.random.default_rng(2).standard_normal((N, M)), -np.inf).astype(np.float32)
    q, k, v, bar = (rows(1, 1, length, K, seed=i) for i, length in enumerate((N, M, M, N)))
    with standin.kernels(1):
        q_there, bar_there = CUPY.asarray(q), CUPY.asarray(bar)
        answers = attended(ops.attention.cuda, (q_there, CUPY.asarray(k), CUPY.asarray(v)), CUPY.asarray(mask), bar_there)[:4]
        dead = cuda_attention_bf16.Mask(cuda_attention_bf16.broadcast(CUPY.asarray(mask), (1, 1, N, M)), K).dead
    wide = [a.astype(np.float64) for a in (q, k, v)]
    expected = attended(ops.attention.plain, wide, mask.astype(np.float64), bar.astype(np.float64))[:4]
    for a, e in zip(answers, expected, strict=True):
        agree(a, e, bound=3 * B16 * max(1, np.abs(e).max()))
    tiles = host(dead)[0, 0]
    for i, j in np.ndindex(tiles.shape):
        assert tiles[i, j] == (not seen[64 * i : 64 * i + 64, 32 * j : 32 * j + 32].any())
    assert tiles.any()


def test_a_key_that_nobody_may_look_at_is_not_looked_at_even_if_it_is_nan():
    """A whole tile of keys: forward, and for the bars of the queries."""
    q, k, v = (rows(1, 1, 200, 64, seed=i) for i in range(3))
    mask = np.where(np.arange(200) < 128, 0, -np.inf).astype(np.float32)[None].repeat(200, axis=0)
    k[:, :, 128:], v[:, :, 128:] = np.nan, np.nan
    with standin.kernels():
        y, q_bar, *_ = attended(ops.attention.cuda, map(CUPY.asarray, (q, k, v)), CUPY.asarray(mask), CUPY.asarray(q))
    assert np.isfinite(y).all() and np.isfinite(q_bar).all()


def test_other_types_and_other_heads_are_left_to_the_plain_text():
    q = rows(1, 2, 9, 16)
    for arrays in ([q.astype(np.float64)] * 3, [q[..., :12]] * 3, [q, q[:, :1], q[:, :1]], [rows(1, 1, 9, 136)] * 3):
        with standin.kernels(), pytest.raises(NoTwin):
            ops.attention.cuda(*map(CUPY.asarray, arrays))
