"""Topics: whole samplers, run with a linear denoiser, so that every step is affine and what is wrong with it can be read off.

    x_{k+1} = a_k x_k + b_k ε̂_k + σ_k z_k         least squares over the entries of one run                    (D.45)
    mean' = g mean + h      var' = g² var + σ²     exact moments, for samplers that draw their own noise        (D.45)

A denoiser is called as denoise(x, t) with t an int or (B,), and answers ε̂ = slope[t] x + shift[t] pattern, entry by entry.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from minidit.backend import to_host
from minidit.diffusion import gaussian
from minidit.diffusion.schedule import Schedule
from minidit.random import Philox
from minidit.verify.core.draws import SIX, strangers
from minidit.verify.core.reference import Probe, part, topic
from minidit.verify.topics import samplers  # noqa: F401  whose parts are used here, and come first


@dataclass(eq=False)
class Linear:
    """ε̂(x, t) = slope[t] x + shift[t] pattern. slope, shift (T,); pattern (B,C,H,W) or a float. Notes what it was asked.

    A t between two timesteps takes the line between their entries, so that a wrong unit of time has an answer too.
    """

    slope: Any
    shift: Any
    pattern: Any = 1.0
    seen: list[Any] = field(default_factory=list)  # (t, x, answer) of every call

    def __call__(self, x: Any, t: Any) -> Any:
        x, t = np.asarray(to_host(x)), np.asarray(to_host(t), np.float64)
        grid = np.arange(len(self.slope))
        a, b = (np.interp(t, grid, table).reshape(-1, *[1] * (x.ndim - 1)) for table in (self.slope, self.shift))
        answer = (a * x + b * self.pattern).astype(x.dtype)
        self.seen.append((float(t.reshape(-1)[0]), x.astype(np.float64), answer.astype(np.float64)))
        return answer

    def __str__(self) -> str:
        return "ε̂ = slope[t] x + shift[t] pattern, linear, so that every step is affine"

    def fresh(self) -> Linear:
        """The same with nothing noted."""
        return Linear(self.slope, self.shift, self.pattern)


def perfect(alpha_bar: Any, mean: float = 0.3, variance: float = 0.25) -> Linear:
    """The perfect denoiser of N(mean, variance) data, which is linear."""
    k = gaussian.gain(alpha_bar, variance)
    noise = (1 - alpha_bar) ** 0.5
    return Linear((1 - alpha_bar**0.5 * k) / noise, -(alpha_bar**0.5) * mean * (1 - k * alpha_bar**0.5) / noise)


# ------------------------------------------------------------------------------------------------ samplers


@part
def told(R: Any, timesteps: Any, k: int, T: int) -> Any:
    """What the network is told at the k-th step down."""
    rising = np.asarray(timesteps)[::-1]
    return R.network_time(rising, np.array([len(rising) - 1 - k]), T)[0]


@part
def walk(R: Any, step: Any, denoise: Any, x: Any, timesteps: Any, T: int) -> Any:
    """step(x, eps, t, s, k) along the list."""
    for k, (t, s) in enumerate(R.step_pairs(timesteps, T)):
        x = step(x, denoise(x, R.told(timesteps, k, T)), int(t), int(s), k)
    return x


def _runs(eta: bool) -> Any:
    def probes() -> list[Probe]:
        rng, out = Philox(25), []
        for N, kind in ((4, "linear"), (6, "cosine"), (30, "linear")):
            alpha_bar = (Schedule.cosine if kind == "cosine" else Schedule.linear)(1000).alpha_bar[1:]
            x, pattern = (rng.normal((2, 2, 2, 3), dtype=np.float64) for _ in range(2))
            z = rng.normal((N + 1, 2, 2, 2, 3), dtype=np.float64)
            best = perfect(alpha_bar)
            denoise = Linear(best.slope, 0.5 * np.cos(np.arange(1000) / 40), pattern)
            more = (({4: 0.0, 6: 0.6, 30: 1.0}[N],) if eta else ()) + (z,)
            out.append(
                Probe(f"N{N}-{kind}", (denoise, x, N, alpha_bar, *more), "few and many steps, N that does not divide T")
            )
        return out

    return probes


CALL = "denoise(x, t) -> eps, x_T (B,C,H,W), N steps, alpha_bar (T,)"


@topic(
    spec="D.7",
    takes=f"{CALL}, eta, z (N+1,B,C,H,W), the k-th for the k-th step",
    gives="x_0 (B,C,H,W)",
    probes=_runs(True),
    tol=10.0,
    because="N steps",
)
def ddim_sample(R: Any, denoise: Any, x: Any, N: int, alpha_bar: Any, eta: float, z: Any) -> Any:
    """DDIM steps along round(k (T-1)/(N-1)), from T-1 down to the data; the network is told t."""
    T = len(alpha_bar)
    return R.walk(
        lambda x, eps, t, s, k: R.ddim_step(x, eps, t, s, alpha_bar, eta, z[k]),
        denoise,
        x,
        R.sampling_timesteps(T, N),
        T,
    )


@topic(
    spec="D.9",
    takes=f"{CALL}, z (N+1,B,C,H,W), the k-th for the k-th step",
    gives="x_0 (B,C,H,W)",
    probes=_runs(False),
    tol=10.0,
    because="N steps; 1 - β loses digits where ᾱ_t/ᾱ_s is near 0",
)
def ddpm_sample(R: Any, denoise: Any, x: Any, N: int, alpha_bar: Any, z: Any) -> Any:
    """DDPM steps with the small variance along round(k (T-1)/(N-1)), from T-1 down to the data; the network is told t."""
    T = len(alpha_bar)
    return R.walk(
        lambda x, eps, t, s, k: R.ddpm_step(x, eps, t, s, alpha_bar, z[k]), denoise, x, R.sampling_timesteps(T, N), T
    )


@part
def climb_pairs(R: Any, timesteps: Any) -> Any:
    """(s, t) from the data (-1) up, timesteps rising."""
    return list(zip([-1, *timesteps[:-1]], timesteps, strict=True))


@part
def told_climbing(R: Any, s: int, t: int, timesteps: Any) -> Any:
    """What the network is told on the way from s up to t: the level of x; at the data the lowest timestep."""
    return s if s >= 0 else timesteps[0]


def _ascents() -> list[Probe]:
    return [Probe(p.name, p.args[:4], p.reveals) for p in _runs(False)()]


@topic(
    spec="D.23", takes="denoise(x, t) -> eps, x_0 (B,C,H,W), N steps, alpha_bar (T,)", gives="x_T (B,C,H,W)",
    probes=_ascents, tol=10.0, because="N steps",
)  # fmt: skip
def ddim_invert(R: Any, denoise: Any, x: Any, N: int, alpha_bar: Any) -> Any:
    """Inversion steps from the data up the same timesteps; the network hears the level of x, the lowest timestep at the data."""
    timesteps = R.sampling_timesteps(len(alpha_bar), N)[::-1]
    for s, t in R.climb_pairs(timesteps):
        x = R.ddim_invert_step(x, denoise(x, R.told_climbing(int(s), int(t), timesteps)), int(s), int(t), alpha_bar)
    return x


# ------------------------------------------------------------------------------------------------ objects


@dataclass(eq=False)
class Scheduler:
    """What a foreign scheduler must offer: timesteps(N), and step for the timesteps of that list."""

    R: Any
    alpha_bar: Any
    ancestral: bool
    list: Any = None

    def timesteps(self, N: int) -> Any:
        """(N,) ints, top down."""
        self.list = self.R.sampling_timesteps(len(self.alpha_bar), N)
        return self.R.step_pairs(self.list, len(self.alpha_bar))[:, 0]

    def step(self, x_t: Any, eps: Any, t: int, z: Any) -> Any:
        """From t to the next of the list."""
        pairs = dict(np.asarray(self.R.step_pairs(self.list, len(self.alpha_bar))).tolist())
        if self.ancestral:
            return self.R.ddpm_step(x_t, eps, int(t), pairs[int(t)], self.alpha_bar, z)
        return self.R.ddim_step(x_t, eps, int(t), pairs[int(t)], self.alpha_bar, 0.0, z)


@cache
def normals(k: int) -> Any:
    """The k-th draw of `drive`, which asks thousands of schedulers."""
    return Philox(26, state=k).normal((1, 2, 2, 3), dtype=np.float64)


def drive(scheduler: Any) -> Any:
    """The timesteps of a scheduler object and where each of its steps leads; what two schedulers are compared by."""
    out: dict[str, Any] = {}
    drawn = 0
    for N in (4, 12, 30):
        timesteps = np.asarray(to_host(scheduler.timesteps(N)))
        out[f"timesteps {N}"] = timesteps
        for t in timesteps:
            x, eps, z = (normals(3 * drawn + k).copy() for k in range(3))
            out[f"N {N}, from {int(t)}"] = scheduler.step(x, eps, int(t), z)
            drawn += 1
    return out


def _ladders() -> list[Probe]:
    return [Probe("linear-1000", (Schedule.linear(1000).alpha_bar[1:],), "several N, some that do not divide T")]


OBJECT = "an object: timesteps(N) -> (N,) ints top down, step(x_t, eps, t, z) -> x_s for the t of that list"


@topic(spec="D.30", takes="alpha_bar (T,)", gives=f"{OBJECT}, DDIM with η = 0", probes=_ladders, measure=drive)
def ddim_scheduler(R: Any, alpha_bar: Any) -> Any:
    """Each step leads from t to the next of the list, the last one to the data: DDIM with η = 0."""
    return Scheduler(R, alpha_bar, False)


@topic(
    spec="D.30", takes="alpha_bar (T,)", gives=f"{OBJECT}, DDPM with the small variance", probes=_ladders, measure=drive
)
def ddpm_scheduler(R: Any, alpha_bar: Any) -> Any:
    """Each step leads from t to the next of the list, the last one to the data: DDPM with the small variance."""
    return Scheduler(R, alpha_bar, True)


# ------------------------------------------------------------------------------------------------ own noise: moments


DRAWS = 400_000


@dataclass(frozen=True)
class Moments:
    """Mean and variance, known rather than measured."""

    mean: float
    var: float


def moments(answer: Any) -> Any:
    """Mean and variance of DRAWS samples in standard errors of data of variance ¼, or those known; no sample knows another."""

    def known(mean: float, var: float) -> dict[str, float]:
        return {"mean": mean / (0.25 / DRAWS) ** 0.5, "variance": var / (0.25 * (2 / DRAWS) ** 0.5)}

    if isinstance(answer, Moments):
        return known(answer.mean, answer.var) | {f"correlation of {name}": 0.0 for name in ("samples", "rows", "columns")}
    x = np.asarray(to_host(answer), np.float64)
    return known(float(x.mean()), float(x.var())) | strangers(x)


def _gaussians() -> list[Probe]:
    out = []
    for N in (5, 20):
        alpha_bar = Schedule.linear(1000).alpha_bar[1:]
        x = Philox(27).normal((1, DRAWS), dtype=np.float64).reshape(4, 1, 100, 1000)
        out.append(Probe(f"N{N}", (perfect(alpha_bar), x, N, alpha_bar), "mean and variance of data N(0.3, 0.25)"))
    return out


@topic(
    spec="D.45", takes="denoise(x, t) -> eps, x_T (B,C,H,W), N steps, alpha_bar (T,)", gives="x_0 (B,C,H,W), the noise your own",
    probes=_gaussians, measure=moments, allowed=6.0, because=SIX,
)  # fmt: skip
def ddpm_gaussian(R: Any, denoise: Any, x: Any, N: int, alpha_bar: Any) -> Any:
    """mean' = g mean + h, var' = g² var + σ² along the steps: an ancestral sampler with its own noise, on Gaussian data."""
    x, T = np.asarray(x), len(alpha_bar)
    mean, var, timesteps = float(x.mean()), float(x.var()), R.sampling_timesteps(T, N)
    zero, one = np.zeros((1, 1, 1, 1)), np.ones((1, 1, 1, 1))
    for k, (t, s) in enumerate(R.step_pairs(timesteps, T)):

        def to(x: Any, z: Any, t: int = int(t), s: int = int(s), k: int = k) -> float:
            return float(np.squeeze(R.ddpm_step(x, denoise(x, R.told(timesteps, k, T)), t, s, alpha_bar, z)))

        shift = to(zero, zero)
        slope, sigma = to(one, zero) - shift, to(zero, one) - shift
        mean, var = slope * mean + shift, slope**2 * var + sigma**2
    return Moments(mean, var)


# ------------------------------------------------------------------------------------------------ what is wrong with a step


def coefficients(seen: list[Any], last: Any, z: Any = None) -> list[tuple[float, Any, float]]:
    """From the notes of a Linear and the final x: (t, (a, b, σ), residual) of each step; σ is 0 where there was no z."""
    out = []
    states = [x for _, x, _ in seen] + [np.asarray(to_host(last), np.float64)]
    for k, (t, x, eps) in enumerate(seen):
        columns = [x.ravel(), eps.ravel()] + ([np.asarray(z[k], np.float64).ravel()] if z is not None else [])
        design, goal = np.stack(columns, axis=1), states[k + 1].ravel()
        found = np.linalg.lstsq(design, goal, rcond=None)[0]
        rest = float(np.max(abs(design @ found - goal)) / max(np.max(abs(goal)), 1e-30))
        out.append((t, np.append(found, 0.0)[:3], rest))
    return out


def first_wrong_step(mine: list[Any], right: list[Any], tolerance: float) -> str:
    """In words: which coefficient of which step is the first to differ; empty where none does."""
    if len(mine) != len(right):
        return f"{len(mine)} calls of the network, expected {len(right)}"
    for k, ((t, got, rest), (t_right, want, _)) in enumerate(zip(mine, right, strict=True)):
        if abs(t - t_right) > 1e-6:
            return f"step {k + 1}: the network is told {t:g}, expected {t_right:g}"
        if rest > max(tolerance, 1e-6):
            return f"step {k + 1} (t = {t:g}): not affine in x, ε̂ and z (residual {rest:.1e}): clipping, or noise of its own"
        for letter, a, b in zip(("x", "ε̂", "z"), got, want, strict=True):
            if abs(a - b) > max(tolerance, 1e-7) * max(1.0, float(np.max(abs(want)))):
                return f"step {k + 1} (t = {t:g}): coefficient of {letter} is {a:.9g}, expected {b:.9g}"
    return ""
