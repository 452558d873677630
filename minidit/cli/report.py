"""`minidit report`: one self-contained page about a run, or about several side by side; their numbers for other programs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from minidit.cli.folders import refuse_missing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("others", nargs="*", metavar="OTHER", help="more run folders: compares them with the first")
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="where the page goes (default: RUN/report.html; of several runs: "
        "compared-RUN-OTHER.html here, which replaces only a page of the same runs)",
    )
    parser.add_argument("--csv", metavar="FILE", help="write the recorded numbers as a table instead (of every tenth "
                        "update, and of those that were compared on held-out pictures); - is stdout")  # fmt: skip
    parser.add_argument("--tensorboard", metavar="DIR", help="write them as events for TensorBoard instead (needs the extra "
                        "tensorboard); tensorboard --logdir DIR shows them")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    for name in (args.run, *args.others):
        refuse_missing(name)
    folders = [Path(folder) for folder in (args.run, *args.others)]
    if args.csv is not None or args.tensorboard is not None:
        return numbers(args, folders)
    if args.others:
        from minidit.html.comparison import write_comparison

        if twice := next((f for k, f in enumerate(folders) if f.resolve() in {g.resolve() for g in folders[:k]}), None):
            print(f"note: {twice} is named twice, so a run is compared with itself", file=sys.stderr)
        print(write_comparison(folders, Path(args.out) if args.out else None))
        return 0
    from minidit.html.report import write_report

    if folders[0].is_dir() and not any((folders[0] / name).exists() for name in ("config.toml", "metrics.jsonl")):
        raise ValueError(f"{folders[0]}: no run there (no config.toml)")
    print(write_report(folders[0], Path(args.out) if args.out else None))
    return 0


def numbers(args: argparse.Namespace, folders: list[Path]) -> int:
    """Writes the recorded numbers of runs in another form."""
    from minidit.html.comparison import names_of
    from minidit.html.folder import read_run
    from minidit.runs.export import csv_of, write_events

    if args.out or (args.csv is not None and args.tensorboard is not None):
        raise ValueError("--out, --csv and --tensorboard: one at a time")
    runs = {name: read_run(folder).metrics for name, folder in zip(names_of(folders), folders, strict=True)}
    for folder, metrics in zip(folders, runs.values(), strict=True):
        if not metrics:
            raise ValueError(f"{folder}: no numbers there (metrics.jsonl is missing or empty)")
    if args.csv == "-":
        print(csv_of(runs), end="")
    elif args.csv is not None:
        from minidit.outgoing import write_text

        print(write_text(Path(args.csv), csv_of(runs)))
    else:
        print(*write_events(Path(args.tensorboard), runs), sep="\n")
    return 0
