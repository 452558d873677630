"""Topics: what training minimises, with which weights, at which t and on which noise.

A loss is the mean of a penalty, and both are parts, so that another penalty can be named.
The weights are spelled out: λT and β of a step are changed by mistakes (M03, M38, C05), and min-SNR stands here as papers print
it, min(SNR, γ) over what the answer is compared as, which is the form that M43 and M44 get wrong.
"""

from __future__ import annotations

import numpy as np

from minidit.backend import Array
from minidit.diffusion import ddpm
from minidit.diffusion import loss as law
from minidit.diffusion.schedule import Schedule
from minidit.random import Philox
from minidit.verify.core.draws import SIX, normality, odd_noise, odd_timesteps, timesteps_drawn
from minidit.verify.core.reference import Group, Probe, Reference, part
from minidit.verify.topics.conversions import level, v_of, x_0_of_eps
from minidit.verify.topics.ddpm import halves_of_channels
from minidit.verify.topics.likelihood import vb_term
from minidit.verify.topics.posterior import alpha_below, learned_range_variance, step_beta
from minidit.verify.topics.schedules import full

topic = Group("losses")


@part
def target_of(R: Reference, x_0: Array, eps: Array, a: Array, objective: str) -> Array:
    """What the network is compared with."""
    return v_of(R, x_0, eps, a) if objective == "v" else {"eps": eps, "x_0": x_0}[objective]


def _outputs() -> list[Probe]:
    rng, out, alpha_bar = Philox(61), [], Schedule.linear(1000).alpha_bar[1:]
    for objective in ("eps", "x_0", "v"):
        x_0, eps, answer = (rng.normal((3, 2, 2, 3), dtype=np.float64) for _ in range(3))
        args = (answer, x_0, eps, np.array([37, 500, 940]), alpha_bar, objective)
        out.append(Probe(objective, args, "what each objective is compared with"))
    return out


@topic("D.34", "out, x_0, eps (B,C,H,W), t (B,), alpha_bar (T,), objective: eps, x_0 or v", "scalar", _outputs)
def simple_loss(R: Reference, out: Array, x_0: Array, eps: Array, t: Array, alpha_bar: Array, objective: str) -> Array:
    """mean (target - out)², the target ε, x_0 or v = √ᾱ ε - √(1-ᾱ) x_0."""
    return np.asarray(averaged(R, penalty(R, target_of(R, x_0, eps, level(R, alpha_bar, t), objective) - out)))


penalty = part(lambda R, d: d * d)  # of every entry's difference
averaged = part(lambda R, penalties: penalties.mean())  # over samples and entries


def _hybrids() -> list[Probe]:
    rng, out = Philox(62), []
    for T in (400, 1000):
        alpha_bar = Schedule.linear(T).alpha_bar[1:]
        for t in (5, T // 2):
            x_0, eps = (0.5 * rng.normal((2, 2, 2, 3), dtype=np.float64) for _ in range(2))
            answer = rng.normal((2, 4, 2, 3), dtype=np.float64)
            out.append(Probe(f"T{T}-t{t}", (answer, x_0, eps, t, alpha_bar), "T = 1000 hides the factor T"))
    return out


bound_factor = part(lambda R, T: 1e-3 * T)  # λT: one term is 1/T of the bound on average


@part
def bound_of_output(R: Reference, eps_hat: Array, v: Array, x_0: Array, eps: Array, t: int, alpha_bar: Array) -> Array:
    """The bound's term (B,) of an output's two halves."""
    x_t = ddpm.q_sample(x_0, t + 1, eps, full(alpha_bar))
    log_variance = np.log(learned_range_variance(R, v, t, t - 1, alpha_bar))
    return vb_term(R, x_0, x_t, x_0_of_eps(R, x_t, eps_hat, float(alpha_bar[t])), log_variance, t, alpha_bar)


HYBRID = "out (B,2C,H,W): ε̂ and v, x_0, eps (B,C,H,W), t int ≥ 1, alpha_bar (T,)"


@topic("D.36", HYBRID, "(B,)", _hybrids, tol=200.0, exact=20.0, because="terms of the bound cancel")
def hybrid_loss(R: Reference, out: Array, x_0: Array, eps: Array, t: int, alpha_bar: Array) -> Array:
    """L_simple + λ T L_vb of each sample, learned range."""
    eps_hat, v = halves_of_channels(R, out)
    bound = bound_of_output(R, eps_hat, v, x_0, eps, t, alpha_bar)
    return law.per_sample(eps_hat, eps) + bound_factor(R, len(alpha_bar)) * bound


leak = part(lambda R: 0.0)  # how much of the bound's gradient reaches ε̂


@topic("D.36", HYBRID, "(B,2C,H,W): the gradient of Σ_b hybrid_loss by out", _hybrids, tol=200.0, exact=20.0,
       because="terms of the bound cancel; the reference is a central difference, good to 1e-9")  # fmt: skip
def hybrid_gradient(R: Reference, out: Array, x_0: Array, eps: Array, t: int, alpha_bar: Array) -> Array:
    """[2 (ε̂-ε)/n | λ T ∂L_vb/∂v]: ε̂ enters the bound as a constant."""
    eps_hat, v = halves_of_channels(R, out)
    factor = bound_factor(R, len(alpha_bar))

    def slopes(by_v: bool) -> Array:
        """∂(bound)/∂(entry): a copy of the batch for every entry that is moved, because samples do not mix."""
        n = v[0].size
        moves = 1e-5 * np.eye(n).reshape(n, 1, *v.shape[1:])

        def bounds(sign: float) -> Array:
            pair = (eps_hat, v + sign * moves) if by_v else (eps_hat + sign * moves, v)
            many = [np.broadcast_to(a, (n, *v.shape)).reshape(-1, *v.shape[1:]) for a in (*pair, x_0, eps)]
            return bound_of_output(R, many[0], many[1], many[2], many[3], t, alpha_bar).reshape(n, -1)

        return np.asarray((bounds(1.0) - bounds(-1.0)).T.reshape(v.shape) / 2e-5)

    share = leak(R)
    first = 2 * (eps_hat - eps) / eps_hat[0].size + (share * factor * slopes(False) if share else 0.0)
    return np.concatenate([first, factor * slopes(True)], axis=1)


def _one_step() -> list[Probe]:
    alpha_bar = Schedule.linear(1000).alpha_bar[1:]
    return [Probe(f"t{t}-s{s}", (t, s, alpha_bar, v), "skipped rungs") for t, s, v in ((500, 499, 0.01), (700, 650, 0.2))]


@topic("D.47", "t, s, alpha_bar (T,), variance", "float: the factor of ‖ε-ε̂‖² in L_{t-1}, nats", _one_step, tol=10.0, exact=1.0,
       because="β² of neighbours: a float32 table keeps five digits of 1 - ᾱ_t/ᾱ_s")  # fmt: skip
def bound_weight(R: Reference, t: int, s: int, alpha_bar: Array, variance: float) -> float:
    """β²/(2σ²α(1-ᾱ_t))."""
    beta = step_beta(R, alpha_bar, t, alpha_below(R, alpha_bar, t, s))
    return float(beta**2 / (2 * variance * (1 - beta) * (1 - alpha_bar[t])))


# ------------------------------------------------------------------------------------------------ weights of t


def _snrs() -> list[Probe]:
    return [
        Probe("hand", (np.array([0.99, 5 / 6, 0.5, 0.1]), 5.0), "SNR above, at and below γ"),
        Probe("zero-snr", (np.append(Schedule.linear(20 * 2).alpha_bar[1:], 0.0), 5.0), "SNR = 0 at the end"),
    ]


snr = part(lambda R, alpha_bar: alpha_bar / (1 - alpha_bar))  # ᾱ/(1-ᾱ)


@topic("D.35", "alpha_bar (T,), gamma", "(T,)", _snrs)
def min_snr_x_0(R: Reference, alpha_bar: Array, gamma: float) -> Array:
    """min(SNR, γ): the weight of the x_0 loss."""
    return np.minimum(snr(R, alpha_bar), gamma)


@topic("D.35", "alpha_bar (T,), gamma", "(T,)", _snrs)
def min_snr_eps(R: Reference, alpha_bar: Array, gamma: float) -> Array:
    """min(SNR, γ)/SNR, 1 where SNR = 0."""
    return np.minimum(1.0, gamma * (1 - alpha_bar) / np.maximum(alpha_bar, 1e-300))


@topic("D.35", "alpha_bar (T,), gamma", "(T,)", _snrs)
def min_snr_v(R: Reference, alpha_bar: Array, gamma: float) -> Array:
    """min(SNR, γ)/(SNR+1)."""
    return np.minimum(snr(R, alpha_bar), gamma) / (snr(R, alpha_bar) + 1)


def _histories() -> list[Probe]:
    rng = Philox(63)
    history = abs(rng.normal((20, 10), dtype=np.float64)) * np.linspace(2, 0.1, 20)[:, None]
    missing = history.copy()
    missing[3, -1] = np.nan
    return [Probe("full", (history,), "losses of unlike size"), Probe("one-missing", (missing,), "uniform until all are there")]


@topic("D.37", "history (T,K): the last losses of each t, NaN where none", "p (T,)", _histories)
def importance_probabilities(R: Reference, history: Array) -> Array:
    """p ∝ √(mean L²), times 0.999, + 0.001/T; uniform until all losses are there."""
    return law.importance(history)[1:]


def _draws() -> list[Probe]:
    p = np.linspace(1, 3, 20)
    return [Probe("T20", (p / p.sum(), np.array([0, 7, 19, 7])), "p that is not uniform")]


@topic("D.37", "p (T,), t (B,) drawn from it", "(B,): the weight of each loss", _draws)
def importance_weights(R: Reference, p: Array, t: Array) -> Array:
    """1/(T p_t), which keeps the mean loss what it was."""
    return law.importance_weight(np.append(0.0, p), t + 1)


def _weighted() -> list[Probe]:
    out, target = (Philox(66 + k).normal((3, 2, 4, 3), dtype=np.float64) for k in range(2))
    return [Probe("as-wide", (out, target, np.array([0.2, 1.0, 3.3])), "W = B: a weight per column goes unnoticed")]


@topic("D.35", "out, target (B,C,H,W), weights (B,)", "scalar", _weighted)
def weighted_loss(R: Reference, out: Array, target: Array, weights: Array) -> Array:
    """mean over b of w_b mean (target_b - out_b)²."""
    return np.asarray(averaged(R, weighted(R, penalty(R, target - out), batch_weight(R, weights))))


weighted = part(lambda R, squares, w: w.reshape(-1, *[1] * (squares.ndim - 1)) * squares)  # (B,1,1,1) times (B,C,H,W)
batch_weight = part(lambda R, w: w)  # (B,)

# ------------------------------------------------------------------------------------------------ draws


@topic("D.34", "B, T", "t (B,) ints: the timesteps a training batch draws",
       lambda: [Probe("B100000-T10", (100000, 10), "the ends of the range, and each between")], measure=timesteps_drawn,
       allowed=6.0, because=SIX, draws="anew", plain=odd_timesteps)  # fmt: skip
def draw_timesteps(R: Reference, B: int, T: int) -> Array:
    """Uniform in 0..T-1."""
    return (np.arange(B) + R.next_turn()) % T


@topic("R.3", "shape", "the noise of training and sampling",
       lambda: [Probe("200000", ((4, 2, 100, 250),), "mean, variance, kurtosis, tail; no two samples or pixels alike")],
       measure=normality, allowed=6.0, because=SIX, draws="anew", plain=odd_noise)  # fmt: skip
def noise(R: Reference, shape: tuple[int, ...]) -> Array:
    """N(0, 1), independent."""
    return Philox(64, state=R.next_turn()).normal(shape, dtype=np.float64)
