"""Code written by others, in their own way: tables made in advance, float32, other roads to the same numbers."""

import math

import numpy as np
import pytest

import minidit as md


class Tables:
    """A diffusion in the style of precomputed tables, in one dtype throughout."""

    def __init__(self, alpha_bar, dtype=np.float64):
        a = np.asarray(alpha_bar, np.float64)
        before = np.append(1.0, a[:-1])
        beta = 1 - a / before
        var = beta * (1 - before) / (1 - a)
        self.dtype = dtype
        cast = lambda x: x.astype(dtype)
        self.root, self.noise = cast(np.sqrt(a)), cast(np.sqrt(1 - a))
        self.recip, self.recip_m1 = cast(np.sqrt(1 / a)), cast(np.sqrt(1 / a - 1))
        self.log_var = cast(np.log(np.append(var[1], var[1:])))
        self.var, self.large = cast(var), cast(np.append(var[1], beta[1:]))


STREAM = np.random.default_rng(3)  # one stream: a generator made anew in every call would draw the same numbers twice


def col(table, t, like):
    return table[t].reshape(-1, *[1] * (like.ndim - 1))


def answers(dtype):
    """topic -> an implementation in the given dtype."""

    def f(x):
        return np.asarray(x).astype(dtype)

    def q_sample(x_0, eps, t, alpha_bar):
        d = Tables(alpha_bar, dtype)
        return col(d.root, t, x_0) * f(x_0) + col(d.noise, t, x_0) * f(eps)

    def x_0_from_eps(x_t, eps, t, alpha_bar):
        d = Tables(alpha_bar, dtype)
        return col(d.recip, t, x_t) * f(x_t) - col(d.recip_m1, t, x_t) * f(eps)

    def eps_from_x_0(x_t, x_0, t, alpha_bar):
        d = Tables(alpha_bar, dtype)
        return (col(d.recip, t, x_t) * f(x_t) - f(x_0)) / col(d.recip_m1, t, x_t)

    def alpha_pair(alpha_bar, t, s):
        return float(alpha_bar[t]), float(alpha_bar[s]) if s >= 0 else 1.0

    def ddim_step(x_t, eps, t, s, alpha_bar, eta, z):
        a, p = alpha_pair(alpha_bar, t, s)
        x_0 = dtype(a**-0.5) * f(x_t) - dtype((1 / a - 1) ** 0.5) * f(eps)
        eps = (dtype(a**-0.5) * f(x_t) - x_0) / dtype((1 / a - 1) ** 0.5)
        sigma = eta * math.sqrt((1 - p) / (1 - a)) * math.sqrt(1 - a / p)
        return x_0 * dtype(p**0.5) + dtype(math.sqrt(max(1 - p - sigma**2, 0))) * eps + dtype(sigma) * f(z) * (s >= 0)

    def ddpm_step(x_t, eps, t, s, alpha_bar, z):
        a, p = alpha_pair(alpha_bar, t, s)
        x_0 = dtype(a**-0.5) * f(x_t) - dtype((1 / a - 1) ** 0.5) * f(eps)
        beta = 1 - a / p
        mean = dtype(beta * p**0.5 / (1 - a)) * x_0 + dtype((1 - p) * (1 - beta) ** 0.5 / (1 - a)) * f(x_t)
        return mean + (dtype(math.exp(0.5 * math.log(beta * (1 - p) / (1 - a)))) * f(z) if s >= 0 else 0)

    def v_from_pair(x_0, eps, t, alpha_bar):
        angle = np.arctan2(np.sqrt(1 - alpha_bar), np.sqrt(alpha_bar))
        return f(np.cos(angle))[t].reshape(-1, 1, 1, 1) * f(eps) - f(np.sin(angle))[t].reshape(-1, 1, 1, 1) * f(x_0)

    def discretised_nll(x, mean, log_variance):
        per_std = np.exp(-f(log_variance) / 2)
        phi = lambda z: f(0.5 * np.vectorize(math.erfc)(-z / math.sqrt(2)))
        up, low = phi(per_std * (f(x) - f(mean) + dtype(1 / 255))), phi(per_std * (f(x) - f(mean) - dtype(1 / 255)))
        up, low = np.where(x > 0.999, dtype(1), up), np.where(x < -0.999, dtype(0), low)
        return -np.log(np.maximum(up - low, dtype(1e-12)))

    def normal_kl(m_1, l_1, m_2, l_2):
        m_1, l_1, m_2, l_2 = map(f, (m_1, l_1, m_2, l_2))
        return dtype(0.5) * (-1 + l_2 - l_1 + np.exp(l_1 - l_2) + (m_1 - m_2) ** 2 * np.exp(-l_2))

    def ddim_sample(denoise, x, N, alpha_bar, eta, z):
        steps, x = np.round(np.linspace(0, len(alpha_bar) - 1, N))[::-1].astype(int), f(x)
        for k, t in enumerate(steps):
            s = int(steps[k + 1]) if k + 1 < N else -1
            x = ddim_step(x, denoise(x, np.full(len(x), t)), int(t), s, alpha_bar, eta, z[k])
        return x

    return {
        "linear_betas": lambda T: f(betas(T)), "alpha_bar": lambda b: np.cumprod(f(1 - b)),
        "q_sample": q_sample, "x_0_from_eps": x_0_from_eps, "eps_from_x_0": eps_from_x_0, "v_from_pair": v_from_pair,
        "ddim_step": ddim_step, "ddpm_step": ddpm_step, "normal_kl": normal_kl, "discretised_nll": discretised_nll,
        "ddim_sample": ddim_sample, "guide": lambda u, c, w: (1 - dtype(w)) * f(u) + dtype(w) * f(c),
        "posterior_variance": lambda ab: Tables(ab, dtype).var, "fixed_large_variance": lambda ab: Tables(ab, dtype).large,
        "posterior_log_variance": lambda ab: Tables(ab, dtype).log_var,
        "min_snr_v": lambda ab, g: f(np.minimum(ab, g * (1 - ab))),
        "noise": lambda shape: f(STREAM.normal(size=shape)),
        "draw_timesteps": lambda B, T: STREAM.integers(0, T, B),
        "ddpm_gaussian": gaussian(ddpm_step),
    }  # fmt: skip


def betas(T):
    if T <= 20:
        raise ValueError("too short")
    return np.linspace(0.1 / T, 20 / T, T)


def gaussian(step):
    def run(denoise, x, N, alpha_bar):
        rng, steps = np.random.default_rng(5), np.round(np.linspace(0, len(alpha_bar) - 1, N))[::-1].astype(int)
        for k, t in enumerate(steps):
            s = int(steps[k + 1]) if k + 1 < N else -1
            x = step(x, denoise(x, int(t)), int(t), s, alpha_bar, rng.normal(size=x.shape))
        return x

    return run


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_an_independent_implementation_passes_in_both_precisions(dtype):
    report = md.verify.check(answers(dtype))
    assert report.ok, str(report)
    assert {f.verdict for f in report.findings} == {"equal"}


def tutorial_step(x_t, eps, t, s, alpha_bar, z):
    """As a widely copied tutorial has it."""
    alpha = alpha_bar[t] / (alpha_bar[s] if s >= 0 else 1)
    small = (1 - alpha) * (1 - (alpha_bar[s] if s >= 0 else 1)) / (1 - alpha_bar[t])
    return (x_t - (1 - alpha) / (1 - alpha_bar[t]) * eps) / alpha + small**0.5 * z


def full_chain_step(x_t, eps, t, s, alpha_bar, eta, z):
    """The table of ᾱ_{t-1} made for the full ladder."""
    before = np.append(1.0, alpha_bar[:-1])
    a, p = alpha_bar[t], before[t]
    sigma = eta * ((1 - p) / (1 - a) * (1 - a / p)) ** 0.5
    return p**0.5 * (x_t - (1 - a) ** 0.5 * eps) / a**0.5 + np.sqrt(1 - p - sigma**2) * eps + sigma * z * (s >= 0)


def in_float32(x_t, eps, t, s, alpha_bar, eta, z):
    """The same computed in float32, the answers float64 again."""
    x_t, eps, z = (a.astype(np.float32) for a in (x_t, eps, z))
    return full_chain_step(x_t, eps, t, s, alpha_bar, eta, z).astype(np.float64)


def gamma_after_one(alpha_bar, gamma):
    snr = alpha_bar / (1 - alpha_bar)
    return np.minimum(snr + 1, gamma) / (snr + 1)


@pytest.mark.parametrize(
    "topic, function, name",
    [("ddpm_step", tutorial_step, "M30"), ("ddim_step", full_chain_step, "M02"), ("min_snr_v", gamma_after_one, "M43"),
     ("ddim_step", in_float32, "M02")],
)  # fmt: skip
def test_other_people_s_mistakes_get_their_names(topic, function, name):
    assert md.verify.check({topic: function}).mistakes == [name]


def test_statistics_name_nothing_that_exact_answers_contradict():
    mine = answers(np.float64)
    odd = lambda x, e, t, s, ab, z: mine["ddpm_step"](x, e, t, s, ab, z) * 1.02
    report = md.verify.check({"ddpm_step": odd, "ddpm_gaussian": gaussian(odd)})
    assert not report.ok and report.mistakes == []
