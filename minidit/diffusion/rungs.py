"""The rungs that a short sampler visits, out of T, counted 1..T (other projects' 0-based timestep is our t - 1).

    {k ⌊T/N⌋ + offset + 1 : k < N}                               leading                       (D.24)
    {round(k (T-1)/(N-1)) + 1 : k < N}                           linspace: 1 and T included    (D.25)
    {round(T - k T/N) : k < N}                                   trailing: T included          (D.26)
    {⌊(k √(0.8 T)/(N-1))²⌋ + 1 : k < N}                          quadratic: dense near data    (D.27)
    "a,b,c": a, b and c rungs, evenly, from three sections       sections                      (D.28)
    "ddimN": {k i + 1}, i the least stride that gives N rungs    stride                        (D.29)
    nearest to N levels σ/α of Karras's grid                     karras: dense near noise      (P.28)
    rungs r_1 < … < r_N  ->  (r_N, r_{N-1}), …, (r_1, 0)         pairs: the grid of a sampler  (D.30)

Rounding is to even, as in NumPy and Python. The step below a rung is the next entry of the list, never a fixed stride.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

import numpy as np

from minidit.backend import Array
from minidit.diffusion import times


class Ladder(Protocol):
    """The two tables of a ladder (schedule.py) : (T+1,) each. alpha_bar falls from 1; time is what a network is told."""

    @property
    def T(self) -> int: ...

    @property
    def alpha_bar(self) -> Array: ...

    @property
    def time(self) -> Array: ...


Spacing = Callable[[Ladder, int], list[int]]  # a ladder and N  ->  at most N rungs


def _checked(T: int, N: int) -> None:
    if hasattr(T, "alpha_bar"):
        raise TypeError("this spacing is a law of T and N, not of a ladder: pass rungs.by_length(rungs.trailing) or its like")
    if not 1 <= N <= T:
        raise ValueError(f"the number of steps must lie in 1..T = {T}; got {N}")


def leading(T: int, N: int, offset: int = 0) -> list[int]:
    """Starts at the bottom and misses the top: the first step begins below T though the noise is that of T."""
    _checked(T, N)
    rungs = [k * (T // N) + offset + 1 for k in range(N)]  # (D.24)
    if not 1 <= rungs[0] <= rungs[-1] <= T:
        raise ValueError(f"leading spacing with offset {offset} leaves the ladder: rungs {rungs[0]} to {rungs[-1]}, T = {T}")
    return rungs


def linspace(T: int, N: int) -> list[int]:
    """Both ends included; N = 1 gives the lowest rung."""
    _checked(T, N)
    return [int(r) + 1 for r in np.round(np.linspace(0, T - 1, N))]  # (D.25)


def trailing(T: int, N: int) -> list[int]:
    """The top included: the right one for few steps, and the only one for zero terminal SNR."""
    _checked(T, N)
    return sorted(round(T - k * T / N) for k in range(N))  # (D.26)


def quadratic(T: int, N: int, reach: float = 0.8) -> list[int]:
    """DDIM's quadratic sub-sequence over the lower `reach` of the ladder. Equal rungs are merged: fewer than N may come back."""
    _checked(T, N)
    return sorted({int(r) + 1 for r in np.linspace(0, (reach * T) ** 0.5, N) ** 2})  # (D.27)


def sections(T: int, counts: Iterable[int]) -> list[int]:
    """[10, 15, 20]: cut the ladder into three sections (the first ones longer by 1) and take that many rungs from each.

    The ends of a section are included; a count of 1 takes its lowest rung. Raises ValueError if a section is too short.
    """
    counts = list(counts)
    rungs, start = [], 0
    for i, n in enumerate(counts):
        size = T // len(counts) + (i < T % len(counts))
        if not 1 <= n <= size:
            raise ValueError(f"cannot take {n} rungs from a section of {size}")
        stride, place = (size - 1) / max(1, n - 1), 0.0
        for _ in range(n):  # the sum runs in floating point, as in the reference: k · stride may round differently
            rungs.append(start + round(place) + 1)  # (D.28)
            place += stride
        start += size
    return rungs


def stride(T: int, N: int) -> list[int]:
    """OpenAI's "ddimN": 1, 1+i, 1+2i, … with the least integer stride i that gives N rungs. Raises ValueError if none does."""
    for i in range(1, T + 1):
        if len(range(0, T, i)) == N:
            return [r + 1 for r in range(0, T, i)]  # (D.29)
    raise ValueError(f"no integer stride takes exactly {N} of {T} rungs")


def from_text(spec: str, T: int) -> list[int]:
    """OpenAI's notation: "250", "10,15,20" or "ddim50". Raises ValueError for counts that do not fit, and for other texts."""
    if spec.startswith("ddim"):
        return stride(T, int(spec.removeprefix("ddim")))
    return sections(T, [int(n) for n in spec.split(",")])


def karras(sch: Ladder, N: int, low: float = 0.1, high: float = 80.0, rho: float = 7.0) -> list[int]:
    """The rungs whose σ/α are nearest, as ratios, to EDM's grid from `high` to `low`. Equal rungs are merged: fewer may remain.

    For unguided walks of few steps. Data of standard deviation 1 are taken for granted; 0.1 is a tenth of it.
    """
    _checked(sch.T, N)
    ratio = np.log(1 - sch.alpha_bar[1:]) - np.log(np.maximum(sch.alpha_bar[1:], 1e-300))  # ln (σ/α)²
    return sorted({int(np.abs(ratio - 2 * np.log(x)).argmin()) + 1 for x in times.karras(N, low, high, rho)})  # (P.28)


def by_length(law: Callable[[int, int], list[int]]) -> Spacing:
    """A law of T and N alone as one of a ladder."""
    return lambda sch, N: law(sch.T, N)


def pairs(rungs: Iterable[int]) -> list[tuple[int, int]]:
    """Rungs in any order  ->  [(t, s), …] from the top down, the last s is 0. Raises ValueError for a repeated or a bad rung."""
    down = sorted(rungs, reverse=True)
    if not down or down[-1] < 1 or len(set(down)) < len(down):
        raise ValueError(f"rungs must be distinct and at least 1; got {down}")
    return list(zip(down, [*down[1:], 0], strict=True))  # (D.30)


class Row(NamedTuple):
    """One step of a sampler, and what other projects call it."""

    t: int
    s: int
    time: int  # the network's time input
    alpha_bar_t: float
    alpha_bar_s: float
    openai: str
    diffusers: str
    ldm: str


def vocabulary(rungs: Iterable[int], sch: Ladder) -> list[Row]:
    """The table (t -> s, network time, ᾱ_t, ᾱ_s) of a sub-sequence, in our words and in those of three other projects.

    For s = 0 OpenAI and diffusers (set_alpha_to_one) use ᾱ = 1 as we do; latent diffusion uses its ᾱ[0], our rung 1.
    """
    steps = pairs(rungs)
    rows = []
    for k, (t, s) in enumerate(steps):
        index, time, below = len(steps) - 1 - k, int(sch.time[t]), int(sch.time[s]) if s else -1
        rows.append(
            Row(
                t, s, time, float(sch.alpha_bar[t]), float(sch.alpha_bar[s]),
                openai=f"t={index}, timestep_map[{index}]={time}",
                diffusers=f"timestep={time}, prev_timestep={below}",
                ldm=f"index={index}, ddim_timesteps[{index}]={time}, alphas_prev=alphas_cumprod[{max(below, 0)}]",
            )
        )  # fmt: skip
    return rows
