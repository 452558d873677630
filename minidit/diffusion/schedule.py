"""The ladder of noise levels: t = 0 is clean data, t = T is noise.

    ᾱ_t = (1-β_1)(1-β_2) ⋯ (1-β_t)        ᾱ_0 = 1                 the table              (D.2)
    β_t = (1000/T) · linspace(1e-4, 0.02)                          linear                 (D.12)
    β_t = (1000/T) · linspace(√8.5e-4, √0.012)²                    scaled linear          (D.13)
    β_t = min(1 - f(t/T)/f((t-1)/T), 0.999)                        cosine                 (D.14)
          f(u) = cos²(π/2 · (u+0.008)/1.008)
    ᾱ'_i = ᾱ_{S_i}    time'_i = time_{S_i}                         respaced to rungs S    (D.15)
    r_t = √ᾱ_t        r'_t = (r_t - r_T) r_1/(r_1 - r_T)           zero terminal SNR      (D.16)

The tables are float64 and read-only. `time[t]` is the network's time input at rung t: the original rung - 1, because
networks of the DDPM family count from 0; respacing carries it along, so a network never sees a respaced index.

A ladder is a path: its times are rungs, its levels α = √ᾱ_t and σ = √(1-ᾱ_t), two cached tables.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from minidit.backend import Array, home_of, read_only, resident, xp_of
from minidit.diffusion import rungs
from minidit.diffusion.level import Level, at, data_of
from minidit.shown import levels


def check_rungs(t: Array, s: Array, T: int, *, batch: Array = None) -> None:
    """Raises ValueError unless 0 ≤ s < t ≤ T, and unless an array t has one rung per sample of `batch`.

    Rungs on a GPU are not checked, because the host would have to wait for it.
    """
    for r in (t, s):
        if home_of(r) != "" and not hasattr(r, "shape"):
            raise ValueError(f"a rung is an int or an array of ints, one per sample; got {r!r}")
    on_host = home_of(t) in ("", "numpy") and home_of(s) in ("", "numpy")
    if on_host and not np.all((np.asarray(s) >= 0) & (np.asarray(s) < t) & (np.asarray(t) <= T)):
        raise ValueError(f"rungs must satisfy 0 ≤ s < t ≤ T = {T}; got t = {t}, s = {s}")
    if batch is not None and home_of(t) != "" and t.shape not in ((), data_of(batch).shape[:1]):
        raise ValueError(f"one rung for each sample: t has shape {t.shape}, the batch {data_of(batch).shape}")


@dataclass(frozen=True, eq=False)
class Schedule:
    """alpha_bar : (T+1,) float64, ᾱ_0 = 1, falling;  time : (T+1,) int64, the network's time input (time[0] is never used)."""

    alpha_bar: Array
    time: Array

    def __post_init__(self) -> None:
        if self.alpha_bar.ndim != 1 or self.alpha_bar.shape != self.time.shape:
            raise ValueError(f"ᾱ and time must be (T+1,) each; got {self.alpha_bar.shape} and {self.time.shape}")
        for name in ("alpha_bar", "time"):  # copies: the caller's arrays stay as they are
            object.__setattr__(self, name, read_only(getattr(self, name).copy()))

    at = staticmethod(at)

    def __repr__(self) -> str:
        return f"Schedule(T={self.T}, ᾱ_1 = {self.alpha_bar[1]:.4g}, ᾱ_T = {self.alpha_bar[-1]:.3g})"

    def _repr_html_(self) -> str:
        return levels(self, range(1, self.T + 1), *(table[1:] for table in self.levels))

    @cached_property
    def levels(self) -> Level:
        """The two tables α = √ᾱ and σ = √(1-ᾱ) : (T+1,) float64 each."""
        return Level(read_only(self.alpha_bar**0.5), read_only((1 - self.alpha_bar) ** 0.5))

    def level(self, t: Array) -> Level:
        """t : int rung, or (B,) one rung per sample  ->  (√ᾱ_t, √(1-ᾱ_t))."""
        return Level(*(at(table, t) for table in self.levels))  # (P.1)

    def inputs(self, x_t: Array, t: Array) -> tuple[Array, Array]:
        """x_t : (B, ...) and the rungs t, an int or (B,)  ->  x_t as it is, and time[t] : (B,)."""
        if home_of(t) == "":
            return x_t, xp_of(x_t).full(len(x_t), int(self.time[t]))
        return x_t, resident(self.time, t)[t]

    def origin(self, x: Array, time: Array) -> tuple[Array, Array]:
        """The inverse of `inputs`: x and the rung of a network's time input."""
        return x, self.rung(time)

    def start(self, z: Array) -> Array:
        """The sample at t = T: noise."""
        return z

    def part(self, u: float) -> int:
        """The rung at the part u of the ladder, 0 to 1."""
        return round(u * self.T)

    def grid(self, steps: int) -> list[tuple[int, int]]:
        """The usual grid of this many rungs, the noisiest included."""
        return rungs.pairs(rungs.trailing(self.T, steps))

    @property
    def T(self) -> int:
        """The number of rungs above the data."""
        return len(self.alpha_bar) - 1

    @property
    def beta(self) -> Array:
        """β_t = 1 - ᾱ_t/ᾱ_{t-1} : (T+1,) float64, β_0 = 0."""
        return np.append(0.0, 1 - self.alpha_bar[1:] / self.alpha_bar[:-1])  # (D.2)

    @classmethod
    def from_alpha_bar(cls, alpha_bar: Array) -> Schedule:
        """alpha_bar : (T+1,), falling from ᾱ_0 = 1 to ᾱ_T ≥ 0. Raises ValueError otherwise."""
        alpha_bar = np.asarray(alpha_bar, np.float64)
        ends = alpha_bar.ndim == 1 and alpha_bar.size > 1 and alpha_bar[0] == 1 and alpha_bar[-1] >= 0
        if not ends or not np.all(np.diff(alpha_bar) < 0):
            raise ValueError(f"ᾱ must fall from ᾱ_0 = 1 to ᾱ_T ≥ 0; got {alpha_bar[:3]} … {alpha_bar[-1:]}")
        return cls(alpha_bar, np.arange(alpha_bar.size) - 1)

    @classmethod
    def from_betas(cls, beta: Array) -> Schedule:
        """beta : (T,), every β in (0, 1); the last one may be 1 (ᾱ_T = 0). Raises ValueError otherwise."""
        beta = np.asarray(beta, np.float64)
        if beta.ndim != 1 or beta.size == 0:
            raise ValueError(f"betas must be a vector; got shape {beta.shape}")
        good = (beta > 0) & (beta < 1)
        good[-1] |= beta[-1] == 1
        if not good.all():
            first = int(np.argmin(good))
            raise ValueError(f"betas must lie in (0, 1), only the last may be 1; got β_{first + 1} = {beta[first]}")
        return cls(np.append(1.0, np.cumprod(1 - beta)), np.arange(beta.size + 1) - 1)  # (D.2)

    @classmethod
    def linear(cls, T: int = 1000, start: float = 1e-4, end: float = 0.02) -> Schedule:
        """DDPM's β for T = 1000; both ends grow by 1000/T for another T. Raises ValueError where β would reach 1 (T ≤ 20)."""
        return cls.from_betas(np.linspace(*_ends(T, start, end), T))  # (D.12)

    @classmethod
    def scaled_linear(cls, T: int = 1000, start: float = 8.5e-4, end: float = 0.012) -> Schedule:
        """Latent diffusion's β, linear in √β; scaled and checked like `linear` (here β would reach 1 for T ≤ 12)."""
        a, b = _ends(T, start, end)
        return cls.from_betas(np.linspace(math.sqrt(a), math.sqrt(b), T) ** 2)  # (D.13)

    @classmethod
    def cosine(cls, T: int = 1000, offset: float = 0.008, cap: float = 0.999) -> Schedule:
        """Nichol & Dhariwal 2021; GLIDE's and diffusers' "squaredcos_cap_v2". The cap keeps ᾱ_T above 0."""
        f = np.cos((np.arange(T + 1) / T + offset) / (1 + offset) * np.pi / 2) ** 2
        return cls.from_betas(np.minimum(1 - f[1:] / f[:-1], cap))  # (D.14)

    def respace(self, rungs: Iterable[int]) -> Schedule:
        """The ladder that keeps only these rungs (1..T, any order). Respacing composes; all rungs give the same ladder."""
        kept = sorted({int(r) for r in rungs})
        if not kept or kept[0] < 1 or kept[-1] > self.T:
            raise ValueError(f"rungs to keep must lie in 1..{self.T}; got {kept[:1]} to {kept[-1:]}")
        return Schedule(self.alpha_bar[[0, *kept]], self.time[[0, *kept]])  # (D.15)

    def rung(self, time: Array) -> Array:
        """The rung of a network's time input: the inverse of the table `time`, for ints and arrays of any home."""
        if home_of(time) == "":
            return int(np.searchsorted(self.time[1:], time)) + 1
        return xp_of(time).searchsorted(xp_of(time).asarray(self.time[1:]), time) + 1


def zero_terminal_snr(sch: Schedule) -> Schedule:
    """The same ladder with √ᾱ shifted and stretched so that ᾱ_1 stays and ᾱ_T = 0. Raises ValueError if T = 1.

    At t = T no trace of the picture is left (Lin, Liu, Li, Yang 2024): such a ladder needs a network that predicts v or x_0, and
    a sampler that starts at T.
    """
    if sch.T == 1:
        raise ValueError("a ladder of one rung cannot keep ᾱ_1 and reach ᾱ_T = 0")
    r = sch.alpha_bar[1:] ** 0.5
    r = (r - r[-1]) * r[0] / (r[0] - r[-1])
    return Schedule(np.append(1.0, r**2), sch.time)  # (D.16)


def _ends(T: int, start: float, end: float) -> tuple[float, float]:
    """Both ends of a schedule designed for 1000 rungs, scaled to a ladder of T rungs."""
    if end * 1000 / T >= 1:
        raise ValueError(f"T = {T} is too short: β_T = {end} · 1000/T = {end * 1000 / T:.3g} must stay below 1 (use cosine)")
    return start * 1000 / T, end * 1000 / T
