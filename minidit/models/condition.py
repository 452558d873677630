"""The condition of a denoiser: the time, and the class or the words of a caption.

    c = MLP(emb(t)) + table[y],    MLP = Linear(256 → D), SiLU, Linear(D → D)                                 (T.3)
    c = MLP(emb(t)) + MLP_y(Σ_i table[y_i] / √n)       over the n words of a caption, padding left out: a bag of words

The last row of the table is the null label: a sample whose class was dropped. The model draws nothing: the owner of the random
stream replaces labels by the null label with probability class_dropout_prob.
"""

from __future__ import annotations

from minidit import ops
from minidit.autograd import Value
from minidit.backend import Array, xp_of
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


class CaptionEmbedder(Module):
    """y : (B, length) ints, words in 1..rows-1, 0 where there is none  ->  (B, D).

    Every word starts as a random direction of its own, N(0, 1): a word that few pictures have is told from others at once.
    """

    def __init__(self, rows: int, width: int) -> None:
        self.embedding_table = Embedding(rows, width, std=1.0)
        start = normal(0.02)
        self.mlp = Sequential(Linear(width, width, init=start), SiLU(), Linear(width, width, init=start))

    def forward(self, y: Array) -> Value:
        xp, table = xp_of(y), self.embedding_table
        word = y > 0
        share = word / xp.sqrt(xp.maximum(word.sum(axis=1, keepdims=True), 1))  # 1/√n: as large for long captions as for short
        return self.mlp(ops.sum(table(y) * share[..., None].astype(table.weight.data.dtype), axis=1))
