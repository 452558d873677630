"""The condition of a denoiser: the time, and a class or a caption.

    c = MLP(emb(t)) + table[y],    MLP = Linear(256 → D), SiLU, Linear(D → D)                                 (T.3)
    e_m = word[y_m] + place_m,     c = MLP(emb(t)) + MLP'(Σ e_m / √n),    n words that are no padding         (T.21)
    without places a caption is a bag of words: a DiT reads it so

The last row of the table is the null label: a sample whose class was dropped. The model draws nothing: the owner of the random
stream replaces labels by the null label with probability class_dropout_prob.
"""

from __future__ import annotations

from typing import Any

from minidit import ops
from minidit.autograd import Value
from minidit.backend import Array, xp_of
from minidit.models.condition import Condition, Encoded, Tokens
from minidit.nn import Embedding, Linear, Module, Sequential, SiLU, timestep_embedding
from minidit.nn.initial import normal
from minidit.nn.module import Init, Parameter

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


class VectorEmbedder(Module):
    """A vector about the whole caption: (B, n)  ->  (B, D). Weights N(0, 0.02²), biases 0."""

    def __init__(self, n: int, width: int) -> None:
        start = normal(0.02)
        self.mlp = Sequential(Linear(n, width, init=start), SiLU(), Linear(width, width, init=start))

    def forward(self, pooled: Value) -> Value:
        return self.mlp(pooled)


class WordEmbedder(Module):
    """y : (B, M) ints, a caption per sample, 0 behind its last word  ->  its words (B, M, D), and their sum by √n : (B, D)."""

    def __init__(self, rows: int, length: int, width: int) -> None:
        start = normal(1.0)  # the places too: where these begin small, training does not learn which colour is whose
        self.words, self.places = Parameter((rows, width), start), Parameter((length, width), start)

    def forward(self, y: Array) -> tuple[Value, Value]:
        e = ops.embedding(self.words, index=y) + self.places
        return e, pooled_words(e, y)  # (T.21)


def pooled_words(e: Value, y: Array) -> Value:
    """e : (B, M, D), embedded captions y : (B, M), 0 behind the last word  ->  (B, D): their sum by √n, for long as for short."""
    xp, here = xp_of(y), (y != 0).astype(e.dtype)
    share = here / xp.sqrt(xp.maximum(here.sum(axis=1, keepdims=True), 1))
    return ops.sum(e * share[:, :, None], axis=1)


class LabelEmbedder(Module):
    """y : (B,) ints in 0..rows-1, the null label among them if the network has one  ->  (B, D)."""

    def __init__(self, rows: int, width: int) -> None:
        self.embedding_table = Embedding(rows, width)

    def forward(self, y: Array) -> Value:
        return self.embedding_table(y)


class CaptionEmbedder(Module):
    """y : (B, M) ints, a caption per sample, 0 behind its last word  ->  (B, D), whatever the order of its words."""

    def __init__(self, rows: int, width: int) -> None:
        self.words, self.mlp = Embedding(rows, width, normal(1.0)), VectorEmbedder(width, width)

    def forward(self, y: Array) -> Value:
        return self.mlp(pooled_words(self.words(y), y))  # (T.21) without places


def embedders_of(condition: Condition, width: int) -> tuple[Module | None, Module | None]:
    """(the embedder of a text's tokens, that of the whole text or of the class); None: there is none."""
    if isinstance(condition, Tokens):
        return WordEmbedder(condition.rows, condition.length, width), VectorEmbedder(width, width)
    if isinstance(condition, Encoded):
        return Linear(condition.width, width), VectorEmbedder(condition.pooled, width)
    return None, LabelEmbedder(condition.rows, width) if condition.rows else None


def read(tokens: Module | None, whole: Module | None, y: Any) -> tuple[Value | None, Value | None]:
    """(the context (B, M, D), what y adds to c), by embedders of `embedders_of`."""
    if isinstance(tokens, WordEmbedder):
        context, pooled = tokens(y)
        return context, None if whole is None else whole(pooled)
    context, y = (None, y) if tokens is None else (tokens(y[0]), y[1])
    return context, None if whole is None or y is None else whole(y)
