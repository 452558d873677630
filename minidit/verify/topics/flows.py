"""Topics: steps and samplers of continuous time, what a velocity network is trained on, and how straight its trajectories are.

A step is spelled out as x + (s-t) u, because mistakes change the span, the mean of the slopes and their weights apart. The tests
hold these to (P.4), (P.6), (P.20) and (P.22).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from minidit.backend import Array
from minidit.diffusion import flow, level, solver
from minidit.diffusion import step as law
from minidit.diffusion.level import Level
from minidit.verify.core.denoiser import Linear
from minidit.verify.core.reference import Group, Probe, Reference, part
from minidit.verify.topics.losses import penalty
from minidit.verify.topics.paths import clock, pictures, straight_time, straight_velocity
from minidit.verify.topics.times import shifted_points

topic = Group("flows")

# ------------------------------------------------------------------------------------------------ one step on the straight path


def _steps(seed: int, number: int, *times: tuple[float, ...]) -> list[Probe]:
    out = []
    for k, t in enumerate(times):
        arrays = pictures(seed + k, number, 2, 1, 3)
        out.append(Probe("-".join(map(str, t)), (*arrays, *t), "unequal steps, and the step into the data"))
    return out


span = part(lambda R, t, s: s - t)  # what a step multiplies the velocity with
STEP = "t, s: from t to the next time s"


@topic("P.4", f"x_t, u (B,C,N), {STEP}", "x_s (B,C,N)", lambda: _steps(131, 2, (0.75, 0.5), (0.9, 0.2), (0.1, 0.0)))
def flow_euler_step(R: Reference, x_t: Array, u: Array, t: float, s: float) -> Array:
    """x_t + (s-t) u."""
    return x_t + span(R, t, s) * u


slope = part(lambda R, u_t, u_s: solver.heun(u_t, u_s))  # of a step, from the slopes at both ends


@topic("P.6", f"x_t, u_t, u_s (B,C,N): the velocities at t and at the end of an Euler step to s, {STEP}", "x_s (B,C,N)",
       lambda: _steps(134, 3, (0.75, 0.5), (0.9, 0.2)))  # fmt: skip
def flow_heun_step(R: Reference, x_t: Array, u_t: Array, u_s: Array, t: float, s: float) -> Array:
    """x_t + (s-t) (u_t + u_s)/2."""
    return heun_start(R, x_t, u_t, t, s) + span(R, t, s) * slope(R, u_t, u_s)


heun_start = part(lambda R, x_t, u_t, t, s: x_t)  # where the corrected step begins


@topic("P.22", "x_t, u, u_before (B,C,N): the velocities at t and at the time before it; before, t, s",
       "x_s (B,C,N)", lambda: _steps(137, 3, (1.0, 0.75, 0.5), (1.0, 0.7, 0.1)))  # fmt: skip
def flow_ab2_step(R: Reference, x_t: Array, u: Array, u_before: Array, before: float, t: float, s: float) -> Array:
    """x_t + (s-t) ((1+r/2) u - (r/2) u_before), r = (s-t)/(t-before)."""
    return x_t + span(R, t, s) * solver.adams(u, u_before, ab2_weights(R, before, t, s))


# the weights of the velocities at t and before
ab2_weights = part(lambda R, before, t, s: solver.AB2.weights(*(Level(1 - at, at) for at in (before, t, s))))


@topic("P.7", "x_s, z (B,C,N), s, t > s: from the share of noise s up to t", "x_t (B,C,N)",
       lambda: _steps(141, 2, (0.5, 0.6), (0.7, 0.9)))  # fmt: skip
def straight_climb(R: Reference, x_s: Array, z: Array, s: float, t: float) -> Array:
    """(1-t)/(1-s) x_s + √(t² - ((1-t)/(1-s) s)²) z."""
    return climb(R, x_s, s, t, z)


climb = part(lambda R, x_s, s, t, z: level.climb(x_s, Level(1 - s, s), Level(1 - t, t), z))


@topic("P.4", "x_0_hat, eps_hat, z (B,C,N), alpha, sigma: the level of arrival; c ≤ sigma: the std of the fresh noise",
       "x_s (B,C,N)", lambda: _steps(144, 3, (0.6, 0.8, 0.5), (1.0, 2.0, 2.0), (1.0, 0.3, 0.0)))  # fmt: skip
def fresh_step(R: Reference, x_0_hat: Array, eps_hat: Array, z: Array, alpha: float, sigma: float, c: float) -> Array:
    """α x̂_0 + √(σ² - c²) ε̂ + c z."""
    return alpha * x_0_hat + remaining(R, sigma, c) * eps_hat + c * z


remaining = part(lambda R, sigma, c: law.remaining_std(Level(1.0, sigma), c))  # what the step keeps of the old noise

# ------------------------------------------------------------------------------------------------ steps of EDM


edm_slope = part(lambda R, x, D, sigma: (x - D) / sigma)  # dx/dσ


@topic("P.4", "x, D (B,C,N): a sample at sigma and its denoised guess, sigma, next", "x (B,C,N) at the noise level next",
       lambda: _steps(151, 2, (2.0, 0.7), (0.3, 0.0)))  # fmt: skip
def edm_euler_step(R: Reference, x: Array, D: Array, sigma: float, next: float) -> Array:
    """x + (σ' - σ) (x - D)/σ."""
    return x + span(R, sigma, next) * edm_slope(R, x, D, sigma)


@topic("P.6", "x, D, D_next (B,C,N): a sample at sigma, its denoised guess and that at the end of an Euler step, sigma, next",
       "x (B,C,N) at the noise level next; next may be 0", lambda: _steps(154, 3, (2.0, 0.7), (0.3, 0.0)))  # fmt: skip
def edm_heun_step(R: Reference, x: Array, D: Array, D_next: Array, sigma: float, next: float) -> Array:
    """x + (σ'-σ) (d + d')/2, d = (x-D)/σ, d' = (x_e-D')/σ' at Euler's end x_e; Euler's step into σ' = 0."""
    end = edm_euler_step(R, x, D, sigma, next)
    if into_data(R, next):
        return end
    return x + span(R, sigma, next) * slope(R, edm_slope(R, x, D, sigma), second_slope(R, end, x, D_next, sigma, next))


into_data = part(lambda R, sigma: sigma == 0)  # where no second slope can be asked for
second_slope = part(lambda R, end, x, D_next, sigma, next: edm_slope(R, end, D_next, next))


@topic("P.20", "sigma, churn, n steps, low, high", "float: the raised noise level", lambda: [
    Probe(name, args, "the cap, the interval, the number of steps")
    for name, args in {"raised": (2.0, 4.0, 20, 0.05, 50.0), "capped": (2.0, 40.0, 20, 0.05, 50.0),
                       "outside": (60.0, 4.0, 20, 0.05, 50.0), "below": (0.01, 4.0, 20, 0.05, 50.0)}.items()])  # fmt: skip
def churned_sigma(R: Reference, sigma: float, churn: float, n: int, low: float, high: float) -> float:
    """min(1 + S/n, √2) σ where low ≤ σ ≤ high, else σ."""
    return float(sigma * min(1 + churn_share(R, churn, n), churn_cap(R))) if in_interval(R, sigma, low, high) else sigma


churn_share = part(lambda R, churn, n: churn / n)  # of every step
churn_cap = part(lambda R: 2**0.5)  # of the factor on σ
in_interval = part(lambda R, sigma, low, high: low <= sigma <= high)


@topic("P.7", "x, z (B,C,N), sigma, raised: from sigma up to raised", "x (B,C,N)", lambda: _steps(157, 2, (2.0, 2.4)))
def edm_churn(R: Reference, x: Array, z: Array, sigma: float, raised: float) -> Array:
    """x + √(σ̂² - σ²) z."""
    return exploding_climb(R, x, sigma, raised, z)


exploding_climb = part(lambda R, x, s, t, z: level.climb(x, Level(1.0, s), Level(1.0, t), z))

# ------------------------------------------------------------------------------------------------ whole samplers

Net = Callable[[Array, Array], Array]  # (x, time) -> u
CALL = "net(x, time) -> u, time as the network hears it (1000 t); x_1 (B,C,N) noise; N steps"


def _field(*more: tuple[float, ...]) -> list[Probe]:
    at, out = np.arange(1001), []
    for k, m in enumerate(more):
        x, pattern = pictures(161 + k, 2, 2, 1, 3)
        net = Linear(0.6 * np.sin(at / 300) + 0.2, np.cos(at / 170), pattern)
        out.append(Probe("-".join(map(str, m)), (net, x, *m), "few steps; the first at the noise, the last into the data"))
    return out


@part
def walk_times(R: Reference, n: int, a: float) -> list[tuple[float, float]]:
    """(t, s) of every step, as the project counts: from the noise to the data."""
    t = clock(R, shifted_points(R, n, a))
    return [(float(a), float(b)) for a, b in pairwise(t)]


def time_input(R: Reference, t: float) -> Array:
    """What the network hears at t."""
    return straight_time(R, np.array(t))


call_time = part(lambda R, t, s: t)  # at which time the network is asked in a step from t to s
second_time = part(lambda R, t, s: s)  # and at the end of it


@topic("P.18", f"{CALL}; a: the grid's shift", "x_0 (B,C,N)", lambda: _field((4, 1.0), (5, 3.0)), tol=5.0, because="N steps")
def flow_euler(R: Reference, net: Net, x: Array, N: int, a: float) -> Array:
    """x ← x + (s-t) net(x, 1000 t) along the shifted times i/N, i = N..0."""
    for t, s in walk_times(R, N, a):
        x = flow_euler_step(R, x, net(x, time_input(R, call_time(R, t, s))), t, s)
    return x


@topic("P.6", CALL, "x_0 (B,C,N); the last step asks the network once", lambda: _field((4,), (3,)), tol=5.0, because="N steps")
def flow_heun(R: Reference, net: Net, x: Array, N: int) -> Array:
    """Heun's step along i/N, i = N..0, and Euler's into the data."""
    pairs = walk_times(R, N, 1.0)
    for k, (t, s) in enumerate(pairs):
        u = net(x, time_input(R, call_time(R, t, s)))
        end = flow_euler_step(R, x, u, t, s)
        last = k == len(pairs) - 1
        x = end if last else flow_heun_step(R, x, u, net(end, time_input(R, second_time(R, t, s))), t, s)
    return x


@topic("P.22", CALL, "x_0 (B,C,N)", lambda: _field((4,), (5,)), tol=5.0, because="N steps")
def flow_ab2(R: Reference, net: Net, x: Array, N: int) -> Array:
    """Euler's first step, then those of Adams and Bashforth, along i/N, i = N..0."""
    before: float | None = None
    past = x
    for t, s in walk_times(R, N, 1.0):
        u = net(x, time_input(R, call_time(R, t, s)))
        x = flow_euler_step(R, x, u, t, s) if before is None else flow_ab2_step(R, x, u, past, before, t, s)
        before, past = t, u
    return x


def _churned_walks() -> list[Probe]:
    at, out = np.arange(81.0), []
    for sigmas, churn in (((80.0, 9.0, 1.5, 0.3, 0.0), 1.2), ((20.0, 2.0, 0.0), 0.0)):
        x, pattern = pictures(175 + len(sigmas), 2, 2, 1, 3)
        (z,) = pictures(181 + len(sigmas), 1, len(sigmas) - 1, 2, 1, 3)
        net = Linear(1 / (1 + at), 0.5 * np.cos(at / 9), pattern)
        out.append(Probe(f"churn{churn}", (net, 20 * x, np.array(sigmas), churn, 0.5, 50.0, z),
                         "raised levels and such as stay; Euler's step into the data, without noise behind it"))  # fmt: skip
    return out


heard_level = part(lambda R, sigma, raised: raised)  # at which the network is asked after the churn
left_level = part(lambda R, sigma, raised: raised)  # from which the step leads


@topic("P.20", "net(x, sigma) -> D, x (B,C,N) at sigmas[0], sigmas (n+1,) falling to 0, churn, low, high, z (n,B,C,N)",
       "x_0 (B,C,N)", _churned_walks, tol=10.0, because="n steps")  # fmt: skip
def edm_sample(R: Reference, net: Net, x: Array, sigmas: Array, churn: float, low: float, high: float, z: Array) -> Array:
    """σ̂ = min(1 + S/n, √2) σ where low ≤ σ ≤ high, x ← x + √(σ̂²-σ²) z, then Heun's step from σ̂, and Euler's into the data."""
    for k, (sigma, after) in enumerate(pairwise(map(float, sigmas))):
        raised = churned_sigma(R, sigma, churn, len(sigmas) - 1, low, high)
        x = edm_churn(R, x, z[k], sigma, raised)
        D, start = net(x, np.array(heard_level(R, sigma, raised))), left_level(R, sigma, raised)
        end = edm_euler_step(R, x, D, start, after)
        x = end if into_data(R, after) else edm_heun_step(R, x, D, net(end, np.array(after)), start, after)
    return x


# ------------------------------------------------------------------------------------------------ training and its measures


@topic("F.2", "v, the network's answer, x_0, eps (B,C,N)", "(B,): the loss of each sample, without a weight of t",
       lambda: [Probe("drawn", tuple(pictures(171, 3)), "the target's sign; a mean over entries")])  # fmt: skip
def flow_loss(R: Reference, v: Array, x_0: Array, eps: Array) -> Array:
    """mean (v - (ε - x_0))²."""
    return reduced(R, penalty(R, v - straight_velocity(R, x_0, eps)))


@topic("P.8", "x_0_hat, x_0 (B,C,N), t (B,): a loss on x̂_0 that trains as the velocity's does", "(B,): the loss of each sample",
       lambda: [Probe("drawn", (*pictures(173, 2), np.array([0.1, 0.5, 0.9])), "the weight of a small time")])  # fmt: skip
def denoised_flow_loss(R: Reference, x_0_hat: Array, x_0: Array, t: Array) -> Array:
    """mean (x̂_0 - x_0)²/t²."""
    return denoised_weight(R, clock(R, t)) * reduced(R, penalty(R, x_0_hat - x_0))


denoised_weight = part(lambda R, t: 1 / t**2)  # |v - u|² = |x̂_0 - x_0|²/t², as x̂_0 = x_t - t v
reduced = part(lambda R, squares: squares.mean(axis=tuple(range(1, squares.ndim))))  # (B, ...) to (B,)


def _coupled() -> list[Probe]:
    x_0, z = pictures(172, 2, 4, 1, 2)
    args = x_0, np.array([7, 1, 5, 3]), z, np.array([2, 0, 3, 1]), np.array([1, 3, 0, 2])
    return [Probe("four", args, "x_0, label and noise change places together")]


@topic("F.5", "x_0 (B,C,N), y (B,) their labels, z (B,C,N) noise, i, j (B,): the plan pairs x_0[i] with z[j]",
       "(x_0, y, z) of the pairs, in the order of the plan", _coupled)  # fmt: skip
def coupled_batch(R: Reference, x_0: Array, y: Array, z: Array, i: Array, j: Array) -> tuple[Array, Array, Array]:
    """(x_0[i], y[i], z[j])."""
    pairs = flow.Pairs(x_0[i], z[j])
    return pairs.x_0, labels_of_plan(R, y, i, j), pairs.z


labels_of_plan = part(lambda R, y, i, j: y[i])


def _trajectories() -> list[Probe]:
    (x,) = pictures(173, 1, 4, 3, 2)
    return [Probe("unequal", (np.array([1.0, 0.7, 0.2, 0.0]), x), "unequal steps; two samples or more")]


@topic("F.3", "t (n+1,) falling from 1 to 0, x (n+1,B,C): the states of an Euler walk at these times",
       "float: S, a mean over samples and entries", _trajectories)  # fmt: skip
def straightness(R: Reference, t: Array, x: Array) -> float:
    """S = Σ h_k mean ((x_end - x_start) - (x_{k+1} - x_k)/h_k)², h_k the length of step k."""
    h = np.diff(t)
    bends = (x[-1] - x[0]) / (t[-1] - t[0]) - np.diff(x, axis=0) / h.reshape(-1, *[1] * (x.ndim - 1))
    return float((step_weights(R, h / h.sum()) * over_entries(R, bends**2)).sum())


step_weights = part(lambda R, lengths: lengths)  # of the steps in the integral over time
over_entries = part(lambda R, squares: squares.mean(axis=tuple(range(1, squares.ndim))))  # (n, B, C) to (n,)
