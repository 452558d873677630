"""An update and a guided sampling step of the networks with streams, and of those on clips, beside PyTorch eager with its fused
attention, on a CPU.

    python -m benchmarks.streams --rounds 7                            needs torch (the extra `peers`)
    python -m benchmarks.streams --rounds 7 --threads 1 --cpu-time     where other programs keep the machine busy

The same weights and inputs. An update is loss, gradient and AdamW (ours has the average of the weights besides); a guided step is
the network on 2 B samples, (G.1), and one Euler step.

On several cores minidit shares the batch among processes with one BLAS thread each, as `minidit train` and `minidit sample` do.
The row "one process" has as many BLAS threads instead as PyTorch has threads. All take turns, round by round; the figure is the
median of the ratios, as times as fast as PyTorch.

Where OPENBLAS_CORETYPE is set, NumPy computes with the kernels of another processor. To compare what a user has, run the command
after `env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE`. The last line says which kernels these were.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from threadpoolctl import ThreadpoolController

from benchmarks.machine import Others, cores, machine
from benchmarks.torch_streams import Flux as TorchFlux
from benchmarks.torch_streams import MMDiT as TorchMMDiT
from benchmarks.torch_streams import Spacetime as TorchSpacetime
from minidit import ops
from minidit.autograd import Gradients, no_grad
from minidit.backend import Arena, flat_buffer
from minidit.kernels.blas import name_of_blas
from minidit.models.flux import Flux
from minidit.models.flux_config import FLUX
from minidit.models.mmdit import MMDiT
from minidit.models.mmdit_config import MMDIT
from minidit.models.spacetime import SpacetimeDiT
from minidit.models.spacetime_config import SPACETIME
from minidit.optim import AdamW, OptimConfig
from minidit.random import Philox
from minidit.training.loop import GRADIENTS, REDUCE, UPDATE
from minidit.training.workers import Workers, shard_of

GUIDANCE, STEP = 2.0, -0.05
GUIDED = 100  # a stage of the workers, besides those of training
KINDS: Sequence[tuple[Any, Any, Any]] = (
    (MMDIT, MMDiT, TorchMMDiT),
    (FLUX, Flux, TorchFlux),
    (SPACETIME, SpacetimeDiT, TorchSpacetime),
)


def networks(name: str) -> tuple[Any, Any]:
    """(ours, theirs): random weights, the same in both."""
    configs, ours, theirs = next(kind for kind in KINDS if name in kind[0])
    model, peer, r = ours(configs[name], Philox(0)), theirs(configs[name]), np.random.default_rng(0)
    for p in model.parameters():
        p.data[...] += 0.05 * r.standard_normal(p.data.shape)
    peer.load_state_dict({n: torch.from_numpy(a.copy()) for n, a in model.state_dict().items()})
    return model, peer


def inputs(model: Any, batch: int) -> tuple[Any, ...]:
    """x_t, t, y and the target."""
    r = np.random.default_rng(1)
    x, target = (r.standard_normal((batch, *model.shape), dtype=np.float32) for _ in range(2))
    condition = model.condition
    return x, r.uniform(0, 1000, batch), r.integers(1, condition.count, (batch, *condition.shape)), target


class Ours:
    """`with Ours(…) as ours:` in shards of the batch, one process each; with a single shard, in this process."""

    def __init__(self, model: Any, data: tuple[Any, ...], shards: int) -> None:
        self.model, self.data, self.batch, self.shards, self.n = model, data, len(data[0]), shards, 0
        arrays, size = [p.data for p in model.parameters()], model.layout.size
        self.flats, self.arenas = [flat_buffer(size) for _ in range(shards)], [Arena() for _ in range(shards)]
        self.buffers = [Gradients(arrays, model.views(flat)) for flat in self.flats]
        self.optimiser = AdamW(model, OptimConfig(lr=1e-4, weight_decay=0.01, clip=0.0, warmup=0), 10**6)
        self.x_s, self.seconds = flat_buffer(data[0].size).reshape(data[0].shape), flat_buffer(shards, np.float64)
        # limited=False: that limit is one of all libraries of this process, PyTorch's threads among them
        self.workers = Workers(shards, self.body, "process" if shards > 1 else "serial", limited=False)

    def __enter__(self) -> Ours:
        self.workers.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.workers.__exit__()

    def body(self, i: int, stage: int, n: int) -> None:
        began = time.process_time()
        part = shard_of(len(self.flats[0]), self.shards, i)
        if stage == GRADIENTS:
            self.gradient(i)
        elif stage == REDUCE:
            for flat in self.flats[1:]:
                np.add(self.flats[0][part], flat[part], out=self.flats[0][part])
        elif stage == UPDATE:
            self.optimiser.step(self.flats[0], n, part=part)
        else:
            self.guided(i)
        if i:
            self.seconds[i] += time.process_time() - began

    def gradient(self, i: int) -> None:
        x, t, y, target = (a[shard_of(self.batch, self.shards, i)] for a in self.data)
        with self.arenas[i], self.buffers[i]:
            ops.mse(self.model(x, t, y), target).backward(np.full(len(x), 1 / self.batch, np.float32))

    def guided(self, i: int) -> None:
        part = shard_of(self.batch, self.shards, i)
        x, t, y, _ = (a[part] for a in self.data)
        with self.arenas[i], no_grad():
            both = self.model(np.concatenate((x, x)), np.concatenate((t, t)), np.concatenate((y, self.model.null(y)))).data
            c, u = both[: len(x)], both[len(x) :]
            self.x_s[part] = x + STEP * (u + GUIDANCE * (c - u))

    def gradients(self) -> None:
        self.workers.run(GRADIENTS)
        if self.shards > 1:
            self.workers.run(REDUCE)

    def update(self) -> None:
        self.gradients()
        self.n += 1
        self.workers.run(UPDATE, self.n)

    def sample(self) -> None:
        self.workers.run(GUIDED)


class Theirs:
    """The same in PyTorch eager."""

    def __init__(self, peer: Any, data: tuple[Any, ...], null: Any) -> None:
        self.peer, self.data, self.null = peer, tuple(map(torch.from_numpy, data)), torch.from_numpy(np.array(null))
        self.optimiser = torch.optim.AdamW(peer.parameters(), lr=1e-4, weight_decay=0.01)

    def gradients(self) -> None:
        x, t, y, target = self.data
        self.optimiser.zero_grad(set_to_none=True)
        ((self.peer(x, t, y) - target) ** 2).mean().backward()

    def update(self) -> None:
        self.gradients()
        self.optimiser.step()

    def sample(self) -> None:
        x, t, y, _ = self.data
        with torch.no_grad():
            both = self.peer(torch.cat((x, x)), torch.cat((t, t)), torch.cat((y, self.null)))
            c, u = both.chunk(2)
            self.x_s = x + STEP * (u + GUIDANCE * (c - u))


def farthest(ours: Ours, theirs: Theirs) -> tuple[float, float]:
    """The largest difference of two gradients, relative to a parameter's largest number, and that of two guided steps."""
    for task in (ours.gradients, theirs.gradients, ours.sample, theirs.sample):
        task()
    reference = {n: p.grad.numpy() for n, p in theirs.peer.named_parameters()}
    names = [n for n, _ in ours.model.named_parameters()]
    pairs = zip(names, ours.model.views(ours.flats[0]), strict=True)
    largest = max(float(np.abs(g).max()) for g in reference.values())
    far = max(float(np.abs(g - reference[n]).max()) / max(float(np.abs(g).max()), 1e-4 * largest) for n, g in pairs)
    return far, float(np.abs(ours.x_s - theirs.x_s.numpy()).max())


Timed = tuple[Callable[[], None], int]  # what is timed, and the BLAS threads of NumPy beside it


def timed(passes: dict[str, Timed], args: argparse.Namespace, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Milliseconds of each, round by round; each round begins with another, and the first warms up."""
    times: dict[str, list[float]] = {name: [] for name in passes}
    blas, names = ThreadpoolController().select(user_api="blas"), [*passes]
    for k in range(args.rounds + 1):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            run, threads = passes[name]
            with blas.limit(limits=threads):
                began = clock()
                for _ in range(args.steps):
                    run()
                times[name].append(1e3 * (clock() - began) / args.steps)
    return {name: ms[1:] for name, ms in times.items()}


def compared(name: str, args: argparse.Namespace) -> None:
    """Prints the rows of one network."""
    model, peer = networks(name)
    data = inputs(model, args.batch)
    theirs = Theirs(peer, data, model.null(data[2]))
    print(f"{name}: {model.config.macs() / 1e6:.2f} M multiply-accumulates per sample")
    with Ours(model, data, args.threads) as shards, Ours(model, data, 1) as alone:
        engines = {f"{args.threads} processes": (shards, 1), "one process": (alone, args.threads)}
        if args.threads == 1:
            engines = {"one process": (alone, 1)}
        clock = (lambda: time.process_time() + float(shards.seconds.sum())) if args.cpu_time else time.perf_counter
        for engine, (ours, _) in engines.items():
            print("  {}: gradients within {:.1g}, guided steps within {:.1g}".format(engine, *farthest(ours, theirs)))
        for task in ("update", "sample"):
            passes: dict[str, Timed] = {e: (getattr(ours, task), n) for e, (ours, n) in engines.items()}
            times = timed({**passes, "eager": (getattr(theirs, task), 1)}, args, clock)
            for engine in engines:
                ratios = [q / p for p, q in zip(times[engine], times["eager"], strict=True)]
                low, median, high = np.quantile(ratios, (0.25, 0.5, 0.75))
                ms = " and ".join(f"{statistics.median(times[e]):.1f}" for e in (engine, "eager"))
                row = f"{'guided step' if task == 'sample' else task:12s} {engine:12s} {ms} ms"
                print(f"  {row}: {median:.2f} times as fast as eager ({low:.2f} … {high:.2f})")


def forced() -> str:
    """A warning where OpenBLAS may not choose the kernels for this processor; PyTorch's library has no such switch."""
    name = os.environ.get("OPENBLAS_CORETYPE")
    return f"; OPENBLAS_CORETYPE={name} forces these kernels on NumPy, unset it to compare" if name else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["words", "flux-words", "clips", "clips-full", "clips-factor"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=5, help="updates per round")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--cpu-time", action="store_true", help="count the time that the processors worked, all together")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with ThreadpoolController().limit(limits=1, user_api="blas"), Others() as others:  # forked workers keep this limit
        for name in args.networks:
            compared(name, args)
    kept = others.share or 0
    print(f"{machine()['cpu']}, {torch.get_num_threads()} threads, batch {args.batch}; others kept {kept:.2f} cores busy")
    print(f"matrix products of minidit: {name_of_blas()}{forced()}")


if __name__ == "__main__":
    main()
