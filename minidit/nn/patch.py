"""From an image to tokens.

    token_n = W · patch_n + b        W : (D, C, p, p), a convolution with kernel and stride p                (N.9)
"""

from __future__ import annotations

from minidit import ops
from minidit.autograd import Value
from minidit.nn.initial import xavier_uniform
from minidit.nn.layers import Conv2d
from minidit.nn.module import Module


class PatchEmbed(Module):
    """x : (B, C, H, W)  ->  tokens : (B, (H/p)(W/p), D)"""

    def __init__(self, channels: int, width: int, patch_size: int) -> None:
        self.proj = Conv2d(channels, width, patch_size, stride=patch_size, init=xavier_uniform)
        self.patch_size = patch_size

    def forward(self, x: Value) -> Value:
        weight = ops.reshape(self.proj.weight, shape=(self.proj.weight.shape[0], -1))
        return ops.linear(ops.patchify(x, patch_size=self.patch_size), weight, self.proj.bias)  # (N.9)
