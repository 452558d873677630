"""PyTorch's side: eager, or compiled with --compile. Default AdamW (foreach), EMA by one foreach call, all cores."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.serve import best_gflops, seconds, serve
from benchmarks.sizes import BETAS, EMA, EPS, LR, Size
from benchmarks.torch_dit import DiT

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class TorchEngine:
    def __init__(self, compiled: bool) -> None:
        self.compiled = compiled
        torch.set_num_threads(CORES)

    def hello(self) -> dict[str, Any]:
        versions = {"torch": torch.__version__, "numpy": np.__version__, "python": sys.version.split()[0]}
        text = torch.__config__.show()
        blas = re.search(r"BLAS_INFO=(\w+)", text)
        version = re.search(r"Math Kernel Library Version ([\w.]+)", text)
        named = " ".join(m[1] for m in (blas, version) if m) or "unknown"
        return versions | {"blas": named, "compiled": self.compiled, "workers": f"{torch.get_num_threads()} threads"}

    def load(self, size: dict[str, Any], folder: str, data: str) -> tuple[DiT, Any]:
        """The model, and the function that runs it: the model itself, or what the compiler made of it."""
        numbers = np.load(Path(folder) / data)
        self.data = {n: torch.from_numpy(numbers[n]) for n in numbers if numbers[n].ndim}
        self.ladder = {n: float(numbers[n]) for n in numbers if not numbers[n].ndim}
        model = DiT(Size(**size))
        weights = np.load(Path(folder) / "weights.npz")
        model.load_state_dict({n: torch.from_numpy(weights[n]) for n in weights})
        return model, torch.compile(model, dynamic=False) if self.compiled else model

    def prepare(self, size: dict[str, Any], task: str, folder: str) -> None:
        model, run = self.load(size, folder, "inputs.npz")
        self.step = self.training(model, run) if task == "train" else self.sampling(model, run)

    def loss(self, run: Any) -> Any:
        out = run(self.data["x_t"], self.data["t"], self.data["y"])
        return torch.nn.functional.mse_loss(out, self.data["target"])

    def training(self, model: DiT, run: Any) -> Callable[[], None]:
        parameters = list(model.parameters())
        average = [p.detach().clone() for p in parameters]
        optimiser = torch.optim.AdamW(parameters, lr=LR, betas=BETAS, eps=EPS, weight_decay=0.0)

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
            t = torch.full((2 * len(x),), int(self.ladder["time"]))
            y = torch.cat((labels, torch.full_like(labels, model.size.classes)))
            eps_c, eps_u = run(torch.cat((x, x)), t, y).chunk(2)
            eps = eps_u + w * (eps_c - eps_u)
            x_0 = (x - (1 - a_t) ** 0.5 * eps) / a_t**0.5
            return a_s**0.5 * x_0 + (1 - a_s) ** 0.5 * eps

        return step

    def check(self, size: dict[str, Any], folder: str, out: str) -> None:
        """Loss, gradients and x_s of the check batch, as .npz."""
        model, run = self.load(size, folder, "check.npz")
        x_s = self.sampling(model, run)()
        loss = self.loss(run)
        loss.backward()
        gradients = {n: p.grad.numpy() for n, p in model.named_parameters()}
        np.savez(out, loss=loss.item(), x_s=x_s.numpy(), **gradients)

    def steps(self, k: int) -> list[float]:
        return seconds(self.step, k)

    def gemm(self, threads: int, n: int) -> float:
        torch.set_num_threads(threads)
        a, b, out = torch.randn(n, n), torch.randn(n, n), torch.empty(n, n)
        rate = best_gflops(lambda: torch.mm(a, b, out=out), n)
        torch.set_num_threads(CORES)
        return rate


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--compile", action="store_true")
    serve(TorchEngine(parser.parse_args().compile))
