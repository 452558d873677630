"""More mistakes as NumPy users and readers of blogs write them: ladders, conversions, steps, walks, guidance, losses, likelihood.

(what is wrong, topic, function), written before the explanations of this round and not looked at while they were made.
"""

import math

import numpy as np


def extract(a, t, shape):
    """As every blog has it."""
    out = np.take(np.asarray(a), np.asarray(t), axis=0)
    return out.reshape(-1, *((1,) * (len(shape) - 1)))


def prev(alphas_cumprod, s):
    return alphas_cumprod[s] if s >= 0 else 1.0


# ------------------------------------------------------------------------------------------------ ladders


def cosine_f(T, s=8e-3, grid=None):
    steps = np.linspace(0, T, T + 1) if grid is None else grid
    return np.cos(((steps / T) + s) / (1 + s) * math.pi * 0.5) ** 2


def betas_from(f, cap=0.999):
    return np.minimum(1 - f[1:] / f[:-1], cap)


def checked(T, top=20.0):
    if top / T >= 1:
        raise ValueError("beta too large")


def linear_of(T, start, end):
    checked(T)
    return np.linspace(start, end, T)


def sigmoid_betas(T, start=-6, end=6):
    checked(T)
    b = np.linspace(start, end, T)
    return 1 / (np.exp(-b) + 1) * (20 / T - 0.1 / T) + 0.1 / T


LADDERS = [
    ("the constants of T = 1000 for any T", "linear_betas", lambda T: linear_of(T, 1e-4, 0.02)),
    ("a sigmoid ramp", "linear_betas", sigmoid_betas),
    ("geometric instead of linear", "linear_betas", lambda T: checked(T) or np.geomspace(0.1 / T, 20 / T, T)),
    ("arange, the last step missing", "linear_betas", lambda T: linear_of(T, 0, 0) + 0.1 / T + np.arange(T) / T * (19.9 / T)),
    ("the plain linear ramp between the same ends", "scaled_linear_betas",
     lambda T: checked(T, 12.0) or np.linspace(0.85 / T, 12.0 / T, T)),
    ("the offset added after the division", "cosine_betas", lambda T: betas_from(np.cos(
        (np.linspace(0, T, T + 1) / T / (1 + 8e-3) + 8e-3) * math.pi * 0.5) ** 2)),
    ("not capped", "cosine_betas", lambda T: betas_from(cosine_f(T), cap=1.0)),
    ("capped at 0.5", "cosine_betas", lambda T: betas_from(cosine_f(T), cap=0.5)),
    ("T points instead of T + 1", "cosine_alpha_bar", lambda T: cosine_f(T, grid=np.linspace(0, T, T)) / cosine_f(T)[0]),
    ("log-alphas summed in float32", "alpha_bar", lambda b: np.cumprod(1 - b.astype(np.float16).astype(float))),
    ("cumprod of beta", "alpha_bar", np.cumprod),
    ("cumulated from the end", "alpha_bar", lambda b: np.cumprod((1 - b)[::-1])[::-1]),
    ("shifted but not scaled", "zero_snr_betas", lambda b: (
        r := np.sqrt(np.cumprod(1 - b)), a := (r - r[-1]) ** 2, 1 - np.append(a[0], a[1:] / a[:-1]))[-1]),
    ("ceil for floor", "leading_timesteps", lambda T, N, o: (np.arange(N) * math.ceil(T / N) + o)[::-1] if o or T == 1000 else
     (np.arange(N) * (T // N))[::-1]),
    ("linspace with endpoint=False", "linspace_timesteps",
     lambda T, N: np.linspace(0, T - 1, N, endpoint=False).round().astype(int)[::-1]),
    ("T where T - 1 should be", "linspace_timesteps", lambda T, N: np.linspace(0, T, N).round().astype(int)[::-1]),
    ("arange from the top, not shifted by one", "trailing_timesteps", lambda T, N: np.round(np.arange(T, 0, -T / N)).astype(int)),
    ("the pairs of neighbours in the full ladder", "step_pairs", lambda ts, T: np.array([(t, t - 1) for t in ts])),
    ("0 twice at the end", "step_pairs", lambda ts, T: np.array(list(zip(ts, np.append(ts[1:], 0), strict=True)))),
    ("normalised to [0, 1]", "network_time", lambda ts, i, T: ts[i] / (T - 1)),
    ("reversed index", "network_time", lambda ts, i, T: ts[::-1][i]),
    ("alpha ratio the wrong way round", "respaced_betas", lambda a, ts: 1 - np.append(1.0, a[ts[:-1]]) / a[ts]),
]  # fmt: skip

# ------------------------------------------------------------------------------------------------ conversions


def q_sample(x_start, noise, t, alphas_cumprod):
    sqrt_ac, sqrt_om = np.sqrt(alphas_cumprod), np.sqrt(1.0 - alphas_cumprod)
    return extract(sqrt_ac, t, x_start.shape) * x_start + extract(sqrt_om, t, x_start.shape) * noise


def one_minus_alpha_of_step(x_start, noise, t, alphas_cumprod):
    """√(1 - α_t) of the single step in front of the noise."""
    alphas = alphas_cumprod / np.append(1.0, alphas_cumprod[:-1])
    return extract(np.sqrt(alphas_cumprod), t, x_start.shape) * x_start + extract(np.sqrt(1 - alphas), t, x_start.shape) * noise


def alphas_of_step(x_start, noise, t, alphas_cumprod):
    """The alphas of single steps in both places."""
    alphas = alphas_cumprod / np.append(1.0, alphas_cumprod[:-1])
    return np.sqrt(extract(alphas, t, x_start.shape)) * x_start + np.sqrt(1 - extract(alphas, t, x_start.shape)) * noise


CONVERSIONS = [
    ("sqrt(1 - alpha_t) of one step", "q_sample", one_minus_alpha_of_step),
    ("alpha_t of one step throughout", "q_sample", alphas_of_step),
    ("normalised to unit variance again", "q_sample", lambda x, n, t, a: (
        y := q_sample(x, n, t, a), y / y.std(axis=(1, 2, 3), keepdims=True))[-1]),
    ("noise clipped to three sigma", "q_sample", lambda x, n, t, a: q_sample(x, np.clip(n, -1.5, 1.5), t, a)),
    ("t counted from 1", "q_sample", lambda x, n, t, a: q_sample(x, n, t, np.append(1.0, a))),
    ("clips the guess to ±1", "x_0_from_eps", lambda x, e, t, a: np.clip(
        (x - np.sqrt(1 - extract(a, t, x.shape)) * e) / np.sqrt(extract(a, t, x.shape)), -1, 1)),
    ("sqrt(1/a - 1) without the root", "x_0_from_eps", lambda x, e, t, a: (
        np.sqrt(1 / extract(a, t, x.shape)) * x - (1 / extract(a, t, x.shape) - 1) * e)),
    ("sqrt recip minus one applied to x", "x_0_from_eps", lambda x, e, t, a: (
        np.sqrt(1 / extract(a, t, x.shape) - 1) * x - np.sqrt(1 / extract(a, t, x.shape)) * e)),
    ("a small number under the division", "eps_from_x_0", lambda x, s, t, a: (
        x - np.sqrt(extract(a, t, x.shape)) * s) / (np.sqrt(1 - extract(a, t, x.shape)) + 1e-3)),
    ("the signal is not scaled", "eps_from_x_0", lambda x, s, t, a: (x - s) / np.sqrt(1 - extract(a, t, x.shape))),
    ("v by alpha and sigma squared", "v_from_pair",
     lambda x, e, t, a: extract(a, t, x.shape) * e - (1 - extract(a, t, x.shape)) * x),
    ("x_0 from v with exchanged weights", "x_0_from_v", lambda x, v, t, a: (
        np.sqrt(1 - extract(a, t, x.shape)) * x - np.sqrt(extract(a, t, x.shape)) * v)),
    ("eps from v as if v were x_0", "eps_from_v", lambda x, v, t, a: (
        (x - np.sqrt(extract(a, t, x.shape)) * v) / np.sqrt(1 - extract(a, t, x.shape)))),
    ("the score scaled by sigma instead of divided", "score_from_eps", lambda e, t, a: -e * (1 - extract(a, t, e.shape))),
    ("the score's sign", "eps_from_score", lambda s, t, a: np.sqrt(1 - extract(a, t, s.shape)) * s),
]  # fmt: skip

# ------------------------------------------------------------------------------------------------ steps


def p_mean(x, e, t, s, a):
    alpha = a[t] / prev(a, s)
    return (x - (1 - alpha) / np.sqrt(1 - a[t]) * e) / np.sqrt(alpha)


def posterior_var(t, s, a):
    return (1 - a[t] / prev(a, s)) * (1 - prev(a, s)) / (1 - a[t])


def ddpm(x, e, t, s, a, z, sigma=lambda t, s, a: math.sqrt(posterior_var(t, s, a)), mask=lambda t, s: s >= 0):
    return p_mean(x, e, t, s, a) + (sigma(t, s, a) * z if mask(t, s) else 0)


def ddim(x, e, t, s, a, eta, z, direction=None, clip=None, x_0=None):
    x_0 = (x - math.sqrt(1 - a[t]) * e) / math.sqrt(a[t]) if x_0 is None else x_0
    x_0 = x_0 if clip is None else np.clip(x_0, -clip, clip)
    sigma = eta * math.sqrt(posterior_var(t, s, a))
    rest = max(1 - prev(a, s) - sigma**2, 0.0) if direction is None else direction(t, s, a, sigma)
    return math.sqrt(prev(a, s)) * x_0 + math.sqrt(rest) * e + sigma * z


STEPS = [
    ("the mean of the two variances", "ddpm_step", lambda x, e, t, s, a, z: ddpm(
        x, e, t, s, a, z, lambda t, s, a: math.sqrt((posterior_var(t, s, a) + 1 - a[t] / prev(a, s)) / 2))),
    ("the standard deviation of the forward process", "ddpm_step",
     lambda x, e, t, s, a, z: ddpm(x, e, t, s, a, z, lambda t, s, a: math.sqrt(1 - a[t]))),
    ("noise with temperature 0.9", "ddpm_step", lambda x, e, t, s, a, z: ddpm(x, e, t, s, a, 0.9 * z)),
    ("clips the answer to ±1", "ddpm_step", lambda x, e, t, s, a, z: np.clip(ddpm(x, e, t, s, a, z), -1, 1)),
    ("subtracts eps unscaled", "ddpm_step", lambda x, e, t, s, a, z: (
        (x - e) / math.sqrt(a[t] / prev(a, s)) + (s >= 0) * math.sqrt(posterior_var(t, s, a)) * z)),
    ("the same noise twice, in the mean and beside it", "ddpm_step",
     lambda x, e, t, s, a, z: ddpm(x, e, t, s, a, z) + ddpm(0 * x, 0 * e, t, s, a, z)),
    ("scaled by sqrt(alpha) of the ladder's neighbour", "ddpm_step_large", lambda x, e, t, s, a, z: ddpm(
        x, e, t, s, a, z, lambda t, s, a: math.sqrt((1 - a[t] / prev(a, s)) * (a[t] / prev(a, s))))),
    ("exp of the variance's log, halved twice", "ddpm_step_large", lambda x, e, t, s, a, z: ddpm(
        x, e, t, s, a, z, lambda t, s, a: (1 - a[t] / prev(a, s)) ** 0.25)),
    ("eta multiplies z only", "ddim_step", lambda x, e, t, s, a, eta, z: (
        ddim(x, e, t, s, a, 0.0, z) + eta * math.sqrt(posterior_var(t, s, a)) * z)),
    ("eta squared", "ddim_step", lambda x, e, t, s, a, eta, z: ddim(x, e, t, s, a, eta**2, z)),
    ("the direction keeps the old level", "ddim_step", lambda x, e, t, s, a, eta, z: ddim(
        x, e, t, s, a, eta, z, lambda t, s, a, sigma: 1 - a[t])),
    ("clips at 3", "ddim_step", lambda x, e, t, s, a, eta, z: ddim(x, e, t, s, a, eta, z, clip=1.5)),
    ("averages x and x_0", "ddim_step", lambda x, e, t, s, a, eta, z: (ddim(x, e, t, s, a, eta, z) + x) / 2),
    ("steps to the middle of t and s", "ddim_step",
     lambda x, e, t, s, a, eta, z: ddim(x, e, t, (t + s) // 2 if s >= 0 else s, a, eta, z)),
    ("steps twenty rungs too far down", "ddim_step",
     lambda x, e, t, s, a, eta, z: ddim(x, e, t, max(s - 20, -1), a, eta, z)),
    ("v with the sign of x_0", "ddim_step_v", lambda x, v, t, s, a: (
        x0 := -(math.sqrt(a[t]) * x - math.sqrt(1 - a[t]) * v), e := math.sqrt(a[t]) * v + math.sqrt(1 - a[t]) * x,
        math.sqrt(prev(a, s)) * x0 + math.sqrt(1 - prev(a, s)) * e)[-1]),
    ("inverts with the step down", "ddim_invert_step", lambda x, e, s, t, a: (
        math.sqrt(prev(a, s)) * (x - math.sqrt(1 - a[t]) * e) / math.sqrt(a[t]) + math.sqrt(1 - prev(a, s)) * e)),
    ("the posterior mean's coefficients exchanged", "posterior_mean", lambda x0, x, t, s, a: (
        math.sqrt(prev(a, s)) * (1 - a[t] / prev(a, s)) / (1 - a[t]) * x
        + math.sqrt(a[t] / prev(a, s)) * (1 - prev(a, s)) / (1 - a[t]) * x0)),
    ("divided by 1 - alpha_bar of s", "posterior_mean", lambda x0, x, t, s, a: (
        (d := 1 - prev(a, s) if s >= 0 else 1 - a[t]),
        math.sqrt(prev(a, s)) * (1 - a[t] / prev(a, s)) / d * x0
        + math.sqrt(a[t] / prev(a, s)) * (1 - prev(a, s)) / d * x)[-1]),
    ("cut at 1e-5", "posterior_variance", lambda a: np.maximum([posterior_var(t, t - 1, a) for t in range(len(a))], 1e-3)),
    ("the average of beta and beta tilde", "posterior_variance", lambda a: np.array(
        [(posterior_var(t, t - 1, a) + 1 - a[t] / prev(a, t - 1)) / 2 for t in range(len(a))])),
    ("interpolates the variances, not their logs", "learned_range_variance", lambda v, t, s, a: (
        f := (v + 1) / 2, lo := posterior_var(t, s, a) if s >= 0 else posterior_var(t + 1, t, a),
        f * (1 - a[t] / prev(a, s)) + (1 - f) * lo)[-1]),
    ("a sigmoid for the fraction", "learned_range_variance", lambda v, t, s, a: (
        f := 1 / (1 + np.exp(-v)), lo := posterior_var(t, s, a) if s >= 0 else posterior_var(t + 1, t, a),
        np.exp(f * np.log(1 - a[t] / prev(a, s)) + (1 - f) * np.log(lo)))[-1]),
]  # fmt: skip


def loop(net, x, timesteps, step, tell=lambda t, s: t):
    for k, (t, s) in enumerate(zip(timesteps, [*timesteps[1:], -1], strict=True)):
        x = step(x, net(x, tell(int(t), int(s))), int(t), int(s), k)
    return x


def grid(T, N):
    return np.linspace(0, T - 1, N).round().astype(int)[::-1]


WALKS = [
    ("tells the network where it goes", "ddim_sample", lambda net, x, N, a, eta, z: loop(
        net, x, grid(len(a), N), lambda x, e, t, s, k: ddim(x, e, t, s, a, eta, z[k]), lambda t, s: max(s, 0))),
    ("the last step is left out", "ddim_sample", lambda net, x, N, a, eta, z: loop(
        net, x, grid(len(a), N), lambda x, e, t, s, k: x if s < 0 else ddim(x, e, t, s, a, eta, z[k]))),
    ("stops at x_0 of the last prediction, clipped", "ddim_sample", lambda net, x, N, a, eta, z: np.clip(loop(
        net, x, grid(len(a), N), lambda x, e, t, s, k: ddim(x, e, t, s, a, eta, z[k])), -1, 1)),
    ("the noise of the step before", "ddpm_sample", lambda net, x, N, a, z: loop(
        net, x, grid(len(a), N), lambda x, e, t, s, k: ddpm(x, e, t, s, a, z[max(k - 1, 0)]))),
    ("noise in the last step, too", "ddpm_sample", lambda net, x, N, a, z: loop(
        net, x, grid(len(a), N), lambda x, e, t, s, k: ddpm(x, e, t, s, a, z[k]) + (0.01 * z[k] if s < 0 else 0))),
]  # fmt: skip

# ------------------------------------------------------------------------------------------------ guidance


def cfg(u, c, w):
    return u + w * (c - u)


GUIDANCE = [
    ("w + 1", "guide", lambda u, c, w: cfg(u, c, w + 1)),
    ("the norm of the guided answer is kept", "guide", lambda u, c, w: (
        g := cfg(u, c, w), g * np.linalg.norm(c) / np.linalg.norm(g))[-1]),
    ("only the first sample is guided", "guide", lambda u, c, w: np.concatenate([cfg(u[:1], c[:1], w), c[1:]])),
    ("w is clipped to at most 2", "guide", lambda u, c, w: cfg(u, c, min(w, 2.0))),
    ("uncond on the wrong side", "guide_omega", lambda u, c, o: (1 + o) * u - o * c),
    ("chunks along the channels", "guide_uncond_first", lambda out, w: (
        h := np.concatenate(np.split(out, 2, axis=1)), cfg(h[: len(out) // 2], h[len(out) // 2 :][: len(out) // 2], w), )[0][
            : len(out) // 2].repeat(2, axis=1)),
    ("the halves of each are interleaved", "guide_cond_first", lambda out, w: cfg(out[1::2], out[0::2], w)),
    ("std over the channel axis", "rescale_guided", lambda e, c, phi: (
        r := e * c.std(axis=1, keepdims=True) / e.std(axis=1, keepdims=True), phi * r + (1 - phi) * e)[-1]),
    ("the rescaled answer is centred", "rescale_guided", lambda e, c, phi: (
        r := (e - e.mean(axis=(1, 2, 3), keepdims=True)) * c.std(axis=(1, 2, 3), keepdims=True)
        / e.std(axis=(1, 2, 3), keepdims=True), phi * r + (1 - phi) * e)[-1]),
    ("exclusive below", "guidance_interval", lambda w, t, lo, hi: np.where((t > lo) & (t <= hi), w, 1.0)),
    ("the maximum instead of the quantile", "clip_dynamic", lambda x, p, most: (
        q := np.clip(abs(x).max(axis=(1, 2, 3), keepdims=True), 1, most), np.clip(x, -q, q) / q)[-1]),
]  # fmt: skip

# ------------------------------------------------------------------------------------------------ losses and likelihood


def goal(x, e, t, a, objective):
    s, n = np.sqrt(extract(a, t, x.shape)), np.sqrt(1 - extract(a, t, x.shape))
    return {"eps": e, "x_0": x, "v": s * e - n * x}[objective]


def losses_of(form):
    return lambda out, x, e, t, a, objective: form(goal(x, e, t, a, objective) - out)


def kl(m1, l1, m2, l2):
    return 0.5 * (-1.0 + l2 - l1 + np.exp(l1 - l2) + (m1 - m2) ** 2 * np.exp(-l2))


LOSSES = [
    ("the Huber loss", "simple_loss", losses_of(lambda d: np.where(abs(d) < 1, 0.5 * d * d, abs(d) - 0.5).mean())),
    ("log-cosh", "simple_loss", losses_of(lambda d: np.log(np.cosh(d)).mean())),
    ("the mean of the norms", "simple_loss", losses_of(lambda d: np.sqrt((d**2).sum(axis=(1, 2, 3))).mean())),
    ("summed over pixels, mean over the batch", "simple_loss", losses_of(lambda d: (d**2).sum(axis=(1, 2, 3)).mean())),
    ("the median", "simple_loss", losses_of(lambda d: np.median(d**2))),
    ("always compared with the noise", "simple_loss", lambda out, x, e, t, a, objective: ((e - out) ** 2).mean()),
    ("the variance of the difference", "simple_loss", losses_of(np.var)),
    ("KL with base 2", "normal_kl", lambda *q: kl(*q) / math.log(2)),
    ("the one that is not subtracted", "normal_kl", lambda *q: kl(*q) + 0.5),
    ("log-variances taken for log-deviations", "normal_kl", lambda m1, l1, m2, l2: kl(m1, 2 * l1, m2, 2 * l2)),
    ("without the log of 2π", "continuous_nll", lambda x, m, lv: 0.5 * (lv + (x - m) ** 2 * np.exp(-lv))),
    ("the distance not squared", "continuous_nll",
     lambda x, m, lv: 0.5 * (math.log(2 * math.pi) + lv + abs(x - m) * np.exp(-lv))),
    ("in nats", "bits_per_dim", lambda n: n.mean(axis=(1, 2, 3))),
    ("summed", "bits_per_dim", lambda n: n.sum(axis=(1, 2, 3)) / math.log(2)),
    ("the variance's log is missing", "prior_bits", lambda x, a: (
        (0.5 * (a[-1] * x**2 + (1 - a[-1]) - 1)).mean(axis=(1, 2, 3)) / math.log(2))),
    ("SNR capped from below", "min_snr_eps", lambda a, g: np.maximum(a / (1 - a), g) / np.maximum(a / (1 - a), 1e-8)),
    ("the root of SNR", "min_snr_x_0", lambda a, g: np.minimum(np.sqrt(a / (1 - a)), g)),
    ("gamma added, not the minimum", "min_snr_v", lambda a, g: (s := a / (1 - a), (s + g) / (s + 1))[-1]),
    ("weights not divided by T", "importance_weights", lambda p, t: 1 / p[t]),
    ("half of it", "bound_weight", lambda t, s, a, v: (
        b := 1 - a[t] / prev(a, s), b**2 / (v * (1 - b) * (1 - a[t])))[-1]),
]  # fmt: skip
