"""Sampling: from noise down a grid, by a network that was trained on the path.

    x_T = path.start(z), z ~ N(0, 1);   for (t, s) in grid:   one step of (P.4)

The path is the ladder or a continuous one; DDPM, DDIM, rectified flow, EDM and consistency models differ in path, grid, fresh
noise and solver only. A walk may go down another path than the network's own (diffusion/coordinates.py).

A sample's noise depends only on its index, so any batch gives the same picture, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, Unpack, overload

import numpy as np
from numpy.typing import NDArray

from minidit.autograd import no_grad
from minidit.backend import Arena, Array, flat_buffer, module_of, to_device, to_host
from minidit.choices import check_word
from minidit.diffusion import rungs
from minidit.diffusion.coordinates import Coordinates
from minidit.diffusion.fresh import DDIM, Fresh
from minidit.diffusion.path import Path, check_path
from minidit.diffusion.prediction import EPS, PREDICTIONS, Prediction
from minidit.diffusion.rungs import Spacing
from minidit.diffusion.schedule import Schedule
from minidit.diffusion.solver import EULER, Solver
from minidit.diffusion.threshold import Limit, static
from minidit.keywords import check_kind, spelled_out, suggesting
from minidit.models.backbone import Backbone, check_backbone
from minidit.nn.device import can_record
from minidit.nn.precision import check_precision, computing_in
from minidit.processes.denoise import Denoiser
from minidit.processes.options import SamplingOptions
from minidit.processes.recordings import recording_of
from minidit.processes.walk import Grid, Moment, Progress, Walk, recordable
from minidit.training.draws import Draws
from minidit.training.ranks import Ranks, ranks
from minidit.training.workers import cores, over_shards, shard_of

SAMPLE_STREAM = 0x736D70

Labels = Sequence[int] | NDArray[Any]  # classes, or rows of captions


class Trained(Protocol):
    """What sampling needs to know of a process: its path, and the network's answer on it."""

    @property
    def path(self) -> Path: ...

    @property
    def answer(self) -> Prediction: ...


@suggesting
@dataclass(frozen=True)
class Sampling:
    """Settings of sampling.

    grid : [(t, s), …]; None: the path's usual one, of `steps` steps (None: 50, or all rungs)
    spacing : on a ladder, another law of rungs than trailing, such as rungs.karras or rungs.by_length(rungs.leading)
    path : another path to walk than the one of the process: the same network in other coordinates
    solver : EULER, HEUN or AB2 (and others of diffusion/solver.py)
    fresh : the noise of a step, ddim(η), or DDPM, DDPM_LARGE, DDPM_LEARNED, EVERYTHING of diffusion/fresh.py
    prediction : the network's answer (its output F): md.EPS, md.X_0, md.V, or its name; None: that of the process, else ε
    guidance : the scale w in the part (low, high] of the path set by `interval`, 1 outside
    clip : whether x̂_0 is clipped to [-1, 1]   limit : another way to keep it in range, or None
    shards : pieces of the batch that run in parallel (0: one per core)   precision : a policy of nn/precision.py
    graph : on a GPU, record a step as a CUDA graph and replay it
    """

    steps: int | None = None
    spacing: Spacing | None = None
    grid: Grid | None = None
    path: Path | None = None
    solver: Solver = EULER
    fresh: Fresh = DDIM
    prediction: Prediction | str | None = None
    guidance: float = 1.0
    interval: tuple[float, float] = (0.0, 1.0)
    clip: bool = False
    limit: Limit | None = None
    seed: int = 0
    shards: int = 0
    precision: str = "float32"
    graph: bool = True

    def __post_init__(self) -> None:
        check_kind("the solver", self.solver, Solver, "md.EULER, md.HEUN or md.AB2")
        check_kind("the fresh noise", self.fresh, Fresh, "md.ddim(0), md.ddim(1.0) or md.DDPM")

    def times(self, path: Path) -> Grid:
        """The grid on this path. Raises ValueError for more steps than a ladder has rungs."""
        ladder = ladder_of(path)
        if self.grid is not None:
            unit = float if ladder is None else int
            return [(unit(t), unit(s)) for t, s in self.grid]
        steps = (50 if ladder is None else min(50, ladder.T)) if self.steps is None else self.steps
        if self.spacing is None:
            return path.grid(steps)
        if ladder is None:
            raise ValueError("only a ladder has rungs to space: give a grid of times, such as times.linear(20)")
        return rungs.pairs(self.spacing(ladder, steps))

    def denoiser(self, network: Backbone, path: Path, answer: Prediction = EPS) -> Denoiser:
        """The network with these settings, on the path that it was trained on or on other `Coordinates` of it.

        Raises ValueError if it cannot be guided, and for unknown names.
        """
        if isinstance(self.prediction, str):
            check_word("prediction", self.prediction, PREDICTIONS)
            answer = PREDICTIONS[self.prediction]
        elif self.prediction is not None:
            answer = self.prediction
        if not 0 <= self.interval[0] < self.interval[1] <= 1:
            raise ValueError(f"a guidance interval is two parts of the {'path' if ladder_of(path) is None else 'ladder'}, "
                             f"0 ≤ low < high ≤ 1; got {self.interval}")  # fmt: skip
        low, high = (path.part(u) for u in self.interval)
        if low >= high:
            raise ValueError(f"between the two parts of the guidance interval {self.interval} there is no rung of the ladder")
        if self.guidance != 1 and network.condition.null is None:
            raise ValueError("guidance needs a model that was trained with classes and label dropout")
        answer = path.answer(answer) if isinstance(path, Coordinates) else answer
        return Denoiser(network, path, answer, static if self.clip else self.limit, self.guidance, low, high)


@overload
def sample(network: Backbone, process: Trained | Path, labels: Labels | None = None, settings: Sampling | None = None, *,
           n: int | None = None, x_T: Array | None = None, trace: Literal[False] = False, progress: Progress | None = None,
           alone: bool = False, **changes: Unpack[SamplingOptions]) -> NDArray[Any]: ...  # fmt: skip


@overload
def sample(network: Backbone, process: Trained | Path, labels: Labels | None = None, settings: Sampling | None = None, *,
           n: int | None = None, x_T: Array | None = None, trace: Literal[True], progress: Progress | None = None,
           alone: bool = False, **changes: Unpack[SamplingOptions]) -> Iterator[Moment | Array]: ...  # fmt: skip


@overload
def sample(network: Backbone, process: Trained | Path, labels: Labels | None = None, settings: Sampling | None = None, *,
           n: int | None = None, x_T: Array | None = None, trace: bool, progress: Progress | None = None,
           alone: bool = False, **changes: Unpack[SamplingOptions]) -> NDArray[Any] | Iterator[Moment | Array]: ...  # fmt: skip


@spelled_out(Sampling)
def sample(
    network: Backbone,
    process: Trained | Path,
    labels: Labels | None = None,
    settings: Sampling | None = None,
    *,
    n: int | None = None,
    x_T: Array | None = None,
    trace: bool = False,
    progress: Progress | None = None,
    alone: bool = False,
    **changes: Unpack[SamplingOptions],
) -> NDArray[Any] | Iterator[Moment | Array]:
    """x_0 : (B, ...) on the network's device ; with trace=True an iterator over Moments that ends with x_0.

    On a GPU it is CuPy's array, which to a type checker is NumPy's.

    process : the one that trained the network, or its path alone (then say prediction= unless it is ε on a ladder).
    x_T : the noise to start from, a sample at the grid's first time; else drawn from the seed.
    labels : (B,) ints, or (B, length) words of captions; an unconditional network takes n instead.
    The other keywords are fields of Sampling, over those of settings.   progress(done, total) is called after every step.
    alone : whether this rank draws all of them, while the others do something else.
    Raises ValueError for labels that the network does not know, and if settings conflict.
    """
    settings = replace(settings or Sampling(), **changes)
    check_backbone(network)
    path, answer = (process, EPS) if isinstance(process, Path) else (process.path, process.answer)
    if path is process and not isinstance(path, Schedule) and settings.prediction is None:
        raise ValueError("a path alone does not say what the network answers: give the process, or prediction=md.U")
    if path is process:
        check_path(path)
    path = path if settings.path is None else Coordinates(settings.path, path)
    y, n = checked_labels(network, labels, n, x_T)
    grid, denoiser = settings.times(path), settings.denoiser(network, path, answer)
    top = start_of(path, grid) if x_T is None else None
    if x_T is not None and tuple(x_T.shape) != (n, *network.shape):
        raise ValueError(f"{n} samples need x_T of shape {(n, *network.shape)}, got {tuple(x_T.shape)}")
    samples = module_of(network.device).arange(n)
    draws = Draws(settings.seed, SAMPLE_STREAM, samples, network.device, network.dtype)

    def walk(part: slice) -> tuple[Walk, Array]:
        shard = draws.at(0, samples[part])
        x = path.start(shard.normal((len(shard.samples), *network.shape))) if x_T is None else x_T[part]
        return Walk(denoiser, grid, settings.fresh, shard, None if y is None else y[part], settings.solver, top), x

    if trace:
        return traced(*walk(slice(None)), settings.precision)
    one_function = settings.graph and recordable(grid, settings.solver, top)
    if one_function and can_record(network.device, network.dtype, "the sampling step"):
        return on_gpus(walk, (n, *network.shape), network, settings.precision, progress, Ranks() if alone else ranks())
    with computing(network, settings.precision):
        return in_shards(walk, (n, *network.shape), network, settings.shards, len(grid), progress, alone=alone)


def ladder_of(path: Path) -> Schedule | None:
    """The ladder whose rungs a walk on this path visits; None if its times are continuous."""
    path = path.walked if isinstance(path, Coordinates) else path
    return path if isinstance(path, Schedule) else None


def start_of(path: Path, grid: Grid) -> Any:
    """The time of path.start; None on a ladder, whose start serves every grid. Raises ValueError for a grid that begins below."""
    if ladder_of(path) is not None:
        return None
    top = path.part(1.0)
    if grid and grid[0][0] < top:
        raise ValueError(
            f"the grid begins at {grid[0][0]}, the path at {top}: a walk from there needs x_T, a sample of that level"
        )
    return top


def checked_labels(network: Backbone, labels: Array | None, n: int | None, x_T: Array) -> tuple[Array | None, int]:
    """(labels on the device or None, number of samples: that of the labels, n, that of x_T, or 1).

    Raises ValueError for labels that the network does not know, for missing ones, and for any without a condition.
    """
    condition, y = network.condition, None
    if condition.count:
        if labels is None:
            raise ValueError(f"the model has {condition.words}: say which labels to sample")
        host = np.asarray(to_host(labels), np.int64)
        shaped = host.ndim > 0 and host.shape[1:] == condition.shape
        if not shaped or (host.size and not 0 <= host.min() <= host.max() < condition.rows):
            shape = ", ".join(["B", *map(str, condition.shape)]) + ("" if condition.shape else ",")
            raise ValueError(f"labels must be ({shape}) in 0..{condition.count - 1}, got {host.tolist()}")
        y, n = to_device(host, network.device), len(host)
    elif labels is not None:
        raise ValueError("the model is unconditional: give n instead of labels")
    n = (len(x_T) if x_T is not None else 1) if n is None else n
    if n < 1:
        raise ValueError(f"{n} samples: there must be at least one")
    return y, n


def computing(network: Backbone, precision: str, rounded: Array = None) -> AbstractContextManager[None]:
    """The precision policy for a network, which may be any callable: only ours have all weights in one buffer.

    rounded : a copy of that buffer in the type of products, if somebody has it already
    """
    return computing_in(precision, network.device, getattr(network, "flat", None), rounded)


def traced(walk: Walk, x: Array, precision: str) -> Iterator[Moment | Array]:
    """The moments of a walk. Between them the caller's own context applies."""
    moments, moment = walk.moments(x), None
    while True:
        with no_grad(), computing(walk.denoiser.network, precision):
            moment = next(moments, None)
        if moment is None:
            return
        yield moment


def on_gpus(
    walk: Callable[[slice], tuple[Walk, Array]], shape: tuple[int, ...], network: Backbone, precision: str,
    progress: Progress | None, team: Ranks,
) -> NDArray[Any]:  # fmt: skip
    """x_0 : shape, by recorded walks: the GPU of each rank of the team draws its part, and then has all."""
    parts = [shard_of(shape[0], team.count, r) for r in range(team.count)]
    mine = parts[team.me]
    x_0: Any = None
    if mine.stop > mine.start:
        whole, x = walk(mine)
        check_precision(precision, network.device)
        recording, keep = recording_of(whole, x, precision)
        with no_grad(), computing(network, precision, recording.weights):
            x_0 = recording.run(whole, x, progress)
        keep()
    if team.alone:
        alone: NDArray[Any] = x_0
        return alone
    result: NDArray[Any] = flat_buffer(int(np.prod(shape)), network.dtype, network.device).reshape(shape)
    if x_0 is not None:
        result[mine] = x_0
    team.gather(result, parts)
    return result


def in_shards(
    walk: Callable[[slice], tuple[Walk, Array]],
    shape: tuple[int, ...],
    network: Backbone,
    shards: int,
    steps: int,
    progress: Progress | None,
    *,
    alone: bool = False,
) -> NDArray[Any]:
    """x_0 : shape, each shard sampled separately on its rank, since samples are independent."""
    result: NDArray[Any] = flat_buffer(int(np.prod(shape)), network.dtype, network.device).reshape(shape)

    def body(part: slice, i: int) -> None:
        x: Any = None
        with no_grad(), Arena():
            shard, start = walk(part)
            for k, x in enumerate(shard.moments(start)):  # noqa: B007  the last is x_0
                if progress is not None and i == 0 and k:
                    progress(k, steps)
            result[part] = x

    over_shards(shape[0], body, network.device, min(shards or cores(), shape[0]), into=[result], alone=alone)
    return result
