"""Losses: one number per sample at the end of the tape; the training loop averages them.

    mse_b = w_b mean (x_b - target_b)²                                       w = 1 unless given      (A.25)
    cross entropy_b = -ln softmax(logits_b)[label_b]                                                 (A.26)
    KL_b(N(μ, e^λ) ‖ N(0, 1)) = Σ ½ (μ² + e^λ - 1 - λ)                        over the sample's entries (A.27)
"""

from __future__ import annotations

from typing import Any

from minidit.autograd import Vjp, primitive
from minidit.backend import Array, home_of, xp_of
from minidit.ops.gather import check_rows


def beside(per_sample: Array, x: Array) -> Array:
    """(B,) numbers, one per sample, as (B, 1, ..., 1), to broadcast against x : (B, ...)."""
    return per_sample.reshape(-1, *[1] * (x.ndim - 1))


def check_one_shape(name: str, a: Array, b: Array) -> None:
    """Raises ValueError if the shapes differ: broadcasting would change the entries that the mean is over."""
    if a.shape != b.shape:
        raise ValueError(f"{name}: shapes {a.shape} and {b.shape} must be the same")


@primitive
def mse(x: Array, target: Array, weight: Array = None) -> tuple[Array, Vjp]:
    """x, target : one shape (B, ...), weight : (B,), a number or None  ->  (B,). Raises ValueError for other shapes."""
    check_one_shape("mse", x, target)
    entries = x[0].size
    d = x - target
    w = weight if weight is None or home_of(weight) == "" else weight.reshape(-1)
    y = (d * d).reshape(len(x), -1).sum(axis=1) * (1 / entries)  # (A.25)

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        bar = y_bar * (2 / entries) if w is None else y_bar * w * (2 / entries)
        x_bar = d * beside(bar, d)
        return x_bar, lambda: -x_bar, None

    return y if w is None else w * y, vjp


@primitive
def cross_entropy(logits: Array, *, labels: Array) -> tuple[Array, Vjp]:
    """logits : (B, K), labels : (B,) ints in 0..K-1  ->  (B,). Raises ValueError for other shapes, and (on the host) labels."""
    if logits.ndim != 2 or tuple(labels.shape) != (len(logits),):
        raise ValueError(f"cross_entropy: logits {logits.shape} and labels {labels.shape}, expected (B, K) and (B,)")
    check_rows("cross_entropy", labels, logits.shape[1])
    xp = xp_of(logits, labels)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - xp.log(xp.exp(shifted).sum(axis=1, keepdims=True))
    rows = xp.arange(len(logits))

    def vjp(y_bar: Array) -> tuple[Array]:
        bar = xp.exp(log_p)
        bar[rows, labels] -= 1
        return (bar * beside(y_bar, bar),)

    return -log_p[rows, labels], vjp  # (A.26)


@primitive
def gaussian_kl(mean: Array, logvar: Array) -> tuple[Array, Vjp]:
    """mean, logvar : one shape (B, ...)  ->  (B,), in nats. Raises ValueError if the shapes differ."""
    check_one_shape("gaussian_kl", mean, logvar)
    xp = xp_of(mean, logvar)
    var = xp.exp(logvar)

    def vjp(y_bar: Array) -> tuple[Array, Array]:
        bar = beside(y_bar, mean)
        return mean * bar, (var - 1) * (0.5 * bar)

    return 0.5 * (mean * mean + var - 1 - logvar).reshape(len(mean), -1).sum(axis=1), vjp  # (A.27)
