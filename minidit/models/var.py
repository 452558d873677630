"""VAR (Tian et al. 2024): all codes of a scale are written at once, from what the coarser scales drew.

    h of scale 1 = class[y] + start,   of scale k+1 = W A_{k+1} f̂_k;   + place + level[k]                            (T.45)
    (α₁, α₂, γ₁, γ₂, β₁, β₂) = Linear(SiLU(class[y]))          the class alone: there is no time                     (T.46)
    h ← h + α₁ ⊙ Attn(LN(h) ⊙ (1 + γ₁) + β₁),   h ← h + α₂ ⊙ MLP(LN(h) ⊙ (1 + γ₂) + β₂)      block-causal (Q.15)     (T.47)
    q̂ = q/‖q‖ · e^min(s, ln 100),   k̂ = k/‖k‖                   one trained s per head, ln 4 at first; no 1/√K        (T.48)
    logits = W (LN(h) ⊙ (1 + γ) + β),   (γ, β) = Linear(SiLU(class[y]))                                              (T.49)

A token never sees another one of its own scale's codes: the input of a scale is made of the coarser scales only. Parameter names
are the published ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import ClassVar, Self

import numpy as np
from numpy.typing import DTypeLike

from minidit import ops
from minidit.autograd import Value, value
from minidit.backend import Array, module_of
from minidit.kernels import cpu
from minidit.kernels.cpu_step import ScaleWeights, scale_block
from minidit.models.condition import check_dropout
from minidit.models.of_codes import OfCodes
from minidit.nn import Embedding, Linear, Mlp, Module, Sequential, SiLU
from minidit.nn.attention import constant
from minidit.nn.cache import Cache, new_rows
from minidit.nn.initial import normal, zeros
from minidit.nn.masks import by_level
from minidit.nn.module import Parameter
from minidit.random import Philox


@dataclass(frozen=True)
class VARConfig(OfCodes):
    """The sizes of a transformer on scales. Raises ValueError if they conflict."""

    sizes: tuple[int, ...] = (1, 2, 4, 8)  # the sides of the scales
    vocabulary: int = 512
    channels: int = 8  # of the tokenizer's vectors
    hidden_size: int = 64
    depth: int = 4
    num_heads: int = 2
    mlp_ratio: float = 4.0
    class_dropout_prob: float = 0.1
    num_classes: int = 10
    gate: float = 0.1  # α of a fresh network: the paper's is 1e-5 of a random number, too slow for minutes
    stored: ClassVar[tuple[float, float]] = (11.0, 1.6)

    def __post_init__(self) -> None:
        numbers = (*self.sizes, self.vocabulary, self.channels, self.hidden_size, self.depth, self.num_heads, self.mlp_ratio)
        if not self.sizes or min(numbers) <= 0:
            raise ValueError(f"every size must be positive: {self}")
        check_dropout(self.num_classes, self.class_dropout_prob)
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} must be divisible by num_heads {self.num_heads}")

    @property
    def groups(self) -> tuple[int, ...]:
        """The codes of every scale."""
        return tuple(p * p for p in self.sizes)

    @property
    def tokens(self) -> int:
        """The codes of one picture."""
        return sum(self.groups)

    @property
    def passes(self) -> int:
        """Calls of the network for one picture, guidance not counted."""
        return len(self.sizes)

    @property
    def inner_size(self) -> int:
        return int(self.hidden_size * self.mlp_ratio)

    def fitted(self, shape: tuple[int, ...], classes: int) -> Self:
        """The same network for maps of vectors (d, h, w) and so many classes."""
        return self.map_of(shape, classes, channels=shape[0])

    def of_codes(self, vocabulary: int, sizes: tuple[int, ...]) -> Self:
        """The same network for so many different codes of these scales. Raises ValueError for codes without scales."""
        if not sizes:
            raise ValueError("var writes one scale after another, and this tokenizer has one scale only: add --process raster")
        return replace(self, vocabulary=vocabulary, sizes=sizes)

    def parameters(self) -> int:
        """Numbers in the checkpoint."""
        D, K, inner = self.hidden_size, self.vocabulary, self.inner_size
        block = 4 * D * D + 3 * D + 2 * D * inner + inner + D + 6 * D * D + 6 * D + self.num_heads
        places = (self.groups[0] + self.tokens + len(self.sizes)) * D
        ends = (self.channels + 1) * D + max(1, self.condition.rows) * D + 2 * D * D + 2 * D + (D + 1) * K
        return self.depth * block + places + ends

    def macs(self) -> int:
        """Multiply-accumulates for all codes of one picture, in one pass; the mask saves nothing."""
        N, D = self.tokens, self.hidden_size
        block = int((4 + 2 * self.mlp_ratio) * N * D * D) + 2 * N * N * D + 6 * D * D
        return self.depth * block + (N - self.groups[0]) * self.channels * D + 2 * D * D + N * D * self.vocabulary


class Attention(Module):
    """x : (B, n, D)  ->  (B, n, D): tokens see all of their own scale and of the coarser ones. Keys have no bias."""

    def __init__(self, width: int, heads: int) -> None:
        self.heads = heads
        self.scale_mul_1H11 = Parameter((1, heads, 1, 1), lambda rng, shape, dtype: np.full(shape, math.log(4), dtype))
        self.mat_qkv = Linear(width, 3 * width, bias=False, init=normal(0.02))
        self.q_bias, self.v_bias = (Parameter((width,), zeros) for _ in range(2))
        self.proj = Linear(width, width, init=normal(0.02))

    def forward(self, x: Value, mask: Array | None, cache: Cache | None, layer: int) -> Value:
        B, n, D = x.shape
        q, k, v = ops.unpacked(self.mat_qkv(x) + self.bias(), heads=self.heads)
        q, k = unit(q) * self.length(), unit(k)  # (T.48)
        if cache is not None:
            k, v = cache.extended(layer, k, v)
        y = ops.attention(q, k, v) if mask is None else ops.attention(q, k, v, constant(mask, x))
        return self.proj(ops.transpose(y, axes=(0, 2, 1, 3)).reshape(B, n, D))

    def bias(self) -> Value:
        """(3D,), zero for keys."""
        return ops.concat(self.q_bias, 0 * self.q_bias.data, self.v_bias, axis=0)

    def length(self) -> Value:
        """(1, heads, 1, 1): e^min(s, ln 100) √K, as attention divides by √K."""
        K = len(self.q_bias) // self.heads
        return ops.exp(ops.clip(self.scale_mul_1H11, low=-math.inf, high=math.log(100))) * K**0.5


EPS = 1e-12  # of lengths


def unit(x: Value, eps: float = EPS) -> Value:
    """x : (..., K)  ->  x/‖x‖"""
    return x / (ops.sum(x * x, axis=-1, keepdims=True) + eps) ** 0.5


def arrays(layer: Linear) -> tuple[Array, Array]:
    """Weight and bias of a layer that has both."""
    assert layer.bias is not None
    return layer.weight.data, layer.bias.data


class VARBlock(Module):
    """x : (B, n, D), c : (B, D)  ->  (B, n, D)"""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        self.attn, self.ffn = Attention(width, heads), Mlp(width, inner)
        self.ada_lin = Sequential(SiLU(), Linear(width, 6 * width, init=normal(0.02)))

    def forward(self, x: Value, c: Value, mask: Array | None, cache: Cache | None, layer: int) -> Value:
        gate1, gate2, scale1, scale2, shift1, shift2 = ops.split(self.ada_lin(c), parts=6)  # (T.46)
        x = ops.gated_residual(x, gate1, self.attn(ops.layer_norm_modulate(x, shift1, scale1), mask, cache, layer))
        return ops.gated_residual(x, gate2, self.ffn(ops.layer_norm_modulate(x, shift2, scale2)))  # (T.47)

    def weights(self, c: Value) -> ScaleWeights:
        """What the fused form for the tokens of one scale needs, without a tape."""
        attn, ffn = self.attn, self.ffn
        qkv, length = attn.mat_qkv.weight.data, value(attn.length())[0, :, 0]
        mlp = *arrays(ffn.fc1), *arrays(ffn.fc2)
        parts = tuple(value(part) for part in ops.split(self.ada_lin(c), parts=6))
        return ScaleWeights((qkv, value(attn.bias())), arrays(attn.proj), mlp, length, parts)


class Head(Module):
    """The norm before the logits; its shift comes after its scale."""

    def __init__(self, width: int) -> None:
        self.ada_lin = Sequential(SiLU(), Linear(width, 2 * width, init=normal(0.02)))

    def forward(self, x: Value, c: Value) -> Value:
        scale, shift = ops.split(self.ada_lin(c), parts=2)
        return ops.layer_norm_modulate(x, shift, scale)  # (T.49)


class VAR(Module):
    """logits = network(seen, y):  seen (B, m, channels), what is seen before scales 2, 3, … (Q.10)  ->  (B, p₁² + m, K).

    With a cache, seen is what comes before the next scale, (B, 0, channels) at first; the logits are those of that scale only.
    rng=None allocates without initialising, for loading. Raises ValueError for wrong shapes.
    """

    second_half = False

    def __init__(
        self, config: VARConfig, rng: Philox | None = None, *, device: str = "cpu", dtype: DTypeLike = np.float32
    ) -> None:
        D, std = config.hidden_size, (1 / (3 * config.hidden_size)) ** 0.5
        self.config, self.condition, self.shape = config, config.condition, (config.tokens,)
        self.word_embed = Linear(config.channels, D)
        self.class_emb = Embedding(max(1, config.condition.rows), D, normal(std))
        self.pos_start = Parameter((1, config.groups[0], D), normal(std))
        self.pos_1LC = Parameter((1, config.tokens, D), normal(std))
        self.lvl_embed = Embedding(len(config.sizes), D, normal(std))
        inner = int(D * config.mlp_ratio)
        self.blocks = [VARBlock(D, config.num_heads, inner) for _ in range(config.depth)]
        self.head_nm, self.head = Head(D), Linear(D, config.vocabulary, init=normal(0.02))
        self.level = np.repeat(np.arange(len(config.sizes)), config.groups)
        self.mask, self.ends = by_level(self.level.tolist()), (0, *accumulate(config.groups))
        self.build(rng, device=device, dtype=dtype)
        if rng is not None:
            for block in self.blocks:
                block.ada_lin[1].bias.data[: 2 * D] = config.gate

    def forward(self, seen: Array, y: Array | None = None, cache: Cache | None = None) -> Value:
        used, B = 0 if cache is None else cache.used, len(seen)
        m = seen.shape[1] + (0 if used else self.config.groups[0])
        if seen.ndim != 3 or seen.shape[2] != self.config.channels or used + m not in self.ends:
            raise ValueError(f"seen has shape {tuple(seen.shape)}, expected (B, whole scales, {self.config.channels})")
        self.condition.check(y, B)
        if cache is not None and cache.fuses:
            return self.step(seen, y, cache)
        c = self.class_of(y, B)
        h = [] if used else [c.reshape(B, 1, -1) + self.pos_start]
        if seen.shape[1]:
            h.append(self.word_embed(seen))
        x = h[0] if len(h) == 1 else ops.concat(*h, axis=1)
        x = x + (self.pos_1LC[:, used : used + m] + self.lvl_embed(self.level[used : used + m]))  # (T.45)
        mask = new_rows(self.mask, used, m, x)
        for layer, block in enumerate(self.blocks):
            x = block(x, c, mask, cache, layer)
        if cache is not None:
            cache.written(m)
        return self.head(self.head_nm(x, c))  # (T.49)

    def class_of(self, y: Array | None, B: int) -> Value:
        """(B, D)"""
        return self.class_emb(module_of(self.device).zeros(B, np.int64) if y is None else y)

    def step(self, seen: Array, y: Array | None, cache: Cache) -> Array:
        """The same for the next scales, every block in one function (kernels/cpu_step.py)."""
        c, places, blocks, (shift, scale) = cache.once(self.folded, y, len(seen))
        used = cache.used
        m = seen.shape[1] + (0 if used else self.config.groups[0])
        x = np.empty((len(seen), m, c.shape[1]), np.float32)
        x[:, m - seen.shape[1] :] = cpu.linear(seen, *arrays(self.word_embed))[0]
        if not used:
            x[:, : self.config.groups[0]] = c[:, None] + self.pos_start.data
        x += places[used : used + m]
        mask = new_rows(self.mask, used, m, x)
        for weights, (keys, values) in zip(blocks, cache.room(m), strict=True):
            x = scale_block(x, weights, keys, values, mask, EPS)
        cache.written(m)
        return cpu.linear(cpu.layer_norm_modulate(x, shift, scale)[0], *arrays(self.head))[0]

    def folded(self, y: Array | None, B: int) -> tuple[Array, Array, list[ScaleWeights], list[Array]]:
        """Of `step`: the class, what is added to all tokens, the blocks, and shift and scale before the logits."""
        c = self.class_of(y, B)
        places = self.pos_1LC.data[0] + self.lvl_embed.weight.data[self.level]
        scale, shift = ops.split(self.head_nm.ada_lin(c), parts=2)
        return value(c), places, [block.weights(c) for block in self.blocks], [value(shift), value(scale)]

    def null(self, y: Array | None) -> Array:
        """The labels of the same batch with the class left out. Raises ValueError if the model has no null label."""
        return self.condition.left_out(y)

    def cache(self, batch: int) -> Cache:
        """Room for all tokens of `batch` pictures."""
        c = self.config
        return Cache(self, c.depth, batch, c.num_heads, c.tokens, c.hidden_size // c.num_heads)
