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
from minidit.kernels import cuda_attention

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


@pytest.mark.skipif(REAL, reason="the order of threads is not ours to choose")
@pytest.mark.parametrize(("N", "K"), [(250, 72), (300, 64), (250, 128)])
def test_no_bit_depends_on_the_order_of_threads_blocks_and_copies(N, K):
    runs = []
    for order in range(4):  # of both kinds of copies, and of warps that run far ahead
        with standin.kernels(order):
            runs.append(twin(*case(1, N, 2, K, biased=True)))
    assert all(np.array_equal(a, b) for run in runs[1:] for a, b in zip(run, runs[0], strict=True))


@pytest.mark.skipif(REAL, reason="shared memory of other devices")
@pytest.mark.parametrize("kilobytes", [99, 163])
def test_a_block_of_a_smaller_device_owns_fewer_keys_and_the_parts_are_summed(kilobytes, monkeypatch):
    monkeypatch.setattr(Device, "most_shared", kilobytes << 10)
    monkeypatch.setattr(cuda_attention, "_shared", {})
    with standin.kernels(1) as state:
        state.launched.clear()
        c = case(1, 256, 1, 64, True)
        same(twin(*c), plain(*c))
        assert "attention_bf16_parts" in state.launched


@pytest.mark.skipif(REAL, reason="shared memory of other devices")
def test_without_enough_shared_memory_there_is_no_twin(monkeypatch):
    monkeypatch.setattr(Device, "most_shared", 64 << 10)
    monkeypatch.setattr(cuda_attention, "_shared", {})
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
