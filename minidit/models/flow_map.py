"""A DiT with two times: where a sample is, and how far the answer leads it.

    c = MLP(emb(t)) + table[y] + MLP'(emb(h))        h = t - s, the span of the step that the answer is for           (S.8)

The last weight of MLP' starts at zero: a fresh flow map gives the answer of the DiT whose weights it has, for every span. After
training it gives the answer with which one step (P.4) of the span h ends where the whole trajectory does (S.9). Without a span it
answers for h = 0, as any other backbone.
"""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True)
class FlowMapConfig(ExtendedConfig):
    """The sizes of a DiT with two times. Raises ValueError if they conflict."""


class FlowMapDiT(ExtendedDiT):
    """out = model(x, t, y, h):  x, t, y as of a DiT, h (B,) the spans, in thousandths of the path (None: 0)  ->  (B, C, H, W)."""

    sizes = FlowMapConfig
    config: FlowMapConfig

    def __init__(
        self, config: FlowMapConfig, rng: Philox | None = None, *, device: str = "cpu", dtype: DTypeLike = np.float32
    ) -> None:
        self.h_embedder = TimestepEmbedder(config.hidden_size, config.freq_shift, zeros)
        super().__init__(config, rng, device=device, dtype=dtype)

    def forward(self, x: Value, t: Array, y: Array | None = None, h: Array | None = None) -> Value:
        check_inputs(self, x, t, y)
        h = xp_of(t).zeros(len(t), np.float64) if h is None else h
        check_one_per_sample("h", h, len(x))
        embeddings = [self.t_embedder(t), *([] if y is None else [self.y_embedder(y)]), self.h_embedder(h)]
        return self.conditioned(x, embeddings)  # (S.8)


@dataclass(frozen=True)
class OfSpan(Fixed[FlowMapDiT]):
    """A flow map as a backbone for steps of one span: a grid of N equal steps has the span 1000/N throughout."""

    span: float

    def __call__(self, x: Value, t: Array, y: Array | None = None) -> Tensor:
        out: Tensor = self.network(x, t, y, xp_of(t).full(len(t), self.span, np.float64))
        return out
