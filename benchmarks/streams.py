"""An update and a guided sampling step of the networks with streams beside PyTorch eager with its fused attention, on a CPU.

    python -m benchmarks.streams --rounds 7                            needs torch (the extra `peers`)
    python -m benchmarks.streams --rounds 7 --threads 1 --cpu-time     where other programs keep the machine busy

The same weights and inputs. An update is loss, gradient and AdamW; a guided step is the network on 2 B samples, (G.1), and one
Euler step. Both engines take turns, round by round; the figure is the median of the ratios, as times as fast as PyTorch.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from benchmarks.machine import Others, cores, machine
from benchmarks.torch_streams import Flux as TorchFlux
from benchmarks.torch_streams import MMDiT as TorchMMDiT
from minidit import ops
from minidit.autograd import Gradients, no_grad
from minidit.backend import Arena
from minidit.models.flux import Flux
from minidit.models.flux_config import FLUX
from minidit.models.mmdit import MMDiT
from minidit.models.mmdit_config import MMDIT
from minidit.optim import AdamW, OptimConfig
from minidit.random import Philox
from minidit.training.workers import shard_of

Pass = Callable[[], Any]
GUIDANCE, STEP = 2.0, -0.05


def networks(name: str) -> tuple[Any, Any, Any]:
    """(ours, theirs, y for a batch): random weights, the same in both."""
    model: Any = Flux(FLUX[name], Philox(0)) if name in FLUX else MMDiT(MMDIT[name], Philox(0))
    peer: Any = TorchFlux(FLUX[name]) if name in FLUX else TorchMMDiT(MMDIT[name])
    r = np.random.default_rng(0)
    for p in model.parameters():
        p.data[...] += 0.05 * r.standard_normal(p.data.shape)
    peer.load_state_dict({n: torch.from_numpy(a.copy()) for n, a in model.state_dict().items()})
    return model, peer, lambda B: r.integers(1, model.condition.rows, (B, *model.condition.shape))


def inputs(model: Any, captions: Any, batch: int) -> tuple[Any, ...]:
    """x_t, t, y and the target."""
    r = np.random.default_rng(1)
    x, target = (r.standard_normal((batch, *model.shape), dtype=np.float32) for _ in range(2))
    return x, r.uniform(0, 1000, batch), captions(batch), target


class Ours:
    """One shard per thread, as in training."""

    def __init__(self, model: Any, data: tuple[Any, ...], threads: int) -> None:
        self.model, self.data, self.batch = model, data, len(data[0])
        arrays = [p.data for p in model.parameters()]
        self.parts = [shard_of(self.batch, threads, k) for k in range(threads)]
        self.flats = [np.zeros(model.layout.size, np.float32) for _ in self.parts]
        self.buffers, self.arenas = [Gradients(arrays, model.views(f)) for f in self.flats], [Arena() for _ in self.parts]
        self.pool, self.n = ThreadPoolExecutor(threads), 0
        self.optimiser = AdamW(model, OptimConfig(lr=1e-4, weight_decay=0.01, clip=0.0, warmup=0), 10**6)

    def everywhere(self, work: Callable[[int], None]) -> None:
        if len(self.parts) == 1:
            return work(0)
        list(self.pool.map(work, range(len(self.parts))))

    def gradient(self, k: int) -> None:
        x, t, y, target = (a[self.parts[k]] for a in self.data)
        with self.arenas[k], self.buffers[k]:
            ops.mse(self.model(x, t, y), target).backward(np.full(len(x), 1 / self.batch, np.float32))

    def gradients(self) -> None:
        self.everywhere(self.gradient)
        for flat in self.flats[1:]:
            np.add(self.flats[0], flat, out=self.flats[0])

    def update(self) -> None:
        self.gradients()
        self.n += 1
        self.optimiser.step(self.flats[0], self.n)

    def guided(self, k: int) -> None:
        x, t, y, _ = (a[self.parts[k]] for a in self.data)
        with self.arenas[k], no_grad():
            both = self.model(np.concatenate((x, x)), np.concatenate((t, t)), np.concatenate((y, self.model.null(y)))).data
            u, c = both[len(x) :], both[: len(x)]
            x + STEP * (u + GUIDANCE * (c - u))

    def sample(self) -> None:
        self.everywhere(self.guided)


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
            x + STEP * (u + GUIDANCE * (c - u))


def farthest(ours: Ours, theirs: Theirs) -> float:
    """The largest difference of two gradients, relative to the largest number of the parameter's."""
    ours.gradients()
    theirs.gradients()
    reference = {n: p.grad.numpy() for n, p in theirs.peer.named_parameters()}
    names = [n for n, _ in ours.model.named_parameters()]
    pairs = zip(names, ours.model.views(ours.flats[0]), strict=True)
    largest = max(float(np.abs(g).max()) for g in reference.values())
    return max(float(np.abs(g - reference[n]).max()) / max(float(np.abs(g).max()), 1e-4 * largest) for n, g in pairs)


def compared(name: str, args: argparse.Namespace) -> None:
    """Prints the rows of one network."""
    model, peer, captions = networks(name)
    data, clock = inputs(model, captions, args.batch), time.process_time if args.cpu_time else time.perf_counter
    ours, theirs = Ours(model, data, args.threads), Theirs(peer, data, model.null(data[2]))
    macs = f"{model.config.macs() / 1e6:.2f} M multiply-accumulates per sample"
    print(f"{name}: {macs}, gradients within {farthest(ours, theirs):.1g}")
    for task, a, b in (("update", ours.update, theirs.update), ("guided step", ours.sample, theirs.sample)):
        times: tuple[list[float], list[float]] = ([], [])
        for k in range(args.rounds + 1):
            for i in (0, 1) if k % 2 else (1, 0):
                began = clock()
                for _ in range(args.steps):
                    (a, b)[i]()
                times[i].append(1e3 * (clock() - began) / args.steps)
        times = (times[0][1:], times[1][1:])  # the first round warms up
        low, median, high = np.quantile([q / p for p, q in zip(*times, strict=True)], (0.25, 0.5, 0.75))
        ms = " and ".join(f"{statistics.median(t):.1f}" for t in times)
        print(f"  {task:12s} {ms} ms: {median:.2f} times as fast as eager ({low:.2f} … {high:.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["words", "flux-words"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=5, help="updates per round")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--cpu-time", action="store_true", help="count the time that this process worked")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with threadpool_limits(1, "blas"), Others() as others:
        for name in args.networks:
            compared(name, args)
    kept = others.share or 0
    print(f"{machine()['cpu']}, {args.threads} threads, batch {args.batch}; others kept {kept:.2f} cores busy")


if __name__ == "__main__":
    main()
