"""Guidance, losses and the bound written by somebody else, and mistakes in them that are in no catalogue (as in fresh_laws)."""

import functools
import math

import numpy as np
from verify.fresh_laws import between, col, log_small, posterior, small

other = tuple(range(1, 4))

# ------------------------------------------------------------------------------------------------ guidance


def guide(u, c, w):
    return (1 - w) * u + w * c


def rescaled(e, c, phi, axes=other, ddof=1, swap=False):
    ratio = c.std(axis=axes, keepdims=True, ddof=ddof) / e.std(axis=axes, keepdims=True, ddof=ddof)
    return e * (1 - phi + phi * (1 / ratio if swap else ratio))


def dynamic(x, p, most, least=1.0, axes=other, size=abs, method="linear", divide=True):
    q = np.minimum(np.maximum(np.quantile(size(x), p, axis=axes, keepdims=True, method=method), least), most)
    return np.clip(x, -q, q) / (q if divide else 1)


def interval(w, t, low, high, inside=lambda t, low, high: (low <= t) & (t < high), out=1.0):
    return [w if inside(k, low, high) else out for k in t]


GUIDANCE = {
    "guide": guide, "guide_omega": lambda u, c, o: c + o * (c - u),
    "guide_uncond_first": lambda out, w: guide(*np.split(out, 2), w),
    "guide_cond_first": lambda out, w: guide(*np.split(out, 2)[::-1], w), "rescale_guided": rescaled,
    "guidance_interval": interval, "clip_static": lambda x: np.minimum(np.maximum(x, -1), 1), "clip_dynamic": dynamic,
}  # fmt: skip
WRONG_GUIDANCE = [
    ("the difference forgotten", "guide", lambda u, c, w: u + w * c),
    ("half the scale", "guide", lambda u, c, w: guide(u, c, w / 2)),
    ("clips the guided noise", "guide", lambda u, c, w: np.clip(guide(u, c, w), -3, 3)),
    ("the first sample's branch for all", "guide", lambda u, c, w: guide(u[:1], c, w)),
    ("samples alternate", "guide_uncond_first", lambda out, w: guide(out[::2], out[1::2], w)),
    ("twice the batch comes back", "guide_cond_first", lambda out, w: np.concatenate([guide(*np.split(out, 2)[::-1], w)] * 2)),
    ("the ratio inverted", "rescale_guided", functools.partial(rescaled, swap=True)),
    ("the contrast of each channel", "rescale_guided", functools.partial(rescaled, axes=(2, 3))),
    ("φ the other way", "rescale_guided", lambda e, c, phi: rescaled(e, c, 1 - phi)),
    ("the end belongs to it", "guidance_interval", functools.partial(interval, inside=lambda t, a, b: a <= t <= b)),
    ("the start does not", "guidance_interval", functools.partial(interval, inside=lambda t, a, b: a < t < b)),
    ("0 outside", "guidance_interval", functools.partial(interval, out=0.0)),
    ("everywhere but there", "guidance_interval", functools.partial(interval, inside=lambda t, a, b: t < a or t >= b)),
    ("tanh", "clip_static", np.tanh),
    ("to [0, 1]", "clip_static", lambda x: np.clip(x, 0, 1)),
    ("nothing below 1 either", "clip_dynamic", functools.partial(dynamic, least=0.0)),
    ("the quantile of x itself", "clip_dynamic", functools.partial(dynamic, size=lambda x: x)),
    ("the quantile's lower neighbour", "clip_dynamic", functools.partial(dynamic, method="lower")),
    ("each channel its own", "clip_dynamic", functools.partial(dynamic, axes=(2, 3))),
    ("not divided", "clip_dynamic", functools.partial(dynamic, divide=False)),
]  # fmt: skip

# ------------------------------------------------------------------------------------------------ losses


def target(x_0, eps, t, a, objective, sign=-1):
    c, n = col(a, t) ** 0.5, (1 - col(a, t)) ** 0.5
    return {"eps": eps, "x_0": x_0, "v": c * eps + sign * n * x_0}[objective]


def simple(out, x_0, eps, t, a, objective, form=lambda d: (d * d).mean(), **more):
    return form(target(x_0, eps, t, a, objective, **more) - out)


def phi(z):
    return 0.5 * np.vectorize(math.erfc)(-z / math.sqrt(2))


def grey(x, mean, lv, half=1 / 255, ends=0.999, least=1e-12):
    s = np.exp(-lv / 2)
    up, low = phi(s * (x - mean + half)), phi(s * (x - mean - half))
    p = np.where(x < -ends, up, np.where(x > ends, phi(-s * (x - mean - half)), up - low))
    return -np.log(np.maximum(p, least))


def kl(m, l, n, k):
    return 0.5 * (k - l - 1 + np.exp(l - k) + (m - n) ** 2 / np.exp(k))


def bits(nats, base=2, axes=other):
    return nats.mean(axis=axes) / math.log(base)


def normal_nll(x, m, lv, share=0.5):
    return share * math.log(2 * math.pi) + lv / 2 + (x - m) ** 2 / np.exp(lv) / 2


def term(x_0, x_t, guess, lv, t, a, decoder=grey, flip=False, true=log_small):
    mean = posterior(guess, x_t, t, t - 1, a)
    if t == 0:
        return bits(decoder(x_0, mean, lv))
    pair = (posterior(x_0, x_t, t, t - 1, a), true(a, t, t - 1)), (mean, lv)
    return bits(kl(*pair[flip], *pair[1 - flip]))


def prior(x_0, a, mean=True):
    return bits(kl(a[-1] ** 0.5 * x_0 * mean, np.log(1 - a[-1]), 0.0, 0.0))


def total(x_0, x_t, guess, lv, a, skip=0):
    return prior(x_0, a) + sum(term(x_0, x_t[t], guess[t], lv[t], t, a) for t in range(skip, len(a)))


def bound(e_hat, v, x_0, eps, t, a):
    x_t = a[t] ** 0.5 * x_0 + (1 - a[t]) ** 0.5 * eps
    return term(x_0, x_t, (x_t - (1 - a[t]) ** 0.5 * e_hat) / a[t] ** 0.5, between(v, t, t - 1, a), t, a)


def hybrid(out, x_0, eps, t, a, lam=1e-3):
    e_hat, v = np.split(out, 2, axis=1)
    return ((eps - e_hat) ** 2).mean(axis=other) + lam * len(a) * bound(e_hat, v, x_0, eps, t, a)


def hybrid_gradient(out, x_0, eps, t, a, by=1.0, v_by=1.0):
    """By hand: d bound/d lv = ½ (1 - (e^l + d²)/e^lv), lv = low + (v+1)/2 (high - low)."""
    e_hat, v = np.split(out, 2, axis=1)
    lv, d = between(v, t, t - 1, a), posterior((1 - a[t]) ** 0.5 / a[t] ** 0.5 * (eps - e_hat), 0 * x_0, t, t - 1, a)
    slope = 0.5 * (1 - (small(a, t, t - 1) + d * d) / np.exp(lv)) / math.log(2) / e_hat[0].size
    span = (math.log(1 - a[t] / a[t - 1]) - log_small(a, t, t - 1)) / 2
    return np.concatenate([by * 2 * (e_hat - eps) / e_hat[0].size, v_by * 1e-3 * len(a) * span * slope], axis=1)


def snr(a):
    return a / (1 - a)


def importance(h, uniform=0.001, power=2, early=False):
    if np.isnan(h).any():
        return np.full(len(h), 1 / len(h))
    w = (h**power).mean(axis=1) ** (1 / 2 if not early else 1)
    return w / w.sum() * (1 - uniform) + uniform / len(h)


def weight(t, s, a, var, form=lambda beta, alpha, rest, var: beta**2 / (2 * var * alpha * rest)):
    return form(1 - a[t] / a[s], a[t] / a[s], 1 - a[t], var)


STREAM = np.random.default_rng(6)  # one stream: a generator made anew in every call would draw the same numbers twice
rng = lambda: STREAM
LOSSES = {
    "simple_loss": simple, "normal_kl": kl, "discretised_nll": grey, "continuous_nll": normal_nll, "bits_per_dim": bits,
    "prior_bits": prior, "vb_term": term, "vb_term_latents": functools.partial(term, decoder=normal_nll), "bound_total": total,
    "hybrid_loss": hybrid, "hybrid_gradient": hybrid_gradient, "bound_weight": weight,
    "min_snr_x_0": lambda a, g: np.where(snr(a) < g, snr(a), g), "min_snr_v": lambda a, g: np.minimum(a, g * (1 - a)),
    "min_snr_eps": lambda a, g: [min(1.0, g * (1 - k) / k) if k else 1.0 for k in a],
    "importance_probabilities": importance, "importance_weights": lambda p, t: [1 / (len(p) * p[k]) for k in t],
    "draw_timesteps": lambda B, T: rng().integers(T, size=B), "noise": lambda shape: rng().standard_normal(shape),
}  # fmt: skip
WRONG_LOSSES = [
    ("a sum", "simple_loss", functools.partial(simple, form=lambda d: (d * d).sum())),
    ("a sum over the batch", "simple_loss", functools.partial(simple, form=lambda d: (d * d).mean(axis=other).sum())),
    ("absolute", "simple_loss", functools.partial(simple, form=lambda d: abs(d).mean())),
    ("its root", "simple_loss", functools.partial(simple, form=lambda d: (d * d).mean() ** 0.5)),
    ("a half", "simple_loss", functools.partial(simple, form=lambda d: (d * d).mean() / 2)),
    ("v with a plus", "simple_loss", functools.partial(simple, sign=1)),
    ("the variance for the second moment", "simple_loss", functools.partial(simple, form=lambda d: d.var())),
    ("deviations for variances", "normal_kl", lambda m, l, n, k: kl(m, l / 2, n, k / 2)),
    ("not less 1", "normal_kl", lambda m, l, n, k: kl(m, l, n, k) + 0.5),
    ("255 bins from edge to edge", "discretised_nll", lambda x, m, lv: grey((x * 255 / 256), m, lv, half=1 / 256)),
    ("end bins at 0.9", "discretised_nll", functools.partial(grey, ends=0.9)),
    ("the density for the probability", "discretised_nll", lambda x, m, lv: normal_nll(x, m, lv) - math.log(2 / 255)),
    ("without its constant", "continuous_nll", functools.partial(normal_nll, share=0)),
    ("2π not under the root", "continuous_nll", functools.partial(normal_nll, share=1)),
    ("base 10", "bits_per_dim", functools.partial(bits, base=10)),
    ("over pixels, not channels", "bits_per_dim", lambda n: (n.mean(axis=(2, 3)) / math.log(2)).sum(axis=1)),
    ("the prior without its mean", "prior_bits", functools.partial(prior, mean=False)),
    ("the KL the other way", "vb_term", functools.partial(term, flip=True)),
    ("no decoder", "bound_total", functools.partial(total, skip=1)),
    ("λ = 0.01", "hybrid_loss", functools.partial(hybrid, lam=0.01)),
    ("the bound alone", "hybrid_gradient", functools.partial(hybrid_gradient, by=0.0)),
    ("v's gradient through (v+1)", "hybrid_gradient", functools.partial(hybrid_gradient, v_by=2.0)),
    ("without α", "bound_weight", functools.partial(weight, form=lambda b, al, rest, var: b * b / (2 * var * rest))),
    ("β not squared", "bound_weight", functools.partial(weight, form=lambda b, al, rest, var: b / (2 * var * al * rest))),
    ("γ over SNR", "min_snr_eps", lambda a, g: g / np.maximum(snr(a), 1e-9)),
    ("no minimum", "min_snr_v", lambda a, g: snr(a) / (snr(a) + 1)),
    ("of √SNR", "min_snr_x_0", lambda a, g: np.minimum(snr(a) ** 0.5, g)),
    ("no root", "importance_probabilities", functools.partial(importance, early=True)),
    ("a hundredth uniform", "importance_probabilities", functools.partial(importance, uniform=0.01)),
    ("missing losses count nothing", "importance_probabilities", lambda h: importance(np.nan_to_num(h))),
    ("the mean of losses", "importance_probabilities", lambda h: importance(h, power=1, early=True)),
    ("T p", "importance_weights", lambda p, t: len(p) * p[t]),
    ("normalised in the batch", "importance_weights", lambda p, t: 1 / p[t] / (1 / p[t]).mean()),
    ("never the last t", "draw_timesteps", lambda B, T: rng().integers(T - 1, size=B)),
    ("one t for all", "draw_timesteps", lambda B, T: np.full(B, rng().integers(T))),
    ("squares of uniforms", "draw_timesteps", lambda B, T: (T * rng().random(B) ** 2).astype(int)),
    ("rounded to the nearest", "draw_timesteps", lambda B, T: np.rint((T - 1) * rng().random(B)).astype(int)),
    ("Student's t of 5", "noise", lambda n: rng().standard_t(5, n) * (3 / 5) ** 0.5),
    ("twelve uniforms", "noise", lambda n: rng().random((6, *n)).sum(axis=0) * 2**0.5 - 3 * 2**0.5),
    ("one noise for all samples", "noise", lambda n: np.broadcast_to(rng().standard_normal((1, *n[1:])), n)),
    ("one noise for all channels", "noise", lambda n: np.broadcast_to(rng().standard_normal((n[0], 1, *n[2:])), n)),
    ("smooth", "noise", lambda n: (lambda z: (z + np.roll(z, 1, -1)) / 2**0.5)(rng().standard_normal(n))),
    ("mean 0.02", "noise", lambda n: rng().standard_normal(n) + 0.02),
]  # fmt: skip
