"""--device and --precision, the same in every command that has them."""

from __future__ import annotations

import argparse
import sys


def add_device(parser: argparse.ArgumentParser) -> None:
    """The option itself."""
    text = "cpu, cuda, cuda:N, or auto: a GPU where one can be used, and why not where not (default cpu)"
    parser.add_argument("--device", default="cpu", help=text)


def settle_device(args: argparse.Namespace) -> str:
    """The device that --device means here; says which and why, where it was not left to the default. Raises ValueError."""
    from minidit.backend import chosen_device

    device, why = chosen_device(args.device)
    if args.device != "cpu" and not getattr(args, "quiet", False):
        print(f"minidit: device {device} ({why})", file=sys.stderr)
    return device


def add_precision(parser: argparse.ArgumentParser) -> None:
    """--precision for a command that trains nothing (where something is trained, it is a field of the configuration)."""
    parser.add_argument("--precision", default="float32", help="float32, tf32 (GPU) or bf16 (default float32)")


def settle_precision(device: str, *policies: str) -> None:
    """Raises ValueError, with what is missing, before any work is done under a policy that this device does not have."""
    from minidit.nn.precision import check_precision

    for policy in policies:
        check_precision(policy, device)
