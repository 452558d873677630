"""One step of a walk as a row of numbers: everything in it that does not depend on the picture.

    F = F_u + w (F_c - F_u)                           (G.1)
    F, x_t  ->  (x̂_0, ε̂)  by four numbers             (P.3)
    limited x̂_0, and ε̂ from it by α_t, σ_t            (D.31, D.33)
    x_s = α_s x̂_0 + √(σ_s² - c²) ε̂ + std z            (P.4)

The rows of a grid are one float64 table. The host reads a row as floats; a recorded step on a device reads it at a counter,
as arrays of one number. The step below is the same code for both; the kernel that replaces it on a GPU takes the whole table.

A solver (solver.py) makes a better answer F̄ out of several. It has a second table, by which F̄ is read, and its own row:

    F = p x̂_0 + q ε̂                                   the solver's answer                             (P.2)
    F̄ = now F + past F_before                          Adams–Bashforth                                 (P.22)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from minidit import ops
from minidit.backend import Array, home_of, read_only, resident
from minidit.diffusion.fresh import Fresh, large_std, posterior_std
from minidit.diffusion.guidance import guide
from minidit.diffusion.level import Level, enter
from minidit.diffusion.path import Path
from minidit.diffusion.prediction import Prediction, Reading, pair_of
from minidit.diffusion.solver import Solver
from minidit.diffusion.step import step
from minidit.diffusion.threshold import Limit, rederived, static
from minidit.ops import twins


class Row(NamedTuple):
    """The numbers of one step from t to s: floats, or arrays of one number on a device."""

    x_of_x: Array
    x_of_F: Array
    eps_of_x: Array
    eps_of_F: Array
    alpha_t: Array
    sigma_t: Array
    alpha_s: Array
    sigma_s: Array
    c: Array
    std: Array
    log_small: Array  # ln β̃ and ln β, used with a learned variance only; else 0
    log_large: Array


def row_of(answer: Prediction, t: Level, s: Level, fresh: Fresh) -> Row:
    """t, s : levels of floats. Raises ValueError if the fresh noise has more variance than level s."""
    c = fresh.c(t, s)
    if c**2 > s.sigma**2 + 1e-12:
        raise ValueError(f"the fresh noise has variance {c**2:.3g}, its level only {s.sigma**2:.3g}: choose a smaller η")
    std = 0.0 if s.sigma == 0 else c if fresh.std is None else fresh.std(t, s)  # (D.17)
    logs = (2 * math.log(law(t, s)) if fresh.learned and s.sigma > 0 else 0.0 for law in (posterior_std, large_std))
    return Row(*answer.reading(t), *t, *s, c, std, *logs)


def table_of(answer: Prediction, path: Path, grid: Sequence[tuple[Any, Any]], fresh: Fresh) -> Array:
    """The rows of a grid [(t, s), …] : (len(grid), 12) float64, read-only."""
    return read_only(np.array([row_of(answer, path.level(t), path.level(s), fresh) for t, s in grid], np.float64))


def row_at(table: Array, k: Array) -> Row:
    """Row k of a table: of floats for an int k, of () arrays in the home of k for a counter k : (1,) int64."""
    return Row(*numbers_at(table, k))


def numbers_at(table: Array, k: Array) -> Any:
    """The numbers of row k of any table."""
    return map(float, table[k]) if home_of(k) == "" else resident(table, k)[k][0]


class Blend(NamedTuple):
    """How a solver's answer is made from (x̂_0, ε̂) at t, and F̄ from it, the one before and x_t."""

    p: Array
    q: Array
    now: Array
    past: Array
    of_x: Array


def blends_of(solver: Solver, path: Path, grid: Sequence[tuple[Any, Any]]) -> Array:
    """The rows of a solver's answer on a grid : (len(grid), 5) float64, read-only. A climb between two steps starts it anew."""
    rows, before = [], None
    for k, (t, s) in enumerate(grid):
        at, end, answer = path.level(t), path.level(s), solver.answer
        before = None if k == 0 or grid[k - 1][1] != t else path.level(grid[k - 1][0])
        weights = *solver.weights(before, at, end), solver.of_x(at, end)
        rows.append(Blend(answer.p(at), answer.q(at), *weights) if answer else Blend(0, 0, 1, 0, 0))
    return read_only(np.array(rows, np.float64))


def blend_at(table: Array, k: Array) -> Blend:
    """Row k of `blends_of`."""
    return Blend(*numbers_at(table, k))


def pair_at(
    x_t: Array, F: Array, row: Row, *, F_u: Array = None, w: float = 1.0, limit: Limit | None = None
) -> tuple[Array, Array]:
    """x_t, F : (B, ...)  ->  (x̂_0, ε̂), guided and limited."""
    F = F if F_u is None else guide(F_u, F, w)
    x_0_hat, eps_hat = pair_of(F, x_t, Reading(*row[:4]))
    if limit is not None:
        x_0_hat, eps_hat = rederived(x_0_hat, x_t, Level(row.alpha_t, row.sigma_t), limit)
    return x_0_hat, eps_hat


@twins.twin(twins.walk_step)
def walk_step(
    x_t: Array, F: Array, table: Array, k: Array, *, F_u: Array = None, w: float = 1.0, z: Array = None, v: Array = None,
    clip: bool = False, limit: Limit | None = None, guess: bool = True, into: Array = None,
) -> tuple[Array, Array]:  # fmt: skip
    """x_t, F, z : (B, ...)  ->  (x_s, x̂_0): step k of the walk that the table describes.

    k : an int, or a counter (1,) int64   F, F_u : the outputs with and without the condition (F_u or None)   w : guidance scale
    v : (B, ...), the network's choice of variance (D.22), or None
    clip : whether x̂_0 is clipped to [-1, 1] (D.31)   limit : another way to keep x̂_0 in the range of pictures, or None
    guess : whether x̂_0 is needed   into : the array that receives x_s, possibly x_t itself, or None for a new one
    """
    row = row_at(table, k)
    x_0_hat, eps_hat = pair_at(x_t, F, row, F_u=F_u, w=w, limit=static if clip else limit)
    std = row.std
    if v is not None:
        std, low, high = enter(std, row.log_small, row.log_large, like=x_t)
        std = (std > 0) * ops.exp((low + (v + 1) * 0.5 * (high - low)) * 0.5)  # (D.22)
    x_s = step(x_0_hat, eps_hat, Level(row.alpha_s, row.sigma_s), c=row.c, std=std, z=z)
    if into is not None:
        into[...] = x_s
    return x_s if into is None else into, x_0_hat
