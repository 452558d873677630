"""Topics: what a DiT is told and how pictures become tokens: time, class, place, patches.

The sinusoids are spelled out, because mistakes change frequencies, angles and order apart (M10c, M72 to M77, X36 to X40).
"""

from __future__ import annotations

import numpy as np

from minidit import ops
from minidit.autograd import value
from minidit.backend import Array
from minidit.diffusion.path import Straight
from minidit.random import Philox
from minidit.verify.core.reference import Group, Probe, Reference, part
from minidit.verify.topics.layers import Numbers, Weights, dense, linear, normal, silu

topic = Group("embeddings")

# ------------------------------------------------------------------------------------------------ when, what, where


time_frequencies = part(lambda R, half: np.exp(-np.log(10000.0) * np.arange(half) / half))  # f_i = 10000^(-i/half)
time_angles = part(lambda R, t, f: np.asarray(t, np.float64)[:, None] * f)  # t f : (B, half)
time_order = part(lambda R, cos, sin: np.concatenate((cos, sin), axis=1))  # cosine first, side by side


def _times() -> list[Probe]:
    return [
        Probe("zero", (np.array([0]), 8), "cosines are 1, sines 0: which come first"),
        Probe("small", (np.array([1, 37, 5]), 8), "distinct times: one row each"),
        Probe("wide", (np.array([3, 999, 501, 250]), 256), "the published width; 501 and 999 need all their bits"),
    ]


@topic("N.8", "t (B,) ints 0..T-1, width", "(B, width)", _times, tol=10.0, because="an angle of 999 in float32 is off by 3e-5")
def timestep_embedding(R: Reference, t: Array, width: int) -> Array:
    """[cos t f | sin t f], f_i = 10000^(-i/half), i = 0..half-1."""
    angle = time_angles(R, t, time_frequencies(R, width // 2))
    return time_order(R, np.cos(angle), np.sin(angle))


embedded_unit = part(lambda R: Straight().unit)  # what a sinusoid of period 10000 gets per t of a straight path
as_number = part(lambda R, t: np.asarray(t, np.float64))  # the number format of continuous times


@topic("P.9", "t (B,) in [0, 1], width", "(B, width): the sinusoids that the time becomes",
       lambda: [Probe("close", (np.array([0.101, 0.103, 0.7]), 8), "close times have rows of their own")],
       tol=10.0, because="an angle of 700 in float32 is off by 3e-5")  # fmt: skip
def straight_embedding(R: Reference, t: Array, width: int) -> Array:
    """[cos 1000 t f | sin 1000 t f], f_i = 10000^(-i/half)."""
    return timestep_embedding(R, embedded_unit(R) * as_number(R, t), width)


def time_weights(rng: Philox, D: int) -> dict[str, Array]:
    w = {"mlp.0.weight": normal(rng, D, 256, std=128**-0.5), "mlp.0.bias": normal(rng, D, std=0.3)}
    return w | {"mlp.2.weight": dense(rng, D, D), "mlp.2.bias": normal(rng, D, std=0.3)}


@topic("T.3", "weights {mlp.0.weight (D,256), mlp.0.bias, mlp.2.weight (D,D), mlp.2.bias}, t (B,) ints 0..T-1", "(B,D)",
       lambda: [Probe("three-times", (time_weights(Philox(40), 6), np.array([3, 37, 250])), "distinct times")], tol=3.0,
       because="an angle of 250 in float32 is off by 8e-6")  # fmt: skip
def timestep_embedder(R: Reference, weights: Weights, t: Array) -> Numbers:
    """W₂ silu(W₀ emb(t) + b₀) + b₂."""
    emb = timestep_embedding(R, t, weights["mlp.0.weight"].shape[1])
    h = linear(R, emb, weights["mlp.0.weight"], weights["mlp.0.bias"])
    return linear(R, time_activation(R, h), weights["mlp.2.weight"], weights["mlp.2.bias"])


time_activation = part(lambda R, x: silu(R, x))  # between the two linears of the time MLP


@topic("G.7", "num_classes", "int: the row of the label table that means 'any class'",
       lambda: [Probe(f"{K}-classes", (K,), "a number of classes that is not 1000") for K in (10, 1000, 3)])  # fmt: skip
def null_label(R: Reference, num_classes: int) -> int:
    """num_classes: the row behind the last class."""
    return num_classes


def _labels() -> list[Probe]:
    table, y = normal(Philox(41), 11, 4), np.array([3, 0, 9, 3])
    return [
        Probe("told", (table, y, np.zeros(4, bool)), "classes 0 and K-1, one twice"),
        Probe("dropped", (table, y, np.array([True, False, False, True])), "K = 10: the null row is 10, not 1000 and not 0"),
    ]


@topic("T.3", "table (K+1, D), y (B,) ints 0..K-1, drop (B,) bool: whose class is not told", "(B,D)", _labels)
def label_embedding(R: Reference, table: Numbers, y: Array, drop: Array) -> Numbers:
    """table[y], and table[K], the last row, where dropped."""
    return label_rows(R, table, np.where(drop, null_label(R, table.shape[0] - 1), y))


label_rows = part(lambda R, table, index: ops.embedding(table, index=index))  # table[index]


@part
def position_grid(R: Reference, h: int, w: int) -> tuple[Array, Array]:
    """(row, column) of every token, row by row."""
    r, c = np.divmod(np.arange(h * w), w)
    return r, c


position_frequencies = part(lambda R, quarter: np.asarray(10000.0 ** (-np.arange(quarter) / quarter)))  # ω_i = 10000^(-i/(D/4))


@part
def one_coordinate(R: Reference, s: Array, omega: Array) -> Array:
    """[sin s ω | cos s ω]."""
    angle = s[:, None] * omega
    return np.concatenate((np.sin(angle), np.cos(angle)), axis=1)


# the first half of the channels is the column
position_halves = part(lambda R, row, column: np.concatenate((column, row), axis=1))


@topic("N.7", "D, h, w: the width, the rows and columns of the grid of tokens", "(h*w, D), row by row",
       lambda: [Probe("row", (4, 1, 2), "one step to the right"), Probe("2x3", (8, 2, 3), "h ≠ w"),
                Probe("16-tokens", (12, 2, 8), "h ≠ w and a square number of tokens"), Probe("square", (16, 4, 4))])  # fmt: skip
def position_embedding(R: Reference, D: int, h: int, w: int) -> Array:
    """[p(column) | p(row)], p(s) = [sin s ω | cos s ω], ω_i = 10000^(-i/(D/4)), row by row."""
    r, c = position_grid(R, h, w)
    omega = position_frequencies(R, D // 4)
    return position_halves(R, one_coordinate(R, r, omega), one_coordinate(R, c, omega))


# ------------------------------------------------------------------------------------------------ patches


def _patches() -> list[Probe]:
    rng = Philox(42)
    counted = np.arange(2 * 4 * 6, dtype=np.float64).reshape(1, 2, 4, 6)
    one_hot = np.eye(8).reshape(8, 2, 2, 2)
    return [
        Probe("counted", (counted, one_hot, np.zeros(8)), "one-hot weights show the order of a patch and of the tokens"),
        Probe("random", (normal(rng, 2, 3, 4, 6), normal(rng, 5, 3, 2, 2), normal(rng, 5)), "H ≠ W"),
    ]


@topic("N.9", "x (B,C,H,W), weight (D,C,p,p), bias (D,)", "(B, (H/p)(W/p), D), row by row", _patches)
def patch_embed(R: Reference, x: Numbers, weight: Numbers, bias: Numbers) -> Numbers:
    """Σ_{c,i,j} weight[:,c,i,j] x[c, rp+i, kp+j] + bias for the token of row r and column k, row by row."""
    flat = ops.reshape(weight, shape=(weight.shape[0], -1))
    return linear(R, patches(R, x, weight.shape[2]), flat, bias)


patches = part(lambda R, x, patch_size: ops.patchify(x, patch_size=patch_size))  # (B, C, H, W)  ->  (B, N, C p p)


def _tokens() -> list[Probe]:
    counted = np.arange(6 * 12, dtype=np.float64).reshape(1, 6, 12)
    return [
        Probe("counted", (counted, 2, (4, 6)), "p = 2, three channels, H ≠ W"),
        Probe("16-tokens", (normal(Philox(43), 2, 16, 8), 2, (4, 16)), "a square number of tokens that are no square"),
        Probe("p4", (normal(Philox(44), 1, 2, 32), 4, (8, 4))),
    ]


@topic("T.2", "tokens (B, N, p*p*C), p, (H, W)", "(B,C,H,W)", _tokens)
def unpatchify(R: Reference, tokens: Numbers, patch_size: int, size: tuple[int, int]) -> Numbers:
    """x[c, rp+i, kp+j] = token(r, k)[(i p + j) C + c]."""
    h, w = token_grid(R, value(tokens).shape[1], size[0] // patch_size, size[1] // patch_size)
    return sewn(R, tokens, patch_size, h, w)


token_grid = part(lambda R, n, h, w: (h, w))  # rows and columns of tokens
# (B, h w, p p C)  ->  (B, C, h p, w p)
sewn = part(lambda R, tokens, p, h, w: ops.unpatchify(tokens, patch_size=p, size=(h * p, w * p)))
