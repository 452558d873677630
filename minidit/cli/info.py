"""`minidit info`: versions, devices and the sizes of the presets; `--memory`: the memory of a training update."""

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
    group.add_argument("--memory", action="store_true", help="predict the peak memory of a training update instead")
    group.add_argument("--preset", help="only this one, and the largest batch that fits here (default: all)")
    group.add_argument("--batch-size", type=int, default=64, help="(default 64)")
    group.add_argument("--precision", choices=POLICIES, default="float32", help="(default float32)")
    group.add_argument("--recompute", action="store_true", help="with gradient checkpointing: blocks keep only their input")
    group.add_argument("--accumulate", type=int, default=1, help="parts of a batch, one after the other (default 1)")
    group.add_argument("--threads", type=int, default=0, help="shards on a CPU (default: one per core)")
    group.add_argument("--device", default="cuda", help="cpu, cuda (predicted without a GPU, too), or auto (default cuda)")


def memory(args: argparse.Namespace) -> int:
    """Prints the table of `--memory`."""
    import difflib

    from minidit.backend import chosen_device, cupy_or_reason, memory_of
    from minidit.models.backbone import BackboneConfig
    from minidit.models.dit import DIT
    from minidit.models.flux_config import FLUX
    from minidit.models.mmdit_config import MMDIT
    from minidit.models.spacetime_config import SPACETIME
    from minidit.models.unet_config import UNET
    from minidit.runs.presets import PRESETS
    from minidit.training.loop import LoopConfig
    from minidit.training.memory import gb, largest_batch, memory_of_step

    written: dict[str, BackboneConfig] = {name: PRESETS[name].model for name in ("raster", "scales")}
    presets: dict[str, BackboneConfig] = {**DIT, **SPACETIME, **UNET, **MMDIT, **FLUX, **written}
    if args.preset is not None and args.preset not in presets:
        near = difflib.get_close_matches(args.preset, presets, 1)
        raise ValueError(f"there is no preset {args.preset!r}" + (f", did you mean {near[0]!r}?" if near else ""))
    device = chosen_device("auto")[0] if args.device == "auto" else args.device
    if device not in ("cpu", "cuda") and device.partition(":")[0] != "cuda":
        raise ValueError(f"unknown device {device!r}: use 'cpu', 'cuda', 'cuda:N' or 'auto'")
    train = LoopConfig(batch_size=args.batch_size, precision=args.precision, checkpoint_blocks=args.recompute,
                        accumulate=args.accumulate, shards=args.threads)  # fmt: skip
    settings = f"{args.precision}{', recomputing blocks' if args.recompute else ''}"
    print(f"Peak memory of a training update on {device}, {settings}, without the data set and the libraries:")
    print("preset         batch  weights, moments, gradient  kept for the adjoints     working       total")
    usable = device == "cpu" or cupy_or_reason()[0] is not None
    for name in [args.preset] if args.preset else presets:
        m = memory_of_step(presets[name], train, device)
        print(f"{name:12s} {train.batch_size:7d} {gb(m.weights):>27s} {gb(m.kept):>22s} {gb(m.working):>11s} {gb(m.total):>11s}")
        if args.preset and usable:
            budget = memory_of(device)
            most = largest_batch(presets[name], replace(train, batch_size=1 << 16), device, 0.9 * budget)
            print(f"This device has {gb(budget)}: a batch of up to {most} fits, with a tenth left free.")
    return 0


def streams() -> None:
    """Prints the table of the networks that read texts."""
    from minidit.models.flux_config import FLUX, FluxConfig
    from minidit.models.mmdit_config import MMDIT, MMDiTConfig
    from minidit.training.memory import gb

    presets: dict[str, MMDiTConfig | FluxConfig] = {**MMDIT, **FLUX}
    print("\npreset        input       tokens  width  blocks  heads      parameters  MACs per sample  float32  float16")
    for name, c in presets.items():
        shape, tokens = f"{c.in_channels}x{c.size[0]}x{c.size[1]}", f"{c.words}+{c.tokens}"
        blocks = f"{c.depth}+{c.single_depth}" if isinstance(c, FluxConfig) else str(c.depth)
        P = c.parameters()
        print(
            f"{name:12s}  {shape:10s} {tokens:>8s}  {c.hidden_size:5d}  {blocks:>6s}  {c.num_heads:5d}"
            f"  {P:14,d}  {c.macs() / 1e9:13.3f} G  {gb(4 * P):>7s}  {gb(2 * P):>7s}"
        )


def codes() -> None:
    """Prints the table of the presets that write codes."""
    from minidit.models.gpt import GPTConfig
    from minidit.models.var import VARConfig
    from minidit.runs.presets import PRESETS

    print("\npreset        codes           passes  width  depth  heads   parameters  MACs per sample")
    for name in ("raster", "scales"):
        c = PRESETS[name].model
        assert isinstance(c, GPTConfig | VARConfig)
        print(
            f"{name:12s}  {f'{c.tokens} of {c.vocabulary}':14s}  {c.passes:6d}  {c.hidden_size:5d}  {c.depth:5d}  {c.num_heads:5d}"
            f"  {c.parameters():11,d}  {c.macs() / 1e9:11.3f} G"
        )


def run(args: argparse.Namespace) -> int:
    if args.memory:
        return memory(args)
    import numpy as np

    from minidit.backend import cupy_or_reason
    from minidit.kernels.blas import Blas, default_blas, mkl, precise
    from minidit.models.dit import DIT, DiTConfig
    from minidit.models.spacetime_config import SPACETIME, SpacetimeConfig
    from minidit.models.unet_config import UNET
    from minidit.training.workers import cores
    from minidit.version import __version__

    print(f"minidit {__version__}")
    for name in ("numpy", "scipy", "pillow", "safetensors"):
        print(f"  {name:12s} {importlib.metadata.version(name)}")
    cupy, reason = cupy_or_reason()
    print(f"  {'cpu':12s} {cores()} cores")
    print(f"  {'cuda':12s} {reason if cupy is None else 'CuPy ' + cupy.__version__}")

    def speed(blas: Blas) -> str:
        if args.no_speed:
            return ""
        a, b, out = (np.ones((1024, 1024), np.float32) for _ in range(3))
        times = []
        for _ in range(12):
            began = time.perf_counter()
            blas.gemm(a, b, out)
            times.append(time.perf_counter() - began)
        return f", {2 * 1024**3 / sorted(times)[len(times) // 2] / 1e9:.0f} GFLOP/s now"

    print(f"  {'float32':12s} {default_blas().name}{speed(default_blas())}")
    missing = "not available: pip install 'minidit[mkl]'"
    print(f"  {'bf16':12s} {missing if mkl() is None else precise('bf16').name + speed(precise('bf16'))}")
    print("\npreset        input     tokens  width  depth  heads   parameters  MACs per sample")
    transformers: dict[str, DiTConfig | SpacetimeConfig] = {**DIT, **SPACETIME}
    for name, c in transformers.items():
        shape = "x".join(map(str, c.shape))
        print(
            f"{name:12s}  {shape:9s} {c.tokens:6d}  {c.hidden_size:5d}  {c.depth:5d}  {c.num_heads:5d}"
            f"  {c.parameters():11,d}  {c.macs() / 1e9:11.3f} G"
        )
    print("\npreset        input     widths                 blocks  attention    parameters  MACs per sample")
    for name, u in UNET.items():
        shape, widths = f"{u.in_channels}x{u.size[0]}x{u.size[1]}", " ".join(map(str, u.widths))
        print(
            f"{name:12s}  {shape:9s} {widths:22s} {u.blocks:6d}  {' '.join(map(str, u.attention)):9s}"
            f"  {u.parameters():11,d}  {u.macs() / 1e9:11.3f} G"
        )
    streams()
    codes()
    print("Parameters count the frozen position table, as the paper does; its \"Gflops\" are these MACs.")
    return 0
