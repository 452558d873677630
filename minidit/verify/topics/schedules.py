"""Topics: ladders of noise, and which rungs a sampler visits. Time as other projects count it: t in 0..T-1, -1 is the data."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidit.diffusion import rungs
from minidit.diffusion.schedule import Schedule
from minidit.diffusion.zero_snr import zero_terminal_snr
from minidit.verify.core.reference import Probe, part, topic

LADDERS = {"linear": Schedule.linear, "cosine": Schedule.cosine}
UP = "the first probes are small enough to check by hand"


def full(alpha_bar: Any) -> Schedule:
    """The foreign table (T,) as a ladder with its rung 0."""
    return Schedule(np.append(1.0, np.asarray(alpha_bar, np.float64)), np.arange(len(alpha_bar) + 1) - 1)


def top_down(r: Any) -> Any:
    """Our rungs, in any order, as 0-based timesteps from the top."""
    return np.array(sorted(r, reverse=True)) - 1


def _lengths(*lengths: int) -> list[Probe]:
    return [Probe(f"T{T}", (T,), "T = 1000 alone hides what is not scaled by 1000/T") for T in lengths]


# ------------------------------------------------------------------------------------------------ betas and ᾱ


@part
def ends(R: Any, T: int, start: float, end: float) -> tuple[float, float]:
    """Both ends of β on a ladder of T rungs, made for 1000."""
    return start * 1000 / T, end * 1000 / T


@part
def possible(R: Any, betas: Any) -> Any:
    """The same betas; ValueError where one is not in (0, 1]."""
    Schedule.from_betas(betas)
    return betas


@topic(
    spec="D.12",
    takes="T",
    gives="betas (T,); a refusal (any exception) where β would reach 1",
    probes=lambda: _lengths(250, 1000, 16),
)
def linear_betas(R: Any, T: int) -> Any:
    """β linear from 1e-4·1000/T to 0.02·1000/T, a refusal where it would reach 1."""
    start, end = R.ends(T, 1e-4, 0.02)
    return R.possible(np.linspace(start, end, T))


@topic(
    spec="D.13", takes="T", gives="betas (T,); a refusal where β would reach 1", probes=lambda: _lengths(250, 1000, 10)
)
def scaled_linear_betas(R: Any, T: int) -> Any:
    """β = (linear from √(8.5e-4·1000/T) to √(0.012·1000/T))², a refusal where it would reach 1."""
    low, high = R.ends(T, 8.5e-4, 0.012)
    return R.possible(np.linspace(low**0.5, high**0.5, T) ** 2)


@part
def cosine_grid(R: Any, T: int) -> Any:
    """u = i/T, i = 0..T."""
    return np.arange(T + 1) / T


@part
def cosine_cap(R: Any, betas: Any) -> Any:
    """β never above 0.999."""
    return np.minimum(betas, 0.999)


@part
def cosine_f(R: Any, T: int) -> Any:
    """f (T+1,), the signal that the cosine schedule aims at."""
    return np.cos((R.cosine_grid(T) + 0.008) / 1.008 * np.pi / 2) ** 2


@topic(spec="D.14", takes="T", gives="betas (T,)", probes=lambda: _lengths(20, 1000))
def cosine_betas(R: Any, T: int) -> Any:
    """β_i = min(1 - f_i/f_{i-1}, 0.999), f_i = cos²((i/T + 0.008)/1.008 · π/2), i = 1..T."""
    f = R.cosine_f(T)
    return R.cosine_cap(1 - f[1:] / f[:-1])


@topic(
    spec="D.14", takes="T", gives="alpha_bar (T,)", probes=lambda: _lengths(20, 1000), measure=np.log10,
    tol=2.0, because="compared as log10, a sum of T logarithms",
)  # fmt: skip
def cosine_alpha_bar(R: Any, T: int) -> Any:
    """ᾱ_i = Π (1-β), β = min(1 - f_i/f_{i-1}, 0.999): the product of the clipped ones, not f itself."""
    return R.alpha_bar(R.cosine_betas(T))


def _betas() -> list[Probe]:
    return [
        Probe("four", (np.array([0.1, 0.2, 0.3, 0.4]),), UP),
        Probe("linear", (Schedule.linear(1000).beta[1:],)),
        Probe("cosine", (Schedule.cosine(100).beta[1:],)),
    ]


@topic(spec="D.2", takes="betas (T,)", gives="alpha_bar (T,), alpha_bar[0] after one step of noise", probes=_betas)
def alpha_bar(R: Any, betas: Any) -> Any:
    """ᾱ_t = Π_{i ≤ t} (1-β_i)."""
    return np.cumprod(1 - betas)


def _surgery() -> list[Probe]:
    return [
        Probe("four", (np.array([0.1, 0.2, 0.3, 0.4]),), UP),
        Probe("scaled-linear", (Schedule.scaled_linear(1000).beta[1:],), "what Stable Diffusion leaves at T"),
    ]


@part
def zero_snr(R: Any, alpha_bar: Any) -> Any:
    """√ᾱ shifted and stretched so that ᾱ_T = 0 and ᾱ_1 stays."""
    return zero_terminal_snr(full(alpha_bar)).alpha_bar[1:]


@topic(
    spec="D.16",
    takes="betas (T,)",
    gives="betas (T,), the last one 1",
    probes=_surgery,
    tol=10.0,
    because="β of ratios of ᾱ",
)
def zero_snr_betas(R: Any, betas: Any) -> Any:
    """r = √ᾱ: r' = (r - r_T) r_1/(r_1 - r_T), ᾱ' = r'², β' = 1 - ᾱ'_t/ᾱ'_{t-1}."""
    return full(R.zero_snr(R.alpha_bar(betas))).beta[1:]


# ------------------------------------------------------------------------------------------------ which rungs


def _counts(*cases: tuple[int, ...]) -> list[Probe]:
    return [
        Probe("-".join(map(str, c)), c, "N that divides T hides strides, offsets hide the end of the table; no half to round")
        for c in cases
    ]


@part
def inside(R: Any, timesteps: Any, T: int) -> Any:
    """The same timesteps; ValueError where one is not on the ladder."""
    timesteps = np.asarray(timesteps)
    if timesteps.min() < 0 or timesteps.max() >= T:
        raise ValueError(f"timestep {timesteps.max()} is not below T = {T}")
    return timesteps


@topic(
    spec="D.24", takes="T, N, offset", gives="(N,) ints, top down; a refusal where one would reach T",
    probes=lambda: _counts((10, 5, 0), (1000, 13, 0), (1000, 250, 1), (1000, 1000, 1)),
)  # fmt: skip
def leading_timesteps(R: Any, T: int, N: int, offset: int) -> Any:
    """k ⌊T/N⌋ + offset, k = 0..N-1."""
    return R.inside((np.arange(N) * (T // N) + offset)[::-1], T)


@topic(
    spec="D.25", takes="T, N", gives="(N,) ints, top down: T-1 and 0 included",
    probes=lambda: _counts((10, 4), (1000, 12), (1000, 250)),
)  # fmt: skip
def linspace_timesteps(R: Any, T: int, N: int) -> Any:
    """round(k (T-1)/(N-1))."""
    return top_down(rungs.linspace(T, N))


@topic(
    spec="D.26", takes="T, N", gives="(N,) ints, top down: T-1 included",
    probes=lambda: _counts((10, 5), (1000, 13), (1000, 250)),
)  # fmt: skip
def trailing_timesteps(R: Any, T: int, N: int) -> Any:
    """round(T - k T/N) - 1."""
    return top_down(rungs.trailing(T, N))


@topic(
    spec="D.25", takes="T, N", gives="(N,) ints, top down: the timesteps your sampler visits when nothing else is asked",
    probes=lambda: _counts((1000, 12), (1000, 30), (1000, 10)),
)  # fmt: skip
def sampling_timesteps(R: Any, T: int, N: int) -> Any:
    """round(k (T-1)/(N-1)): both ends belong to it, the noise a sampler starts from is that of T-1."""
    return R.linspace_timesteps(T, N)


@part
def sections(R: Any, T: int, counts: list[int]) -> Any:
    """So many timesteps, evenly, from each of as many sections."""
    return np.array(rungs.sections(T, counts)) - 1


@part
def stride(R: Any, T: int, N: int) -> Any:
    """0, i, 2i, … with the least stride that gives N timesteps; ValueError if none does."""
    return np.array(rungs.stride(T, N)) - 1


def _texts() -> list[Probe]:
    cases = (
        (10, "4"),
        (302, "10,15,20"),
        (1000, "250"),
        (1000, "ddim50"),
        (1000, "ddim60"),
        (1000, "1"),
        (101, "7,30"),
    )
    return [
        Probe(f"{T}-{s}", (T, s), "unequal sections, no half to round; strides that do not exist are refused") for T, s in cases
    ]


@topic(
    spec="D.28",
    takes="T, spec: '250', '10,15,20' or 'ddim50'",
    gives="ints, rising; a refusal where none fits",
    probes=_texts,
)
def space_timesteps(R: Any, T: int, spec: str) -> Any:
    """So many timesteps evenly from each section, both ends among them; 'ddimN': 0, i, 2i, … with the least i that gives N."""
    if spec.startswith("ddim"):
        return R.stride(T, int(spec.removeprefix("ddim")))
    return R.sections(T, [int(n) for n in spec.split(",")])


def _kept() -> list[Probe]:
    cosine, linear = Schedule.cosine(20).alpha_bar[1:], Schedule.linear(1000).alpha_bar[1:]
    return [
        Probe("T20-N4", (cosine, np.array([0, 7, 13, 19])), UP),
        Probe("T1000-N25", (linear, np.round(np.linspace(0, 999, 25)).astype(int)), "skipped rungs"),
    ]


@part
def jump_beta(R: Any, alpha_bar: Any, t: Any, a_s: Any) -> Any:
    """β of a step from t to a rung with ᾱ = a_s."""
    return 1 - alpha_bar[t] / a_s


@topic(
    spec="D.15", takes="alpha_bar (T,), timesteps (N,) rising", gives="betas (N,) of the shorter ladder", probes=_kept
)
def respaced_betas(R: Any, alpha_bar: Any, timesteps: Any) -> Any:
    """β' = 1 - ᾱ_t/ᾱ_s, s the kept rung before t, the data before the first."""
    return R.jump_beta(alpha_bar, timesteps, np.append(1.0, alpha_bar[timesteps[:-1]]))


def _told() -> list[Probe]:
    return [Probe("T1000-N7", (np.array([0, 166, 333, 500, 666, 832, 999]), np.array([6, 1, 0, 3]), 1000))]


@topic(
    spec="T.3",
    takes="timesteps (N,) rising, i (B,) indices into them, T",
    gives="(B,): what the network is told",
    probes=_told,
)
def network_time(R: Any, timesteps: Any, i: Any, T: int) -> Any:
    """The original timestep, 0..T-1, also on a shorter ladder."""
    return timesteps[i]


@part
def below(R: Any, timesteps: Any, k: int, T: int) -> int:
    """The timestep a step from timesteps[k] arrives at: the next of the list; -1, the data, past the last."""
    return int(timesteps[k + 1]) if k + 1 < len(timesteps) else -1


def _lists() -> list[Probe]:
    cases = {
        "linspace-10": np.round(np.linspace(0, 999, 10)),
        "trailing-13": np.round(np.arange(1000, 0, -1000 / 13))[::-1] - 1,
    }
    return [
        Probe(name, (steps[::-1].astype(int), 1000), "a list whose stride is not T//N") for name, steps in cases.items()
    ] + [Probe("leading-5", (np.arange(5)[::-1] * 200, 1000))]


@topic(
    spec="D.30",
    takes="timesteps (N,) top down, T",
    gives="(N, 2) ints (t, s); the last s is -1, the data",
    probes=_lists,
)
def step_pairs(R: Any, timesteps: Any, T: int) -> Any:
    """(t, s): s is the next entry of the list, -1 (the data) past the last."""
    return np.array([(int(t), R.below(timesteps, k, T)) for k, t in enumerate(timesteps)])
