"""`minidit report`: writes one self-contained page about a run, or about several runs side by side."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="a run folder")
    parser.add_argument("others", nargs="*", metavar="OTHER", help="more run folders: compares them with the first")
    parser.add_argument("--out", metavar="FILE", help="where the page goes (default RUN/report.html, or compared.html)")


def run(args: argparse.Namespace) -> int:
    if args.others:
        from minidit.html.comparison import write_comparison

        print(write_comparison([Path(folder) for folder in (args.run, *args.others)], Path(args.out or "compared.html")))
        return 0
    from minidit.html.report import write_report

    print(write_report(Path(args.run), Path(args.out) if args.out else None))
    return 0
