"""An update of the U-Net beside PyTorch eager on this machine's CPU: diffusers' UNet2DModel, the same weights and inputs.

    python -m benchmarks.unet_speed --rounds 9                          needs torch and diffusers (the extra `peers`)
    python -m benchmarks.unet_speed --rounds 9 --threads 1 --cpu-time   where other programs keep the machine busy

Loss and gradient, without the optimiser. minidit shares the batch among one process per thread that PyTorch has, as its training
does. Both engines take turns, round by round; the figure is the median of the ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DModel
from threadpoolctl import threadpool_limits

from benchmarks.machine import Others, cores, machine
from minidit import ops
from minidit.autograd import Gradients
from minidit.backend import Arena, Array, flat_buffer
from minidit.checkpoint import save
from minidit.models.unet import UNet, UNetConfig
from minidit.random import Philox
from minidit.training.loop import GRADIENTS, REDUCE
from minidit.training.workers import Workers, shard_of

Pass = Callable[[], Any]


def inputs(config: UNetConfig, batch: int) -> tuple[Any, ...]:
    """x_t, t, y and the target."""
    r = np.random.default_rng(1)
    x, target = (r.standard_normal((batch, *config.shape), dtype=np.float32) for _ in range(2))
    return x, r.integers(0, 1000, batch), r.integers(0, config.num_classes, batch), target


@contextmanager
def ours(model: UNet, data: tuple[Any, ...], shards: int) -> Iterator[tuple[Pass, Callable[[], list[Any]], Array]]:
    """(a pass forward and backward, the gradients, CPU seconds of the other shards): in processes, as in training."""
    batch, arrays = len(data[0]), [p.data for p in model.parameters()]
    flats = [flat_buffer(model.layout.size, np.float32) for _ in range(shards)]
    buffers, arenas = [Gradients(arrays, model.views(flat)) for flat in flats], [Arena() for _ in range(shards)]
    seconds = flat_buffer(shards, np.float64)

    def work(shard: int, stage: int, n: int) -> None:
        began = time.process_time()
        if stage == GRADIENTS:
            x, t, y, target = (a[shard_of(batch, shards, shard)] for a in data)
            with arenas[shard], buffers[shard]:
                ops.mse(model(x, t, y), target).backward(np.full(len(x), 1 / batch, np.float32))
        else:
            part = shard_of(len(flats[0]), shards, shard)
            for flat in flats[1:]:
                np.add(flats[0][part], flat[part], out=flats[0][part])
        if shard:
            seconds[shard] += time.process_time() - began

    # limited=False: that limit is one of all libraries of this process, PyTorch's threads among them
    with Workers(shards, work, "process" if shards > 1 else "serial", limited=False) as workers:

        def run() -> None:
            workers.run(GRADIENTS)
            if shards > 1:
                workers.run(REDUCE)

        yield run, lambda: model.views(flats[0]), seconds


def theirs(peer: UNet2DModel, data: tuple[Any, ...]) -> Pass:
    """The same in PyTorch eager."""
    x, t, y, target = map(torch.from_numpy, data)

    def run() -> None:
        peer.zero_grad(set_to_none=False)
        ((peer(x, t, y).sample - target) ** 2).mean().backward()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=5, help="passes per round")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--cpu-time", action="store_true", help="count the time that the processors worked, all together")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config = UNetConfig(class_dropout_prob=0.0)
    model = UNet(config, Philox(0))
    model.flat[...] = 0.05 * np.random.default_rng(0).standard_normal(model.layout.size, np.float32)
    with TemporaryDirectory() as place:
        save(Path(place) / "unet", model, grammar="diffusers")
        peer = UNet2DModel.from_pretrained(Path(place) / "unet", low_cpu_mem_usage=False).train()
    data, times = inputs(config, args.batch), {"minidit": list[float](), "eager": list[float]()}
    with threadpool_limits(1, "blas"), ours(model, data, args.threads) as (run, gradients, seconds), Others() as others:
        passes = {"minidit": run, "eager": theirs(peer, data)}
        clock = (lambda: time.process_time() + float(seconds.sum())) if args.cpu_time else time.perf_counter
        for name in [*passes] * 2:
            passes[name]()
        reference = dict(peer.named_parameters())
        far = max(
            float(np.abs(g - reference[name].grad.numpy()).max() / max(np.abs(g).max(), 1e-6))
            for (name, _), g in zip(model.named_parameters(), gradients(), strict=True)
        )
        for k in range(args.rounds):
            for name in [*passes] if k % 2 else [*passes][::-1]:
                began = clock()
                for _ in range(args.steps):
                    passes[name]()
                times[name].append(1e3 * (clock() - began) / args.steps)
    ratios = [b / a for a, b in zip(times["minidit"], times["eager"], strict=True)]
    macs = f"{config.macs() / 1e6:.2f} M multiply-accumulates per sample"
    print(f"{machine()['cpu']}, {args.threads} threads, batch {args.batch}, {macs}")
    print(f"gradients differ by at most {far:.1g} of a parameter's largest; others kept {others.share or 0:.2f} cores busy")
    for name, ms in times.items():
        print(f"{name:8s} {statistics.median(ms):7.1f} ms (fastest round {min(ms):.1f})")
    q1, median, q3 = np.quantile(ratios, (0.25, 0.5, 0.75))
    print(f"times as fast as eager: {median:.2f} ({q1:.2f} … {q3:.2f})")


if __name__ == "__main__":
    main()
