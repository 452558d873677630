"""Topics: whole samplers, run with a linear denoiser, so that every step is affine and what is wrong with it can be read off.

    mean' = g mean + h      var' = g² var + σ²     exact moments, for samplers that draw their own noise        (D.45)

A denoiser is called as denoise(x, t) with t an int or (B,), and answers ε̂ = slope[t] x + shift[t] pattern, entry by entry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

import numpy as np

from minidit.backend import Array, to_host
from minidit.diffusion.schedule import Schedule
from minidit.random import Philox
from minidit.verify.core.denoiser import Linear, perfect
from minidit.verify.core.draws import SIX, correlations
from minidit.verify.core.forms import array_of, owned
from minidit.verify.core.levels import reached
from minidit.verify.core.lists import in_words
from minidit.verify.core.reference import Group, Probe, Reference, part
from minidit.verify.topics.ddim import ddim_invert_step, ddim_step
from minidit.verify.topics.ddpm import ddpm_step, ddpm_step_large
from minidit.verify.topics.timesteps import network_time, sampling_timesteps, step_pairs

topic = Group("chains")
Denoise = Callable[[Array, Array], Array]  # (x, t) -> ε̂
StepOf = Callable[[Array, Array, int, int, int], Array]  # (x_t, ε̂, t, s, k) -> x_s, the k-th step


@part
def step_time(R: Reference, timesteps: Array, k: int, T: int) -> Array:
    """What the network is told at the k-th step down."""
    rising = np.asarray(timesteps)[::-1]
    return network_time(R, rising, np.array([len(rising) - 1 - k]), T)[0]


@part
def walk(R: Reference, step: StepOf, denoise: Denoise, x: Array, timesteps: Array, T: int) -> Array:
    """step(x, eps, t, s, k) along the list."""
    for k, (t, s) in enumerate(step_pairs(R, timesteps, T)):
        x = step(x, denoise(x, step_time(R, timesteps, k, T)), int(t), int(s), k)
    return x


def _runs(eta: bool) -> list[Probe]:
    rng, out = Philox(25), []
    for N, kind in ((4, "linear"), (6, "cosine"), (30, "linear")):
        alpha_bar = (Schedule.cosine if kind == "cosine" else Schedule.linear)(1000).alpha_bar[1:]
        x, pattern = (rng.normal((2, 2, 2, 3), dtype=np.float64) for _ in range(2))
        z = rng.normal((N + 1, 2, 2, 2, 3), dtype=np.float64)
        best = perfect(alpha_bar)
        denoise = Linear(best.slope, 0.5 * np.cos(np.arange(1000) / 40), pattern)
        more = (({4: 0.0, 6: 0.6, 30: 1.0}[N],) if eta else ()) + (z,)
        out.append(Probe(f"N{N}-{kind}", (denoise, x, N, alpha_bar, *more), "few and many steps, N that does not divide T"))
    return out


CALL = "denoise(x, t) -> eps, x_T (B,C,H,W), N steps, alpha_bar (T,)"


@topic("D.7", f"{CALL}, eta, z (N+1,B,C,H,W), the k-th for the k-th step", "x_0 (B,C,H,W)", lambda: _runs(True), tol=10.0,
       because="N steps")  # fmt: skip
def ddim_sample(R: Reference, denoise: Denoise, x: Array, N: int, alpha_bar: Array, eta: float, z: Array) -> Array:
    """DDIM steps along round(k (T-1)/(N-1)), from T-1 down to the data; the network is told t."""
    move: StepOf = lambda x, eps, t, s, k: ddim_step(R, x, eps, t, s, alpha_bar, eta, z[k])
    return walk(R, move, denoise, x, sampling_timesteps(R, len(alpha_bar), N), len(alpha_bar))


@topic("D.9", f"{CALL}, z (N+1,B,C,H,W), the k-th for the k-th step", "x_0 (B,C,H,W)", lambda: _runs(False), tol=10.0,
       because="N steps; 1 - β loses digits where ᾱ_t/ᾱ_s is near 0")  # fmt: skip
def ddpm_sample(R: Reference, denoise: Denoise, x: Array, N: int, alpha_bar: Array, z: Array) -> Array:
    """DDPM steps with the small variance along round(k (T-1)/(N-1)), from T-1 down to the data; the network is told t."""
    move: StepOf = lambda x, eps, t, s, k: ddpm_step(R, x, eps, t, s, alpha_bar, z[k])
    return walk(R, move, denoise, x, sampling_timesteps(R, len(alpha_bar), N), len(alpha_bar))


def _lists() -> list[Probe]:
    rng, alpha_bar, out = Philox(28), Schedule.linear(1000).alpha_bar[1:], []
    denoise = Linear(perfect(alpha_bar).slope, 0.5 * np.cos(np.arange(1000) / 40), rng.normal((2, 2, 2, 3), dtype=np.float64))
    for eta, timesteps in ((1.0, (801, 601, 401, 201, 1)), (0.5, (999, 749, 499, 249)), (0.0, (700, 150, 0))):
        x, z = rng.normal((2, 2, 2, 3), dtype=np.float64), rng.normal((len(timesteps), 2, 2, 2, 3), dtype=np.float64)
        args = (denoise, x, np.array(timesteps), alpha_bar, eta, z)
        out.append(Probe(f"to-{timesteps[-1]}-eta{eta}", args, "lists that end above 0, and at it; no noise in the last step"))
    return out


ALONG = "denoise(x, t) -> eps, x_t (B,C,H,W) at timesteps[0], timesteps (N,) top down, alpha_bar (T,)"


@topic("D.30", f"{ALONG}, eta, z (N,B,C,H,W), the k-th for the k-th step", "x_0 (B,C,H,W)", _lists, tol=10.0, because="N steps")
def ddim_along(R: Reference, denoise: Denoise, x: Array, timesteps: Array, alpha_bar: Array, eta: float, z: Array) -> Array:
    """DDIM steps with η from each of these timesteps to the next, and from the last one to the data: there without noise."""
    move: StepOf = lambda x, eps, t, s, k: ddim_step(R, x, eps, t, s, alpha_bar, eta, z[k])
    return walk(R, move, denoise, x, timesteps, len(alpha_bar))


@topic("D.30", f"{ALONG}, z (N,B,C,H,W), the k-th for the k-th step", "x_0 (B,C,H,W)",
       lambda: [Probe(p.name.rpartition("-")[0], (*p.args[:4], p.args[5]), p.reveals) for p in _lists()], tol=10.0,
       because="N steps")  # fmt: skip
def ddpm_along(R: Reference, denoise: Denoise, x: Array, timesteps: Array, alpha_bar: Array, z: Array) -> Array:
    """DDPM steps with the large variance from each of these timesteps to the next, and to the data: there without noise."""
    move: StepOf = lambda x, eps, t, s, k: ddpm_step_large(R, x, eps, t, s, alpha_bar, z[k])
    return walk(R, move, denoise, x, timesteps, len(alpha_bar))


# (s, t) from the data (-1) up, timesteps rising
climb_pairs = part(lambda R, timesteps: list(zip([-1, *timesteps[:-1]], timesteps, strict=True)))
# what the network is told on the way from s up to t: the level of x; at the data the lowest timestep
climbing_time = part(lambda R, s, t, timesteps: s if s >= 0 else timesteps[0])


@topic("D.23", "denoise(x, t) -> eps, x_0 (B,C,H,W), N steps, alpha_bar (T,)", "x_T (B,C,H,W)",
       lambda: [Probe(p.name, p.args[:4], p.reveals) for p in _runs(False)], tol=10.0, because="N steps")  # fmt: skip
def ddim_invert(R: Reference, denoise: Denoise, x: Array, N: int, alpha_bar: Array) -> Array:
    """Inversion steps from the data up the same timesteps; the network hears the level of x, the lowest timestep at the data."""
    timesteps = sampling_timesteps(R, len(alpha_bar), N)[::-1]
    for s, t in climb_pairs(R, timesteps):
        x = ddim_invert_step(R, x, denoise(x, climbing_time(R, int(s), int(t), timesteps)), int(s), int(t), alpha_bar)
    return x


class Scheduler(Protocol):
    """What a foreign scheduler must offer: timesteps(N), and step for the timesteps of that list."""

    def timesteps(self, N: int) -> Array:
        """(N,) ints, top down."""

    def step(self, x_t: Array, eps: Array, t: int, z: Array) -> Array:
        """From t to the next of the list."""


Move = Callable[[Array, Array, int, int, Array], Array]  # (x_t, ε̂, t, s, z) -> x_s


@dataclass(eq=False)
class ReferenceScheduler:
    """The reference's steps as such an object."""

    R: Reference
    alpha_bar: Array
    move: Move
    below: dict[int, int] = field(default_factory=dict)  # t -> s, for the t of the list

    def timesteps(self, N: int) -> Array:
        """(N,) ints, top down."""
        T = len(self.alpha_bar)
        pairs = step_pairs(self.R, sampling_timesteps(self.R, T, N), T)
        self.below = dict(np.asarray(pairs).tolist())
        return pairs[:, 0]

    def step(self, x_t: Array, eps: Array, t: int, z: Array) -> Array:
        """From t to the next of the list."""
        return self.move(x_t, eps, int(t), self.below[int(t)], z)


@cache
def normals(k: int) -> Array:
    """The k-th draw of `drive`, which asks thousands of schedulers."""
    return Philox(26, state=k).normal((1, 2, 2, 3), dtype=np.float64)


COUNTS = (4, 12, 30)


def listed(N: int) -> str:
    """The list of N timesteps among what `drive` notes."""
    return f"timesteps {N}"


def stepped(N: int, t: int) -> str:
    """The step from t down this list."""
    return f"N {N}, from {t}"


def drive(scheduler: Scheduler) -> dict[str, Array]:
    """The timesteps of a scheduler object and where each of its steps leads; what two schedulers are compared by."""
    out: dict[str, Array] = {}
    drawn = 0
    for N in COUNTS:
        out[listed(N)] = timesteps = array_of(scheduler.timesteps(N))
        for t in timesteps:
            x, eps, z = (normals(3 * drawn + k).copy() for k in range(3))
            out[stepped(N, int(t))] = owned(scheduler.step(x, eps, int(t), z))  # its buffer may serve the next step, too
            drawn += 1
    return out


def _odd_lists(mine: Mapping[int, Array], right: Mapping[int, Array]) -> list[str]:
    """What is odd about lists of timesteps. mine, right: N -> timesteps(N), in the order of the calls."""
    for N, timesteps in mine.items():
        if len(timesteps) != N:
            same = (M for M, others in mine.items() if M < N and others.tolist() == timesteps.tolist())
            return [f"timesteps({N}) gives {len(timesteps)} timesteps" + "".join(f", those of timesteps({M})" for M in same)]
    pairs = [(mine[N], right[N]) for N in mine if not np.array_equal(mine[N], right[N])]
    return [f"its list of timesteps: {words}" for words in in_words(pairs)] if pairs else []


def odd_steps(driven: Mapping[str, Any], args: Sequence[Any], right: Mapping[str, Any]) -> list[str]:
    """Where the steps of a scheduler lead, beside those of DDIM and DDPM, which lead to the next of the list. args: alpha_bar."""
    (alpha_bar,) = args
    mine, lists = ({N: np.asarray(of[listed(N)]) for N in COUNTS} for of in (driven, right))
    if words := _odd_lists(mine, lists):
        return words
    wrong: list[str] = []
    seen = drawn = 0
    for N, timesteps in mine.items():
        ends = [*(f"t = {t}" for t in timesteps[1:]), "the data"]
        for t, expected in zip(timesteps.tolist(), ends, strict=True):
            columns = np.stack([normals(3 * drawn + j).ravel() for j in range(3)], axis=1)
            goal = np.asarray(driven[stepped(N, t)], np.float64).ravel()
            drawn += 1
            if goal.size != len(columns) or not np.isfinite(goal).all():
                return []
            factors = np.linalg.lstsq(columns, goal, rcond=None)[0]
            if np.max(abs(columns @ factors - goal)) > 1e-6 * np.max(abs(goal)):
                return []  # clipped, or noise of its own
            if (there := reached(alpha_bar, t, float(factors[0]))) != expected:
                seen += 1
                wrong.append(f"N {N}: the step from t = {t} lands on the level of {there}, expected {expected}")
    return [*wrong[:2], f"so do {seen} of {drawn} steps"] if seen > 1 else wrong


def _ladders() -> list[Probe]:
    return [Probe("linear-1000", (Schedule.linear(1000).alpha_bar[1:],), "several N, some that do not divide T")]


OBJECT = "an object: timesteps(N) -> (N,) ints top down, step(x_t, eps, t, z) -> x_s for the t of that list"


@topic("D.30", "alpha_bar (T,)", f"{OBJECT}, DDIM with η = 0", _ladders, measure=drive,
       plain=odd_steps)  # fmt: skip
def ddim_scheduler(R: Reference, alpha_bar: Array) -> Scheduler:
    """Each step leads from t to the next of the list, the last one to the data: DDIM with η = 0."""
    return ReferenceScheduler(R, alpha_bar, lambda x, eps, t, s, z: ddim_step(R, x, eps, t, s, alpha_bar, 0.0, z))


@topic("D.30", "alpha_bar (T,)", f"{OBJECT}, DDPM with the small variance", _ladders, measure=drive,
       plain=odd_steps)  # fmt: skip
def ddpm_scheduler(R: Reference, alpha_bar: Array) -> Scheduler:
    """Each step leads from t to the next of the list, the last one to the data: DDPM with the small variance."""
    return ReferenceScheduler(R, alpha_bar, lambda x, eps, t, s, z: ddpm_step(R, x, eps, t, s, alpha_bar, z))


DRAWS = 400_000


@dataclass(frozen=True)
class Moments:
    """Mean and variance, known rather than measured."""

    mean: float
    var: float


def moments(answer: Moments | Array) -> dict[str, Array]:
    """Mean and variance, measured or known, in standard errors of DRAWS samples of variance ¼; correlations of neighbours."""

    def known(mean: float, var: float) -> dict[str, Array]:
        return {"mean": mean / (0.25 / DRAWS) ** 0.5, "variance": var / (0.25 * (2 / DRAWS) ** 0.5)}

    if isinstance(answer, Moments):
        return known(answer.mean, answer.var) | {f"correlation of {name}": 0.0 for name in ("samples", "rows", "columns")}
    x = np.asarray(to_host(answer), np.float64)
    return known(float(x.mean()), float(x.var())) | correlations(x)


def _gaussians() -> list[Probe]:
    out = []
    for N in (5, 20):
        alpha_bar = Schedule.linear(1000).alpha_bar[1:]
        x = Philox(27).normal((1, DRAWS), dtype=np.float64).reshape(4, 1, 100, 1000)
        out.append(Probe(f"N{N}", (perfect(alpha_bar), x, N, alpha_bar), "mean and variance of data N(0.3, 0.25)"))
    return out


@topic("D.45", "denoise(x, t) -> eps, x_T (B,C,H,W), N steps, alpha_bar (T,)", "x_0 (B,C,H,W), the noise your own", _gaussians,
       measure=moments, allowed=6.0, because=SIX)  # fmt: skip
def ddpm_gaussian(R: Reference, denoise: Denoise, x: Array, N: int, alpha_bar: Array) -> Array:
    """mean' = g mean + h, var' = g² var + σ² along the steps: an ancestral sampler with its own noise, on Gaussian data."""
    x, T = np.asarray(x), len(alpha_bar)
    mean, var, timesteps = float(x.mean()), float(x.var()), sampling_timesteps(R, T, N)
    zero, one = np.zeros((1, 1, 1, 1)), np.ones((1, 1, 1, 1))
    for k, (t, s) in enumerate(step_pairs(R, timesteps, T)):

        def to(x: Array, z: Array, t: int = int(t), s: int = int(s), k: int = k) -> float:
            return float(np.squeeze(ddpm_step(R, x, denoise(x, step_time(R, timesteps, k, T)), t, s, alpha_bar, z)))

        shift = to(zero, zero)
        slope, sigma = to(one, zero) - shift, to(zero, one) - shift
        mean, var = slope * mean + shift, slope**2 * var + sigma**2
    return Moments(mean, var)
