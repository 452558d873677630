"""Training a denoiser on any path: draw a time, add noise, predict, compare.

    x_t = α x_0 + σ ε                          at a time of the path, ε ~ N(0, 1)                       (P.1, D.1)
    loss_b = w (p x_0 + q ε - network(x_t, t, y))²         mean over the sample's entries               (P.2, D.34)

`Hybrid` trains the second half of a network's channels as well, by λ T times one term of the bound (D.36). Its decoder
is that of grey levels for pixels, and the continuous one for latents and other numbers (K.11).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np

from minidit import ops
from minidit.autograd import Tensor, value
from minidit.backend import Array, read_only
from minidit.diffusion import likelihood, loss, variance
from minidit.diffusion.level import Level, at, mix
from minidit.diffusion.path import Path, check_path
from minidit.diffusion.prediction import EPS, Prediction
from minidit.diffusion.schedule import Schedule
from minidit.diffusion.times import TimeLaw
from minidit.keywords import check_kind
from minidit.models.backbone import Backbone
from minidit.training.draws import Draws

Times = Callable[[Draws], Array]  # -> (B,), one time per sample
Weight = Callable[[Prediction, Level], Array]  # the weight at a level on the loss of that answer
Weights = Callable[[Array], Array]  # times -> (B,)


@dataclass(frozen=True)
class Rungs:
    """All rungs of a ladder, equally often."""

    T: int

    def __call__(self, draws: Draws) -> Array:
        return draws.integers(1, self.T + 1)


@dataclass(frozen=True)
class Drawn:
    """Times by a law of times.py, from one float64 uniform per sample."""

    law: TimeLaw

    def __call__(self, draws: Draws) -> Array:
        return self.law(draws.uniform(dtype=np.float64))


def drawn(law: TimeLaw) -> Times:
    """Times by a law of times.py, from one float64 uniform per sample. Raises TypeError for what is no law."""
    if not callable(law) or np.shape(law(np.array([0.25, 0.75]))) != (2,):
        raise TypeError(f"a law gives a time for every u : (B,), as md.times.uniform and md.times.logit_normal() do, not {law!r}")
    return Drawn(law)


def on_rungs(table: Array) -> Weights:
    """A function that looks up rungs in a table : (T+1,) float64."""
    rows = read_only(table)
    return lambda t: at(rows, t)


@dataclass(frozen=True)
class Diffusion:
    """A path, the network's answer (its output F), the training times, and the weight of its loss at a level (None: 1).

    Diffusion.on_ladder(Schedule.cosine(), V)                         DDPM's kind
    Diffusion(Straight(), U, drawn(times.uniform))                    rectified flow
    Diffusion(Exploding(0.5), edm(0.5), drawn(times.lognormal()))     EDM: its weight is 1 for this answer (P.23)
    """

    path: Path
    answer: Prediction
    times: Times
    weight: Weight | None = None

    stream: ClassVar[int] = 0x74726E
    per: ClassVar[int] = 8

    def __post_init__(self) -> None:
        check_path(self.path)
        check_kind("the network's answer", self.answer, Prediction, "md.EPS, md.V or md.U")
        try:
            shape, cause = np.shape(self.times(Draws(0, self.stream, np.arange(2), per=self.per))), None
        except (AttributeError, TypeError) as error:  # no function, or one of numbers, or a slip inside it
            shape, cause = None, error
        if shape != (2,):
            what = f"as md.drawn(md.times.uniform) does, not {self.times!r}"
            raise TypeError(f"times must draw one time per sample, {what}") from cause

    @classmethod
    def on_ladder(cls, path: Schedule, answer: Prediction = EPS, weight: Weight | None = None) -> Self:
        """Diffusion on a ladder of rungs, all trained equally often (Ho, Jain, Abbeel 2020); weight: a law such as min_snr.

        Raises ValueError where the answer does not determine x_0 at rung T, from which every sample starts.
        """
        check_kind("a ladder", path, Schedule, "md.Schedule.cosine(1000)")
        check_kind("the network's answer", answer, Prediction, "md.EPS, md.V or md.X_0")
        answer.reading(path.level(path.T))
        return cls(path, answer, Rungs(path.T), weight)

    @cached_property
    def weights(self) -> Weights | None:
        """The weights of times. On a ladder they are a table, so that a recorded update reads them in one launch."""
        path, answer, weight = self.path, self.answer, self.weight
        if weight is None:
            return None
        return on_rungs(weight(answer, path.levels)) if isinstance(path, Schedule) else lambda t: weight(answer, path.level(t))

    def question(self, x_0: Array, draws: Draws) -> tuple[Array, Array, Array, Level]:
        """x_0 : (B, ...)  ->  t : (B,), ε, x_t, and the level of every sample."""
        t = self.times(draws)
        eps = draws.normal(x_0.shape)
        return t, eps, *self.noised(x_0, eps, t)

    def noised(self, x_0: Array, eps: Array, t: Array) -> tuple[Array, Level]:
        """x_0, eps : (B, ...), t : (B,)  ->  x_t and the level of every sample."""
        level = self.path.level(t)
        return mix(x_0, eps, level), level

    def error(self, F: Any, x_0: Array, eps: Array, t: Array, level: Level) -> Tensor:
        """F : (B, ...), the network's outputs  ->  losses : (B,)."""
        w = None if self.weights is None else self.weights(t)
        losses: Tensor = loss.per_sample(F, self.answer.target(x_0, eps, level), w)
        return losses

    def loss(self, network: Backbone, x_0: Array, y: Array | None, draws: Draws) -> tuple[Tensor, dict[str, Array]]:
        """The losses of a batch : (B,), with the times and the noise of an update; `md.loss` is their mean over a set."""
        t, eps, x_t, level = self.question(x_0, draws)
        return self.error(network(*self.path.inputs(x_t, t), y), x_0, eps, t, level), {}


@dataclass(frozen=True)
class Hybrid:
    """A diffusion on a ladder whose network outputs twice the channels: the second half is for the variance.

    levels : number of grey levels of the data, or None;  vb_weight : λ of (D.36)
    """

    process: Diffusion
    path: Schedule
    levels: int | None = None
    vb_weight: float = 1e-3

    stream: ClassVar[int] = Diffusion.stream
    per: ClassVar[int] = Diffusion.per

    @property
    def answer(self) -> Prediction:
        return self.process.answer

    def loss(self, network: Backbone, x_0: Array, y: Array | None, draws: Draws) -> tuple[Tensor, dict[str, Array]]:
        t, eps, x_t, level = self.process.question(x_0, draws)
        F, v = ops.split(network(*self.path.inputs(x_t, t), y), parts=2, axis=1)
        simple = self.process.error(F, x_0, eps, t, level)
        x_0_hat, _ = self.answer.pair(value(F), x_t, level)  # a plain array: the bound does not train the mean
        log_variance = variance.log_learned_range(v, t, t - 1, self.path)
        decoder = likelihood.trained_decoder(self.levels)
        vb = likelihood.bound_term(x_0, x_t, x_0_hat, log_variance, t, self.path, decoder=decoder)
        return loss.hybrid(simple, vb, self.path.T, self.vb_weight), {"simple": simple.data}
