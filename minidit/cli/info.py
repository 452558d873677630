"""`minidit info`: what is here, and how large the presets are; `--memory`: what a training step of them needs."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import time
from dataclasses import replace


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from minidit.nn.precision import POLICIES

    parser.add_argument("--no-speed", action="store_true", help="do not measure the matrix product")
    group = parser.add_argument_group("memory")
    group.add_argument("--memory", action="store_true", help="predict the peak of a training step instead")
    group.add_argument("--preset", help="of one DiT, and what batch fits here (default: a table of all)")
    group.add_argument("--batch-size", type=int, default=64, help="(default 64)")
    group.add_argument("--precision", choices=POLICIES, default="float32", help="(default float32)")
    group.add_argument("--recompute", action="store_true", help="with gradient checkpointing: blocks keep their input only")
    group.add_argument("--accumulate", type=int, default=1, help="pieces of a batch, one after the other (default 1)")
    group.add_argument("--threads", type=int, default=0, help="shards on a CPU (default: as many as there are cores)")
    group.add_argument("--device", default="cuda", help="cpu, cuda (need not be here), or auto: what is here (default cuda)")


def memory(args: argparse.Namespace) -> int:
    """The table of `--memory`."""
    import difflib

    from minidit.backend import chosen_device, cupy_or_reason, memory_of
    from minidit.models.dit import DIT
    from minidit.training.loop import LoopConfig
    from minidit.training.memory import gb, largest_batch, memory_of_step

    if args.preset is not None and args.preset not in DIT:
        near = difflib.get_close_matches(args.preset, DIT, 1)
        raise ValueError(f"there is no preset {args.preset!r}" + (f", did you mean {near[0]!r}?" if near else ""))
    device = chosen_device("auto")[0] if args.device == "auto" else args.device
    if device not in ("cpu", "cuda") and device.partition(":")[0] != "cuda":
        raise ValueError(f"unknown device {device!r}: use 'cpu', 'cuda', 'cuda:N' or 'auto'")
    train = LoopConfig(batch_size=args.batch_size, precision=args.precision, checkpoint_blocks=args.recompute,
                        accumulate=args.accumulate, shards=args.threads)  # fmt: skip
    how = f"{args.precision}{', recomputing blocks' if args.recompute else ''}"
    print(f"The peak of a training step on {device}, {how}, without the data that wait there and what the libraries take:")
    print("preset         batch  weights, moments, gradient  kept for the adjoints     working       total")
    here = device == "cpu" or cupy_or_reason()[0] is not None
    for name in [args.preset] if args.preset else DIT:
        m = memory_of_step(DIT[name], train, device)
        print(f"{name:12s} {train.batch_size:7d} {gb(m.weights):>27s} {gb(m.kept):>22s} {gb(m.working):>11s} {gb(m.total):>11s}")
        if args.preset and here:
            budget = memory_of(device)
            most = largest_batch(DIT[name], replace(train, batch_size=1 << 16), device, 0.9 * budget)
            print(f"Here are {gb(budget)}: up to batch {most} fits, a tenth left free.")
    return 0


def run(args: argparse.Namespace) -> int:
    if args.memory:
        return memory(args)
    import numpy as np

    from minidit.backend import cupy_or_reason
    from minidit.kernels.blas import Blas, default_blas, mkl, precise
    from minidit.models.dit import DIT
    from minidit.training.workers import cores
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
            f"  {c.parameters():11,d}  {c.macs() / 1e9:11.3f} G"
        )
    print("Parameters count the frozen position table, as the paper does; its \"Gflops\" are these MACs.")
    return 0
