"""Training losses. F is the network's output, its answer.

    L_simple = E ‖ε - ε̂‖²/dim         t uniform in 1..T                               (D.34)
    min-SNR-γ:  weight min(SNR, γ) on the x_0 loss, divided by the gain of F          (D.35)
        ε: min(SNR,γ)/SNR      v: min(SNR,γ)/(SNR+1)
    L_hybrid = L_simple + λ T L_vb     λ = 0.001, L_vb one term of the bound in bits   (D.36)
    p_t ∝ √E[L_t²]                     importance-sampled t, weight 1/(T p_t)          (D.37)
    weight of ‖ε - ε̂‖² in the bound: β²/(2σ² α (1-ᾱ_t))                               (D.47)
    by noise:  weight 1/max(σ/(α+σ), floor) on the x_0 loss, divided by the gain of F  (D.52)
    EDM:  weight (σ²+σ_d²)/(σ σ_d)² on the x_0 loss, divided by the gain of F         (P.23)

The min-SNR weights of all answers are one weight in different coordinates: |error of ε|² = SNR |error of x_0|², that of v is
SNR+1 times as large. Written as γ (ασ/Δ)²/max(α², γσ²) they stay finite at both ends of a path.
"""

from __future__ import annotations

from collections.abc import Callable

from minidit import ops
from minidit.backend import Array, home_of, xp_of
from minidit.diffusion.level import Level, at, check_shapes, enter
from minidit.diffusion.prediction import Prediction, is_zero
from minidit.diffusion.schedule import Schedule


def per_sample(out: Array, target: Array, weight: Array = None) -> Array:
    """out, target : (B, ...), Tensors or arrays, weight : float, (B,) or None  ->  (B,): weighted mean squares."""
    check_shapes(out=out, target=target)
    return ops.mse(out, target, None if weight is None else enter(weight, like=target))  # (D.34)


def simple(out: Array, target: Array, weight: Array = None) -> Array:
    """`per_sample` averaged over the batch  ->  scalar."""
    return per_sample(out, target, weight).mean()  # (D.34)


def min_snr(answer: Prediction, at: Level, gamma: float = 5.0) -> Array:
    """min(SNR, γ)/gain, the weight of the loss on this answer : float or (B,), finite at both ends of a path."""
    signal, noise = at.alpha**2, gamma * at.sigma**2
    most = max(signal, noise) if home_of(signal) == "" else xp_of(signal).maximum(signal, noise)
    return gamma * answer.joint_slope(at) ** 2 / most  # (D.35)


def by_noise(answer: Prediction, at: Level, floor: float = 0.1) -> Array:
    """1/max(σ/(α+σ), floor) on the x_0 loss, for any answer: on the straight path 1/max(t, floor), so that details, which only
    little noise leaves undecided, weigh more, and the very last ones no more than those at the floor, above 0.

    ->  float or (B,), as the level
    """
    share = at.sigma / (at.alpha + at.sigma)
    most = max(share, floor) if home_of(share) == "" else xp_of(share).maximum(share, floor)
    p, q = answer.p(at), answer.q(at)
    per_gain = 1 / p**2 if is_zero(q) else (at.sigma / (at.alpha * q - at.sigma * p)) ** 2  # finite where σ = 0, too
    return per_gain / most  # (D.52)


def edm_weight(sigma_data: float) -> Callable[[Prediction, Level], Array]:
    """EDM's weight, for any answer on any path; for EDM's own answer it is 1 at every level."""

    def weight(answer: Prediction, at: Level) -> Array:
        noise = (at.sigma / at.alpha) ** 2
        return (noise + sigma_data**2) / (noise * sigma_data**2) / answer.gain(at)  # (P.23)

    return weight


def hybrid(simple: Array, vb: Array, T: int, lam: float = 1e-3) -> Array:
    """L_simple and the bound's term of a uniformly drawn t (likelihood.bound_term, its mean held fixed)  ->  L_hybrid.

    One term is 1/T of the bound on average, hence the T: for T = 1000 the factor is 1.
    """
    return simple + vb * (lam * T)  # (D.36)


def importance(history: Array, uniform: float = 1e-3) -> Array:
    """history : (T, K), the last K losses of each t = 1..T (NaN where there is none yet)  ->  p : (T+1,) with p_0 = 0.

    Uniform until every t has K losses; afterwards mixed with a little of the uniform, so that no weight can explode.
    """
    xp = xp_of(history)
    T = len(history)
    p = xp.sqrt((history**2).mean(axis=1))  # NaN if a loss is missing
    p = xp.where(xp.isnan(p).any(), xp.full(T, 1 / T), (1 - uniform) * p / p.sum() + uniform / T)
    return xp.concatenate([xp.zeros(1), p])  # (D.37)


def importance_weight(p: Array, t: Array) -> Array:
    """p : (T+1,), t : (B,) drawn from p  ->  (B,): the weight that keeps the loss unbiased."""
    return 1 / ((len(p) - 1) * p[t])  # (D.37)


def bound_weight(t: Array, s: Array, sch: Schedule, variance: Array) -> Array:
    """The factor of ‖ε - ε̂‖² in L_{t-1}, nats, summed over dimensions (DDPM eq. 12)."""
    a_t, alpha = at(sch.alpha_bar, t), at(sch.alpha_bar, t) / at(sch.alpha_bar, s)
    return (1 - alpha) ** 2 / (2 * variance * alpha * (1 - a_t))  # (D.47)
