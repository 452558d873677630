"""Mistakes of several streams: rotary places, QK-norm, joint attention, blocks of MM-DiT and FLUX, conditions."""

from __future__ import annotations

import numpy as np

from minidit.backend import Array
from minidit.verify.bank.wrap import instead, reordered, then
from minidit.verify.core.reference import Deviation, Reference
from minidit.verify.topics import stream_blocks, streams

TURN = "(x_2j cos - x_2j+1 sin, x_2j sin + x_2j+1 cos)"
ANGLES = "id θ^(-2j/d) for the d numbers of each axis, one axis after another"
IDS = "(0, 0, 0) for words, (0, row, column) for patches"
NORM = "RoPE(x/√(mean x² + 1e-6) w) over the K numbers of a head, q and k with gains of their own"
JOINT = "softmax((q_c; q)(k_c; k)ᵀ/√K)(v_c; v), the context first"
STREAM = "h + α₁(W_o y + b_o), then h + α₂ MLP(LN(h)(1+γ₂)+β₂); parts (β₁, γ₁, α₁, β₂, γ₂, α₂)"
DUAL = "LN(h)(1+γ₃)+β₃ for the second attention; h + α₁(W_o y + b_o) + α₃(W_o' y2 + b_o'), then the MLP; (β₃, γ₃, α₃) last"
LAST = "LN(h)(1+γ)+β, (β, γ) = W_c silu(c) + b_c: two parts, and no word goes on"
WITH_TEXT = "time + text, for the blocks and for the last layer"
SINGLE = "h + α (W₂ (y; gelu(W₁ a + b₁)) + b₂), a = LN(h)(1+γ)+β; parts (β, γ, α)"
FINAL = "W (LN(x)(1+γ)+β) + b, (β, γ) = W_c silu(c) + b_c"
CONDITION = "MLP(emb(t)) + MLP'(pooled) + MLP''(emb(1000 w))"
CROP = "the middle of the table"
PATCH = "(C, row, column) within a patch"


def _halves(R: Reference, x: Array) -> tuple[Array, Array]:
    half = x.shape[-1] // 2
    return x[..., :half], x[..., half:]


def _turned_first(R: Reference, x: Array, weight: Array, cos: Array, sin: Array) -> Array:
    return streams.normed_heads(R, streams.rope(R, x, cos, sin), weight)


BANK = [
    Deviation("M151", "ROPE_TURNS_HALVES", "A.30", "turns j with j + K/2: weights of the other form do not fit", TURN,
        {streams.pair_of: instead(_halves), streams.paired: instead(lambda R, a, b: np.concatenate((a, b), axis=-1))},
        "Llama's files in transformers; FLUX's turn neighbours"),
    Deviation("X301", "ROPE_TURNS_BACK", "A.30", "turns by -φ", TURN, {streams.turn_sign: instead(lambda R, sin: -sin)}),
    Deviation("M152", "ROPE_EXPONENT_OF_ALL_AXES", "N.12", "θ^(-2j/K) for every axis, K the width of a head", ANGLES,
        {streams.axis_exponents: instead(lambda R, d, whole: np.arange(0, d, 2) / whole)}, "class"),
    Deviation("X302", "ROPE_AXES_REVERSED", "N.12", "the last axis first", ANGLES,
        {streams.axis_order: then(lambda angles: angles[::-1])}),
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
        {stream_blocks.after_attention: instead(lambda R, h, gate, y: gate[:, None] * y)}, "minRF 4fc10e0 (its larger MM-DiT)"),
    Deviation("X310", "JOINT_GATE_FORGOTTEN", "T.23", "h + W_o y + b_o", STREAM,
        {stream_blocks.after_attention: instead(lambda R, h, gate, y: h + y)}),
    Deviation("X311", "STREAM_SCALE_FIRST", "T.22", "(γ₁, β₁, α₁, γ₂, β₂, α₂)", STREAM,
        {stream_blocks.stream_order: reordered(1, 0, 2, 4, 3, 5)}),
    Deviation("X312", "STREAM_TRIPLES_EXCHANGED", "T.22", "the MLP's three parts first", STREAM,
        {stream_blocks.stream_order: reordered(3, 4, 5, 0, 1, 2)}),
    Deviation("M167", "DUAL_AFTER_THE_FIRST", "T.24", "the second attention sees what the first has made", DUAL,
        {stream_blocks.dual_sees: instead(lambda R, h, after: after)}, "class"),
    Deviation("M167b", "DUAL_BESIDE_THE_MLP", "T.24", "added at the end: the MLP does not see it", DUAL,
        {stream_blocks.dual_mlp_sees: instead(lambda R, after, both: after)}, "class"),
    Deviation("M168", "DUAL_PARTS_IN_THE_MIDDLE", "T.24", "(β₁, γ₁, α₁, β₃, γ₃, α₃, β₂, γ₂, α₂): in the order of use", DUAL,
        {stream_blocks.dual_order: reordered(0, 1, 2, 6, 7, 8, 3, 4, 5)}, "class"),
    Deviation("X323", "DUAL_GATE_OF_THE_FIRST", "T.24", "α₁ for both attentions", DUAL,
        {stream_blocks.dual_order: reordered(0, 1, 2, 3, 4, 5, 6, 7, 2)}),
    Deviation("X324", "DUAL_FORGOTTEN", "T.24", "one attention, as in the blocks after the 13th", DUAL,
        {stream_blocks.dual_added: instead(lambda R, h, gate, y: h)}),
    Deviation("M169", "LAST_CONTEXT_SCALE_FIRST", "T.25", "(γ, β): the halves of the words' last modulation change places", LAST,
        {stream_blocks.last_context_order: reordered(1, 0)},
        "diffusers SD3Transformer2DModel (its converter exchanges them, as those of the last layer)"),
    Deviation("X325", "LAST_CONTEXT_NOT_MODULATED", "T.25", "LN(h): no part is left for the words that end", LAST,
        {stream_blocks.last_context_order: instead(lambda R, p: (0 * p[0], 0 * p[1]))}),
    Deviation("M170", "FIRST_TOKENS_KEPT", "T.27", "the first N of M + N tokens: a picture that begins with the words",
        "the last N of M + N tokens", {stream_blocks.patches_alone: instead(lambda R, h, words: h[:, : h.shape[1] - words])},
        "class"),
    Deviation("M158", "SINGLE_MLP_STANDS_FIRST", "T.27", "W₂ (gelu(…); y)", SINGLE,
        {stream_blocks.single_input: instead(lambda R, y, inner: np.concatenate((inner, y), axis=-1))}, "class"),
    Deviation("X313", "SINGLE_MLP_OF_TOKENS", "T.27", "the MLP reads h, not its modulated norm", SINGLE,
        {stream_blocks.single_mlp_sees: instead(lambda R, a, h: h)}),
    Deviation("X314", "SINGLE_GATE_FORGOTTEN", "T.27", "h + W₂ (y; …)", SINGLE,
        {stream_blocks.single_gated: instead(lambda R, h, gate, out: h + out)}),
    Deviation("M171", "SINGLE_CLIPPED", "T.27", "keeps tokens within ±65504 in every precision", SINGLE,
        {stream_blocks.single_gated: then(lambda h: np.clip(h, -65504, 65504))}, "diffusers, in float16 only"),
    Deviation("X315", "SINGLE_SCALE_FIRST", "T.27", "(γ, β, α)", SINGLE,
        {stream_blocks.single_order: reordered(1, 0, 2)}),
    Deviation("M159", "FINAL_SCALE_FIRST", "T.6", "(γ, β): the halves of the last modulation change places", FINAL,
        {stream_blocks.final_order: reordered(1, 0)},
        "diffusers SD3Transformer2DModel and FluxTransformer2DModel (swap_scale_shift in their converters; #10198)"),
    Deviation("M160", "GUIDANCE_IN_ITSELF", "T.28", "emb(w): scales from 1 to 10 look alike", CONDITION,
        {stream_blocks.guidance_unit: instead(lambda R, w: w)}, "class"),
    Deviation("M160b", "GUIDANCE_TIMES_THOUSAND_TWICE", "T.28", "emb(10⁶ w)", CONDITION,
        {stream_blocks.guidance_unit: instead(lambda R, w: 1e6 * w)}, "class"),
    Deviation("M161", "POOLED_FORGOTTEN", "T.21", "time and guidance only: the text's vector is not heard", CONDITION,
        {stream_blocks.pooled_part: instead(lambda R, embedded: 0 * embedded)}, "class"),
    Deviation("M172", "LAST_LAYER_WITHOUT_TEXT", "T.21", "the last layer is told of the time only", WITH_TEXT,
        {stream_blocks.text_of_the_last: instead(lambda R, text: 0 * text)}, "Latte b27c24a (with captions)"),
    Deviation("X316", "GUIDANCE_FORGOTTEN", "T.28", "time and text only", CONDITION,
        {stream_blocks.guidance_part: instead(lambda R, embedded: 0 * embedded)}, "FLUX.1-schnell, which has none"),
    Deviation("X317", "CONDITIONS_WITHOUT_SILU", "T.28", "two linear layers without an activation", CONDITION,
        {stream_blocks.hidden_activation: instead(lambda R, x: x)}),
    Deviation("M162", "TABLE_FROM_THE_CORNER", "N.7", "the first rows and columns", CROP,
        {stream_blocks.first_row: instead(lambda R, side, n: 0)}, "class"),
    Deviation("X318", "TABLE_ROUNDED_UP", "N.7", "one row too far where the number of rows that are left is odd", CROP,
        {stream_blocks.first_row: instead(lambda R, side, n: -((n - side) // 2))}),
    Deviation("M163", "PATCH_CHANNELS_LAST", "T.1", "(row, column, C), as a DiT's answer is flattened", PATCH,
        {stream_blocks.patch_numbers: instead(lambda R: (0, 2, 4, 3, 5, 1))}, "class (one patchify for both directions)"),
    Deviation("X319", "PATCH_COLUMNS_FIRST", "T.1", "(C, column, row)", PATCH,
        {stream_blocks.patch_numbers: instead(lambda R: (0, 2, 4, 1, 5, 3))}),
]  # fmt: skip
