"""More mistakes in continuous time, as readers of papers and users of JAX write them: paths, times, flows, EDM, consistency.

(what is wrong, topic, function); functions are pure, samples are mapped one by one, as with vmap.
"""

import itertools
import math

import numpy as np
from scipy.special import erf, ndtri


def vmap(f):
    """One sample at a time: f of the slices of every array."""
    return lambda *arrays: np.stack([np.asarray(f(*row)) for row in zip(*arrays, strict=True)])


def col(t, x):
    return np.asarray(t, float).reshape(-1, *[1] * (x.ndim - 1))


def walk(step, x, N, a=1.0):
    t = np.linspace(1, 0, N + 1)
    t = a * t / (1 + (a - 1) * t)
    for p, q in itertools.pairwise(t):
        x = step(x, p, q)
    return x


def calls(f, x, times, end, z):
    for k, (t, s) in enumerate(itertools.pairwise(times)):
        x = f(x, t) + math.sqrt(s**2 - end**2) * z[k]
    return x


PATHS = [
    ("noise keeps a floor of sigma_min", "straight_sample", vmap(lambda x, e, t: (1 - t) * x + (1e-2 + 0.99 * t) * e)),
    ("a cosine path", "straight_sample", vmap(lambda x, e, t: np.cos(t * math.pi / 2) * x + np.sin(t * math.pi / 2) * e)),
    ("squares of the weights", "straight_sample", vmap(lambda x, e, t: (1 - t) ** 2 * x + t**2 * e)),
    ("a variance-preserving pair", "straight_sample", vmap(lambda x, e, t: (1 - t) * x + np.sqrt(1 - (1 - t) ** 2) * e)),
    ("half the velocity", "straight_velocity", lambda x, e: 0.5 * (e - x)),
    ("data plus noise", "straight_velocity", lambda x, e: x + e),
    ("both guesses with t", "pair_from_velocity", lambda x, u, t: (x - col(t, x) * u, x + col(t, x) * u)),
    ("the guesses exchanged", "pair_from_velocity", lambda x, u, t: (x + (1 - col(t, x)) * u, x - col(t, x) * u)),
    ("the noise from the data by subtraction", "pair_from_velocity", lambda x, u, t: (x - col(t, x) * u, u - x)),
    ("divided by 1 - t", "velocity_from_x_0", lambda x, h, t: (x - h) / (1 - col(t, x))),
    ("guarded by 0.1", "velocity_from_x_0", lambda x, h, t: (x - h) / np.maximum(col(t, x), 0.1)),
    ("the score of the data end", "score_from_velocity", lambda x, u, t: -(x - col(t, x) * u) / col(t, x)),
    ("divided by the variance", "score_from_velocity", lambda x, u, t: -(x + (1 - col(t, x)) * u) / col(t, x) ** 2),
    ("999 t", "straight_time", lambda t: 999 * t),
    ("rounded to whole steps", "straight_time", lambda t: np.round(100 * t) * 10),
    ("c_skip with sigma on top", "edm_scalings", lambda s, d: (
        s**2 / (s**2 + d**2), s * d / np.sqrt(s**2 + d**2), 1 / np.sqrt(s**2 + d**2), np.log(s) / 4)),
    ("c_in is the square", "edm_scalings", lambda s, d: (
        d**2 / (s**2 + d**2), s * d / np.sqrt(s**2 + d**2), 1 / (s**2 + d**2), np.log(s) / 4)),
    ("log10 in the noise number", "edm_scalings", lambda s, d: (
        d**2 / (s**2 + d**2), s * d / np.sqrt(s**2 + d**2), 1 / np.sqrt(s**2 + d**2), np.log10(s) / 4)),
    ("c_out without sigma_data", "edm_denoised", lambda F, x, s, d: (
        d**2 / (col(s, x) ** 2 + d**2) * x + col(s, x) / np.sqrt(col(s, x) ** 2 + d**2) * F)),
    ("the skip is left out", "edm_denoised", lambda F, x, s, d: col(s, x) * d / np.sqrt(col(s, x) ** 2 + d**2) * F),
    ("the plain noise as target", "edm_target", lambda x, e, s, d: e),
    ("weight of one over sigma squared", "edm_weight", lambda s, d: 1 / s**2),
    ("the weight's root", "edm_weight", lambda s, d: np.sqrt(s**2 + d**2) / (s * d)),
    ("divided by the norm of the level", "to_straight", lambda x, a, s: (x / col(np.hypot(a, s), x), s / (a + s))),
    ("the sample not rescaled", "to_exploding", lambda x, a, s: (x, s / a)),
]  # fmt: skip

TIMES = [
    ("std is the variance", "logit_normal_times", lambda u, m, s: 1 / (1 + np.exp(-(m + s**2 * ndtri(u))))),
    ("probit instead of logit", "logit_normal_times", lambda u, m, s: 0.5 * (1 + erf((m + s * ndtri(u)) / math.sqrt(2)))),
    ("the mean's sign", "logit_normal_times", lambda u, m, s: 1 / (1 + np.exp(m - s * ndtri(u)))),
    ("the density as a weight", "logit_normal_weight", lambda t, m, s: np.exp(
        -0.5 * ((np.log(t / (1 - t)) - m) / s) ** 2) / (s * math.sqrt(2 * math.pi) * t * (1 - t))),
    ("a cosine not squared", "mode_times", lambda u, s: s <= 2 / (math.pi - 2) and s >= -1 and (
        1 - u - s * (np.cos(math.pi * u / 2) - 1 + u)) if -1 <= s <= 2 / (math.pi - 2) else 1 / 0),
    ("turned round", "cosmap_times", lambda u: 1 / (np.tan(math.pi * u / 2) + 1)),
    ("mean 1.2 with the other sign", "edm_sigmas", lambda u: np.exp(1.2 + 1.2 * ndtri(u))),
    ("base 10", "edm_sigmas", lambda u: 10 ** (-1.2 + 1.2 * ndtri(u))),
    ("the shift's reciprocal", "shift_time", lambda t, a: t / a / (1 + (1 / a - 1) * t)),
    ("multiplied and cut at 1", "shift_time", lambda t, a: np.minimum(a * t, 1.0)),
    ("the ratio itself", "resolution_shift", lambda m, n: m / n),
    ("the root's inverse", "resolution_shift", lambda m, n: (n / m) ** 0.5),
    ("stops one step before the data", "linear_grid", lambda n: np.linspace(1, 0, n + 1)[:-1] if n > 1 else np.array([1.0])),
    ("ends at a thousandth", "linear_grid", lambda n: np.linspace(1, 1e-3, n + 1)),
    ("shifted with the reciprocal", "shifted_grid", lambda n, a: (t := np.linspace(1, 0, n + 1), t / (a - (a - 1) * t))[-1]),
    ("linear in sigma", "edm_grid", lambda n, lo, hi, rho: np.append(np.linspace(hi, lo, n), 0.0)),
    ("geometric", "edm_grid", lambda n, lo, hi, rho: np.append(np.geomspace(hi, lo, n), 0.0)),
    ("the last level twice instead of zero", "edm_grid", lambda n, lo, hi, rho: (
        s := (hi ** (1 / rho) + np.arange(n) / (n - 1) * (lo ** (1 / rho) - hi ** (1 / rho))) ** rho, np.append(s, s[-1]))[-1]),
]  # fmt: skip

FLOWS = [
    ("dt taken positive", "flow_euler_step", lambda x, u, t, s: x + abs(s - t) * u),
    ("multiplied by t", "flow_euler_step", lambda x, u, t, s: x - t * u),
    ("one thousandth too short", "flow_euler_step", lambda x, u, t, s: x + 0.999 * (s - t) * u),
    ("the sum of both slopes", "flow_heun_step", lambda x, u, v, t, s: x + (s - t) * (u + v)),
    ("the second slope only", "flow_heun_step", lambda x, u, v, t, s: x + (s - t) * v),
    ("a third and two thirds", "flow_heun_step", lambda x, u, v, t, s: x + (s - t) * (u / 3 + 2 * v / 3)),
    ("3/2 and 1/2 whatever the steps", "flow_ab2_step", lambda x, u, p, b, t, s: x + (s - t) * (1.5 * u - 0.5 * p)),
    ("the differences added", "flow_ab2_step", lambda x, u, p, b, t, s: (
        r := (s - t) / (t - b), x + (s - t) * ((1 - r / 2) * u + r / 2 * p))[-1]),
    ("the noise not corrected", "straight_climb", lambda x, z, s, t: (1 - t) / (1 - s) * x + math.sqrt(t**2 - s**2) * z),
    ("mixes as if x were data", "straight_climb", lambda x, z, s, t: (1 - t) * x + t * z),
    ("c not taken from sigma", "fresh_step", lambda x, e, z, a, s, c: a * x + s * e + c * z),
    ("sigma minus c", "fresh_step", lambda x, e, z, a, s, c: a * x + (s - c) * e + c * z),
    ("divided by the next level", "edm_euler_step", lambda x, D, s, n: x + (n - s) * (x - D) / max(n, 0.1)),
    ("always Heun, guarded", "edm_heun_step", lambda x, D, E, s, n: (
        d := (x - D) / s, y := x + (n - s) * d, x + (n - s) * (d + (y - E) / max(n, 1e-8)) / 2)[-1] if n else
        x + (n - s) * ((x - D) / s + E) / 2),
    ("sqrt(2) - 1 forgotten in the cap", "churned_sigma", lambda s, c, n, lo, hi: s * (
        1 + min(c / n, math.sqrt(2))) if lo <= s <= hi else s),
    ("noise of the level itself", "edm_churn", lambda x, z, s, r: x + r * z),
    ("one step of half size at the end", "flow_euler", lambda net, x, N, a: walk(
        lambda x, p, q: x + (q - p) * (1.0 if q else 0.5) * net(x, 1000 * p), x, N, a)),
    ("the midpoint rule", "flow_heun", lambda net, x, N: walk(
        lambda x, p, q: x + (q - p) * net(x + (q - p) / 2 * net(x, 1000 * p), 500 * (p + q)), x, N)),
    ("the sum, not the mean", "flow_loss", lambda v, x, e: ((v - (e - x)) ** 2).sum(axis=(1, 2))),
    ("absolute", "flow_loss", lambda v, x, e: abs(v - (e - x)).mean(axis=(1, 2))),
    ("the noise in its old order", "coupled_batch", lambda x, y, z, i, j: (x[i], y[i], z)),
    ("all steps count alike", "straightness", lambda t, x: float(np.mean([
        ((x[-1] - x[0]) / (t[-1] - t[0]) - (x[k + 1] - x[k]) / (t[k + 1] - t[k])) ** 2 for k in range(len(t) - 1)]))),
]  # fmt: skip

CONSISTENCY = [
    ("t for t - end in c_skip", "consistency_scalings", lambda t, e, d: (
        d**2 / (t**2 + d**2), (t - e) * d / np.sqrt(t**2 + d**2))),
    ("the denoiser's own scalings", "consistency_end", lambda F, x, t, e, d: (
        d**2 / (col(t, x) ** 2 + d**2) * x + col(t, x) * d / np.sqrt(col(t, x) ** 2 + d**2) * F)),
    ("1000 times the logarithm over four", "consistency_inputs", lambda x, t, d: (
        x / np.sqrt(col(t, x) ** 2 + d**2), 1000 * np.log(t + 1e-44) / 4 + 1)),
    ("the input not scaled", "consistency_inputs", lambda x, t, d: (x, 250 * np.log(t))),
    ("noise of s - end", "consistency_step", lambda f, z, s, e: f + (s - e) * z),
    ("noise after the last call, too", "consistency_sample", lambda f, x, times, e, z: calls(f, x, [*times, 0.5], e, z)),
    ("per entry, then the mean", "pseudo_huber", lambda x, y, c: (np.sqrt((x - y) ** 2 + c**2) - c).mean(axis=(1, 2))),
    ("c not taken away", "pseudo_huber", lambda x, y, c: np.sqrt(((x - y) ** 2).sum(axis=(1, 2)) + c**2)),
    ("0.00054 times the dimension", "huber_constant", lambda n: 0.00054 * n),
    ("the reciprocal of the midpoint", "ict_weights", lambda t: 2 / (t[1:] + t[:-1])),
    ("floor for ceil", "training_levels", lambda k, K, s0, s1: math.floor(
        math.sqrt(k / K * ((s1 + 1) ** 2 - s0**2) + s0**2) - 1) + 1),
    ("linear in k", "training_levels", lambda k, K, s0, s1: math.ceil(s0 + k / K * (s1 - s0)) + 1),
    ("falling", "consistency_grid", lambda N, lo, hi, rho: (
        hi ** (1 / rho) + np.arange(N) / (N - 1) * (lo ** (1 / rho) - hi ** (1 / rho))) ** rho),
    ("uniform", "ict_probabilities", lambda t: np.full(len(t) - 1, 1 / (len(t) - 1))),
]  # fmt: skip
