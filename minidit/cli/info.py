"""`minidit info`: what is here, and how large the presets are."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-speed", action="store_true", help="do not measure the matrix product")


def run(args: argparse.Namespace) -> int:
    import numpy as np

    from minidit.backend import cupy_or_reason
    from minidit.kernels.blas import Blas, default_blas, mkl, precise
    from minidit.models.dit import DIT, count_parameters
    from minidit.recipes.workers import cores
    from minidit.version import __version__

    print(f"minidit {__version__}")
    for name in ("numpy", "scipy", "pillow", "safetensors"):
        print(f"  {name:12s} {importlib.metadata.version(name)}")
    cupy, reason = cupy_or_reason()
    print(f"  {'cpu':12s} {cores()} cores")
    print(f"  {'cuda':12s} {reason or 'CuPy ' + cupy.__version__}")  # type: ignore[union-attr]

    def speed(blas: Blas) -> str:
        if args.no_speed:
            return ""
        a, b, out = (np.ones((1024, 1024), np.float32) for _ in range(3))
        times = []
        for _ in range(12):
            began = time.perf_counter()
            blas.gemm(a, b, out)
            times.append(time.perf_counter() - began)
        return f", {2 * 1024**3 / sorted(times)[len(times) // 2] / 1e9:.0f} GFLOP/s here and now"

    print(f"  {'float32':12s} {default_blas().name}{speed(default_blas())}")
    lacking = "not to be had: pip install 'minidit[mkl]'"
    print(f"  {'bf16':12s} {lacking if mkl() is None else precise('bf16').name + speed(precise('bf16'))}")
    print("\npreset        input     tokens  width  depth  heads   parameters      MACs a sample")
    for name, c in DIT.items():
        H, W = c.size
        shape = f"{c.in_channels}x{H}x{W}"
        print(
            f"{name:12s}  {shape:9s} {c.tokens:6d}  {c.hidden_size:5d}  {c.depth:5d}  {c.num_heads:5d}"
            f"  {count_parameters(c):11,d}  {c.macs() / 1e9:11.3f} G"
        )
    print("Parameters count the frozen position table, as the paper does; its \"Gflops\" are these MACs.")
    return 0
