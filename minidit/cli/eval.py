"""`minidit eval`: a run measured by a classifier of its own, by what captions draw, or, of clips, by their law of motion."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from minidit.cli.device import add_device, add_precision, settle_device, settle_precision
from minidit.cli.folders import refuse_missing

if TYPE_CHECKING:
    from collections.abc import Callable

    from minidit.cli.progress import Progress
    from minidit.data import Dataset
    from minidit.runs.phases import Run
    from minidit.runs.pipeline import Pipeline
    from minidit.runs.walks import Options


FEW = 100  # pictures of a row; with fewer the Fréchet distance is mostly chance


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="the folder of a finished run")
    parser.add_argument("-n", "--n", type=int, default=500, metavar="N", help="samples per row of the table (default: 500)")
    parser.add_argument("--ddpm-steps", type=int, metavar="N", help="rungs of the DDPM row, on a ladder (default: 250, or "
                        "all); it takes about half the time of an evaluation, fewer take less")  # fmt: skip
    parser.add_argument("--judge-steps", type=int, metavar="N", help="updates of the classifier that judges, if there is "
                        "none yet (default: the run's own)")  # fmt: skip
    parser.add_argument("--bpd", type=int, metavar="N", help="also the variational bound of N held-out images, in bits")
    parser.add_argument("--data", metavar="PICTURES", help="where the pictures are now, if not where the run found them")
    parser.add_argument("--cache", metavar="DIR", help="another cache folder than the run's (for sets larger than memory)")
    add_device(parser)
    add_precision(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress, no remarks")


def run(args: argparse.Namespace) -> int:
    from minidit.cli.progress import Progress, leaving, stop_gently
    from minidit.html.measures import sources_of
    from minidit.html.report import write_report
    from minidit.runs.evaluate import Evaluation
    from minidit.runs.fitting import facts_of, refuse_other_pictures
    from minidit.runs.folder import failing
    from minidit.runs.gallery import measure
    from minidit.runs.loading import load_pipeline
    from minidit.runs.motion import measure_motion
    from minidit.runs.phases import resume

    progress = Progress(args.quiet)
    refuse_missing(args.run)
    check_run(Path(args.run))
    device = settle_device(args)
    settle_precision(device, args.precision)
    job = resume(Path(args.run), device=device, tell=progress.tell, note=progress.note, progress=progress.part)
    pipeline = load_pipeline(job.folder, device=device)
    if args.data:
        job.config = replace(job.config, data=replace(job.config.data, source=args.data))
    if args.judge_steps is not None:
        job.lengthen({"judge": args.judge_steps})
    if args.cache:
        job.config = replace(job.config, data=replace(job.config.data, cache=args.cache))
    train, held_out = job.data()
    if held_out is None or job.parts is None:
        raise ValueError(f"{train.name}: no picture is held out, so nothing can be measured: train on more, or with --held-out N")
    check_sets(args.n, train, held_out, pipeline)
    progress.note(job.parts.about)
    ddpm_steps = ddpm_rungs(pipeline, args.ddpm_steps)
    if args.bpd and pipeline.ladder is None:
        raise ValueError("--bpd: the variational bound is that of a ladder of rungs, this run has a continuous path")
    job.facts = facts_of(train, job.parts)
    refuse_other_pictures(job.folder, pipeline.meta or {}, job.facts)
    if train.vocabulary is not None:
        prompted(args, job, pipeline, (train, held_out), progress)
        return 0
    clips = len(train.shape) == 4
    if not clips:
        with stop_gently(job, progress):
            judge = job.judge(train, held_out)
        progress.close()
    again = f"minidit eval {job.folder} measures again; a judge that is trained is kept"
    with failing(job.folder, again), leaving(again, progress):
        if clips:
            measures = measure_motion(job, pipeline, held_out, replacing(progress), args.n, precision=args.precision,
                                      progress=progress.steps("clips"))  # fmt: skip
            progress.note(f"rows: {sources_of(measures['rows'])}")
        else:
            evaluation = Evaluation(judge, train, held_out, n=args.n, steps=progress.steps)
            table = replacing(progress)
            measure(job, pipeline, evaluation, table, ddpm_steps=ddpm_steps, precision=args.precision, steps=progress.steps)
            for line in [f"rows: {sources_of(evaluation.rows)}", *how_to_read(args.n, evaluation.n)]:
                progress.note(line)
        if args.bpd:
            bits(job.folder, pipeline, held_out.take(slice(args.bpd)), progress)
        if job.ranks.first:
            progress.note(f"these measures are in the report now: {write_report(job.folder)}")
    return 0


def how_to_read(wanted: int, n: int) -> list[str]:
    """What the columns of the table mean, and how far they can be trusted."""
    lines = [
        "accuracy: the part of the pictures that the judge puts in the class they were drawn for; larger is better",
        "Fréchet: the distance from the training pictures; smaller is better, and 1.00 x is what is reached at best",
        "precision, recall: the part of the samples among the real pictures, and the other way round; larger is better",
    ]
    if n < wanted:
        lines.append(f"n is {n}, not {wanted}: a row has no more pictures than are held out")
    return lines + ([f"of {n} pictures a Fréchet distance says little: compare the rows only"] if n < FEW else [])


def replacing(progress: Progress) -> Callable[[str], None]:
    """A function that prints a line where a bar may stand."""

    def line(text: str) -> None:
        progress.close()
        print(text)

    return line


def check_sets(n: int, train: Dataset, held_out: Dataset, pipeline: Pipeline) -> None:
    """Raises ValueError unless these pictures are enough, and those that the run was trained for."""
    from minidit.runs.evaluate import FEWEST
    from minidit.runs.motion import check_motion

    fewest = FEWEST if train.vocabulary is None else 1
    if min(n, len(held_out), len(train)) < fewest:
        known = f"-n is {n}, {len(train)} are trained on, and {len(held_out)} are held out"
        raise ValueError(f"{train.name}: measures need at least {fewest} pictures; {known}")
    if train.class_names != pipeline.class_names:
        both = [", ".join(names) or "none" for names in (train.class_names, pipeline.class_names)]
        raise ValueError(f"{train.name} has the classes {both[0]}, the run was trained on {both[1]}")
    if train.vocabulary != pipeline.vocabulary:
        raise ValueError(f"the captions of {train.name} have other words than those that the run was trained on")
    if len(train.shape) == 4:
        check_motion(train)
    elif not train.num_classes and train.vocabulary is None:
        raise ValueError(f"{train.name} has no classes: without them there is no classifier to judge samples")


def prompted(args: argparse.Namespace, job: Run, pipeline: Pipeline, data: tuple[Dataset, Dataset], progress: Progress) -> None:
    """The measures of a run with captions: pictures drawn for them are looked for among the real ones."""
    from minidit.html.measures import sources_of
    from minidit.html.report import write_report
    from minidit.runs.prompted import measure_prompted

    if args.bpd or args.ddpm_steps:
        raise ValueError("--bpd and --ddpm-steps: a run with captions is measured by what its captions draw only")
    s = job.config.sample
    options: Options = {"steps": s.steps, "guidance": s.guidance, "interval": s.interval, "seed": s.seed,
                        "precision": args.precision, "progress": progress.steps("sampling")}  # fmt: skip
    measures = measure_prompted(job, pipeline, *data, args.n, print, **options)
    progress.close()
    progress.note(f"rows: {sources_of(measures['rows'])}")
    if job.ranks.first:
        write_report(job.folder)


def ddpm_rungs(pipeline: Pipeline, wanted: int | None, usual: int = 250) -> int | None:
    """The rungs of the DDPM row; None on a continuous path. Raises ValueError for more than there are."""
    if pipeline.ladder is not None:
        return pipeline.steps(wanted, "--ddpm-steps", usual)
    if wanted is not None:
        raise ValueError(f"--ddpm-steps {wanted}: the path of this run has no rungs")
    return None


def check_run(folder: Path) -> None:
    """Raises before any work where the measures could not be kept."""
    from minidit.outgoing import check_writable

    if folder.is_dir():
        check_writable(folder / "eval.json")


def bits(folder: Path, pipeline: Pipeline, some: Dataset, progress: Progress) -> None:
    """Prints the bound's terms for every variance law and keeps them in eval.json."""
    import json

    from minidit.incoming import Refusal, read_json
    from minidit.outgoing import write_atomically
    from minidit.processes.bits import bits_per_dim
    from minidit.processes.denoise import Denoiser
    from minidit.training.ranks import ranks

    ladder = pipeline.ladder
    assert ladder is not None
    x_0, tokenizer = pipeline.encode(some.x_0()), pipeline.tokenizer
    denoiser = Denoiser(pipeline.model, ladder, pipeline.prediction, tokenizer.limit)
    levels = None if tokenizer.limit is None else some.levels  # latents are not grey levels
    bounds = bits_per_dim(denoiser, ladder, x_0, some.labels, levels=levels, progress=progress.steps("bits"))
    progress.close()
    table = {}
    for law, b in bounds.items():
        table[law] = {"total": float(b.total.mean()), "prior": float(b.prior.mean()), "L_0": float(b.terms[0].mean()),
                      "L_1 to L_T-1": float(b.terms[1:].sum(axis=0).mean())}  # fmt: skip
        parts = ", ".join(f"{k} {v:.4f}" for k, v in table[law].items())
        print(f"  bits per {tokenizer.unit}, variance {law}, {len(some)} images: {parts}")
    if not ranks().first:
        return
    path = folder / "eval.json"
    measures = read_json(path, Refusal)
    measures["bits"], measures["bits_per_dim"] = table, min(row["total"] for row in table.values())
    write_atomically(path, json.dumps(measures, indent=1).encode())
