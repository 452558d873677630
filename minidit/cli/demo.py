"""`minidit demo`: the whole road in minutes: real pictures, autoencoder, DiT, DDPM and DDIM samples, numbers, a report."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from minidit.cli.device import add_device, settle_device, settle_precision
from minidit.cli.options import add_config_flags, resolve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="digits in pixel space, in seconds")
    parser.add_argument("--out", help="the run folder (default runs/demo or runs/quick)")
    add_device(parser)
    parser.add_argument("--threads", type=int, help="cores to use (default: all): pieces that a batch is cut into")
    parser.add_argument("--quiet", action="store_true")
    add_config_flags(parser, ["train", "dit", "autoencode", "autoencoder"])


def run(args: argparse.Namespace) -> int:
    from minidit.cli.progress import Progress
    from minidit.html.report import write_report
    from minidit.runs.evaluate import Evaluation, train_classifier
    from minidit.runs.gallery import measure, show_run
    from minidit.runs.run import Run

    began = time.monotonic()
    preset = "quick" if args.quick else "demo"
    progress = Progress(args.quiet)
    config, device = resolve(args, preset), settle_device(args)
    settle_precision(device, config.train.precision, config.autoencode.precision)
    job = Run(Path(args.out or f"runs/{preset}"), config, device=device, tell=progress.tell)
    train, held_out = job.data()
    job.fit_to(train)
    job.create(overwrite=True)
    source, autoencoder = job.source(train)
    pipeline = job.train_denoiser(source, autoencoder)
    progress.note("measuring: a small classifier looks at samples, and at real pictures beside them")
    classifier = train_classifier(train, job.config.classify, progress.tell)
    progress.close()
    evaluation = Evaluation(classifier, train, held_out, n=100 if args.quick else 500)
    measure(job, pipeline, evaluation, progress.note, ddpm_steps=50 if args.quick else 250, ddpm_n=100 if args.quick else 200)
    show_run(job, pipeline, held_out, lambda _: None, each=5 if args.quick else 8)
    page = write_report(job.folder)
    progress.note(f"{time.monotonic() - began:.0f} s; open {page}")
    print(job.folder)
    return 0
