"""Topics: the variational bound and its parts, in the units of each.

The decoders and the units are spelled out, because mistakes change the width of a bin, Φ, ln σ, the mean over dimensions and
the terms of the sum in the middle (M48 to M54).
"""

from __future__ import annotations

import math

import numpy as np

from minidit.backend import Array
from minidit.diffusion import likelihood as law
from minidit.diffusion.schedule import Schedule
from minidit.random import Philox
from minidit.verify.core.reference import Group, Probe, Reference, part
from minidit.verify.topics.posterior import log_small_variance, posterior_mean

topic = Group("likelihood")

TAILS = "float32 loses digits of small probabilities"


def _normals() -> list[Probe]:
    rng = Philox(51)
    arrays = tuple(rng.normal((2, 1, 2, 3), dtype=np.float64) for _ in range(4))
    return [Probe("hand", (0.0, 0.0, 1.0, 0.0), "½"), Probe("drawn", arrays, "both variances differ")]


@topic("K.1", "mean_1, logvar_1, mean_2, logvar_2", "KL in nats, entry by entry", _normals)
def normal_kl(R: Reference, mean_1: Array, logvar_1: Array, mean_2: Array, logvar_2: Array) -> Array:
    """½ (λ₂ - λ₁ - 1 + e^(λ₁-λ₂) + (μ₁-μ₂)² e^-λ₂)."""
    return law.normal_kl(mean_1, logvar_1, mean_2, logvar_2)


cdf = part(lambda R, z: law.exact_cdf(z))  # Φ
half_bin = part(lambda R: 1 / 255)  # half the distance of two grey levels in [-1, 1]
log_scale = part(lambda R, log_variance: 0.5 * log_variance)  # ln σ


@part
def bin_probability(R: Reference, x: Array, mean: Array, log_variance: Array) -> Array:
    """P of the bin around x; the end bins are open."""
    h, per_std = half_bin(R), np.exp(-log_scale(R, log_variance))
    c = x - mean
    right = c > 0  # the tail in which a difference does not cancel
    upper, lower = cdf(R, per_std * (h - abs(c))), cdf(R, per_std * (-h - abs(c)))
    first, last = end_bins(R, x)
    upper = np.where((first & right) | (last & ~right), 1.0, upper)
    lower = np.where((first & ~right) | (last & right), 0.0, lower)
    return upper - lower


end_bins = part(lambda R, x: (x < -0.999, x > 0.999))  # which x lie in the bins of 0 and 255, which are open outwards


@topic("K.4", "k (n,) grey levels 0..255", "(low, high), each (n,): the edges of the bins in [-1, 1], infinite where open",
       lambda: [Probe("ends", (np.array([0, 1, 2, 127, 253, 254, 255]),), "each end, and its neighbour")])  # fmt: skip
def bin_edges(R: Reference, k: Array) -> tuple[Array, Array]:
    """2k/255 - 1 ∓ 1/255, and ∓∞ at k = 0 and k = 255."""
    x = k / 127.5 - 1
    first, last = end_bins(R, x)
    return np.where(first, -np.inf, x - half_bin(R)), np.where(last, np.inf, x + half_bin(R))


def _levels() -> list[Probe]:
    rng, k = Philox(52), np.array([0, 1, 5, 127, 128, 200, 254, 255, 90, 0, 255, 64])
    x, out = (k / 127.5 - 1).reshape(2, 1, 2, 3), []
    for log_variance in (-7.0, -2.0):
        mean = x + np.exp(0.5 * log_variance) * rng.normal(x.shape, dtype=np.float64)
        args = (x, mean, np.full(x.shape, log_variance))
        out.append(Probe(f"logvar{log_variance}", args, "both end bins; σ near the bin's width, and wide"))
    return out


@topic("K.4", "x on the grid 2k/255-1, mean, log_variance (B,C,H,W)", "nats, entry by entry", _levels, tol=5.0, because=TAILS)
def discretised_nll(R: Reference, x: Array, mean: Array, log_variance: Array) -> Array:
    """-ln (Φ((x-μ+1/255)/σ) - Φ((x-μ-1/255)/σ)), the bins of x = ±1 open outwards."""
    return -np.log(np.maximum(bin_probability(R, x, mean, log_variance), 1e-12))


def _latents() -> list[Probe]:
    rng = Philox(53)
    x, mean, lv = (rng.normal((2, 1, 2, 3), dtype=np.float64) for _ in range(3))
    return [Probe("drawn", (1.5 * x, mean, lv), "|x| > 1")]


@topic("K.6", "x, mean, log_variance (B,C,H,W)", "nats, entry by entry", _latents)
def continuous_nll(R: Reference, x: Array, mean: Array, log_variance: Array) -> Array:
    """½ (ln 2π + λ + (x-μ)² e^-λ)."""
    return 0.5 * math.log(2 * math.pi) + log_scale(R, log_variance) + 0.5 * ((x - mean) / np.exp(log_scale(R, log_variance))) ** 2


# the decoder for data without grey levels
latent_nll = part(lambda R, x, mean, log_variance: continuous_nll(R, x, mean, log_variance))
over_dimensions = part(lambda R, nats: nats.mean(axis=tuple(range(1, nats.ndim))))  # (B, ...) to (B,)
per_bit = part(lambda R: math.log(2))  # nats in a bit


@topic("K.7", "nats (B,C,H,W)", "(B,): bits a dimension",
       lambda: [Probe("drawn", (abs(Philox(54).normal((3, 2, 2, 3), dtype=np.float64)),), "B, C, H, W all > 1")])  # fmt: skip
def bits_per_dim(R: Reference, nats: Array) -> Array:
    """mean over all entries of a sample / ln 2."""
    return over_dimensions(R, nats) / per_bit(R)


def _priors() -> list[Probe]:
    x = np.clip(Philox(55).normal((3, 2, 2, 3), dtype=np.float64), -1, 1)
    return [
        Probe(name, (x, make(1000).alpha_bar[1:]), "cosine leaves almost nothing at T, the scaled linear ladder a lot")
        for name, make in (("scaled-linear", Schedule.scaled_linear), ("linear", Schedule.linear))
    ]


@topic("K.2", "x_0 (B,C,H,W), alpha_bar (T,)", "(B,): bits a dimension", _priors, tol=1e3, exact=10.0,
       because="a small difference of numbers near 1")  # fmt: skip
def prior_bits(R: Reference, x_0: Array, alpha_bar: Array) -> Array:
    """KL(N(√ᾱ_T x_0, 1-ᾱ_T) ‖ N(0, 1)), the mean over entries, in bits."""
    mean, log_variance = prior_moments(R, x_0, alpha_bar)
    return bits_per_dim(R, normal_kl(R, mean, np.full_like(mean, log_variance), 0.0, 0.0))


last_level = part(lambda R, alpha_bar: float(alpha_bar[-1]))  # ᾱ_T
prior_mean = part(lambda R, x_0, a: a**0.5 * x_0)  # √ᾱ_T x_0
prior_log_variance = part(lambda R, a: np.log1p(-a))  # ln (1-ᾱ_T)


@topic("K.2", "x_0 (B,C,H,W), alpha_bar (T,)", "(mean (B,C,H,W), log_variance float) of q(x_T | x_0)", _priors, tol=5.0,
       because="a logarithm near 0")  # fmt: skip
def prior_moments(R: Reference, x_0: Array, alpha_bar: Array) -> tuple[Array, float]:
    """(√ᾱ_T x_0, ln (1-ᾱ_T))."""
    a = last_level(R, alpha_bar)
    return prior_mean(R, x_0, a), prior_log_variance(R, a)


@part
def bound_nats(
    R: Reference, x_0: Array, x_t: Array, x_0_hat: Array, log_variance: Array, t: int, alpha_bar: Array, latents: bool
) -> Array:
    """One term of the bound, entry by entry: the decoder's at t = 0, a KL above."""
    mean = posterior_mean(R, x_0_hat, x_t, t, t - 1, alpha_bar)
    if is_decoder_step(R, t):
        return (latent_nll if latents else discretised_nll)(R, x_0, mean, log_variance)
    true = posterior_mean(R, x_0, x_t, t, t - 1, alpha_bar)
    return normal_kl(R, true, log_small_variance(R, alpha_bar, t, t - 1), mean, log_variance)


is_decoder_step = part(lambda R, t: t == 0)  # whether the step arrives at the data


def _terms(latents: bool) -> list[Probe]:
    rng, out, alpha_bar = Philox(56), [], Schedule.linear(1000).alpha_bar[1:]
    for t in (0, 1, 30, 700):
        k = rng.integers(0, 256, (2, 2, 2, 3))
        x_0 = 1.5 * rng.normal(k.shape, dtype=np.float64) if latents else k / 127.5 - 1
        eps, error, lv = (rng.normal(k.shape, dtype=np.float64) for _ in range(3))
        a = alpha_bar[t]
        args = (x_0, a**0.5 * x_0 + (1 - a) ** 0.5 * eps, x_0 + 0.1 * error, np.log(1 - a) + 0.2 * lv, t, alpha_bar)
        out.append(Probe(f"t{t}", args, "the decoder's term and those above, a variance of its own"))
    return out


TERM = "x_0, x_t, x_0_hat, log_variance (B,C,H,W), t int 0..T-1, alpha_bar (T,)"
CANCELS = "terms cancel, and " + TAILS


@topic("K.3", TERM, "(B,): bits a dimension", lambda: _terms(False), tol=100.0, because=CANCELS)
def vb_term(R: Reference, x_0: Array, x_t: Array, x_0_hat: Array, log_variance: Array, t: int, alpha_bar: Array) -> Array:
    """KL(q(x_{t-1} | x_t, x_0) ‖ p), p with the mean of q(· | x_t, x̂_0) and the given variance; at t = 0 -ln p(grey level)."""
    return bits_per_dim(R, bound_nats(R, x_0, x_t, x_0_hat, log_variance, t, alpha_bar, False))


@topic("K.6", TERM, "(B,): bits a dimension", lambda: _terms(True), tol=100.0, exact=5.0, because=CANCELS)
def vb_term_latents(R: Reference, x_0: Array, x_t: Array, x_0_hat: Array, log_variance: Array, t: int, alpha_bar: Array) -> Array:
    """KL(q(x_{t-1} | x_t, x_0) ‖ p); at t = 0 the continuous -ln N(x_0; mean, variance): latents have no grey levels."""
    return bits_per_dim(R, bound_nats(R, x_0, x_t, x_0_hat, log_variance, t, alpha_bar, True))


def _totals() -> list[Probe]:
    rng, out = Philox(57), []
    for base in (Schedule.from_betas([0.1, 0.2, 0.3, 0.4]).alpha_bar[1:], Schedule.cosine(6).alpha_bar[1:]):
        T = len(base)
        x_0 = rng.integers(0, 256, (2, 1, 2, 3)) / 127.5 - 1
        x_t = np.stack([a**0.5 * x_0 + (1 - a) ** 0.5 * rng.normal(x_0.shape, dtype=np.float64) for a in base])
        guess = x_0 + 0.2 * rng.normal((T, *x_0.shape), dtype=np.float64)
        lv = np.stack([np.full(x_0.shape, np.log(1 - a)) for a in base])
        out.append(Probe(f"T{T}", (x_0, x_t, guess, lv, base), "all terms are of one size"))
    return out


sum_of_terms = part(lambda R, terms: terms.sum(axis=0))  # (T, B) to (B,): a sum over all rungs
prior_share = part(lambda R: 1.0)  # how often the prior term counts


@topic("K.8", "x_0 (B,C,H,W), x_t, x_0_hat, log_variance (T,B,C,H,W) of t = 0..T-1, alpha_bar (T,)",
       "(B,): bits a dimension of the whole bound", _totals, tol=50.0, because=TAILS)  # fmt: skip
def bound_total(R: Reference, x_0: Array, x_t: Array, x_0_hat: Array, log_variance: Array, alpha_bar: Array) -> Array:
    """L_T + Σ L_{t-1} + L_0."""
    terms = [vb_term(R, x_0, x_t[t], x_0_hat[t], log_variance[t], t, alpha_bar) for t in range(len(alpha_bar))]
    return sum_of_terms(R, np.stack(terms)) + prior_share(R) * prior_bits(R, x_0, alpha_bar)
