"""Mistakes of the U-Net's blocks."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidit import ops
from minidit.backend import Array
from minidit.verify.bank.wrap import instead
from minidit.verify.core.reference import Deviation, Reference
from minidit.verify.topics import unet

TIME = "[sin t f | cos t f], f_i = 10000^(-i/(half-1))"
NORM = "mean and variance over C/groups channels and all pixels, ε = 1e-6; groups divide C"
BLOCK = "S x + conv₂(silu(norm₂(conv₁(silu(norm₁(x))) + W silu(c) + b)))"
ATTENTION = "x + W_o softmax(q kᵀ/√C) v + b_o, q, k, v of norm(x)"
DOUBLE = "every pixel repeated in a 2 × 2 square, then the convolution"
UP = "[x | h], h the last of what is remembered: first convolution, every block, every halved picture"


def _cut(x: Array, weight: Array, bias: Array, groups: int, eps: float, axes: Any, order: Any = None) -> Array:
    """A norm over other axes of (B, groups, C/groups, H, W)."""
    if x.shape[1] % groups:
        raise ValueError("the groups do not divide the channels")
    B, C, H, W = x.shape
    at = np.arange(C) if order is None else order(C, groups)
    cut = x[:, at].reshape(B, groups, C // groups, H, W)
    hat = (cut - cut.mean(axis=axes, keepdims=True)) / np.sqrt(cut.var(axis=axes, keepdims=True) + eps)
    out = np.empty_like(x)
    out[:, at] = hat.reshape(x.shape)
    return np.asarray(out * weight[:, None, None] + bias[:, None, None])


def _any_groups(R: Reference, x: Array, weight: Array, bias: Array, groups: int, eps: float) -> Array:
    return unet.normed.right(R, x, weight, bias, int(np.gcd(x.shape[1], groups)), eps)


def _interleaved(channels: int, groups: int) -> Array:
    return np.arange(channels).reshape(-1, groups).T.ravel()


def _after_norm(R: Reference, h: Array, m: Array, w: Array, b: Array, groups: int) -> Array:
    return np.asarray(ops.silu(unet.normed(R, h, w, b, groups, unet.unet_eps(R)) + m))


def _silu_first(R: Reference, x: Array, w: Array, b: Array, groups: int) -> Array:
    return unet.normed(R, ops.silu(x), w, b, groups, unet.unet_eps(R))


def _linear_between(R: Reference, x: Array) -> Array:
    """Bilinear, with the corners of the pixels aligned at the edges (align_corners=False)."""
    for axis in (2, 3):
        before, after = (np.take(x, np.clip(np.arange(x.shape[axis]) + d, 0, x.shape[axis] - 1), axis) for d in (-1, 1))
        pair = np.stack((0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after), axis=axis + 1)
        x = pair.reshape(*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :])
    return x


BANK = [
    Deviation("M125", "UNET_TIME_OF_DIT", "N.10", "[cos | sin] with exponents i/half: a DiT's", TIME,
        {unet.unet_frequencies: instead(lambda R, half: 10000.0 ** (-np.arange(half) / half)),
         unet.unet_order: instead(lambda R, cos, sin: np.concatenate((cos, sin), axis=1))},
        "UNet2DModel (flip_sin_to_cos=True, freq_shift=0, the defaults)"),
    Deviation("M125b", "UNET_TIME_FREQUENCIES", "N.10", "exponents i/half", TIME,
        {unet.unet_frequencies: instead(lambda R, half: 10000.0 ** (-np.arange(half) / half))}, "UNet2DModel (freq_shift=0)"),
    Deviation("M125c", "UNET_TIME_ORDER", "N.10", "[cos | sin]", TIME,
        {unet.unet_order: instead(lambda R, cos, sin: np.concatenate((cos, sin), axis=1))}, "UNet2DModel (flip_sin_to_cos=True)"),
    Deviation("M126", "NORM_OF_ONE_CHANNEL", "A.17", "mean and variance of every channel by itself", NORM,
        {unet.normed: instead(lambda R, x, w, b, g, eps: _cut(x, w, b, g, eps, (3, 4)))}, "class"),
    Deviation("M126b", "NORM_OF_ONE_PIXEL", "A.17", "mean and variance over the channels of a group, pixel by pixel", NORM,
        {unet.normed: instead(lambda R, x, w, b, g, eps: _cut(x, w, b, g, eps, 2))}, "class"),
    Deviation("M126c", "NORM_GROUPS_INTERLEAVED", "A.17", "the k-th group holds the channels k, k + groups, …", NORM,
        {unet.normed: instead(lambda R, x, w, b, g, eps: _cut(x, w, b, g, eps, (2, 3, 4), _interleaved))}, "class"),
    Deviation("M127", "UNET_NORM_EPS", "T.16", "ε = 1e-5 in the norms of the network", NORM,
        {unet.unet_eps: instead(lambda R: 1e-5)}, "UNet2DModel (norm_eps=1e-5, the default), guided-diffusion"),
    Deviation("M128", "GROUPS_OF_ANY_NUMBER", "A.17", "takes fewer groups where the channels cannot be cut", NORM,
        {unet.normed: instead(_any_groups)}, "torchcfm#161, diffusers#442"),
    Deviation("X201", "CONDITION_AFTER_NORM", "T.16", "adds the condition after norm₂", BLOCK,
        {unet.conditioned: instead(_after_norm)}),
    Deviation("X202", "CONDITION_WITHOUT_SILU", "T.16", "W c, without the activation", BLOCK,
        {unet.condition: instead(lambda R, c: c)}),
    Deviation("X203", "SILU_BEFORE_NORM", "T.16", "norm(silu(x))", BLOCK, {unet.activated_norm: instead(_silu_first)}),
    Deviation("X204", "RESIDUAL_FORGOTTEN", "T.16", "the block's change without x", BLOCK,
        {unet.added: instead(lambda R, x, h: h)}),
    Deviation("X205", "RESIDUAL_OVER_ROOT_2", "T.16", "(x + h)/√2: a convention of score-based U-Nets", BLOCK,
        {unet.added: instead(lambda R, x, h: (x + h) / 2**0.5)}, "score_sde (skip_rescale), EDM's U-Net"),
    Deviation("X206", "PIXEL_LOGITS_NOT_SCALED", "L.8", "q kᵀ without 1/√C", ATTENTION,
        {unet.pixel_scale: instead(lambda R, C: 1.0)}),
    Deviation("X207", "PIXEL_LOGITS_OVER_C", "L.8", "q kᵀ/C", ATTENTION, {unet.pixel_scale: instead(lambda R, C: 1 / C)}),
    Deviation("X208", "PIXEL_ATTENTION_WITHOUT_NORM", "L.8", "q, k, v of x itself", ATTENTION,
        {unet.attended: instead(lambda R, x, w, groups: x)}),
    Deviation("M129", "REMEMBERED_BEFORE_ATTENTION", "T.17", "remembers the block's output, before its attention", UP,
        {unet.kept: instead(lambda R, after_block, after_attention: after_block)}, "class (the official code attends first)"),
    Deviation("X209", "DOUBLED_BILINEARLY", "L.7", "interpolates between pixels", DOUBLE,
        {unet.enlarged: instead(_linear_between)}),
    Deviation("X210", "DOUBLED_IN_TILES", "L.7", "repeats the picture, not its pixels", DOUBLE,
        {unet.enlarged: instead(lambda R, x: np.tile(x, (1, 1, 2, 2)))}),
    Deviation("X211", "SKIP_STANDS_FIRST", "T.17", "[h | x]", UP,
        {unet.unet_join: instead(lambda R, x, h: np.concatenate((h, x), axis=1))}),
    Deviation("X212", "FIRST_IN_FIRST_OUT", "T.17", "takes the first of what is remembered", UP,
        {unet.next_of: instead(lambda R, skips: skips.pop(0))}),
    Deviation("X213", "HALVED_NOT_REMEMBERED", "T.17", "remembers blocks only, and has one fewer on the way up", UP,
        {unet.remembered: instead(lambda R, widths, blocks: [w for w in widths for _ in range(blocks)]),
         unet.blocks_up: instead(lambda R, blocks: blocks)}),
]  # fmt: skip
