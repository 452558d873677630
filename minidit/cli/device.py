"""--device, the same in every command that has it."""

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
