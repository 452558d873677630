"""--device and --precision, the same in every command that has them."""

from __future__ import annotations

import argparse
import sys


def add_device(parser: argparse.ArgumentParser) -> None:
    """The option itself."""
    text = "cuda:N is one of several; auto: a GPU if one can be used, else the CPU and the reason (default: cpu)"
    parser.add_argument("--device", default="cpu", metavar="{cpu,cuda,auto}", help=text)


def settle_device(args: argparse.Namespace) -> str:
    """The device that --device selects here; prints which and why, unless it is the default. Raises ValueError.

    Several ranks of one machine take its GPUs in turn.
    """
    from minidit.backend import chosen_device
    from minidit.training.launch import launch

    if args.device not in ("cpu", "cuda", "auto") and not args.device.startswith("cuda:"):
        raise ValueError(f"unknown device {args.device!r}: use 'cpu', 'cuda', 'cuda:N' or 'auto'")
    device, why = chosen_device(args.device)
    if device == "cuda" and launch().size > 1:
        device, why = chosen_device(f"cuda:{launch().local}")
    if args.device != "cpu" and not getattr(args, "quiet", False):
        print(f"minidit: device {device} ({why})", file=sys.stderr)
    return device


def add_precision(parser: argparse.ArgumentParser) -> None:
    """--precision for a command that trains nothing (training has it in the configuration)."""
    text = "of the products; tf32 on a GPU, bf16 there or on a CPU with the extra mkl (default: float32)"
    parser.add_argument("--precision", default="float32", metavar="{float32,tf32,bf16}", help=text)


def settle_precision(device: str, *policies: str) -> None:
    """Raises ValueError, with what is missing, if this device does not have a policy, before any work is done."""
    from minidit.nn.precision import check_precision

    for policy in policies:
        check_precision(policy, device)
