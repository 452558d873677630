"""Walking down the rungs on a GPU: where one is, the coefficients of each step and its noise are read from the device.

    row ← 0;    for each (t, s):   out = network(x, time[t_row]),   x ← one kernel(x, out, z, table[row]),   row ← row + 1

So a step is the same function of the same arrays at every rung, and can be recorded as a CUDA graph (two where a guidance
interval leaves the unconditional half out at some rungs).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidit.autograd import kernels_on, value
from minidit.backend import Array, xp_of
from minidit.diffusion.guidance import interval
from minidit.diffusion.prediction import PREDICTIONS
from minidit.kernels import cuda
from minidit.kernels.cuda_graph import Captured
from minidit.kernels.cuda_laws import Philox, guided_step
from minidit.processes.train import at_time


@dataclass
class Moment:
    """What a trace shows: the picture at rung t, the network's guess of the clean one, and the next rung s."""

    t: int
    s: int
    x_t: Array
    x_0_hat: Array


def walks_on_the_device(sampler: Any) -> bool:
    """Whether a Sampler's steps are of the kind that the kernel knows, and the kernel is there."""
    model, known = sampler.model, any(sampler.prediction is p for p in PREDICTIONS.values())
    here = model.device != "cpu" and model.dtype == np.float32 and kernels_on()
    return here and known and hasattr(sampler.step, "stds") and cuda.available("diffusion") and cuda.available("philox")


class DeviceWalk:
    """One walk of a Sampler: x : (B, C, H, W) moves down in place."""

    def __init__(self, sampler: Any, samples: Array, y: Array | None, x_T: Array, stream: int) -> None:
        self.sampler, self.samples, self.pairs = sampler, samples, sampler.pairs
        xp, sch, self.n = xp_of(x_T), sampler.sch, len(x_T)
        self.w = [interval(sampler.guidance, t, sampler.low, sampler.high) if y is not None else 1.0 for t, _ in self.pairs]
        self.y, self.both = y, y if y is None else xp.concatenate((y, xp.full_like(y, sampler.model.null_label)))
        rows = [(sch.alpha_bar[t], sch.alpha_bar[s], *sampler.step.stds(t, s, sch)) for t, s in self.pairs]
        self.table = xp.asarray(np.array(rows, np.float64))
        self.rungs, self.row = xp.asarray(np.array([t for t, _ in self.pairs])), xp.zeros((1,), np.int64)
        self.noisy = getattr(sampler.step, "noisy", True)
        self.rng = Philox(sampler.seed, stream)
        self.x = x_T.copy()

    def step(self, w: float, *, guess: bool = False) -> Array:
        """One step down, and x̂_0 on the way if asked for; w = 1: the conditional half only."""
        sampler, x, xp, n, channels = self.sampler, self.x, xp_of(self.x), self.n, self.x.shape[1]
        t = self.rungs[self.row]
        guided = w != 1
        time = at_time(sampler.sch, xp.broadcast_to(t, (2 * n if guided else n,)))
        out = value(sampler.model(xp.concatenate((x, x)) if guided else x, time, self.both if guided else self.y))
        z = None
        if self.noisy:
            self.rng.counter, self.rng.state = t, 0  # the noise of a rung is its own, also into s = 0, where it is not used
            z = self.rng.normal(x.shape, self.samples, sampler.model.device, x.dtype)
        halves = {"out_u": out[n:, :channels], "w": w} if guided else {}
        laws = {"z": z, "predicts": sampler.prediction.name, "clip": sampler.clip, "guess": guess, "into": x}
        _, x_0_hat = guided_step(x, out[:n, :channels], self.table, self.row, **halves, **laws)
        self.row += 1
        return x_0_hat

    def moments(self) -> Iterator[Moment | Array]:
        """A Moment a step, and x_0 at the end."""
        for (t, s), w in zip(self.pairs, self.w, strict=True):
            x_t = self.x.copy()
            yield Moment(t, s, x_t, self.step(w, guess=True))
        yield self.x

    def run(self, graph: bool, progress: Callable[[int, int], None] | None) -> Array:
        """The whole way down  ->  x_0."""
        steps: dict[float, Any] = {}
        for k, w in enumerate(self.w):
            if w not in steps:
                step = lambda w=w: self.step(w)
                steps[w] = Captured(step, "the sampling step") if graph else step
            steps[w]()
            if progress is not None:
                progress(k + 1, len(self.pairs))
        return self.x
