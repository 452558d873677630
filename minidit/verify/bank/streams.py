"""Mistakes of several streams: rotary places, QK-norm, joint attention, blocks of MM-DiT and FLUX, conditions, clips."""

from __future__ import annotations

import numpy as np

from minidit.backend import Array
from minidit.verify.bank.wrap import instead
from minidit.verify.core.reference import Deviation, Reference
from minidit.verify.topics import streams

TURN = "(x_2j cos - x_2j+1 sin, x_2j sin + x_2j+1 cos)"
ANGLES = "id θ^(-2j/d) for the d numbers of each axis, one axis after another"
IDS = "(0, 0, 0) for words, (0, row, column) for patches"
NORM = "RoPE(x/√(mean x² + 1e-6) w) over the K numbers of a head, q and k with gains of their own"
JOINT = "softmax((q_c; q)(k_c; k)ᵀ/√K)(v_c; v), the context first"
STREAM = "h + α₁(W_o y + b_o), then h + α₂ MLP(LN(h)(1+γ₂)+β₂); parts (β₁, γ₁, α₁, β₂, γ₂, α₂)"
SINGLE = "h + α (W₂ (y; gelu(W₁ a + b₁)) + b₂), a = LN(h)(1+γ)+β; parts (β, γ, α)"
FINAL = "W (LN(x)(1+γ)+β) + b, (β, γ) = W_c silu(c) + b_c"
CONDITION = "MLP(emb(t)) + MLP'(pooled) + MLP''(emb(1000 w))"
CROP = "the middle of the table"
PATCH = "(C, row, column) within a patch"
GROUPS = "frames (B·T, S, D), sites (B·S, T, D): no token leaves its clip"
REPEATED = "every condition n times in a row: clips one after another"
FRAMES = "p(f) - p(0), p(f) = [sin f ω | cos f ω]"
CLIP = "tokens by frame, row, column; within one (C, frame, row, column)"


def _halves(R: Reference, x: Array) -> tuple[Array, Array]:
    half = x.shape[-1] // 2
    return x[..., :half], x[..., half:]


def _turned_first(R: Reference, x: Array, weight: Array, cos: Array, sin: Array) -> Array:
    return streams.normed_heads(R, streams.rope(R, x, cos, sin), weight)


def _sites_unmoved(R: Reference, x: Array, T: int) -> Array:
    return x.reshape(-1, T, x.shape[-1])


def _sites_across(R: Reference, x: Array, T: int) -> Array:
    """The clips of a site side by side: (T, S) before the batch."""
    B, N, D = x.shape
    return np.asarray(x.reshape(B, T, N // T, D).transpose(2, 0, 1, 3).reshape(-1, T, D))


BANK = [
    Deviation("M151", "ROPE_TURNS_HALVES", "A.30", "turns j with j + K/2: weights of the other form do not fit", TURN,
        {streams.pair_of: instead(_halves), streams.paired: instead(lambda R, a, b: np.concatenate((a, b), axis=-1))},
        "Llama's files in transformers; FLUX's turn neighbours"),
    Deviation("X301", "ROPE_TURNS_BACK", "A.30", "turns by -φ", TURN, {streams.turn_sign: instead(lambda R, sin: -sin)}),
    Deviation("M152", "ROPE_EXPONENT_OF_ALL_AXES", "N.12", "θ^(-2j/K) for every axis, K the width of a head", ANGLES,
        {streams.axis_exponents: instead(lambda R, d, whole: np.arange(0, d, 2) / whole)}, "class"),
    Deviation("X302", "ROPE_AXES_REVERSED", "N.12", "the last axis first", ANGLES,
        {streams.axis_order: instead(lambda R, angles: angles[::-1])}),
    Deviation("M153", "WORDS_IN_A_ROW", "T.27", "words stand at 0, 1, 2, … of the first axis", IDS,
        {streams.word_places: instead(lambda R, n: np.stack((np.arange(n), 0 * np.arange(n), 0 * np.arange(n)), axis=1))},
        "flux#71 (what the ids of words are)"),
    Deviation("X303", "PATCHES_BY_COLUMN", "T.27", "(0, column, row)", IDS,
        {streams.picture_places: instead(lambda R, r, c: np.stack((0 * r, c, r), axis=1))}),
    Deviation("X304", "PLACES_WITHOUT_FIRST_AXIS", "T.27", "(row, column, 0)", IDS,
        {streams.picture_places: instead(lambda R, r, c: np.stack((r, c, 0 * r), axis=1))}),
    Deviation("M154", "QK_NORM_OVER_ALL_HEADS", "A.29", "one mean of squares for all heads of a token", NORM,
        {streams.normed_over: instead(lambda R, heads: heads)}, "class (qk_norm of other models is across heads)"),
    Deviation("M155", "QK_NORM_AFTER_ROPE", "A.29", "turns first: gains then meet turned numbers", NORM,
        {streams.prepared: instead(_turned_first)}, "class"),
    Deviation("X305", "QK_NORM_FORGOTTEN", "A.29", "turns what is not normalised", NORM,
        {streams.normed_heads: instead(lambda R, x, weight: x)}),
    Deviation("X306", "QK_NORM_EPS", "A.29", "ε = 1e-5", NORM, {streams.stream_eps: instead(lambda R: 1e-5)}),
    Deviation("X307", "QK_NORM_GAINS_EXCHANGED", "A.29", "the keys' gains for the queries", NORM,
        {streams.gains: instead(lambda R, w_q, w_k: (w_k, w_q))}),
    Deviation("M156", "CONTEXT_STANDS_LAST", "N.14", "(x; context): places and parts belong to the other stream", JOINT,
        {streams.together: instead(lambda R, context, x: np.concatenate((x, context)))}, "class"),
    Deviation("M156b", "CONTEXT_STANDS_LAST_EVERYWHERE", "N.14",
        "(x; context), split accordingly: only the places (and their order) are another", JOINT,
        {streams.together: instead(lambda R, context, x: np.concatenate((x, context))),
         streams.apart: instead(lambda R, y, words: (y[len(y) - words :], y[: len(y) - words]))},
        "diffusers' SD3 processor (x first; without places the same)"),
    Deviation("X308", "STREAMS_DO_NOT_MEET", "N.14", "each stream attends to itself only", JOINT,
        {streams.keys_of: instead(lambda R, all, own: own)}),
    Deviation("X309", "JOINT_LOGITS_NOT_SCALED", "N.14", "q kᵀ without 1/√K", JOINT,
        {streams.stream_scale: instead(lambda R, K: 1.0)}),
    Deviation("M157", "JOINT_RESIDUAL_DROPPED", "T.23", "α₁(W_o y + b_o) without h", STREAM,
        {streams.after_attention: instead(lambda R, h, gate, y: gate[:, None] * y)}, "minRF 4fc10e0 (its larger MM-DiT)"),
    Deviation("X310", "JOINT_GATE_FORGOTTEN", "T.23", "h + W_o y + b_o", STREAM,
        {streams.after_attention: instead(lambda R, h, gate, y: h + y)}),
    Deviation("X311", "STREAM_SCALE_FIRST", "T.22", "(γ₁, β₁, α₁, γ₂, β₂, α₂)", STREAM,
        {streams.stream_order: instead(lambda R, p: (p[1], p[0], p[2], p[4], p[3], p[5]))}),
    Deviation("X312", "STREAM_TRIPLES_EXCHANGED", "T.22", "the MLP's three parts first", STREAM,
        {streams.stream_order: instead(lambda R, p: (*p[3:], *p[:3]))}),
    Deviation("M158", "SINGLE_MLP_STANDS_FIRST", "T.27", "W₂ (gelu(…); y)", SINGLE,
        {streams.single_input: instead(lambda R, y, inner: np.concatenate((inner, y), axis=-1))}, "class"),
    Deviation("X313", "SINGLE_MLP_OF_TOKENS", "T.27", "the MLP reads h, not its modulated norm", SINGLE,
        {streams.single_mlp_sees: instead(lambda R, a, h: h)}),
    Deviation("X314", "SINGLE_GATE_FORGOTTEN", "T.27", "h + W₂ (y; …)", SINGLE,
        {streams.single_gated: instead(lambda R, h, gate, out: h + out)}),
    Deviation("X315", "SINGLE_SCALE_FIRST", "T.27", "(γ, β, α)", SINGLE,
        {streams.single_order: instead(lambda R, p: (p[1], p[0], p[2]))}),
    Deviation("M159", "FINAL_SCALE_FIRST", "T.6", "(γ, β): the halves of the last modulation change places", FINAL,
        {streams.final_order: instead(lambda R, p: (p[1], p[0]))},
        "diffusers SD3Transformer2DModel and FluxTransformer2DModel (swap_scale_shift in their converters; #10198)"),
    Deviation("M160", "GUIDANCE_IN_ITSELF", "T.28", "emb(w): scales from 1 to 10 look alike", CONDITION,
        {streams.guidance_unit: instead(lambda R, w: w)}, "class"),
    Deviation("M160b", "GUIDANCE_TIMES_THOUSAND_TWICE", "T.28", "emb(10⁶ w)", CONDITION,
        {streams.guidance_unit: instead(lambda R, w: 1e6 * w)}, "class"),
    Deviation("M161", "POOLED_FORGOTTEN", "T.21", "time and guidance only: the text's vector is not heard", CONDITION,
        {streams.pooled_part: instead(lambda R, embedded: 0 * embedded)}, "class"),
    Deviation("X316", "GUIDANCE_FORGOTTEN", "T.28", "time and text only", CONDITION,
        {streams.guidance_part: instead(lambda R, embedded: 0 * embedded)}, "FLUX.1-schnell, which has none"),
    Deviation("X317", "CONDITIONS_WITHOUT_SILU", "T.28", "two linear layers without an activation", CONDITION,
        {streams.hidden_activation: instead(lambda R, x: x)}),
    Deviation("M162", "TABLE_FROM_THE_CORNER", "N.7", "the first rows and columns", CROP,
        {streams.first_row: instead(lambda R, side, n: 0)}, "class"),
    Deviation("X318", "TABLE_ROUNDED_UP", "N.7", "one row too far where the number of rows that are left is odd", CROP,
        {streams.first_row: instead(lambda R, side, n: -((n - side) // 2))}),
    Deviation("M163", "PATCH_CHANNELS_LAST", "T.1", "(row, column, C), as a DiT's answer is flattened", PATCH,
        {streams.patch_numbers: instead(lambda R: (0, 2, 4, 3, 5, 1))}, "class (one patchify for both directions)"),
    Deviation("X319", "PATCH_COLUMNS_FIRST", "T.1", "(C, column, row)", PATCH,
        {streams.patch_numbers: instead(lambda R: (0, 2, 4, 1, 5, 3))}),
    Deviation("M164", "SITES_BY_RESHAPE", "T.34", "(B·S, T, D) by a reshape: a site's times are neighbours in space", GROUPS,
        {streams.sites_of: instead(_sites_unmoved)}, "class (rearrange order, Latte)"),
    Deviation("M164b", "SITES_BEFORE_CLIPS", "T.34", "(S·B, T, D): clips change places with sites", GROUPS,
        {streams.sites_of: instead(_sites_across)}, "class"),
    Deviation("M165", "CONDITIONS_TILED", "T.34", "all conditions, n times over: groups get those of other clips", REPEATED,
        {streams.repeated: instead(lambda R, c, n: np.tile(c, (n, 1)))}, "class (repeat 'n c' for 'c n', Latte)"),
    Deviation("C19", "PLACES_OF_TIME_AS_THEY_ARE", "T.32", "p(f), so that one frame is no picture: a convention", FRAMES,
        {streams.origin_of_time: instead(lambda R, p: p)}, "Latte b27c24a"),
    Deviation("X321", "TIMES_OF_HALF_THE_WIDTH", "T.32", "frames in steps of one half", FRAMES,
        {streams.frame_numbers: instead(lambda R, F: np.arange(F) / 2)}),
    Deviation("X322", "TIME_COSINE_FIRST", "T.32", "[cos f ω | sin f ω]", FRAMES,
        {streams.time_halves: instead(lambda R, angle: np.concatenate((np.cos(angle), np.sin(angle)), axis=1))}),
    Deviation("X320", "CLIP_TOKENS_BY_SITE", "T.31", "row, column, then frame", CLIP,
        {streams.clip_order: instead(lambda R, grid: grid.transpose(0, 4, 6, 2, 1, 3, 5, 7))}),
    Deviation("M166", "CLIP_PATCH_FRAMES_FIRST", "T.31", "(frame, C, row, column) within a patch", CLIP,
        {streams.clip_order: instead(lambda R, grid: grid.transpose(0, 2, 4, 6, 3, 1, 5, 7))}, "class"),
]  # fmt: skip
