"""Attention by cuDNN in bfloat16, where its Python frontend is installed (nvidia-cudnn-frontend).

Off unless MINIDIT_CUDNN is "on", which uses it wherever it agrees with the package's kernels, or "auto", which times both at the
first use of a shape, forward and backward, and keeps the faster. Another run may decide otherwise, and then its bits differ. For
a fixed choice a run repeats bit by bit: logits and sums are float32, and no sum depends on the order of threads.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import warnings
from functools import cache
from typing import Any, Protocol

import numpy as np

from minidit.backend import Array, empty
from minidit.kernels.cuda import add_bias
from minidit.kernels.cuda_launch import NULL, f32

AGREE = 2.0**-5  # of the largest number: a few roundings to bfloat16
RUNS = 5  # that are timed, after one that is not

_handles: dict[Any, Any] = {}
_chosen: dict[Any, tuple[Attention | None, str]] = {}


class Attention(Protocol):
    """Attention of one shape, forward and backward: the package's kernels, or cuDNN."""

    def forward(self, qkv: Array, add: Array, y: Array, log_sum: Array) -> None: ...
    def backward(self, qkv: Array, add: Array, y: Array, bar: Array, log_sum: Array, out: Array) -> None: ...


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
        self.forward_plan = built(forward, [q, k, v, written(y, dense), written(sums, rows, 1, kinds.FLOAT)])
        q, k, v = (tensor(backward, name, packed) for name in "qkv")
        y, bar = (tensor(backward, name, dense) for name in ("y", "y_bar"))
        sums = tensor(backward, "sums", rows, 1, kinds.FLOAT)
        laws = {"attn_scale": scale, "use_deterministic_algorithm": True, "name": "attention_backward"}
        bars = backward.sdpa_backward(q=q, k=k, v=v, o=y, dO=bar, stats=sums, **laws)
        self.backward_plan = built(backward, [q, k, v, y, bar, sums, *(written(b, packed) for b in bars)])

    def parts(self, packed: Array) -> list[int]:
        """The addresses of q, k and v."""
        return [packed.data.ptr + part * self.width * packed.itemsize for part in range(3)]

    def forward(self, qkv: Array, add: Array, y: Array, log_sum: Array) -> None:
        """y and the logarithms of the rows' sums; a bias is added to q and v in place.

        That of k adds one number to all logits of a row, which the softmax does not see: q̄ and k̄ stay the same as well.
        """
        if add is not NULL:
            add_bias(qkv.reshape(-1, qkv.shape[2]), add, all_thirds=False)
        self._run(self.forward_plan, [*self.parts(qkv), y.data.ptr, log_sum.data.ptr])

    def backward(self, qkv: Array, add: Array, y: Array, bar: Array, log_sum: Array, out: Array) -> None:
        """The bar of qkv, to whose q and v `forward` has added their bias."""
        self._run(self.backward_plan, [*self.parts(qkv), y.data.ptr, bar.data.ptr, log_sum.data.ptr, *self.parts(out)])

    def _run(self, plan: tuple[Any, list[Any], int], addresses: list[int]) -> None:
        (graph, tensors, size), cupy = plan, sys.modules["cupy"]
        self.cudnn.set_stream(handle=self.handle, stream=cupy.cuda.get_current_stream().ptr)
        memory = cupy.empty(size, np.uint8)  # from the pool of this stream, or of the graph that is recorded
        graph.execute(dict(zip(tensors, addresses, strict=True)), memory.data.ptr, handle=self.handle)


def handle_of(cudnn: Any) -> Any:
    key = (cudnn, sys.modules["cupy"].cuda.runtime.getDevice())
    if key not in _handles:
        _handles[key] = cudnn.create_handle()
    return _handles[key]


@cache
def installed() -> bool:
    return importlib.util.find_spec("cudnn") is not None


def setting() -> str:
    """What the environment asks for: "on", "auto" or "off"."""
    return os.environ.get("MINIDIT_CUDNN", "off")


def route(tiles: Attention, qkv: Array, add: Array, heads: int) -> Attention:
    """`tiles`, the package's kernels, or cuDNN's attention where the environment asks for it and it serves this shape."""
    wish, cupy = setting(), sys.modules["cupy"]
    if wish not in ("on", "auto") or qkv.dtype.name != "bfloat16" or not installed():
        return tiles
    key = (cupy.ndarray, cupy.cuda.runtime.getDevice(), *qkv.shape, heads, wish)
    if key not in _chosen:
        if cupy.cuda.get_current_stream().is_capturing():  # timing waits for the device, which a recording forbids
            return tiles
        _chosen[key] = compared(tiles, qkv, add, heads, wish)
    return _chosen[key][0] or tiles


def compared(tiles: Attention, qkv: Array, add: Array, heads: int, wish: str) -> tuple[Attention | None, str]:
    """(cuDNN's attention for this shape, or None for the package's kernels; the reason)"""
    B, N, width = qkv.shape
    try:
        other = CudnnAttention(importlib.import_module("cudnn"), B, N, heads, width // 3 // heads)
        (ours, our_time), (theirs, their_time) = (trial(r, qkv, add, heads) for r in (tiles, other))
        off = max(float(abs(a - b).max() / abs(a).max()) for a, b in zip(ours, theirs, strict=True))
    except Exception as error:  # whatever fails in cuDNN, the package's kernels do the work, and a warning gives the reason
        return None, refused(f"{type(error).__name__}: {(str(error) or '?').splitlines()[0]}")
    if not off <= AGREE:
        return None, refused(f"it differs by {off:.1e} of the largest number")
    times = f"{their_time:.3f} ms by cuDNN, {our_time:.3f} ms by our kernels"
    return (other if wish == "on" or their_time < our_time else None), times


def refused(why: str) -> str:
    warnings.warn(f"cuDNN's attention is not used: {why}", RuntimeWarning, stacklevel=4)
    return why


def trial(r: Attention, qkv: Array, add: Array, heads: int) -> tuple[list[Array], float]:
    """(y and the bar of qkv in float32, milliseconds of forward and backward together)"""
    cupy, (B, N, width) = sys.modules["cupy"], qkv.shape
    copy, y, out, log_sum = qkv.copy(), empty(qkv, (B, N, width // 3)), empty(qkv, qkv.shape), empty(qkv, (B, heads, N), f32)

    def run() -> None:
        r.forward(copy, add, y, log_sum)
        r.backward(copy, add, y, y, log_sum, out)

    run()
    answers, start, end = [y.astype(f32), out.astype(f32)], cupy.cuda.Event(), cupy.cuda.Event()
    start.record()
    for _ in range(RUNS):
        run()
    end.record()
    end.synchronize()
    return answers, float(cupy.cuda.get_elapsed_time(start, end)) / RUNS


def choices() -> dict[str, str]:
    """For every shape so far, "B × N × 3D, heads": which attention serves it, and why."""
    return {f"{key[2:-2]}, {key[-2]} heads": f"{'cuDNN' if r else 'ours'}: {reason}" for key, (r, reason) in _chosen.items()}
