"""The paper's other three ways to tell a transformer its condition (Peebles and Xie 2022, section 3.2); adaLN-Zero is dit.py's.

    adaln             x ← x + Attn(LN(x) (1+γ₁) + β₁), …               shift and scale from c, no gates               (T.10)
    cross_attention   x ← x + Attn(LN x);  x ← x + Cross(LN x, [e_t; e_y]);  x ← x + MLP(LN x)                     (T.11)
    in_context        a plain block on the tokens [x; e_t; e_y]; the two are dropped at the end                      (T.12)

A Conditioning says how tokens and embeddings meet: `enter` before the blocks, `leave` after them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from minidit import ops
from minidit.nn import CrossAttention, LayerNorm, Linear, Mlp, Module, SelfAttention, Sequential, SiLU
from minidit.nn.initial import zeros


class AdaLNBlock(Module):
    """x : (B, N, D), c : (B, D)  ->  (B, N, D)"""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        self.attn = SelfAttention(width, heads)
        self.mlp = Mlp(width, inner)
        self.adaLN_modulation = Sequential(SiLU(), Linear(width, 4 * width))

    def forward(self, x: Any, c: Any, modulation: Any = None) -> Any:
        shift1, scale1, shift2, scale2 = ops.split(self.adaLN_modulation(c), parts=4)
        x = x + self.attn(ops.layer_norm_modulate(x, shift1, scale1))
        return x + self.mlp(ops.layer_norm_modulate(x, shift2, scale2))  # (T.10)


class CrossAttentionBlock(Module):
    """x : (B, N, D), c : (B, M, D)  ->  (B, N, D)"""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        self.norm1, self.attn = LayerNorm(width), SelfAttention(width, heads)
        self.norm2, self.cross = LayerNorm(width), CrossAttention(width, heads)
        self.norm3, self.mlp = LayerNorm(width), Mlp(width, inner)

    def forward(self, x: Any, c: Any, modulation: Any = None) -> Any:
        x = x + self.attn(self.norm1(x))
        x = x + self.cross(self.norm2(x), c)
        return x + self.mlp(self.norm3(x))  # (T.11)


class PlainBlock(Module):
    """x : (B, N, D)  ->  (B, N, D): a block of a vision transformer; the condition is among its tokens."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        self.norm1, self.attn = LayerNorm(width), SelfAttention(width, heads)
        self.norm2, self.mlp = LayerNorm(width), Mlp(width, inner)

    def forward(self, x: Any, c: Any, modulation: Any = None) -> Any:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))  # (T.12)


class PlainFinalLayer(Module):
    """x : (B, N, D)  ->  (B, N, p p C_out), for blocks without adaLN."""

    def __init__(self, width: int, out: int) -> None:
        self.norm, self.linear = LayerNorm(width), Linear(width, out, init=zeros)

    def forward(self, x: Any, c: Any) -> Any:
        return self.linear(self.norm(x))


@dataclass(frozen=True)
class Conditioning:
    """enter(tokens, [e_t, e_y]) -> (tokens, c);  leave(tokens, N) -> the N tokens of the picture."""

    block: Callable[..., Module]  # of width, heads, inner width
    final: Callable[[int, int], Module]
    enter: Callable[[Any, list[Any]], tuple[Any, Any]]
    leave: Callable[[Any, int], Any]


def summed(x: Any, embeddings: list[Any]) -> tuple[Any, Any]:
    """c = e_t + e_y (T.3)."""
    return x, embeddings[0] if len(embeddings) == 1 else embeddings[0] + embeddings[1]  # (T.3)


def as_context(x: Any, embeddings: list[Any]) -> tuple[Any, Any]:
    """c = [e_t; e_y], a sequence of one or two tokens."""
    return x, ops.concat(*(ops.reshape(e, shape=(e.shape[0], 1, e.shape[1])) for e in embeddings), axis=1)


def as_tokens(x: Any, embeddings: list[Any]) -> tuple[Any, Any]:
    """The embeddings become tokens behind those of the picture."""
    return ops.concat(x, as_context(x, embeddings)[1], axis=1), None


def unchanged(x: Any, n: int) -> Any:
    """All tokens are the picture's."""
    return x


def first(x: Any, n: int) -> Any:
    """The picture's tokens are the first n."""
    return x[:, :n]
