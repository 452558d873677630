"""Classifier-free guidance (Ho & Salimans 2022): extrapolate from the unconditional prediction past the conditional one.

    ε̂ = ε_∅ + w (ε_c - ε_∅)                        w = 0 unconditional, w = 1 conditional          (G.1)
    ε̂ = (1+ω) ε_c - ω ε_∅                          the paper's own scale: w = 1 + ω                (G.2)
    ε̂ = φ ε̂_w std(ε_c)/std(ε̂_w) + (1-φ) ε̂_w        rescaled, per sample                            (G.3)
    w(t) = w if low < t ≤ high else 1              guidance in an interval of noise levels         (G.4)
    (G.1) on channels 0, 1, 2, all others ε_c      as in the official DiT sampler                  (G.5)

All are linear in the outputs, so they hold for ε, x_0, v and the score alike.
"""

from __future__ import annotations

from minidit.backend import Array, home_of, xp_of
from minidit.diffusion.level import check_shapes, enter


def guide(eps_u: Array, eps_c: Array, w: Array) -> Array:
    """eps_u, eps_c : (B, ...), w : float or (B,)  ->  ε̂ : (B, ...). Raises ValueError if the shapes differ."""
    check_shapes(eps_u=eps_u, eps_c=eps_c)
    w = enter(w, like=eps_c)
    return eps_u + w * (eps_c - eps_u)  # (G.1)


def guide_from_conditional(eps_u: Array, eps_c: Array, omega: Array) -> Array:
    """The paper's convention: ω = 0 is already conditional, ω = -1 unconditional."""
    check_shapes(eps_u=eps_u, eps_c=eps_c)
    omega = enter(omega, like=eps_c)
    return (1 + omega) * eps_c - omega * eps_u  # (G.2)


def rescale(eps_hat: Array, eps_c: Array, phi: float = 0.7) -> Array:
    """Guided ε̂ scaled back to the contrast of ε_c, per sample; φ = 0 leaves it unchanged, φ = 1 is the full correction."""
    check_shapes(eps_hat=eps_hat, eps_c=eps_c)
    axes = tuple(range(1, eps_c.ndim))
    ratio = eps_c.std(axis=axes, keepdims=True) / eps_hat.std(axis=axes, keepdims=True)
    return phi * (ratio * eps_hat) + (1 - phi) * eps_hat  # (G.3)


def interval(w: float, t: Array, low: float, high: float) -> Array:
    """The scale at time t, one number or (B,): w inside low < t ≤ high, 1 (plain conditional) outside."""
    if home_of(t) == "":
        return w if low < t <= high else 1.0  # (G.4)
    return xp_of(t).where((low < t) & (t <= high), w, 1.0)  # (G.4)


def guide_three_channels(out_u: Array, out_c: Array, w: Array) -> Array:
    """The official DiT sampler's quirk: out_u, out_c : (B, C ≥ 3, ...)  ->  only the first three channels are guided.

    The fourth latent channel and the variance channels stay conditional. Kept so that published samples can be reproduced.
    """
    guided = guide(out_u[:, :3], out_c[:, :3], w)
    return xp_of(out_c).concatenate([guided, out_c[:, 3:]], axis=1)  # (G.5)
