"""The training loop that every recipe shares: a batch is cut into shards, their gradients are summed, one step is taken.

    for every shard:   gradient_i = ∂/∂θ Σ losses of its samples / batch      (own tape, own memory)
    gradient = gradient_1 + gradient_2 + …   in this order, whatever ran them
    clip, AdamW, EMA   each worker on its range of the flat vectors

A loss is a function of (step, samples): everything random in it comes from a stream that starts at the step, so a run that
is interrupted and resumed computes the same numbers. On a GPU the whole step is one function of arrays that live there, the
number of the step among them, and is recorded as a CUDA graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidit.autograd import Gradients, Tensor, value
from minidit.backend import Arena, Array, flat_buffer, xp_of
from minidit.kernels import cuda_laws
from minidit.kernels.cuda_graph import Captured, explain, obstacle
from minidit.nn.module import Module
from minidit.nn.precision import POLICIES, check_precision, computing_in
from minidit.nn.recompute import recomputing
from minidit.optim import AdamW, OptimConfig, clip_factor, learning_rate
from minidit.training.clock import Clock
from minidit.training.workers import Workers, cores, kind_of_workers, shard_of

LossOf = Callable[[Any, Array], tuple[Tensor, dict[str, Any]]]  # one with `clocked = True` is also asked with a Clock as step
GRADIENTS, REDUCE, UPDATE = range(3)
NUMBERS = 8  # at most so many numbers besides the loss may come back from a step


class RunError(RuntimeError):
    """Something went wrong while running: a diverged loss, a full disk. The message says what to do."""


def diverged(loss: float, step: int) -> str:
    """What to say of a loss that is no longer a number."""
    return f"the loss is {loss} at step {step}: try a smaller --lr, or --clip 1"


@dataclass(frozen=True)
class LoopConfig(OptimConfig):
    """How long and in which pieces to train."""

    steps: int = 1000
    batch_size: int = 64
    seed: int = 0
    shards: int = 0  # pieces of a batch that run side by side, each on one core; 0: as many as there are cores
    precision: str = "float32"  # float32, tf32 (GPU) or bf16 (GPU; on a CPU with the extra mkl): see nn/precision.py
    accumulate: int = 1  # pieces of a shard, one after the other: less memory, the same batch
    graph: bool = True  # on a GPU: record a step as a CUDA graph and replay it
    checkpoint_blocks: bool = False  # keep the inputs of a block only and compute the rest again: less memory, a third more work

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("steps", "batch_size", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least 1")
        if self.precision not in POLICIES:
            raise ValueError(f"precision {self.precision!r} is not one of {', '.join(POLICIES)}")
        if self.shards < 0:
            raise ValueError(f"shards = {self.shards} must be 0 (automatic) or more")

    def pieces(self, device: str) -> int:
        """How many shards a batch is cut into on this device."""
        if device != "cpu":
            return 1
        return min(self.batch_size, self.shards or cores())


class Loop:
    """One training run of one model. `for record in loop.run(): …` yields {"step", "loss", "lr", "grad_norm", …} a step."""

    def __init__(self, model: Module, loss_of: LossOf, config: LoopConfig, *, kind: str | None = None) -> None:
        self.model, self.loss_of, self.config = model, loss_of, config
        self.device = model.device
        self.shards = config.pieces(self.device)
        self.kind = kind or kind_of_workers(self.shards, self.device)
        check_precision(config.precision, self.device)
        self.optimiser = AdamW(model, config, config.steps)
        self.done, self.stop = 0, False  # steps taken so far; set `stop` to end after the step
        size, arrays = model.layout.size, [p.data for p in model.parameters()]
        self.buffers = [flat_buffer(size, model.dtype, self.device) for _ in range(self.shards)]
        self.gradients = [Gradients(arrays, model.views(b)) for b in self.buffers]
        self.arenas = [Arena() for _ in range(self.shards)]
        self.numbers = flat_buffer(self.shards * (NUMBERS + 2), np.float64).reshape(self.shards, NUMBERS + 2)
        self.names: list[str] = []

    def run(self) -> Iterator[dict[str, Any]]:
        """Trains from `done` to config.steps. Raises RunError when the loss is no longer a number."""
        why_not = "" if self.device == "cpu" else self._obstacle()
        if self.device == "cpu" or why_not:
            if why_not:
                explain("the training step", why_not)
            return self._on_the_host()
        return self._on_the_device()

    def _obstacle(self) -> str:
        """Why the step cannot be a function of arrays on the device alone, or ""."""
        return obstacle(self.model.dtype) if getattr(self.loss_of, "clocked", False) else "this loss is counted on the host"

    def _on_the_device(self) -> Iterator[dict[str, Any]]:
        clock = Clock(self.device, self.config.batch_size)
        clock.set(self.done)
        step: Any = lambda: self._whole_step(clock)
        step = Captured(step, "the training step") if self.config.graph else step
        while self.done < self.config.steps and not self.stop:
            clock.follow(self.done)
            numbers = step().copy()  # the next step writes over what this one returned
            self.done += 1
            rate = learning_rate(self.config, self.done, self.config.steps)
            yield {"step": self.done, **dict(zip(self.names, numbers, strict=True)), "lr": rate}

    def _whole_step(self, clock: Clock) -> Array:
        """One step, which the clock on the device counts  ->  the numbers that `names` names."""
        with self._computing(0):
            self._gradients(0, clock, clock.samples)
        square = cuda_laws.square_sum(self.buffers[0])
        self.optimiser.counted_step(self.buffers[0], clock.done, square)
        self.names = [*self.totals, "grad_norm"]
        return xp_of(square).stack([*self.totals.values(), square**0.5])

    def _on_the_host(self) -> Iterator[dict[str, Any]]:
        with Workers(self.shards, self._body, self.kind) as workers:
            while self.done < self.config.steps and not self.stop:
                for phase in (GRADIENTS, REDUCE, UPDATE):
                    workers.run(phase, self.done)
                self.done += 1
                yield self._record()

    def _body(self, i: int, phase: int, step: int) -> None:
        if phase == GRADIENTS:
            with self._computing(i):
                mine = np.arange(self.config.batch_size)[shard_of(self.config.batch_size, self.shards, i)]
                self._gradients(i, step, mine)
        elif phase == REDUCE:
            part = shard_of(self.model.layout.size, self.shards, i)
            total = self.buffers[0][part]
            for other in self.buffers[1:]:
                total += other[part]
            square = xp_of(total).dot(total, total)
            if self.device == "cpu":
                self.numbers[i, -1] = square
            else:
                self.square = square
        else:
            part = shard_of(self.model.layout.size, self.shards, i)
            factor = clip_factor(self._norm(), self.config.clip)
            self.optimiser.step(self.buffers[0], step + 1, factor=factor, part=part)

    @contextmanager
    def _computing(self, i: int) -> Iterator[None]:
        """Memory, gradients and precision of shard i."""
        policy = computing_in(self.config.precision, self.device, self.model.flat)
        with self.arenas[i], self.gradients[i], policy, recomputing(self.config.checkpoint_blocks):
            yield

    def _gradients(self, i: int, step: int | Clock, mine: Array) -> None:
        """The gradient of shard i, its samples in `accumulate` pieces one after the other."""
        totals: dict[str, Any] = {}
        for k in range(self.config.accumulate):
            samples = mine[shard_of(len(mine), self.config.accumulate, k)] if self.config.accumulate > 1 else mine
            if not len(samples):
                continue
            loss, more = self.loss_of(step, samples)
            loss.backward()
            for name, number in {"loss": loss.data, **more}.items():
                totals[name] = totals[name] + value(number) if name in totals else value(number)
        self.names = list(totals)
        if self.device == "cpu":
            self.numbers[i, : len(totals)] = list(totals.values())
        else:
            self.totals = totals

    def _norm(self) -> Any:
        if self.device == "cpu":
            return math.sqrt(float(self.numbers[:, -1].sum()))
        return xp_of(self.square).sqrt(self.square)

    def _record(self) -> dict[str, Any]:
        """The numbers of the step just taken; on a GPU they stay there until somebody asks for their value."""
        step = self.done
        if self.device == "cpu":
            sums = self.numbers.sum(axis=0)
            totals: dict[str, Any] = {name: float(sums[k]) for k, name in enumerate(self.names)}
            if not math.isfinite(totals["loss"]):
                raise RunError(diverged(totals["loss"], step))
        else:
            totals = self.totals
        return {"step": step, **totals, "lr": learning_rate(self.config, step, self.config.steps), "grad_norm": self._norm()}
