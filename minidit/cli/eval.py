"""`minidit eval`: a run measured by a small classifier trained on the same data by this very code."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="the folder of a finished run")
    parser.add_argument("-n", type=int, default=500, help="samples in a row of the table (default 500)")
    parser.add_argument("--ddpm-steps", type=int, default=250, help="rungs of the DDPM row (default 250)")
    parser.add_argument("--data", help="where the pictures are now, if not where the run found them")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default cpu)")
    parser.add_argument("--quiet", action="store_true")


def run(args: argparse.Namespace) -> int:
    from dataclasses import replace

    from minidit.checkpoint import load_model, save_model
    from minidit.cli.progress import Progress
    from minidit.html.report import write_report
    from minidit.recipes.evaluate import Evaluation, train_classifier
    from minidit.recipes.gallery import measure
    from minidit.recipes.run import finished

    progress = Progress(args.quiet)
    job, pipeline = finished(Path(args.run), device=args.device)
    if args.data:
        job.config = replace(job.config, data=replace(job.config.data, source=args.data))
    train, held_out = job.data()
    if not train.num_classes:
        raise ValueError(f"{train.name} has no classes: without them there is no classifier to judge samples")
    file = job.folder / "classifier.safetensors"
    if file.exists():
        classifier, _ = load_model(file)
    else:
        classifier = train_classifier(train, job.config.classify, progress.tell)
        save_model(file, classifier)
    progress.close()
    evaluation = Evaluation(classifier, train, held_out, n=args.n)
    measure(job, pipeline, evaluation, lambda text: print(text), ddpm_steps=args.ddpm_steps)
    write_report(job.folder)
    return 0
