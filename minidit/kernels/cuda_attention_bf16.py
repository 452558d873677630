"""Attention in bfloat16 on a GPU: cuda/attention_bf16.cu and its adjoint, for heads of 8 to 128 numbers, a multiple of 8.

q, k and v are views (B, heads, N, K) whose heads lie side by side: parts of packed rows, or arrays of their own.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from minidit.autograd import NoTwin, Vjp
from minidit.backend import Array, empty
from minidit.kernels.cuda_blas import product
from minidit.kernels.cuda_launch import NULL, ceil, f32, i32, launch
from minidit.kernels.cuda_rows import dense
from minidit.kernels.cuda_trust import Pairs, agrees, drawn

WIDEST_HEAD = 128
LONGEST_TRIAL = 1024  # rows of the trial at the first use
SHARED_OPTIN = 97  # cudaDevAttrMaxSharedMemoryPerBlockOptin
TILES = 64, 128  # queries at a time of the adjoint; so many at once only in blocks of eight warps
FLAG_ROWS, FLAG_COLUMNS = 64, 32  # of a mask, that are flagged together, as in tiles.h
FORWARD_ROWS = {1: 256, 2: 192}  # of shared memory, as in attention_bf16.cu
OWNERS = (4, 1), (8, 1), (8, 2)  # warps of a block of the adjoint, and strips of 16 keys that each owns

_shared: dict[Any, int] = {}


def most_shared() -> int:
    """Bytes of shared memory that a block of this device may ask for."""
    runtime = sys.modules["cupy"].cuda.runtime
    device = runtime.getDevice()
    if device not in _shared:
        _shared[device] = int(runtime.deviceGetAttribute(SHARED_OPTIN, device))
    return _shared[device]


def keys_of(warps: int, high: int) -> int:
    """That a block of the adjoint owns: `high` strips of 16 per warp."""
    return 16 * warps * high


def adjoint_bytes(K: int, warps: int, high: int, tile: int = TILES[0]) -> int:
    """Of shared memory: k, v and the bar of the logits; and for two tiles in turn q, the bar of y, and two sums per row."""
    row, keys = ceil(K, 16) * 16 + 8, keys_of(warps, high)
    return 2 * (2 * keys * row + keys * (tile + 8) + 2 * (2 * tile * row + 4 * tile))


def owners_of(K: int, M: int, shared: int) -> tuple[int, int]:
    """The smallest block of the adjoint that owns M keys, or the largest that `shared` bytes and the registers allow."""
    fitting = [o for o in OWNERS if adjoint_bytes(K, *o) <= shared and (K <= 80 or o[1] == 1)]
    if not fitting:
        raise NoTwin(f"heads of {K} numbers need {adjoint_bytes(K, *OWNERS[0])} bytes of shared memory; this device has {shared}")
    return next((o for o in fitting if keys_of(*o) >= M), fitting[-1])


def tile_of(K: int, N: int, warps: int, high: int, shared: int) -> int:
    """Queries at a time of the adjoint: as many as fit, because then a fragment of keys serves more of them."""
    wide = TILES[0] < N and warps == 8 and adjoint_bytes(K, warps, high, TILES[1]) <= shared
    return TILES[wide]


def strips_of(K: int, N: int) -> int:
    """Strips of 16 queries per warp: two where the registers allow it and the queries are enough."""
    return 2 if TILES[0] < N and K <= 72 else 1


def strides(x: Array) -> tuple[Any, Any]:
    """Numbers from sample to sample, and from row to row, of a view (B, heads, N, K)."""
    return i32(x.strides[0] // x.itemsize if len(x) > 1 else 0), i32(x.strides[2] // x.itemsize if x.shape[2] > 1 else 0)


def fits(x: Array) -> bool:
    """Whether 16 bytes of a view (B, heads, N, K) can be copied at once, and every number of a sample has a place in 31 bits."""
    B, heads, N, K = x.shape
    batch, head, row, one = x.strides
    beside = one == x.itemsize and (heads == 1 or head == K * x.itemsize)
    aligned = x.data.ptr % 16 == 0 and (B == 1 or batch % 16 == 0) and (N == 1 or row % 16 == 0)
    return bool(x.dtype.name == "bfloat16" and K % 8 == 0 and beside and aligned and max(N * abs(row), abs(batch)) < 2**31)


def by_head(x: Array) -> Array:
    """(B, N, heads, K) as (B, heads, N, K), or back."""
    return x.transpose(0, 2, 1, 3)


def fitted(x: Array) -> Array:
    """x, or a copy that fits."""
    return x if fits(x) else by_head(by_head(x).copy())


class Mask:
    """Numbers that are added to the logits, (B, heads, N, M) in float32, and which of their tiles are all -∞."""

    def __init__(self, add: Array, K: int) -> None:
        self.add, (B, heads, N, M) = add, add.shape
        own = [n if stride else 1 for n, stride in zip((B, heads), add.strides, strict=False)]  # broadcast: one for all
        rows, columns = ceil(N, FLAG_ROWS), ceil(M, FLAG_COLUMNS)
        self.dead = empty(add, (*own, rows, columns), np.uint8)
        batch, head, row = (i32(s // 4) for s in add.strides[:3])
        sizes, grid = (i32(N), i32(M), i32(own[1])), (columns, rows, own[0] * own[1])
        variant = {"HEAD": K, "HIGH": strips_of(K, N), "MASK": 1}
        launch("attention_bf16", "attention_mask_tiles", grid, 128, (add, self.dead, *sizes, batch, head, row), **variant)
        steps = (self.dead.strides[i] if own[i] > 1 else 0 for i in range(2))
        self.strides = (batch, head, row, *map(i32, steps))


NO_STRIDES = tuple(map(i32, 5 * [0]))


class Bf16Kernels:
    """The kernels for one shape: N queries, M keys, heads of K numbers."""

    def __init__(self, B: int, heads: int, N: int, M: int, K: int) -> None:
        if B * heads > 65535 or K > WIDEST_HEAD or K % 8:
            raise NoTwin(f"{B * heads} heads of {K} numbers")
        self.B, self.heads, self.N, self.M, self.K, self.scale = B, heads, N, M, K, f32(K**-0.5)
        self.sizes, self.owners = (i32(N), i32(M), i32(heads)), owners_of(K, M, most_shared())
        self.tile = tile_of(K, N, *self.owners, most_shared())

    @property
    def blocks(self) -> int:
        """Blocks of the adjoint that share the keys."""
        return ceil(self.M, keys_of(*self.owners))

    def forward(self, q: Array, k: Array, v: Array, add: Array, mask: Mask | None, y: Array, log_sum: Array) -> None:
        """y : (B, N, heads, K). add: the bias of q, k and v, or NULL."""
        high, grid = strips_of(self.K, self.N), self.B * self.heads
        args = (q, k, v, add, *masked(mask), y, log_sum, *self.sizes, *self.strides(q, k, v, mask), self.scale)
        tiles = 2 * FORWARD_ROWS[high] * (ceil(self.K, 16) * 16 + 8)
        variant = {"HEAD": self.K, "HIGH": high, "MASK": int(mask is not None)}
        launch("attention_bf16", "attention_bf16", (ceil(self.N, 64 * high), grid), 128, args, tiles, **variant)

    def backward(
        self, q: Array, k: Array, v: Array, add: Array, mask: Mask | None, y: Array, bar: Array, log_sum: Array, sums: Array,
        out: Any,
    ) -> None:  # fmt: skip
        """out: the bars of q, k and v, each as its array; those of k and v have the same strides.

        sums: NULL, or (B, 3, heads, K) float32 for the sums over the rows of the bars of q and v, if there is one block of keys
        """
        (warps, high), rows, blocks = self.owners, self.B * self.heads, self.blocks
        parts = empty(q, (blocks, rows, self.N, self.K), f32) if blocks > 1 else NULL
        bar = bar if bar.data.ptr % 16 == 0 else bar.copy()
        variant = {"HEAD": self.K, "HIGH": high, "WARPS": warps, "TILE": self.tile, "MASK": int(mask is not None)}
        steps = (*self.strides(q, k, v, mask), *strides(out[0]), *strides(out[1]))
        args = (q, k, v, add, *masked(mask), y, bar, log_sum, *out, parts, sums, *self.sizes, *steps, self.scale)
        shared = adjoint_bytes(self.K, warps, high, self.tile)
        launch("attention_bf16_backward", "attention_bf16_backward", (blocks, rows), 32 * warps, args, shared, **variant)
        if blocks > 1:
            wide = (ceil(self.N * self.K // 8, 128), rows)
            both = (parts, out[0], i32(blocks), i32(self.N), i32(self.heads), *strides(out[0]))
            launch("attention_bf16_backward", "attention_bf16_parts", wide, 128, both, **variant)

    @staticmethod
    def strides(q: Array, k: Array, v: Array, mask: Mask | None) -> tuple[Any, ...]:
        return (*strides(q), *strides(k), *strides(v), *(NO_STRIDES if mask is None else mask.strides))

    def agree(self, like: Array, *, biased: bool, masked: bool) -> bool:
        """Whether they agree with NumPy, for so many queries and keys. Long rows are shortened, and end in a tile as before."""
        N, M = (n if n <= LONGEST_TRIAL else LONGEST_TRIAL - 128 + n % 128 for n in (self.N, self.M))
        what, kind = "attention in bfloat16", (N, M, self.K, biased, masked)
        return agrees(what, "bf16", kind, lambda: trial(like, N, M, self.K, biased=biased, through_mask=masked))


def masked(mask: Mask | None) -> tuple[Array, Array]:
    return (NULL, NULL) if mask is None else (mask.add, mask.dead)


def trial(like: Array, N: int, M: int, K: int, *, biased: bool, through_mask: bool) -> Pairs:
    """One head, forward and backward, beside (A.18) and (A.19) in float64."""
    (q, Q), (k, K_), (v, V), (bar, Y) = (drawn(like, 1, n, 1, K, seed=i) for i, n in enumerate((N, M, M, N)))
    add, b = drawn(like, 3, 1, K, seed=4, dtype=f32) if biased else (NULL, np.zeros((3, 1, K)))
    m = np.random.default_rng(5).standard_normal((1, 1, N, M)).astype(f32) if through_mask else np.zeros((1, 1, N, M), f32)
    m[..., : N // 2, M // 2 + 1 :] = -np.inf if through_mask else 0  # whole tiles of it where there are several
    mask = Mask(sys.modules["cupy"].asarray(m), K) if through_mask else None
    Q, K_, V, Y = Q[0, :, 0] + b[0], K_[0, :, 0], V[0, :, 0] + b[2], Y[0, :, 0]
    P = np.exp(Q @ K_.T * K**-0.5 + m[0, 0])
    P /= P.sum(axis=1, keepdims=True)
    S = P * (Y @ V.T - ((Y @ V.T) * P).sum(axis=1, keepdims=True))
    kernels, y, log_sum = Bf16Kernels(1, 1, N, M, K), empty(q, q.shape), empty(q, (1, 1, N), f32)
    out = tuple(by_head(empty(x, x.shape)) for x in (q, k, v))
    q, k, v = map(by_head, (q, k, v))
    kernels.forward(q, k, v, add, mask, y, log_sum)
    sums: Array = empty(q, (3, K), f32) if biased and kernels.blocks == 1 else NULL
    kernels.backward(q, k, v, add, mask, y, bar, log_sum, sums, out)
    expected = P @ V, S @ K_ * K**-0.5, S.T @ Q * K**-0.5, P.T @ Y
    pairs = [(a.reshape(e.shape), e) for a, e in zip((y, *map(by_head, out)), expected, strict=True)]
    summed = [] if sums is NULL else [(sums[i], expected[1 + i].sum(axis=0)) for i in (0, 2)]
    return pairs + summed


class PackedBf16:
    """The kernels for packed rows (B, N, 3, heads, K)."""

    def __init__(self, qkv: Array, heads: int) -> None:
        B, N, width = qkv.shape
        self.heads, self.kernels = heads, Bf16Kernels(B, heads, N, N, width // 3 // heads)

    @staticmethod
    def serves(qkv: Array, add: Array, heads: int) -> bool:
        return (add is NULL or add.data.ptr % 8 == 0) and all(map(fits, parts_of(qkv, heads)))

    def agree(self, qkv: Array, add: Array) -> bool:
        return self.kernels.agree(qkv, biased=add is not NULL, masked=False)

    def forward(self, qkv: Array, add: Array, y: Array, log_sum: Array) -> None:
        q, k, v = parts_of(qkv, self.heads)
        self.kernels.forward(q, k, v, add, None, y, log_sum)

    def backward(self, qkv: Array, add: Array, y: Array, bar: Array, log_sum: Array, out: Array, sums: Array = NULL) -> None:
        """sums : NULL, or (B, 3D) float32 for what `backward_summed` returns"""
        q, k, v = parts_of(qkv, self.heads)
        self.kernels.backward(q, k, v, add, None, y, bar, log_sum, sums, parts_of(out, self.heads))

    def backward_summed(self, qkv: Array, add: Array, y: Array, bar: Array, log_sum: Array, out: Array) -> Array:
        """Rows whose sum is that of `out` in the columns of queries and values."""
        B, N, width = out.shape
        rows = out.reshape(B * N, width) if self.kernels.blocks > 1 else empty(out, (B, width), f32)
        self.backward(qkv, add, y, bar, log_sum, out, rows if self.kernels.blocks == 1 else NULL)
        return rows


def parts_of(qkv: Array, heads: int) -> Any:
    """q, k and v of packed rows, (B, heads, N, K) each."""
    B, N, width = qkv.shape
    return qkv.reshape(B, N, 3, heads, width // 3 // heads).transpose(2, 0, 3, 1, 4)


def attention(q: Array, k: Array, v: Array, mask: Array = None) -> tuple[Array, Vjp]:
    """The twin of `ops.attention` in bfloat16, for q : (B, heads, N, K). The bar of a mask is computed with N x M matrices."""
    if {x.dtype.name for x in (q, k, v)} != {"bfloat16"} or {x.ndim for x in (q, k, v)} != {4} or q.size * k.size == 0:
        raise NoTwin("attention in other types, or without heads")
    if k.shape != v.shape or q.shape[:2] != k.shape[:2] or q.shape[3] != k.shape[3]:
        raise NoTwin("shapes that are broadcast")
    (B, heads, N, K), M = q.shape, k.shape[2]
    kernels = Bf16Kernels(B, heads, N, M, K)
    if not kernels.agree(q, biased=False, masked=mask is not None):
        raise NoTwin("the kernels of attention in bfloat16 are not trusted here")
    add = None if mask is None else Mask(broadcast(mask, (B, heads, N, M)), K)
    q, k, v = map(fitted, (q, k, v))
    y, log_sum = empty(q, (B, N, heads, K)), empty(q, (B, heads, N), f32)
    kernels.forward(q, k, v, NULL, add, y, log_sum)

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        bar, sizes = dense(by_head(y_bar)), ((B, n, heads, K) for n in (N, M, M))
        out = tuple(by_head(empty(q, size)) for size in sizes)
        kernels.backward(q, k, v, NULL, add, y, bar, log_sum, NULL, out)
        return *out, lambda: None if add is None else mask_bar(q, k, v, add.add, y, bar, log_sum, mask)

    return by_head(y), vjp


def broadcast(mask: Array, shape: tuple[int, ...]) -> Array:
    """A mask in float32, each of its rows in one piece of memory."""
    cupy = sys.modules["cupy"]
    whole = cupy.ascontiguousarray(cupy.broadcast_to(mask, (*mask.shape[:-1], shape[-1])).astype(f32))
    return cupy.broadcast_to(whole, shape)


def mask_bar(q: Array, k: Array, v: Array, add: Array, y: Array, bar: Array, log_sum: Array, mask: Array) -> Array:
    """P ⊙ (ȳ vᵀ - δ), summed over what the mask was broadcast over."""
    cupy = sys.modules["cupy"]
    flat = [dense(x.astype(f32)).reshape(-1, *x.shape[2:]) for x in (q, k, v, by_head(bar))]
    logits = product(flat[0], flat[1].swapaxes(1, 2)).reshape(add.shape) * f32(q.shape[-1] ** -0.5) + add
    delta = by_head((y.astype(f32) * bar.astype(f32)).sum(axis=-1, keepdims=True))
    s_bar = cupy.exp(logits - log_sum[..., None]) * (product(flat[3], flat[2].swapaxes(1, 2)).reshape(add.shape) - delta)
    lead = (1,) * (4 - mask.ndim) + mask.shape
    over = tuple(i for i in range(4) if lead[i] == 1 and add.shape[i] > 1)
    return s_bar.sum(axis=over, keepdims=True).reshape(mask.shape).astype(mask.dtype)
