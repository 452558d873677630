"""`minidit train`: a tokenizer (or none) and a model on pictures of any kind, into a run folder."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from minidit.cli.device import add_device, settle_device, settle_precision
from minidit.cli.flags import add_config_flags
from minidit.cli.folders import refuse_missing
from minidit.cli.options import PRESET_OF, add_kinds, defaults_in, preset_in, preset_of, resolve, with_threads
from minidit.incoming import printable

if TYPE_CHECKING:
    from minidit.cli.parser import Parser
    from minidit.cli.progress import Progress
    from minidit.data import Dataset
    from minidit.runs.phases import Run
    from minidit.runs.pipeline import Pipeline
    from minidit.runs.presets import RunConfig

AUTO = "auto"
LONGEST = 40  # letters of names of classes in a command that is proposed
LENGTHENED = {"train.steps": "model", "tokenizer_train.steps": "tokenizer", "judge_train.steps": "judge"}  # flag -> phase
SWITCHES = [f"{s}.{k}" for s in ("train", "tokenizer_train", "judge_train")
            for k in ("detect_anomaly", "accumulate", "checkpoint_blocks", "graph")]  # fmt: skip
DECIDE = (  # flags that would make it a different run
    "preset", "config", "out", "overwrite", "size", "channels", "frames", "pixels", "autoencoder", "init", "model", "process",
    "tokenizer", "network", "held_out", "skip_bad", "flip", "crop", "pictures",
)  # fmt: skip


def add_arguments(parser: Parser) -> None:
    from minidit.runs.presets import PRESETS, RunConfig

    name = preset_in(parser.words)
    parser.description = f"{parser.description} Defaults below are those of --preset {name}." + (
        " Another --data or --preset has its own: add it to --help." if name == "fashion" else ""
    )
    everyday(parser)
    group = parser.add_argument_group("the pictures")
    group.add_argument("--size", type=int, metavar="N", help="resize pictures to N x N (default: as they are, if all "
                       "have one size that is small and a multiple of 4; else 32)")  # fmt: skip
    group.add_argument("--channels", type=int, choices=(1, 3), help="grey or colour (default: as the pictures are)")
    switch = argparse.BooleanOptionalAction
    group.add_argument("--flip", action=switch, help="mirror training pictures with probability 1/2 (default: off)")
    group.add_argument("--crop", type=int, metavar="N", help="shift training pictures by up to N pixels whenever they are used "
                       "(default: 0)")  # fmt: skip
    group.add_argument("--skip-bad", action=switch, help="leave out files of the folder that cannot be read, and list them "
                       "(default: off)")  # fmt: skip
    parser.seldom(group, "--held-out", type=int, metavar="N", help="pictures not trained on (default: one in ten, 1,000 at most)")
    parser.seldom(group, "--frames", type=int, metavar="N", help="of every clip, with --data clips (default: 4)")
    parser.seldom(group, "--pictures", type=float, metavar="X", help="the share of single frames in a loss on clips, so that "
                  "minidit sample --frames 1 draws pictures (default: 0)")
    parser.seldom(group, "--cache", metavar="DIR", help='where large sets are decoded (default: ~/.cache/minidit); "off": memory')
    add_kinds(parser)
    sections = ["train", "model", "process", "tokenizer_train", "tokenizer", "sample", "judge_train"]
    add_config_flags(parser, sections, defaults_in(parser.words, RunConfig()))

    def stray(word: str) -> str:
        pictures = word in PRESET_OF or Path(word).exists()
        return f"--data {word}" if pictures else f"--preset {word}" if word in PRESETS else ""

    parser.stray = stray


def everyday(parser: Parser) -> None:
    """The flags that are no field of a configuration."""
    from minidit.runs.presets import PRESETS

    parser.add_argument("--data", metavar="PICTURES", help='a folder of pictures (sub-folders are classes; captions are '
                        'lines of metadata.jsonl: {"file_name": "1.png", "text": "a red disc"}), an IDX, CIFAR or npz file, '
                        '"digits", "fashion", "emoji", "shapes" or "clips" (default: those of --preset; "fashion" if none '
                        'is named)')  # fmt: skip
    parser.add_argument("--out", metavar="RUN", help="the run folder (default: runs/NAME, NAME that of your pictures; of "
                        "an embedded set, that of --preset, or of --process raster or scales, if one is named)")  # fmt: skip
    parser.add_argument("--preset", choices=sorted(PRESETS), metavar="NAME", help="where all defaults come from: "
                        f'{", ".join(sorted(PRESETS))} (default: that of the data; "own" for a folder)')  # fmt: skip
    parser.add_argument("--config", metavar="FILE", help="TOML with sections as in a run's config.toml, over the preset")
    parser.add_argument(
        "--resume",
        metavar="RUN",
        help="go on with a run (--steps: to more updates; --data: where its pictures are now); "
        "auto: with the one in the run folder, if there is one",
    )
    parser.add_argument("--init", metavar="RUN", help="fine-tune: begin with the weights of the model of a run (a file, or a run "
                        "folder, whose tokenizer is then used as well)")  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace a run that is already in the folder")
    parser.add_argument("--dry-run", action="store_true", help="say what the run would cost (parameters, minutes, memory, disk), "
                        "and write nothing")  # fmt: skip
    parser.add_argument("--no-gallery", action="store_true", help="end after the last update, without drawing pictures")
    parser.add_argument("--print-config", action="store_true", help="print the resolved configuration and stop")
    add_device(parser)
    parser.add_argument("--threads", type=int, metavar="N", help="cores to use, one per piece of a batch (default: all)")
    parser.add_argument("--quiet", action="store_true", help="no progress, no remarks; the folder is printed at the end")


def run(args: argparse.Namespace) -> int:
    from minidit.cli.progress import Progress, leaving, stop_gently
    from minidit.html.report import write_report
    from minidit.runs.folder import failing, refuse_taken
    from minidit.runs.gallery import show_run

    progress = Progress(args.quiet)
    if args.print_config and args.resume in (None, AUTO):
        from minidit.runs.config import tables_of, to_toml

        print(to_toml(tables_of(configure(args))))
        return 0
    if args.data == "":
        raise ValueError("--data is empty: name a folder or a set (was a variable not set?)")
    job = resumed(args, progress) if args.resume and args.resume != AUTO else begun(args, progress)
    if args.dry_run and not args.resume:
        refuse_taken(job.folder, overwrite=args.overwrite)
    train, held_out = job.data()
    job.fit_to(train)
    if args.dry_run:
        from minidit.runs.plan import plan

        place = f"{job.folder}{named_after(args, job)}"
        for line in [f"{train.name}: {len(train)} {train.words}, into {place}", *about_pictures(job, train)]:
            print(line, flush=True)
        progress.note("measuring how fast a few updates and a few pictures are …")
        print(*plan(job, train, gallery=not args.no_gallery), sep="\n")
        return 0
    if (args.resume == AUTO and not going_on(job, args)) or not args.resume:
        job.create(overwrite=args.overwrite)
    rests = job.existing and (job.folder / "model.safetensors").exists()
    announce(job, train, progress, named_after(args, job))
    with stop_gently(job, progress):
        pipeline = job.train(train, held_out)
    progress.close()
    if rests and job.rested:
        progress.note(f"{job.folder} has made its {job.config.train.steps:,} updates: for more, add --steps")
    again = f"the run is trained, and minidit train --resume {job.folder} draws its pictures again"
    with failing(job.folder, again), leaving(again, progress):
        if not args.no_gallery:
            show_run(job, pipeline, held_out, progress.steps)
            progress.close()
        page = write_report(job.folder) if job.ranks.first else None
    if page is not None:
        for line in what_next(job, pipeline, page, held_out is not None):
            progress.note(line)
    print(job.folder)
    return 0


def what_next(job: Run, pipeline: Pipeline, page: Path, measurable: bool) -> list[str]:
    """Where everything is, and the commands that one probably wants now."""
    folder, steps = job.folder, job.config.train.steps
    draw = '--prompt "WORDS"' if pipeline.vocabulary is not None else labels_of(pipeline)
    commands = [(f"minidit sample {folder} {draw}".rstrip(), "draw pictures")]
    if measurable:
        commands.append((f"minidit eval {folder}", "measure them"))
    commands.append((f"minidit train --resume {folder} --steps {2 * steps}", "train on"))
    width = max(len(command) for command, _ in commands)
    return [f"open {page}", *(f"  {command:{width}}   {why}" for command, why in commands)]


def labels_of(pipeline: Pipeline) -> str:
    """--labels with all classes of a model, if it has any: by their names where these are few and short."""
    names, last = pipeline.class_names, len(pipeline.class_names) - 1
    if last < 0:
        return ""
    text = ",".join(names)
    if len(text) > LONGEST or any("," in name for name in names) or all(name.isdecimal() for name in names):
        text = "0" if last == 0 else f"0-{last}"
    return f"--labels {shlex.quote(text)}"


def announce(job: Run, train: Dataset, progress: Progress, named: str = "") -> None:
    """Says what is trained on: pictures, held-out part, classes, augmentation, files that were left out.

    named : why the folder is called so
    """
    assert job.parts is not None
    held_out = 0 if job.parts.held_out is None else len(job.parts.held_out)
    progress.note(f"{train.name}: {len(train)} {train.words}, {held_out} held out, into {job.folder}{named}")
    for line in about_pictures(job, train):
        progress.note(line)


def about_pictures(job: Run, train: Dataset) -> list[str]:
    """Lines about the pictures: held-out part, classes, sizes that were changed, augmentation, files that were left out."""
    from minidit.data.counts import class_lines
    from minidit.runs.fitting import about_augmentation

    assert job.parts is not None
    held_out = 0 if job.parts.held_out is None else len(job.parts.held_out)
    lines = [job.parts.about, *class_lines(train), train.resized, about_augmentation(job.config)]
    if skipped := train.skipped:
        reasons = dict.fromkeys(why for _, why in skipped)
        few = "; ".join(", ".join([file for file, w in skipped if w == why][:2]) + f" ({why})" for why in list(reasons)[:2])
        where = f", listed in {job.folder}/skipped.jsonl" if job.existing or (job.folder / "skipped.jsonl").exists() else ""
        lines.append(printable(f"left out: {len(skipped)} of {len(skipped) + len(train) + held_out} files{where}: {few:.300}"
                               + ("; …" if len(skipped) > 2 else "")))  # fmt: skip
    return [line for line in lines if line]


def begun(args: argparse.Namespace, progress: Progress) -> Run:
    """A new run, whose folder is not made yet."""
    from minidit.runs.folder import skipped_of
    from minidit.runs.phases import Run

    config, device = configure(args), settle_device(args)
    for name in (args.init, args.autoencoder):
        refuse_missing(name, "run or file")
    settle_precision(device, config.train.precision, config.tokenizer_train.precision)
    folder = Path(args.out) if args.out else Path("runs") / usual_name(args, config)[0]
    job = Run(folder, config, device=device, tell=progress.tell, note=progress.note, progress=progress.part)
    if args.resume == AUTO and not args.overwrite and config.data.skip_bad:
        job.leave_out = skipped_of(folder)
    return job


def going_on(job: Run, args: argparse.Namespace) -> bool:
    """Whether the folder holds this run already; it may have had another number of updates.

    Raises ValueError if it holds one of another configuration, with what differs.
    """
    from minidit.runs.folder import config_of, is_run
    from minidit.runs.lengths import more_updates
    from minidit.runs.state import refuse_other_run

    if not is_run(job.folder) or args.overwrite:
        return False
    wanted, job.config = job.config, config_of(job.folder)
    refuse_other_run(job.folder, job.config, wanted)
    job.lengthen(more_updates(job.config, wanted))
    job.config = with_switches(job.config, args)
    return True


def resumed(args: argparse.Namespace, progress: Progress) -> Run:
    """The run in the folder that --resume names."""
    from minidit.runs.lengths import lengthened
    from minidit.runs.phases import resume

    refuse_changes(args)
    refuse_missing(args.resume)
    job = resume(Path(args.resume), device=settle_device(args), tell=progress.tell, note=progress.note, progress=progress.part)
    lengths = {phase: vars(args)[flag] for flag, phase in LENGTHENED.items() if vars(args)[flag] is not None}
    if args.dry_run:
        job.config = lengthened(job.folder, job.config, lengths)[0]
    else:
        job.lengthen(lengths)
    job.config = with_switches(job.config, args)
    if args.data:
        job.config = replace(job.config, data=replace(job.config.data, source=args.data))
    return job


def with_switches(config: RunConfig, args: argparse.Namespace) -> RunConfig:
    """The same run, computed in another way: cores, cache, and the SWITCHES that a command sets."""
    config = with_threads(config, args.threads)
    if args.cache:
        config = replace(config, data=replace(config.data, cache=args.cache))
    for name in SWITCHES:
        section, key = name.split(".")
        if vars(args).get(name) is not None:
            config = replace(config, **{section: replace(getattr(config, section), **{key: vars(args)[name]})})
    return config


def configure(args: argparse.Namespace) -> RunConfig:
    """The RunConfig that the flags describe."""
    config = resolve(args, preset_of(args.preset, args.data, args.process))
    fields = ("size", "channels", "frames", "pictures", "init", "held_out", "skip_bad", "flip", "crop", "cache")
    changes = {k: getattr(args, k) for k in fields if getattr(args, k) is not None}
    if args.data:
        changes["source"] = args.data
    return replace(config, data=replace(config.data, **changes))


def refuse_changes(args: argparse.Namespace) -> None:
    """Raises ValueError if --resume is combined with flags that would make it a different run."""
    off = [k for k in ("overwrite", "pixels") if not getattr(args, k)]  # of the others False is a choice
    decide = [k for k in vars(args) if k not in off and (k in DECIDE or ("." in k and k not in LENGTHENED and k not in SWITCHES))]
    changes = [k for k in decide if getattr(args, k) is not None]
    if changes:
        names = ", ".join(k.split(".")[-1].replace("_", "-") for k in changes)
        raise ValueError(f"--resume uses the configuration in {args.resume}/config.toml: leave out {names}")


def usual_name(args: argparse.Namespace, config: RunConfig) -> tuple[str, str]:
    """(the name of a run for which none is chosen, whose name that is).

    Pictures of one's own are looked for under their name; of an embedded set many runs are made, each by a preset.
    """
    from minidit.runs.presets import PRESETS

    named = {"--preset": args.preset, "--process": args.process if args.process in PRESETS else None}
    flag = next((flag for flag, word in named.items() if word), "")
    if flag and config.data.source in PRESET_OF:
        return str(named[flag]), flag
    return name_of(config.data.source), "the pictures"


def named_after(args: argparse.Namespace, job: Run) -> str:
    """Why the folder of a new run is called so, behind its name; "" where it was chosen."""
    if args.out or args.resume not in (None, AUTO):
        return ""
    return f" (named after {usual_name(args, job.config)[1]}; --out chooses another)"


def name_of(source: str) -> str:
    """The name of a run on these data: the last part of their path, without the suffix of a file."""
    path = Path(source)
    return path.stem if path.is_file() else path.resolve().name
