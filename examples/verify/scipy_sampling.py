"""Ladders, lists, conversions, steps and samplers in NumPy and SciPy, each by another road than the equation's own.

    python examples/verify/scipy_sampling.py

β by a product of sines, timesteps in exact fractions, (x_0, ε) and (x_t, v) as one turn of a circle, the score as the slope of a
log-density, the posterior by Bayes' rule for two normal laws, and DDIM as a walk along the angle.
"""

from fractions import Fraction

import numpy as np
from scipy import special

import minidit as md

# ------------------------------------------------------------------------------------------------ ladders


def between(low, high, T):
    """T numbers, weighted means of the two ends."""
    k = np.arange(T)
    return (low * (T - 1 - k) + high * k) / (T - 1)


def linear_betas(T):
    if T <= 20:
        raise ValueError("β would reach 1")
    return between(0.1, 20.0, T) / T


def scaled_linear_betas(T):
    if T <= 12:
        raise ValueError("β would reach 1")
    return between(0.85**0.5, 12**0.5, T) ** 2 / T


def cosine_betas(T):
    """1 - cos²b/cos²a = sin(b-a) sin(b+a)/cos²a, which loses nothing where β is small."""
    angle = (np.arange(T + 1) / T + 0.008) / 1.008 * np.pi / 2
    a, b = angle[:-1], angle[1:]
    return np.minimum(np.sin(b - a) * np.sin(b + a) / np.cos(a) ** 2, 0.999)


def alpha_bar(betas):
    return np.exp(np.cumsum(special.log1p(-betas)))


def cosine_alpha_bar(T):
    return alpha_bar(cosine_betas(T))


def zero_snr_betas(betas):
    root = np.sqrt(alpha_bar(betas))
    root = root[0] * (root - root[-1]) / (root[0] - root[-1])
    return 1 - np.append(root[0], root[1:] / root[:-1]) ** 2


# ------------------------------------------------------------------------------------------------ which timesteps


def leading_timesteps(T, N, offset):
    return [range(T)[k * (T // N) + offset] for k in reversed(range(N))]


def linspace_timesteps(T, N):
    if N < 1:
        raise ValueError("no step at all")
    return [round(Fraction(k * (T - 1), N - 1)) for k in reversed(range(N))]


def trailing_timesteps(T, N):
    if N > T:
        raise ValueError("more steps than timesteps")
    return [round(T - Fraction(k * T, N)) - 1 for k in range(N)]


def sampling_timesteps(T, N):
    return linspace_timesteps(T, N)


def space_timesteps(T, spec):
    if spec.startswith("ddim"):
        (first, *_) = [i for i in range(1, T + 1) if len(range(0, T, i)) == int(spec[4:])]
        return range(T)[::first]
    timesteps = []
    for n, section in zip(spec.split(","), np.array_split(range(T), spec.count(",") + 1), strict=True):
        n, last = int(n), len(section) - 1
        if n > len(section):
            raise ValueError(f"{n} of {len(section)} timesteps")
        timesteps += [section[round(Fraction(k * last, max(n - 1, 1)))] for k in range(n)]
    return timesteps


def respaced_betas(alpha_bar, timesteps):
    return -special.expm1(np.diff(np.log(alpha_bar[timesteps]), prepend=0.0))


def network_time(timesteps, i, T):
    return np.take(timesteps, i)


def step_pairs(timesteps, T):
    return np.lib.stride_tricks.sliding_window_view(np.append(timesteps, -1), 2)


# ------------------------------------------------------------------------------------------------ conversions: turns


def angle(alpha_bar, t):
    """θ with cos θ = √ᾱ, sin θ = √(1-ᾱ), for every sample."""
    return np.arctan2(np.sqrt(1 - alpha_bar), np.sqrt(alpha_bar))[t].reshape(-1, 1, 1, 1)


def turned(x, y, theta):
    """(x, y), turned by θ."""
    return np.cos(theta) * x - np.sin(theta) * y, np.sin(theta) * x + np.cos(theta) * y


def same_shapes(a, b, t, T):
    if a.shape != b.shape or (np.asarray(t) >= T).any():
        raise ValueError("two arrays of one shape and timesteps of the ladder")


def q_sample(x_0, eps, t, alpha_bar):
    same_shapes(x_0, eps, t, len(alpha_bar))
    return turned(x_0, eps, -angle(alpha_bar, t))[0]


def v_from_pair(x_0, eps, t, alpha_bar):
    return turned(x_0, eps, -angle(alpha_bar, t))[1]


def x_0_from_v(x_t, v, t, alpha_bar):
    return turned(x_t, v, angle(alpha_bar, t))[0]


def eps_from_v(x_t, v, t, alpha_bar):
    return turned(x_t, v, angle(alpha_bar, t))[1]


def x_0_from_eps(x_t, eps, t, alpha_bar):
    theta = angle(alpha_bar, t)
    return x_t / np.cos(theta) - np.tan(theta) * eps


def eps_from_x_0(x_t, x_0, t, alpha_bar):
    theta = angle(alpha_bar, t)
    return x_t / np.sin(theta) - x_0 / np.tan(theta)


def score_from_eps(eps, t, alpha_bar):
    """x_t = √ᾱ x_0 + σ ε is normal: the slope of its log-density is -(x_t - √ᾱ x_0)/σ² = -ε/σ."""
    variance = np.square(np.sin(angle(alpha_bar, t)))
    return -(np.sqrt(variance) * eps) / variance


def eps_from_score(score, t, alpha_bar):
    return -np.sin(angle(alpha_bar, t)) * score


# ------------------------------------------------------------------------------------------------ posterior and variances


def level(alpha_bar, s):
    return alpha_bar[s] if s >= 0 else 1.0


def bayes(t, s, alpha_bar):
    """q(x_s | x_t, x_0) ∝ N(x_s; √ᾱ_s x_0, 1-ᾱ_s) N(x_t; √α x_s, β): weights of x_0 and x_t in its mean, and its variance."""
    a, p = alpha_bar[t], level(alpha_bar, s)
    alpha, beta, spread = a / p, 1 - a / p, 1 - p
    total = beta + alpha * spread  # 1-ᾱ_t
    return np.sqrt(p) * beta / total, np.sqrt(alpha) * spread / total, beta * spread / total


def posterior_mean(x_0, x_t, t, s, alpha_bar):
    of_x_0, of_x_t, _ = bayes(t, s, alpha_bar)
    return of_x_0 * x_0 + of_x_t * x_t


def posterior_variance(alpha_bar):
    return [bayes(t, t - 1, alpha_bar)[2] for t in range(len(alpha_bar))]


def log_variance(t, s, alpha_bar):
    """Finite at the data too, where the variance of the step before counts."""
    return np.log(bayes(t, s, alpha_bar)[2] if s >= 0 else bayes(t + 1, t, alpha_bar)[2])


def posterior_log_variance(alpha_bar):
    return [log_variance(t, t - 1, alpha_bar) for t in range(len(alpha_bar))]


def fixed_large_variance(alpha_bar):
    return np.append(bayes(1, 0, alpha_bar)[2], 1 - alpha_bar[1:] / alpha_bar[:-1])


def learned_range_variance(v, t, s, alpha_bar):
    """A weighted geometric mean of both variances."""
    high = 1 - alpha_bar[t] / level(alpha_bar, s)
    return high ** ((1 + v) / 2) * np.exp(log_variance(t, s, alpha_bar)) ** ((1 - v) / 2)


# ------------------------------------------------------------------------------------------------ steps


def clean(x_t, output, a, objective="eps"):
    """x̂_0 from what the network says."""
    away = np.sqrt(1 - a) * output
    return {"eps": (x_t - away) / np.sqrt(a), "x_0": output, "v": np.sqrt(a) * x_t - away}[objective]


def ddpm_step(x_t, eps, t, s, alpha_bar, z):
    of_x_0, of_x_t, variance = bayes(t, s, alpha_bar)
    return of_x_0 * clean(x_t, eps, alpha_bar[t]) + of_x_t * x_t + np.sqrt(variance) * z  # 0 into the data


def ddpm_step_large(x_t, eps, t, s, alpha_bar, z):
    x_s = posterior_mean(clean(x_t, eps, alpha_bar[t]), x_t, t, s, alpha_bar)
    return x_s + np.sqrt(1 - alpha_bar[t] / alpha_bar[s]) * z if s >= 0 else x_s


def ddpm_step_clipped(x_t, eps, t, s, alpha_bar, z):
    x_0 = np.clip(clean(x_t, eps, alpha_bar[t]), -1, 1)
    return posterior_mean(x_0, x_t, t, s, alpha_bar) + np.sqrt(bayes(t, s, alpha_bar)[2]) * z


def ddpm_step_learned(x_t, out, t, s, alpha_bar, z, objective):
    output, v = np.split(out, 2, axis=1)
    mean = posterior_mean(clean(x_t, output, alpha_bar[t], objective), x_t, t, s, alpha_bar)
    return mean + np.sqrt(learned_range_variance(v, t, s, alpha_bar)) * z * (s >= 0)


def ddim_step(x_t, eps, t, s, alpha_bar, eta, z):
    if t >= len(alpha_bar):
        raise ValueError(f"timestep {t} of {len(alpha_bar)}")
    p, sigma = level(alpha_bar, s), eta * np.sqrt(bayes(t, s, alpha_bar)[2])
    return np.sqrt(p) * clean(x_t, eps, alpha_bar[t]) + np.sqrt(1 - p - sigma**2) * eps + sigma * z


def ddim_step_clipped(x_t, eps, t, s, alpha_bar, eta, z):
    a = alpha_bar[t]
    x_0 = np.clip(clean(x_t, eps, a), -1, 1)
    return ddim_step(x_t, (x_t - np.sqrt(a) * x_0) / np.sqrt(1 - a), t, s, alpha_bar, eta, z)  # which gives x̂_0 again


def ddim_step_v(x_t, v, t, s, alpha_bar):
    theta, phi = (np.arctan2(np.sqrt(1 - a), np.sqrt(a)) for a in (alpha_bar[t], level(alpha_bar, s)))
    return turned(x_t, v, theta - phi)[0]


def ddim_invert_step(x_s, eps, s, t, alpha_bar):
    """In y = x/√ᾱ and the noise level √(1/ᾱ-1), the slope of y is ε̂: one step of Euler."""
    y, (low, high) = x_s / np.sqrt(level(alpha_bar, s)), (np.sqrt(1 / level(alpha_bar, k) - 1) for k in (s, t))
    return np.sqrt(alpha_bar[t]) * (y + (high - low) * eps)


# ------------------------------------------------------------------------------------------------ samplers


def down(T, N):
    """(t, s) of a sampler."""
    return [(int(t), int(s)) for t, s in step_pairs(sampling_timesteps(T, N), T)]


def ddim_sample(denoise, x, N, alpha_bar, eta, z):
    for (t, s), noise in zip(down(len(alpha_bar), N), z, strict=False):
        x = ddim_step(x, denoise(x, t), t, s, alpha_bar, eta, noise)
    return x


def ddpm_sample(denoise, x, N, alpha_bar, z):
    for (t, s), noise in zip(down(len(alpha_bar), N), z, strict=False):
        x = ddpm_step(x, denoise(x, t), t, s, alpha_bar, noise)
    return x


def ddim_along(denoise, x, timesteps, alpha_bar, eta, z):
    for (t, s), noise in zip(step_pairs(timesteps, len(alpha_bar)).tolist(), z, strict=True):
        x = ddim_step(x, denoise(x, t), t, s, alpha_bar, eta, noise)
    return x


def ddpm_along(denoise, x, timesteps, alpha_bar, z):
    for (t, s), noise in zip(step_pairs(timesteps, len(alpha_bar)).tolist(), z, strict=True):
        x = ddpm_step_large(x, denoise(x, t), t, s, alpha_bar, noise)
    return x


def ddim_invert(denoise, x, N, alpha_bar):
    pairs = down(len(alpha_bar), N)[::-1]
    for t, s in pairs:
        x = ddim_invert_step(x, denoise(x, s if s >= 0 else pairs[0][0]), s, t, alpha_bar)
    return x


class Scheduler:
    """One that is asked step by step."""

    def __init__(self, alpha_bar, move):
        self.alpha_bar, self.move = alpha_bar, move

    def timesteps(self, N):
        self.below = dict(down(len(self.alpha_bar), N))
        return list(self.below)

    def step(self, x_t, eps, t, z):
        return self.move(x_t, eps, t, self.below[t], z)


def ddim_scheduler(alpha_bar):
    return Scheduler(alpha_bar, lambda x_t, eps, t, s, z: ddim_step(x_t, eps, t, s, alpha_bar, 0.0, z))


def ddpm_scheduler(alpha_bar):
    return Scheduler(alpha_bar, lambda x_t, eps, t, s, z: ddpm_step(x_t, eps, t, s, alpha_bar, z))


def mine():
    """topic -> function, from the names above."""
    return {name: f for name, f in globals().items() if name in md.verify.TOPICS}


def main():
    report = md.verify.check(mine())
    print(report)
    return report


if __name__ == "__main__":
    main()
