"""Topics: classifier-free guidance in both scales and both batch layouts, its corrections, and the range of x̂_0.

The dynamic threshold is spelled out, because mistakes change its limit in the middle (M33, M33b, M33c).
"""

from __future__ import annotations

import numpy as np

from minidit.backend import Array
from minidit.diffusion import guidance as law
from minidit.diffusion import threshold
from minidit.random import Philox
from minidit.verify.core.reference import Group, Probe, Reference, part

topic = Group("guidance")


def _branches(*scales: float) -> list[Probe]:
    rng, out = Philox(41), []
    for w in scales:
        u, c = (rng.normal((3, 4, 2, 3), dtype=np.float64) for _ in range(2))
        out.append(Probe(f"w{w}", (u, c, w), "four channels; 0 and 1 tell the two branches apart"))
    return out


combined = part(lambda R, u, c, w: law.guide(u, c, w))  # the guided output of the unconditional branch u and the conditional c


@topic("G.1", "eps_u, eps_c (B,C,H,W), w (1: conditional)", "eps (B,C,H,W)", lambda: _branches(0.0, 1.0, 4.0))
def guide(R: Reference, eps_u: Array, eps_c: Array, w: float) -> Array:
    """ε_∅ + w (ε_c - ε_∅)."""
    return combined(R, eps_u, eps_c, w)


@topic("G.2", "eps_u, eps_c (B,C,H,W), omega (0: conditional)", "eps (B,C,H,W)", lambda: _branches(0.0, -1.0, 3.0))
def guide_omega(R: Reference, eps_u: Array, eps_c: Array, omega: float) -> Array:
    """(1+ω) ε_c - ω ε_∅."""
    return combined(R, eps_u, eps_c, 1 + omega)


def _stacked() -> list[Probe]:
    rng = Philox(42)
    return [
        Probe(f"w{w}", (rng.normal((6, 4, 2, 3), dtype=np.float64), w), "the order of the halves shows at w ≠ 1/2")
        for w in (1.0, 4.0)
    ]


@part
def halves(R: Reference, out: Array, cond_first: bool) -> tuple[Array, Array]:
    """(unconditional, conditional) of a doubled batch."""
    a, b = out[: len(out) // 2], out[len(out) // 2 :]
    return (b, a) if cond_first else (a, b)


@topic("G.1", "out (2B,C,H,W): [uncond; cond], w", "eps (B,C,H,W)", _stacked)
def guide_uncond_first(R: Reference, out: Array, w: float) -> Array:
    """ε_∅ + w (ε_c - ε_∅), the first half of the batch is ε_∅."""
    return combined(R, *halves(R, out, False), w)


@topic("G.1", "out (2B,C,H,W): [cond; uncond], w", "eps (B,C,H,W)", _stacked)
def guide_cond_first(R: Reference, out: Array, w: float) -> Array:
    """ε_∅ + w (ε_c - ε_∅), the first half of the batch is ε_c."""
    return combined(R, *halves(R, out, True), w)


def _phis() -> list[Probe]:
    return [Probe(f"phi{phi}", (*_branches(2.0)[0].args[:2], phi), "samples of unequal contrast") for phi in (1.0, 0.7, 0.0)]


@topic("G.3", "eps (guided), eps_c (B,C,H,W), phi", "eps (B,C,H,W)", _phis)
def rescale_guided(R: Reference, eps: Array, eps_c: Array, phi: float) -> Array:
    """φ ε std(ε_c)/std(ε) + (1-φ) ε, std over each sample."""
    return law.rescale(eps, eps_c, phi)


def _intervals() -> list[Probe]:
    t = np.array([0, 99, 100, 101, 399, 400, 401, 999])
    return [Probe("100-400", (3.0, t, 100, 400), "both ends of the interval")]


@topic("G.4", "w, t (B,) in 0..T-1, low, high", "(B,): w where low ≤ t < high, else 1", _intervals)
def guidance_interval(R: Reference, w: float, t: Array, low: int, high: int) -> Array:
    """w where low ≤ t < high, else 1, which is plain conditional."""
    return law.interval(w, t + 1, low, high)


def _guesses() -> list[Probe]:
    x = Philox(43).normal((3, 2, 4, 5), dtype=np.float64)
    scale = np.array([0.2, 1.5, 8.0]).reshape(3, 1, 1, 1)
    return [Probe("unequal", (x * scale,), "one sample within [-1, 1], one beyond, one far beyond")]


def _thresholds() -> list[Probe]:
    return [
        Probe(f"p{p}-max{m}", (*_guesses()[0].args, p, m), "the limit is each sample's own")
        for p, m in ((0.9, 50.0), (0.995, 5.0))
    ]


@topic("D.31", "x_0 (B,C,H,W)", "x_0 in [-1, 1]", _guesses)
def clip_static(R: Reference, x_0: Array) -> Array:
    """min(max(x̂_0, -1), 1)."""
    return threshold.static(x_0)


@part
def saturation(R: Reference, x_0: Array, p: float, most: float) -> Array:
    """q of each sample, (B,1,1,1): the quantile of |x̂_0|, within [1, most]."""
    q = np.quantile(abs(x_0).reshape(len(x_0), -1), p, axis=1)
    return np.clip(q, 1.0, most).reshape(-1, 1, 1, 1)


@topic("D.32", "x_0 (B,C,H,W), p, most", "x_0 in [-1, 1]", _thresholds)
def clip_dynamic(R: Reference, x_0: Array, p: float, most: float) -> Array:
    """clip(x̂_0, -q, q)/q, q the p-quantile of |x̂_0| of each sample (interpolated linearly), within [1, most]."""
    q = saturation(R, x_0, p, most)
    return np.clip(x_0, -q, q) / q
