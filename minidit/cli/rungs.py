"""`minidit rungs`: the rungs that a short sampler visits, by every spacing, and their names in other projects."""

from __future__ import annotations

import argparse
import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minidit.diffusion.rungs import Row

KNOWN = "leading, linspace, trailing, quadratic, karras"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, default=10, metavar="N", help="rungs to keep (default: 10)")
    parser.add_argument("--T", type=int, default=1000, metavar="N", help="rungs of the ladder (default: 1000)")
    parser.add_argument(
        "--spacing", metavar="WORD", help=f'one of {KNOWN}, or in OpenAI\'s notation "250", "10,15,20" or "ddim50" (default: all)'
    )
    parser.add_argument("--offset", type=int, default=0, metavar="N", help="leading only: latent diffusion's is 1 (default: 0)")
    parser.add_argument(
        "--schedule",
        default="linear",
        metavar="{linear,cosine,scaled_linear}",
        help="of the printed ᾱ, as in `minidit train` (default: linear)",
    )


def run(args: argparse.Namespace) -> int:
    from minidit.diffusion import rungs
    from minidit.keywords import meant
    from minidit.runs.process_kinds import DDPMConfig
    from minidit.runs.words import SPACINGS

    if args.T < 1:
        raise ValueError(f"--T {args.T} must be at least 1")
    if not 1 <= args.steps <= args.T and args.spacing in (None, *SPACINGS):
        raise ValueError(f"--steps {args.steps}: of a ladder of {args.T} rungs 1 to {args.T} can be kept")
    sch = DDPMConfig(schedule=args.schedule, T=args.T).path()
    laws = SPACINGS | {"leading": rungs.by_length(functools.partial(rungs.leading, offset=args.offset))}
    texts = [f"{args.steps}", f"ddim{args.steps}"]  # OpenAI's notation
    names = [*laws, *texts] if args.spacing is None else [args.spacing]
    if not (names[0] in laws or names[0].removeprefix("ddim").replace(",", "").isdecimal()):
        raise ValueError(f'--spacing {names[0]!r} is not one of {KNOWN}, nor a text such as "10,15,20" or "ddim50"'
                         + meant(names[0], laws))  # fmt: skip
    for name in names:
        try:
            kept = laws[name](sch, args.steps) if name in laws else rungs.from_text(name, args.T)
        except ValueError as error:
            if args.spacing is not None:
                raise
            print(f"{_title(name)}\n  {error}\n")
            continue
        print(f"{_title(name)}\n{table(rungs.vocabulary(kept, sch))}\n")
    return 0


def _title(name: str) -> str:
    ids = {"leading": "D.24", "linspace": "D.25", "trailing": "D.26", "quadratic": "D.27", "karras": "P.28"}
    return f"{name} ({ids.get(name) or ('D.29' if name.startswith('ddim') else 'D.28')})"


def table(rows: list[Row]) -> str:
    """One line per step, t → s, with our names and those of three other projects."""
    cells = [("t → s", "ᾱ_t", "ᾱ_s", "time", "OpenAI", "diffusers", "latent diffusion")]
    for r in rows:
        signal = f"{r.alpha_bar_t:.6g}", f"{r.alpha_bar_s:.6g}"
        cells.append((f"{r.t} → {r.s}", *signal, str(r.time), r.openai, r.diffusers, r.ldm))
    widths = [max(len(row[i]) for row in cells) for i in range(7)]
    return "\n".join("  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)
