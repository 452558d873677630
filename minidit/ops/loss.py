"""Losses: scalars at the end of the tape.

    mse = (1/n) Σ w_b (x - target)²                                          by default w = 1 and n = size     (A.25)
    cross entropy = -(1/n) Σ_b ln softmax(logits_b)[label_b]                                                     (A.26)
    KL(N(μ, e^λ) ‖ N(0, 1)) = ½ (μ² + e^λ - 1 - λ)  summed over all entries, divided by n                         (A.27)
"""

from __future__ import annotations

from typing import Any

from minidit.autograd import Vjp, primitive
from minidit.backend import Array, xp_of


@primitive
def mse(x: Array, target: Array, weight: Array = None, *, n: int | None = None) -> tuple[Array, Vjp]:
    """x, target : one shape (B, ...), weight : (B,) or None  ->  scalar. n: the divisor, x.size unless the batch is cut up."""
    xp = xp_of(x, target)
    n = x.size if n is None else n
    d = x - target
    w = 1.0 if weight is None else weight.reshape(-1, *[1] * (x.ndim - 1))

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        x_bar = d * w * (2 / n * y_bar)
        return x_bar, lambda: -x_bar, None

    return xp.asarray((w * d * d).sum() / n), vjp  # (A.25)


@primitive
def cross_entropy(logits: Array, *, labels: Array, n: int | None = None) -> tuple[Array, Vjp]:
    """logits : (B, K), labels : (B,) ints  ->  scalar."""
    xp = xp_of(logits, labels)
    n = len(logits) if n is None else n
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - xp.log(xp.exp(shifted).sum(axis=1, keepdims=True))
    rows = xp.arange(len(logits))

    def vjp(y_bar: Array) -> tuple[Array]:
        bar = xp.exp(log_p)
        bar[rows, labels] -= 1
        return (bar * (y_bar / n),)

    return xp.asarray(-log_p[rows, labels].sum() / n), vjp  # (A.26)


@primitive
def gaussian_kl(mean: Array, logvar: Array, *, n: int = 1) -> tuple[Array, Vjp]:
    """mean, logvar : one shape  ->  scalar, in nats. n: the divisor, 1 for the sum over all entries."""
    xp = xp_of(mean, logvar)
    var = xp.exp(logvar)

    def vjp(y_bar: Array) -> tuple[Array, Array]:
        return mean * (y_bar / n), (var - 1) * (0.5 / n * y_bar)

    return xp.asarray(0.5 * (mean * mean + var - 1 - logvar).sum() / n), vjp  # (A.27)
