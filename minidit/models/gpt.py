"""LlamaGen's transformer (Sun et al. 2024): a picture is written code by code, row by row, as a language model writes words.

    h_0 = class[y],  h_i = code[x_{i-1}]                     the class is the first token                          (T.41)
    h ← h + W_o Attn(RMSNorm(h)),    h ← h + W₂(SiLU(W₁ n) ⊙ W₃ n),  n = RMSNorm(h)        causal, no biases       (T.42)
    queries and keys are turned by (row, column), half of a head for each; the class token is not turned           (T.43)
    logits_i = W RMSNorm(h_i)                                of code i, from the class and the codes before it     (T.44)

The published code multiplies the query and key of the class token by zero (its table of cosines is zero there), so that every
token sees it with logit 0. `zero_prefix` does the same, for weights that were trained so. Parameter names are the published ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import DTypeLike

from minidit import ops
from minidit.autograd import Value, value
from minidit.backend import Array, module_of, read_only, xp_of
from minidit.kernels.cpu_step import LlamaWeights, Scratch, after_norm, llama_blocks, llama_weights, turned
from minidit.models.condition import check_dropout
from minidit.models.embedders import LabelEmbedder
from minidit.models.of_codes import OfCodes
from minidit.nn import Embedding, Linear, Module, RMSNorm, rotary
from minidit.nn.attention import Turn, constant
from minidit.nn.cache import Cache, new_rows
from minidit.nn.initial import normal, zeros
from minidit.nn.masks import causal
from minidit.nn.position import grid_ids
from minidit.random import Philox


@dataclass(frozen=True)
class GPTConfig(OfCodes):
    """The sizes of a transformer on codes. Raises ValueError if they conflict."""

    grid: tuple[int, int] = (8, 8)  # of codes, row by row
    vocabulary: int = 512
    hidden_size: int = 64
    depth: int = 4
    num_heads: int = 2
    inner: int = 192  # of the feed-forward layer
    class_dropout_prob: float = 0.1
    num_classes: int = 10  # 0: one token that says nothing
    theta: float = 10000.0  # of the angles of places
    zero_prefix: bool = False
    stored: ClassVar[tuple[float, float]] = (12.0, 4.2)

    def __post_init__(self) -> None:
        sizes = (*self.grid, self.vocabulary, self.hidden_size, self.depth, self.num_heads, self.inner)
        if min(sizes) <= 0:
            raise ValueError(f"every size must be positive: {self}")
        check_dropout(self.num_classes, self.class_dropout_prob)
        if self.hidden_size % (4 * self.num_heads):
            raise ValueError(f"hidden_size {self.hidden_size} must be divisible by 4 · num_heads = {4 * self.num_heads}")

    @property
    def tokens(self) -> int:
        """The codes of one picture."""
        return self.grid[0] * self.grid[1]

    @property
    def passes(self) -> int:
        """Calls of the network for one picture, guidance not counted."""
        return self.tokens

    @property
    def inner_size(self) -> int:
        return self.inner

    def fitted(self, shape: tuple[int, ...], classes: int) -> Self:
        """The same network for maps of vectors (d, h, w) and so many classes."""
        return self.map_of(shape, classes, grid=tuple(shape[-2:]))

    def of_codes(self, vocabulary: int, sizes: tuple[int, ...]) -> Self:
        """The same network for so many different codes. Raises ValueError for those of several scales."""
        if sizes:
            raise ValueError(f"gpt writes code after code, and this tokenizer has the scales {sizes}: add --process scales")
        return replace(self, vocabulary=vocabulary)

    def parameters(self) -> int:
        """Numbers in the checkpoint."""
        D, K = self.hidden_size, self.vocabulary
        block = 4 * D * D + 3 * D * self.inner + 2 * D
        return self.depth * block + 2 * K * D + D + max(1, self.condition.rows) * D

    def macs(self) -> int:
        """Multiply-accumulates for all codes of one picture, in one pass; the mask saves nothing."""
        N, D = self.tokens, self.hidden_size
        return self.depth * (N * (4 * D * D + 3 * D * self.inner) + 2 * N * N * D) + N * D * self.vocabulary


class Attention(Module):
    """x : (B, n, D)  ->  (B, n, D): the tokens see themselves and all before them."""

    def __init__(self, width: int, heads: int) -> None:
        self.heads = heads
        self.wqkv = Linear(width, 3 * width, bias=False, init=normal(0.02))
        self.wo = Linear(width, width, bias=False, init=normal(0.02))

    def forward(self, x: Value, turn: Turn, mask: Array | None, cache: Cache | None, layer: int) -> Value:
        B, n, D = x.shape
        qkv = ops.qk_rope(self.wqkv(x), constant(turn[0], x), constant(turn[1], x), heads=self.heads)  # (T.43)
        q, k, v = ops.unpacked(qkv, heads=self.heads)
        if cache is not None:
            k, v = cache.extended(layer, k, v)
        y = ops.attention(q, k, v) if mask is None else ops.attention(q, k, v, constant(mask, x))
        return self.wo(ops.transpose(y, axes=(0, 2, 1, 3)).reshape(B, n, D))


class FeedForward(Module):
    """x : (..., D)  ->  (..., D), SwiGLU (Shazeer 2020)."""

    def __init__(self, width: int, inner: int) -> None:
        self.w1, self.w3 = (Linear(width, inner, bias=False, init=normal(0.02)) for _ in range(2))
        self.w2 = Linear(inner, width, bias=False, init=normal(0.02))

    def forward(self, x: Value) -> Value:
        return self.w2(ops.silu(self.w1(x)) * self.w3(x))


class GPTBlock(Module):
    """x : (B, n, D)  ->  (B, n, D)"""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        self.attention, self.feed_forward = Attention(width, heads), FeedForward(width, inner)
        self.attention_norm, self.ffn_norm = RMSNorm(width, eps=1e-5), RMSNorm(width, eps=1e-5)

    def forward(self, x: Value, turn: Turn, mask: Array | None, cache: Cache | None, layer: int) -> Value:
        x = x + self.attention(self.attention_norm(x), turn, mask, cache, layer)
        return x + self.feed_forward(self.ffn_norm(x))  # (T.42)

    def weights(self) -> LlamaWeights:
        """What the fused form for one new token needs."""
        a, f, norms = self.attention, self.feed_forward, (self.attention_norm.weight.data, self.ffn_norm.weight.data)
        return llama_weights(norms, a.wqkv.weight.data, a.wo.weight.data, (f.w1.weight.data, f.w3.weight.data, f.w2.weight.data))


class GPT(Module):
    """logits = network(index, y):  index (B, n) codes, n ≥ 0, y (B,) int  ->  (B, n + 1, K), those of codes 0 .. n.

    With a cache, index are the codes that follow those in it: none at first, then one after another; the logits are those of
    the new tokens only. rng=None allocates without initialising, for loading. Raises ValueError for wrong shapes.
    """

    second_half = False

    def __init__(
        self, config: GPTConfig, rng: Philox | None = None, *, device: str = "cpu", dtype: DTypeLike = np.float32
    ) -> None:
        D = config.hidden_size
        self.config, self.condition, self.shape = config, config.condition, (config.tokens,)
        self.cls_embedding = LabelEmbedder(max(1, config.condition.rows), D)
        self.tok_embeddings = Embedding(config.vocabulary, D)
        self.layers = [GPTBlock(D, config.num_heads, config.inner) for _ in range(config.depth)]
        self.norm, self.output = RMSNorm(D, eps=1e-5), Linear(D, config.vocabulary, bias=False, init=zeros)
        self.turn, self.mask = turns(config), causal(config.tokens)
        self.turned = turned(*self.turn, config.num_heads)
        self.build(rng, device=device, dtype=dtype)

    def forward(self, index: Array, y: Array | None = None, cache: Cache | None = None) -> Value:
        if cache is not None and cache.at is not None:
            return self.counted(index, y, cache)
        used = 0 if cache is None else cache.used
        m = index.shape[1] + (not used)
        if used + m > self.config.tokens:
            raise ValueError(f"{used + m - 1} codes are before the next one, and a picture has {self.config.tokens}")
        if cache is not None and m == 1 and cache.fuses:
            return self.step(index, y, cache)
        codes = [self.tok_embeddings(index)] if index.shape[1] else []
        h = codes if used else [self.first(len(index), y), *codes]
        x = h[0] if len(h) == 1 else ops.concat(*h, axis=1)  # (T.41)
        cos, sin = (constant(table, x)[used : used + m] for table in self.turn)
        return self.through(x, (cos, sin), new_rows(self.mask, used, m, x), m, cache)

    def through(self, x: Value, turn: Turn, mask: Array | None, m: int, cache: Cache | None) -> Value:
        """x : (B, m, D) through all blocks  ->  logits : (B, m, K)."""
        for layer, block in enumerate(self.layers):
            x = block(x, turn, mask, cache, layer)
        if cache is not None:
            cache.written(m)
        return self.output(self.norm(x))  # (T.44)

    def counted(self, index: Array, y: Array | None, cache: Cache) -> Value:
        """As `forward` for one token, at the place that the cache counts on the device. index : (B, 1), unused for the first."""
        first, code = value(self.first(len(index), y)), value(self.tok_embeddings(index))
        x = xp_of(code).where(cache.at == 0, first, code)
        cos, sin, mask = (constant(table, x)[cache.at] for table in (*self.turn, self.mask))
        return self.through(x, (cos, sin), mask, 1, cache)

    def step(self, index: Array, y: Array | None, cache: Cache) -> Array:
        """The same for one new token, every block in one function (kernels/cpu_step.py)."""
        x = self.tok_embeddings.weight.data.take(index[:, 0], axis=0) if cache.used else value(self.first(len(index), y))[:, 0]
        blocks, last, scratch = cache.once(self.folded, len(x))
        n = llama_blocks(x, blocks, self.turned[cache.used], cache.room(1), scratch)
        cache.written(1)
        logits: Array = n.dot(last)
        return logits[:, None]

    def folded(self, B: int) -> tuple[list[LlamaWeights], Array, Scratch]:
        """Of `step`: the weights of the blocks, W of the logits, and memory."""
        blocks, c = [block.weights() for block in self.layers], self.config
        scratch = Scratch(B, c.num_heads, c.hidden_size, c.inner, c.depth, self.norm.eps)
        return blocks, after_norm(self.output.weight.data, self.norm.weight.data), scratch

    def first(self, B: int, y: Array | None) -> Value:
        """The class token : (B, 1, D)."""
        self.condition.check(y, B)
        row = module_of(self.device).zeros(B, np.int64) if y is None else y
        return self.cls_embedding(row).reshape(B, 1, self.config.hidden_size)

    def null(self, y: Array | None) -> Array:
        """The labels of the same batch with the class left out. Raises ValueError if the model has no null label."""
        return self.condition.left_out(y)

    def cache(self, batch: int, *, counted: bool = False) -> Cache:
        """Room for all tokens of `batch` pictures.   counted : on the device"""
        c = self.config
        return Cache(self, c.depth, batch, c.num_heads, c.tokens, c.hidden_size // c.num_heads, counted=counted)


def turns(config: GPTConfig) -> Turn:
    """(cos, sin) : (tokens, K/2) each, read-only: of the class token, then of all codes but the last."""
    half = config.hidden_size // config.num_heads // 2
    cos, sin = rotary(grid_ids(*config.grid), (half, half), config.theta)
    first = np.zeros_like(cos[:1]) if config.zero_prefix else np.ones_like(cos[:1])
    return read_only(np.concatenate((first, cos[:-1]))), read_only(np.concatenate((0 * first, sin[:-1])))  # (T.43)
