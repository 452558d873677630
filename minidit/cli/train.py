"""`minidit train`: an autoencoder (or none) and a DiT on pictures of any kind, into a run folder."""

from __future__ import annotations

import argparse
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from minidit.cli.device import add_device, settle_device, settle_precision
from minidit.cli.options import add_config_flags, resolve, with_threads


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from minidit.runs.presets import PRESETS

    parser.add_argument("--data", help='a folder of pictures, an IDX, CIFAR or npz file, "digits" or "fashion"')
    parser.add_argument("--preset", choices=sorted(PRESETS), help='where the defaults come from (default: "own" with --data)')
    parser.add_argument("--config", help="a TOML file with sections as in a run's config.toml, over the preset")
    parser.add_argument("--out", help="the run folder (default runs/NAME)")
    parser.add_argument("--resume", metavar="RUN", help="go on with an interrupted run (--data: where its pictures are now)")
    parser.add_argument("--overwrite", action="store_true", help="replace a run that is in the folder already")
    parser.add_argument("--size", type=int, help="resize pictures to SIZE x SIZE")
    parser.add_argument("--channels", type=int, choices=(1, 3), help="grey or colour (default: as the pictures are)")
    parser.add_argument("--pixels", action="store_true", help="no autoencoder: diffuse pixels (for small pictures)")
    parser.add_argument("--autoencoder", metavar="FILE", help="a trained autoencoder (a file, or a run folder)")
    parser.add_argument("--init", metavar="RUN", help="fine-tune: start from the denoiser of a run (a file, or a run folder)")
    add_device(parser)
    parser.add_argument("--threads", type=int, help="cores to use (default: all): pieces that a batch is cut into")
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--print-config", action="store_true", help="print the resolved configuration and stop")
    add_config_flags(parser, ["train", "dit", "autoencode", "autoencoder", "sample", "classify"])


def run(args: argparse.Namespace) -> int:
    from minidit.cli.progress import Progress
    from minidit.runs import run as runs

    progress = Progress(args.quiet)
    if args.resume:
        refuse_changes(args)
        job = runs.resume(Path(args.resume), device=settle_device(args), tell=progress.tell)
        job.config = with_threads(job.config, args.threads)
        if args.data:
            job.config = replace(job.config, data=replace(job.config.data, source=args.data))
        train, held_out = job.data()
        job.fit_to(train)
    else:
        config = configure(args)
        if args.print_config:
            from minidit.runs.config import tables_of, to_toml

            print(to_toml(tables_of(config)))
            return 0
        device = settle_device(args)
        settle_precision(device, config.train.precision, config.autoencode.precision)
        job = runs.Run(Path(), config, device=device, tell=progress.tell)
        train, held_out = job.data()
        job.fit_to(train)
        job.folder = Path(args.out) if args.out else Path("runs") / (args.preset or name_of(job.config.data.source))
        job.create(overwrite=args.overwrite)
    progress.note(f"{train.name}: {len(train)} pictures, {held_out and len(held_out)} held out, into {job.folder}")
    with stop_gently(job, progress):
        source, autoencoder = job.source(train)
        pipeline = job.train_denoiser(source, autoencoder)
    progress.close()

    from minidit.html.report import write_report
    from minidit.runs.gallery import show_run

    show_run(job, pipeline, held_out, progress.note)
    progress.note(f"open {write_report(job.folder)}")
    print(job.folder)
    return 0


def configure(args: argparse.Namespace) -> Any:
    """The RunConfig that the flags describe."""
    preset = args.preset or ("own" if args.data not in (None, "fashion", "digits") else args.data or "fashion")
    config = resolve(args, preset)
    given = {k: getattr(args, k) for k in ("size", "channels", "autoencoder", "init") if getattr(args, k)}
    if args.data:
        given["source"] = args.data
    if args.pixels:
        given["pixels"] = True
    return replace(config, data=replace(config.data, **given))


def refuse_changes(args: argparse.Namespace) -> None:
    """Raises ValueError where --resume stands beside flags that would make another run of it."""
    own = ("preset", "config", "out", "overwrite", "size", "channels", "pixels", "autoencoder", "init")
    given = [k for k, v in vars(args).items() if ("." in k and v is not None) or (k in own and v)]
    if given:
        names = ", ".join(k.split(".")[-1].replace("_", "-") for k in given)
        raise ValueError(f"--resume goes on with the configuration in {args.resume}/config.toml: leave out {names}")


def name_of(source: str) -> str:
    """What a run on these data is called: the last part of their path, without the ending of a file."""
    path = Path(source)
    return path.stem if path.is_file() else path.resolve().name


class stop_gently:
    """The first Ctrl-C or SIGTERM saves the state after the step and exits with 130 or 143; the second stops at once."""

    def __init__(self, job: Any, progress: Any) -> None:
        self.job, self.progress = job, progress

    def __enter__(self) -> None:
        self.old = {s: signal.signal(s, self.ask) for s in (signal.SIGINT, signal.SIGTERM)}

    def ask(self, number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        loop = self.job.loop
        if loop is None:
            self.progress.note("stopped before the denoiser: what was not finished starts again with --resume")
            raise SystemExit(128 + number)
        self.progress.note("stopping after this step (again: at once)")
        loop.stop, self.number = True, number

    def __exit__(self, *error: object) -> None:
        for s, handler in self.old.items():
            signal.signal(s, handler)
        loop = self.job.loop
        if error[0] is None and loop is not None and loop.stop:
            self.job.save_state(loop)
            print(f"minidit: stopped at step {loop.done}; go on with: minidit train --resume {self.job.folder}", file=sys.stderr)
            raise SystemExit(128 + self.number)
