"""The training loop that every process shares: a batch is cut into shards, their gradients are summed, one update is made.

    for every shard:   gradient_i = ∂/∂θ Σ_b loss_b / batch, over its samples      (own tape, own memory)
    gradient = (gradient_0 + gradient_1) + …   always in the order of total.py, on any workers and any number of ranks
    clip, AdamW, EMA   each worker on its range of the flat vectors, every rank on all of them

A loss draws from the `Draws` of its update only, so a run that is interrupted and resumed computes the same numbers. On a
GPU the whole update is one function of device arrays, one of them its own number, and is recorded as a CUDA graph.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidit.autograd import Anomaly, Gradients, Tensor, value, watcher, watching
from minidit.backend import Arena, Array, flat_buffer, xp_of
from minidit.choices import check_words, one_of
from minidit.keywords import suggesting
from minidit.nn.device import can_record, recorded
from minidit.nn.module import Trainable
from minidit.nn.precision import POLICIES, check_precision, computing_in, copy_of
from minidit.nn.recompute import recomputing
from minidit.optim import AdamW, OptimConfig, clip_factor, learning_rate
from minidit.training.draws import Clock, Draws
from minidit.training.process import Process
from minidit.training.ranks import ranks
from minidit.training.source import Source, check_finite
from minidit.training.total import Total
from minidit.training.workers import Workers, cores, kind_of_workers, shard_of

GRADIENTS, REDUCE, UPDATE, REST = range(4)
NUMBERS = 8  # maximum number of values, besides the loss, that an update may return


class RunError(RuntimeError):
    """Something went wrong while running: a diverged loss, a full disk. The message says what to do."""


class Diverged(RunError):
    """Numbers are no longer finite: the same settings would end in the same place."""


def gentler(config: OptimConfig) -> str:
    """What keeps such a training finite, as far as its configuration does not have it yet."""
    return f"try a lower --lr than {config.lr:g}" + ("" if 0 < config.clip <= 1 else ", or --clip 1")


def diverged(what: str, update: int, config: LoopConfig, cause: str = "") -> str:
    """The message for a training whose numbers are no longer finite."""
    anomaly = "" if config.detect_anomaly else "; --detect-anomaly finds the first"
    return f"{what} at update {update}{f' ({cause})' if cause else anomaly}: {gentler(config)}"


def stacked(numbers: list[Array]) -> Array:
    """() arrays as one of one axis. Of more than eight at once CuPy makes a table on the host, which a recording forbids."""
    xp = xp_of(*numbers)
    eights = [xp.stack(numbers[k : k + 8]) for k in range(0, len(numbers), 8)]
    return eights[0] if len(eights) == 1 else xp.concatenate(eights)


@suggesting
@dataclass(frozen=True)
class LoopConfig(OptimConfig):
    """Training length and batching."""

    steps: int = 1000  # updates of the weights
    batch_size: int = 64  # samples per update
    seed: int = 0  # of the initial weights and of all noise
    shards: int = 0  # pieces of a batch that run in parallel, each on one core of any rank; 0: one per core
    precision: str = one_of("float32", POLICIES)  # of the products; tf32 and bf16 on a GPU, bf16 on a CPU with the extra mkl
    accumulate: int = 1  # pieces of a shard, one after the other: less memory, the same batch
    graph: bool = True  # on a GPU: record an update as a CUDA graph and replay it
    detect_anomaly: bool = False  # look at every number as it is computed: slow, and not recorded on a GPU
    checkpoint_blocks: bool = False  # keep only the inputs of each block and recompute the rest: less memory, a third more work

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("steps", "batch_size", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least 1")
        check_words(self)
        if self.shards < 0:
            raise ValueError(f"shards = {self.shards} must be 0 (automatic) or more")

    def pieces(self, device: str) -> int:
        """The number of shards that a batch is cut into on this device. Raises ValueError if a rank would get none."""
        shards, count = min(self.batch_size, self.shards or cores()) if device == "cpu" else ranks().count, ranks().count
        if min(shards, self.batch_size) < count:
            raise ValueError(f"{count} ranks share {shards} shards of a batch of {self.batch_size}, so that some have nothing to "
                             f"do: start fewer of them, or ask for --threads {count} and a larger --batch-size")  # fmt: skip
        return shards


@dataclass(frozen=True)
class ShortRecipe(LoopConfig):
    """A short training. The number of updates matters most, so batches are small and the large rate decays to nearly zero."""

    lr: float = 5e-3
    betas: tuple[float, float] = (0.9, 0.99)
    warmup: int = 20
    final_lr: float = 0.02
    clip: float = 1.0
    ema: float = 0.99
    batch_size: int = 32


class Loop:
    """One training of one network. `for record in loop.run(): …` yields {"step", "loss", "lr", "grad_norm", …} per update."""

    def __init__(
        self, network: Trainable, process: Process, source: Source, config: LoopConfig, *, kind: str | None = None
    ) -> None:
        self.model, self.process, self.source, self.config = network, process, source, config
        self.device = network.device
        self.ranks, self.shards = ranks(), config.pieces(self.device)
        self.held = [shard_of(self.shards, self.ranks.count, r) for r in range(self.ranks.count)]  # the shards of every rank
        self.mine = range(self.shards)[self.held[self.ranks.me]]
        self.kind = kind or kind_of_workers(len(self.mine), self.device)
        check_precision(config.precision, self.device)
        self.optimiser = AdamW(network, config, config.steps)
        self.done, self.stop = 0, False  # updates made so far; set `stop` on any rank to end all after the current one
        size, arrays = network.layout.size, [p.data for p in network.parameters()]
        self.buffers = [flat_buffer(size, network.dtype, self.device) for _ in self.mine]
        self.total = Total(self.ranks, self.shards, self.buffers)
        self.gradients = [Gradients(arrays, network.views(b)) for b in self.buffers]
        self.arenas = [Arena() for _ in self.mine]
        self.numbers = flat_buffer(self.shards * (NUMBERS + 2), np.float64).reshape(self.shards, NUMBERS + 2)
        self.names: list[str] = []
        self.samples = np.arange(config.batch_size)
        self.draws = Draws(config.seed, process.stream, self.samples, self.device, network.dtype, process.per,
                           batch_size=config.batch_size)  # fmt: skip
        self.shares: dict[int, Array] = {}

    def run(self) -> Iterator[dict[str, Any]]:
        """Trains from rank 0's weights and `done` to config.steps. Raises Diverged if loss or gradient are no longer finite.

        On a CPU the weights are then still those before the update, and the message names the layer. Who changes weights
        between two updates calls `optimiser.weights_changed()`.
        """
        if len(set(self.ranks.all_of(len(self.source)))) > 1:
            raise RunError("the ranks have different numbers of samples: give all of them the same data")
        self.done = self.ranks.same(self.done)
        for vector in (self.model.flat, *self.optimiser.state_dict().values()):
            self.ranks.share(vector)
        self.optimiser.copy = None
        record = not self.config.detect_anomaly and can_record(self.device, self.model.dtype, "the update")
        return self._on_the_device() if record else self._on_the_host()

    def _on_the_device(self) -> Iterator[dict[str, Any]]:
        clock = Clock(self.device, self.config.batch_size)
        clock.set(self.done)
        samples = clock.samples
        if not self.ranks.alone:
            samples = samples[shard_of(self.config.batch_size, self.shards, self.ranks.me)]
        draws, names = self.draws.at(clock, samples), list[str]()
        self.optimiser.copy = copy_of(self.model.flat, self.config.precision)

        def update() -> Array:
            """One update, counted by the clock on the device  ->  its numbers, in the order of `names`."""
            with self._computing(0):
                totals = self._gradients(draws)
            totals = self._of_all_ranks(totals)
            totals["grad_norm"] = self.optimiser.counted_step(self.total.everywhere(), clock.done)
            names[:] = totals
            return stacked(list(totals.values()))

        replayed = recorded(update, "the update") if self.config.graph else update
        while self.done < self.config.steps and not self.ranks.agree(self.stop):
            clock.follow(self.done)
            numbers = replayed().copy()  # the next update overwrites this result
            self.done += 1
            rate = learning_rate(self.config, self.done, self.config.steps)
            yield {"step": self.done, **dict(zip(names, numbers, strict=True)), "lr": rate}

    def _on_the_host(self) -> Iterator[dict[str, Any]]:
        with Workers(len(self.mine), self._body, self.kind, limited=self.shards > 1) as workers:
            while self.done < self.config.steps and not self.ranks.agree(self.stop):
                workers.run(GRADIENTS, self.done)
                workers.run(REDUCE, self.done)
                if not self.ranks.alone and self.device == "cpu":
                    self.total.swap()
                    workers.run(REST, self.done)
                    self.total.gather()
                    self.ranks.gather(self.numbers, self.held)
                self._look()
                workers.run(UPDATE, self.done)
                self.done += 1
                yield self._record()

    def _look(self) -> None:
        """Raises RunError unless this update's loss and gradient are finite; on a GPU reading them would wait for it."""
        if self.device != "cpu":
            return
        loss = float(self.numbers[:, self.names.index("loss")].sum())
        if not math.isfinite(loss):
            raise Diverged(diverged(f"the loss is {loss}", self.done + 1, self.config, self._anomaly()))
        if not math.isfinite(self._norm()) and not np.isfinite(self.buffers[0]).all():  # the norm alone may overflow
            raise Diverged(diverged("the gradient is not finite", self.done + 1, self.config, self._anomaly()))

    def _anomaly(self) -> str:
        """The same for all ranks."""
        return next((text for text in self.ranks.all_of(self._first_anomaly()) if text), "")

    def _first_anomaly(self) -> str:
        """Where the first number that is not finite comes from: the gradients of this update, computed again and watched."""
        try:
            for name, p in self.model.named_parameters():
                if not np.isfinite(p.data).all():
                    return f"the weights {name} are not finite"
            with watching(self.model):
                for i in range(len(self.mine)):
                    self._body(i, GRADIENTS, self.done)
        except Anomaly as anomaly:
            return str(anomaly)
        return ""

    def _body(self, i: int, stage: int, update: int) -> None:
        if stage == GRADIENTS:
            with self._computing(i):
                samples = self.samples[shard_of(self.config.batch_size, self.shards, self.mine[i])]
                totals = self._gradients(self.draws.at(update, samples))
            self.names = list(totals)
            if self.device == "cpu":
                self.numbers[self.mine[i], : len(totals)] = list(totals.values())
            else:
                self.totals = self._of_all_ranks(totals)
        elif stage == REDUCE and self.device != "cpu":
            total = self.total.everywhere()
            self.square = xp_of(total).dot(total, total)
        elif stage == REDUCE:
            total = self.total.branches(shard_of(self.model.layout.size, len(self.mine), i))
            if self.ranks.alone:
                self.numbers[i, -1] = total.dot(total)
        elif stage == REST:
            total = self.total.rest(shard_of(self.model.layout.size, self.shards, self.mine[i]))
            self.numbers[self.mine[i], -1] = total.dot(total)
        else:
            part = shard_of(self.model.layout.size, len(self.mine), i)
            factor = clip_factor(self._norm(), self.config.clip)
            self.optimiser.step(self.buffers[0], update + 1, factor=factor, part=part)

    @contextmanager
    def _computing(self, i: int) -> Iterator[None]:
        """Memory, gradients and precision of shard i."""
        policy = computing_in(self.config.precision, self.device, self.model.flat, self.optimiser.copy)
        watch = watching(self.model) if self.config.detect_anomaly else nullcontext()
        try:
            with self.arenas[i], self.gradients[i], policy, recomputing(self.config.checkpoint_blocks), watch:
                yield
        except Anomaly as anomaly:
            if not self.config.detect_anomaly:
                raise
            raise Diverged(diverged("numbers are not finite", self.done + 1, self.config, str(anomaly))) from anomaly

    def _gradients(self, draws: Draws) -> dict[str, Any]:
        """The gradient of a shard, its samples in `accumulate` pieces one after the other  ->  its share of loss and numbers."""
        totals: dict[str, Any] = {}
        for k in range(self.config.accumulate):
            samples = draws.samples
            if self.config.accumulate > 1:
                samples = samples[shard_of(len(samples), self.config.accumulate, k)]
            if not len(samples):
                continue
            piece = draws.at(draws.when, samples)  # with no draws used yet
            index = piece.pictures(len(self.source))
            x_0, y = self.source.draw(index, piece)
            if watcher() is not None:
                check_finite(x_0, index)
            loss, more = self.process.loss(self.model, x_0, y, piece)
            if not isinstance(loss, Tensor):
                raise TypeError(f"{type(self.model).__name__} answers a plain array, through which nothing is learned: "
                                "compute with operators of Tensors and minidit.ops, without NumPy and .data")  # fmt: skip
            loss.backward(self._share(loss.data))
            for name, numbers in {"loss": loss.data, **more}.items():
                share = value(numbers).sum() / self.config.batch_size
                totals[name] = totals[name] + share if name in totals else share
        return totals

    def _of_all_ranks(self, totals: dict[str, Any]) -> dict[str, Any]:
        """The numbers of an update on a GPU, summed over the ranks there."""
        if self.ranks.alone:
            return totals
        xp = xp_of(*totals.values())
        table = xp.zeros((self.ranks.count, len(totals)), self.model.dtype)
        table[self.ranks.me] = stacked([xp.asarray(number, table.dtype) for number in totals.values()])
        self.ranks.gather(table, [slice(r, r + 1) for r in range(self.ranks.count)])
        return dict(zip(totals, table.sum(axis=0), strict=True))

    def _share(self, losses: Array) -> Array:
        """1/batch for every loss of a piece, (B,); cached."""
        if len(losses) not in self.shares:
            self.shares[len(losses)] = xp_of(losses).full(losses.shape, 1 / self.config.batch_size, losses.dtype)
        return self.shares[len(losses)]

    def _norm(self) -> Any:
        if self.device == "cpu":
            return math.sqrt(float(self.numbers[:, -1].sum()))
        return xp_of(self.square).sqrt(self.square)

    def _record(self) -> dict[str, Any]:
        """The numbers of the update just made; on a GPU they stay there until their values are read."""
        step = self.done
        if self.device == "cpu":
            sums = self.numbers.sum(axis=0)
            totals: dict[str, Any] = {name: float(sums[k]) for k, name in enumerate(self.names)}
        else:
            totals = self.totals
        return {"step": step, **totals, "lr": learning_rate(self.config, step, self.config.steps), "grad_norm": self._norm()}
