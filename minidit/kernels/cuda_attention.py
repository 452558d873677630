"""Self-attention on a GPU: fused kernels, or batched matrix products for wider heads.

cuda/attention.cu serves every storage and precision. In bfloat16, heads of a multiple of 8 numbers are served by
cuda/attention_bf16.cu and its adjoint, which leave less to shared memory and more to tensor cores.
"""

from __future__ import annotations

import math
import sys
from typing import Any

from minidit.autograd import NoTwin, Vjp
from minidit.backend import Array, empty
from minidit.kernels.cublaslt import BIAS
from minidit.kernels.cuda import add_bias, checked_linear, linear_bars
from minidit.kernels.cuda_blas import PRECISIONS, fused, gemm, precision, product
from minidit.kernels.cuda_launch import NULL, ceil, f32, i32, launch, storage, vector
from minidit.kernels.cuda_normalise import softmax
from minidit.kernels.cuda_rows import column_sum, dense, kind_of, rows_of
from minidit.kernels.cudnn_attention import Attention, route
from minidit.kernels.pieces import home_of_gradient

TALL, WIDE, WIDEST_HEAD = 64, 32, 128  # as in attention.cu
SHARED_OPTIN = 97  # cudaDevAttrMaxSharedMemoryPerBlockOptin
TILE = 64  # queries at a time, as in attention_bf16_backward.cu
FORWARD_ROWS = {1: 256, 2: 192}  # of shared memory, as in attention_bf16.cu
OWNERS = (4, 1), (8, 1), (8, 2)  # warps of a block of the adjoint, and strips of 16 keys that each owns

_shared: dict[Any, int] = {}


def self_attention(qkv: Array, *, heads: int) -> tuple[Array, Vjp]:
    if qkv.shape[-1] // 3 // heads > WIDEST_HEAD:
        return attention_products(qkv, heads=heads)
    y, vjp = fused_attention(qkv, None, heads)
    return y, lambda y_bar: vjp(y_bar)[:1]


class Tiles:
    """The package's kernels for one shape."""

    def __init__(self, qkv: Array, heads: int) -> None:
        s, (B, N, width) = storage(qkv), qkv.shape
        self.K = width // 3 // heads
        self.pitch = 4 * (ceil(self.K, 16) * 16 + 8)  # bytes of a row of a tile
        self.backward_bytes = (2 * TALL + 2 * WIDE) * self.pitch + 8 * WIDE
        if self.backward_bytes > most_shared():
            raise NoTwin(f"heads of {self.K} need {self.backward_bytes} bytes of shared memory; this device has {most_shared()}")
        self.tail, self.grid = (i32(N), i32(heads), f32(self.K**-0.5)), (ceil(N, TALL), B * heads)
        self.variant = {"STORAGE": s, "HEAD": self.K, "FACTORS": 2 if s == "bf16" else PRECISIONS.index(precision())}

    def vector(self, *arrays: Array) -> int:
        return vector(self.K, *(x for x in arrays if x is not NULL))

    def forward(self, qkv: Array, add: Array, y: Array, log_sum: Array) -> None:
        tiles, v = (TALL + 2 * WIDE) * self.pitch, self.vector(qkv, add, y)
        launch("attention", "attention", self.grid, 128, (qkv, add, y, log_sum, *self.tail), tiles, VEC=v, **self.variant)

    def backward(self, qkv: Array, add: Array, y: Array, bar: Array, log_sum: Array, out: Array) -> None:
        args, v = (qkv, add, y, bar, log_sum, out, *self.tail), self.vector(qkv, add, y, bar)
        grid = (*self.grid, 2)
        launch("attention", "attention_backward", grid, 128, args, self.backward_bytes, VEC=v, **self.variant)


def most_shared() -> int:
    """Bytes of shared memory that a block of this device may ask for."""
    runtime = sys.modules["cupy"].cuda.runtime
    device = runtime.getDevice()
    if device not in _shared:
        _shared[device] = int(runtime.deviceGetAttribute(SHARED_OPTIN, device))
    return _shared[device]


def keys_of(warps: int, high: int) -> int:
    """That a block of the adjoint in bfloat16 owns: `high` strips of 16 per warp."""
    return 16 * warps * high


def adjoint_bytes(K: int, warps: int, high: int) -> int:
    """Of shared memory: k, v; and for two tiles in turn q, the bar of y, the bar of the logits, and two sums per row."""
    row, keys = ceil(K, 16) * 16 + 8, keys_of(warps, high)
    return 4 * keys * row + 2 * (4 * TILE * row + 2 * keys * (TILE + 8) + 8 * TILE)


def owners_of(K: int, N: int, shared: int) -> tuple[int, int]:
    """The smallest block of the adjoint that owns N keys, or the largest that `shared` bytes and the registers allow."""
    fitting = [o for o in OWNERS if adjoint_bytes(K, *o) <= shared and (K <= 80 or o[1] == 1)]
    if not fitting:
        raise NoTwin(f"heads of {K} numbers need {adjoint_bytes(K, *OWNERS[0])} bytes of shared memory; this device has {shared}")
    return next((o for o in fitting if keys_of(*o) >= N), fitting[-1])


def strips_of(K: int, N: int) -> int:
    """Strips of 16 queries per warp: two where the registers allow it and the queries are enough."""
    return 2 if N > TILE and K <= 72 else 1


class Bf16Tiles:
    """The package's kernels for one shape in bfloat16, K a multiple of 8. With a bias, `forward` leaves q + bias in qkv."""

    def __init__(self, qkv: Array, heads: int) -> None:
        self.B, self.N, width = qkv.shape
        self.heads, self.K = heads, width // 3 // heads
        self.tail, self.owners = (i32(self.N), i32(heads), f32(self.K**-0.5)), owners_of(self.K, self.N, most_shared())

    @staticmethod
    def serves(qkv: Array, add: Array, heads: int) -> bool:
        """Whether 16 bytes can be copied at once, and every number of a sample has a place in 31 bits."""
        _, N, width = qkv.shape
        aligned = qkv.data.ptr % 16 == 0 and (add is NULL or add.data.ptr % 8 == 0)
        return bool(qkv.dtype.name == "bfloat16" and width // 3 // heads % 8 == 0 and aligned and N * width < 2**31)

    def forward(self, qkv: Array, add: Array, y: Array, log_sum: Array) -> None:
        high = strips_of(self.K, self.N)
        grid, args = (ceil(self.N, 64 * high), self.B * self.heads), (qkv, add, y, log_sum, *self.tail)
        tiles = 2 * FORWARD_ROWS[high] * (ceil(self.K, 16) * 16 + 8)
        launch("attention_bf16", "attention_bf16", grid, 128, args, tiles, HEAD=self.K, HIGH=high)

    def backward(self, qkv: Array, add: Array, y: Array, bar: Array, log_sum: Array, out: Array) -> None:
        (warps, high), rows = self.owners, self.B * self.heads
        blocks = ceil(self.N, keys_of(warps, high))
        parts = empty(qkv, (blocks, rows, self.N, self.K), f32) if blocks > 1 else NULL
        bar = bar if bar.data.ptr % 16 == 0 else bar.copy()
        variant = {"HEAD": self.K, "HIGH": high, "WARPS": warps}
        args = (qkv, add, y, bar, log_sum, out, parts, *self.tail)
        shared = adjoint_bytes(self.K, warps, high)
        launch("attention_bf16_backward", "attention_bf16_backward", (blocks, rows), 32 * warps, args, shared, **variant)
        if blocks > 1:
            wide, both = (ceil(self.N * self.K // 8, 128), rows), (parts, out, i32(blocks), *self.tail[:2])
            launch("attention_bf16_backward", "attention_bf16_parts", wide, 128, both, **variant)


def tiles_of(qkv: Array, add: Array, heads: int) -> Attention:
    """The package's kernels that serve these arrays."""
    return Bf16Tiles(qkv, heads) if Bf16Tiles.serves(qkv, add, heads) else Tiles(qkv, heads)


def fused_attention(qkv: Array, bias: Array | None, heads: int) -> tuple[Array, Vjp]:
    """Self-attention of qkv + bias, and the bars of both. With a bias, qkv may be overwritten."""
    kind_of(qkv)
    (B, N, width), qkv, add = qkv.shape, dense(qkv), NULL if bias is None else bias
    if B * heads > 65535 or width // 3 // heads > WIDEST_HEAD:
        raise NoTwin(f"{B * heads} heads of {width // 3 // heads} numbers")
    y, log_sum, way = (
        empty(qkv, (B, N, width // 3)),
        empty(qkv, (B, heads, N), f32),
        route(tiles_of(qkv, add, heads), qkv, add, heads),
    )
    way.forward(qkv, add, y, log_sum)

    def vjp(y_bar: Array) -> tuple[Array, Array]:
        out = empty(qkv, qkv.shape)
        way.backward(qkv, add, y, dense(y_bar), log_sum, out)
        keys = (width // 3, 2 * (width // 3))  # their bias adds one number to all logits of a row, which the softmax does not see
        return out, None if bias is None else column_sum(rows_of(out), home_of_gradient(bias), keys)

    return y, vjp


def projected_attention(x: Array, weight: Array, bias: Array, *, heads: int) -> tuple[Array, Vjp]:
    checked_linear(x, weight, bias)
    if len(weight) // 3 // heads > WIDEST_HEAD:
        raise NoTwin(f"heads wider than {WIDEST_HEAD}")
    rows = rows_of(x)
    qkv = empty(x, (len(rows), len(weight)))
    plain = lambda: gemm(rows, weight.T, qkv)  # the kernels of attention add the bias
    has_bias = fused(rows, weight.T, qkv, BIAS, bias, plain, later=lambda: add_bias(qkv, bias))
    y, attention_vjp = fused_attention(qkv.reshape(*x.shape[:-1], len(weight)), None if has_bias else bias, heads)

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        bar, bias_bar = attention_vjp(y_bar)
        return linear_bars(rows_of(bar), rows, x.shape, weight, bias, bias_bar)

    return y, vjp


def attention_products(qkv: Array, *, heads: int) -> tuple[Array, Vjp]:
    """The same by batched matrix products, for heads of any width: the weights P are kept."""
    kind_of(qkv)
    B, N, width = qkv.shape
    K, D, cupy = width // 3 // heads, width // 3, sys.modules["cupy"]
    q, k, v = dense(qkv.reshape(B, N, 3, heads, K).transpose(2, 0, 3, 1, 4)).reshape(3, B * heads, N, K)
    scale = math.sqrt(1 / K)
    logits = product(q, k.swapaxes(1, 2))
    logits *= scale
    p, softmax_vjp = softmax(logits)

    def packed(x: Array) -> Array:
        return dense(x.reshape(B, heads, N, K).transpose(0, 2, 1, 3)).reshape(B, N, D)

    def vjp(y_bar: Array) -> tuple[Array]:
        bar = dense(y_bar.reshape(B, N, heads, K).transpose(0, 2, 1, 3)).reshape(B * heads, N, K)
        (s_bar,) = softmax_vjp(product(bar, v.swapaxes(1, 2)))
        s_bar *= scale
        bars = [product(s_bar, k), product(s_bar.swapaxes(1, 2), q), product(p.swapaxes(1, 2), bar)]
        return (cupy.concatenate([packed(x) for x in bars], axis=-1),)

    return packed(product(p, v)), vjp
