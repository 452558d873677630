"""The attention kit: RoPE knows differences of places only, QK-norm bounds logits, masks cut attention into smaller ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nn import plain
from support import agree, spec

from minidit import ops
from minidit.nn import Module, StreamAttention, joint_attention, rotary
from minidit.nn.attention import attended
from minidit.nn.masks import by_level, causal, same_frame, same_site
from minidit.nn.position import centre, grid_ids, sincos_2d
from minidit.random import Philox

SEEDS = st.integers(0, 2**32 - 1)
AXES = st.lists(st.sampled_from([2, 4, 6]), min_size=1, max_size=3)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def places(seed, n, axes):
    return np.random.default_rng(seed).integers(-50, 50, (n, axes))


def turned(x, ids, widths):
    """x : (N, heads, K), turned by places."""
    return ops.rope(x[None], *rotary(ids, widths))[0]


# ------------------------------------------------------------------------------------------------ RoPE


@spec("A.30", "N.12")
@given(SEEDS, AXES)
def test_a_turn_keeps_every_pair_s_length_and_place_0_turns_nothing(seed, widths):
    x, K = normal(seed, 5, 2, sum(widths)), sum(widths)
    y = turned(x, places(seed, 5, len(widths)), widths)
    pairs = lambda a: np.square(a).reshape(5, 2, K // 2, 2).sum(-1)
    agree(pairs(y), pairs(x), bound=1e-13, of="A.30")
    agree(turned(x, np.zeros((5, len(widths)), int), widths), x, bound=0, of="N.12")


@spec("A.30", "N.12")
@given(SEEDS, AXES)
def test_a_logit_knows_the_difference_of_two_places_only(seed, widths):
    q, k, ids = normal(seed, 6, 1, sum(widths)), normal(seed + 1, 6, 1, sum(widths)), places(seed, 6, len(widths))
    logits = lambda shift: np.einsum("nhk,mhk->nm", turned(q, ids + shift, widths), turned(k, ids + shift, widths))
    shift = places(seed + 2, 1, len(widths))
    agree(logits(shift), logits(0), bound=1e-12, of=("A.30", "N.12"))
    one = q.repeat(2, axis=1)[:1]  # the same vector twice at places one apart: not the same logit
    there = turned(np.concatenate([one, one]), np.array([[0] * len(widths), [1] * len(widths)]), widths)
    assert abs(float((there[0] * there[1]).sum() - (there[0] * there[0]).sum())) > 1e-6


@spec("A.30", "N.12")
@given(SEEDS, AXES)
def test_turns_add_up(seed, widths):
    x, p, q = normal(seed, 4, 1, sum(widths)), places(seed, 4, len(widths)), places(seed + 1, 4, len(widths))
    agree(turned(turned(x, p, widths), q, widths), turned(x, p + q, widths), bound=1e-12, of="A.30")


@spec("A.30", "N.12")
def test_a_turn_by_hand():
    """One axis of four numbers at θ = 100: the pairs (0, 1) and (2, 3) turn by n and by n/10."""
    x = np.array([[[1.0, 0.0, 0.0, 2.0]]])
    y = ops.rope(x[None], *rotary(np.array([[3]]), [4], theta=100.0))[0, 0, 0]
    agree(y, [np.cos(3), np.sin(3), -2 * np.sin(0.3), 2 * np.cos(0.3)], bound=1e-15, of=("A.30", "N.12"))


def test_places_of_a_grid_run_along_its_last_axis():
    assert grid_ids(2, 3).tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    with pytest.raises(ValueError, match=r"2 axes of places need as many even widths, got \(3, 4\)"):
        rotary(grid_ids(2, 3), (3, 4))


@spec("N.7")
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 3))
def test_the_middle_of_a_larger_table_has_its_places(h, w, more):
    side = max(h, w) + more
    table = sincos_2d(8, side, side)[None]
    middle = centre(table, side, side, h, w)[0].reshape(h, w, 8)
    whole, top, left = table[0].reshape(side, side, 8), (side - h) // 2, (side - w) // 2
    assert all((middle[i, j] == whole[top + i, left + j]).all() for i in range(h) for j in range(w))


# ------------------------------------------------------------------------------------------------ QK-norm


def stream(seed, width, heads, **more):
    return plain.grown(StreamAttention(width, heads, **more).build(dtype=np.float64), seed=seed)[0]


@spec("A.29")
@given(SEEDS, st.integers(1, 3), st.integers(1, 4))
def test_no_logit_is_larger_than_the_gains_allow(seed, heads, K):
    """|q̂ · k̂|/√K ≤ √K max|γ_q| max|γ_k|, whatever the projections are."""
    s = stream(seed, heads * K, heads, qk_norm=True)
    s.qkv.weight.data *= 1e3
    q, k, _ = ops.unpacked(s.packed(normal(seed, 2, 5, heads * K)).data, heads=heads)
    logits = np.abs(q @ k.swapaxes(-1, -2)) / np.sqrt(K)
    bound = np.sqrt(K) * np.abs(s.ln_q.weight.data).max() * np.abs(s.ln_k.weight.data).max()
    assert logits.max() <= bound * (1 + 1e-12)


@spec("A.29")
@given(SEEDS, st.floats(0.1, 100.0))
def test_the_size_of_the_projections_does_not_matter(seed, c):
    """ε → 0: a query that is c times as long is the same after the norm; without it, it is not."""
    qkv = normal(seed, 2, 4, 24)
    larger = np.concatenate([c * qkv[..., :8], qkv[..., 8:]], axis=-1)
    gains = normal(seed + 1, 4), normal(seed + 2, 4)
    agree(ops.qk_norm(larger, *gains, heads=2, eps=0.0), ops.qk_norm(qkv, *gains, heads=2, eps=0.0), bound=1e-12, of="A.29")


@spec("A.29")
@given(SEEDS)
def test_the_values_pass_the_norm_and_the_turn_untouched(seed):
    qkv = normal(seed, 2, 4, 24)
    y = ops.qk_rope(ops.qk_norm(qkv, np.ones(4), np.ones(4), heads=2), *rotary(np.arange(4)[:, None], [4]), heads=2)
    agree(y[..., 16:], qkv[..., 16:], bound=0, of="A.29")
    q = ops.rms_norm(qkv[..., :8].reshape(2, 4, 2, 4), np.ones(4))
    agree(y[..., :8].reshape(2, 4, 2, 4), ops.rope(q, *rotary(np.arange(4)[:, None], [4])), bound=1e-15, of=("A.29", "A.30"))


# ------------------------------------------------------------------------------------------------ joint attention and masks


@spec("N.14")
@given(SEEDS, st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_streams_of_equal_weights_are_one_stream(seed, M, N, qk_norm):
    s, a, b = stream(seed, 8, 2, qk_norm=qk_norm), normal(seed, 2, M, 8), normal(seed + 1, 2, N, 8)
    y_a, y_b = joint_attention([s, s], [a, b])
    (y,) = joint_attention([s], [np.concatenate([a, b], axis=1)])
    agree(np.concatenate([y_a.data, y_b.data], axis=1), y, bound=1e-13, of="N.14")


@spec("N.13")
@given(SEEDS, st.integers(1, 3), st.integers(1, 4))
def test_masks_cut_one_attention_into_small_ones(seed, frames, sites):
    qkv = normal(seed, 2, frames * sites, 24)
    cut = qkv.reshape(2, frames, sites, 24)
    space = np.concatenate([ops.self_attention(cut[:, f], heads=2)[:, None] for f in range(frames)], axis=1)
    agree(attended(qkv, 2, mask=same_frame(frames, sites)).reshape(space.shape), space, bound=1e-13, of="N.13")
    time = np.stack([ops.self_attention(np.ascontiguousarray(cut[:, :, s]), heads=2) for s in range(sites)], axis=2)
    agree(attended(qkv, 2, mask=same_site(frames, sites)).reshape(time.shape), time, bound=1e-13, of="N.13")


@spec("N.13")
@given(SEEDS, st.lists(st.integers(0, 3), min_size=1, max_size=6).map(sorted))
def test_a_token_does_not_notice_what_it_may_not_see(seed, levels):
    n = len(levels)
    qkv = normal(seed, 1, n, 24)
    for mask, sees in (
        (causal(n), [i + 1 for i in range(n)]),
        (by_level(levels), [sum(other <= level for other in levels) for level in levels]),
    ):
        whole = attended(qkv, 2, mask=mask)
        for i, seen in enumerate(sees):  # levels rise, so that what a token sees comes first
            alone = attended(qkv[:, :seen], 2, mask=mask[:seen, :seen])
            agree(alone[:, i], whole[:, i], bound=1e-13, of="N.13")
            assert (mask[i, :seen] == 0).all() and (mask[i, seen:] == -np.inf).all()


@spec("A.30", "N.14")
@given(SEEDS)
def test_a_common_shift_of_all_places_changes_no_attention(seed):
    qkv, ids = normal(seed, 2, 6, 24), grid_ids(2, 3)
    y = attended(qkv, 2, rotary(ids, (2, 2)))
    agree(attended(qkv, 2, rotary(ids + np.array([7, -3]), (2, 2))), y, bound=1e-12, of="A.30")
    assert np.abs(attended(qkv, 2, rotary(ids * 2, (2, 2))) - y).max() > 1e-3


def test_a_stream_that_ends_has_no_output_projection():
    ends = StreamAttention(8, 2, out=False)
    assert isinstance(ends, Module) and ends.build(Philox(0)).count_parameters() == 8 * 24 + 24
