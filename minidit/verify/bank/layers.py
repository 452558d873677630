"""Mistakes in the layers of a transformer: products, norms, activations, attention (C4)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minidit import ops
from minidit.autograd import value
from minidit.verify.bank.wrap import at, instead
from minidit.verify.core.reference import Change, Deviation, Form, Patches, Reference
from minidit.verify.topics import layers
from minidit.verify.topics.layers import Numbers


def _centred(x: Numbers) -> Any:
    return x - x.mean(axis=-1, keepdims=True)


def _unbiased(R: Reference, x: Numbers, place: str = "") -> Numbers:
    d = _centred(x)
    return d / ops.sqrt((d * d).sum(axis=-1, keepdims=True) * (1 / (x.shape[-1] - 1)) + layers.norm_eps(R, place))


def _eps_outside(R: Reference, x: Numbers, place: str = "") -> Numbers:
    d = _centred(x)
    return d / (ops.sqrt((d * d).mean(axis=-1, keepdims=True)) + layers.norm_eps(R, place))


def _all_tokens(R: Reference, x: Numbers, place: str = "") -> Numbers:
    flat = ops.reshape(x, shape=(x.shape[0], -1))
    return ops.reshape(ops.standardise(flat, eps=layers.norm_eps(R, place)), shape=x.shape)


def _split(order: tuple[int, int, int], axes: str) -> Any:
    """Splits qkv whose last axis is laid out as `axes` (letters 3, h, K), with q, k, v at these places."""

    def split(R: Reference, qkv: Numbers, heads: int) -> Any:
        B, N, D = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
        sizes = {"3": 3, "h": heads, "K": D // heads}
        a = ops.reshape(qkv, shape=(B, N, *(sizes[c] for c in axes)))
        a = ops.transpose(a, axes=(2 + axes.index("3"), 0, 2 + axes.index("h"), 1, 2 + axes.index("K")))
        return tuple(a[i] for i in order)

    return split


def _half(R: Reference, x: Numbers) -> Numbers:
    with np.errstate(all="ignore"):
        x = value(x).astype(np.float16)
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        return (e / e.sum(axis=-1, keepdims=True)).astype(np.float64)


def _interleaved(R: Reference, y: Numbers) -> Numbers:
    B, h, N, K = y.shape
    return ops.reshape(ops.transpose(y, axes=(0, 2, 3, 1)), shape=(B, N, h * K))


def _scale(f: Form) -> Patches:
    return {layers.logit_scale: instead(lambda R, heads, K: f(heads, K))}


def _eps(eps: float) -> Change:
    return instead(lambda R, place: eps)


def _norm(f: Form) -> Patches:
    return {layers.layer_norm: instead(f)}


_SCALE_IS = "q kᵀ / √K, K = D/heads the width of one head"
_PACKING = "the rows of qkv are (3, heads, K): all queries, all keys, all values, each head by head"
_NORM = "(x - μ)/√(σ² + ε) over the last axis, σ² the biased variance, ε = 1e-6 under the root"
_GELU = "½ x (1 + tanh(√(2/π)(x + 0.044715 x³)))"

BANK = [
    Deviation("M55", "SOFTMAX_SCALE_D", "A.18", "divides the logits by √D, the width of the model", _SCALE_IS,
        _scale(lambda heads, K: (heads * K) ** -0.5),
        "DL4Proteins-notebooks#12, MONAI GenerativeModels#146, mlc-llm PR#3426; hidden with one head"),
    Deviation("M55b", "SOFTMAX_SCALE_NONE", "A.18", "does not scale the logits", _SCALE_IS, _scale(lambda heads, K: 1.0),
        "Machine-Learning-Collection#65 and its kin"),
    Deviation("M55c", "SOFTMAX_SCALE_K", "A.18", "divides the logits by K without the root", _SCALE_IS,
        _scale(lambda heads, K: 1 / K)),
    Deviation("M56", "SOFTMAX_AXIS", "A.13", "softmax over the queries (axis -2)", "softmax over the keys (axis -1)",
        {layers.softmax: instead(lambda R, x: ops.softmax(x, axis=-2))},
        "labml#146, where FID did not notice; llms-from-scratch-rs PR#30"),
    Deviation("M56b", "SOFTMAX_OVER_HEADS", "A.13", "softmax over the heads (axis 1)", "softmax over the keys (axis -1)",
        {layers.softmax: instead(lambda R, x: ops.softmax(x, axis=1 if x.ndim > 3 else -1))}),
    Deviation("M98", "SOFTMAX_OVERFLOW", "A.13", "takes e^x without subtracting the largest logit: large logits give NaN",
        "e^(x - max x) / Σ e^(x - max x)",
        {layers.softmax: instead(lambda R, x: ops.exp(x) / ops.exp(x).sum(axis=-1, keepdims=True))},
        "imagen-pytorch#129, pytorch#40497"),
    Deviation("M98b", "SOFTMAX_IN_FLOAT16", "A.13", "computes the softmax in float16: logits beyond 65504 give NaN",
        "softmax in float32 or bfloat16 at least", {layers.softmax: instead(_half)}, "MaskDiT#4, imagen-pytorch#129"),
    Deviation("M57", "QKV_PACK_ORDER", "A.20", "reads the rows of qkv as (heads, 3, K)", _PACKING,
        {layers.split_heads: instead(_split((0, 1, 2), "h3K"))}, "slapo PR#46; hidden with one head"),
    Deviation("M57b", "QKV_KEYS_FIRST", "A.20", "takes the first third for keys and the second for queries", _PACKING,
        {layers.split_heads: instead(_split((1, 0, 2), "3hK"))}),
    Deviation("M57c", "QKV_VALUES_FIRST", "A.20", "takes the first third for values, then keys, then queries", _PACKING,
        {layers.split_heads: instead(_split((2, 1, 0), "3hK"))}),
    Deviation("M58", "HEADS_INTERLEAVED", "A.20", "splits each of q, k, v as (K, heads): the heads interleaved", _PACKING,
        {layers.split_heads: instead(_split((0, 1, 2), "3Kh"))},
        "CTranslate2 PR#762, curated-transformers#294; hidden with one head"),
    Deviation("M58b", "HEADS_INTERLEAVED_BOTH", "A.20", "splits q, k, v and merges the heads as (K, heads)", _PACKING,
        {layers.split_heads: instead(_split((0, 1, 2), "3Kh")), layers.merge_heads: instead(_interleaved)}),
    Deviation("X20", "HEADS_NOT_MOVED_BACK", "A.20", "reshapes (B, heads, N, K) to (B, N, D) without moving the heads back",
        "(B, heads, N, K) → (B, N, heads, K) → (B, N, D)",
        {layers.merge_heads: instead(lambda R, y: ops.reshape(y, shape=(y.shape[0], y.shape[2], -1)))}),
    Deviation("X21", "HEADS_NOT_MOVED", "A.20", "reshapes (B, N, heads, K) to (B, heads, N, K) without moving the axes",
        "a transposition between the two",
        {layers.head_first: instead(lambda R, a: ops.reshape(a, shape=(a.shape[0], a.shape[2], a.shape[1], a.shape[3])))}),
    Deviation("M59", "GELU_ERF", "A.5", "the exact GELU, x Φ(x)", _GELU, {layers.gelu: instead(lambda R, x: ops.gelu_erf(x))},
        "pocket-tts PR#278, spd#624, TVM PR#14814 (torch's default form)"),
    Deviation("M59b", "GELU_SIGMOID", "A.5", "the quick GELU, x σ(1.702 x)", _GELU,
        {layers.gelu: instead(lambda R, x: x * ops.sigmoid(1.702 * x))}),
    Deviation("X22", "GELU_IS_RELU", "N.5", "ReLU in the MLP", _GELU,
        {layers.gelu: instead(lambda R, x: ops.clip(x, low=0.0, high=math.inf))}),
    Deviation("X23", "GELU_IS_SILU", "N.5", "SiLU in the MLP", _GELU, {layers.gelu: instead(lambda R, x: ops.silu(x))}),
    Deviation("X24", "SILU_IS_SIGMOID", "A.4", "σ(x) without the factor x", "x σ(x)",
        {layers.silu: instead(lambda R, x: ops.sigmoid(x))}),
    Deviation("M61", "LN_EPS", "A.14", "ε = 1e-5 in every norm", _NORM, {layers.norm_eps: _eps(1e-5)},
        "mlx-examples#1435, mindone PR#219, candle PR#271 (torch's default)"),
    Deviation("M61b", "LN_EPS_MLP", "A.14", "ε = 1e-5 in the norm before the MLP", _NORM,
        {layers.norm_eps: at("mlp", lambda R, place: 1e-5)}, "diffusers DiTTransformer2DModel, norm3"),
    Deviation("M61c", "LN_EPS_FINAL", "A.14", "ε = 1e-5 in the last norm", _NORM,
        {layers.norm_eps: at("final", lambda R, place: 1e-5)}),
    Deviation("M61d", "LN_EPS_1E-8", "A.14", "ε = 1e-8 in every norm", _NORM, {layers.norm_eps: _eps(1e-8)}),
    Deviation("M61e", "LN_EPS_1E-12", "A.14", "ε = 1e-12 in every norm", _NORM, {layers.norm_eps: _eps(1e-12)}),
    Deviation("M61f", "LN_EPS_1E-3", "A.14", "ε = 1e-3 in every norm", _NORM, {layers.norm_eps: _eps(1e-3)}, "Keras' default"),
    Deviation("X25", "LN_UNBIASED", "A.14", "divides by the unbiased standard deviation (D - 1)", _NORM, _norm(_unbiased),
        "layer norms written with torch.std"),
    Deviation("X26", "LN_EPS_OUTSIDE", "A.14", "(x - μ)/(σ + ε)", _NORM, _norm(_eps_outside)),
    Deviation("X27", "LN_IS_RMS", "A.14", "does not subtract the mean: RMS norm", _NORM,
        _norm(lambda R, x, place="": x / ops.sqrt((x * x).mean(axis=-1, keepdims=True) + layers.norm_eps(R, place)))),
    Deviation("X28", "LN_OVER_TOKENS", "A.14", "mean and variance over all tokens of a sample", _NORM, _norm(_all_tokens)),
    Deviation("M64", "MODULATE_NO_PLUS1", "A.15", "x · scale + shift: dead where scale starts at zero", "x (1 + scale) + shift",
        {layers.modulate: instead(lambda R, x, shift, scale, place="": x * scale[:, None] + shift[:, None])},
        "asked in DiffusionDet#34 and lucidrains#77; hidden on fresh weights"),
    Deviation("M64b", "MODULATE_NO_PLUS1_FINAL", "T.6", "x · scale + shift in the final layer only",
        "x (1 + scale) + shift, in the final layer too",
        {layers.modulate: at("final", lambda R, x, shift, scale, place: x * scale[:, None] + shift[:, None])}),
    Deviation("X29", "BIAS_FORGOTTEN", "A.12", "x Wᵀ, no linear has its bias", "x Wᵀ + b",
        {layers.linear: instead(lambda R, x, weight, bias: ops.linear(x, weight))}),
    Deviation("X30", "WEIGHT_NOT_TRANSPOSED", "A.12", "x W + b where the shapes allow it", "x Wᵀ + b, weight (out, in)",
        {layers.linear: instead(lambda R, x, weight, bias: ops.matmul(x, weight) + bias)},
        "weights of TensorFlow or Flax read as they lie"),
]  # fmt: skip
