"""Multi-head attention with its projections.

    y = W_o · heads(softmax(q kᵀ/√K) v) + b_o,    (q, k, v) = W_qkv x + b_qkv                            (N.3)
    y = W_o · heads(softmax(q kᵀ/√K) v) + b_o,    q = W_q x,  (k, v) = W_kv context                       (N.4)
"""

from __future__ import annotations

from minidit import ops
from minidit.autograd import Value
from minidit.nn.layers import Linear
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
