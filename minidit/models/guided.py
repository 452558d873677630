"""A DiT that knows its guidance: one call where guidance takes two.

    c = MLP(emb(t)) + table[y] + G(w) - G(1),    G(w) = MLP'(emb(10 w)),    last weight of MLP' zero at the start        (T.28)

A fresh one answers as the DiT whose weights it has, for every w. With w = 1 it does so however G was trained; trained by guidance
distillation (G.9) it answers what the DiT answers under guidance with the scale w.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from minidit.autograd import Tensor, Value
from minidit.backend import Array, xp_of
from minidit.models.backbone import check_inputs
from minidit.models.condition import check_one_per_sample
from minidit.models.embedders import TimestepEmbedder
from minidit.models.extended import ExtendedConfig, ExtendedDiT, Fixed
from minidit.nn.initial import zeros
from minidit.random import Philox

UNIT = 10.0  # of scales: those that differ by 0.1 are one radian apart in the fastest wave; with FLUX's 1000 they are strangers


@dataclass(frozen=True)
class GuidedConfig(ExtendedConfig):
    """The sizes of a DiT that knows its guidance. Raises ValueError if they conflict."""

    calls: ClassVar[int] = 2  # G(w) and G(1)


class GuidedDiT(ExtendedDiT):
    """out = model(x, t, y, w=…):  x, t, y as of a DiT, w a guidance scale, or one per sample (None: 1)  ->  (B, C, H, W)."""

    sizes = GuidedConfig
    config: GuidedConfig

    def __init__(
        self, config: GuidedConfig, rng: Philox | None = None, *, device: str = "cpu", dtype: DTypeLike = np.float32
    ) -> None:
        self.guidance_embedder = TimestepEmbedder(config.hidden_size, last=zeros)
        super().__init__(config, rng, device=device, dtype=dtype)

    def forward(self, x: Value, t: Array, y: Array | None = None, *, w: Any = None) -> Value:
        check_inputs(self, x, t, y)
        xp, G = xp_of(t), self.guidance_embedder
        w = xp.broadcast_to(xp.asarray(1.0 if w is None else w, np.float64), t.shape)
        check_one_per_sample("w", w, len(x))
        scale = G(UNIT * w) - G(xp.full(t.shape, UNIT))  # (T.28)
        return self.conditioned(x, [self.t_embedder(t), *([] if y is None else [self.y_embedder(y)]), scale])


@dataclass(frozen=True)
class OfScale(Fixed[GuidedDiT]):
    """A network that knows its guidance, as a backbone for one scale w."""

    w: float

    def __call__(self, x: Value, t: Array, y: Array | None = None) -> Tensor:
        out: Tensor = self.network(x, t, y, w=self.w)
        return out
