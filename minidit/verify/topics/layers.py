"""Topics: the layers of a DiT, each alone. Weights carry the names of the official checkpoints, without the layer's prefix.

Every part is written on ops and runs on arrays and on Tensors alike, so that a mistake also shows in gradients. Attention and
the MLP are put together from small ops, because mistakes change packing, scale and activation in the middle (M55 to M59, X20,
X21); so are `modulate` and `gated_residual`, which gives gradients that the package's fused adjoints are compared with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minidit import ops
from minidit.backend import Array
from minidit.random import Philox
from minidit.verify.core.reference import Group, Probe, Reference, part

topic = Group("layers")

Numbers = Any  # an Array or a Tensor: parts run on both, so that a mistake also shows in gradients
Weights = Mapping[str, Numbers]
PEAK = 2.7  # |x| where the two forms of GELU differ most


def normal(rng: Philox, *shape: int, std: float = 1.0) -> Array:
    """N(0, std²) in float64."""
    return std * rng.normal(shape, dtype=np.float64)


def dense(rng: Philox, out: int, fan_in: int) -> Array:
    """A weight (out, fan_in) that keeps the size of what it multiplies."""
    return normal(rng, out, fan_in, std=fan_in**-0.5)


def inside(weights: Weights, prefix: str) -> dict[str, Numbers]:
    """The weights below a prefix, without it."""
    return {name[len(prefix) :]: w for name, w in weights.items() if name.startswith(prefix)}


# ------------------------------------------------------------------------------------------------ products and pointwise


def _linears() -> list[Probe]:
    rng = Philox(31)
    tall = (normal(rng, 2, 3), normal(rng, 4, 3), normal(rng, 4))
    square = (normal(rng, 2, 5, 4), normal(rng, 4, 4), normal(rng, 4))
    return [Probe("3-to-4", tall, "the axes of the weight, the bias"), Probe("4-to-4", square, "a square weight hides its axes")]


@topic("A.12", "x (..., n), weight (m, n), bias (m,)", "(..., m)", _linears)
def linear(R: Reference, x: Numbers, weight: Numbers, bias: Numbers) -> Numbers:
    """x Wᵀ + b."""
    return ops.linear(x, weight, bias)


def _points() -> list[Probe]:
    x = np.array([0.0, 1.0, -1.0, PEAK, -PEAK, 0.3, -6.0, 6.0, -40.0])
    return [Probe("points", (x,), "±2.70, where the forms of GELU differ most"), Probe("rows", (normal(Philox(32), 3, 4),))]


@topic("A.5", "x (...)", "the same shape, the tanh form", _points)
def gelu(R: Reference, x: Numbers) -> Numbers:
    """½ x (1 + tanh(√(2/π)(x + 0.044715 x³)))."""
    return ops.gelu(x)


@topic("A.4", "x (...)", "the same shape", _points)
def silu(R: Reference, x: Numbers) -> Numbers:
    """x σ(x)."""
    return ops.silu(x)


def _logits() -> list[Probe]:
    x = normal(Philox(33), 2, 3, 4, 5, std=2)
    return [
        Probe("one-row", (np.array([[0.0, 1.0, 2.5]]),)),
        Probe("heads", (x,), "over the last axis only"),
        Probe("large", (x * 400 + 1000,), "logits whose exponential overflows"),
        Probe("float16", (x * 40000,), "logits beyond the range of float16"),
    ]


@topic("A.13", "x (..., n)", "the same shape; sums to 1 over the last axis", _logits)
def softmax(R: Reference, x: Numbers) -> Numbers:
    """e^x / Σ e^x over the last axis."""
    return ops.softmax(x)


# ------------------------------------------------------------------------------------------------ norms


def _norms() -> list[Probe]:
    rng = Philox(34)
    x = normal(rng, 2, 3, 8) + 0.7
    return [Probe("unit", (x,), "a mean that is not 0"), Probe("small", (x * 3e-3,), "small activations show ε")]


norm_eps = part(lambda R, place: 1e-6)  # ε under the root; place: attn, mlp, final, or "" for the layer alone


@topic("A.14", "x (..., D)", "the same shape: (x - μ)/√(σ² + 1e-6), no parameters", _norms)
def layer_norm(R: Reference, x: Numbers, place: str = "") -> Numbers:
    """(x - μ)/√(σ² + 1e-6) over the last axis, σ² the biased variance, no weights of its own."""
    return ops.standardise(x, eps=norm_eps(R, place))


def _modulations() -> list[Probe]:
    rng = Philox(35)
    return [Probe("two-samples", (normal(rng, 2, 3, 4), normal(rng, 2, 4), normal(rng, 2, 4)), "shift first")]


@topic("A.15", "x (B,N,D), shift (B,D), scale (B,D)", "(B,N,D)", _modulations)
def modulate(R: Reference, x: Numbers, shift: Numbers, scale: Numbers, place: str = "") -> Numbers:
    """x (1 + scale) + shift."""
    return x * (1 + scale[:, None]) + shift[:, None]


def entered(R: Reference, x: Array, shift: Array, scale: Array) -> Array:
    """LN(x)(1+γ)+β of streams and of VAR, which no mistake of a DiT's modulation reaches."""
    return np.asarray(layer_norm(R, x) * (1 + scale[:, None]) + shift[:, None])


def _gates() -> list[Probe]:
    rng = Philox(36)
    return [Probe("two-samples", (normal(rng, 2, 3, 4), normal(rng, 2, 4), normal(rng, 2, 3, 4)))]


@topic("A.21", "x (B,N,D), gate (B,D), h (B,N,D)", "x + gate ⊙ h", _gates)
def gated_residual(R: Reference, x: Numbers, gate: Numbers, h: Numbers, place: str = "") -> Numbers:
    """x + gate ⊙ h."""
    return x + gate[:, None] * h


# ------------------------------------------------------------------------------------------------ attention


@part
def split_heads(R: Reference, qkv: Numbers, heads: int) -> tuple[Numbers, Numbers, Numbers]:
    """(B, N, 3D), the last axis (3, heads, K)  ->  q, k, v : (B, heads, N, K)."""
    B, N, D = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    q, k, v = (ops.reshape(a, shape=(B, N, heads, D // heads)) for a in ops.split(qkv, parts=3))
    return head_first(R, q), head_first(R, k), head_first(R, v)


head_first = part(lambda R, a: ops.transpose(a, axes=(0, 2, 1, 3)))  # (B, N, heads, K)  ->  (B, heads, N, K)


@part
def merge_heads(R: Reference, y: Numbers) -> Numbers:
    """(B, heads, N, K)  ->  (B, N, D), the heads side by side."""
    B, h, N, K = y.shape
    return ops.reshape(ops.transpose(y, axes=(0, 2, 1, 3)), shape=(B, N, h * K))


logit_scale = part(lambda R, heads, K: float(K**-0.5))  # what q·k is multiplied by


def _heads() -> list[Probe]:
    rng = Philox(37)
    out = []
    for name, shape, size in (("three-heads", (2, 3, 5, 4), 1.0), ("sharp", (1, 2, 4, 6), 60.0)):
        q, k, v = (normal(rng, *shape) for _ in range(3))
        out.append(Probe(name, (size * q, size * k, v), "several heads of a width that is not the model's; large logits"))
    return out


@topic("A.18", "q, k, v (B, heads, N, K)", "(B, heads, N, K)", _heads)
def attention(R: Reference, q: Numbers, k: Numbers, v: Numbers) -> Numbers:
    """softmax(q kᵀ/√K) v."""
    logits = ops.matmul(q, ops.transpose(k, axes=(0, 1, 3, 2))) * logit_scale(R, q.shape[1], q.shape[3])
    return ops.matmul(softmax(R, logits), v)


def _attentions() -> list[Probe]:
    rng, D = Philox(38), 12
    out = []
    for heads, B, N in ((3, 2, 5), (2, 1, 6)):
        w = {"qkv.weight": 1.5 * dense(rng, 3 * D, D), "qkv.bias": normal(rng, 3 * D)}
        w |= {"proj.weight": dense(rng, D, D), "proj.bias": normal(rng, D)}
        out.append(Probe(f"{heads}-heads", (w, normal(rng, B, N, D), heads), "several heads; rows of qkv are (3, heads, K)"))
    return out


@topic("N.3", "weights {qkv.weight (3D,D), qkv.bias, proj.weight (D,D), proj.bias}, x (B,N,D), heads", "(B,N,D)", _attentions)
def self_attention(R: Reference, weights: Weights, x: Numbers, heads: int, place: str = "") -> Numbers:
    """Concat_h(softmax(q_h k_hᵀ/√K) v_h) W_projᵀ + b, the rows of qkv being (3, heads, K)."""
    qkv = R.tap(f"{place}qkv", linear(R, x, weights["qkv.weight"], weights["qkv.bias"]))
    y = merge_heads(R, attention(R, *split_heads(R, qkv, heads)))
    return linear(R, y, weights["proj.weight"], weights["proj.bias"])


def _mlps() -> list[Probe]:
    rng, D = Philox(39), 6
    w = {"fc1.weight": dense(rng, 4 * D, D), "fc1.bias": normal(rng, 4 * D)}
    w |= {"fc2.weight": dense(rng, D, 4 * D), "fc2.bias": normal(rng, D)}
    at_peak = w | {"fc1.weight": 0.3 * w["fc1.weight"], "fc1.bias": np.full(4 * D, -PEAK), "fc2.bias": 0.01 * w["fc2.bias"]}
    x = normal(rng, 2, 3, D)
    return [Probe("random", (w, x)), Probe("at-the-peak", (at_peak, x), "every unit near -2.70: the form of GELU")]


@topic("N.5", "weights {fc1.weight (M,D), fc1.bias, fc2.weight (D,M), fc2.bias}, x (..., D)", "(..., D)", _mlps)
def mlp(R: Reference, weights: Weights, x: Numbers, place: str = "") -> Numbers:
    """W₂ gelu(W₁ x + b₁) + b₂."""
    h = R.tap(f"{place}fc1", linear(R, x, weights["fc1.weight"], weights["fc1.bias"]))
    return linear(R, gelu(R, h), weights["fc2.weight"], weights["fc2.bias"])
