"""Mistakes as strangers make them, the fourth group: more of them, of topics that the others left out."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy import special
from verify.strange_fourth import wrong


def wide(a, x):
    return np.reshape(a, (-1,) + (1,) * (x.ndim - 1))


@wrong("eps_from_v", "√ᾱ and √(1-ᾱ) exchanged", True)
def swapped_roots(x_t, v, t, alpha_bar):
    a = alpha_bar[t].view(-1, 1, 1, 1)
    return a.sqrt() * x_t + (1 - a).sqrt() * v


@wrong("eps_from_score", "the variance for the deviation")
def by_variance_of_noise(score, t, alpha_bar):
    return -score * wide(1 - alpha_bar[t], score)


@wrong("fixed_large_variance", "1 - ᾱ_t")
def marginal_variance(alpha_bar):
    return 1 - alpha_bar


@wrong("sampling_timesteps", "a stride rounded up, and cut off at N", True)
def ceil_stride(T, N):
    return torch.arange(T - 1, -1, -math.ceil(T / N))[:N]


@wrong("guide_omega", "ω ε_c + (1-ω) ε_∅")
def omega_as_w(eps_u, eps_c, omega):
    return omega * eps_c + (1 - omega) * eps_u


@wrong("guide_cond_first", "every other sample is conditional")
def strided_halves(out, w):
    cond, uncond = out[0::2], out[1::2]
    return uncond + w * (cond - uncond)


@wrong("latent_to_decoder", "multiplied once more")
def multiplied(z_0, scale):
    return z_0 * scale


@wrong("pixels_in", "divided by 256")
def by_256(pixels):
    return pixels.astype(float) / 128 - 1


@wrong("bin_edges", "the last bin is closed")
def closed_above(k):
    low = 2 * k / 255 - 1 - 1 / 255
    return np.where(k == 0, -np.inf, low), low + 2 / 255


@wrong("continuous_nll", "ln 2π forgotten", True)
def gaussian_nll(x, mean, log_variance):
    return F.gaussian_nll_loss(mean, x, log_variance.exp(), reduction="none", eps=0)


@wrong("prior_moments", "the deviation's logarithm")
def log_deviation(x_0, alpha_bar):
    return np.sqrt(alpha_bar[-1]) * x_0, 0.5 * np.log(1 - alpha_bar[-1])


@wrong("min_snr_x_0", "the larger of SNR and γ", True)
def maximum(alpha_bar, gamma):
    return (alpha_bar / (1 - alpha_bar)).clamp(min=gamma)


@wrong("min_snr_v", "SNR - 1 below", True)
def minus_one(alpha_bar, gamma):
    snr = alpha_bar / (1 - alpha_bar)
    return snr.clamp(max=gamma) / (snr - 1)


@wrong("bound_weight", "½ missing")
def without_half(t, s, alpha_bar, variance):
    b = alpha_bar[s] if s >= 0 else 1.0
    alpha = alpha_bar[t] / b
    return (1 - alpha) ** 2 / (variance * alpha * (1 - alpha_bar[t]))


@wrong("weight_decays", "nothing is spared")
def all_decay(shapes, weight_decay):
    return dict.fromkeys(shapes, weight_decay)


@wrong("straight_velocity", "x_0 - (1 - σ) ε of OT-CFM, with the sign of the data")
def towards_data(x_0, eps):
    return x_0 - (1 - 1e-4) * eps


@wrong("score_from_velocity", "the data's estimate over t²")
def score_of_data(x_t, u, t):
    t = t[:, None, None]
    return (x_t - t * u - x_t) / t**2


@wrong("edm_target", "the data themselves, divided by c_out", True)
def target_without_skip(x_0, eps, sigma, sigma_data):
    s = sigma[:, None, None]
    return x_0 * (s**2 + sigma_data**2).sqrt() / (s * sigma_data)


@wrong("to_straight", "the time is σ itself")
def sigma_as_time(x, alpha, sigma):
    return x / wide(alpha + sigma, x), sigma


@wrong("to_exploding", "x is not divided by α")
def not_rescaled(x, alpha, sigma):
    return x, sigma / alpha


@wrong("resolution_shift", "the ratio without its root")
def plain_ratio(m, n):
    return m / n


@wrong("cosmap_times", "the argument in degrees of a whole turn")
def whole_turn(u):
    return 1 - 1 / (np.tan(np.pi * u) + 1)


@wrong("edm_euler_step", "the slope is D - x")
def downhill(x, D, sigma, next):
    return x + (next - sigma) * (D - x) / sigma


@wrong("fresh_step", "the noise is added, and nothing is taken from ε̂")
def noise_on_top(x_0_hat, eps_hat, z, alpha, sigma, c):
    return alpha * x_0_hat + sigma * eps_hat + c * z


@wrong("target_decay", "the root: exp(½ …)")
def half_exponent(k, K, s_0, s_1, mu_0):
    N = math.ceil(math.sqrt(k / K * ((s_1 + 1) ** 2 - s_0**2) + s_0**2) - 1) + 1
    return math.exp(0.5 * s_0 * math.log(mu_0) / N)


@wrong("code_perplexity", "base 2 inside, e outside")
def mixed_bases(counts):
    p = counts / counts.sum()
    p = p[p > 0]
    return float(np.exp(-(p * np.log2(p)).sum()))


@wrong("sphere_code", "the codes are not normalised", True)
def half_of_a_sphere(z, codes):
    z = F.normalize(z, dim=1)
    index = torch.cdist(z, codes).argmin(1)
    return index, F.normalize(codes, dim=1)[index]


@wrong("rising_scale", "a cosine ramp")
def cosine_ramp(w, g, G):
    return 1 + (w - 1) * (1 - math.cos(math.pi * g / max(G - 1, 1))) / 2


@wrong("cosine_logits", "normalised over the tokens", True)
def over_tokens(q, k, s):
    q, k = F.normalize(q, dim=1), F.normalize(k, dim=1)
    return (q @ k.mT) * s.clamp(max=math.log(100)).exp()[:, None, None]


@wrong("packed_patches", "the channels come last", True)
def pixels_first(x, p):
    B, C, H, W = x.shape
    return torch.einsum("bchpwq->bhwpqc", x.view(B, C, H // p, p, W // p, p)).reshape(B, -1, C * p * p)


@wrong("frame_places", "cosine first")
def cosine_first(F_, D):
    angle = np.outer(np.arange(F_), 10000.0 ** (-np.arange(D // 2) / (D // 2)))
    return np.concatenate([np.cos(angle), np.sin(angle)], 1)


@wrong("group_conditions", "tiled: all clips, and again")
def tiled(c, n):
    return np.tile(c, (n, 1))


@wrong("unet_join", "the remembered stands first", True)
def remembered_first(x, h):
    return torch.cat([h, x], dim=1)


@wrong("ddim_step_v", "v is turned by the next level, not by this one")
def next_level(x_t, v, t, s, alpha_bar):
    a, b = alpha_bar[t], alpha_bar[s] if s >= 0 else 1.0
    x_0 = b**0.5 * x_t - (1 - b) ** 0.5 * v
    eps = a**0.5 * v + (1 - a) ** 0.5 * x_t
    return b**0.5 * x_0 + (1 - b) ** 0.5 * eps


@wrong("swiglu", "GELU gate of a tanh form, and the other branch scaled by ½", True)
def halved_gate(x, w1, w3, w2):
    return (F.silu(x @ w1.T) * (x @ w3.T) / 2) @ w2.T


@wrong("ict_probabilities", "the density at the left end, not the mass")
def density(t):
    p = np.exp(-0.5 * ((np.log(t[:-1]) + 1.1) / 2.0) ** 2)
    return p / p.sum()


@wrong("mode_times", "u for 1 - u in front")
def from_the_data(u, scale):
    if not -1 <= scale <= 2 / (math.pi - 2):
        raise ValueError(scale)
    return u - scale * (np.cos(np.pi * u / 2) ** 2 - 1 + u)


@wrong("discretised_nll", "the logistic function for Φ")
def logistic_bins(x, mean, log_variance):
    s = np.exp(0.5 * log_variance)
    upper = np.where(x > 0.999, 1.0, special.expit((x - mean + 1 / 255) / s))
    lower = np.where(x < -0.999, 0.0, special.expit((x - mean - 1 / 255) / s))
    return -np.log(np.maximum(upper - lower, 1e-12))
