"""`minidit sample`: pictures from a trained run, or from the shipped weights."""

from __future__ import annotations

import argparse
import itertools
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minidit.cli.about import shipped
from minidit.cli.device import add_device, settle_device, settle_precision
from minidit.cli.drawn import AGAIN, again, model_in_words, summary
from minidit.cli.folders import refuse_missing, run_meant, runs_near
from minidit.cli.parser import Parser
from minidit.outgoing import check_writable, write_atomically

if TYPE_CHECKING:
    from minidit.processes.tokenizer import Pixel
    from minidit.runs.pipeline import Pipeline
    from minidit.runs.walks import Options
    from minidit.runs.wanted import Labels


def add_arguments(parser: Parser) -> None:
    parser.add_argument("run", nargs="?", metavar="RUN", help="a run folder (default: the shipped weights)")
    parser.add_argument("--labels", metavar="CLASSES", help='"0-9", "shirt,bag", "3": which classes (default: each in turn)')
    parser.add_argument("--prompt", action="append", metavar="WORDS",
                        help='what to draw, for a model of captions: "red heart, noto"; may be repeated. Without a run the '
                             "shipped model draws emoji (noto, twemoji, fluent); minidit info words --all: its words")
    parser.add_argument("-n", "--n", type=int, metavar="N",
                        help="how many pictures; the labels are repeated in turn (default: 16, or one per label)")
    parser.add_argument("--frames", type=int, metavar="N",
                        help="of every clip; 1: pictures, of a run that was trained with --pictures (default: as it was trained)")
    parser.add_argument("--out", metavar="FILE",
                        help="a .png (minidit info FILE says how to draw it again), a .gif (a film from noise to pictures; "
                             "clips play) or an .npz (for external tools) (default: grid.png, with a number if that exists)")
    parser.add_argument("--guidance", type=float, metavar="W",
                        help="how strictly pictures follow their class; 1 is plain conditional (default: the run's own)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the same number draws the same pictures (default: 0)")
    parser.add_argument("--steps", type=int, metavar="N",
                        help="steps from noise to picture, fewer are faster. If no option below says how to walk: 8 of ab2_arc "
                             "(in a film 24) down a ladder (as of the weights fashion), 18 in EDM, else 50. "
                             "Without a run, 1, 2 and 4 are those of another network, which was distilled for so few")
    parser.add_argument("--sampler", choices=("ddim", "ddpm", "consistency"), default="",
                        help="ddim, on any path the solution of an ODE, or ddpm with fresh noise (default: usually ddim)")
    parser.add_argument("--solver", choices=("euler", "ab2", "ab2_arc", "heun", "heun_edm", "dpm_2m"), default="",
                        help="without fresh noise; ab2 needs about half as many steps as euler (default: euler; heun_edm of EDM)")
    parser.add_argument("--weights", default="", metavar="NAME",
                        help="which of the shipped weights: fashion (clothes; default), raster or scales (clothes too, written "
                             "as tokens: one after another, or coarse to fine), words (emoji from words)")
    parser.add_argument("--state", default="", metavar="STATE",
                        help="a saved state of the run instead of its trained weights: latest, best, or a number of updates")
    add_device(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress, no remarks")
    group = parser.add_argument_group("the walk")
    parser.seldom(group, "--eta", type=float, default=0.0, metavar="X",
                  help="ddim: 0 no fresh noise, 1 as much as ddpm (default: 0)")
    parser.seldom(group, "--spacing", choices=("trailing", "linspace", "leading", "quadratic", "karras"), default="",
                  help="which rungs of a ladder; minidit rungs shows them (default: trailing)")
    parser.seldom(group, "--path", choices=("vp", "straight", "ve"), default="",
                  help="walk in the coordinates and on the grid of another path than the run was trained on")
    parser.seldom(group, "--shift", type=float, metavar="X",
                  help="of the times of the straight path: above 1 more steps are noisy")
    parser.seldom(group, "--guidance-interval", type=float, nargs=2, metavar=("LOW", "HIGH"),
                  help="guide only this part of the run's path (0 data, 1 noise)")
    text = "of the products; tf32 on a GPU, bf16 there or on a CPU with the extra mkl (default: float32)"
    parser.seldom(group, "--precision", default="float32", metavar="{float32,tf32,bf16}", help=text)
    group = parser.add_argument_group("of runs that write codes (--process raster or scales)")
    group.add_argument("--temperature", type=float, metavar="X", help="below 1: the probable codes more often (default: 1)")
    group.add_argument("--top-k", type=int, metavar="K", help="only among the K most probable codes (default: all)")
    group.add_argument("--top-p", type=float, metavar="P", help="only among the most probable codes of this mass (default: 1)")
    group.add_argument("--rising-guidance", action=argparse.BooleanOptionalAction, default=None, dest="rising",
                       help="from 1 at the first scale to --guidance at the last (default: of scales, not of raster)")
    parser.set_defaults(unquoted=unquoted(parser.words))
    parser.stray = lambda word: unquoted(parser.words)


def unquoted(words: Sequence[str]) -> str:
    """The command with the words after --prompt or --labels as one, if there are several and no file has the others' names."""
    for flag, mark in (("--prompt", " "), ("--labels", ",")):
        start = words.index(flag) + 1 if flag in words else len(words)
        some = list(itertools.takewhile(lambda word: not word.startswith("-"), words[start:]))
        if len(some) > 1 and not any(Path(word).exists() for word in some[1:]):
            return shlex.join(["minidit", *words[:start], mark.join(some), *words[start + len(some) :]])
    return ""


def check_place(args: argparse.Namespace) -> None:
    """Raises ValueError for a run that does not exist, with what was probably meant."""
    if args.run is None or Path(args.run).exists():
        return
    if args.unquoted:
        raise ValueError(f"{args.run}: there is no such run, did you mean {args.unquoted}?")
    if args.run in shipped():
        raise ValueError(f"{args.run}: there is no such run, did you mean --weights {args.run}?")
    if not run_meant(args.run) and not runs_near(args.run):
        raise ValueError(f"{args.run}: there is no such run (classes go after --labels, captions after --prompt)")
    refuse_missing(args.run)


def run(args: argparse.Namespace) -> int:
    out = Path(args.out) if args.out is not None else unused(Path("grid.png"))
    if out.suffix.lower() not in (".png", ".gif", ".npz"):
        raise ValueError(f"--out {args.out}: the name must end in .png, .gif or .npz")
    if not out.parent.is_dir():
        raise ValueError(f"--out {args.out}: there is no folder {out.parent}")
    check_writable(out)
    refuse_numbers(args)
    check_place(args)

    from minidit.cli.progress import Progress
    from minidit.runs.loading import load, load_few_steps
    from minidit.runs.pipeline import Pipeline
    from minidit.training.ranks import ranks

    device = settle_device(args)
    settle_precision(device, args.precision)
    few = in_few_steps(args)
    which = args.weights or ("words" if args.prompt and args.run is None else "")
    pipeline = load_few_steps(device=device) if few else load(args.run, device=device, state=args.state, weights=which)
    if not isinstance(pipeline, Pipeline):
        raise ValueError(f"{args.run} is a single network: give the run's folder")
    if not args.quiet and (unfinished := so_far(args)):
        print(f"note: {unfinished}", file=sys.stderr)
    pipeline = pipeline if args.frames is None else pipeline.of_frames(args.frames)
    refuse_spacing(args, pipeline)
    wanted, named = asked_walk(args, pipeline)
    steps = pipeline.steps(wanted)
    sampler, solver = pipeline.walk_words(args.sampler, named, args.eta, args.path)
    labels = labels_of(args, pipeline)
    n = len(labels) if labels is not None else args.n or 16
    check_writable(out, n * math.prod(pipeline.model.shape) * (1 if pipeline.tokenizer.limit else 16))  # bytes, about
    progress = Progress(args.quiet)
    options: Options = {
        "n": n, "steps": steps, "spacing": args.spacing, "path": args.path, "shift": args.shift, "sampler": sampler,
        "solver": solver, "eta": args.eta, "seed": args.seed, "precision": args.precision, "guidance": args.guidance,
        "interval": args.guidance_interval and tuple(args.guidance_interval), "temperature": args.temperature,
        "top_k": args.top_k, "top_p": args.top_p, "rising": args.rising,
    }  # fmt: skip
    how = summary(args, pipeline, options, n)
    if out.suffix.lower() == ".gif" and len(pipeline.model.shape) != 4:
        from minidit.pictures import save_gif
        from minidit.runs.show import film, moments, pace

        frames = moments(pipeline, labels, work=progress.steps, **options)
        progress.close()
        if ranks().first:
            save_gif(out, film(frames), ms=pace(len(frames)))
    else:
        x = pipeline.pictures(pipeline.latents(labels, **options | {"progress": progress.steps("sampling")}))
        progress.close()
        if not ranks().first:
            return 0
        add_arguments(parser := Parser())
        save(out, x, labels, pipeline, f"{how}, by {model_in_words(args, pipeline)}", again(parser, args, pipeline, options))
    print(out)
    if not args.quiet:
        print(how, file=sys.stderr)
    return 0


def so_far(args: argparse.Namespace) -> str:
    """How much of its training a run has behind it, if that has not ended, and how it goes on."""
    from minidit.runs.folder import config_of, is_run
    from minidit.runs.former import file_of
    from minidit.runs.state import paths_of, updates_of

    if args.run is None or args.state or not is_run(Path(args.run)) or file_of(Path(args.run), "model").exists():
        return ""
    done, steps = (updates_of(p) for p in paths_of(Path(args.run), "model")[:1]), config_of(Path(args.run)).train.steps
    return "".join(f"this run has made {n} of {steps} updates; minidit train --resume {args.run} goes on" for n in done)


def unused(path: Path) -> Path:
    """grid.png, or grid-2.png, … if that exists: a name that nobody chose replaces nothing."""
    names = itertools.chain([path], (path.with_stem(f"{path.stem}-{k}") for k in itertools.count(2)))
    return next(name for name in names if not name.exists())


def refuse_numbers(args: argparse.Namespace) -> None:
    """Raises ValueError for numbers that no walk can have, and for options that exclude each other."""
    for flag, number in (("--steps", args.steps), ("-n", args.n), ("--frames", args.frames)):
        if number is not None and number < 1:
            raise ValueError(f"{flag} {number} must be at least 1")
    numbers = {"--guidance": [args.guidance], "--eta": [args.eta], "--shift": [args.shift]}
    for flag, values in {**numbers, "--guidance-interval": args.guidance_interval or []}.items():
        if not all(value is None or math.isfinite(value) for value in values):
            raise ValueError(f"{flag} {' '.join(map(str, values))} must be finite")
    if args.eta and args.sampler not in ("", "ddim"):
        raise ValueError(f"--eta {args.eta:g}: how much fresh noise {args.sampler} has is fixed; --eta belongs to --sampler ddim")
    noise = f"--eta {args.eta:g}" if args.eta else f"--sampler {args.sampler}" if args.sampler not in ("", "ddim") else ""
    if noise and args.solver not in ("", "euler"):
        raise ValueError(f"--solver {args.solver} takes no fresh noise, and {noise} draws some: leave out one of them")
    if args.state and args.run is None:
        raise ValueError(f"--state {args.state}: name the run that it belongs to: minidit sample RUN --state {args.state}")


def refuse_spacing(args: argparse.Namespace, pipeline: Pipeline) -> None:
    """Raises ValueError for a law of rungs on a path that has none."""
    if args.spacing and (args.path in ("straight", "ve") or (not args.path and pipeline.ladder is None)):
        where = f"the path {args.path}" if args.path else "this model"
        raise ValueError(f"--spacing {args.spacing}: only a ladder has rungs to space, and {where} has none: leave it out")


def save(out: Path, x: Pixel, labels: Labels | None, pipeline: Pipeline, how: str, command: str) -> None:
    """Writes pictures as a sheet or an npz file, clips as a GIF as well.

    how, command : what a PNG says of itself, with what was drawn: as a sentence, and as a command
    """
    from minidit.pictures import save_gif, save_png
    from minidit.runs.show import playing, sheet

    if out.suffix.lower() == ".npz":
        _save_npz(out, x, labels, pipeline)
    elif out.suffix.lower() == ".gif":
        save_gif(out, playing(x, labels, pipeline), ms=200, hold=200)
    else:
        names = "; ".join(dict.fromkeys(pipeline.names_of(labels)))
        save_png(out, sheet(x, labels, pipeline), about=f"minidit sample: {how}{f': {names}' if names else ''}\n{AGAIN}{command}")


def labels_of(args: argparse.Namespace, pipeline: Pipeline) -> Labels | None:
    """What to draw, from --labels or --prompt; words that the model does not know are named on stderr.

    Raises ValueError for the flag of another kind of condition.
    """
    vocabulary = pipeline.vocabulary
    if vocabulary is None:
        if args.prompt:
            raise ValueError(f"--prompt: this model knows {pipeline.model.condition.words}, no captions"
                             + (": choose with --labels" if pipeline.model.condition.count else ""))  # fmt: skip
        return pipeline.labels(args.labels, args.n)
    words = f"its words: minidit info {args.run or args.weights or 'words'} --all"
    if args.labels is not None:
        raise ValueError(f"--labels: this model reads captions: say what to draw with --prompt ({words})")
    if not args.prompt:
        return pipeline.labels(None, args.n)
    try:
        rows, remarks = vocabulary.prompts(args.prompt)
    except ValueError as error:
        raise ValueError(f"{error} ({words})") from error
    for remark in [*remarks, *too_short(args.prompt, pipeline)]:
        print(f"note: {remark}", file=sys.stderr)
    return rows if args.n is None else rows[[k % len(rows) for k in range(args.n)]]


def too_short(prompts: Sequence[str], pipeline: Pipeline) -> list[str]:
    """A remark on prompts of fewer words than all captions that the model keeps as examples: it may draw anything."""
    from minidit.data.captions import words_of

    kept = (pipeline.meta or {}).get("data", {}).get("captions") or []
    short = [p for p in prompts if kept and len(words_of(p)) < min(len(words_of(caption)) for caption in kept)]
    return [f"{p!r} is shorter than the captions that the model knows, such as {kept[-1]!r}: say more" for p in short]


def asked_walk(args: argparse.Namespace, pipeline: Pipeline) -> tuple[int | None, str]:
    """(steps, solver) as they are asked for; where nothing is said about the walk, those of a quick one, of a film more steps."""
    words = (args.steps, args.spacing, args.path, args.shift, args.sampler, args.solver, args.eta)
    if any(word not in (None, "", 0.0) for word in words):
        return args.steps, args.solver
    return pipeline.quick_walk(film=(args.out or "").lower().endswith(".gif"))


def in_few_steps(args: argparse.Namespace) -> bool:
    """Whether the shipped flow map is meant: no run, one, two or four steps, and nothing else is said about the walk."""
    otherwise = (
        args.run, args.weights, args.prompt, args.state, args.spacing, args.path, args.shift, args.guidance,
        args.guidance_interval, args.sampler, args.solver, args.eta,
    )  # fmt: skip
    return args.steps in (1, 2, 4) and not any(word not in (None, "", 0.0) for word in otherwise)


def _save_npz(out: Path, x: object, labels: Labels | None, pipeline: Pipeline) -> None:
    """uint8 (N, H, W, C), of clips (N, T, H, W, C), under "arr_0", as tools for Fréchet distances expect; labels or captions."""
    import io

    import numpy as np

    from minidit.pictures import to_uint8

    arrays = {"arr_0": np.moveaxis(to_uint8(x), 1, -1)}
    if labels is not None and pipeline.vocabulary is not None:
        arrays["captions"] = np.asarray(pipeline.vocabulary.texts(labels))
    elif labels is not None:
        arrays["labels"] = np.asarray(labels)
        arrays["class_names"] = np.asarray(pipeline.class_names, str)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(out, buffer.getvalue())
