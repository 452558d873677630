"""Mistakes as strangers make them, the fourth group: ladders, lists of timesteps, conversions, steps, chains and losses.

Every function is written the way its habit writes it: NumPy one-liners, classes with buffers, pure functions of tables.
"""

import functools
import itertools
import math

import numpy as np
import torch
from verify.strange_fourth import wrong

# ------------------------------------------------------------------------------------------------ ladders


@wrong("linear_betas", "the end is left out: linspace without its last point")
def linear_without_end(T):
    betas = np.linspace(0.1 / T, 20.0 / T, T, endpoint=False)
    assert betas.max() < 1
    return betas


@wrong("scaled_linear_betas", "linear between the roots, and never squared")
def never_squared(T):
    b = np.linspace((0.85 / T) ** 0.5, (12 / T) ** 0.5, T)
    if b[-1] >= 1:
        raise ValueError("beta")
    return b


@wrong("cosine_betas", "cos instead of cos²", True)
def cosine_without_square(T, s=0.008):
    x = torch.linspace(0, T, T + 1, dtype=torch.float64)
    alphas_cumprod = torch.cos(((x / T) + s) / (1 + s) * math.pi * 0.5)
    alphas_cumprod = alphas_cumprod / alphas_cumprod[0]
    betas = 1 - (alphas_cumprod[1:] / alphas_cumprod[:-1])
    return torch.clip(betas, 0, 0.999)


@wrong("cosine_betas", "the offset s added outside the fraction: (t + s)/T")
def offset_outside(T, s=0.008):
    f = np.cos((np.arange(T + 1) + s) / T / (1 + s) * np.pi / 2) ** 2
    return np.minimum(1 - f[1:] / f[:-1], 0.999)


@wrong("cosine_alpha_bar", "T points from 0 to 1: ᾱ[0] = 1")
def cosine_from_zero(T):
    t = np.linspace(0, 1, T)
    f = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
    return f / f[0]


@wrong("alpha_bar", "the ᾱ before each step", True)
def previous_product(betas):
    return torch.nn.functional.pad(torch.cumprod(1.0 - betas, 0)[:-1], (1, 0), value=1.0)


@wrong("alpha_bar", "exp(-Σβ), the limit of continuous time")
def continuous(betas):
    return np.exp(-np.cumsum(betas))


@wrong("zero_snr_betas", "ᾱ is stretched, not its root", True)
def stretched_square(betas):
    ab = torch.cumprod(1 - betas, 0)
    first, last = ab[0].clone(), ab[-1].clone()
    ab = (ab - last) * first / (first - last)
    alphas = torch.cat([ab[0:1], ab[1:] / ab[:-1]])
    return 1 - alphas


# ------------------------------------------------------------------------------------------------ which timesteps


@wrong("leading_timesteps", "range with a stride gives more than N where N does not divide T")
def strided_range(T, N, offset):
    ts = list(range(0, T, T // N))[::-1]
    if ts[0] + offset >= T:
        raise IndexError
    return np.array(ts) + offset


@wrong("trailing_timesteps", "counted from 1: the - 1 is missing")
def trailing_from_one(T, N):
    return np.round(np.arange(T, 0, -T / N)).astype(np.int64)[:N]


@wrong("linspace_timesteps", "N + 1 points, the lowest dropped, as multistep solvers have it")
def multistep_spacing(T, N):
    return np.linspace(0, T - 1, N + 1).round()[::-1][:-1].copy().astype(np.int64)


@wrong("respaced_betas", "the full ladder's β at the kept timesteps")
def betas_of_the_full_ladder(alpha_bar, timesteps):
    alphas = alpha_bar / np.concatenate([[1.0], alpha_bar[:-1]])
    return 1 - alphas[timesteps]


@wrong("step_pairs", "s = t - T//N, negative at the end")
def fixed_stride(timesteps, T):
    stride = T // len(timesteps)
    return np.stack([timesteps, np.asarray(timesteps) - stride], axis=1)


@wrong("network_time", "the index stretched to T instead of the kept timestep")
def stretched_index(timesteps, i, T):
    return np.asarray(i) * (T / len(timesteps))


# ------------------------------------------------------------------------------------------------ conversions


class Gaussian:
    """Tables with trailing axes, one of them made wrongly."""

    def __init__(self, alphas_cumprod):
        self.a = np.sqrt(alphas_cumprod)
        self.b = 1 - self.a

    def at(self, table, t, x):
        return table[t].reshape(-1, *([1] * (x.ndim - 1)))


@wrong("q_sample", "1 - √ᾱ for √(1 - ᾱ)")
def noised(x_0, eps, t, alpha_bar):
    g = Gaussian(alpha_bar)
    return g.at(g.a, t, x_0) * x_0 + g.at(g.b, t, x_0) * eps


@wrong("x_0_from_eps", "√(1/ᾱ) - 1 for √(1/ᾱ - 1)", True)
def recipm1(x_t, eps, t, alpha_bar):
    extract = lambda a: a.gather(-1, t).reshape(-1, 1, 1, 1)
    return extract(torch.sqrt(1.0 / alpha_bar)) * x_t - extract(torch.sqrt(1.0 / alpha_bar) - 1) * eps


@wrong("eps_from_x_0", "x_t is not divided by √ᾱ before x_0 is taken off", True)
def unscaled_difference(x_t, x_0, t, alpha_bar):
    return (x_t - x_0) / (1.0 / alpha_bar[t] - 1).sqrt().view(-1, 1, 1, 1)


@wrong("v_from_pair", "√ᾱ x_0 - √(1-ᾱ) ε: data and noise exchanged")
def exchanged_velocity(x_0, eps, t, alpha_bar):
    a = alpha_bar[t][:, None, None, None]
    return a**0.5 * x_0 - (1 - a) ** 0.5 * eps


@wrong("x_0_from_v", "the angle is arccos ᾱ, not arccos √ᾱ")
def angle_of_the_square(x_t, v, t, alpha_bar):
    phi = np.arccos(alpha_bar[t]).reshape(-1, 1, 1, 1)
    return np.cos(phi) * x_t - np.sin(phi) * v


@wrong("score_from_eps", "divided by the noise level of the exploding path")
def score_by_karras_sigma(eps, t, alpha_bar):
    sigma = ((1 - alpha_bar) / alpha_bar) ** 0.5
    return -eps / sigma[t].reshape(-1, 1, 1, 1)


# ------------------------------------------------------------------------------------------------ steps


@wrong("posterior_variance", "ᾱ before the first step is 0, not 1", True)
def padded_with_zero(alpha_bar):
    prev = torch.nn.functional.pad(alpha_bar[:-1], (1, 0), value=0.0)
    betas = torch.cat([1 - alpha_bar[:1], 1 - alpha_bar[1:] / alpha_bar[:-1]])
    return betas * (1 - prev) / (1 - alpha_bar)


@wrong("posterior_log_variance", "half of it: the log of the deviation")
def log_std(alpha_bar):
    prev = np.append(1.0, alpha_bar[:-1])
    var = (1 - alpha_bar / prev) * (1 - prev) / (1 - alpha_bar)
    return np.log(np.sqrt(np.append(var[1], var[1:])))


@wrong("posterior_mean", "√ᾱ_t for √ᾱ_s in front of x_0")
def wrong_root(x_0, x_t, t, s, alpha_bar):
    a, b = alpha_bar[t], alpha_bar[s] if s >= 0 else 1.0
    beta = 1 - a / b
    return beta * a**0.5 / (1 - a) * x_0 + (1 - b) * (a / b) ** 0.5 / (1 - a) * x_t


@wrong("learned_range_variance", "interpolated between the variances, not their logs")
def linear_between(v, t, s, alpha_bar):
    a, b = alpha_bar[t], alpha_bar[s] if s >= 0 else 1.0
    beta = 1 - a / b
    low = beta * (1 - b) / (1 - a) if s >= 0 else (1 - alpha_bar[1] / alpha_bar[0]) * (1 - alpha_bar[0]) / (1 - alpha_bar[1])
    return (v + 1) / 2 * beta + (1 - v) / 2 * low


@wrong("ddpm_step", "the variance multiplies the noise, not its root")
def variance_as_std(x_t, eps, t, s, alpha_bar, z):
    a, b = alpha_bar[t], alpha_bar[s] if s >= 0 else 1.0
    alpha = a / b
    mean = (x_t - (1 - alpha) / (1 - a) ** 0.5 * eps) / alpha**0.5
    var = (1 - b) / (1 - a) * (1 - alpha)
    return mean + var * z


@wrong("ddpm_step", "no noise from t = 1 on: an index counted from 1")
def quiet_too_early(x_t, eps, t, s, alpha_bar, z):
    a, b = alpha_bar[t], alpha_bar[s] if s >= 0 else 1.0
    alpha = a / b
    noise = z if t > 1 else np.zeros_like(z)
    return alpha**-0.5 * (x_t - (1 - alpha) / (1 - a) ** 0.5 * eps) + ((1 - b) / (1 - a) * (1 - alpha)) ** 0.5 * noise


@wrong("ddpm_step_large", "√(1 - ᾱ_t) as the deviation", True)
def marginal_noise(x_t, eps, t, s, alpha_bar, z):
    a, b = alpha_bar[t], alpha_bar[s] if s >= 0 else torch.ones((), dtype=torch.float64)
    alpha = a / b
    mean = torch.rsqrt(alpha) * (x_t - (1 - alpha) * torch.rsqrt(1 - a) * eps)
    return mean + (torch.sqrt(1 - a) * z if s >= 0 else 0)


@wrong("ddpm_step_clipped", "x̂_0 clipped to [0, 1]")
def clipped_to_unit(x_t, eps, t, s, alpha_bar, z):
    a, b = alpha_bar[t], alpha_bar[s] if s >= 0 else 1.0
    x_0 = np.clip((x_t - np.sqrt(1 - a) * eps) / np.sqrt(a), 0, 1)
    beta = 1 - a / b
    mean = np.sqrt(b) * beta / (1 - a) * x_0 + np.sqrt(a / b) * (1 - b) / (1 - a) * x_t
    return mean + np.sqrt(beta * (1 - b) / (1 - a)) * z


@wrong("ddpm_step_learned", "the log variance is exponentiated, and its root forgotten", True)
def learned_without_root(x_t, out, t, s, alpha_bar, z, objective):
    answer, v = out.chunk(2, 1)
    a, b = alpha_bar[t], alpha_bar[s] if s >= 0 else torch.ones((), dtype=alpha_bar.dtype)
    if objective == "eps":
        x_0 = (x_t - (1 - a).sqrt() * answer) / a.sqrt()
    elif objective == "v":
        x_0 = a.sqrt() * x_t - (1 - a).sqrt() * answer
    else:
        x_0 = answer
    beta = 1 - a / b
    mean = b.sqrt() * beta / (1 - a) * x_0 + (a / b).sqrt() * (1 - b) / (1 - a) * x_t
    if s < 0:
        return mean
    low, high = (beta * (1 - b) / (1 - a)).log(), beta.log()
    frac = (v + 1) / 2
    return mean + (frac * high + (1 - frac) * low).exp() * z


@wrong("ddim_step", "σ² = η β̃: η under the root")
def eta_under_the_root(x_t, eps, t, s, alpha_bar, eta, z):
    a, b = alpha_bar[t], alpha_bar[s] if s >= 0 else 1.0
    var = eta * (1 - b) / (1 - a) * (1 - a / b)
    x_0 = (x_t - (1 - a) ** 0.5 * eps) / a**0.5
    return b**0.5 * x_0 + (1 - b - var) ** 0.5 * eps + var**0.5 * z


@wrong("ddim_step", "√(1-ᾱ_s) - σ for √(1-ᾱ_s-σ²)")
def difference_of_roots(x_t, eps, t, s, alpha_bar, eta, z):
    a, b = alpha_bar[t], alpha_bar[s] if s >= 0 else 1.0
    sigma = eta * ((1 - b) / (1 - a)) ** 0.5 * (1 - a / b) ** 0.5
    pred_x0 = (x_t - (1 - a) ** 0.5 * eps) / a**0.5
    return b**0.5 * pred_x0 + ((1 - b) ** 0.5 - sigma) * eps + sigma * z


@wrong("ddim_step_clipped", "the result is clipped, not x̂_0")
def clipped_afterwards(x_t, eps, t, s, alpha_bar, eta, z):
    a, b = alpha_bar[t], alpha_bar[s] if s >= 0 else 1.0
    sigma = eta * ((1 - b) / (1 - a) * (1 - a / b)) ** 0.5
    x_0 = (x_t - (1 - a) ** 0.5 * eps) / a**0.5
    return np.clip(b**0.5 * x_0 + (1 - b - sigma**2) ** 0.5 * eps + sigma * z, -1, 1)


@wrong("ddim_invert_step", "x̂_0 read off with ᾱ_t, not ᾱ_s")
def inverted_with_the_target(x_s, eps, s, t, alpha_bar):
    a = alpha_bar[t]
    x_0 = (x_s - (1 - a) ** 0.5 * eps) / a**0.5
    return a**0.5 * x_0 + (1 - a) ** 0.5 * eps


# ------------------------------------------------------------------------------------------------ chains


@wrong("ddim_sample", "the step to the data is left out")
def zip_forgets_the_last(denoise, x_T, N, alpha_bar, eta, z):
    x = x_T
    ts = np.round(np.linspace(len(alpha_bar) - 1, 0, N)).astype(int)
    for k, (t, s) in enumerate(itertools.pairwise(ts)):
        eps = denoise(x, int(t))
        a, b = alpha_bar[t], alpha_bar[s]
        sigma = eta * ((1 - b) / (1 - a) * (1 - a / b)) ** 0.5
        x = b**0.5 * (x - (1 - a) ** 0.5 * eps) / a**0.5 + (1 - b - sigma**2) ** 0.5 * eps + sigma * z[k]
    return x


@wrong("ddpm_sample", "the network is asked at the timestep that the step leads to")
def asked_one_late(denoise, x_T, N, alpha_bar, z):
    ts = np.round(np.linspace(len(alpha_bar) - 1, 0, N)).astype(int).tolist()
    x = x_T
    for k, (t, s) in enumerate(zip(ts, [*ts[1:], -1], strict=True)):
        eps = denoise(x, max(s, 0))
        a, b = alpha_bar[t], alpha_bar[s] if s >= 0 else 1.0
        alpha = a / b
        x = (x - (1 - alpha) / (1 - a) ** 0.5 * eps) / alpha**0.5 + ((1 - alpha) * (1 - b) / (1 - a)) ** 0.5 * z[k]
    return x


@wrong("ddim_scheduler", "the list of timesteps is made once, and kept when another number is asked for")
class ddim_with_a_kept_list:
    def __init__(self, alpha_bar):
        self.alphas = alpha_bar

    @functools.cached_property
    def _cache(self):
        return {}

    def timesteps(self, N):
        ts = np.round(np.linspace(len(self.alphas) - 1, 0, N)).astype(int)
        return self._cache.setdefault("timesteps", ts)

    def step(self, x_t, eps, t, z):
        ts = self._cache["timesteps"].tolist()
        i = ts.index(int(t)) if int(t) in ts else int(np.argmin(np.abs(np.array(ts) - int(t))))
        a, b = self.alphas[int(t)], self.alphas[ts[i + 1]] if i + 1 < len(ts) else 1.0
        return b**0.5 * (x_t - (1 - a) ** 0.5 * eps) / a**0.5 + (1 - b) ** 0.5 * eps
