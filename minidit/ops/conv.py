"""Convolution as a matrix product over the windows of the image.

    y[b,o,r,c] = Σ_{c',i,j} W[o,c',i,j] x[b,c', s r + i - p, s c + j - p] + bias[o]                       (A.22)
    columns[b, (c',i,j), (r,c)] = the same x:    y = W columns,   W̄ = Σ_b ȳ columnsᵀ,   columns̄ = Wᵀ ȳ    (A.23)

Cross-correlation, as every framework's "convolution". Outside the image x is zero. A padding of two numbers is (before, after):
that many lines of zeros before the first and after the last row and column; p is the first.
"""

from __future__ import annotations

from typing import Any

from minidit.autograd import Vjp, primitive
from minidit.backend import Array, xp_of
from minidit.kernels import cpu_conv, cuda_conv
from minidit.kernels.windows import Padding, lines


def columns_of(x: Array, kernel: tuple[int, int], stride: int, padding: Padding) -> Array:
    """x : (B, C, H, W)  ->  (B, C, kh, kw, H', W'), a view: every window of the zero-padded image (A.23)."""
    xp = xp_of(x)
    x = xp.pad(x, ((0, 0), (0, 0), lines(padding), lines(padding)))
    windows = xp.lib.stride_tricks.sliding_window_view(x, kernel, axis=(2, 3))[:, :, ::stride, ::stride]
    return windows.transpose(0, 1, 4, 5, 2, 3)


def image_of(columns: Array, shape: tuple[int, ...], stride: int, padding: Padding) -> Array:
    """The adjoint of columns_of: every window entry is added back to its pixel. columns : (B, C, kh, kw, H', W')."""
    (B, C, H, W), (before, after) = shape, lines(padding)
    _, _, kh, kw, h, w = columns.shape
    x = xp_of(columns).zeros((B, C, before + H + after, before + W + after), columns.dtype)
    for i in range(kh):
        for j in range(kw):
            x[:, :, i : i + stride * h : stride, j : j + stride * w : stride] += columns[:, :, i, j]
    return x[:, :, before : before + H, before : before + W]


def check_fit(x: Array, weight: Array, bias: Array = None, *, stride: int = 1, padding: Padding = 0) -> None:
    """Raises ValueError for a kernel that is larger than the padded image, or has other channels."""
    fits = all(k <= n + sum(lines(padding)) for k, n in zip(weight.shape[2:], x.shape[2:], strict=True))
    if x.shape[1] != weight.shape[1] or not fits:
        raise ValueError(f"conv2d: a weight of {weight.shape} does not fit on {x.shape} with padding {padding}")


@primitive(cpu=cpu_conv.conv2d, cuda=cuda_conv.conv2d, check=check_fit)
def conv2d(x: Array, weight: Array, bias: Array = None, *, stride: int = 1, padding: Padding = 0) -> tuple[Array, Vjp]:
    """x : (B, C, H, W), weight : (O, C, kh, kw)  ->  (B, O, (H+2p-kh)//s+1, (W+2p-kw)//s+1).

    bias : (O,), or (B, O), one per sample, or None
    """
    (O, C, kh, kw), shape = weight.shape, x.shape
    windows = columns_of(x, (kh, kw), stride, padding)
    B, h, w = x.shape[0], windows.shape[4], windows.shape[5]
    columns = windows.reshape(B, C * kh * kw, h * w)
    y = (weight.reshape(O, -1) @ columns).reshape(B, O, h, w)  # (A.22)
    y = y if bias is None else y + bias[..., None, None]
    over = (2, 3) if bias is not None and bias.ndim == 2 else (0, 2, 3)

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        g = y_bar.reshape(B, O, h * w)
        x_bar = lambda: image_of((weight.reshape(O, -1).T @ g).reshape(B, C, kh, kw, h, w), shape, stride, padding)
        weight_bar = (g @ columns.swapaxes(-1, -2)).sum(axis=0).reshape(weight.shape)
        return x_bar, weight_bar, y_bar.sum(axis=over)

    return y, vjp
