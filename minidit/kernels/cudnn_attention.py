"""Attention by cuDNN in bfloat16, where its Python frontend is installed (nvidia-cudnn-frontend).

Off unless MINIDIT_CUDNN=on, which takes it wherever it agrees with our kernels, or =auto: when a shape is first met the two race,
forward and backward, and the faster is taken. A race may end otherwise next time, and then the bits of a run are others; with one
choice they are the same again: there, too, logits and sums are float32, and no sum depends on the order of threads.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import warnings
from functools import cache
from typing import Any

import numpy as np

from minidit.backend import Array, empty
from minidit.kernels.cuda_launch import NULL, WARP, ceil, chunk_of, f32, i32, launch, vector

AGREE = 2.0**-5  # of the largest number: a few roundings to bfloat16
RUNS = 5  # of a race, after one that does not count

_handles: dict[Any, Any] = {}
_chosen: dict[Any, tuple[Any, str]] = {}


class CudnnAttention:
    """One shape: packed rows (B, N, 3, heads, K), of which cuDNN sees three arrays (B, heads, N, K) with strides."""

    def __init__(self, cudnn: Any, B: int, N: int, heads: int, K: int) -> None:
        self.cudnn, self.width, self.handle = cudnn, heads * K, handle_of(cudnn)
        kinds, D, scale = cudnn.data_type, heads * K, K**-0.5
        packed, dense, rows = [3 * N * D, K, 3 * D, 1], [N * D, K, D, 1], [heads * N, N, 1, 1]

        def graph() -> Any:
            types = {"intermediate_data_type": kinds.FLOAT, "compute_data_type": kinds.FLOAT}
            return cudnn.pygraph(io_data_type=kinds.BFLOAT16, handle=self.handle, **types)

        def tensor(graph: Any, name: str, strides: list[int], last: int = K, kind: Any = kinds.BFLOAT16) -> Any:
            return graph.tensor(dim=[B, heads, N, last], stride=strides, data_type=kind, name=name)

        def written(out: Any, strides: list[int], last: int = K, kind: Any = kinds.BFLOAT16) -> Any:
            return out.set_output(True).set_dim([B, heads, N, last]).set_stride(strides).set_data_type(kind)

        def built(graph: Any, tensors: list[Any]) -> tuple[Any, list[Any], int]:
            graph.build([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
            return graph, tensors, max(1, int(graph.get_workspace_size()))

        forward, backward = graph(), graph()
        q, k, v = (tensor(forward, name, packed) for name in "qkv")
        y, sums = forward.sdpa(q=q, k=k, v=v, attn_scale=scale, generate_stats=True, name="attention")
        self.there = built(forward, [q, k, v, written(y, dense), written(sums, rows, 1, kinds.FLOAT)])
        q, k, v = (tensor(backward, name, packed) for name in "qkv")
        y, bar = (tensor(backward, name, dense) for name in ("y", "y_bar"))
        sums = tensor(backward, "sums", rows, 1, kinds.FLOAT)
        laws = {"attn_scale": scale, "use_deterministic_algorithm": True, "name": "attention_backward"}
        bars = backward.sdpa_backward(q=q, k=k, v=v, o=y, dO=bar, stats=sums, **laws)
        self.back = built(backward, [q, k, v, y, bar, sums, *(written(b, packed) for b in bars)])

    def parts(self, packed: Array) -> list[int]:
        """Where q, k and v begin."""
        return [packed.data.ptr + part * self.width * packed.itemsize for part in range(3)]

    def forward(self, qkv: Array, add: Array, y: Array, log_sum: Array) -> None:
        """y and the logarithms of the rows' sums; a bias is added to qkv in its place."""
        if add is not NULL:
            n, m = len(qkv) * qkv.shape[1], qkv.shape[2]
            v = vector(m, qkv, add)
            chunk = chunk_of(n, ceil(m, WARP * v))
            grid, sizes = (ceil(m, WARP * v), ceil(n, chunk), 1), (i32(n), i32(m), i32(chunk))
            launch("elementwise", "add_bias", grid, 256, (qkv, add, *sizes), VEC=v, STORAGE="bf16")
        self._run(self.there, [*self.parts(qkv), y.data.ptr, log_sum.data.ptr])

    def backward(self, qkv: Array, add: Array, y: Array, bar: Array, log_sum: Array, out: Array) -> None:
        """The bar of qkv, in which the bias is already."""
        self._run(self.back, [*self.parts(qkv), y.data.ptr, bar.data.ptr, log_sum.data.ptr, *self.parts(out)])

    def _run(self, plan: tuple[Any, list[Any], int], addresses: list[int]) -> None:
        (graph, tensors, size), cupy = plan, sys.modules["cupy"]
        self.cudnn.set_stream(handle=self.handle, stream=cupy.cuda.get_current_stream().ptr)
        memory = cupy.empty(size, np.uint8)  # of the pool of this stream, or of the recording
        graph.execute(dict(zip(tensors, addresses, strict=True)), memory.data.ptr, handle=self.handle)


def handle_of(cudnn: Any) -> Any:
    """cuDNN's handle for the current device."""
    key = (cudnn, sys.modules["cupy"].cuda.runtime.getDevice())
    if key not in _handles:
        _handles[key] = cudnn.create_handle()
    return _handles[key]


@cache
def installed() -> bool:
    return importlib.util.find_spec("cudnn") is not None


def route(own: Any, qkv: Array, add: Array, heads: int) -> Any:
    """`own`, or cuDNN's attention where it is to be taken for this shape: the same two functions, `forward` and `backward`."""
    wish, cupy = os.environ.get("MINIDIT_CUDNN", "off"), sys.modules["cupy"]
    if wish not in ("on", "auto") or qkv.dtype.name != "bfloat16" or not installed():
        return own
    key = (cupy.ndarray, cupy.cuda.runtime.getDevice(), *qkv.shape, heads, wish)
    if key not in _chosen:
        if cupy.cuda.get_current_stream().is_capturing():  # a race waits for the device
            return own
        _chosen[key] = raced(own, qkv, add, heads, wish)
    return _chosen[key][0] or own


def raced(own: Any, qkv: Array, add: Array, heads: int, wish: str) -> tuple[Any, str]:
    """(cuDNN's attention for this shape, or None for our own; what was found)"""
    B, N, width = qkv.shape
    try:
        other = CudnnAttention(importlib.import_module("cudnn"), B, N, heads, width // 3 // heads)
        (ours, our_time), (theirs, their_time) = (trial(r, qkv, add, heads) for r in (own, other))
        off = max(float(abs(a - b).max() / abs(a).max()) for a, b in zip(ours, theirs, strict=True))
    except Exception as error:  # whatever fails there, our own kernels are the answer, and the reason is shown
        return None, refused(f"{type(error).__name__}: {(str(error) or '?').splitlines()[0]}")
    if not off <= AGREE:
        return None, refused(f"it differs by {off:.1e} of the largest number")
    told = f"{their_time:.3f} ms by cuDNN, {our_time:.3f} ms by our kernels"
    return (other if wish == "on" or their_time < our_time else None), told


def refused(why: str) -> str:
    warnings.warn(f"cuDNN's attention is not used: {why}", RuntimeWarning, stacklevel=4)
    return why


def trial(r: Any, qkv: Array, add: Array, heads: int) -> tuple[list[Array], float]:
    """(y and the bar of qkv in float32, milliseconds of both ways together)"""
    cupy, (B, N, width) = sys.modules["cupy"], qkv.shape
    mine, y, out, log_sum = qkv.copy(), empty(qkv, (B, N, width // 3)), empty(qkv, qkv.shape), empty(qkv, (B, heads, N), f32)

    def run() -> None:
        r.forward(mine, add, y, log_sum)
        r.backward(mine, add, y, y, log_sum, out)

    run()
    found, start, end = [y.astype(f32), out.astype(f32)], cupy.cuda.Event(), cupy.cuda.Event()
    start.record()
    for _ in range(RUNS):
        run()
    end.record()
    end.synchronize()
    return found, float(cupy.cuda.get_elapsed_time(start, end)) / RUNS


def choices() -> dict[str, str]:
    """What was found for the shapes that were met: "B × N × 3D, heads" -> who is taken, and why."""
    return {f"{key[2:-2]}, {key[-2]} heads": f"{'cuDNN' if r else 'ours'}: {told}" for key, (r, told) in _chosen.items()}
