"""`minidit eval`: a run measured by a small classifier trained on the same data by this very code."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from minidit.cli.device import add_device, add_precision, settle_device, settle_precision


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="the folder of a finished run")
    parser.add_argument("-n", type=int, default=500, help="samples in a row of the table (default 500)")
    parser.add_argument("--ddpm-steps", type=int, default=250, help="rungs of the DDPM row (default 250)")
    parser.add_argument("--bpd", type=int, metavar="N", help="also the variational bound of N held-out images, bits a dimension")
    parser.add_argument("--data", help="where the pictures are now, if not where the run found them")
    add_device(parser)
    add_precision(parser)
    parser.add_argument("--quiet", action="store_true")


def run(args: argparse.Namespace) -> int:
    from dataclasses import replace

    from minidit.checkpoint import load_model, save_model
    from minidit.cli.progress import Progress
    from minidit.html.report import write_report
    from minidit.runs.evaluate import Evaluation, train_classifier
    from minidit.runs.gallery import measure
    from minidit.runs.run import finished

    progress = Progress(args.quiet)
    device = settle_device(args)
    settle_precision(device, args.precision)
    job, pipeline = finished(Path(args.run), device=device)
    if args.data:
        job.config = replace(job.config, data=replace(job.config.data, source=args.data))
    train, held_out = job.data()
    if train.class_names != pipeline.class_names:
        told = [", ".join(names) or "none" for names in (train.class_names, pipeline.class_names)]
        raise ValueError(f"{train.name} has the classes {told[0]}, and the run learned {told[1]}")
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
    measure(job, pipeline, evaluation, lambda text: print(text), ddpm_steps=args.ddpm_steps, precision=args.precision)
    if args.bpd:
        bits(job, pipeline, held_out.take(slice(args.bpd)), progress)
    write_report(job.folder)
    return 0


def bits(job: Any, pipeline: Any, some: Any, progress: Any) -> None:
    """Prints the bound's terms for every variance law and keeps them in eval.json."""
    import json

    from minidit.checkpoint import write_atomically
    from minidit.processes.autoencode import posterior_of
    from minidit.processes.bits import bits_per_dim

    x_0 = some.x_0()
    if pipeline.autoencoder is not None:
        x_0 = posterior_of(pipeline.autoencoder, x_0)[0] * float(pipeline.autoencoder.scale)
    bounds = bits_per_dim(pipeline, x_0, some.labels, levels=some.levels, progress=progress.steps("bits"))
    progress.close()
    what = "pixel" if pipeline.autoencoder is None else "latent number (not of the picture)"
    table = {}
    for law, b in bounds.items():
        table[law] = {"total": float(b.total.mean()), "prior": float(b.prior.mean()), "L_0": float(b.terms[0].mean()),
                      "L_1 to L_T-1": float(b.terms[1:].sum(axis=0).mean())}  # fmt: skip
        parts = ", ".join(f"{k} {v:.4f}" for k, v in table[law].items())
        print(f"  bits a {what}, variance {law}, {len(some)} images: {parts}")
    path = job.folder / "eval.json"
    found = json.loads(path.read_text())
    found["bits"], found["bits_per_dim"] = table, min(row["total"] for row in table.values())
    write_atomically(path, json.dumps(found, indent=1).encode())
