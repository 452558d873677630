"""Topics: one step down the ladder (or up), and its variance. Time as others count it: t in 0..T-1, s = -1 is the data."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidit.diffusion import step as law
from minidit.diffusion import threshold
from minidit.diffusion.schedule import Schedule
from minidit.diffusion.variance import large, log_small
from minidit.random import Philox
from minidit.verify.core.reference import Probe, part, topic
from minidit.verify.topics import conversions  # noqa: F401  whose parts are used here
from minidit.verify.topics.schedules import LADDERS, full

STEP = "t int 0..T-1, s int < t (-1: data), alpha_bar (T,)"
LOST = "1-ᾱ loses digits in float32 where ᾱ is near 1"


def hops(*hops: tuple[int, int]) -> list[tuple[str, Any, int, int]]:
    """(name, alpha_bar, t, s) on the linear ladder, the first one also on the cosine."""
    linear, cosine = (make(1000).alpha_bar[1:] for make in (LADDERS["linear"], LADDERS["cosine"]))
    first = [(f"cosine-t{hops[0][0]}-s{hops[0][1]}", cosine, *hops[0])]
    return [(f"t{t}-s{s}", linear, t, s) for t, s in hops] + first


HOPS = ((500, 457), (999, 979), (37, 20), (501, 500), (20, -1), (0, -1))


# ------------------------------------------------------------------------------------------------ what steps share


@part
def alpha_below(R: Any, alpha_bar: Any, t: int, s: int) -> float:
    """ᾱ at the rung a step arrives at; 1 at the data."""
    return float(alpha_bar[s]) if s >= 0 else 1.0


@part
def noise_mask(R: Any, s: int, t: int | None = None) -> float:
    """No fresh noise into the data, wherever the step into it comes from."""
    return float(s >= 0)


@part
def fresh(R: Any, s: int, t: int, std: Any, z: Any) -> Any:
    """The fresh noise of a step; where there is none, its standard deviation does not matter, even if it is no number."""
    mask = R.noise_mask(s, t)
    return mask * std * z if mask else np.zeros_like(z)


@part
def latent_range(R: Any, x_0: Any) -> Any:
    """What becomes of x̂_0 where no clipping was asked for: nothing."""
    return x_0


@part
def pixel_range(R: Any, x_0: Any) -> Any:
    """What becomes of x̂_0 where pixels were asked for."""
    return threshold.static(x_0)


@part
def eps_after(R: Any, x_t: Any, x_0: Any, eps: Any, a_t: float) -> Any:
    """The noise that goes with a limited x̂_0: derived anew, so that the pair still gives x_t."""
    return R.eps_of_x_0(x_t, x_0, a_t)


@part
def limited(R: Any, x_t: Any, x_0: Any, eps: Any, a_t: float, limit: Any) -> Any:
    """The pair with x̂_0 in its range."""
    inside = limit(x_0)
    return (inside, eps) if inside is x_0 else (inside, R.eps_after(x_t, inside, eps, a_t))


# ------------------------------------------------------------------------------------------------ posterior and variances


@part
def posterior_weights(R: Any, alpha_bar: Any, t: int, a_t: float, a_s: float) -> tuple[float, float]:
    """c_1 and c_2 of q(x_s | x_t, x_0)."""
    return law.posterior_coefficients(a_t, a_s)[:2]


@part
def small_variance(R: Any, alpha_bar: Any, t: int, s: int) -> float:
    """β̃; 0 into the data."""
    a_s = R.alpha_below(alpha_bar, t, s)
    return float((1 - a_s) / (1 - alpha_bar[t]) * R.step_beta(alpha_bar, t, a_s))


@part
def step_beta(R: Any, alpha_bar: Any, t: int, a_s: float) -> float:
    """β of the step."""
    return float(R.jump_beta(alpha_bar, t, a_s))


@part
def log_small_variance(R: Any, alpha_bar: Any, t: int, s: int) -> float:
    """ln β̃; into the data, where β̃ = 0, that of the step before."""
    return float(np.log(R.small_variance(alpha_bar, t, s)) if s >= 0 else R.log_at_data(alpha_bar, t))


@part
def log_at_data(R: Any, alpha_bar: Any, t: int) -> float:
    """ln β̃ of the step before the last one."""
    return float(log_small(t + 1, 0, full(alpha_bar)))


@part
def large_at_data(R: Any, alpha_bar: Any, t: int) -> float:
    """The large variance into the data: β̃ of the step before."""
    return float(large(t + 1, 0, full(alpha_bar)))


@part
def large_variance(R: Any, alpha_bar: Any, t: int, s: int) -> float:
    """β of the step, and into the data β̃ of the step before."""
    return float(R.step_beta(alpha_bar, t, R.alpha_below(alpha_bar, t, s)) if s >= 0 else R.large_at_data(alpha_bar, t))


def _tables() -> list[Probe]:
    return [
        Probe("four", (Schedule.from_betas([0.1, 0.2, 0.3, 0.4]).alpha_bar[1:],), "small enough to check by hand"),
        Probe("linear", (Schedule.linear(1000).alpha_bar[1:],), "entry 0"),
    ]


@topic(spec="D.18", takes="alpha_bar (T,)", gives="(T,): β̃ of each step t -> t-1, 0 at t = 0", probes=_tables)
def posterior_variance(R: Any, alpha_bar: Any) -> Any:
    """β̃_t = (1-ᾱ_{t-1})/(1-ᾱ_t) β_t, 0 at t = 0."""
    return np.array([R.small_variance(alpha_bar, t, t - 1) for t in range(len(alpha_bar))])


@topic(
    spec="D.21", takes="alpha_bar (T,)", gives="(T,): ln β̃, finite: entry 0 is that of t = 1",
    probes=_tables, tol=10.0, because=LOST,
)  # fmt: skip
def posterior_log_variance(R: Any, alpha_bar: Any) -> Any:
    """ln β̃_t, and ln β̃_1 at t = 0."""
    return np.array([R.log_small_variance(alpha_bar, t, t - 1) for t in range(len(alpha_bar))])


@topic(spec="D.19", takes="alpha_bar (T,)", gives="(T,): β, entry 0 is β̃ of t = 1", probes=_tables)
def fixed_large_variance(R: Any, alpha_bar: Any) -> Any:
    """β_t, and β̃_1 at t = 0."""
    return np.array([R.large_variance(alpha_bar, t, t - 1) for t in range(len(alpha_bar))])


def _posteriors() -> list[Probe]:
    rng, out = Philox(22), []
    for name, alpha_bar, t, s in hops(*HOPS):
        x_0, x_t = (rng.normal((2, 3, 2, 2), dtype=np.float64) for _ in range(2))
        out.append(Probe(name, (x_0, x_t, t, s, alpha_bar), "skipped rungs, neighbours, the last step"))
    return out


@topic(spec="D.8", takes=f"x_0, x_t (B,C,H,W), {STEP}", gives="mean (B,C,H,W)", probes=_posteriors)
def posterior_mean(R: Any, x_0: Any, x_t: Any, t: int, s: int, alpha_bar: Any) -> Any:
    """√ᾱ_s β/(1-ᾱ_t) x_0 + √α (1-ᾱ_s)/(1-ᾱ_t) x_t, α = ᾱ_t/ᾱ_s, β = 1-α."""
    c_1, c_2 = R.posterior_weights(alpha_bar, t, float(alpha_bar[t]), R.alpha_below(alpha_bar, t, s))
    return c_1 * x_0 + c_2 * x_t


def _heads() -> list[Probe]:
    rng = Philox(23)
    v = rng.normal((2, 3, 2, 2), dtype=np.float64)
    v[0, 0, 0] = -1, 1
    return [
        Probe(name, (v, t, s, alpha_bar), "v = -1, 1 and beyond; the last step")
        for name, alpha_bar, t, s in hops(*HOPS[:-1])
    ]


@part
def learned_fraction(R: Any, v: Any) -> Any:
    """f = (v+1)/2, from the small variance at v = -1 to the large at v = 1."""
    return (v + 1) / 2


@part
def between(R: Any, fraction: Any, log_low: float, log_high: float) -> Any:
    """The variance a fraction of the way, on the log scale."""
    return np.exp(fraction * log_high + (1 - fraction) * log_low)


@topic(spec="D.22", takes=f"v (B,C,H,W), {STEP}", gives="variance (B,C,H,W)", probes=_heads, tol=10.0, because=LOST)
def learned_range_variance(R: Any, v: Any, t: int, s: int, alpha_bar: Any) -> Any:
    """exp(f ln β + (1-f) ln β̃), f = (v+1)/2, β and β̃ of the step from t to s."""
    high = np.log(R.step_beta(alpha_bar, t, R.alpha_below(alpha_bar, t, s)))
    return R.between(R.learned_fraction(v), R.log_small_variance(alpha_bar, t, s), high)


# ------------------------------------------------------------------------------------------------ DDPM


@part
def learned_std(R: Any, v: Any, alpha_bar: Any, t: int, s: int) -> Any:
    """σ of the learned range."""
    return R.std_of_log(np.log(R.learned_range_variance(v, t, s, alpha_bar)))


@part
def std_of_log(R: Any, log_variance: Any) -> Any:
    """σ = exp(½ ln σ²)."""
    return np.exp(0.5 * log_variance)


@part
def large_std(R: Any, alpha_bar: Any, t: int, s: int) -> float:
    """σ of the large variance."""
    return float(R.std_of_log(np.log(R.large_variance(alpha_bar, t, s))))


@part
def ddpm_mean(R: Any, x_t: Any, eps: Any, alpha_bar: Any, t: int, s: int) -> Any:
    """(x_t - β/√(1-ᾱ_t) ε̂)/√α."""
    a_t, a_s = float(alpha_bar[t]), R.alpha_below(alpha_bar, t, s)
    alpha = a_t / a_s
    return (x_t - (1 - alpha) / (1 - a_t) ** 0.5 * eps) / alpha**0.5


@part
def mean_of_pair(R: Any, x_t: Any, x_0: Any, eps: Any, alpha_bar: Any, t: int, s: int, limit: Any) -> Any:
    """The same by way of x̂_0, which may be limited."""
    return R.posterior_mean(limit(x_0), x_t, t, s, alpha_bar)


def _noisy(variants: tuple[tuple[Any, ...], ...] = ((),), channels: int = 3) -> list[Probe]:
    rng, out = Philox(21), []
    for name, alpha_bar, t, s in hops(*HOPS):
        for more in variants:
            x, z = (rng.normal((2, 3, 2, 2), dtype=np.float64) for _ in range(2))
            eps = rng.normal((2, channels, 2, 2), dtype=np.float64)
            says = "-".join([name, *map(str, more)])
            out.append(
                Probe(says, (x, eps, t, s, alpha_bar, z, *more), "skipped rungs, neighbours, the last step, |x̂_0| > 1")
            )
    return out


DDPM: dict[str, Any] = {"takes": f"x_t, eps (B,C,H,W), {STEP}, z (B,C,H,W)", "gives": "x_s (B,C,H,W)"}


@topic(spec="D.9", probes=_noisy, **DDPM)
def ddpm_step(R: Any, x_t: Any, eps: Any, t: int, s: int, alpha_bar: Any, z: Any) -> Any:
    """(x_t - β/√(1-ᾱ_t) ε̂)/√α + [s ≥ 0] √β̃ z, α = ᾱ_t/ᾱ_s, β = 1-α, β̃ = β (1-ᾱ_s)/(1-ᾱ_t)."""
    std = R.std_of_log(R.log_small_variance(alpha_bar, t, s))
    return R.ddpm_mean(x_t, eps, alpha_bar, t, s) + R.fresh(s, t, std, z)


@topic(spec="D.17", probes=_noisy, **DDPM)
def ddpm_step_large(R: Any, x_t: Any, eps: Any, t: int, s: int, alpha_bar: Any, z: Any) -> Any:
    """(x_t - β/√(1-ᾱ_t) ε̂)/√α + [s ≥ 0] √β z, α = ᾱ_t/ᾱ_s, β = 1-α."""
    return R.ddpm_mean(x_t, eps, alpha_bar, t, s) + R.fresh(s, t, R.large_std(alpha_bar, t, s), z)


@topic(spec="D.31", probes=_noisy, **DDPM)
def ddpm_step_clipped(R: Any, x_t: Any, eps: Any, t: int, s: int, alpha_bar: Any, z: Any) -> Any:
    """Mean of q(x_s | x_t, x̂_0) with x̂_0 clipped to [-1, 1], + [s ≥ 0] √β̃ z: for pixels."""
    x_0 = R.x_0_of_eps(x_t, eps, float(alpha_bar[t]))
    std = R.std_of_log(R.log_small_variance(alpha_bar, t, s))
    return R.mean_of_pair(x_t, x_0, eps, alpha_bar, t, s, R.pixel_range) + R.fresh(s, t, std, z)


@part
def pair_of(R: Any, out: Any, x_t: Any, a_t: float, objective: str) -> Any:
    """(x̂_0, ε̂) from what the network was trained to say: eps, x_0 or v."""
    if objective == "eps":
        return R.x_0_of_eps(x_t, out, a_t), out
    return (out, R.eps_of_x_0(x_t, out, a_t)) if objective == "x_0" else R.pair_of_v(x_t, out, a_t)


@topic(
    spec="D.22", takes=f"x_t (B,C,H,W), out (B,2C,H,W), {STEP}, z, objective: eps, x_0 or v", gives="x_s (B,C,H,W)",
    probes=lambda: _noisy((("eps",), ("x_0",), ("v",)), channels=6), tol=10.0, because=LOST,
)  # fmt: skip
def ddpm_step_learned(R: Any, x_t: Any, out: Any, t: int, s: int, alpha_bar: Any, z: Any, objective: str) -> Any:
    """Mean of q(x_s | x_t, x̂_0) + [s ≥ 0] σ z, σ² = exp(f ln β + (1-f) ln β̃), f = (v+1)/2, v the second half of out."""
    out, v = np.split(out, 2, axis=1)
    x_0, eps = R.pair_of(out, x_t, float(alpha_bar[t]), objective)
    std = R.learned_std(v, alpha_bar, t, s)
    return R.mean_of_pair(x_t, x_0, eps, alpha_bar, t, s, R.latent_range) + R.fresh(s, t, std, z)


# ------------------------------------------------------------------------------------------------ DDIM


@part
def ddim_sigma(R: Any, a_t: float, a_s: float, eta: float) -> float:
    """The std of the fresh noise of a DDIM step."""
    return float(eta * law.posterior_coefficients(a_t, a_s)[2] ** 0.5)


@part
def ddim_from_pair(R: Any, x_0: Any, eps: Any, a_t: float, a_s: float, s: int, eta: float, z: Any) -> Any:
    """√ᾱ_s x̂_0 + √(1-ᾱ_s-σ²) ε̂ + σ z."""
    sigma = R.ddim_sigma(a_t, a_s, eta)
    return R.ddim_direction(x_0, eps, a_s, sigma) + R.noise_mask(s) * sigma * z


@part
def ddim_direction(R: Any, x_0: Any, eps: Any, a_s: float, sigma: float) -> Any:
    """The step without its noise."""
    return law.step(x_0, eps, a_s, c=sigma)


def _steps(*etas: float) -> Any:
    def probes() -> list[Probe]:
        plain = _noisy()
        return [
            Probe(f"{p.name}-eta{eta}", (*p.args[:5], eta, p.args[5]), p.reveals + ", several η")
            for k, p in enumerate(plain)
            for eta in (etas if k < 2 else (etas[k % len(etas)],))
        ]

    return probes


DDIM: dict[str, Any] = {"takes": f"x_t, eps (B,C,H,W), {STEP}, eta, z (B,C,H,W)", "gives": "x_s (B,C,H,W)"}


@topic(spec="D.7", probes=_steps(0.0, 1.0, 0.5), **DDIM)
def ddim_step(R: Any, x_t: Any, eps: Any, t: int, s: int, alpha_bar: Any, eta: float, z: Any) -> Any:
    """√ᾱ_s x̂_0 + √(1-ᾱ_s-σ²) ε̂ + σ z, x̂_0 = (x_t - √(1-ᾱ_t) ε̂)/√ᾱ_t, σ² = η² (1-ᾱ_s)/(1-ᾱ_t) (1-ᾱ_t/ᾱ_s)."""
    a_t, a_s = float(alpha_bar[t]), R.alpha_below(alpha_bar, t, s)
    x_0, eps = R.limited(x_t, R.x_0_of_eps(x_t, eps, a_t), eps, a_t, R.latent_range)
    return R.ddim_from_pair(x_0, eps, a_t, a_s, s, eta, z)


@topic(spec="D.33", probes=_steps(0.0, 0.7), **DDIM)
def ddim_step_clipped(R: Any, x_t: Any, eps: Any, t: int, s: int, alpha_bar: Any, eta: float, z: Any) -> Any:
    """The DDIM step of x̂_0 clipped to [-1, 1] and of ε̂ = (x_t - √ᾱ_t x̂_0)/√(1-ᾱ_t) derived anew: for pixels."""
    a_t, a_s = float(alpha_bar[t]), R.alpha_below(alpha_bar, t, s)
    x_0, eps = R.limited(x_t, R.x_0_of_eps(x_t, eps, a_t), eps, a_t, R.pixel_range)
    return R.ddim_from_pair(x_0, eps, a_t, a_s, s, eta, z)


def _velocities() -> list[Probe]:
    rng, base = Philox(24), Schedule.scaled_linear(1000).alpha_bar[1:]
    r = base**0.5
    zero = ((r - r[-1]) * r[0] / (r[0] - r[-1])) ** 2
    out = []
    for name, alpha_bar, t, s in (
        ("t500-s457", base, 500, 457),
        ("zero-snr-t999-s979", zero, 999, 979),
        ("t20-s-1", base, 20, -1),
    ):
        x, v = (rng.normal((2, 3, 2, 2), dtype=np.float64) for _ in range(2))
        out.append(Probe(name, (x, v, t, s, alpha_bar), "ᾱ_T = 0, where ε says nothing about x_0"))
    return out


@part
def zero_snr_pair(R: Any, x_t: Any, v: Any, a_t: float) -> Any:
    """(x̂_0, ε̂) where nothing of the picture may be left."""
    return R.pair_of_v(x_t, v, a_t)


@topic(
    spec="D.16",
    takes=f"x_t, v (B,C,H,W), {STEP}; alpha_bar[T-1] may be 0",
    gives="x_s (B,C,H,W), finite",
    probes=_velocities,
)
def ddim_step_v(R: Any, x_t: Any, v: Any, t: int, s: int, alpha_bar: Any) -> Any:
    """√ᾱ_s x̂_0 + √(1-ᾱ_s) ε̂, x̂_0 = √ᾱ_t x_t - √(1-ᾱ_t) v, ε̂ = √(1-ᾱ_t) x_t + √ᾱ_t v."""
    a_t, a_s = float(alpha_bar[t]), R.alpha_below(alpha_bar, t, s)
    x_0, eps = R.zero_snr_pair(x_t, v, a_t)
    x_0, eps = R.limited(x_t, x_0, eps, a_t, R.latent_range)
    return R.ddim_direction(x_0, eps, a_s, 0.0)


def _climbs() -> list[Probe]:
    return [
        Probe(f"s{p.args[3]}-t{p.args[2]}", (*p.args[:2], p.args[3], *p.args[2:3], p.args[4]), "up, also from the data")
        for p in _noisy()[:-2]
    ]


@part
def level_of_pair(R: Any, a_s: float, a_t: float) -> float:
    """ᾱ of the rung where x and ε̂ were found, when climbing from s to t."""
    return a_s


@topic(
    spec="D.23", takes="x_s, eps (B,C,H,W) found at s, s int (-1: data), t int > s, alpha_bar (T,)", gives="x_t (B,C,H,W)",
    probes=_climbs,
)  # fmt: skip
def ddim_invert_step(R: Any, x_s: Any, eps: Any, s: int, t: int, alpha_bar: Any) -> Any:
    """√ᾱ_t x̂_0 + √(1-ᾱ_t) ε̂, x̂_0 = (x_s - √(1-ᾱ_s) ε̂)/√ᾱ_s: one step up with the pair found at s."""
    a_s, a_t = float(alpha_bar[s]) if s >= 0 else 1.0, float(alpha_bar[t])
    x_0 = R.x_0_of_eps(x_s, eps, R.level_of_pair(a_s, a_t))
    return R.ddim_direction(x_0, eps, a_t, 0.0)
