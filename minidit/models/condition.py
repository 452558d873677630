"""The condition of a denoiser: the time and the class.

    c = MLP(emb(t)) + table[y],    MLP = Linear(256 → D), SiLU, Linear(D → D)                                 (T.3)

The last row of the table is the null label: a sample whose class was dropped. The model draws nothing: the owner of the random
stream replaces labels by the null label with probability class_dropout_prob.
"""

from __future__ import annotations

from minidit.autograd import Value
from minidit.backend import Array
from minidit.nn import Embedding, Linear, Module, Sequential, SiLU, timestep_embedding
from minidit.nn.initial import normal
from minidit.nn.module import Init

FREQUENCIES = 256  # width of the sinusoidal embedding


class TimestepEmbedder(Module):
    """t : (B,) as Schedule.time gives it  ->  (B, D). Weights N(0, 0.02²), biases 0.   last : of the second weight instead"""

    def __init__(self, width: int, shift: int = 0, last: Init | None = None) -> None:
        self.shift = shift
        start = normal(0.02)
        first, second = Linear(FREQUENCIES, width, init=start), Linear(width, width, init=last or start)
        self.mlp = Sequential(first, SiLU(), second)

    def forward(self, t: Array) -> Value:
        return self.mlp(timestep_embedding(t, FREQUENCIES, self.mlp[0].weight.data.dtype, shift=self.shift))


class LabelEmbedder(Module):
    """y : (B,) ints in 0..rows-1, the null label among them if the network has one  ->  (B, D)."""

    def __init__(self, rows: int, width: int) -> None:
        self.embedding_table = Embedding(rows, width)

    def forward(self, y: Array) -> Value:
        return self.embedding_table(y)
