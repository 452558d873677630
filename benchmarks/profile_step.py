"""Where the time of a training step goes: into each primitive, forward and backward, and into the tape.

    python -m benchmarks.profile_step [--size tiny] [--steps 12]

It runs one shard in this process, with half of the size's batch, on one BLAS thread, as a worker on two cores does. Every
primitive and every adjoint is timed from outside, in CPU time of the thread, which other programs disturb less. "tape" is the
rest of forward and backward: Tensors, nodes, sums of gradients, model code. The last line is the same graph on arrays so small
that only Python and NumPy's dispatch remain.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

import numpy as np
from threadpoolctl import threadpool_limits

import minidit as md
from benchmarks.fixtures import config_of, draw_inputs, draw_weights
from benchmarks.sizes import SIZES, Size
from minidit import ops
from minidit.autograd import Gradients, Primitive
from minidit.backend import Arena, flat_buffer
from minidit.optim import AdamW, OptimConfig

FORWARD, BACKWARD = 0, 1


@dataclass
class Clock:
    """Seconds inside primitives and adjoints, by name; a primitive inside another counts as part of the outer one."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(lambda: [0.0, 0.0]))
    calls: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    open: bool = False

    def timed(self, name: str, way: int, f: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **static: Any) -> Any:
            if self.open:
                return f(*args, **static)
            self.open, start = True, time.thread_time()
            try:
                return f(*args, **static)
            finally:
                self.seconds[name][way] += time.thread_time() - start
                self.open = False

        return run

    def watch(self) -> Any:
        """A context in which Primitive.pair, the adjoints that it returns and the gradients that they postpone are timed."""
        pair, clock = Primitive.pair, self

        def watched(p: Primitive, *arrays: Any, **static: Any) -> Any:
            name = p.__name__  # type: ignore[attr-defined]
            y, vjp = clock.timed(name, FORWARD, pair)(p, *arrays, **static)
            clock.calls[name] += 1
            adjoint = clock.timed(name, BACKWARD, vjp)

            def vjp_of(*bars: Any) -> tuple[Any, ...]:
                return tuple(clock.timed(name, BACKWARD, b) if callable(b) else b for b in adjoint(*bars))

            return y, vjp_of

        return mock.patch.object(Primitive, "pair", watched)


class Shard:
    """One training step of one shard: gradients in an arena, then the optimiser."""

    def __init__(self, size: Size) -> None:
        self.model = md.DiT(config_of(size))
        self.model.load_state_dict(draw_weights(size))
        self.data = draw_inputs(size, size.batch)
        self.optimiser, self.n = AdamW(self.model, OptimConfig(), 10**9), 0
        self.share = np.full(size.batch, 1 / size.batch, np.float32)
        self.buffer, self.arena = flat_buffer(self.model.layout.size), Arena()
        self.home = Gradients([p.data for p in self.model.parameters()], self.model.views(self.buffer))

    def gradients(self) -> None:
        with self.arena, self.home:
            ops.mse(self.model(*(self.data[k] for k in ("x_t", "t", "y"))), self.data["target"]).backward(self.share)

    def update(self) -> None:
        self.n += 1
        self.optimiser.step(self.buffer, self.n)


def milliseconds(f: Callable[[], None], steps: int) -> float:
    """The median time of f."""
    times = []
    for _ in range(steps):
        start = time.thread_time()
        f()
        times.append(1e3 * (time.thread_time() - start))
    return statistics.median(times)


def profile(size: Size, steps: int) -> None:
    shard = Shard(size)
    milliseconds(shard.gradients, 3)
    plain, clock, watched = [], Clock(), []
    for _ in range(steps):  # in turn, so that a change of the machine's speed affects both
        plain.append(milliseconds(shard.gradients, 1))
        with clock.watch():
            watched.append(milliseconds(shard.gradients, 1))
    update = milliseconds(shard.update, steps)
    whole, alone = float(np.mean(watched)), float(np.mean(plain))
    print(f"{size.name}, {size.batch} samples in one shard, mean of {steps} steps\n")
    print(f"{'primitive':<24}{'calls':>6}{'forward ms':>12}{'backward ms':>13}{'share':>8}")
    inside = 0.0
    for name, (f, b) in sorted(clock.seconds.items(), key=lambda item: -sum(item[1])):
        f, b = 1e3 * f / steps, 1e3 * b / steps
        inside += f + b
        print(f"{name:<24}{clock.calls[name] // steps:>6}{f:>12.2f}{b:>13.2f}{(f + b) / whole:>8.1%}")
    print(f"{'tape (the rest)':<24}{'':>6}{'':>12}{whole - inside:>13.2f}{(whole - inside) / whole:>8.1%}")
    print(f"{'forward + backward':<24}{'':>6}{'':>12}{whole:>13.2f}    (without the timers {alone:.2f})")
    print(f"{'AdamW and EMA':<24}{'':>6}{'':>12}{update:>13.2f}    (a worker does only its part)")


def smallest(size: Size) -> Size:
    """A size of the same graph with almost no arithmetic."""
    return replace(size, batch=1, input_size=size.patch, width=4 * size.heads)


def main() -> None:
    parser = argparse.ArgumentParser(description="where a training step's time goes", prog="python -m benchmarks.profile_step")
    parser.add_argument("--size", choices=list(SIZES), default="tiny")
    parser.add_argument("--steps", type=int, default=12)
    args = parser.parse_args()
    size = replace(SIZES[args.size], batch=SIZES[args.size].batch // 2)
    with threadpool_limits(1):
        profile(size, args.steps)
        empty = milliseconds(Shard(smallest(size)).gradients, 10 * args.steps)
    print(f"\nthe same graph, {size.depth} blocks, on arrays of a few numbers: {empty:.2f} ms, all of it Python and dispatch")


if __name__ == "__main__":
    main()
