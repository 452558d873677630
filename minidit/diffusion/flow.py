"""Flows: what a velocity network learns, how straight its trajectories are, and pairs of noise and data.

    v*(x, t) = E[ε - x_0 | x_t = x] = ε̂ - x̂_0               the marginal velocity; (x - x̂_0)/t on the straight path     (F.1)
    E‖v - u‖² = E‖v - v*‖² + E Var(u | x_t)                  the loss of v, and its floor                                 (F.2)
    S = ∫ E‖(x_1 - x_0) - dx_t/dt‖² dt                       straightness of trajectories, per dimension; 0: lines        (F.3)
    S = m² ∫ (α' - (α_1-α_0))² dt + ∫ (a' - (a_1-a_0))² dt   of Gaussian data N(m, s²), a = √(α²s²+σ²)                     (F.4)
    (x_0, z) with x_0 = ODE(z)                               reflow: a new network is trained on x_t = (1-t) x_0 + t z    (F.5)

Straightness belongs to the trajectories, not to the interpolants (1-t) x_0 + t ε, which are lines by construction. It depends on
data and path: no path is the straightest for all data. Reflow is what makes trajectories straight.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from minidit.backend import Array
from minidit.diffusion import gaussian
from minidit.diffusion.level import Level, mix
from minidit.diffusion.prediction import X_0, U


def marginal_velocity(x_0_hat: Array, x_t: Array, at: Level) -> Array:
    """x_0_hat = E[x_0 | x_t], x_t : (B, ...)  ->  v* : (B, ...), the best answer u at this level of any path."""
    return U.target(*X_0.pair(x_0_hat, x_t, at), at)  # (F.1)


def velocity_floor(at: Level, variance: Array) -> Array:
    """E Var(u | x_t) of Gaussian data, per dimension: no network's loss on u lies below."""
    return gaussian.remaining(at, variance) * U.gain(at)  # (F.2)


def straightness(t: Array, x: Array) -> float:
    """S of broken lines, a mean over B and entries: t : (n+1,) rising or falling, x : (n+1, B, ...) in any home.

    Of the states of an Euler walk it is the sum over its own velocities, without error.
    """
    return float(np.diff(t) @ bends(t, x)) / float(t[-1] - t[0])  # (F.3)


def bends(t: Array, x: Array) -> Array:
    """The integrand of S, on each of the n pieces of these lines: (n,), on the host. t, x : as in `straightness`"""
    line = (x[-1] - x[0]) / float(t[-1] - t[0])
    return np.array([float(((line - (x[k + 1] - x[k]) / float(t[k + 1] - t[k])) ** 2).mean()) for k in range(len(t) - 1)])


def gaussian_straightness(path: Callable[[float], Level], mean: float, std: float, n: int = 4000) -> float:
    """S of the exact flow of N(mean, std²) along a path, t from 0 to 1, in n pieces (the error falls with n²)."""
    t = np.linspace(0.0, 1.0, n + 1)
    levels = [path(float(u)) for u in t]
    centre = np.array([mean * at.alpha for at in levels])[:, None]
    width = np.array([gaussian.spread(at, std**2) for at in levels])[:, None] ** 0.5
    return straightness(t, centre) + straightness(t, width)  # (F.4)


class Pairs(NamedTuple):
    """Noise and what a walk made of it, (B, ...) each: the data of a reflow."""

    x_0: Array
    z: Array

    def at(self, at: Level) -> Array:
        """x_t : (B, ...), the pairs on the path at this level, a float or one per pair."""
        return mix(self.x_0, self.z, at)  # (F.5)


def pairs(flow: Callable[[Array], Array], z: Array) -> Pairs:
    """flow : a walk without fresh noise, from z : (B, ...) to data  ->  its pairs. Reflow copies the errors of a short walk."""
    return Pairs(flow(z), z)  # (F.5)
