"""minidit's side: its ordinary Loop and Sampler, in the workers that it picks by itself (or in threads with --kind thread)."""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import minidit as md
from benchmarks.fixtures import config_of, sampler_of
from benchmarks.serve import best_gflops, seconds, serve
from benchmarks.sizes import BETAS, EMA, EPS, LR, Size
from minidit import ops
from minidit.autograd import kernels_on, no_grad
from minidit.backend import Arena, flat_buffer
from minidit.kernels.blas import gemm, name_of_blas
from minidit.recipes.loop import Loop, LoopConfig
from minidit.recipes.workers import Workers, cores, kind_of_workers, shard_of


class MiniditEngine:
    def __init__(self, kind: str | None) -> None:
        self.kind = kind

    def hello(self) -> dict[str, Any]:
        versions = {"minidit": md.__version__, "numpy": np.__version__, "python": sys.version.split()[0]}
        kind = self.kind or kind_of_workers(cores(), "cpu")
        return versions | {"blas": name_of_blas(), "kernels": kernels_on(), "workers": f"{cores()} × {kind}"}

    def load(self, size: dict[str, Any], folder: str, data: str) -> md.DiT:
        self.size = Size(**size)
        self.data = dict(np.load(Path(folder) / data))
        model = md.DiT(config_of(self.size))
        model.load_state_dict(dict(np.load(Path(folder) / "weights.npz")))
        return model

    def prepare(self, size: dict[str, Any], task: str, folder: str) -> None:
        model = self.load(size, folder, "inputs.npz")
        self.step = self.training(model)[0] if task == "train" else self.sampling(model)[0]

    def training(self, model: md.DiT) -> tuple[Any, Loop]:
        """A function that takes one step, and the Loop that it advances."""
        x_t, t, y, target = (self.data[name] for name in ("x_t", "t", "y", "target"))

        def loss_of(step: int, samples: Any) -> Any:
            return ops.mse(model(x_t[samples], t[samples], y[samples]), target[samples], n=target.size), {}

        config = LoopConfig(lr=LR, betas=BETAS, eps=EPS, ema=EMA, batch_size=len(x_t), steps=10**9)
        loop = Loop(model, loss_of, config, kind=self.kind)
        return functools.partial(next, loop.run()), loop

    def sampling(self, model: md.DiT) -> tuple[Any, Any]:
        """A function that takes one guided step from the fixed x_t, and the shared array that it writes x_s to.

        What `sample` does for each of its steps; the workers stay open between steps, as they do within one call of it.
        """
        x_t, labels = self.data["x_t"], self.data["labels"]
        n = len(x_t)
        sampler, shards = sampler_of(model), min(cores(), n)
        result = flat_buffer(x_t.size).reshape(x_t.shape)
        arenas = [Arena() for _ in range(shards)]

        def body(i: int, phase: int, step: int) -> None:
            part = shard_of(n, shards, i)
            with no_grad(), arenas[i]:
                *_, result[part] = sampler.walk(np.arange(n)[part], labels[part], x_t[part])

        self.workers = Workers(shards, body, self.kind or kind_of_workers(shards, "cpu"))
        self.workers.__enter__()
        return functools.partial(self.workers.run, 0), result

    def check(self, size: dict[str, Any], folder: str, out: str) -> None:
        """Loss, gradients and x_s of the check batch, made on the timed path: sharded, in workers. Written as .npz."""
        model = self.load(size, folder, "check.npz")
        step, x_s = self.sampling(model)  # before the training step, which moves the weights
        step()
        step, loop = self.training(model)
        loss = step()["loss"]
        gradients = loop.model.views(loop.buffers[0])  # summed over shards; without clipping the update leaves it
        names = [n for n, _ in model.named_parameters()]
        np.savez(out, loss=loss, x_s=x_s, **dict(zip(names, gradients, strict=True)))

    def steps(self, k: int) -> list[float]:
        return seconds(self.step, k)

    def gemm(self, threads: int, n: int) -> float:
        """One product a worker, each on one thread: how minidit uses the cores. GFLOP/s of all together."""
        a, b = (np.random.default_rng(i).standard_normal((n, n), dtype=np.float32) for i in range(2))
        outs = [np.empty_like(a) for _ in range(threads)]
        body = lambda i, *_: gemm(a, b, outs[i])
        with threadpool_limits(1), Workers(threads, body, kind_of_workers(threads, "cpu")) as workers:
            return threads * best_gflops(functools.partial(workers.run, 0), n)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", choices=["serial", "thread", "process"])
    serve(MiniditEngine(parser.parse_args().kind))
