"""Mistakes as users write them, in ladders, conversions, steps, samplers, guidance and losses: (what is wrong, topic, function).

Written before the explanations were. Even places were looked at while the explanations were made, odd ones only when they were
done (test_explained.py).
"""

import functools
import math

import numpy as np
from verify import fresh_laws as laws
from verify import fresh_losses as losses
from verify.fresh_laws import below, col, small

part = functools.partial


def noised(x, e, t, a, p=lambda a: a**0.5, q=lambda a: (1 - a) ** 0.5):
    return p(col(a, t)) * x + q(col(a, t)) * e


def clean(x, e, t, a, p=lambda a: a**0.5, q=lambda a: (1 - a) ** 0.5):
    return (x - q(col(a, t)) * e) / p(col(a, t))


def noise_of(x, x_0, t, a, p=lambda a: a**0.5, q=lambda a: (1 - a) ** 0.5):
    return (x - p(col(a, t)) * x_0) / q(col(a, t))


def velocity(x, e, t, a, p=lambda a: a**0.5, q=lambda a: (1 - a) ** 0.5):
    return p(col(a, t)) * e - q(col(a, t)) * x


half = lambda a: np.asarray(a).astype(np.float16).astype(np.float64)


def brain(a):
    """Rounded to bfloat16, by its bits."""
    bits = np.asarray(a, np.float32).view(np.uint32) + 0x8000 & 0xFFFF0000
    return bits.astype(np.uint32).view(np.float32).astype(float)



CONVERSIONS = [
    ("noise has the root of its coefficient", "q_sample", part(noised, q=lambda a: (1 - a) ** 0.25)),
    ("noise has the square of its coefficient", "q_sample", part(noised, q=lambda a: 1 - a)),
    ("signal without the root", "q_sample", part(noised, p=lambda a: a)),
    ("signal by the reciprocal", "q_sample", part(noised, p=lambda a: a**-0.5)),
    ("coefficients exchanged", "q_sample", lambda x, e, t, a: noised(e, x, t, a)),
    ("1 - √ᾱ for √(1-ᾱ)", "q_sample", part(noised, q=lambda a: 1 - a**0.5)),
    ("minus the noise", "q_sample", lambda x, e, t, a: noised(x, -e, t, a)),
    ("the next entry of the table", "q_sample", lambda x, e, t, a: noised(x, e, np.minimum(t + 1, len(a) - 1), a)),
    ("the entry before", "q_sample", lambda x, e, t, a: noised(x, e, np.maximum(t - 1, 0), a)),
    ("one t for the batch", "q_sample", lambda x, e, t, a: noised(x, e, t[:1], a)),
    ("the last sample's t", "q_sample", lambda x, e, t, a: noised(x, e, np.full_like(t, t[-1]), a)),
    ("the mean t", "q_sample", lambda x, e, t, a: noised(x, e, np.full_like(t, int(t.mean())), a)),
    ("a table in float16", "q_sample", lambda x, e, t, a: noised(x, e, t, half(a))),
    ("a table in bfloat16", "q_sample", lambda x, e, t, a: noised(x, e, t, brain(a))),
    ("the answer through float16", "q_sample", lambda x, e, t, a: half(noised(x, e, t, a))),
    ("noise of half the size", "q_sample", lambda x, e, t, a: noised(x, 0.5 * e, t, a)),
    ("the mean of the batch taken away", "q_sample", lambda x, e, t, a: noised(x - x.mean(axis=0), e, t, a)),
    ("the first sample for all", "q_sample", lambda x, e, t, a: noised(np.broadcast_to(x[:1], x.shape), e, t, a)),
    ("divided by ᾱ", "x_0_from_eps", part(clean, p=lambda a: a)),
    ("times √ᾱ", "x_0_from_eps", part(clean, p=lambda a: a**-0.5)),
    ("plus the noise", "x_0_from_eps", lambda x, e, t, a: clean(x, -e, t, a)),
    ("noise without the root", "x_0_from_eps", part(clean, q=lambda a: 1 - a)),
    ("not divided", "x_0_from_eps", part(clean, p=lambda a: 1.0)),
    ("t of the first for all", "x_0_from_eps", lambda x, e, t, a: clean(x, e, t[:1], a)),
    ("the entry before", "x_0_from_eps", lambda x, e, t, a: clean(x, e, np.maximum(t - 1, 0), a)),
    ("divided by the variance", "eps_from_x_0", part(noise_of, q=lambda a: 1 - a)),
    ("divided by the signal", "eps_from_x_0", part(noise_of, q=lambda a: a**0.5)),
    ("the sign", "eps_from_x_0", lambda x, x_0, t, a: -noise_of(x, x_0, t, a)),
    ("a table in bfloat16", "eps_from_x_0", lambda x, x_0, t, a: noise_of(x, x_0, t, brain(a))),
    ("plus", "v_from_pair", part(velocity, q=lambda a: -((1 - a) ** 0.5))),
    ("the sign", "v_from_pair", lambda x, e, t, a: -velocity(x, e, t, a)),
    ("the coefficients exchanged", "v_from_pair", part(velocity, p=lambda a: (1 - a) ** 0.5, q=lambda a: a**0.5)),
    ("ε - x_0", "v_from_pair", lambda x, e, t, a: e - x),
    ("√ᾱ for ᾱ", "x_0_from_v", lambda x, v, t, a: col(a, t) * x - (1 - col(a, t)) ** 0.5 * v),
    ("plus", "x_0_from_v", lambda x, v, t, a: col(a, t) ** 0.5 * x + (1 - col(a, t)) ** 0.5 * v),
    ("minus", "eps_from_v", lambda x, v, t, a: (1 - col(a, t)) ** 0.5 * x - col(a, t) ** 0.5 * v),
    ("x alone", "eps_from_v", lambda x, v, t, a: (1 - col(a, t)) ** 0.5 * x),
    ("without the sign", "score_from_eps", lambda e, t, a: e / (1 - col(a, t)) ** 0.5),
    ("by the signal", "score_from_eps", lambda e, t, a: -e / col(a, t) ** 0.5),
    ("by the variance", "score_from_eps", lambda e, t, a: -e / (1 - col(a, t))),
    ("multiplied", "score_from_eps", lambda e, t, a: -e * (1 - col(a, t)) ** 0.5),
    ("divided", "eps_from_score", lambda s, t, a: -s / (1 - col(a, t)) ** 0.5),
]  # fmt: skip


def moved(x, e, t, s, a, eta, z, minus=1.0, c=1.0, level=below, up=lambda a: a**0.5, order=False):
    a_t, a_s = a[t], level(a, s)
    x_0 = (x - (1 - a_t) ** 0.5 * e) / a_t**0.5
    sigma = c * eta * ((1 - a_s) / (1 - a_t) * (1 - a_t / a_s)) ** 0.5
    return up(a_s) * x_0 + max(1 - a_s - minus * sigma**2, 0) ** 0.5 * e + sigma * z


def ancestral(x, e, t, s, a, z, std=lambda b, v: v**0.5, mean=lambda x, e, b, n, al: (x - b / n * e) / al**0.5):
    al, b = a[t] / below(a, s), 1 - a[t] / below(a, s)
    return mean(x, e, b, (1 - a[t]) ** 0.5, al) + (s >= 0) * std(b, small(a, t, s)) * z


table = lambda f: lambda a: np.array([f(a, t) for t in range(len(a))])
STEPS = [
    ("σ is its square", "ddim_step", lambda x, e, t, s, a, eta, z: moved(x, e, t, s, a, 1, z, c=eta * small(a, t, s) ** 0.5)),
    ("σ twice", "ddim_step", part(moved, c=2.0)),
    ("the noise of the direction is not taken away", "ddim_step", part(moved, minus=0.5)),
    ("ᾱ_s without the root", "ddim_step", part(moved, up=lambda a: a)),
    ("another level below", "ddim_step", part(moved, level=lambda a, s: a[s - 1] if s > 0 else 1.0)),
    ("the noise minus", "ddim_step", lambda x, e, t, s, a, eta, z: moved(x, e, t, s, a, eta, -z)),
    ("η of 1 always", "ddim_step", lambda x, e, t, s, a, eta, z: moved(x, e, t, s, a, 1.0, z)),
    ("the other noise", "ddim_step", lambda x, e, t, s, a, eta, z: moved(x, z, t, s, a, eta, e)),
    ("x for x̂_0", "ddim_step", lambda x, e, t, s, a, eta, z: below(a, s) ** 0.5 * x + (1 - below(a, s)) ** 0.5 * e),
    ("half the noise", "ddpm_step", part(ancestral, std=lambda b, v: 0.5 * v**0.5)),
    ("the variance for the deviation", "ddpm_step", part(ancestral, std=lambda b, v: v)),
    ("the fourth root", "ddpm_step", part(ancestral, std=lambda b, v: v**0.25)),
    ("β without its divisor", "ddpm_step", part(ancestral, mean=lambda x, e, b, n, al: (x - b * e) / al**0.5)),
    ("divided by α", "ddpm_step", part(ancestral, mean=lambda x, e, b, n, al: (x - b / n * e) / al)),
    ("multiplied by √α", "ddpm_step", part(ancestral, mean=lambda x, e, b, n, al: (x - b / n * e) * al**0.5)),
    ("plus the noise", "ddpm_step", part(ancestral, mean=lambda x, e, b, n, al: (x + b / n * e) / al**0.5)),
    ("root of β in the mean", "ddpm_step", part(ancestral, mean=lambda x, e, b, n, al: (x - b**0.5 / n * e) / al**0.5)),
    ("z of one sample for all", "ddpm_step", lambda x, e, t, s, a, z: ancestral(x, e, t, s, a, np.broadcast_to(z[:1], z.shape))),
    ("the first weight's root", "posterior_mean", lambda x_0, x, t, s, a: (
        (1 - a[t] / below(a, s)) * below(a, s) / (1 - a[t]) * x_0
        + (1 - below(a, s)) * (a[t] / below(a, s)) ** 0.5 / (1 - a[t]) * x)),
    ("the mean of both", "posterior_mean", lambda x_0, x, t, s, a: (x_0 + x) / 2),
    ("the weights add up to one", "posterior_mean", lambda x_0, x, t, s, a: (
        (w := (1 - a[t] / below(a, s)) * below(a, s) ** 0.5 / (1 - a[t])) * x_0 + (1 - w) * x)),
    ("the root of it", "posterior_variance", table(lambda a, t: small(a, t, t - 1) ** 0.5)),
    ("twice", "posterior_variance", table(lambda a, t: 2 * small(a, t, t - 1))),
    ("of the next step", "posterior_variance", table(lambda a, t: small(a, min(t + 1, len(a) - 1), min(t, len(a) - 2)))),
    ("log10", "posterior_log_variance", table(lambda a, t: math.log10(small(a, max(t, 1), max(t, 1) - 1)))),
    ("log2", "posterior_log_variance", table(lambda a, t: math.log2(small(a, max(t, 1), max(t, 1) - 1)))),
    ("the log of the deviation", "posterior_log_variance", table(lambda a, t: math.log(small(a, max(t, 1), max(t, 1) - 1)) / 2)),
    ("backwards", "fixed_large_variance", lambda a: table(lambda a, t: 1 - a[t] / a[t - 1] if t else small(a, 1, 0))(a)[::-1]),
    ("its root", "fixed_large_variance", table(lambda a, t: (1 - a[t] / a[t - 1] if t else small(a, 1, 0)) ** 0.5)),
    ("v clipped to [0, 1]", "learned_range_variance", lambda v, t, s, a: np.exp(laws.between(np.clip(v, 0, 1), t, s, a))),
    ("a half less", "learned_range_variance", lambda v, t, s, a: np.exp(laws.between(v - 1, t, s, a))),
    ("minus", "ddim_step_v", part(laws.ddim_v, sign=-1)),
    ("the level of s throughout", "ddim_invert_step", lambda x, e, s, t, a: (
        a[t] ** 0.5 * x / below(a, s) ** 0.5 + ((1 - a[t]) ** 0.5 - (1 - below(a, s)) ** 0.5) * e)),
    ("minus the noise", "ddim_invert_step", lambda x, e, s, t, a: laws.climb(x, -e, s, t, a)),
    ("every step with the first noise", "ddim_sample",
     lambda d, x, N, a, eta, z: laws.ddim_walk(d, x, N, a, eta, np.broadcast_to(z[:1], z.shape))),
    ("the network told T - 1 - t", "ddim_sample", lambda d, x, N, a, eta, z: laws.walk(
        lambda x, e, t, s, k: laws.ddim(x, e, t, s, a, eta, z[k]), d, x, N, a, told=lambda t, s: len(a) - 1 - t)),
    ("√ᾱ in place of ᾱ", "ddim_sample", lambda d, x, N, a, eta, z: laws.ddim_walk(d, x, N, np.sqrt(a), eta, z)),
    ("noise of half the size", "ddpm_sample", lambda d, x, N, a, z: laws.ddpm_walk(d, x, N, a, z / 2)),
]  # fmt: skip

TABLES = [
    ("β to 0.2", "linear_betas", part(laws.ramp, high=15.0)),
    ("starts at 0", "linear_betas", part(laws.ramp, low=0.0)),
    ("one entry more", "linear_betas", lambda T: np.append(laws.ramp(T), 20.0 / T)),
    ("backwards", "linear_betas", lambda T: laws.ramp(T)[::-1]),
    ("float16", "linear_betas", lambda T: half(laws.ramp(T))),
    ("linear where the root is", "scaled_linear_betas",
     lambda T: np.linspace(0.85 / T, 12.0 / T, T) if T > 12 else laws.root_ramp(T)),
    ("cubed", "scaled_linear_betas", part(laws.root_ramp, power=3)),
    ("one rung late", "cosine_betas", lambda T: np.append(laws.cosine(T)[1:], 0.999)),
    ("f itself", "cosine_alpha_bar", lambda T: np.cos((np.arange(1, T + 1) / T + 0.008) / 1.008 * math.pi / 2) ** 2 + 1e-9),
    ("begins with 1", "cosine_alpha_bar", lambda T: np.append(1.0, np.cumprod(1 - laws.cosine(T)))[:-1]),
    ("α for ᾱ", "alpha_bar", lambda b: 1 - b),
    ("its root", "alpha_bar", lambda b: np.cumprod(1 - b) ** 0.5),
    ("1 - ᾱ", "alpha_bar", lambda b: 1 - np.cumprod(1 - b)),
    ("its logarithm", "alpha_bar", lambda b: np.cumsum(np.log(1 - b))),
    ("one entry more", "alpha_bar", lambda b: np.append(1.0, np.cumprod(1 - b))),
    ("the sum of β", "alpha_bar", lambda b: 1 - np.cumsum(b) / len(b)),
    ("the reciprocal", "alpha_bar", lambda b: 1 / np.cumprod(1 - b)),
    ("in bfloat16", "alpha_bar", lambda b: brain(np.cumprod(1 - b))),
    ("β never reaches 1", "zero_snr_betas", lambda b: np.minimum(laws.zero_end(b), 0.999)),
    ("upwards", "leading_timesteps", lambda T, N, o: laws.leading(T, N, o)[::-1]),
    ("one more", "leading_timesteps", lambda T, N, o: [*laws.leading(T, N, o), 0]),
    ("the offset forgotten", "leading_timesteps", lambda T, N, o: laws.leading(T, N, 0)),
    ("one less", "linspace_timesteps", lambda T, N: laws.spaced(T, N)[:-1]),
    ("the end left out", "linspace_timesteps", lambda T, N: [round(k * T / N) for k in range(N)][::-1]),
    ("one twice", "linspace_timesteps", lambda T, N: [(s := laws.spaced(T, N))[0], *s[:-1]]),
    ("cut off", "trailing_timesteps", lambda T, N: [int(T - k * T / N) - 1 for k in range(N)]),
    ("rounded up", "trailing_timesteps", lambda T, N: [math.ceil(T - k * T / N) - 1 for k in range(N)]),
    ("leading", "trailing_timesteps", lambda T, N: laws.leading(T, N, 0)),
    ("a step to itself at the end", "step_pairs", lambda n, T: [*laws.pairs(n, T)[:-1], (int(n[-1]), int(n[-1]))]),
    ("the last pair left out", "step_pairs", lambda n, T: laws.pairs(n, T)[:-1]),
    ("a fixed stride", "step_pairs", lambda n, T: [(int(t), int(t) - T // len(n)) for t in n]),
    ("the index", "network_time", lambda n, i, T: i),
    ("a thousandth", "network_time", lambda n, i, T: np.asarray(n)[i] / T),
    ("from 1", "network_time", lambda n, i, T: np.asarray(n)[i] + 1),
    ("the ratio", "respaced_betas", lambda a, n: 1 - np.asarray(laws.kept(a, n))),
    ("the training β", "respaced_betas", lambda a, n: [1 - a[t] / (a[t - 1] if t else 1) for t in n]),
]  # fmt: skip

front = lambda out: out[: len(out) // 2]
turned = lambda x: x.swapaxes(2, 3) if x.shape[2] == x.shape[3] else x[:, :, ::-1]
GUIDANCE = [
    ("exchanged", "guide", lambda u, c, w: c + (1 - w) * (u - c) * -1),
    ("w squared", "guide", lambda u, c, w: u + w * w * (c - u)),
    ("minus", "guide", lambda u, c, w: u - w * (c - u)),
    ("from the conditional", "guide", lambda u, c, w: c + w * (c - u) / 2),
    ("the mean over the channels", "guide", lambda u, c, w: (losses.guide(u, c, w)).mean(axis=1, keepdims=True) + 0 * u),
    ("twice", "guide_omega", lambda u, c, o: c + 2 * o * (c - u)),
    ("u - c", "guide_omega", lambda u, c, o: c + o * (u - c)),
    ("along the rows", "guide_uncond_first", lambda out, w: losses.guide(front(out), turned(out[len(out) // 2 :]), w)),
    ("the first of each half", "guide_cond_first",
     lambda out, w: np.broadcast_to(losses.guide(out[len(out) // 2 :][:1], out[:1], w), front(out).shape)),
    ("over the batch too", "rescale_guided", part(losses.rescaled, axes=None)),
    ("φ doubled", "rescale_guided", lambda e, c, phi: losses.rescaled(e, c, 2 * phi)),
    ("to ±2", "clip_static", lambda x: np.clip(x, -2, 2)),
    ("divided by the largest", "clip_static", lambda x: x / max(1, abs(x).max())),
    ("one limit for the batch", "clip_dynamic", part(losses.dynamic, axes=None)),
]  # fmt: skip

LOSSES = [
    ("the sum", "simple_loss", lambda *a: losses.simple(*a, form=lambda d: (d * d).sum())),
    ("a half", "simple_loss", lambda *a: losses.simple(*a, form=lambda d: (d * d).mean() / 2)),
    ("the root", "simple_loss", lambda *a: losses.simple(*a, form=lambda d: (d * d).mean() ** 0.5)),
    ("absolute", "simple_loss", lambda *a: losses.simple(*a, form=lambda d: abs(d).mean())),
    ("one per sample", "simple_loss", lambda *a: losses.simple(*a, form=lambda d: (d * d).mean(axis=(1, 2, 3)))),
    ("twice", "normal_kl", lambda *a: 2 * losses.kl(*a)),
    ("mean of the entries", "normal_kl", lambda *a: losses.kl(*a).mean()),
    ("deviations for variances", "normal_kl", lambda m, l, n, k: losses.kl(m, l / 2, n, k / 2)),
    ("exchanged", "normal_kl", lambda m, l, n, k: losses.kl(n, k, m, l)),
    ("in bits", "continuous_nll", lambda *a: losses.normal_nll(*a) / math.log(2)),
    ("a sign", "continuous_nll", lambda *a: -losses.normal_nll(*a)),
    ("variance taken for its log", "continuous_nll", lambda x, m, lv: losses.normal_nll(x, m, np.log(abs(lv) + 1e-3))),
    ("bins twice as wide", "discretised_nll", part(losses.grey, half=2 / 255)),
    ("bins half as wide", "discretised_nll", part(losses.grey, half=0.5 / 255)),
    ("in nats", "bits_per_dim", part(losses.bits, base=math.e)),
    ("summed", "bits_per_dim", lambda n: n.sum(axis=(1, 2, 3)) / math.log(2)),
    ("the batch mean", "bits_per_dim", lambda n: np.full(len(n), n.mean() / math.log(2))),
    ("in nats", "prior_bits", lambda x, a: losses.prior(x, a) * math.log(2)),
    ("the last but one level", "prior_bits", lambda x, a: losses.prior(x, a[:-1])),
    ("a tenth", "hybrid_loss", part(losses.hybrid, lam=1e-4)),
    ("without the bound", "hybrid_loss", part(losses.hybrid, lam=0.0)),
    ("half the gradient", "hybrid_gradient", part(losses.hybrid_gradient, by=0.5)),
    ("the gradient of v minus", "hybrid_gradient", part(losses.hybrid_gradient, v_by=-1.0)),
    ("γ squared", "min_snr_x_0", lambda a, g: np.minimum(losses.snr(a), g * g)),
    ("its root", "min_snr_x_0", lambda a, g: np.minimum(losses.snr(a), g) ** 0.5),
    ("SNR + 2", "min_snr_v", lambda a, g: np.minimum(losses.snr(a), g) / (losses.snr(a) + 2)),
    ("the reciprocal", "min_snr_eps", lambda a, g: losses.snr(a) / np.minimum(losses.snr(a), g)),
    ("without T", "importance_weights", lambda p, t: 1 / p[t]),
    ("p itself", "importance_weights", lambda p, t: len(p) * p[t]),
    ("the square", "bound_weight", lambda *a: losses.weight(*a) ** 2),
]  # fmt: skip
