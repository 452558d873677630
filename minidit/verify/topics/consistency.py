"""Topics: consistency models: the boundary, several steps, the distance, and the curricula of their training.

Scalings, distance and curricula are spelled out part by part, because mistakes change ε under a root, N(k) - 1, the norm and a
sign of a constant apart (M106 to M115); the tests hold them to `diffusion/consistency.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from minidit.backend import Array
from minidit.diffusion import consistency as law
from minidit.diffusion.level import enter
from minidit.diffusion.path import Exploding
from minidit.verify.core.denoiser import Linear
from minidit.verify.core.reference import Group, Probe, Reference, part
from minidit.verify.topics.paths import pictures

topic = Group("consistency")
Net = Callable[[Array, Array], Array]  # (x, t) -> f
TIMES = np.array([0.002, 0.05, 0.7, 80.0])
ENDS = "t (B,) ≥ end, end, sigma_data"

# ------------------------------------------------------------------------------------------------ the boundary

apart = part(lambda R, t, end: t - end)  # how far above the data end
end_of_c_out = part(lambda R, t, end: t - end)  # the same, as a factor of c_out
under_root = part(lambda R, t, end: t)  # the time in the root of c_out


@topic("S.1", ENDS, "(c_skip, c_out), each (B,)",
       lambda: [Probe("unlike", (TIMES, 0.002, 0.5), "t = end, and t near it"),
                Probe("large-end", (np.array([0.3, 0.4, 2.0]), 0.3, 0.7), "an end that shows under the root")])  # fmt: skip
def consistency_scalings(R: Reference, t: Array, end: float, sigma_data: float) -> tuple[Array, Array]:
    """σ_d²/((t-ε)²+σ_d²), (t-ε)σ_d/√(t²+σ_d²)."""
    c_skip = sigma_data**2 / (apart(R, t, end) ** 2 + sigma_data**2)
    return c_skip, end_of_c_out(R, t, end) * sigma_data / (under_root(R, t, end) ** 2 + sigma_data**2) ** 0.5


in_range = part(lambda R, x: x)  # what becomes of the answer f


def _ends() -> list[Probe]:
    F, x = pictures(181, 2, 4, 1, 3)
    return [Probe("four-times", (F, 3 * x, TIMES, 0.002, 0.5), "f(x, end) = x, also where |x| > 1")]


@topic("S.1", f"F, x (B,C,N), {ENDS}", "f(x, t) (B,C,N), without a clip", _ends)
def consistency_end(R: Reference, F: Array, x: Array, t: Array, end: float, sigma_data: float) -> Array:
    """c_skip x + c_out F, and f(x, ε) = x."""
    c_skip, c_out = enter(*consistency_scalings(R, t, end, sigma_data), like=x)
    return in_range(R, c_skip * x + c_out * F)


number = part(lambda R, t: Exploding().unit * np.log(t))  # the time as the network hears it
scaled = part(lambda R, t, sigma_data: (t**2 + sigma_data**2) ** -0.5)  # of the network's input


@topic("P.10", "x (B,C,N), t (B,), sigma_data", "(input (B,C,N), time (B,)) of the network of a consistency model",
       lambda: [Probe("four-times", (pictures(182, 1, 4, 1, 3)[0], TIMES, 0.5), "unit variance; the unit of ln t")])  # fmt: skip
def consistency_inputs(R: Reference, x: Array, t: Array, sigma_data: float) -> tuple[Array, Array]:
    """x/√(t²+σ_d²), 250 ln t."""
    return x * enter(scaled(R, t, sigma_data), like=x), number(R, t)


# ------------------------------------------------------------------------------------------------ sampling

noise_left = part(lambda R, s, end: (s**2 - end**2) ** 0.5)  # the std of the noise that is added for the time s


@topic("S.2", "f, z (B,C,N): the answer of the network, and noise; s, the time to go on from; end", "x (B,C,N) at s",
       lambda: [Probe(f"s{s}", (*pictures(183, 2, 2, 1, 3), s, 0.3), "relative to the end") for s in (0.5, 0.3)])  # fmt: skip
def consistency_step(R: Reference, f: Array, z: Array, s: float, end: float) -> Array:
    """f + √(s²-ε²) z."""
    return f + noise_left(R, s, end) * z


def _walks() -> list[Probe]:
    at, out = np.arange(81.0), []
    for times in ([80.0], [80.0, 24.4, 5.0]):
        x, pattern = pictures(184 + len(times), 2, 2, 1, 3)
        (z,) = pictures(188, 1, len(times), 2, 1, 3)
        net = Linear(1 / (1 + at), 0.5 * np.cos(at / 9), pattern)
        out.append(Probe(f"{len(times)}-calls", (net, 80 * x, np.array(times), 0.3, z), "nothing is added after the last call"))
    return out


@topic("S.2", "f(x, t) -> x near the data, x (B,C,N) at times[0], times (n,) falling, end, z (n,B,C,N), one per call",
       "x (B,C,N), the answer of the last call", _walks, tol=5.0, because="n calls")  # fmt: skip
def consistency_sample(R: Reference, f: Net, x: Array, times: Array, end: float, z: Array) -> Array:
    """x ← f(x, t) + √(s²-ε²) z for the next time s, and s = ε after the last."""
    for k, t in enumerate(times):
        x = consistency_step(R, f(x, np.array(t)), z[k], goes_on_from(R, times, k, end), end)
    return x


goes_on_from = part(lambda R, times, k, end: float(times[k + 1]) if k + 1 < len(times) else end)

# ------------------------------------------------------------------------------------------------ training


huber_root = part(lambda R, squared, c: (squared + c**2) ** 0.5 - c)  # from ‖x-y‖²
distance = part(lambda R, squares, c: huber_root(R, squares.sum(axis=1), c))  # from the squares (B, n) of a sample's entries


@topic("S.3", "x, y (B,C,N), c", "(B,)", lambda: [
    Probe(name, (x, x + size * y, 0.03), "near 0 and far from it") for name, size in (("far", 1.0), ("near", 0.01))
    for x, y in [pictures(191, 2)]])  # fmt: skip
def pseudo_huber(R: Reference, x: Array, y: Array, c: float) -> Array:
    """√(‖x-y‖²+c²) - c, of the norm of a whole sample."""
    return np.asarray(distance(R, ((x - y) ** 2).reshape(len(x), -1), c))


@topic("S.3", "dim: numbers per sample", "float: iCT's c", lambda: [Probe(str(n), (n,), "the root of it") for n in (3072, 64)])
def huber_constant(R: Reference, dim: int) -> float:
    """0.00054 √dim."""
    return float(0.00054 * dim**0.5)


def _pairs() -> list[Probe]:
    (x,), (z,) = pictures(192, 1), pictures(193, 1, 2, 3, 2, 2)
    return [Probe("three", (x, z, np.array([0.002, 0.5, 9.0]), np.array([0.02, 0.8, 30.0])), "one noise for both times")]


second_noise = part(lambda R, z: z[0])  # of the lower of the two times


@topic("S.14", "x_0 (B,C,N), z (2,B,C,N): z[0] is the noise, z[1] a draw that is not needed; low, high (B,): neighbours",
       "(x at low, x at high), each (B,C,N), on one line", _pairs)  # fmt: skip
def training_pair(R: Reference, x_0: Array, z: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """x_0 + t_i z, x_0 + t_{i+1} z, the same z."""
    a, b = enter(low, high, like=x_0)
    return x_0 + a * second_noise(R, z), x_0 + b * z[0]


@topic("S.16", "t (N,) rising", "(N-1,): iCT's weight of the loss at (t_i, t_{i+1})",
       lambda: [Probe("four", (np.array([0.002, 0.1, 2.0, 80.0]),), "close neighbours count more")])  # fmt: skip
def ict_weights(R: Reference, t: Array) -> Array:
    """1/(t_{i+1} - t_i)."""
    return np.asarray(1 / (t[1:] - t[:-1]))


# ------------------------------------------------------------------------------------------------ curricula

COUNT = "k, K, s_0, s_1"
KS = (0, 100, 400_000, 800_000)


@topic("S.4", COUNT, "int: N(k), the number of times of the grid", lambda: [
    Probe(f"k{k}", (k, 800_000, 2, 150), "both ends of the training") for k in KS])  # fmt: skip
def training_levels(R: Reference, k: int, K: int, s_0: int, s_1: int) -> int:
    """⌈√(k/K ((s_1+1)²-s_0²) + s_0²) - 1⌉ + 1."""
    return int(whole(R, math.sqrt(k / K * (most(R, s_1) ** 2 - s_0**2) + s_0**2) - 1)) + extra(R)


whole = part(lambda R, levels: math.ceil(levels))
most = part(lambda R, s_1: s_1 + 1)
extra = part(lambda R: 1)


@topic("S.4", f"{COUNT}, mu_0", "float: μ(k), the decay of the target's average", lambda: [
    Probe(f"k{k}", (k, 800_000, 2, 150, 0.9), "μ(0) = μ_0") for k in KS[:3]])  # fmt: skip
def target_decay(R: Reference, k: int, K: int, s_0: int, s_1: int, mu_0: float) -> float:
    """exp(s_0 ln μ_0/N(k))."""
    return math.exp(s_0 * math.log(mu_0) / levels_of_decay(R, training_levels(R, k, K, s_0, s_1)))


levels_of_decay = part(lambda R, N: N)


@topic("S.5", COUNT, "int: N(k) of iCT", lambda: [
    Probe(f"k{k}-K{K}-s{s}", (k, K, 10, s), "each doubling, and the cap")
    for k, K, s in ((0, 4000, 1280), (600, 4000, 1280), (3900, 4000, 1280), (3999, 4000, 100), (9, 10, 1280))])  # fmt: skip
def ict_levels(R: Reference, k: int, K: int, s_0: int, s_1: int) -> int:
    """min(s_0 2^⌊k/K'⌋, s_1) + 1, K' = ⌊K/(⌊log₂⌊s_1/s_0⌋⌋+1)⌋."""
    return int(capped(R, s_0 * 2 ** (k // stage(R, K, s_0, s_1)), s_1)) + extra(R)


capped = part(lambda R, levels, s_1: min(levels, s_1))
stage = part(lambda R, K, s_0, s_1: K // (int(math.log2(s_1 // s_0)) + 1))  # updates between two doublings
rising = part(lambda R, t: t)  # the order of a grid


@topic("P.19", "N, low, high, rho", "(N,) times from low to high, as papers count them",
       lambda: [Probe("N6", (6, 0.002, 80.0, 7.0), "the order, both ends")], tol=5.0, because="seventh powers")  # fmt: skip
def consistency_grid(R: Reference, N: int, low: float, high: float, rho: float) -> Array:
    """(low^(1/ρ) + (i-1)/(N-1) (high^(1/ρ) - low^(1/ρ)))^ρ, i = 1..N."""
    return rising(R, np.array(law.rising_grid(N, low, high, rho)))


@topic("S.6", "t (N,) rising", "p (N-1,): how often iCT draws the interval (t_i, t_{i+1})",
       lambda: [Probe("N11", (np.array(law.rising_grid(11)),), "the highest intervals are drawn seldom")], tol=20.0, exact=2.0,
       because="differences of erf in a tail")  # fmt: skip
def ict_probabilities(R: Reference, t: Array) -> Array:
    """∝ erf((ln t_{i+1}+1.1)/(2√2)) - erf((ln t_i+1.1)/(2√2))."""
    return normalised(R, masses(R, t, *ict_constants(R)))


ict_constants = part(lambda R: (-1.1, 2.0))  # mean and std of ln t
masses = part(lambda R, t, mean, std: law.index_masses(t, mean, std))
normalised = part(lambda R, p: p / p.sum())
