"""`minidit demo`: the whole pipeline in minutes: real pictures, autoencoder, DiT, DDPM and DDIM samples, numbers, a report."""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path
from typing import TYPE_CHECKING

from minidit.cli.device import add_device, settle_device, settle_precision
from minidit.cli.flags import add_config_flags
from minidit.cli.options import resolve

if TYPE_CHECKING:
    from minidit.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
    from minidit.runs.presets import PRESETS

    parser.add_argument("--quick", action="store_true", help="clothes in a minute, on latents of the shipped autoencoder")
    parser.add_argument(
        "--out", metavar="DIR", help="the run folder (default: runs/demo or runs/quick, with a number if that exists)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a run that is already in the folder")
    parser.add_argument("--resume", metavar="RUN", help=argparse.SUPPRESS)  # what one tries after Ctrl-C
    add_device(parser)
    parser.add_argument("--threads", type=int, metavar="N", help="cores to use, one per piece of a batch (default: all)")
    parser.add_argument("--quiet", action="store_true", help="no progress, no remarks")
    preset = PRESETS["quick" if "--quick" in parser.words else "demo"]
    sections = ["train", "process", "model", "tokenizer_train", "tokenizer"]
    add_config_flags(parser, sections[:3] if "--quick" in parser.words else sections, preset)


def run(args: argparse.Namespace) -> int:
    from minidit.cli.eval import ddpm_rungs
    from minidit.cli.progress import Progress, leaving, stop_gently
    from minidit.html.report import write_report
    from minidit.runs.evaluate import Evaluation
    from minidit.runs.folder import failing
    from minidit.runs.gallery import measure, show_run
    from minidit.runs.phases import Run

    if args.resume is not None:
        run = args.resume
        raise ValueError(f"--resume: minidit train --resume {run} goes on with a demo, then minidit eval {run} measures it")
    began = time.monotonic()
    preset = "quick" if args.quick else "demo"
    progress = Progress(args.quiet)
    config, device = resolve(args, preset), settle_device(args)
    settle_precision(device, config.train.precision, config.tokenizer_train.precision)
    folder = Path(args.out) if args.out else free_folder(Path("runs"), preset)
    for stopped in stopped_before(folder, preset):
        progress.note(f"{stopped} is a demo that was stopped: minidit train --resume {stopped} goes on; a new one is in {folder}")
    job = Run(folder, config, device=device, tell=progress.tell, note=progress.note)
    train, held_out = job.data()
    assert held_out is not None  # of an embedded set
    job.fit_to(train)
    job.create(overwrite=args.overwrite)
    with stop_gently(job, progress):
        pipeline = job.train(train, held_out)
        progress.note("measuring: a small classifier judges samples and, for comparison, real pictures")
        judge = job.judge(train, held_out)
    progress.close()
    ddpm_steps = None if args.quick else ddpm_rungs(pipeline, None, 250)
    again = f"the run is trained, and minidit eval {job.folder} measures it again"
    with failing(job.folder, again), leaving(again, progress):
        evaluation = Evaluation(judge, train, held_out, n=100 if args.quick else 500, steps=progress.steps)
        measure(job, pipeline, evaluation, progress.note, ddpm_steps=ddpm_steps, ddpm_n=200, steps=progress.steps)
        show_run(job, pipeline, held_out, progress.steps, each=5 if args.quick else 8)
        progress.close()
        if job.ranks.first:
            progress.note(f"{time.monotonic() - began:.0f} s; open {write_report(job.folder)}")
            progress.note(f"a film of noise that turns into pictures: {job.folder / 'pictures' / 'denoising.gif'}")
    print(job.folder)
    return 0


def stopped_before(folder: Path, name: str) -> list[Path]:
    """The latest demo beside the folder of a new one, if it was stopped."""
    others = [place for place in folder.parent.glob(f"{name}*") if place != folder and (place / "config.toml").exists()]
    latest = sorted(others, key=lambda place: (place / "config.toml").stat().st_mtime)[-1:]
    return [place for place in latest if not (place / "model.safetensors").exists()]


def free_folder(place: Path, name: str) -> Path:
    """runs/demo, or runs/demo-2, … if that exists."""
    names = itertools.chain([name], (f"{name}-{k}" for k in itertools.count(2)))
    return next(place / n for n in names if not (place / n).exists())
