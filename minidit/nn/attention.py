"""Multi-head attention with its projections.

    y = W_o · heads(softmax(q kᵀ/√K) v) + b_o,    (q, k, v) = W_qkv x + b_qkv                            (N.3)
    y = W_o · heads(softmax(q kᵀ/√K) v) + b_o,    q = W_q x,  (k, v) = W_kv context                       (N.4)
    (y₁; y₂; …) = softmax(q kᵀ/√K + mask) v,      (q, k, v) = (W¹_qkv x₁; W²_qkv x₂; …)                   (N.14)

Joint attention (N.14) is one attention over several streams, one after another, each with projections of its own. Before it,
queries and keys may be normalised (A.29), by each stream's own gains, and turned by their places (A.30).
"""

from __future__ import annotations

from collections.abc import Sequence

from minidit import ops
from minidit.autograd import Value, value
from minidit.backend import Array, resident
from minidit.nn.layers import Linear, RMSNorm
from minidit.nn.module import Module


class SelfAttention(Module):
    """x : (B, N, D)  ->  (B, N, D). The rows of qkv are (3, heads, K), each part head by head (A.20)."""

    def __init__(self, width: int, heads: int) -> None:
        self.heads = heads
        self.qkv, self.proj = Linear(width, 3 * width), Linear(width, width)

    def mixed(self, x: Value) -> Value:
        """The heads side by side, before W_o. A block may then apply W_o and add the result in one primitive."""
        return ops.projected_attention(x, self.qkv.weight, self.qkv.bias, heads=self.heads)

    def forward(self, x: Value) -> Value:
        return self.proj(self.mixed(x))  # (N.3)


class CrossAttention(Module):
    """x : (B, N, D), context : (B, M, D)  ->  (B, N, D): the queries come from x, keys and values from the context."""

    def __init__(self, width: int, heads: int) -> None:
        self.heads = heads
        self.q, self.kv, self.proj = Linear(width, width), Linear(width, 2 * width), Linear(width, width)

    def forward(self, x: Value, context: Value) -> Value:
        B, N, D = x.shape
        M, h = context.shape[1], self.heads
        q = self.q(x).reshape(B, N, h, D // h).transpose(0, 2, 1, 3)
        k, v = (a.reshape(B, M, h, D // h).transpose(0, 2, 1, 3) for a in ops.split(self.kv(context), parts=2))
        y = ops.attention(q, k, v)  # (N.4)
        return self.proj(y.transpose(0, 2, 1, 3).reshape(B, N, D))


Turn = tuple[Array, Array]  # cos and sin of `nn.position.rotary`


def constant(table: Array, like: Value) -> Array:
    """A constant table in the home of an array; in float64 beside float64, in float32 beside anything else."""
    a = value(like)
    table = resident(table, like=a)
    return table.astype("float64" if a.dtype.name == "float64" else "float32", copy=False)


class StreamAttention(Module):
    """The projections of one stream of a joint attention. out: whether the stream goes on, and so has an output projection."""

    def __init__(self, width: int, heads: int, *, qk_norm: bool = False, out: bool = True) -> None:
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        if qk_norm:
            self.ln_q, self.ln_k = RMSNorm(width // heads), RMSNorm(width // heads)
        self.proj = Linear(width, width) if out else None
        self.qk_norm = qk_norm

    def packed(self, x: Value, turn: Turn | None = None) -> Value:
        """x : (B, N, D)  ->  (B, N, 3D), packed as (3, heads, K), queries and keys normalised if they are, and turned.

        turn : tables (N, K/2) in the home and type of x
        """
        qkv, tables = self.qkv(x), turn or ()
        if self.qk_norm:
            return ops.qk_norm(qkv, self.ln_q.weight, self.ln_k.weight, *tables, heads=self.heads)
        return ops.qk_rope(qkv, *tables, heads=self.heads) if tables else qkv

    def leave(self, x: Value, gate: Value, y: Value) -> Value:
        """x + gate ⊙ (W_o y + b_o), with y the heads of the attention."""
        assert self.proj is not None  # the stream goes on
        return ops.linear_residual(x, gate, y, self.proj.weight, self.proj.bias)


def attended(qkv: Value, heads: int, turn: Turn | None = None, mask: Array = None) -> Value:
    """qkv : (B, N, 3D)  ->  (B, N, D), the heads side by side. turn : tables (N, K/2), mask : (N, N), additive."""
    if turn is not None:
        qkv = ops.qk_rope(qkv, constant(turn[0], qkv), constant(turn[1], qkv), heads=heads)
    if mask is None:
        return ops.self_attention(qkv, heads=heads)
    q, k, v = ops.unpacked(qkv, heads=heads)
    y = ops.attention(q, k, v, constant(mask, qkv))
    return ops.transpose(y, axes=(0, 2, 1, 3)).reshape(qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3)


def joint_attention(
    streams: Sequence[StreamAttention], xs: Sequence[Value], turn: Turn | None = None, mask: Array = None
) -> Sequence[Value]:
    """xs : (B, N_i, D), one per stream  ->  the same shapes: the heads of every stream's tokens, before its output projection."""
    packed, start = list[Value](), 0
    tables = None if turn is None else (constant(turn[0], xs[0]), constant(turn[1], xs[0]))
    for stream, x in zip(streams, xs, strict=True):
        own = slice(start, start + x.shape[1])
        packed.append(stream.packed(x, None if tables is None else (tables[0][own], tables[1][own])))
        start += x.shape[1]
    if len(packed) == 1:
        return [attended(packed[0], streams[0].heads, mask=mask)]
    y = attended(ops.concat(*packed, axis=1), streams[0].heads, mask=mask)
    parts: Sequence[Value] = ops.split(y, parts=tuple(x.shape[1] for x in xs), axis=1)  # (N.14)
    return parts
