"""Consistency models: a network is taught that two neighbours on one trajectory lead to the same end.

    f(x, t) = x̂_0, read off the network's answer F; f(x, ε) = x                                                      (S.1, P.3)
    loss_b = λ d(f_θ(x_t, t), f_θ⁻(x_s, s))              t = t_{i+1}, s = t_i: neighbours of a grid                      (S.13)
    x_s = one step of the teacher from x_t               distillation; guidance included, Euler or Heun
    x_s = α_s x_0 + σ_s z, the z of x_t                  training without a teacher: the same on average                 (S.14)
    θ⁻: θ itself, or an average of it; no gradient       θ⁻ ← μ θ⁻ + (1-μ) θ after every update                          (S.15)

    variant                grid                         index i    d                λ               θ⁻
    distillation           any, fixed                   uniform    pseudo-Huber     1               θ
    training (CT)          Karras, N(k) of (S.4)        uniform    squares          1               an average, μ(k)
    improved (iCT)         Karras, N(k) of (S.5)        (S.6)      pseudo-Huber     1/(t-s)         θ                    (S.16)

Song and Dhariwal found that an average θ⁻ hurts training without a teacher, so iCT has none. A grid that grows is padded to the
length of its last one, so that an update recorded on a GPU reads it from one place.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from minidit import ops
from minidit.autograd import Tensor, no_grad, value
from minidit.backend import Array, read_only, xp_of
from minidit.diffusion import consistency
from minidit.diffusion.guidance import guide, interval
from minidit.diffusion.level import enter, mix
from minidit.diffusion.path import Exploding, Path
from minidit.diffusion.prediction import Prediction
from minidit.diffusion.solver import EULER, Solver, heun
from minidit.diffusion.step import step
from minidit.models.backbone import Backbone
from minidit.processes.denoise import Denoiser
from minidit.training.draws import Draws
from minidit.training.loop import Loop

Grid = Callable[[int], Array]  # update -> rising times (N,)
Masses = Callable[[Array], Array]  # rising times (N,) -> p (N-1,), the probability of every interval
Distance = Callable[[Any, Array], Any]  # two batches -> (B,)


def fixed(times: Array) -> Grid:
    """The same rising times at every update."""
    t = read_only(np.array(times))
    return lambda update: t


def growing(count: Callable[[int], int], low: float = 0.002, high: float = 80.0) -> Grid:
    """The times of Karras et al., count(update) of them."""
    grid = functools.cache(lambda N: consistency.rising_grid(N, low, high))
    return lambda update: grid(count(update))


def evenly(t: Array) -> Array:
    """Every interval equally often."""
    return np.full(len(t) - 1, 1 / (len(t) - 1))


def top_first(share: float) -> Masses:
    """A part of the batch at the noisy end, from which single steps start, and every interval equally often in the rest."""

    def masses(t: Array) -> Array:
        p = (1 - share) * evenly(t)
        p[-1] += share
        return p

    return masses


def near_squares(x: Any, y: Array) -> Any:
    """The pseudo-Huber whose norm of change, 0.03 √dim, is that of small pictures' usual errors."""
    return consistency.pseudo_huber(x, y, 0.03 * math.prod(y.shape[1:]) ** 0.5)


def squares(x: Any, y: Array) -> Any:
    """The squared norm of the difference, per sample."""
    return ops.mse(x, y) * math.prod(y.shape[1:])


@dataclass(frozen=True)
class Consistency:
    """A path, the answer from which f is read, the grid of each update, and the rest of the table above.

    teacher : a network on the same times, or None: training without one    solver : the teacher's, EULER or one that asks twice
    target : θ⁻ where it is an average, kept by `follow`; None: the trained weights themselves
    """

    path: Path
    answer: Prediction
    grid: Grid
    masses: Masses = evenly
    distance: Distance = consistency.pseudo_huber
    weight: Callable[[Array, Array], Array] | None = None  # (t, s) -> (B,)
    teacher: Denoiser | None = None
    solver: Solver = EULER
    target: Backbone | None = None
    most: int = 0  # times of the last grid, of one that grows

    stream: ClassVar[int] = 0x636F6E
    per: ClassVar[int] = 4

    def __post_init__(self) -> None:
        if self.solver.clock is not None:
            raise ValueError("one step of a teacher is Euler's or one of Heun's: Adams–Bashforth needs the step before")

    @classmethod
    def on_exploding(
        cls, end: float = 0.002, high: float = 80.0, sigma_data: float = 0.5, *, grid: Grid, masses: Masses = evenly,
        distance: Distance = consistency.pseudo_huber, weight: Callable[[Array, Array], Array] | None = None,
        teacher: Denoiser | None = None, solver: Solver = EULER, target: Backbone | None = None, most: int = 0,
    ) -> Self:  # fmt: skip
        """On the path of the papers, with their scalings."""
        path, answer = Exploding(sigma_data, low=end, high=high, end=end), consistency.consistency(end, sigma_data)
        return cls(path, answer, grid, masses, distance, weight, teacher, solver, target, most)

    @classmethod
    def training(cls, K: int, target: Backbone, s_0: int = 2, s_1: int = 150, end: float = 0.002, high: float = 80.0) -> Self:
        """CT for K updates; target : a copy of the network, which `follow` keeps as its average."""
        grid = growing(lambda k: consistency.levels_at(k, K, s_0, s_1), end, high)
        return cls.on_exploding(end, high, grid=grid, distance=squares, target=target, most=s_1 + 1)

    @classmethod
    def improved(
        cls, K: int, s_0: int = 10, s_1: int = 1280, end: float = 0.002, high: float = 80.0, mean: float = -1.1, std: float = 2.0
    ) -> Self:
        """iCT for K updates. In short trainings mean ≈ 1, or high ≈ 20: else the noisy end is hardly ever trained (S.6)."""
        grid = growing(lambda k: consistency.doubled_levels_at(k, K, s_0, s_1), end, high)
        masses = functools.partial(consistency.index_masses, mean=mean, std=std)
        return cls.on_exploding(end, high, grid=grid, masses=masses, weight=lambda t, s: 1 / (t - s), most=s_1 + 1)  # (S.16)

    @functools.cached_property
    def ladders(self) -> Callable[[int], Array]:
        """update -> (2, N): rising times, and the edges between the shares of u that choose their intervals (S.6)."""

        known: dict[int, Array] = {}  # by N

        def ladder(update: int) -> Array:
            t = self.grid(update)
            N = len(t)
            if N not in known:
                rows = np.full((2, max(N, self.most)), np.inf)
                rows[0, :N], rows[1, : N - 2] = t, consistency.index_edges(self.masses(t))
                known[N] = read_only(rows)
            return known[N]

        return ladder

    def times(self, draws: Draws) -> tuple[Array, Array]:
        """(t, s) : (B,) each, neighbours of this update's grid, s below t."""
        u = draws.uniform(dtype=np.float64)
        t, edges = draws.numbers(self.ladders)
        i = xp_of(u).searchsorted(edges, u, side="right")
        t = t.astype(self.grid(0).dtype)  # a ladder counts
        return t[i + 1], t[i]

    def end(self, network: Backbone, x: Array, t: Array, y: Array | None) -> Any:
        """f(x, t) : (B, ...). At the data end it is x, to the bit."""
        F = network(*self.path.inputs(x, t), y)
        if isinstance(self.path, Exploding) and self.path.end:
            return consistency.end_of(F, x, t, self.path.end, self.path.sigma_data)
        return self.answer.pair(F, x, self.path.level(t))[0]

    def loss(self, network: Backbone, x_0: Array, y: Array | None, draws: Draws) -> tuple[Tensor, dict[str, Array]]:
        t, s = self.times(draws)
        z, at, below = draws.normal(x_0.shape), self.path.level(t), self.path.level(s)
        x_t = mix(x_0, z, at)
        with no_grad():
            x_s = mix(x_0, z, below) if self.teacher is None else teacher_step(self.teacher, x_t, t, s, y, self.solver)  # (S.14)
            aim = value(self.end(self.target or network, x_s, s, y))
        losses: Tensor = self.distance(self.end(network, x_t, t, y), aim)  # (S.13)
        return (losses if self.weight is None else losses * enter(self.weight(t, s), like=losses)), {}


def teacher_answer(teacher: Denoiser, x: Array, t: Array, y: Array | None) -> tuple[Array, Array]:
    """The teacher's (x̂_0, ε̂), guided where its interval has t : (B,)."""
    F, F_u, _ = teacher(x, t, y if y is None or teacher.guidance == 1 else teacher.labels(y))
    if F_u is not None:
        w = interval(teacher.guidance, t, teacher.low, float("inf") if teacher.high is None else teacher.high)
        F = guide(F_u, F, w)
    return teacher.answer.pair(F, x, teacher.path.level(t))


def teacher_step(teacher: Denoiser, x_t: Array, t: Array, s: Array, y: Array | None, solver: Solver = EULER) -> Array:
    """x_t : (B, ...), t, s : (B,)  ->  x_s : (B, ...). Heun's second answer is asked where there is noise left at s."""
    at, below = teacher.path.level(t), teacher.path.level(s)
    pair = teacher_answer(teacher, x_t, t, y)
    x_s = step(*pair, below)
    if solver.answer is None:
        return x_s
    xp, noisy = xp_of(x_s), below.sigma > 0
    inside = xp.where(noisy, s, t)  # a time at which a network may be asked; its answer is not used where it is not s
    other = teacher_answer(teacher, x_s, inside, y)
    mean = heun(solver.answer.target(*pair, at), solver.answer.target(*other, below))
    better = step(*solver.answer.pair(mean, x_t, at), below)
    return xp.where(enter(noisy * 1.0, like=x_s) > 0, better, x_s)


def follow(target: Any, loop: Loop, decay: float) -> None:
    """θ⁻ ← μ θ⁻ + (1-μ) θ, after an update of the loop (Song et al. 2023, algorithm 3).

    target : its weights `flat` are changed; the layout of the loop's network   decay : μ from 0, no average, to below 1
    """
    target.flat[...] = decay * target.flat + (1 - decay) * loop.model.flat  # (S.15)
