"""The engine of PyTorch: eager, or compiled with --compile. EMA by one foreach call, all cores.

On a CPU default AdamW (foreach); on a GPU the fused one, bf16 by autocast over float32 weights, tf32 by PyTorch's own setting.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.kernel_times import kernel_times
from benchmarks.serve import best_gflops, mean_seconds, seconds, serve
from benchmarks.sizes import BETAS, EMA, EPS, LR, WALK, Size
from benchmarks.torch_dit import DiT

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class TorchEngine:
    def __init__(self, compiled: bool, graphs: bool = False, device: str = "cpu", stream: str = "float32") -> None:
        self.compiled, self.graphs, self.device, self.precision = compiled, graphs, device, "float32"
        self.narrow = stream == "bf16"
        self.step: Any = None
        self.steps_per_call = 1
        torch.set_num_threads(CORES)

    def hello(self) -> dict[str, Any]:
        versions = {"torch": torch.__version__, "numpy": np.__version__, "python": sys.version.split()[0]}
        if self.device != "cpu":
            torch.zeros(1, device=self.device)  # raises where there is no GPU
            cuda = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(), "device": torch.cuda.get_device_name()}
            return versions | cuda | {"compiled": self.compiled, "graphs": self.graphs}
        text = torch.__config__.show()
        blas = re.search(r"BLAS_INFO=(\w+)", text)
        version = re.search(r"Math Kernel Library Version ([\w.]+)", text)
        library = " ".join(m[1] for m in (blas, version) if m) or "unknown"
        return versions | {"blas": library, "compiled": self.compiled, "workers": f"{torch.get_num_threads()} threads"}

    def load(self, size: dict[str, Any], folder: str, data: str, precision: str) -> tuple[DiT, Any]:
        """The model, and the function that runs it: the model itself, or the compiled one."""
        self.precision = precision
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        numbers = np.load(Path(folder) / data)
        self.data = {n: torch.from_numpy(numbers[n]).to(self.device) for n in numbers if numbers[n].ndim}
        self.ladder = {n: float(numbers[n]) for n in numbers if not numbers[n].ndim}
        with torch.device(self.device):
            model = DiT(Size(**size), narrow=self.narrow and precision == "bf16")
        weights = np.load(Path(folder) / "weights.npz")
        model.load_state_dict({n: torch.from_numpy(weights[n]) for n in weights})
        options = {"mode": "reduce-overhead"} if self.graphs else {}  # CUDA graphs
        return model, torch.compile(model, dynamic=False, **options) if self.compiled else model

    def prepare(self, size: dict[str, Any], task: str, folder: str, precision: str = "float32", alone: bool = False) -> None:
        self.drop()
        model, run = self.load(size, folder, "inputs.npz", precision)
        self.step = self.training(model, run) if task == "train" else self.sampling(model, run)
        self.steps_per_call = 1
        if task != "train" and self.device != "cpu":
            self.step, self.steps_per_call = self.walk(self.step), WALK
        self.step()  # compiles

    def drop(self) -> None:
        """Deletes the model and frees its memory."""
        self.step, self.data = None, {}
        if self.compiled:
            torch._dynamo.reset()
        gc.collect()
        if self.device != "cpu":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def computing(self) -> Any:
        return torch.autocast(self.device.partition(":")[0], torch.bfloat16, enabled=self.precision == "bf16")

    def loss(self, run: Any) -> Any:
        with self.computing():
            out = run(self.data["x_t"], self.data["t"], self.data["y"])
        return torch.nn.functional.mse_loss(out.float(), self.data["target"])

    def training(self, model: DiT, run: Any) -> Callable[[], None]:
        parameters = list(model.parameters())
        average = [p.detach().clone() for p in parameters]
        fused = {"fused": True} if self.device != "cpu" else {}
        optimiser = torch.optim.AdamW(parameters, lr=LR, betas=BETAS, eps=EPS, weight_decay=0.0, **fused)

        def step() -> None:
            optimiser.zero_grad(set_to_none=True)
            self.loss(run).backward()
            optimiser.step()
            with torch.no_grad():
                torch._foreach_lerp_(average, parameters, 1 - EMA)

        return step

    def sampling(self, model: DiT, run: Any) -> Callable[[], Any]:
        x, labels = self.data["x_t"], self.data["labels"]
        a_t, a_s, w = (self.ladder[n] for n in ("a_t", "a_s", "w"))

        @torch.inference_mode()
        def step() -> Any:
            t = torch.full((2 * len(x),), int(self.ladder["time"]), device=x.device)
            y = torch.cat((labels, torch.full_like(labels, model.size.classes)))
            with self.computing():
                eps_c, eps_u = run(torch.cat((x, x)), t, y).float().chunk(2)
            eps = eps_u + w * (eps_c - eps_u)
            x_0 = (x - (1 - a_t) ** 0.5 * eps) / a_t**0.5
            return a_s**0.5 * x_0 + (1 - a_s) ** 0.5 * eps

        return step

    def walk(self, step: Callable[[], Any]) -> Callable[[], Any]:
        """WALK guided steps. Each starts from the same x_t at the same rungs, which does not change the time."""

        def run() -> Any:
            for _ in range(WALK):
                x = step()
            return x

        return run

    def check(self, size: dict[str, Any], folder: str, out: str, precision: str = "float32") -> None:
        """Loss, gradients and x_s of the check batch, as .npz."""
        self.drop()
        model, run = self.load(size, folder, "check.npz", precision)
        x_s = self.sampling(model, run)()
        loss = self.loss(run)
        loss.backward()
        gradients = {n: p.grad.cpu().numpy() for n, p in model.named_parameters()}
        np.savez(out, loss=loss.item(), x_s=x_s.cpu().numpy(), **gradients)

    def steps(self, k: int) -> list[float]:
        if self.device == "cpu":
            return seconds(self.step, k)
        return [mean_seconds(self.step, max(1, k // self.steps_per_call), self.wait) / self.steps_per_call]

    def wait(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()

    def kernels(self) -> dict[str, Any]:
        """The kernels of a step, by their time."""
        return kernel_times(self.step, self.wait, self.steps_per_call)

    def report(self) -> dict[str, Any]:
        """The peak of reserved device memory since `prepare`, fragments included."""
        return {"peak_gb": 0.0 if self.device == "cpu" else torch.cuda.max_memory_reserved() / 1e9}

    def gemm(self, threads: int, n: int, precision: str = "float32") -> float:
        if self.device != "cpu":
            torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
            dtype = torch.bfloat16 if precision == "bf16" else torch.float32
            a, b = (torch.randn(n, n, device=self.device, dtype=dtype) for _ in range(2))
            return 2e-9 * n**3 / mean_seconds(lambda: torch.mm(a, b), 10, self.wait)
        torch.set_num_threads(threads)
        a, b, out = torch.randn(n, n), torch.randn(n, n), torch.empty(n, n)
        rate = best_gflops(lambda: torch.mm(a, b, out=out), n)
        torch.set_num_threads(CORES)
        return rate


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--graphs", action="store_true", help="with --compile: CUDA graphs as well")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--stream", default="float32", help="bf16: the residual stream is bfloat16 where products are")
    args = parser.parse_args()
    serve(TorchEngine(args.compile, args.graphs, args.device, args.stream))
