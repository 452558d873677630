"""The engine's interface for training and sampling: random streams, drawn by a kernel on a GPU, recorded functions, and NCCL.

On a CPU a Stream is the plain Philox, and a function runs as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from minidit.kernels import cublaslt, cudnn_attention
from minidit.kernels.blas import name_of_blas
from minidit.kernels.cuda_graph import Captured, explain, obstacle
from minidit.kernels.cuda_laws import DevicePhilox as Stream
from minidit.kernels.nccl import Nccl

__all__ = ["Captured", "Nccl", "Stream", "can_record", "libraries_asked_for", "name_of_blas", "recorded"]

R = TypeVar("R")


def can_record(device: str, dtype: Any, what: str) -> bool:
    """Whether a function on this device, computing in this type, can be recorded as a CUDA graph. Logs once why it cannot."""
    if device == "cpu":
        return False
    reason = obstacle(dtype)
    if reason:
        explain(what, reason)
    return not reason


def recorded(f: Callable[[], Any], what: str) -> Captured:
    """f, recorded at its second call and replayed from then on. What it returns is overwritten by the next call."""
    return Captured(f, what)


def libraries_asked_for() -> tuple[str, str]:
    """What the environment says of cuDNN's attention and cublasLt's epilogues: a recording holds the kernels of that choice."""
    return cudnn_attention.setting(), cublaslt.setting()
