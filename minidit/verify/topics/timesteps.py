"""Topics: which timesteps a sampler visits, and what the network hears. t in 0..T-1 from the top; -1 is the data.

Leading timesteps are spelled out, because a mistake changes what happens at the end of the table (M06).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from minidit.backend import Array
from minidit.diffusion import rungs, step
from minidit.diffusion.schedule import Schedule
from minidit.verify.core.reference import Group, Probe, Reference, part
from minidit.verify.topics.schedules import UP

topic = Group("schedules")


def top_down(r: Iterable[int]) -> Array:
    """Our rungs, in any order, as 0-based timesteps from the top."""
    return np.array(sorted(r, reverse=True)) - 1


def _counts(*cases: tuple[int, ...]) -> list[Probe]:
    return [
        Probe("-".join(map(str, c)), c, "N that divides T hides strides, offsets hide the end of the table; no half to round")
        for c in cases
    ]


@part
def inside(R: Reference, timesteps: Array, T: int) -> Array:
    """The same timesteps; ValueError where one is not on the ladder."""
    timesteps = np.asarray(timesteps)
    if timesteps.min() < 0 or timesteps.max() >= T:
        raise ValueError(f"timestep {timesteps.max()} is not below T = {T}")
    return timesteps


@topic("D.24", "T, N, offset", "(N,) ints, top down; a refusal where one would reach T",
       lambda: _counts((10, 5, 0), (1000, 13, 0), (1000, 250, 1), (1000, 1000, 1)))  # fmt: skip
def leading_timesteps(R: Reference, T: int, N: int, offset: int) -> Array:
    """k ⌊T/N⌋ + offset, k = 0..N-1."""
    return inside(R, (np.arange(N) * (T // N) + offset)[::-1], T)


@topic("D.25", "T, N", "(N,) ints, top down: T-1 and 0 included", lambda: _counts((10, 4), (1000, 12), (1000, 250)))
def linspace_timesteps(R: Reference, T: int, N: int) -> Array:
    """round(k (T-1)/(N-1))."""
    return top_down(rungs.linspace(T, N))


@topic("D.26", "T, N", "(N,) ints, top down: T-1 included", lambda: _counts((10, 5), (1000, 13), (1000, 250)))
def trailing_timesteps(R: Reference, T: int, N: int) -> Array:
    """round(T - k T/N) - 1."""
    return top_down(rungs.trailing(T, N))


@topic("D.25", "T, N", "(N,) ints, top down: the timesteps your sampler visits when nothing else is asked",
       lambda: _counts((1000, 12), (1000, 30), (1000, 10)))  # fmt: skip
def sampling_timesteps(R: Reference, T: int, N: int) -> Array:
    """round(k (T-1)/(N-1)): both ends belong to it, the noise a sampler starts from is that of T-1."""
    return linspace_timesteps(R, T, N)


# 0, i, 2i, … with the least stride that gives N timesteps; ValueError if none does
stride = part(lambda R, T, N: np.array(rungs.stride(T, N)) - 1)


def _texts() -> list[Probe]:
    cases = ((10, "4"), (302, "10,15,20"), (1000, "250"), (1000, "ddim50"), (1000, "ddim60"), (1000, "1"), (101, "7,30"))
    return [
        Probe(f"{T}-{s}", (T, s), "unequal sections, no half to round; strides that do not exist are refused") for T, s in cases
    ]


@topic("D.28", "T, spec: '250', '10,15,20' or 'ddim50'", "ints, rising; a refusal where none fits", _texts)
def space_timesteps(R: Reference, T: int, spec: str) -> Array:
    """So many timesteps evenly from each section, both ends among them; 'ddimN': 0, i, 2i, … with the least i that gives N."""
    if spec.startswith("ddim"):
        return stride(R, T, int(spec.removeprefix("ddim")))
    return np.array(rungs.sections(T, [int(n) for n in spec.split(",")])) - 1


def _kept() -> list[Probe]:
    cosine, linear = Schedule.cosine(20).alpha_bar[1:], Schedule.linear(1000).alpha_bar[1:]
    return [
        Probe("T20-N4", (cosine, np.array([0, 7, 13, 19])), UP),
        Probe("T1000-N25", (linear, np.round(np.linspace(0, 999, 25)).astype(int)), "skipped rungs"),
    ]


jump_beta = part(lambda R, alpha_bar, t, a_s: step.jump(alpha_bar[t], a_s))  # β of a step from t to a rung with ᾱ = a_s


@topic("D.15", "alpha_bar (T,), timesteps (N,) rising", "betas (N,) of the shorter ladder", _kept)
def respaced_betas(R: Reference, alpha_bar: Array, timesteps: Array) -> Array:
    """β' = 1 - ᾱ_t/ᾱ_s, s the kept rung before t, the data before the first."""
    return jump_beta(R, alpha_bar, timesteps, np.append(1.0, alpha_bar[timesteps[:-1]]))


@topic("T.3", "timesteps (N,) rising, i (B,) indices into them, T", "(B,): what the network is told",
       lambda: [Probe("T1000-N7", (np.array([0, 166, 333, 500, 666, 832, 999]), np.array([6, 1, 0, 3]), 1000))])  # fmt: skip
def network_time(R: Reference, timesteps: Array, i: Array, T: int) -> Array:
    """The original timestep, 0..T-1, also on a shorter ladder."""
    return timesteps[i]


# the timestep a step from timesteps[k] arrives at: the next of the list; -1, the data, past the last
below = part(lambda R, timesteps, k, T: int(timesteps[k + 1]) if k + 1 < len(timesteps) else -1)


def _lists() -> list[Probe]:
    cases = {"linspace-10": np.round(np.linspace(0, 999, 10)), "trailing-13": np.round(np.arange(1000, 0, -1000 / 13))[::-1] - 1}
    return [Probe(name, (steps[::-1].astype(int), 1000), "a list whose stride is not T//N") for name, steps in cases.items()] + [
        Probe("leading-5", (np.arange(5)[::-1] * 200, 1000))
    ]


@topic("D.30", "timesteps (N,) top down, T", "(N, 2) ints (t, s); the last s is -1, the data", _lists)
def step_pairs(R: Reference, timesteps: Array, T: int) -> Array:
    """(t, s): s is the next entry of the list, -1 (the data) past the last."""
    return np.array([(int(t), below(R, timesteps, k, T)) for k, t in enumerate(timesteps)])
