"""A small convolutional classifier, which judges samples.

    features = silu(W · flat(three strided convolutions of x) + b),    logits = V · features + d               (E.9)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from minidit import ops
from minidit.autograd import Value
from minidit.nn import Conv2d, GroupNorm, Linear, Module
from minidit.random import Philox


@dataclass(frozen=True)
class ClassifierConfig:
    """The sizes of the judge."""

    channels: int = 1
    size: int | tuple[int, int] = 32  # height and width of the pictures
    num_classes: int = 10
    widths: tuple[int, int, int] = (16, 32, 64)  # channels at full, half and a quarter of the size
    features: int = 64  # F, numbers per picture by which samples are compared


class Classifier(Module):
    """model(x) -> (logits (B, K), features (B, F));  x : (B, C, H, W) in [-1, 1]."""

    def __init__(
        self, config: ClassifierConfig, rng: Philox | None = None, *, device: str = "cpu", dtype: DTypeLike = np.float32
    ) -> None:
        self.config = config
        a, b, c = config.widths
        H, W = (config.size, config.size) if isinstance(config.size, int) else config.size
        for _ in range(3):
            H, W = -(-H // 2), -(-W // 2)
        self.conv1, self.conv2 = Conv2d(config.channels, a, 3, stride=2), Conv2d(a, b, 3, stride=2)
        self.conv3 = Conv2d(b, c, 3, stride=2)
        self.norm2, self.norm3 = GroupNorm(b, 8), GroupNorm(c, 8)
        self.hidden, self.head = Linear(c * H * W, config.features), Linear(config.features, config.num_classes)
        self.build(rng, device=device, dtype=dtype)

    def forward(self, x: Value) -> tuple[Value, Value]:
        h = ops.silu(self.conv1(x))
        h = ops.silu(self.norm2(self.conv2(h)))
        h = ops.silu(self.norm3(self.conv3(h)))
        features = ops.silu(self.hidden(h.reshape(h.shape[0], -1)))  # (E.9)
        return self.head(features), features
