"""Twins of the normalisations on a GPU, with the kernels of cuda/normalise.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidit.autograd import NoTwin, Onto, Vjp
from minidit.backend import Array, empty
from minidit.kernels.cuda_launch import NULL, STREAMING, WARP, blocks, ceil, chunk_of, counters, f32, i32, launch, vector
from minidit.kernels.cuda_rows import by_rows, dense, kind_of, rows_of
from minidit.kernels.cuda_trust import Pairs, drawn, trusted
from minidit.kernels.pieces import home_of_bar

ROWS = 4  # warps of a block
IN_REGISTERS = {"float": 32, "bf16": 48}  # numbers of a row that a lane holds, and twice as many sums, at most


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


def held_in_registers(D: int, most: int, storage: str) -> dict[str, Any]:
    """The variant in which the lanes of one warp, or of all warps of a block, hold a row of D numbers with few idle lanes.

    most : numbers that a lane may load at once
    """
    for warps in (1, ROWS):
        held, v = min((ceil(D, WARP * warps * v) * v, -v) for v in {most, min(most, 4)})
        if held <= IN_REGISTERS[storage]:
            return {"VEC": -v, "STEPS": held // -v, "ROW_WARPS": warps, "STORAGE": storage}
    raise NoTwin(f"rows of {D} numbers")


def layer_norm(x: Array, weight: Array, bias: Array, *, eps: float = 1e-6) -> tuple[Array, Vjp]:
    y, vjp = normalised(rows_of(x)[None], bias[None], weight[None], 0.0, eps)

    def parameters_vjp(y_bar: Array) -> tuple[Any, ...]:
        x_bar, shift_bar, scale_bar = vjp(y_bar.reshape(y.shape))
        return Onto(lambda so_far=None: x_bar(so_far).reshape(x.shape)), lambda: scale_bar()[0], lambda: shift_bar()[0]

    return y.reshape(x.shape), parameters_vjp


def layer_norm_modulate(x: Array, shift: Array, scale: Array, *, eps: float = 1e-6) -> tuple[Array, Vjp]:
    return normalised(dense(x), shift, scale, 1.0, eps)


def norm_trial(like: Array, D: int, one: float, residual: bool) -> Pairs:
    """Two samples of five rows, forward and backward, beside (A.14) and (A.15) in float64."""
    (x, X), (h, H), (bar, Y) = (drawn(like, 2, 5, D, seed=i) for i in range(3))
    (shift, B), (scale, S), (gate, G) = (drawn(like, 2, D, seed=3 + i) for i in range(3))
    bias, b = drawn(like, D, seed=6, dtype=f32)
    x_out = empty(x, x.shape)
    y, vjp = normalised(x, shift, scale, one, 1e-6, (gate, h, bias, x_out) if residual else ())
    X = X + G[:, None] * (H + b) if residual else X
    r = 1 / np.sqrt(X.var(axis=-1, keepdims=True) + 1e-6)
    x_hat, g = (X - X.mean(axis=-1, keepdims=True)) * r, Y * (one + S[:, None])
    x_bar = r * (g - g.mean(axis=-1, keepdims=True) - x_hat * (g * x_hat).mean(axis=-1, keepdims=True))
    total, shift_bar, scale_bar = vjp(bar)
    answers = (y, x_out if residual else x, total(None), shift_bar(), scale_bar())
    return zip(answers, (x_hat * (one + S[:, None]) + B[:, None], X, x_bar, Y.sum(axis=1), (Y * x_hat).sum(axis=1)), strict=True)


def normalised(x: Array, shift: Array, scale: Array, one: float, eps: float, added: tuple[Any, ...] = ()) -> tuple[Array, Vjp]:
    """x̂ (one + scale) + shift: x : (B, N, D), shift, scale : (B, D).

    added : (gate, h, bias, x_out), and x is first x_out = x + gate ⊙ (h + bias)
    """
    gate, h, bias, x_out = added or 4 * (NULL,)
    arrays = [a for a in (gate, h, x_out) if a is not NULL]
    s, (B, N, D), pieces = kind_of(x, shift, scale, *arrays), x.shape, (shift, scale)
    (scale, scale_stride), (shift, shift_stride) = by_rows(scale), by_rows(shift)
    gate, gate_stride = by_rows(gate) if added else (gate, 0)
    if B > 65535:
        raise NoTwin(f"{B} samples")
    trusted("layer norm", s, (D, one, bool(added)), lambda: norm_trial(x, D, one, bool(added)))
    y, mean, inverse = empty(x, x.shape), empty(x, (B * N,), f32), empty(x, (B * N,), f32)
    v = vector(D, x, scale, shift, y, *((gate, h, bias, x_out) if added else ()))
    variant, chunk = held_in_registers(D, v, s), ceil(ceil(N, max(1, blocks(STREAMING) // B)), ROWS) * ROWS
    sizes = (*map(i32, (N, D, chunk, gate_stride, scale_stride, shift_stride)), f32(one), f32(eps))
    args = (x, gate, h, bias, x_out, scale, shift, y, mean, inverse, *sizes)
    launch("normalise", "layer_norm", (ceil(N, chunk), B), 128, args, **variant, RESIDUAL=int(bool(added)))
    x = x_out if added else x

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        bar, chunk = dense(y_bar), chunk_of(N, B)
        chunks, bars = ceil(N, chunk), list[Array]()

        def run(so_far: Array = None) -> Array:
            """One kernel makes all three bars; the tape asks for that of x first, and with the sum so far."""
            if not bars:
                out, shift_bar, scale_bar = empty(x, x.shape), *map(home_of_bar, pieces)
                strides = (i32(b.strides[0] // b.itemsize) for b in (scale_bar, shift_bar))
                scratch = (NULL, NULL) if chunks == 1 else (empty(x, (B, chunks, 2, D), f32), counters(x, B))
                onto = NULL if so_far is None else dense(so_far)
                arrays = (x, scale, mean, inverse, bar, onto, out, scale_bar, shift_bar, *scratch)
                sizes = (i32(N), i32(D), i32(chunk), i32(scale_stride), *strides, f32(one))
                w = min(v, vector(D, bar, *(() if so_far is None else (onto,))))
                variant = held_in_registers(D, w, s)
                shared = 4 * ROWS // variant["ROW_WARPS"] * 2 * D
                launch("normalise", "layer_norm_backward", (chunks, B), 128, arrays + sizes, shared, **variant, RESIDUAL=0)
                bars.extend((out, shift_bar, scale_bar))
            return bars[0]

        return Onto(run), lambda: (run(), bars[1])[1], lambda: (run(), bars[2])[1]

    return y, vjp
