"""Ladders, rungs and pictures for the diffusion tests."""

import numpy as np
from hypothesis import strategies as st

from minidit.diffusion.ddim import ddim_step
from minidit.diffusion.level import Level
from minidit.diffusion.rungs import pairs
from minidit.diffusion.schedule import Schedule

MEAN, VAR = 0.3, 0.25  # of the Gaussian data behind the printed numbers
LINEAR = Schedule.linear(1000)


def level(a):
    """The level of the ladder whose ᾱ is a, a float or an array."""
    return Level(a**0.5, (1 - a) ** 0.5)


@st.composite
def ladders(draw, min_T=2):
    """Schedules of every family, short and long, and with arbitrary betas."""
    T = draw(st.integers(max(min_T, 21), 60))
    family = draw(st.sampled_from([Schedule.linear, Schedule.scaled_linear, Schedule.cosine, None]))
    if family is not None:
        return family(T)
    betas = draw(st.lists(st.floats(1e-4, 0.7), min_size=min_T, max_size=12))
    return Schedule.from_betas(betas)


@st.composite
def steps(draw, min_s=0, min_T=2):
    """(schedule, t, s) with min_s ≤ s < t ≤ T."""
    sch = draw(ladders(min_T=min_T))
    t = draw(st.integers(min_s + 1, sch.T))
    return sch, t, draw(st.integers(min_s, t - 1))


@st.composite
def subsets(draw, T, max_size=8):
    """Some rungs of 1..T, in rising order, at least one."""
    return sorted(draw(st.sets(st.integers(1, T), min_size=1, max_size=max_size)))


def pictures(n, shape=(2, 3, 4, 4)):
    """n arrays of standard normals, the same ones every time a seed comes back."""
    return st.integers(0, 2**32 - 1).map(lambda seed: list(np.random.default_rng(seed).normal(size=(n, *shape))))


def rungs_of_batch(sch, B=2, low=1):
    return st.lists(st.integers(low, sch.T), min_size=B, max_size=B).map(np.array)


def theta_ladder(N):
    """N even steps in the angle, √ᾱ = cos θ, so that the order of a solver is not polluted by integer rungs."""
    theta = np.linspace(0, np.arccos(LINEAR.alpha_bar[-1] ** 0.5), N + 1)
    return Schedule(np.append(1.0, np.cos(theta[1:]) ** 2), np.arange(N + 1) - 1)


def walk_ddim(rungs, model, x, sch=LINEAR):
    for t, s in pairs(rungs):
        x = ddim_step(x, model(x, int(sch.time[t])), t, s, sch)
    return x
