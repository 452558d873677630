"""Twins of the normalisations on a GPU, with the kernels of cuda/normalise.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidit.autograd import NoTwin, Onto, Vjp
from minidit.backend import Array, empty
from minidit.kernels.cuda_launch import NULL, STREAMING, WARP, blocks, ceil, chunk_of, counters, f32, i32, launch, vector
from minidit.kernels.cuda_rows import by_rows, column_sum, dense, kind_of, rows_of
from minidit.kernels.cuda_trust import Pairs, drawn, trusted
from minidit.kernels.pieces import home_of_bar, home_of_gradient

ROWS = 4  # that a block takes at the same time where a warp is enough for each
MOST_WARPS = 8  # of a row
HELD = 12  # numbers of a row that a lane holds, and up to four sums of each
MOST_HELD = 24  # where all warps of a block hold a row


def softmax(x: Array, *, axis: int = -1) -> tuple[Array, Vjp]:
    if axis not in (-1, x.ndim - 1) or x.ndim == 0:
        raise NoTwin("a softmax over another axis than the last")
    s, rows = kind_of(x), rows_of(x)
    y, D = empty(x, rows.shape), x.shape[-1]
    grid, sizes = (ceil(len(rows), ROWS),), (i32(len(rows)), i32(D))
    launch("normalise", "softmax", grid, 128, (rows, y, *sizes), VEC=vector(D, rows, y), STORAGE=s)

    def vjp(y_bar: Array) -> tuple[Array]:
        bar, x_bar = rows_of(y_bar), empty(y, y.shape)
        launch("normalise", "softmax_backward", grid, 128, (y, bar, x_bar, *sizes), VEC=vector(D, y, bar, x_bar), STORAGE=s)
        return (x_bar.reshape(x.shape),)

    return y.reshape(x.shape), vjp


def held_in_registers(D: int, most: int) -> dict[str, Any]:
    """The variant in which few lanes hold a row of D numbers, few of which are idle.

    most : numbers that a lane may load at once
    """
    ways = [(ceil(D, WARP * w * v) * v * w, w, -v) for w in range(1, MOST_WARPS + 1) for v in {most, min(most, 4)}]
    fitting = [way for way in ways if way[0] <= HELD * way[1] or (way[1] == MOST_WARPS and way[0] <= MOST_HELD * MOST_WARPS)]
    if not fitting:
        raise NoTwin(f"rows of {D} numbers")
    held, warps, v = min(fitting)
    return {"VEC": -v, "STEPS": held // warps // -v, "ROW_WARPS": warps, "WHOLE": int(held * WARP == D)}


def threads_of(variant: dict[str, Any]) -> int:
    return WARP * (ROWS if variant["ROW_WARPS"] == 1 else int(variant["ROW_WARPS"]))


def layer_norm(x: Array, weight: Array, bias: Array, *, eps: float = 1e-6) -> tuple[Array, Vjp]:
    y, vjp = normalised(rows_of(x)[None], bias[None], weight[None], 0.0, eps)

    def parameters_vjp(y_bar: Array) -> tuple[Any, ...]:
        x_bar, shift_bar, scale_bar = vjp(y_bar.reshape(y.shape))
        return Onto(lambda so_far=None: x_bar(so_far).reshape(x.shape)), lambda: scale_bar()[0], lambda: shift_bar()[0]

    return y.reshape(x.shape), parameters_vjp


def layer_norm_modulate(x: Array, shift: Array, scale: Array, *, eps: float = 1e-6) -> tuple[Array, Vjp]:
    return normalised(dense(x), shift, scale, 1.0, eps)


def norm_trial(like: Array, D: int, one: float, residual: bool) -> Pairs:
    """Two samples of five rows, forward and backward, beside (A.14), (A.15) and (A.21) in float64."""
    (x, X), (h, H), (bar, Y), (onto, O) = (drawn(like, 2, 5, D, seed=i) for i in range(4))
    (shift, B), (scale, S), (gate, G) = (drawn(like, 2, D, seed=4 + i) for i in range(3))
    (bias, b), bars = drawn(like, D, seed=7, dtype=f32), list[tuple[Array, Any]]()
    X = X + G[:, None] * (H + b) if residual else X
    r = 1 / np.sqrt(X.var(axis=-1, keepdims=True) + 1e-6)
    x_hat, g = (X - X.mean(axis=-1, keepdims=True)) * r, Y * (one + S[:, None])
    x_bar = r * (g - g.mean(axis=-1, keepdims=True) - x_hat * (g * x_hat).mean(axis=-1, keepdims=True)) + O
    if residual:
        (x, y), joined = residual_then_norm(x, gate, h, bias, shift, scale, 1e-6)
        total, *rest, shift_bar, scale_bar = joined(onto, bar)
        h_bar = x_bar * G[:, None]
        expected = (x_bar * (H + b)).sum(axis=1), h_bar, h_bar.sum(axis=(0, 1))
        bars = list(zip(rest, expected, strict=True))
    else:
        y, vjp = normalised(x, shift, scale, one, 1e-6)
        through, *sums = vjp(bar)
        total, (shift_bar, scale_bar) = through(onto), (f() for f in sums)
    answers, sums_ = (y, x, total, shift_bar, scale_bar), (Y.sum(axis=1), (Y * x_hat).sum(axis=1))
    return [*zip(answers, (x_hat * (one + S[:, None]) + B[:, None], X, x_bar, *sums_), strict=True), *bars]


class Norm:
    """x̂ (one + scale) + shift: x : (B, N, D), shift, scale : (B, D).

    added : (gate, h, bias, x_out), and x is first x_out = x + gate ⊙ (h + bias)
    """

    def __init__(self, x: Array, shift: Array, scale: Array, one: float, eps: float, added: tuple[Any, ...] = ()) -> None:
        gate, h, bias, x_out = added or 4 * (NULL,)
        arrays = [a for a in (gate, h, x_out) if a is not NULL]
        self.s, (B, N, D), self.pieces = kind_of(x, shift, scale, *arrays), x.shape, (gate, shift, scale)
        (scale, scale_stride), (shift, shift_stride) = by_rows(scale), by_rows(shift)
        gate, gate_stride = by_rows(gate) if added else (gate, 0)
        if B > 65535:
            raise NoTwin(f"{B} samples")
        trusted("layer norm", self.s, (D, one, bool(added)), lambda: norm_trial(x, D, one, bool(added)))
        self.y, self.mean, self.inverse = empty(x, x.shape), empty(x, (B * N,), f32), empty(x, (B * N,), f32)
        self.v = vector(D, x, scale, shift, self.y, *((gate, h, bias, x_out) if added else ()))
        chunk = ceil(ceil(N, max(1, blocks(STREAMING) // B)), ROWS) * ROWS
        variant = {**held_in_registers(D, self.v), "STORAGE": self.s, "RESIDUAL": int(bool(added))}
        sizes = (*map(i32, (N, D, chunk, gate_stride, scale_stride, shift_stride)), f32(one), f32(eps))
        args = (x, gate, h, bias, x_out, scale, shift, self.y, self.mean, self.inverse, *sizes)
        launch("normalise", "layer_norm", (ceil(N, chunk), B), threads_of(variant), args, **variant)
        self.x, self.one, self.scale, self.gate, self.h, self.bias = x_out if added else x, f32(one), scale, gate, h, bias
        self.strides, self.residual = (scale_stride, gate_stride), bool(added)

    def bars(self, y_bar: Array, so_far: Array = None) -> tuple[Array, ...]:
        """(x̄ + so_far, scale̅, shift̅), and after a residual also (gate̅, h̄, Σ h̄ of every sample): one kernel."""
        x, (B, N, D), bar, residual = self.x, self.x.shape, dense(y_bar), self.residual
        chunk = chunk_of(N, B)
        chunks, onto, out = ceil(N, chunk), NULL if so_far is None else dense(so_far), empty(x, x.shape)
        nothing: Array = NULL
        gate_bar, h_bar, sums = 3 * (nothing,)
        gate, shift, scale = self.pieces
        scale_bar, shift_bar = home_of_bar(scale), home_of_bar(shift)
        if residual:
            gate_bar, h_bar, sums = home_of_bar(gate), empty(x, x.shape), empty(x, (B, D), f32)
        steps = (b.strides[0] // b.itemsize if b is not NULL else 0 for b in (scale_bar, shift_bar, gate_bar))
        to_scale, to_shift, to_gate = map(i32, steps)
        scratch = (NULL, NULL) if chunks == 1 else (empty(x, (B, chunks, 4 if residual else 2, D), f32), counters(x, B))
        arrays = (x, self.scale, self.mean, self.inverse, bar, onto, out, scale_bar, shift_bar, *scratch)
        arrays = (*arrays, self.gate, self.h, self.bias, h_bar, gate_bar, sums)
        sizes = (i32(N), i32(D), i32(chunk), i32(self.strides[0]), to_scale, to_shift, i32(self.strides[1]), to_gate, self.one)
        w = min(self.v, vector(D, bar, *(() if so_far is None else (onto,))))
        variant = {**held_in_registers(D, w), "STORAGE": self.s, "RESIDUAL": int(residual)}
        threads = threads_of(variant)
        shared = 4 * (threads // WARP // variant["ROW_WARPS"]) * (4 if residual else 2) * D
        launch("normalise", "layer_norm_backward", (chunks, B), threads, arrays + sizes, shared, **variant)
        return out, scale_bar, shift_bar, gate_bar, h_bar, sums


def normalised(x: Array, shift: Array, scale: Array, one: float, eps: float) -> tuple[Array, Vjp]:
    """x̂ (one + scale) + shift: x : (B, N, D), shift, scale : (B, D)."""
    norm = Norm(x, shift, scale, one, eps)

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        bars = list[Array]()

        def run(so_far: Array = None) -> Array:
            """One kernel makes all three bars; the tape asks for that of x first, and with the sum so far."""
            if not bars:
                bars.extend(norm.bars(y_bar, so_far))
            return bars[0]

        return Onto(run), lambda: (run(), bars[2])[1], lambda: (run(), bars[1])[1]

    return norm.y, vjp


def residual_then_norm(
    x: Array, gate: Array, h: Array, bias: Array, shift: Array, scale: Array, eps: float
) -> tuple[tuple[Array, Array], Vjp]:
    """(y, n) with y = x + gate ⊙ (h + bias) and n = LN(y) (1 + scale) + shift  ->  the bars of x, gate, h, bias, shift, scale."""
    counters(x, len(x))  # now, while the plain text can still be taken
    y = empty(x, x.shape)
    norm = Norm(dense(x), shift, scale, 1.0, eps, (gate, dense(h), bias, y))

    def vjp(y_bar: Array, n_bar: Array) -> tuple[Array, ...]:
        x_bar, scale_bar, shift_bar, gate_bar, h_bar, sums = norm.bars(n_bar, y_bar)
        return x_bar, gate_bar, h_bar, column_sum(sums, home_of_gradient(bias)), shift_bar, scale_bar

    return (y, norm.y), vjp
