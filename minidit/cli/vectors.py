"""`minidit vectors`: the answers of the verification kit as files for any language, and a check of such files.

Exit status: 0; 1 if a check finds something; 2 wrong usage.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `minidit vectors`."""
    parser.add_argument("action", choices=["export", "check", "list"], help="write a suite, check one, or list its cases")
    parser.add_argument("folder", nargs="?", type=Path, metavar="DIR", help="the folder (check and list: the shipped core pack)")
    parser.add_argument("--full", action="store_true", help="every question, not only the core pack")


def run(args: argparse.Namespace) -> int:
    """Runs the action; returns the exit status."""
    from minidit.verify import vectors

    if args.action == "export":
        if args.folder is None:
            raise ValueError("name a folder: minidit vectors export DIR")
        m = vectors.export(args.folder, full=args.full)
        print(f"{args.folder}: {m['pack']} pack, {m['cases']} cases, {m['bytes'] / 1e6:.2f} MB in {len(m['files'])} files")
        for entry in m["left_out"]:
            print(f"left out: {entry['topic']}: {entry['why']}")
        return 0
    folder = args.folder or vectors.SHIPPED
    if args.action == "list":
        for topic, case in vectors.read(folder):
            print(f"{topic['spec']:6} {case['id']:60} {case['result']:8} {case['reveals']}")
        return 0
    problems = vectors.check(folder)
    print(*(problems or [f"{folder}: every file, form and answer is right"]), sep="\n")
    return 1 if problems else 0
