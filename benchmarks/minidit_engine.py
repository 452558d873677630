"""The engine of minidit: its ordinary Loop and Walk.

On a CPU they choose their workers (--kind thread: threads); on a GPU their steps are captured (--eager: without a graph).
--standin: on the CPU stand-in for a GPU that the tests use, to rehearse.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import minidit as md
from benchmarks.fixtures import config_of, walk_of
from benchmarks.imitation import imitated_gpu
from benchmarks.kernel_times import kernel_times
from benchmarks.serve import best_gflops, mean_seconds, seconds, serve
from benchmarks.sizes import BETAS, EMA, EPS, GUIDANCE, LR, WALK, Size
from minidit import ops
from minidit.autograd import kernels_on, no_grad
from minidit.backend import Arena, bytes_held, flat_buffer, memory_of, module_of, pool_owners, to_device, to_host
from minidit.kernels import cuda_blas, cudnn_attention
from minidit.kernels.blas import gemm, name_of_blas
from minidit.nn.precision import computing_in
from minidit.processes.sample import Sampling
from minidit.training.draws import Draws
from minidit.training.loop import Loop, LoopConfig
from minidit.training.memory import memory_of_step, ran_out_of_memory
from minidit.training.workers import Workers, cores, kind_of_workers, shard_of

CAPTURE = "graph"  # the field of LoopConfig that says whether a step is captured; versions without it are always eager


def capturable() -> bool:
    return any(f.name == CAPTURE for f in fields(LoopConfig))


class FixedBatch:
    """The batch of the files: as a source it is drawn whole, as a process its loss draws nothing."""

    labels: Any = None
    levels: int | None = None
    stream, per = 0, 1

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data["x_t"])

    def part(self, name: str, draws: Draws) -> Any:
        """The entries of these samples; no copy is made of all."""
        a = self.data[name]
        return a if len(draws.samples) == len(a) else a[draws.samples]

    def draw(self, index: Any, draws: Draws) -> tuple[Any, Any]:
        return self.part("x_t", draws), self.part("y", draws)

    def loss(self, network: Any, x_0: Any, y: Any, draws: Draws) -> tuple[Any, dict[str, Any]]:
        return ops.mse(network(x_0, self.part("t", draws), y), self.part("target", draws)), {}


def unrecorded() -> list[str]:
    """What should have been a graph and is not, with the reasons: such a row was timed without one."""
    return [f"{owner.what}: {owner.gave_up}" for owner in pool_owners if getattr(owner, "gave_up", "")]


class MiniditEngine:
    def __init__(self, kind: str | None = None, device: str = "cpu", eager: bool = False, accumulate: int = 1) -> None:
        self.kind, self.device, self.eager, self.accumulate, self.precision = kind, device, eager, accumulate, "float32"
        self.step: Any = None
        self.steps_per_call = 1
        self.recomputed = False

    def hello(self) -> dict[str, Any]:
        versions = {"minidit": md.__version__, "numpy": np.__version__, "python": sys.version.split()[0], "kernels": kernels_on()}
        if self.device != "cpu":
            cupy = module_of(self.device)
            number, runtime = cupy.cuda.runtime.getDevice(), cupy.cuda.runtime
            name = runtime.getDeviceProperties(number)["name"]
            cuda = {"cupy": cupy.__version__, "cuda": runtime.runtimeGetVersion(), "driver": runtime.driverGetVersion()}
            blas = "cuBLAS" if cuda_blas.handle() is not None else "CuPy's products"
            graph = capturable() and not self.eager
            device = name.decode() if isinstance(name, bytes) else str(name)
            return versions | cuda | {"device": device, "blas": blas, "captured": graph}
        kind = self.kind or kind_of_workers(cores(), "cpu")
        return versions | {"blas": name_of_blas(), "workers": f"{cores()} × {kind}"}

    def load(self, size: dict[str, Any], folder: str, data: str, precision: str = "float32") -> md.DiT:
        self.size, self.precision = Size(**size), precision
        self.data = {n: to_device(a, self.device) if a.ndim else a for n, a in np.load(Path(folder) / data).items()}
        model = md.DiT(config_of(self.size), device=self.device)
        weights = np.load(Path(folder) / "weights.npz")
        model.load_state_dict({n: weights[n] for n in weights})
        return model

    def prepare(self, size: dict[str, Any], task: str, folder: str, precision: str = "float32", alone: bool = False) -> None:
        """Gets ready for `steps`. A training step that does not fit into the device recomputes its blocks; `report` says so.

        alone: no other engine uses the device, so a step that does not fit now never will
        """
        self.drop()
        self.recomputed = task == "train" and self.device != "cpu" and self.too_large(Size(**size), precision, alone)
        if not self.begun(size, task, folder, precision, alone and task == "train" and not self.recomputed):
            self.drop()  # only here, when the error no longer keeps the arrays of the failed attempt alive
            self.recomputed = True
            self.begin(size, task, folder, precision)

    def too_large(self, size: Size, precision: str, alone: bool) -> bool:
        """Whether a step of this size is predicted to need more memory than is free (alone), or than the whole device has."""
        need = memory_of_step(config_of(size), LoopConfig(batch_size=size.batch, precision=precision), self.device).total
        return need > (memory_of(self.device) if alone else module_of(self.device).cuda.runtime.memGetInfo()[1])

    def begun(self, size: dict[str, Any], task: str, folder: str, precision: str, forgiving: bool) -> bool:
        """Whether `begin` found enough memory. Raises its error unless forgiving and the memory ran out."""
        try:
            self.begin(size, task, folder, precision)
        except Exception as error:
            if not forgiving or not ran_out_of_memory(error):
                raise
            return False
        return True

    def begin(self, size: dict[str, Any], task: str, folder: str, precision: str) -> None:
        model = self.load(size, folder, "inputs.npz", precision)
        if self.device == "cpu":
            self.step = self.training(model)[0] if task == "train" else self.sampling(model)[0]
            return
        self.step, self.steps_per_call = (self.training(model)[0], 1) if task == "train" else (self.walk(model), WALK)
        for _ in range(2):  # compiles kernels and records a graph; what does not fit into the memory fails here
            self.step()

    def drop(self) -> None:
        """Deletes the model and frees its memory."""
        self.step, self.data = None, {}
        gc.collect()
        if self.device != "cpu":
            module_of(self.device).get_default_memory_pool().free_all_blocks()

    def training(self, model: md.DiT) -> tuple[Any, Loop]:
        """A function that takes one step, and the Loop that it advances."""
        batch = FixedBatch(self.data)
        config = LoopConfig(
            lr=LR, betas=BETAS, eps=EPS, ema=EMA, batch_size=len(batch), steps=10**9, precision=self.precision,
            accumulate=self.accumulate, checkpoint_blocks=self.recomputed,
            **({CAPTURE: False} if self.eager and capturable() else {}),
        )  # fmt: skip
        loop = Loop(model, batch, batch, config, kind=self.kind)
        return functools.partial(next, loop.run()), loop

    def sampling(self, model: md.DiT) -> tuple[Any, Any]:
        """A function that takes one guided step from the fixed x_t, and the shared array that it writes x_s to.

        It does what `sample` does in each of its steps. The workers stay open between steps, as within one call of `sample`.
        """
        x_t, labels = self.data["x_t"], self.data["labels"]
        n = len(x_t)
        if self.device != "cpu":
            return self.sampling_on_device(model, x_t, labels)
        shards = min(cores(), n)
        walks = [walk_of(model, labels[shard_of(n, shards, i)]) for i in range(shards)]
        result = flat_buffer(x_t.size).reshape(x_t.shape)
        arenas = [Arena() for _ in range(shards)]

        def body(i: int, phase: int, step: int) -> None:
            part = shard_of(n, shards, i)
            with no_grad(), arenas[i], computing_in(self.precision, self.device):
                *_, result[part] = walks[i].moments(x_t[part])

        self.workers = Workers(shards, body, self.kind or kind_of_workers(shards, "cpu"))
        self.workers.__enter__()
        return functools.partial(self.workers.run, 0), result

    def walk(self, model: md.DiT) -> Any:
        """A function that samples from x_t by WALK guided steps through the public `sample`."""
        x_t, labels, sch = self.data["x_t"], self.data["labels"], md.Schedule.linear()
        how = Sampling(WALK, guidance=GUIDANCE, precision=self.precision, graph=not self.eager)
        return lambda: md.sample(model, sch, labels, how, x_T=x_t)

    def sampling_on_device(self, model: md.DiT, x_t: Any, labels: Any) -> tuple[Any, Any]:
        walk, result = walk_of(model, labels), module_of(self.device).empty_like(x_t)

        def step() -> None:
            with no_grad(), computing_in(self.precision, self.device):
                *_, result[...] = walk.moments(x_t)

        return step, result

    def check(self, size: dict[str, Any], folder: str, out: str, precision: str = "float32") -> None:
        """Writes loss, gradients and x_s of the check batch as .npz, computed on the timed path: sharded, in workers."""
        self.drop()
        self.recomputed = False
        model = self.load(size, folder, "check.npz", precision)
        step, x_s = self.sampling(model)  # before the training step, which moves the weights
        step()
        step, loop = self.training(model)
        loss = step()["loss"]
        gradients = loop.model.views(loop.buffers[0])  # summed over shards; the update changes it only to clip
        names = [n for n, _ in model.named_parameters()]
        answer = dict(zip(names, gradients, strict=True)) | {"loss": loss, "x_s": x_s}
        np.savez(out, **{n: to_host(a) for n, a in answer.items()})

    def steps(self, k: int) -> list[float]:
        if self.device == "cpu":
            return seconds(self.step, k)
        return [mean_seconds(self.step, max(1, k // self.steps_per_call), self.wait) / self.steps_per_call]

    def wait(self) -> None:
        if self.device != "cpu":
            module_of(self.device).cuda.runtime.deviceSynchronize()

    def kernels(self) -> dict[str, Any]:
        """The kernels of a step, by their time."""
        return kernel_times(self.step, self.wait, self.steps_per_call)

    def report(self) -> dict[str, Any]:
        """The peak memory of the pools since `prepare`, fragments included, and the choices made for the timed step."""
        peak = 0.0 if self.device == "cpu" else bytes_held(self.device) / 1e9
        choices = {"attention": cudnn_attention.choices(), "not recorded": unrecorded()}
        return {"peak_gb": peak, "recomputed": self.recomputed, **choices}

    def gemm(self, threads: int, n: int, precision: str = "float32") -> float:
        """GFLOP/s of all workers together, with one product per worker on one thread, as minidit uses the cores."""
        if self.device != "cpu":
            return self.product(n, precision)
        a, b = (np.random.default_rng(i).standard_normal((n, n), dtype=np.float32) for i in range(2))
        outs = [np.empty_like(a) for _ in range(threads)]
        body = lambda i, *_: gemm(a, b, outs[i])
        with threadpool_limits(1), Workers(threads, body, kind_of_workers(threads, "cpu")) as workers:
            return threads * best_gflops(functools.partial(workers.run, 0), n)

    def product(self, n: int, precision: str) -> float:
        """A product on the device as the twins send it there, GFLOP/s."""
        xp, rng = module_of(self.device), np.random.default_rng(0)
        dtype = cuda_blas.bfloat16() if precision == "bf16" else np.float32
        a, b = (xp.asarray(rng.standard_normal((n, n), np.float32)).astype(dtype) for _ in range(2))
        out = xp.empty((n, n), dtype)
        with computing_in(precision, self.device):
            return 2e-9 * n**3 / mean_seconds(lambda: cuda_blas.gemm(a, b, out), 10, self.wait)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", choices=["serial", "thread", "process"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--accumulate", type=int, default=1, help="pieces of a shard, one after the other")
    parser.add_argument("--eager", action="store_true", help="no captured step")
    parser.add_argument("--standin", action="store_true", help="on the tests' CPU stand-in for a GPU: to rehearse")
    args = parser.parse_args()
    with imitated_gpu() if args.standin else contextlib.nullcontext():
        serve(MiniditEngine(args.kind, args.device, args.eager, args.accumulate))
