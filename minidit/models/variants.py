"""The paper's other three ways to condition a transformer (Peebles and Xie 2022, section 3.2); adaLN-Zero is in dit.py.

    adaln             x ← x + Attn(LN(x) (1+γ₁) + β₁), …               shift and scale from c, no gates               (T.10)
    cross_attention   x ← x + Attn(LN x);  x ← x + Cross(LN x, [e_t; e_y]);  x ← x + MLP(LN x)                     (T.11)
    in_context        a plain block on the tokens [x; e_t; e_y]; the two are dropped at the end                      (T.12)

Every block and every final layer states its costs (T.13, T.14), and how many numbers its adjoint keeps.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from minidit import ops
from minidit.autograd import Value
from minidit.nn import CrossAttention, LayerNorm, Linear, Mlp, Module, SelfAttention, Sequential, SiLU
from minidit.nn.block import Block, Costs
from minidit.nn.initial import zeros


class AdaLNBlock(Block):
    """x : (B, N, D), c : (B, D)  ->  (B, N, D)"""

    float32_tokens = False

    def __init__(self, width: int, heads: int, inner: int, eps: float = 1e-6) -> None:
        self.eps = eps
        self.attn = SelfAttention(width, heads)
        self.mlp = Mlp(width, inner)
        self.adaLN_modulation = Sequential(SiLU(), Linear(width, 4 * width))

    def forward(self, x: Value, c: Value) -> Value:
        shift1, scale1, shift2, scale2 = ops.split(self.adaLN_modulation(c), parts=4)
        x = x + self.attn(ops.layer_norm_modulate(x, shift1, scale1))
        return x + self.mlp(ops.layer_norm_modulate(x, shift2, scale2, eps=self.eps))  # (T.10)

    @staticmethod
    def costs(N: int, M: int, D: int) -> Costs:
        return Costs(macs=4 * D * D, parameters=4 * D * D + 4 * D, kept=8, kept_of_sample=5)


class CrossAttentionBlock(Block):
    """x : (B, N, D), c : (B, M, D)  ->  (B, N, D)"""

    def __init__(self, width: int, heads: int, inner: int, eps: float = 1e-6) -> None:
        self.norm1, self.attn = LayerNorm(width), SelfAttention(width, heads)
        self.norm2, self.cross = LayerNorm(width), CrossAttention(width, heads)
        self.norm3, self.mlp = LayerNorm(width, eps=eps), Mlp(width, inner)

    def forward(self, x: Value, c: Value) -> Value:
        x = x + self.attn(self.norm1(x))
        x = x + self.cross(self.norm2(x), c)
        return x + self.mlp(self.norm3(x))  # (T.11)

    @staticmethod
    def costs(N: int, M: int, D: int) -> Costs:
        return Costs(2 * (N + M) * D * D + 2 * N * M * D, parameters=4 * D * D + 10 * D, kept=12, kept_of_sample=2 * M)


class PlainBlock(Block):
    """x : (B, N, D)  ->  (B, N, D): a block of a vision transformer; the condition is among its tokens."""

    def __init__(self, width: int, heads: int, inner: int, eps: float = 1e-6) -> None:
        self.norm1, self.attn = LayerNorm(width), SelfAttention(width, heads)
        self.norm2, self.mlp = LayerNorm(width, eps=eps), Mlp(width, inner)

    def forward(self, x: Value, c: Value) -> Value:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))  # (T.12)

    @staticmethod
    def costs(N: int, M: int, D: int) -> Costs:
        return Costs(macs=0, parameters=4 * D, kept=8, kept_of_sample=2 * M, more_tokens=M)


class PlainFinalLayer(Module):
    """x : (B, N, D)  ->  (B, N, p p C_out), for blocks without adaLN."""

    def __init__(self, width: int, out: int, tokens: int) -> None:
        self.norm, self.linear = LayerNorm(width), Linear(width, out, init=zeros)

    def forward(self, x: Value, c: Value) -> Value:
        return self.linear(self.norm(x))

    @staticmethod
    def costs(D: int) -> Costs:
        return Costs(macs=0, parameters=2 * D)


class FirstTokens(PlainFinalLayer):
    """x : (B, N + M, D)  ->  (B, N, p p C_out): the tokens of the condition, the last M, are dropped."""

    def __init__(self, width: int, out: int, tokens: int) -> None:
        super().__init__(width, out, tokens)
        self.tokens = tokens

    def forward(self, x: Value, c: Value) -> Value:
        return super().forward(x[:, : self.tokens], c)


# ------------------------------------------------------------------------------------------------ how the condition enters


def summed(x: Value, embeddings: list[Value]) -> tuple[Value, Value]:
    """c = e_t + e_y (T.3), and more if a network has more."""
    return x, functools.reduce(operator.add, embeddings)  # (T.3)


def as_context(x: Value, embeddings: list[Value]) -> tuple[Value, Value]:
    """c = [e_t; e_y], a sequence of one or two tokens."""
    return x, ops.concat(*(ops.reshape(e, shape=(e.shape[0], 1, e.shape[1])) for e in embeddings), axis=1)


def as_tokens(x: Value, embeddings: list[Value]) -> tuple[Value, Value]:
    """The embeddings become tokens behind those of the picture."""
    return ops.concat(x, as_context(x, embeddings)[1], axis=1), None


class BlockClass(Protocol):
    """A class of blocks: how to make one, and its costs on N tokens of width D with M embeddings of the condition.

    float32_tokens : whether tokens stay float32 under every policy of precision
    """

    @property
    def float32_tokens(self) -> bool: ...
    def __call__(self, width: int, heads: int, inner: int, eps: float = 1e-6) -> Block: ...
    def costs(self, N: int, M: int, D: int) -> Costs: ...


class FinalClass(Protocol):
    """A class of final layers, from width to `out` numbers per token, and its costs at width D."""

    def __call__(self, width: int, out: int, tokens: int) -> Module: ...
    def costs(self, D: int) -> Costs: ...


@dataclass(frozen=True)
class Variant:
    """One way to condition. enter(tokens, [e_t, e_y]) -> (tokens, c), the arguments of the blocks."""

    block: BlockClass
    final: FinalClass
    enter: Callable[[Value, list[Value]], tuple[Value, Value]]
