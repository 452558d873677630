"""Keeping x̂_0 inside the range of pictures, and the ε̂ that goes with it.

    x̂_0 <- min(max(x̂_0, -1), 1)                                       static                   (D.31)
    x̂_0 <- clip(x̂_0, -q, q)/q,   q = clip(quantile_p |x̂_0|, 1, most)   dynamic, per sample      (D.32)
    ε̂   <- (x_t - √ᾱ_t x̂_0)/√(1-ᾱ_t)   or   ε̂ <- ε̂                    re-derived, or kept      (D.33)

A re-derived pair still satisfies x_t = √ᾱ_t x̂_0 + √(1-ᾱ_t) ε̂; a kept one does not. For pixels; latents have no such range.
"""

from __future__ import annotations

from collections.abc import Callable

from minidit.backend import Array, xp_of
from minidit.diffusion.level import Level
from minidit.diffusion.prediction import X_0

Limit = Callable[[Array], Array]


def static(x_0_hat: Array) -> Array:
    """x̂_0 clipped to [-1, 1]."""
    return xp_of(x_0_hat).clip(x_0_hat, -1.0, 1.0)  # (D.31)


def dynamic(x_0_hat: Array, *, p: float = 0.995, most: float = 10.0) -> Array:
    """Imagen's: saturated pictures are squeezed, others clipped. x_0_hat : (B, ...). most = 1 would be the static clip."""
    xp = xp_of(x_0_hat)
    flat = abs(x_0_hat).reshape(len(x_0_hat), -1)
    q = xp.clip(xp.quantile(flat, p, axis=1), 1.0, most).astype(x_0_hat.dtype)
    q = q.reshape(-1, *[1] * (x_0_hat.ndim - 1))
    return xp.clip(x_0_hat, -q, q) / q  # (D.32)


def rederived(x_0_hat: Array, x_t: Array, t: Level, limit: Limit = static) -> tuple[Array, Array]:
    """The limited x̂_0 and the ε̂ that goes with it at x_t, a sample of level t."""
    return X_0.pair(limit(x_0_hat), x_t, t)  # (D.33)


def kept(x_0_hat: Array, eps_hat: Array, limit: Limit = static) -> tuple[Array, Array]:
    """The limited x̂_0, and the network's own ε̂ unchanged."""
    return limit(x_0_hat), eps_hat  # (D.33)
