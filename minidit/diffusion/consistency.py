"""Consistency models: one function leads from every point of a trajectory to its end near the data (Song, Dhariwal et al. 2023).

    f(x, t) = c_skip x + c_out F,    f(x, ε) = x to the bit, whatever F                                                  (S.1)
        c_skip = σ_d²/((t-ε)²+σ_d²)     c_out = (t-ε) σ_d/√(t²+σ_d²)
    x_s = f(x_t, t) + √(s²-ε²) z                         several steps: (P.4) with c = σ_s, levels relative to x_ε       (S.2)
    d(x, y) = √(‖x-y‖²+c²) - c      c = 0.00054 √dim     pseudo-Huber, of the whole sample's norm                        (S.3)
    N(k) = ⌈√(k/K ((s_1+1)²-s_0²) + s_0²) - 1⌉ + 1       levels at update k of K    μ(k) = e^(s_0 ln μ_0/N(k))           (S.4)
    N(k) = min(s_0 2^⌊k/K'⌋, s_1) + 1                    of iCT     K' = ⌊K/(⌊log₂⌊s_1/s_0⌋⌋+1)⌋                           (S.5)
    p(i) ∝ erf((ln t_{i+1}-m)/(√2 s)) - erf((ln t_i-m)/(√2 s))       iCT's law of the index                              (S.6)
    f*(x, t) = m + √((s²+ε²)/(s²+t²)) (x - m)            of Gaussian data N(m, s²)                                       (S.7)

Times are those of the exploding path, t = σ, and grids rise here: t_1 = ε < … < t_N, as the papers count.
"""

from __future__ import annotations

import math

import numpy as np

from minidit import ops
from minidit.backend import Array, read_only, resident, special_of, xp_of
from minidit.diffusion import gaussian
from minidit.diffusion.level import Level, check_shapes, enter
from minidit.diffusion.prediction import Prediction
from minidit.diffusion.times import TimeLaw, karras


def scalings(t: Array, end: float = 0.002, sigma_data: float = 0.5) -> tuple[Array, Array]:
    """(c_skip, c_out) at time t ≥ end, a float or (B,) float64. In the root of c_out stands t, not t - ε."""
    apart = t - end
    return sigma_data**2 / (apart**2 + sigma_data**2), apart * sigma_data / (t**2 + sigma_data**2) ** 0.5  # (S.1)


def end_of(F: Array, x: Array, t: Array, end: float = 0.002, sigma_data: float = 0.5) -> Array:
    """F, x : (B, ...), the network's output for x at time t  ->  f(x, t) : (B, ...)."""
    c_skip, c_out = enter(*scalings(t, end, sigma_data), like=x)
    return c_skip * x + c_out * F  # (S.1)


def consistency(end: float = 0.002, sigma_data: float = 0.5) -> Prediction:
    """F of a consistency model as an answer: with path Exploding(end=ε) and fresh noise EVERYTHING, a walk is (S.2).

    Its x_0 is the sample at ε. At t = ε itself F is not determined.
    """

    def parts(at: Level) -> tuple[Array, Array]:
        return scalings((at.sigma**2 + end**2) ** 0.5, end, sigma_data)

    def p(at: Level) -> Array:
        c_skip, c_out = parts(at)
        return (1 - c_skip) / c_out

    def q(at: Level) -> Array:
        c_skip, c_out = parts(at)
        return -c_skip * at.sigma / c_out

    return Prediction("consistency", p, q)  # (S.2)


def pseudo_huber(x: Array, y: Array, c: float | None = None) -> Array:
    """x, y : (B, ...), Tensors or arrays  ->  (B,): between squares (small errors) and norms. c None: iCT's 0.00054 √dim."""
    check_shapes(x=x, y=y)
    dim = math.prod(y.shape[1:])
    c = 0.00054 * dim**0.5 if c is None else c
    return (ops.mse(x, y) * dim + c**2) ** 0.5 - c  # (S.3)


# ------------------------------------------------------------------------------------------------ curricula


def levels_at(k: int, K: int, s_0: int = 2, s_1: int = 150) -> int:
    """N(k), the number of times of the grid at update k of K, of consistency training: from s_0 to s_1 + 1."""
    return math.ceil(math.sqrt(k / K * ((s_1 + 1) ** 2 - s_0**2) + s_0**2) - 1) + 1  # (S.4)


def target_decay(k: int, K: int, s_0: int = 2, s_1: int = 150, mu_0: float = 0.9) -> float:
    """μ(k), the decay of the target's average: μ_0 at the start. (The published code has N(k) - 1 here: 0.81.)"""
    return math.exp(s_0 * math.log(mu_0) / levels_at(k, K, s_0, s_1))  # (S.4)


def doubled_levels_at(k: int, K: int, s_0: int = 10, s_1: int = 1280) -> int:
    """N(k) of iCT: doubled at equal intervals, from s_0 + 1 to s_1 + 1."""
    stage = max(1, K // (int(math.log2(s_1 // s_0)) + 1))
    return min(s_0 << (k // stage), s_1) + 1  # (S.5)


def rising_grid(N: int, low: float = 0.002, high: float = 80.0, rho: float = 7.0) -> Array:
    """(N,) float64: t_1 = low < … < t_N = high, the times of Karras et al., read-only."""
    return read_only(np.array(karras(N, low, high, rho)[::-1]))


def index_masses(t: Array, mean: float = -1.1, std: float = 2.0) -> Array:
    """t : (N,) rising  ->  p : (N-1,), the probability of the interval (t_i, t_{i+1}).

    With the paper's mean the two highest of ten intervals get 1.3 %, though a single step starts there: short trainings want
    mean ≈ 0..1, or high ≈ 20.
    """
    edge = special_of(t).erf((np.log(t) - mean) / (2**0.5 * std))
    p = edge[1:] - edge[:-1]
    return p / p.sum()  # (S.6)


def index_edges(p: Array) -> Array:
    """p : (N-1,)  ->  (N-2,) rising, read-only: the shares of u at which one interval ends and the next begins."""
    return read_only(np.cumsum(p)[:-1])  # (S.6)


def index_law(t: Array, mean: float = -1.1, std: float = 2.0) -> TimeLaw:
    """u : (B,)  ->  i : (B,) int64 in 0..N-2, the interval (t_i, t_{i+1}) of every sample."""
    edges = index_edges(index_masses(t, mean, std))
    return lambda u: xp_of(u).searchsorted(resident(edges, u), u, side="right").astype("int64")


# ------------------------------------------------------------------------------------------------ Gaussian data


def gaussian_end(x: Array, t: float, mean: Array, variance: Array, end: float = 0.002) -> Array:
    """f* : x at time t of the exploding path  ->  where the exact flow of N(mean, variance) leads it at ε."""
    return mean + gaussian.flow_factor(Level(1.0, t), Level(1.0, end), variance) * (x - mean)  # (S.7)
