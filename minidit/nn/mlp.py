"""The feed-forward layer of a Transformer block.

    y = W₂ gelu(W₁ x + b₁) + b₂           GELU in its tanh form, inner width = ratio · D                  (N.5)
"""

from __future__ import annotations

from minidit import ops
from minidit.autograd import Value
from minidit.nn.layers import Linear
from minidit.nn.module import Module


class Mlp(Module):
    """x : (..., D)  ->  (..., D)"""

    def __init__(self, width: int, inner: int) -> None:
        self.fc1, self.fc2 = Linear(width, inner), Linear(inner, width)

    def forward(self, x: Value) -> Value:
        return ops.mlp(x, self.fc1.weight, self.fc1.bias, self.fc2.weight, self.fc2.bias)  # (N.5)
