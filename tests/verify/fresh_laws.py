"""Ladders, steps, guidance and losses written by somebody else, and mistakes in them that are in no catalogue.

RIGHT: topic -> a function that is right. FRESH: area -> (what is wrong, topic, function). Nothing here comes from the package.
"""

import functools
import math

import numpy as np

col = lambda table, t: np.asarray(table)[np.asarray(t)].reshape(-1, 1, 1, 1)
below = lambda a, s: a[s] if s >= 0 else 1.0

# ------------------------------------------------------------------------------------------------ ladders and lists


def ramp(T, low=0.1, high=20.0, ends=None):
    if high >= T:
        raise ValueError("β ≥ 1")
    return np.linspace(low / T, high / T, T) if ends is None else ends(low / T, high / T, T)


def root_ramp(T, low=0.85, high=12.0, power=2):
    if high >= T:
        raise ValueError("β ≥ 1")
    return np.linspace((low / T) ** 0.5, (high / T) ** 0.5, T) ** power


def cosine(T, s=0.008, power=2, cap=0.999, wave=np.cos):
    f = lambda u: wave((u + s) / (1 + s) * math.pi / 2) ** power
    return np.array([min(1 - f((i + 1) / T) / f(i / T), cap) for i in range(T)])


def zero_end(betas, power=2, scale=True):
    r = np.sqrt(np.cumprod(1 - betas))
    r = (r - r[-1]) * (r[0] / (r[0] - r[-1]) if scale else 1)
    a = r**power
    return 1 - np.append(a[0], a[1:] / a[:-1])


def leading(T, N, offset, ratio=lambda T, N: T // N):
    steps = [k * ratio(T, N) + offset for k in range(N)][::-1]
    if steps[0] >= T:
        raise IndexError(steps[0])
    return steps


def trailing(T, N, less=1):
    return [round(T - k * T / N) - less for k in range(N)]


def spaced(T, N, form=round):
    return [form(k * (T - 1) / (N - 1)) if N > 1 else T - 1 for k in range(N)][::-1]


def sections(T, spec, extra_first=True, form=round):
    if spec.startswith("ddim"):
        n = int(spec[4:])
        return next(list(range(0, T, i)) for i in range(1, T) if len(range(0, T, i)) == n)
    counts, out, start = [int(n) for n in spec.split(",")], [], 0
    for k, n in enumerate(counts):
        size = T // len(counts) + (k < T % len(counts) if extra_first else k >= len(counts) - T % len(counts))
        step = (size - 1) / (n - 1) if n > 1 else 1
        out += [start + form(step * j) for j in range(n)]
        start += size
    return out


def pairs(timesteps, T, last=-1):
    return [(int(t), int(s)) for t, s in zip(timesteps, [*timesteps[1:], last], strict=True)]


def kept(a, steps):
    return [1 - a[t] / (a[steps[k - 1]] if k else 1) for k, t in enumerate(steps)]


LADDERS = {
    "linear_betas": ramp, "scaled_linear_betas": root_ramp, "cosine_betas": cosine,
    "cosine_alpha_bar": lambda T: np.cumprod(1 - cosine(T)), "alpha_bar": lambda b: np.exp(np.cumsum(np.log1p(-b))),
    "zero_snr_betas": zero_end, "leading_timesteps": leading, "linspace_timesteps": spaced, "trailing_timesteps": trailing,
    "sampling_timesteps": spaced, "space_timesteps": sections, "respaced_betas": kept, "step_pairs": pairs,
    "network_time": lambda steps, i, T: [int(steps[k]) for k in i],
}  # fmt: skip
WRONG_LADDERS = [
    ("the end is left out", "linear_betas", lambda T: ramp(T, ends=lambda a, b, n: np.linspace(a, b, n, endpoint=False))),
    ("T+1 points, the first dropped", "linear_betas", lambda T: ramp(T, ends=lambda a, b, n: np.linspace(a, b, n + 1)[1:])),
    ("starts a tenth too high", "linear_betas", lambda T: ramp(T, low=0.11)),
    ("the square is forgotten", "scaled_linear_betas", lambda T: root_ramp(T, power=1)),
    ("linear in β", "scaled_linear_betas", lambda T: ramp(T, 0.85, 12.0)),
    ("DDPM's ends", "scaled_linear_betas", lambda T: root_ramp(T, 0.1, 20.0)),
    ("cosine without its square", "cosine_betas", lambda T: cosine(T, power=1)),
    ("no offset", "cosine_betas", lambda T: cosine(T, s=0)),
    ("cap 0.9999", "cosine_betas", lambda T: cosine(T, cap=0.9999)),
    ("cap 0.02", "cosine_betas", lambda T: cosine(T, cap=0.02)),
    ("the angle of two points between", "cosine_alpha_bar", lambda T: np.cumprod(1 - cosine(T, s=0.0079))),
    ("e to the minus sum of β", "alpha_bar", lambda b: np.exp(-np.cumsum(b))),
    ("begins with 1", "alpha_bar", lambda b: np.append(1.0, np.cumprod(1 - b)[:-1])),
    ("the product of roots", "alpha_bar", lambda b: np.cumprod(np.sqrt(1 - b))),
    ("backwards", "alpha_bar", lambda b: np.cumprod(1 - b[::-1])),
    ("not squared again", "zero_snr_betas", lambda b: zero_end(b, power=1)),
    ("only the last entry", "zero_snr_betas", lambda b: np.append(b[:-1], 1.0)),
    ("the stride rounded up", "leading_timesteps", functools.partial(leading, ratio=lambda T, N: -(-T // N))),
    ("cut off, not rounded", "linspace_timesteps", lambda T, N: spaced(T, N, int)),
    ("1..T", "linspace_timesteps", lambda T, N: [t + 1 for t in spaced(T, N)]),
    ("the same upwards", "linspace_timesteps", lambda T, N: spaced(T, N)[::-1]),
    ("quadratic", "linspace_timesteps", lambda T, N: [round(t * t / (T - 1)) for t in spaced(T, N)]),
    ("one too high", "trailing_timesteps", lambda T, N: trailing(T, N, 0)),
    ("the rest to the last section", "space_timesteps", lambda T, s: sections(T, s, extra_first=False)),
    ("sections cut off", "space_timesteps", lambda T, s: sections(T, s, form=int)),
    ("the mean of β between", "respaced_betas", lambda a, n: np.diff(np.append(0, -np.log(a[n])))),
    ("ends at 0", "step_pairs", lambda n, T: pairs(n, T, 0)),
    ("s before t", "step_pairs", lambda n, T: [(s, t) for t, s in pairs(n, T)]),
    ("counted from above", "network_time", lambda n, i, T: T - 1 - np.asarray(n)[i]),
]  # fmt: skip

# ------------------------------------------------------------------------------------------------ steps


def posterior(x_0, x_t, t, s, a, swap=False, root=lambda a_t, a_s: a_s**0.5):
    a_t, a_s = a[t], below(a, s)
    alpha = a_t / a_s
    c = (1 - alpha) * root(a_t, a_s) / (1 - a_t), (1 - a_s) * alpha**0.5 / (1 - a_t)
    return c[swap] * x_0 + c[1 - swap] * x_t


def small(a, t, s):
    return (1 - below(a, s)) / (1 - a[t]) * (1 - a[t] / below(a, s))


def log_small(a, t, s):
    return math.log(small(a, t, s) if s >= 0 else small(a, t + 1, t))


def ddpm(x, e, t, s, a, z, *, std=lambda a, t, s: small(a, t, s) ** 0.5, clip=lambda x: x, sign=1, outer=0.5):
    alpha = a[t] / below(a, s)
    x_0 = clip((x - sign * (1 - a[t]) ** 0.5 * e) / a[t] ** 0.5)
    mean = posterior(x_0, x, t, s, a) if outer == 0.5 else (x - (1 - alpha) / (1 - a[t]) ** 0.5 * e) / alpha**outer
    return mean + (s >= 0) * std(a, t, s) * z


def large_std(a, t, s):
    return (1 - a[t] / below(a, s)) ** 0.5


def learned(x, out, t, s, a, z, objective, order=1, halves=lambda out: np.split(out, 2, axis=1), range_=None):
    said, v = halves(out)[::order]
    root, noise = a[t] ** 0.5, (1 - a[t]) ** 0.5
    x_0 = {"eps": lambda: (x - noise * said) / root, "x_0": lambda: said, "v": lambda: root * x - noise * said}[objective]()
    log_variance = (range_ or between)(v, t, s, a)
    return posterior(x_0, x, t, s, a) + (np.exp(log_variance / 2) * z if s >= 0 else 0)


def between(v, t, s, a):
    low, high = log_small(a, t, s), math.log(1 - a[t] / below(a, s))
    return low + (v + 1) / 2 * (high - low)


def ddim(x, e, t, s, a, eta, z, *, clip=lambda x: x, keep=False, minus=1.0, root=0.5, after=lambda x: x, noisy=True):
    a_t, a_s = a[t], below(a, s)
    x_0 = clip((x - (1 - a_t) ** 0.5 * e) / a_t**0.5)
    e = e if keep else (x - a_t**0.5 * x_0) / (1 - a_t) ** 0.5
    sigma = eta * small(a, t, s) ** 0.5
    return after(a_s**root * x_0 + (1 - a_s - minus * sigma**2) ** 0.5 * e + (sigma * z if noisy else 0))


def ddim_v(x, v, t, s, a, sign=1):
    c, n = a[t] ** 0.5, (1 - a[t]) ** 0.5
    return below(a, s) ** 0.5 * (c * x - n * v) + (1 - below(a, s)) ** 0.5 * (n * x + sign * c * v)


def climb(x, e, s, t, a, back=0):
    a_s = below(a, s)
    return a[t - back] ** 0.5 * (x - (1 - a_s) ** 0.5 * e) / a_s**0.5 + (1 - a[t - back]) ** 0.5 * e


def walk(step, denoise, x, N, a, steps=spaced, told=lambda t, s: t):
    for k, (t, s) in enumerate(pairs(steps(len(a), N), len(a))):
        x = step(x, denoise(x, np.full(len(x), told(t, s))), t, s, k)
    return x


def ddim_walk(denoise, x, N, a, eta, z, shift=0, **more):
    return walk(lambda x, e, t, s, k: ddim(x, e, t, s, a, eta, z[k + shift]), denoise, x, N, a, **more)


def ddpm_walk(denoise, x, N, a, z, step=ddpm):
    return walk(lambda x, e, t, s, k: step(x, e, t, s, a, z[k]), denoise, x, N, a)


def inverted(denoise, x, N, a, told=lambda s, steps: max(s, steps[0])):
    steps = spaced(len(a), N)[::-1]
    for s, t in zip([-1, *steps[:-1]], steps, strict=True):
        x = climb(x, denoise(x, told(s, steps)), s, t, a)
    return x


def gauss(denoise, x, N, a, draw=lambda rng, shape: rng.standard_normal(shape), step=ddpm):
    rng = np.random.default_rng(8)
    return walk(lambda x, e, t, s, k: step(x, e, t, s, a, draw(rng, x.shape)), denoise, x, N, a)


class Walker:
    """A scheduler object."""

    def __init__(self, a, step, skip=0):
        self.a, self.move, self.skip = a, step, skip

    def timesteps(self, N):
        self.steps = spaced(len(self.a), N)
        return np.array(self.steps)

    def step(self, x, e, t, z):
        k = self.steps.index(t) + 1 + self.skip
        return self.move(x, e, t, self.steps[k] if k < len(self.steps) else -1, self.a, z)


still = lambda x, e, t, s, a, z: ddim(x, e, t, s, a, 0.0, z)
pixels = functools.partial(np.clip, a_min=-1, a_max=1)
every = lambda f: lambda a: [f(a, t, t - 1) for t in range(len(a))]
first = lambda a, t, s: small(a, t, s) if s < 0 else 1 - a[t] / a[s]
STEPS = {
    "posterior_variance": every(small), "posterior_log_variance": every(log_small), "posterior_mean": posterior,
    "fixed_large_variance": every(lambda a, t, s: 1 - a[t] / a[s] if t else small(a, 1, 0)),
    "learned_range_variance": lambda v, t, s, a: np.exp(between(v, t, s, a)), "ddpm_step": ddpm,
    "ddpm_step_large": functools.partial(ddpm, std=large_std), "ddpm_step_clipped": functools.partial(ddpm, clip=pixels),
    "ddpm_step_learned": learned, "ddim_step": ddim, "ddim_step_clipped": functools.partial(ddim, clip=pixels),
    "ddim_step_v": ddim_v, "ddim_invert_step": climb, "ddim_sample": ddim_walk, "ddpm_sample": ddpm_walk,
    "ddim_invert": inverted, "ddpm_gaussian": gauss, "ddim_scheduler": lambda a: Walker(a, still),
    "ddpm_scheduler": lambda a: Walker(a, ddpm),
}  # fmt: skip
one = lambda rng, shape: rng.standard_normal((1, *shape[1:])).repeat(shape[0], axis=0)
WRONG_STEPS = [
    ("levels exchanged", "posterior_variance", every(lambda a, t, s: (1 - a[t]) / max(1 - below(a, s), 1e-9) * (1 - a[t]))),
    ("its root", "posterior_variance", every(lambda a, t, s: small(a, t, s) ** 0.5)),
    ("of β", "posterior_log_variance", every(lambda a, t, s: math.log(1 - a[t] / below(a, s)))),
    ("base 10", "posterior_log_variance", every(lambda a, t, s: log_small(a, t, s) / math.log(10))),
    ("one step late", "fixed_large_variance", every(lambda a, t, s: 1 - a[max(t, 1)] / a[max(t, 1) - 1])),
    ("weights exchanged", "posterior_mean", functools.partial(posterior, swap=True)),
    ("√ᾱ_t in the first weight", "posterior_mean", functools.partial(posterior, root=lambda a_t, a_s: a_t**0.5)),
    ("linear in v, of the logs of the ends' roots", "learned_range_variance", lambda v, t, s, a: np.exp(between(v, t, s, a) / 2)),
    ("v through a sigmoid", "learned_range_variance", lambda v, t, s, a: np.exp(between(2 / (1 + np.exp(-v)) - 1, t, s, a))),
    ("one noise for all samples", "ddpm_step", lambda x, e, t, s, a, z: ddpm(x, e, t, s, a, z[:1])),
    ("the noise subtracted", "ddpm_step", lambda x, e, t, s, a, z: ddpm(x, e, t, s, a, -z)),
    ("a cube root", "ddpm_step", functools.partial(ddpm, outer=1 / 3)),
    ("half the noise", "ddpm_step_large", functools.partial(ddpm, std=lambda a, t, s: large_std(a, t, s) / 2)),
    ("clips to [0, 1]", "ddpm_step_clipped", functools.partial(ddpm, clip=lambda x: np.clip(x, 0, 1))),
    ("squashes by tanh", "ddpm_step_clipped", functools.partial(ddpm, clip=np.tanh)),
    ("less twice σ²", "ddim_step", functools.partial(ddim, minus=1.5)),
    ("no noise whatever η", "ddim_step", functools.partial(ddim, noisy=False)),
    ("the last step returns x_t", "ddim_step", lambda x, e, t, s, a, eta, z: ddim(x, e, t, s, a, eta, z) if s >= 0 else x),
    ("coefficients in float16", "ddim_step",
     lambda x, e, t, s, a, eta, z: ddim(x, e, t, s, a.astype(np.float16).astype(float), eta, z)),
    ("clips the answer", "ddim_step_clipped", functools.partial(ddim, after=pixels)),
    ("clips to ±0.9", "ddim_step_clipped", functools.partial(ddim, clip=lambda x: np.clip(x, -0.9, 0.9))),
    ("a minus in ε", "ddim_step_v", functools.partial(ddim_v, sign=-1)),
    ("one rung short", "ddim_invert_step", functools.partial(climb, back=1)),
    ("the noise of the next step", "ddim_sample", functools.partial(ddim_walk, shift=1)),
    ("the network told where it goes", "ddim_sample", functools.partial(ddim_walk, told=lambda t, s: max(s, 0))),
    ("one step more", "ddim_sample", functools.partial(ddim_walk, steps=lambda T, N: spaced(T, N + 1))),
    ("the last timestep left out", "ddim_sample", functools.partial(ddim_walk, steps=lambda T, N: spaced(T, N)[:-1])),
    ("told 0 at the data and T-1 elsewhere", "ddim_invert", functools.partial(inverted, told=lambda s, n: 0 if s < 0 else 999)),
    ("the same noise in every step", "ddpm_gaussian",
     functools.partial(gauss, draw=lambda rng, shape: np.random.default_rng(1).standard_normal(shape))),
    ("one noise for all samples of a batch", "ddpm_gaussian", functools.partial(gauss, draw=one)),
    ("noise a twentieth too small", "ddpm_gaussian", functools.partial(gauss, draw=lambda r, n: 0.95 * r.standard_normal(n))),
    ("skips a timestep", "ddim_scheduler", lambda a: Walker(a, still, skip=1)),
    ("a DDIM step", "ddpm_scheduler", lambda a: Walker(a, still)),
]  # fmt: skip
