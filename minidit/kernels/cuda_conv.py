"""The twin of the convolution on a GPU: its windows as rows (cuda/conv.cu), and then a linear layer of every pixel.

    y = columns(x) Wᵀ + b,    W̄ = ȳᵀ columns(x),    x̄ = columnsᵀ(ȳ W)        rows are output pixels          (A.23)

The products are those of linear layers, so an update of a convolutional network can be recorded. The windows are made again for
the adjoint, not kept. Outputs lie in memory as (B, H, W, C) and have the shape (B, C, H, W); inputs may lie in any order.
"""

from __future__ import annotations

from typing import Any

from minidit.autograd import NoTwin, Vjp
from minidit.backend import Array, empty
from minidit.kernels import cuda
from minidit.kernels.cuda_launch import flat_grid, i32, i64, kernel, launch, vector
from minidit.kernels.cuda_rows import dense, kind_of, rows_of
from minidit.kernels.pieces import home_of_gradient
from minidit.kernels.windows import Padding, count, lines


class Windows:
    """The windows of a convolution on pictures of one shape."""

    def __init__(self, x: Array, kernel_size: tuple[int, int], stride: int, padding: Padding) -> None:
        self.B, self.C, H, W = x.shape
        kh, kw = kernel_size
        self.h, self.w = count(H, kh, stride, padding), count(W, kw, stride, padding)
        self.H, self.W, self.K, self.storage = H, W, self.C * kh * kw, kind_of(x)
        self.sizes = tuple(map(i32, (self.C, H, W, self.h, self.w, kh, kw, stride, lines(padding)[0])))
        for name in ("columns", "picture"):
            kernel("conv", name, {"STORAGE": self.storage, "VEC": 1})  # now, while the plain text can still be taken

    def start(self, name: str, n: int, v: int, arrays: tuple[Array, ...], more: tuple[Any, ...] = ()) -> None:
        """Starts a kernel on n groups of v channels."""
        launch("conv", name, flat_grid(n * v, v), 256, (*arrays, i64(n), *self.sizes, *more), VEC=v, STORAGE=self.storage)

    def columns(self, x: Array) -> Array:
        """(B, C, H, W) in any order  ->  rows (B h w, K), ordered (row, column, channel)."""
        rows = empty(x, (self.B * self.h * self.w, self.K))
        last = x.transpose(0, 2, 3, 1)
        v = vector(self.C, rows, last) if self.C == 1 or last.strides[-1] == x.itemsize else 1
        self.start("columns", rows.size // v, v, (x, rows), tuple(i64(s // x.itemsize) for s in x.strides))
        return rows

    def picture(self, rows: Array) -> Array:
        """The adjoint of `columns`."""
        rows = dense(rows)
        x_bar = empty(rows, (self.B, self.H, self.W, self.C))
        v = vector(self.C, rows, x_bar)
        self.start("picture", x_bar.size // v, v, (rows, x_bar))
        return x_bar.transpose(0, 3, 1, 2)


def conv2d(x: Array, weight: Array, bias: Array = None, *, stride: int = 1, padding: Padding = 0) -> tuple[Array, Vjp]:
    O, C, kh, kw = weight.shape
    per_sample = bias is not None and bias.ndim == 2
    cuda.checked_linear(x, weight, bias)
    if weight.dtype != x.dtype and weight.dtype.name != "float32":
        raise NoTwin("weights in another type")
    windows = Windows(x, (kh, kw), stride, padding)
    flat = dense(weight.transpose(0, 2, 3, 1)).reshape(O, -1)
    shared = None if per_sample else bias
    y = cuda.linear(windows.columns(x), flat, shared)[0].reshape(windows.B, -1, O)
    y = y + bias[:, None] if per_sample else y

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        g, rows = rows_of(y_bar.transpose(0, 2, 3, 1)), windows.columns(x)
        rows_bar, flat_bar, bias_bar = cuda.linear_bars(g, rows, rows.shape, flat, shared)
        bias_bar = g.reshape(windows.B, -1, O).sum(axis=1) if per_sample else bias_bar
        weight_bar = home_of_gradient(weight)
        weight_bar[...] = flat_bar.reshape(O, kh, kw, C).transpose(0, 3, 1, 2)
        return lambda: windows.picture(rows_bar()), weight_bar, bias_bar

    return y.reshape(windows.B, windows.h, windows.w, O).transpose(0, 3, 1, 2), vjp
