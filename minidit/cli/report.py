"""`minidit report`: writes one self-contained page about a run."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="a run folder")


def run(args: argparse.Namespace) -> int:
    from minidit.html.report import write_report

    print(write_report(Path(args.run)))
    return 0
