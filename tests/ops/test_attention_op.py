"""Attention: what it must not notice, what it becomes in its limits, and in which order its numbers are packed."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from support import agree, spec

from minidit import ops

SEEDS = st.integers(0, 2**32 - 1)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


@spec("A.18")
def test_attention_by_hand(xp):
    """One query, two keys with logits 0 and ln 3 (K = 4, so q·k is divided by 2): y = ¼ v₁ + ¾ v₂."""
    q = xp.asarray([[2 * np.log(3.0), 0.0, 0.0, 0.0]])
    k = xp.asarray([[0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    agree(ops.attention(q, k, xp.asarray([[4.0], [8.0]])), [[7.0]], bound=1e-14, of="A.18")


@spec("A.18")
@given(SEEDS, st.permutations(range(5)))
def test_permuted_tokens_give_permuted_outputs(seed, order):
    x, order = normal(seed, 2, 5, 3 * 6), np.array(order)
    agree(ops.self_attention(x[:, order], heads=3), ops.self_attention(x, heads=3)[:, order], bound=1e-13, of="A.18")
    q, k, v = normal(seed, 4, 2), normal(seed + 1, 5, 2), normal(seed + 2, 5, 3)
    agree(ops.attention(q, k[order], v[order]), ops.attention(q, k, v), bound=1e-13, of="A.18")


@spec("A.18")
@given(SEEDS)
def test_a_query_of_zero_takes_the_mean_of_all_values(seed):
    k, v = normal(seed, 3, 5, 4), normal(seed + 1, 3, 5, 2)
    y = ops.attention(np.zeros((3, 2, 4)), k, v)
    agree(y, np.broadcast_to(v.mean(1, keepdims=True), y.shape), bound=1e-14, of="A.18")


@spec("A.18")
def test_large_logits_pick_one_value():
    e, v = np.eye(4), normal(0, 4, 3)
    agree(ops.attention(e * 1e4, e, v), v, bound=0, of="A.18")


@spec("A.18")
@given(SEEDS, st.integers(1, 4))
def test_minus_infinity_in_the_mask_leaves_a_key_out(seed, kept):
    q, k, v = normal(seed, 3, 2), normal(seed + 1, 5, 2), normal(seed + 2, 5, 3)
    mask = np.where(np.arange(5) < kept, 0.0, -np.inf)
    y, vjp = ops.attention.plain(q, k, v, mask)
    agree(y, ops.attention(q, k[:kept], v[:kept]), bound=1e-14, of="A.18")
    _, k_bar, v_bar, _ = vjp(np.ones_like(y))
    assert not k_bar[kept:].any() and not v_bar[kept:].any()


@spec("A.18")
@given(SEEDS)
def test_a_constant_in_the_mask_of_a_row_changes_nothing(seed):
    q, k, v = normal(seed, 3, 2), normal(seed + 1, 5, 2), normal(seed + 2, 5, 3)
    agree(ops.attention(q, k, v, normal(seed + 3, 3, 1)), ops.attention(q, k, v), bound=1e-13, of="A.18")


@spec("A.20")
@given(SEEDS, st.integers(1, 3), st.integers(1, 3))
def test_the_packing_is_all_queries_then_all_keys_then_all_values_head_by_head(seed, heads, K):
    """Also the scale: 1/√K by the width of a head, not of the model."""
    D = heads * K
    qkv = normal(seed, 2, 4, 3 * D)
    y = ops.self_attention(qkv, heads=heads)
    for h in range(heads):
        q, k, v = (qkv[..., i * D + h * K : i * D + (h + 1) * K] for i in range(3))
        logits = np.einsum("bnk,bmk->bnm", q, k) / np.sqrt(K)
        p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        agree(y[..., h * K : (h + 1) * K], np.einsum("bnm,bmk->bnk", p, v), bound=1e-13, of="A.20")


@spec("A.19")
@given(SEEDS)
def test_a_common_shift_of_the_keys_is_not_noticed_so_their_bars_sum_to_zero(seed):
    """A vector added to all keys moves each row of logits by a constant: Σ k̄ = 0. And Σ v̄ = Σ ȳ, for rows of P sum to 1."""
    q, k, v, y_bar = normal(seed, 3, 2), normal(seed + 1, 5, 2), normal(seed + 2, 5, 4), normal(seed + 3, 3, 4)
    _, k_bar, v_bar, _ = ops.attention.plain(q, k, v)[1](y_bar)
    agree(k_bar.sum(0), np.zeros(2), bound=1e-13, of="A.19")
    agree(v_bar.sum(0), y_bar.sum(0), bound=1e-13, of="A.19")


@spec("A.21")
@given(SEEDS)
def test_a_gate_of_zero_is_the_identity_and_of_one_the_plain_residual(seed):
    x, h = normal(seed, 2, 3, 4), normal(seed + 1, 2, 3, 4)
    agree(ops.gated_residual(x, np.zeros((2, 4)), h), x, bound=0, of="A.21")
    agree(ops.gated_residual(x, np.ones((2, 4)), h), x + h, bound=0, of="A.21")
    gate = np.array([[1.0, 0, 0, 0], [0, 0, 0, 2.0]])  # each sample has its own gate, each channel its own number
    y = ops.gated_residual(x, gate, h) - x
    agree(y[0, :, 0], h[0, :, 0], bound=1e-14, of="A.21")
    agree(y[1, :, 3], 2 * h[1, :, 3], bound=1e-14, of="A.21")
    assert not y[0, :, 1:].any() and not y[1, :, :3].any()
