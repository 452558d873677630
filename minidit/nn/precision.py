"""Mixed precision: what each policy rounds, and where.

    policy     factors of products      activations between the embeddings and the last layer     where
    float32    float32                  float32                                                   everywhere, the default
    tf32       10 bits of mantissa      float32                                                   GPU
    bf16       8 bits of mantissa       float32 on a CPU, bfloat16 on a GPU                       CPU with Intel's library, GPU

Under every policy weights, their gradients, moments, averages, noise, losses and checkpoints are float32, and tables float64.
Sums and the softmax are computed in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np

from minidit import ops
from minidit.autograd import NoTwin, Value, value
from minidit.backend import Array, module_of
from minidit.choices import check_word
from minidit.kernels import blas, cuda_blas, cuda_launch

POLICIES = ("float32", "tf32", "bf16")


def check_precision(policy: str, device: str) -> None:
    """Raises ValueError, naming what is missing, unless this device can compute under this policy."""
    check_word("precision", policy, POLICIES)
    if policy == "float32":
        return
    if device == "cpu":
        if policy == "tf32":
            raise ValueError("precision 'tf32' needs a GPU: on the CPU there are float32 and bf16")
        blas.precise(policy)
        return
    module_of(device)  # imports CuPy, without which there are no kernels
    if not cuda_launch.available("elementwise"):
        raise ValueError(f"precision {policy!r} on a GPU needs the package's kernels, which are off or do not compile here")
    if cuda_blas.handle() is None:
        raise ValueError(f"precision {policy!r} on a GPU needs cuBLAS, which does not load here")
    if policy == "bf16":
        try:
            cuda_blas.bfloat16()
        except NoTwin as error:
            raise ValueError(f"precision 'bf16' on a GPU: {error} (pip install ml_dtypes)") from None


@contextmanager
def computing_in(policy: str, device: str, weights: Array = None, copy: Array = None) -> Iterator[None]:
    """`with computing_in("bf16", device):` networks inside compute under this policy. Raises ValueError as check_precision.

    weights : a flat buffer that does not change inside; under bf16 on a GPU it is rounded once and not in every product
    copy : that rounded buffer, from `copy_of`, where an optimiser keeps it
    """
    check_precision(policy, device)
    with ExitStack() as stack:
        stack.enter_context(blas.using(blas.precise(policy)) if device == "cpu" else cuda_blas.using_precision(policy))
        if device != "cpu" and weights is not None:
            stack.enter_context(cuda_blas.rounded_once(weights, copy))
        yield


def copy_of(weights: Array, policy: str) -> Array | None:
    """The weights as factors of products, for an optimiser to keep: in bfloat16 on a GPU under bf16, else None."""
    if policy != "bf16" or isinstance(weights, np.ndarray) or weights.dtype.name != "float32":
        return None
    return cuda_blas.to_bfloat16(weights)


def stored(x: Value) -> Value:
    """x in the type in which the policy keeps activations: bfloat16 on a GPU under bf16, otherwise unchanged."""
    a = value(x)
    if a is None or isinstance(a, np.ndarray) or a.dtype.name != "float32" or cuda_blas.precision() != "bf16":
        return x
    return ops.cast(x, dtype=cuda_blas.bfloat16())


def restored(x: Value, like: Value) -> Value:
    """The same numbers in the type of `like`, an array or a Tensor."""
    return x if value(x).dtype == like.dtype else ops.cast(x, dtype=like.dtype)
