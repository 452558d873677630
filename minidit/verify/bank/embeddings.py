"""Mistakes in what a DiT is told and in how pictures become tokens: time, class, place, patches (C4)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minidit import ops
from minidit.backend import Array
from minidit.verify.bank.wrap import instead, then
from minidit.verify.core.reference import Deviation, Form, Patches, Reference
from minidit.verify.core.relations import bfloat16
from minidit.verify.topics import embeddings
from minidit.verify.topics.layers import Numbers


def _interleaved(a: Array, b: Array) -> Array:
    return np.stack((a, b), axis=-1).reshape(len(a), -1)


def _batch_axis(R: Reference, t: Array, width: int) -> Array:
    angle = embeddings.time_angles(R, t, embeddings.time_frequencies(R, width // 2))
    emb = np.concatenate((angle, angle), axis=1)
    emb[::2], emb[1::2] = np.sin(emb[::2]), np.cos(emb[1::2])
    return emb


def _frequencies(divisor: Any, base: float = 10000.0) -> Patches:
    return {embeddings.time_frequencies: instead(lambda R, half: base ** (-np.arange(half) / divisor(half)))}


def _times(f: Form) -> Patches:
    return {embeddings.time_angles: lambda original: lambda R, t, freqs: original(R, f(np.asarray(t, np.float64)), freqs)}


def _grid(f: Form) -> Patches:
    return {embeddings.position_grid: instead(lambda R, h, w: f(np.arange(h * w), h, w))}


def _moved(x: Numbers, shape: tuple[int, ...], axes: tuple[int, ...], out: tuple[int, ...]) -> Any:
    return ops.reshape(ops.transpose(ops.reshape(x, shape=shape), axes=axes), shape=out)


def _sewn(layout: str) -> Patches:
    """Tokens flat in `layout` (letters h, w, p, q, c) to c, h p, w q; '' keeps the numbers where they are."""

    def sewn(R: Reference, tokens: Numbers, p: int, h: int, w: int) -> Any:
        B, C = tokens.shape[0], tokens.shape[2] // (p * p)
        sizes, out = {"h": h, "w": w, "p": p, "q": p, "c": C}, (B, C, h * p, w * p)
        if not layout:
            return ops.reshape(tokens, shape=out)
        return _moved(tokens, (B, *(sizes[c] for c in layout)), (0, *(1 + layout.index(c) for c in "chpwq")), out)

    return {embeddings.sewn: instead(sewn)}


def _patches(order: str) -> Patches:
    """Patches whose tokens and numbers come in this order of the letters h, w, c, p, q."""

    def patches(R: Reference, x: Numbers, p: int) -> Any:
        B, C, H, W = x.shape
        axes = (0, *(1 + "chpwq".index(c) for c in order))
        return _moved(x, (B, C, H // p, p, W // p, p), axes, (B, (H // p) * (W // p), C * p * p))

    return {embeddings.patches: instead(patches)}


_TIME = "f_i = 10000^(-i/half), i = 0 .. half-1, emb = [cos t f | sin t f]"
_PLACE = "pos = [p(column) | p(row)], p(s) = [sin s ω | cos s ω], ω_i = 10000^(-i/(D/4)), rows first"
_SEWN = "a token is flat in the order (p, p, C): nhwpqc → nchpwq"
_PATCH = "token r·(W/p) + c, flat in the order (C, p, p)"

BANK = [
    Deviation("M10c", "TEMB_UNIT_SCALE", "N.8", "feeds t/1000 to an embedding made for 0..1000: nearly constant",
        "t as the schedule counts it, 0..T-1", _times(lambda t: t / 1000), "REPA#40, SiT#24, Just-a-DiT PR#9, Step1X-Edit#91"),
    Deviation("M10d", "TEMB_SCALED_TWICE", "N.8", "multiplies t by 1000 once more", "t as the schedule counts it, 0..T-1",
        _times(lambda t: t * 1000)),
    Deviation("M75", "TEMB_ORDER", "N.8", "[sin | cos]", _TIME,
        {embeddings.time_order: instead(lambda R, cos, sin: np.concatenate((sin, cos), axis=1))},
        "DiT#78, diffusers#3981, huggingface/blog#2183"),
    Deviation("M75b", "TEMB_INTERLEAVED", "N.8", "sine and cosine alternate, sine first (Vaswani et al.)", _TIME,
        {embeddings.time_order: instead(lambda R, cos, sin: _interleaved(sin, cos))}, "diffusers#3981"),
    Deviation("M75c", "TEMB_INTERLEAVED_COS", "N.8", "sine and cosine alternate, cosine first", _TIME,
        {embeddings.time_order: instead(lambda R, cos, sin: _interleaved(cos, sin))}),
    Deviation("M76", "TEMB_HALF_MINUS_1", "N.8", "f_i = 10000^(-i/(half-1)), the frequencies of DDPM (N.10)", _TIME,
        _frequencies(lambda half: half - 1), "diffusers DiTTransformer2DModel; kohya-ss PR#1187, PRX PR#12791"),
    Deviation("M76b", "TEMB_WIDTH", "N.8", "f_i = 10000^(-i/width): the exponents go half as far", _TIME,
        _frequencies(lambda half: 2 * half)),
    Deviation("X31", "TEMB_TWO_I", "N.8", "f_i = 10000^(-2i/half): 2i/d applied to indices that were doubled already", _TIME,
        _frequencies(lambda half: half / 2)),
    Deviation("M77", "TEMB_INDEXES_BATCH_AXIS", "N.8", "emb[::2] = sin, emb[1::2] = cos along the batch: time becomes noise",
        "the last axis is indexed, emb[:, …]: " + _TIME, {embeddings.timestep_embedding: instead(_batch_axis)},
        "gmongaras#10, dome272#27; the model still trains"),
    Deviation("X32", "T_IN_BFLOAT16", "N.8", "rounds t to bfloat16: 999 becomes 1000", "t and its angles in float32 at least",
        _times(bfloat16)),
    Deviation("X33", "T_OFF_BY_ONE", "D.15", "tells the network t + 1", "t in 0..T-1", _times(lambda t: t + 1)),
    Deviation("X34", "TMLP_GELU", "T.3", "GELU in the time MLP", "SiLU between the two linears",
        {embeddings.time_activation: instead(lambda R, x: ops.gelu(x))}),
    Deviation("X35", "TMLP_NO_ACTIVATION", "T.3", "no activation in the time MLP", "SiLU between the two linears",
        {embeddings.time_activation: instead(lambda R, x: x)}),
    Deviation("M81", "LABEL_NULL_1000", "G.7", "the null label is 1000 whatever the number of classes",
        "the null label is num_classes, the last row of the table", {embeddings.null_label: instead(lambda R, num_classes: 1000)},
        "DiT#108, diffusers#13616, LDM#116"),
    Deviation("M81b", "LABEL_NULL_0", "G.7", "the null label is 0, which is a class",
        "the null label is num_classes, the last row of the table", {embeddings.null_label: instead(lambda R, num_classes: 0)},
        "VAR#31"),
    Deviation("M81c", "LABEL_NULL_LAST_CLASS", "G.7", "the null label is the last class, num_classes - 1",
        "the null label is num_classes, one row more", {embeddings.null_label: then(lambda null: null - 1)}),
    Deviation("M72", "POSEMB_HW_SWAP", "N.7", "the first half of the channels is the row", _PLACE,
        {embeddings.position_halves: instead(lambda R, row, column: np.concatenate((row, column), axis=1))},
        "MAE#18, #67, #218, diffusers PR#10877; hidden for models trained from scratch"),
    Deviation("M73", "POSEMB_NONSQUARE", "N.7", "counts with h in place of w: row n//h, column n%h", _PLACE,
        _grid(lambda n, h, w: (n // h, n % h)),
        "diffusers#11309, RT-DETR PR#41380, Open-Sora PR#638, torchtitan PR#4244; hidden on squares"),
    Deviation("M73b", "POSEMB_COLUMNS_FIRST", "N.7", "counts places column by column", _PLACE,
        _grid(lambda n, h, w: (n % h, n // h))),
    Deviation("X36", "POSEMB_COS_FIRST", "N.6", "p(s) = [cos s ω | sin s ω]", _PLACE,
        {embeddings.one_coordinate: instead(lambda R, s, o:
            np.concatenate((np.cos(s[:, None] * o), np.sin(s[:, None] * o)), axis=1))}),
    Deviation("X37", "POSEMB_INTERLEAVED", "N.6", "sine and cosine alternate", _PLACE,
        {embeddings.one_coordinate: instead(lambda R, s, o: _interleaved(np.sin(s[:, None] * o), np.cos(s[:, None] * o)))}),
    Deviation("X38", "POSEMB_FREQUENCIES", "N.6", "ω_i = 10000^(-i/(D/2)): the exponents go half as far", _PLACE,
        {embeddings.position_frequencies: then(lambda omega: omega**0.5)}),
    Deviation("X39", "POSEMB_FROM_ONE", "N.7", "counts rows and columns from 1", _PLACE,
        {embeddings.position_grid: then(lambda rc: (rc[0] + 1, rc[1] + 1))}),
    Deviation("X40", "POSEMB_ONE_AXIS", "N.7", "one coordinate, the number of the token, in all channels", _PLACE,
        {embeddings.position_embedding: instead(lambda R, D, h, w:
            embeddings.one_coordinate(R, np.arange(h * w), embeddings.position_frequencies(R, D // 2)))}),
    Deviation("X41", "PATCH_CHANNEL_LAST", "T.1", "flattens a patch in the order (p, p, C)", _PATCH, _patches("hwpqc")),
    Deviation("X42", "PATCH_TRANSPOSED", "T.1", "flattens a patch column by column", _PATCH, _patches("hwcqp")),
    Deviation("X43", "TOKENS_COLUMN_BY_COLUMN", "T.1", "numbers the patches column by column", _PATCH, _patches("whcpq")),
    Deviation("M79", "UNPATCHIFY_ORDER", "T.2", "reads a token as (q, p, C): pixels of a patch transposed", _SEWN, _sewn("hwqpc"),
        "minRF#6; hidden for p = 1 and for models trained from scratch"),
    Deviation("M79b", "UNPATCHIFY_CHANNEL_FIRST", "T.2", "reads a token as (C, p, p), the layout of the input", _SEWN,
        _sewn("hwcpq"), "flashdreams PR#284, #338, jax-models#2"),
    Deviation("M79c", "UNPATCHIFY_NOT_SEWN", "T.2", "reshapes the tokens to a picture without moving any axis", _SEWN, _sewn("")),
    Deviation("M79d", "UNPATCHIFY_COLUMN_BY_COLUMN", "T.2", "lays the tokens column by column", _SEWN, _sewn("whpqc")),
    Deviation("M99", "SPATIAL_SQRT_TOKENS", "T.2", "h = w = √N whatever the picture's sides", "h = H/p, w = W/p",
        {embeddings.token_grid: instead(lambda R, n, h, w: (math.isqrt(n), math.isqrt(n)))},
        "DiT unpatchify, diffusers DiTTransformer2DModel; hidden on squares"),
]  # fmt: skip
