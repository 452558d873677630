"""How pictures were drawn, as a sentence and as the command that draws them again; a PNG of `minidit sample` holds both.

    2 pictures, 8 steps of ddim with ab2_arc, guidance 4 in (0.2, 0.7], seed 0, by the weights fashion: shirt; bag
    again: minidit sample --labels shirt,bag --guidance 4 --seed 0 --steps 8 --sampler ddim --solver ab2_arc …
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minidit.runs.pipeline import Pipeline
    from minidit.runs.walks import Options

WITHOUT_EFFECT = {"out", "quiet", "debug"}  # the options of the command that change no picture
AGAIN = "again: "  # before the command
WALK = ("steps", "spacing", "path", "shift", "sampler", "solver", "eta")  # the options that decide which steps are made


def summary(args: argparse.Namespace, pipeline: Pipeline, options: Options, n: int) -> str:
    """How many were drawn, and how, with every option that changes them.

    options : those of `Pipeline.latents`, with the words of the walk that was chosen
    """
    noun = "clip" if len(pipeline.model.shape) == 4 else "picture"
    frames = f" of {args.frames} frames" if noun == "clip" and args.frames else ""
    precision = "" if args.precision == "float32" else f", in {args.precision}"
    return (f"{n} {noun}{'s' * (n != 1)}{frames}, {walk_in_words(pipeline, options)}{guidance_in_words(pipeline, options)}"
            f"{choice_in_words(args)}{precision}, seed {args.seed}")  # fmt: skip


def walk_in_words(pipeline: Pipeline, options: Options) -> str:
    """The steps that are made, and their method. They are fewer than asked for where a law of rungs merges equal ones."""
    from minidit.runs.writer import Writer

    steps, sampler, solver = options["steps"], options["sampler"], options["solver"]
    if isinstance(pipeline, Writer):
        return f"{counted(pipeline.steps(steps))} of {sampler}"
    walk: dict[str, Any] = {name: value for name, value in options.items() if name in WALK}
    how = pipeline.settings(**walk)
    made = counted(len(how.times(how.path or pipeline.process.path)))
    if pipeline.usual.few:
        return f"{made} of a network for few steps" + (f" by {sampler}" if sampler != pipeline.usual.sampler else "")
    words = [f"{made} of {sampler}"] + [f"with {solver}"] * (solver != "euler")
    words += [f"on the path {options['path']}"] * bool(options.get("path"))
    more = (("spacing", options.get("spacing")), ("shift", options.get("shift")), ("eta", options.get("eta")))
    return " ".join(words) + "".join(f", {name} {value:g}" if isinstance(value, float) else f", {name} {value}"
                                     for name, value in more if value not in ("", None, 0.0))  # fmt: skip


def counted(steps: int) -> str:
    return f"{steps} step{'s' * (steps != 1)}"


def scale_of(pipeline: Pipeline, options: Mapping[str, Any]) -> tuple[float, tuple[float, float]] | None:
    """(the scale of guidance, the part of the path that is guided), as `Pipeline.settings` takes them; None without guidance."""
    if pipeline.model.condition.null is None or pipeline.usual.few:
        return None
    scale, part = options.get("guidance"), options.get("interval")
    usual = pipeline.interval if scale is None else (0.0, 1.0)
    return (pipeline.guidance if scale is None else scale), part or usual


def guidance_in_words(pipeline: Pipeline, options: Options) -> str:
    """The scale, and the part of the path where it holds, if it is not all."""
    if (guided := scale_of(pipeline, options)) is None:
        return ""
    scale, (low, high) = guided
    part = "" if (low, high) == (0.0, 1.0) or scale == 1 else f" in ({low:g}, {high:g}]"
    return f", guidance {scale:g}{part}"


def choice_in_words(args: argparse.Namespace) -> str:
    """How codes are chosen, where it is asked for; of other models nothing: they refuse these flags."""
    words = (("temperature", args.temperature), ("top-k", args.top_k), ("top-p", args.top_p))
    rising = {None: "", True: ", rising guidance", False: ", the same guidance everywhere"}[args.rising]
    return rising + "".join(f", {name} {number:g}" for name, number in words if number is not None)


def model_in_words(args: argparse.Namespace, pipeline: Pipeline) -> str:
    """Shipped weights, or a run, by name; of a saved state after how many updates it was saved."""
    if args.run is None:
        return f"the weights {args.weights or ('words' if args.prompt else 'fashion')}"
    done = (pipeline.meta or {}).get("step")
    return f"the run {Path(args.run).resolve().name}{f' after {done:,} updates' if isinstance(done, int) else ''}"


def again(parser: argparse.ArgumentParser, args: argparse.Namespace, pipeline: Pipeline, options: Options) -> str:
    """The command that draws the same pictures: what was asked for, and what was chosen where nothing was.

    So it draws them when a default of the walk changes, too, or when a run goes on: a saved state is named by its updates.
    parser : that of the command, which knows its options
    """
    from minidit.runs.writer import Writer

    asked = {a.dest: getattr(args, a.dest) for a in parser._actions if hasattr(args, a.dest) and a.dest not in WITHOUT_EFFECT}
    chosen: dict[str, Any] = {name: value for name, value in asked.items() if value != parser.get_default(name)}
    chosen["seed"] = args.seed
    if not isinstance(pipeline, Writer):
        chosen["steps"] = options["steps"]
        if not pipeline.usual.few:
            chosen |= {"sampler": options["sampler"], "solver": options["solver"]}
    if guided := scale_of(pipeline, options):
        chosen["guidance"] = guided[0]
        if guided[1] != (0.0, 1.0):
            chosen["guidance_interval"] = guided[1]
    done = (pipeline.meta or {}).get("step")
    if args.run is not None and Path(args.run).is_dir() and isinstance(done, int):
        chosen["state"] = done
    words = [word for a in parser._actions if a.dest in chosen for word in words_of(a, chosen[a.dest])]
    return shlex.join(["minidit", "sample", *words])


def words_of(action: argparse.Action, value: Any) -> list[str]:
    """An option with its value, as one types it."""
    if not action.option_strings:
        return [str(value)]
    flag = action.option_strings[0]
    if isinstance(action, argparse.BooleanOptionalAction):
        return [action.option_strings[0 if value else 1]]
    if action.nargs:
        return [flag, *map(exact, value)]
    values = map(exact, value if isinstance(value, list) else [value])
    return [word for text in values for word in ([f"{flag}={text}"] if text.startswith("-") else [flag, text])]


def exact(value: Any) -> str:
    """A value as one types it: the shorter of its two texts that is read as the same number."""
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
