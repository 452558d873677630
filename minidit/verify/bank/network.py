"""Mistakes in blocks, in the wiring of the network, in gradients, and in how weights begin (C4)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minidit import ops
from minidit.autograd import Primitive, value
from minidit.backend import Array
from minidit.random import Philox
from minidit.verify.bank.wrap import at, instead, reordered, then
from minidit.verify.core.reference import Deviation, Form, Patches, Reference
from minidit.verify.topics import block, embeddings, layers, network, parameters
from minidit.verify.topics.layers import Numbers, normal

# ------------------------------------------------------------------------------------------------ wiring


def _six(*order: int) -> Patches:
    """The six pieces of the product taken to be shift₁ scale₁ gate₁ shift₂ scale₂ gate₂ at these places."""
    return {block.six_order: reordered(*order)}


def stream_of(f: Form) -> Patches:
    """f(x, attn, mlp, gate1, gate2) -> x; attn and mlp are the branches as functions of the stream."""

    def stream(R: Reference, weights: Any, x: Numbers, six: Any, heads: int, place: str) -> Any:
        shift1, scale1, gate1, shift2, scale2, gate2 = six
        attn = lambda h: block.attention_branch(R, weights, h, shift1, scale1, heads, place)
        mlp = lambda h: block.mlp_branch(R, weights, h, shift2, scale2, place)
        return f(R, x, attn, mlp, gate1, gate2)

    return {block.block_stream: instead(stream)}


def _twice(R: Reference, x: Numbers, attn: Any, mlp: Any, gate1: Any, gate2: Any) -> Numbers:
    for _ in range(2):
        x = layers.gated_residual(R, x, gate1, attn(x), "attn")
    return layers.gated_residual(R, x, gate2, mlp(x), "mlp")


def _mlp_first(R: Reference, x: Numbers, attn: Any, mlp: Any, gate1: Any, gate2: Any) -> Numbers:
    x = layers.gated_residual(R, x, gate2, mlp(x), "mlp")
    return layers.gated_residual(R, x, gate1, attn(x), "attn")


def _no_gate(place: str) -> Patches:
    return {layers.gated_residual: at(place, lambda R, x, gate, h, place: x + h)}


def _gate(f: Form) -> Patches:
    return {layers.gated_residual: instead(lambda R, x, gate, h, place="": f(x, gate[:, None], h))}


# ------------------------------------------------------------------------------------------------ adjoints


def _rows(table: Array, index: Array) -> Any:
    def vjp(y_bar: Array) -> Any:
        table_bar = np.zeros_like(table)
        table_bar[index] = y_bar
        return table_bar, None

    return table[index], vjp


def _softmax(x: Array) -> Any:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    y = e / e.sum(axis=-1, keepdims=True)
    return y, lambda y_bar: (y_bar * y * (1 - y),)


def _linear(x: Array, weight: Array, bias: Array) -> Any:
    y, vjp = ops.linear.plain(x, weight, bias)
    rows = math.prod(x.shape[:-1])
    return y, lambda y_bar: (*vjp(y_bar)[:2], vjp(y_bar)[2] / rows)


def _own_adjoint(f: Form) -> Any:
    """A primitive that is not registered: its adjoint is wrong on purpose."""
    p = Primitive(f)
    return lambda R, *args: p(*args)


def _constant_statistics(R: Reference, x: Numbers, place: str = "") -> Numbers:
    a = value(x)
    r = 1 / np.sqrt(a.var(axis=-1, keepdims=True) + layers.norm_eps(R, place))
    return (x - a.mean(axis=-1, keepdims=True)) * r


# ------------------------------------------------------------------------------------------------ starts


def _from_start(*names: str) -> Patches:
    """zero_start leaves the weights of these names as they were before it."""
    spared: Any = lambda name: not name.endswith("bias") and any(n in name for n in names)
    return {parameters.zero_start: lambda original: lambda R, name, w, rng: w if spared(name) else original(R, name, w, rng)}


def _uniform(rng: Philox, shape: tuple[int, ...], bound: float) -> Array:
    """U(-bound, bound)."""
    return np.asarray(bound * (2 * rng.uniform(shape, dtype=np.float64) - 1))


def _conv_fans(original: Form) -> Any:
    def start(R: Reference, rng: Any, name: str, shape: tuple[int, ...]) -> Array:
        field = math.prod(shape[2:])
        return (
            _uniform(rng, shape, math.sqrt(6 / (field * (shape[0] + shape[1])))) if field > 1 else original(R, rng, name, shape)
        )

    return start


def _started(prefix: str, f: Any) -> Patches:
    return {parameters.condition_start: lambda original: lambda R, rng, name, shape: (
        f(R, rng, name, shape) if name.startswith(prefix) else original(R, rng, name, shape))}  # fmt: skip


def _affine(prefix: str) -> Patches:
    """Weights and biases for the norms whose names begin so."""
    pair: Any = lambda name, D: {f"{name}.weight": (D,), f"{name}.bias": (D,)}
    return {parameters.norm_shapes: lambda f: lambda R, name, D: pair(name, D) if name.startswith(prefix) else f(R, name, D)}


def _small_last(original: Form) -> Any:
    return lambda R, name, w, rng: (
        normal(rng, *w.shape, std=0.02) if name == "final_layer.linear.weight" else original(R, name, w, rng)
    )


_ORDER = "shift₁, scale₁, gate₁, shift₂, scale₂, gate₂ = Linear(SiLU(c)), in this order"
_WIRE = "x ← x + gate₁ Attn(LN(x)(1+scale₁)+shift₁); then x ← x + gate₂ MLP(LN(x)(1+scale₂)+shift₂) on the new x"
_ZERO = "the zeros of adaLN-Zero and of the last linear come last: a fresh block is the identity, a fresh network returns 0"
_NO_NORM = "LN has no weight and no bias: adaLN makes scale and shift"
_START = "Xavier uniform for linears (the patch embedding as a linear), N(0, 0.02²) for time MLP and label table, biases 0"
_BAR = "the adjoint of the same forward pass: "

BANK = [
    Deviation("M65", "SHIFT_SCALE_SWAP", "T.4", "takes scale first, shift second in the blocks", _ORDER, _six(1, 0, 2, 4, 3, 5),
        "diffusers SD3 and Flux swap_scale_shift, stable-diffusion.cpp PR#1707, smalldiffusion; hidden on fresh weights"),
    Deviation("M65b", "SHIFT_SCALE_SWAP_FINAL", "T.6", "takes scale first, shift second in the final layer",
        "shift, scale = Linear(SiLU(c))", {block.two_order: reordered(1, 0)}, "stable-diffusion.cpp PR#1707"),
    Deviation("M65c", "SHIFT_SCALE_SWAP_ALL", "A.15", "takes shift for scale and scale for shift everywhere",
        "x (1 + scale) + shift", {layers.modulate: lambda f: lambda R, x, shift, scale, *place: f(R, x, scale, shift, *place)}),
    Deviation("M66", "GATE_ORDER", "T.4", "takes the gate first in each triple: gate, shift, scale", _ORDER,
        _six(1, 2, 0, 4, 5, 3)),
    Deviation("M66b", "MLP_TRIPLE_FIRST", "T.4", "takes the first triple for the MLP", _ORDER, _six(3, 4, 5, 0, 1, 2)),
    Deviation("M66c", "SIX_BY_KIND", "T.4", "takes both shifts, then both scales, then both gates", _ORDER,
        _six(0, 2, 4, 1, 3, 5)),
    Deviation("M66d", "GATES_SWAPPED", "T.4", "gives each branch the gate of the other", _ORDER, _six(0, 1, 5, 3, 4, 2)),
    Deviation("M70", "ATTENTION_TWICE", "T.5", "runs the attention twice in a block", _WIRE, stream_of(_twice),
        "explainingai DiT-PyTorch#1"),
    Deviation("M70b", "MLP_GATE_MISSING", "T.5", "adds the MLP without its gate", _WIRE, _no_gate("mlp"),
        "explainingai DiT-PyTorch#1"),
    Deviation("M70c", "MLP_READS_OLD_STREAM", "T.5", "the MLP reads the stream from before the attention", _WIRE,
        stream_of(lambda R, x, attn, mlp, gate1, gate2:
            layers.gated_residual(R, layers.gated_residual(R, x, gate1, attn(x), "attn"), gate2, mlp(x), "mlp")),
        "explainingai DiT-PyTorch#1"),
    Deviation("M70d", "ATTENTION_GATE_MISSING", "T.5", "adds the attention without its gate", _WIRE, _no_gate("attn")),
    Deviation("X44", "ATTENTION_FORGOTTEN", "T.5", "adds the MLP to the stream from before the attention", _WIRE,
        stream_of(lambda R, x, attn, mlp, gate1, gate2:
            layers.gated_residual(R, x, gate2, mlp(layers.gated_residual(R, x, gate1, attn(x), "attn")), "mlp"))),
    Deviation("X45", "MLP_FIRST", "T.5", "runs the MLP before the attention", _WIRE, stream_of(_mlp_first)),
    Deviation("X46", "RESIDUAL_MISSING", "A.21", "gate ⊙ h without the stream", "x + gate ⊙ h",
        _gate(lambda x, gate, h: gate * h)),
    Deviation("X47", "GATE_PLUS_ONE", "A.21", "x + (1 + gate) ⊙ h: a fresh block is not the identity", "x + gate ⊙ h",
        _gate(lambda x, gate, h: x + (1 + gate) * h)),
    Deviation("X48", "GATE_ON_THE_SUM", "A.21", "gate ⊙ (x + h)", "x + gate ⊙ h", _gate(lambda x, gate, h: gate * (x + h))),
    Deviation("X49", "GATE_TANH", "A.21", "x + tanh(gate) ⊙ h", "x + gate ⊙ h", _gate(lambda x, gate, h: x + ops.tanh(gate) * h)),
    Deviation("X50", "ADALN_NO_SILU", "T.4", "Linear(c) without SiLU", _ORDER, {block.silu_of_c: instead(lambda R, c: c)}),
    Deviation("X51", "FINAL_NO_NORM", "T.6", "the final layer modulates without a norm", "Linear(LN(x)(1+scale)+shift)",
        {layers.layer_norm: at("final", lambda R, x, place: x)}),
    Deviation("X52", "FINAL_NOT_MODULATED", "T.6", "the final layer ignores shift and scale", "Linear(LN(x)(1+scale)+shift)",
        {layers.modulate: at("final", lambda R, x, shift, scale, place: x)}),
    Deviation("X53", "CLASS_IGNORED", "T.3", "c = e_t: the class is not told", "c = e_t + e_y",
        {network.summed: instead(lambda R, e_t, e_y: e_t)}),
    Deviation("X54", "TIME_IGNORED", "T.3", "c = e_y: the time is not told", "c = e_t + e_y",
        {network.summed: instead(lambda R, e_t, e_y: e_y)}),
    Deviation("X55", "POSEMB_FORGOTTEN", "N.7", "adds no places", "tokens + pos",
        {network.placed: instead(lambda R, tokens, table: tokens)}),
    Deviation("X56", "EMBEDDING_GRAD_OVERWRITTEN", "A.24",
        "writes gradients of rows with table_bar[index] = …: a label twice counts once",
        "every use of a row adds its gradient (np.add.at)", {embeddings.label_rows: instead(_own_adjoint(_rows))}),
    Deviation("X57", "LN_GRAD_CONSTANT_STATISTICS", "A.14", "treats μ and σ as constants in the adjoint of the norm",
        _BAR + "x̄ = r (g - mean g - x̂ mean(g⊙x̂))", {layers.layer_norm: instead(_constant_statistics)}),
    Deviation("X58", "SOFTMAX_GRAD_DIAGONAL", "A.13", "x̄ = ȳ y (1-y): the other entries of the softmax are forgotten",
        _BAR + "x̄ = y ⊙ (ȳ - Σ ȳ⊙y)", {layers.softmax: instead(_own_adjoint(_softmax))}),
    Deviation("X59", "BIAS_GRAD_MEAN", "A.12", "averages the gradient of a bias over rows", _BAR + "b̄ = Σ ȳ",
        {layers.linear: instead(_own_adjoint(_linear))}),
    Deviation("X60", "GRADIENT_OVER_BATCH", "A.1", "divides the gradients by the batch size", "gradients of Σ out_bar ⊙ out",
        {network.bar_in: then(lambda bar: bar / len(bar))}),
    Deviation("X61", "GRADIENT_SIGN", "A.1", "returns the negative gradient", "gradients of Σ out_bar ⊙ out",
        {network.bar_in: then(lambda bar: -bar)}),
    Deviation("X62", "CONDITION_DETACHED", "T.3", "no gradient reaches the time MLP and the label table",
        "c is part of the graph", {network.condition: then(value)}),
    Deviation("M62", "LN_AFFINE_KEPT", "T.5", "the norms of the blocks have weights and biases", _NO_NORM, _affine("blocks"),
        "Diffusion-Planner#80: elementwise_affine left at its default"),
    Deviation("M62b", "LN_AFFINE_KEPT_FINAL", "T.6", "the norm of the final layer has weight and bias", _NO_NORM,
        _affine("final")),
    Deviation("M62c", "LN_AFFINE_KEPT_ALL", "T.5", "all norms have weights and biases", _NO_NORM, _affine(""),
        "elementwise_affine left at its default"),
    Deviation("X63", "QKV_NO_BIAS", "T.9", "qkv has no bias", "every linear has one",
        {parameters.linear_shapes: then(lambda shapes:
            {name: shape for name, shape in shapes.items() if not name.endswith("qkv.bias")})},
        "timm's Attention with qkv_bias left at its default"),
    Deviation("X64", "LABEL_TABLE_NO_NULL", "T.9", "the label table has K rows", "K + 1 rows: the last one means any class",
        {parameters.label_table_rows: instead(lambda R, K: K)}),
    Deviation("M68", "ADALN_ZERO_OVERWRITTEN", "T.7", "the basic Xavier start runs after the zeros and overwrites them all",
        _ZERO, _from_start("adaLN_modulation", "final_layer.linear"), "smalldiffusion DiT.init; F5-TTS#793, DDT#14, torchwm#134"),
    Deviation("M68b", "ADALN_NOT_ZERO_BLOCKS", "T.7", "the modulation of the blocks does not start at zero", _ZERO,
        _from_start("blocks."), "F5-TTS#793"),
    Deviation("M68c", "ADALN_NOT_ZERO_FINAL", "T.7", "the modulation of the final layer does not start at zero", _ZERO,
        _from_start("final_layer.adaLN")),
    Deviation("M69", "FINAL_NOT_ZERO", "T.7", "the last linear does not start at zero: the first loss is not 1", _ZERO,
        _from_start("final_layer.linear"), "DiT#82"),
    Deviation("M69b", "FINAL_SCALE", "T.7", "the last linear starts small, N(0, 0.02²), and not at zero: the first loss is not 1",
        _ZERO, {parameters.zero_start: _small_last}, "DiT#82"),
    Deviation("X65", "PATCH_EMBED_AS_CONVOLUTION", "N.1", "Xavier with the fans of a convolution for the patch embedding", _START,
        {parameters.linear_start: _conv_fans}),
    Deviation("X66", "TORCH_DEFAULT_START", "N.1", "linears start as U(±1/√fan_in), torch's default, weights and biases", _START,
        {parameters.linear_start: instead(lambda R, rng, name, shape: _uniform(rng, shape, math.prod(shape[1:]) ** -0.5)),
        parameters.bias_start: instead(lambda R, rng, name, shape: _uniform(rng, shape, shape[0] ** -0.5))}),
    Deviation("X67", "TIME_MLP_XAVIER", "T.3", "the time MLP starts as the other linears", _START,
        _started("t_embedder", lambda R, *args: parameters.linear_start(R, *args))),
    Deviation("X68", "LABEL_TABLE_N01", "T.3", "the label table starts as N(0, 1)", _START,
        _started("y_embedder", lambda R, rng, name, shape: normal(rng, *shape)), "torch's default of nn.Embedding"),
]  # fmt: skip
