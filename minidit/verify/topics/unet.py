"""Topics: the blocks of DDPM's U-Net. Weights carry the names of diffusers' UNet2DModel, without the block's prefix.

The order of norm, activation, convolution and condition, the scale of attention and what the way up concatenates are parts of
their own, because mistakes change each of them apart. Halving is the topic `halve` (L.7).
"""

from __future__ import annotations

import numpy as np

from minidit import ops
from minidit.backend import Array
from minidit.random import Philox
from minidit.verify.core.reference import Group, Probe, Reference, part
from minidit.verify.topics.layers import Weights, dense, normal

topic = Group("unet")
GROUPS = 2

# ------------------------------------------------------------------------------------------------ time


unet_frequencies = part(lambda R, half: 10000.0 ** (-np.arange(half) / (half - 1)))  # the last one is exactly 1/10000
unet_order = part(lambda R, cos, sin: np.concatenate((sin, cos), axis=1))  # sine first


@topic("N.10", "t (B,), width", "(B, width)",
       lambda: [Probe("three", (np.array([0, 37, 999]), 8), "sines are 0 at t = 0; the last frequency")], tol=10.0,
       because="an angle of 999 in float32 is off by 3e-5")  # fmt: skip
def unet_time_embedding(R: Reference, t: Array, width: int) -> Array:
    """[sin t f | cos t f], f_i = 10000^(-i/(half-1))."""
    angle = np.asarray(t, np.float64)[:, None] * unet_frequencies(R, width // 2)
    return unet_order(R, np.cos(angle), np.sin(angle))


# ------------------------------------------------------------------------------------------------ norm


def _norms() -> list[Probe]:
    rng = Philox(211)
    w, b = 1 + normal(rng, 4, std=0.3), normal(rng, 4)
    x, offset = normal(rng, 2, 4, 2, 3), np.arange(4.0).reshape(4, 1, 1)
    return [
        Probe("unlike-channels", (x + offset, w, b, GROUPS, 1e-6), "channels of one group share mean and variance"),
        Probe("small", (1e-3 * x, w, b, GROUPS, 1e-6), "ε beside a small variance"),
        Probe("cannot-be-cut", (x, w, b, 3, 1e-6), "4 channels are no 3 groups: a refusal"),
    ]


@topic("A.17", "x (B,C,H,W), weight, bias (C,), groups, eps", "(B,C,H,W); a refusal unless groups divide C", _norms)
def group_norm(R: Reference, x: Array, weight: Array, bias: Array, groups: int, eps: float) -> Array:
    """(x - mean)/√(var + ε) w + b, mean and var over C/groups channels and all pixels."""
    return normed(R, x, weight, bias, groups, eps)


normed = part(lambda R, x, weight, bias, groups, eps: ops.group_norm(x, weight, bias, groups=groups, eps=eps))
unet_eps = part(lambda R: 1e-6)  # of every norm of the network

# ------------------------------------------------------------------------------------------------ blocks


def conv(rng: Philox, out: int, into: int, k: int = 3) -> Array:
    """A weight that keeps the size of what it multiplies."""
    return normal(rng, out, into, k, k, std=(into * k * k) ** -0.5)


def block_weights(rng: Philox, C: int, O: int, c: int) -> dict[str, Array]:
    """Weights of a block whose last convolution is not zero, so that it shows."""
    out: dict[str, Array] = {}
    for k, (a, b) in ((1, (C, O)), (2, (O, O))):
        out |= {f"norm{k}.weight": 1 + normal(rng, a, std=0.3), f"norm{k}.bias": normal(rng, a, std=0.3)}
        out |= {f"conv{k}.weight": conv(rng, b, a), f"conv{k}.bias": normal(rng, b, std=0.3)}
    out |= {"time_emb_proj.weight": dense(rng, O, c), "time_emb_proj.bias": normal(rng, O, std=0.3)}
    return out | ({"conv_shortcut.weight": conv(rng, O, C, 1), "conv_shortcut.bias": normal(rng, O, std=0.3)} if C != O else {})


def _blocks() -> list[Probe]:
    rng, out = Philox(212), []
    for name, (C, O), size in (("same-width", (4, 4), 1.0), ("wider", (2, 4), 1.0), ("small", (4, 4), 1e-3)):
        x = size * normal(rng, 2, C, 2, 4)
        out.append(Probe(name, (block_weights(rng, C, O, 6), x, normal(rng, 2, 6), GROUPS), "a shortcut where widths differ; ε"))
    return out


BLOCK = "weights {norm1, conv1, time_emb_proj, norm2, conv2, and conv_shortcut where C is not O: .weight, .bias}"


@topic("T.16", f"{BLOCK}, x (B,C,H,W), c (B,D): the condition before its SiLU, groups", "(B,O,H,W)", _blocks, tol=5.0,
       because="two norms and two convolutions")  # fmt: skip
def unet_block(R: Reference, weights: Weights, x: Array, c: Array, groups: int) -> Array:
    """S x + conv₂(silu(norm₂(conv₁(silu(norm₁(x))) + W silu(c) + b)))."""
    h = activated_norm(R, x, weights["norm1.weight"], weights["norm1.bias"], groups)
    h = ops.conv2d(h, weights["conv1.weight"], weights["conv1.bias"], padding=1)
    m = ops.linear(condition(R, c), weights["time_emb_proj.weight"], weights["time_emb_proj.bias"])[:, :, None, None]
    h = conditioned(R, h, m, weights["norm2.weight"], weights["norm2.bias"], groups)
    h = ops.conv2d(h, weights["conv2.weight"], weights["conv2.bias"], padding=1)
    return added(R, shortcut(R, x, weights), h)


def _plain_blocks() -> list[Probe]:
    def plain(w: Weights) -> dict[str, Array]:
        return {n: a for n, a in w.items() if not n.startswith("time")}

    return [Probe(p.name, (plain(p.args[0]), p.args[1], p.args[3]), p.reveals) for p in _blocks()]


@topic("L.6", "weights {norm1, conv1, norm2, conv2, and conv_shortcut where C is not O: .weight, .bias}, x (B,C,H,W), groups",
       "(B,O,H,W)", _plain_blocks, tol=5.0, because="two norms and two convolutions")  # fmt: skip
def autoencoder_block(R: Reference, weights: Weights, x: Array, groups: int) -> Array:
    """S x + conv₂(silu(norm₂(conv₁(silu(norm₁(x)))))): a U-Net's block that hears no time."""
    h = x
    for k in (1, 2):
        h = activated_norm(R, h, weights[f"norm{k}.weight"], weights[f"norm{k}.bias"], groups)
        h = ops.conv2d(h, weights[f"conv{k}.weight"], weights[f"conv{k}.bias"], padding=1)
    return added(R, shortcut(R, x, weights), h)


silu = part(lambda R, x: ops.silu(x))  # behind every norm
condition = part(lambda R, c: ops.silu(c))  # what W multiplies
activated_norm = part(lambda R, x, w, b, groups: silu(R, normed(R, x, w, b, groups, unet_eps(R))))  # before a convolution
conditioned = part(lambda R, h, m, w, b, groups: activated_norm(R, h + m, w, b, groups))  # the condition enters before norm₂
added = part(lambda R, x, h: x + h)


@part
def shortcut(R: Reference, x: Array, weights: Weights) -> Array:
    """x, through a 1 × 1 convolution where the number of channels changes."""
    if "conv_shortcut.weight" not in weights:
        return x
    return np.asarray(ops.conv2d(x, weights["conv_shortcut.weight"], weights["conv_shortcut.bias"]))


def _attentions() -> list[Probe]:
    rng, C = Philox(213), 4
    weights = {"group_norm.weight": 1 + normal(rng, C, std=0.3), "group_norm.bias": normal(rng, C, std=0.3)}
    for name in ("to_q", "to_k", "to_v", "to_out.0"):
        weights |= {f"{name}.weight": 2 * dense(rng, C, C), f"{name}.bias": normal(rng, C, std=0.3)}
    return [Probe("H2-W3", (weights, normal(rng, 2, C, 2, 3), GROUPS), "one head of full width; H is not W")]


@topic("L.8", "weights {group_norm, to_q, to_k, to_v, to_out.0: .weight, .bias}, x (B,C,H,W), groups", "(B,C,H,W)", _attentions,
       tol=3.0, because="a norm, a softmax and four products")  # fmt: skip
def unet_attention(R: Reference, weights: Weights, x: Array, groups: int) -> Array:
    """x + W_o softmax(q kᵀ/√C) v + b_o, q, k, v of norm(x), one token per pixel."""
    B, C, H, W = x.shape
    n = attended(R, x, weights, groups).reshape(B, C, H * W).transpose(0, 2, 1)
    q, k, v = (ops.linear(n, weights[f"{name}.weight"], weights[f"{name}.bias"]) for name in ("to_q", "to_k", "to_v"))
    y = ops.softmax(q @ k.transpose(0, 2, 1) * pixel_scale(R, C)) @ v
    y = ops.linear(y, weights["to_out.0.weight"], weights["to_out.0.bias"])
    return added(R, x, y.transpose(0, 2, 1).reshape(B, C, H, W))


pixel_scale = part(lambda R, C: C**-0.5)  # of the logits
# what queries, keys and values are made of
attended = part(lambda R, x, w, groups: normed(R, x, w["group_norm.weight"], w["group_norm.bias"], groups, unet_eps(R)))


def _stages() -> list[Probe]:
    (b,), (a,) = _blocks()[:1], _attentions()
    return [Probe("one", (b.args[0], a.args[0], *b.args[1:]), "what is remembered of a block with attention")]


@topic("T.17", f"{BLOCK}, the weights of `unet_attention`, x (B,C,H,W), c (B,D), groups",
       "(x, h): what goes on down, and what is remembered for the way up, each (B,O,H,W)", _stages, tol=8.0,
       because="a block and an attention")  # fmt: skip
def unet_stage(R: Reference, block: Weights, attention: Weights, x: Array, c: Array, groups: int) -> tuple[Array, Array]:
    """x = attention(block(x, c)), and h = x."""
    after_block = unet_block(R, block, x, c, groups)
    x = unet_attention(R, attention, after_block, groups)
    return x, kept(R, after_block, x)


kept = part(lambda R, after_block, after_attention: after_attention)  # of a block that attention follows


def _doubles() -> list[Probe]:
    rng = Philox(214)
    return [Probe("H2-W3", (normal(rng, 2, 2, 2, 3), conv(rng, 2, 2), normal(rng, 2)), "every pixel becomes a square")]


@topic("L.7", "x (B,C,H,W), weight (C,C,3,3), bias (C,)", "(B,C,2H,2W)", _doubles)
def unet_double(R: Reference, x: Array, weight: Array, bias: Array) -> Array:
    """The 3 × 3 convolution of x with every pixel repeated in a 2 × 2 square."""
    return np.asarray(ops.conv2d(enlarged(R, x), weight, bias, padding=1))


enlarged = part(lambda R, x: ops.upsample_nearest(x))  # (B, C, 2H, 2W)

# ------------------------------------------------------------------------------------------------ the way up


def _joins() -> list[Probe]:
    rng = Philox(215)
    return [Probe("unlike", (normal(rng, 1, 2, 1, 2), normal(rng, 1, 3, 1, 2)), "which stands first")]


@topic(
    "T.17", "x (B,C,H,W) on the way up, h (B,K,H,W) remembered from the way down", "(B,C+K,H,W), what the next block gets", _joins
)
def unet_join(R: Reference, x: Array, h: Array) -> Array:
    """[x | h]."""
    return np.concatenate((x, h), axis=1)


remembered = part(lambda R, widths, blocks: [  # channels of what the way down remembers, in its order
    widths[0], *(w for i, w in enumerate(widths) for _ in range(blocks + (i < len(widths) - 1)))])  # fmt: skip
blocks_up = part(lambda R, blocks: blocks + 1)  # of every size


@topic("T.17", "widths, one per size, the largest picture first; blocks per size on the way down",
       "ints: the channels that every block on the way up gets, in order", lambda: [
           Probe("-".join(map(str, args[0])), args, "first in, last out; halved pictures are remembered too")
           for args in (((4, 6), 1), ((2, 6, 8), 2))])  # fmt: skip
def unet_channels(R: Reference, widths: tuple[int, ...], blocks: int) -> Array:
    """Its own channels and those of the last remembered: the first convolution, every block, every halved picture."""
    skips, x, out = list(remembered(R, widths, blocks)), widths[-1], []
    for w in reversed(widths):
        for _ in range(blocks_up(R, blocks)):
            out.append(x + next_of(R, skips))
            x = w
    return np.array(out)


next_of = part(lambda R, skips: skips.pop())  # the one that the next block gets, taken from the list
