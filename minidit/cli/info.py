"""`minidit info`: versions, devices and all that is shipped; `--memory`: the memory of a training update."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from minidit.cli.about import about, megabytes, shipped

if TYPE_CHECKING:
    from collections.abc import Callable

    from minidit.data import Dataset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from minidit.nn.precision import POLICIES

    parser.add_argument("name", nargs="?", metavar="NAME", help="only this: shipped weights (what they are, what a call costs, "
                        "which words they know), a run folder, a data set, a preset, or a network")  # fmt: skip
    parser.add_argument("--all", action="store_true", help="of NAME also every word, every caption, every setting")
    parser.add_argument("--no-speed", action="store_true", help="do not measure the matrix product")
    group = parser.add_argument_group("memory")
    group.add_argument("--memory", action="store_true", help="predict the peak memory of a training update instead")
    group.add_argument("--network", metavar="NAME",
                       help="only this one, and the largest batch of it that fits here (default: all)")
    group.add_argument("--batch-size", type=int, default=64, metavar="N", help="samples per update (default: 64)")
    group.add_argument("--precision", choices=POLICIES, default="float32", help="of the products (default: float32)")
    group.add_argument("--recompute", action="store_true", help="with gradient checkpointing: blocks keep only their input")
    group.add_argument("--accumulate", type=int, default=1, metavar="N", help="pieces of a batch, in turn (default: 1)")
    group.add_argument("--threads", type=int, default=0, metavar="N", help="shards on a CPU (default: one per core)")
    group.add_argument("--device", default="cuda", metavar="{cpu,cuda,auto}", help="predicted without a GPU, too (default: cuda)")


def memory(args: argparse.Namespace) -> int:
    """Prints the table of `--memory`."""
    from minidit.backend import chosen_device, cupy_or_reason, memory_of
    from minidit.keywords import meant
    from minidit.runs.presets import networks
    from minidit.training.loop import LoopConfig
    from minidit.training.memory import gb, largest_batch, memory_of_step

    known = networks()
    if args.network is not None and args.network not in known:
        raise ValueError(f"there is no network {args.network!r}{meant(args.network, known) or '; minidit info lists them'}")
    device = chosen_device("auto")[0] if args.device == "auto" else args.device
    if device not in ("cpu", "cuda") and device.partition(":")[0] != "cuda":
        raise ValueError(f"unknown device {device!r}: use 'cpu', 'cuda', 'cuda:N' or 'auto'")
    train = LoopConfig(batch_size=args.batch_size, precision=args.precision, checkpoint_blocks=args.recompute,
                        accumulate=args.accumulate, shards=args.threads)  # fmt: skip
    settings = f"{args.precision}{', recomputing blocks' if args.recompute else ''}"
    print(f"Peak memory of a training update on {device}, {settings}, without the data set and the libraries:")
    print("network        batch  weights, moments, gradient  kept for the adjoints     working       total")
    usable = device == "cpu" or cupy_or_reason()[0] is not None
    for name in [args.network] if args.network else known:
        m = memory_of_step(known[name], train, device)
        print(f"{name:12s} {train.batch_size:7d} {gb(m.weights):>27s} {gb(m.kept):>22s} {gb(m.working):>11s} {gb(m.total):>11s}")
        if args.network and usable:
            budget = memory_of(device)
            most = largest_batch(known[name], replace(train, batch_size=1 << 16), device, 0.9 * budget)
            print(f"This device has {gb(budget)}: a batch of up to {most} fits, with a tenth left free.")
    return 0


def inside() -> None:
    """Prints what comes with the package: weights and data sets."""
    from minidit.data.clips import clips
    from minidit.data.embedded import EMBEDDED
    from minidit.runs.presets import SHIPPED

    print("\nshipped weights: minidit sample --weights NAME")
    for name in shipped():
        first = (SHIPPED / name / "CARD.md").read_text(encoding="utf-8").splitlines()[0]
        print(f"{name:12s}  {megabytes(SHIPPED / name):>7s}  {first.removeprefix('# ')}")
    print("\nembedded data sets: minidit train --data NAME")
    sets: dict[str, Callable[[str], Dataset]] = {**EMBEDDED, "clips": clips}
    for name, read in sets.items():
        data = read("train")
        kinds = f"{data.num_classes} classes" if data.num_classes else "captions"
        print(f"{name:12s}  {len(data):6,d} {data.noun}s of {' x '.join(map(str, data.shape))}, {kinds}")


def presets() -> None:
    """Prints the table of the presets: what `minidit train --preset` names."""
    from minidit.runs.kinds import kind_of
    from minidit.runs.presets import PRESETS

    print("\nminidit train --preset NAME\n"
          "NAME          data     tokenizer      process         model      parameters  MACs per sample  updates")  # fmt: skip
    for name, p in sorted(PRESETS.items()):
        kinds = [kind_of(section, getattr(p, section)) for section in ("tokenizer", "process", "model")]
        data = "your own" if name == "own" else p.data.source
        size, steps = p.model.parameters(), p.train.steps
        macs = p.model.macs() / 1e9
        print(f"{name:12s}  {data:8s} {kinds[0]:14s} {kinds[1]:15s} {kinds[2]:9s} {size:11,d}  {macs:13.3f} G  {steps:7,d}")


def papers() -> None:
    """Prints the tables of the other networks: what `--network` names besides."""
    from minidit.models.dit import DIT, DiTConfig
    from minidit.models.flux_config import FLUX, FluxConfig
    from minidit.models.mmdit_config import MMDIT, MMDiTConfig
    from minidit.models.spacetime_config import SPACETIME, SpacetimeConfig
    from minidit.models.unet_config import UNET
    from minidit.runs.presets import PRESETS
    from minidit.training.memory import gb

    print("\nminidit train --network NAME\nNAME          input     tokens  width  depth  heads   parameters  MACs per sample")
    transformers: dict[str, DiTConfig | SpacetimeConfig] = {**DIT, **SPACETIME}
    for name, c in transformers.items():
        if name not in PRESETS:
            shape = "x".join(map(str, c.shape))
            print(
                f"{name:12s}  {shape:9s} {c.tokens:6d}  {c.hidden_size:5d}  {c.depth:5d}  {c.num_heads:5d}"
                f"  {c.parameters():11,d}  {c.macs() / 1e9:11.3f} G"
            )
    print("\nNAME          input     widths                 blocks  attention    parameters  MACs per sample")
    for name, u in UNET.items():
        shape, widths = f"{u.in_channels}x{u.size[0]}x{u.size[1]}", " ".join(map(str, u.widths))
        print(
            f"{name:12s}  {shape:9s} {widths:22s} {u.blocks:6d}  {' '.join(map(str, u.attention)):9s}"
            f"  {u.parameters():11,d}  {u.macs() / 1e9:11.3f} G"
        )
    streams: dict[str, MMDiTConfig | FluxConfig] = {**MMDIT, **FLUX}
    print("\nNAME          input       tokens  width  blocks  heads      parameters  MACs per sample  float32  float16")
    for name, s in streams.items():
        if name in PRESETS:
            continue
        shape, tokens = f"{s.in_channels}x{s.size[0]}x{s.size[1]}", f"{s.words}+{s.tokens}"
        blocks = f"{s.depth}+{s.single_depth}" if isinstance(s, FluxConfig) else str(s.depth)
        P = s.parameters()
        print(
            f"{name:12s}  {shape:10s} {tokens:>8s}  {s.hidden_size:5d}  {blocks:>6s}  {s.num_heads:5d}"
            f"  {P:14,d}  {s.macs() / 1e9:13.3f} G  {gb(4 * P):>7s}  {gb(2 * P):>7s}"
        )
    print("Parameters count the frozen position table, as the paper does; a network of captions grows with their words.\n"
          "MACs: multiply-adds of a call with one sample (Gflops of the paper). minidit info NAME says more.")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    if args.memory or args.network:
        return memory(args)
    if args.name is not None:
        about(args.name, args.all)
        return 0
    import numpy as np

    from minidit.backend import cupy_or_reason
    from minidit.kernels.blas import Blas, default_blas, mkl, precise
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
    inside()
    presets()
    papers()
    return 0
