"""Command-line flags made from the fields of the configuration dataclasses: one source for defaults, TOML and --help."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import typing
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from minidit.checkpoint import CheckpointError
from minidit.runs.config import read_config
from minidit.runs.kinds import KINDS, Config, kind_of
from minidit.runs.presets import PRESETS, RunConfig
from minidit.runs.process_kinds import check_word
from minidit.runs.token_kinds import TokensConfig

HIDDEN = {  # set by the data or by another flag, or needed only for the weights of other projects
    "model": {"input_size", "frames", "in_channels", "num_classes", "freq_shift", "mlp_norm_eps", "cosine_first",
              "even_padding", "norm_eps", "vocabulary", "caption_length", "channels", "text_width", "text_pooled", "text_length",
              "position_side", "rope_widths", "grid", "sizes"},
    "tokenizer": {"channels", "size", "scale"},
    "data": {"source", "size", "channels", "frames", "tokenizer", "init", "held_out", "skip_bad", "flip", "crop", "cache"},
    "sample": {"eta"},
}
PREFIX = {"tokenizer": "ae-", "tokenizer_train": "ae-", "sample": "sample-", "judge_train": "classifier-"}
NAMES = {"checkpoint_blocks": "recompute", "learn_from": "teacher"}  # fields whose flag has a shorter name
HELP = {  # what is not clear from a flag's name, by the field of the process that it sets
    "prediction": "the network's answer: eps, x_0 or v on a ladder; u, x_0 or v on the straight path",
    "schedule": "linear, cosine or scaled_linear", "T": "rungs of the ladder", "loss_weight": "uniform, min_snr or by_noise",
    "times": "how often a time is trained: uniform, logit_normal, mode or cosmap",
    "times_mean": "of logit-normal times, or of ln t", "times_std": "likewise",
    "times_uniform": "the part of the times that is uniform, whatever the law of the others",
    "times_scale": "of mode: above 0 more of them are in the middle",
    "shift": "of the times, in training and in the grid: above 1 more of them are noisy",
    "sigma_data": "standard deviation of the data (default: measured)", "sigma_min": "of the grid", "sigma_max": "of the grid",
    "pairs": "a finished run: reflow, on pairs of noise and samples that it makes", "pairs_n": "pairs that are kept; 0: new ones",
    "pairs_steps": "of the walk that makes a pair", "pairs_solver": "of that walk", "pairs_guidance": "(default: the run's own)",
    "pairs_noise": "the part of a batch at pure noise, for samples of one step",
}  # fmt: skip
TITLES = {
    "train": "training the model",
    "model": "the model",
    "process": "the process",
    "tokenizer_train": "training the autoencoder",
    "tokenizer": "the autoencoder",
    "sample": "grids while training",
    "judge_train": "the classifier that judges samples",
}
# embedded set -> the preset that is made for it
PRESET_OF = {"fashion": "fashion", "digits": "digits", "emoji": "words", "shapes": "scenes", "clips": "clips"}
Kinds = dict[str, type[Config]]  # section -> the dataclass of its kind


def add_kinds(parser: argparse.ArgumentParser) -> None:
    """--model, --process and --tokenizer, and the two short forms for a tokenizer."""
    for section in ("model", "process"):
        parser.add_argument(f"--{section}", choices=sorted(KINDS[section]), help=f"the kind of {section} (default: the preset's)")
    kinds = ", ".join(sorted(KINDS["tokenizer"]))
    parser.add_argument("--tokenizer", metavar="KIND|RUN",
                        help=f"a kind ({kinds}; default: the preset's), or a trained one: a file, or a run folder")  # fmt: skip
    parser.add_argument("--pixels", action="store_true", help="short for --tokenizer pixels: no autoencoder (for small pictures)")
    parser.add_argument("--autoencoder", metavar="FILE", help="a trained autoencoder (a file, or a run folder)")


def kinds_in(words: Sequence[str], base: RunConfig) -> Kinds:
    """The kinds on a command line, read before it is parsed; unknown words are left for the parser to report.

    base : the kinds that hold where neither the words nor the preset or the file that they name say another
    """
    glance = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for flag in (*KINDS, "preset", "config", "data"):
        glance.add_argument(f"--{flag}")
    glance.add_argument("--pixels", action="store_true")
    try:
        kinds = vars(glance.parse_known_args(list(words))[0])
    except argparse.ArgumentError:
        kinds = {}
    base = PRESETS.get(preset_of(kinds.get("preset"), kinds.get("data"), kinds.get("process")), base)
    if kinds.get("config"):
        with contextlib.suppress(CheckpointError):  # reported when it is read again
            base = read_config(Path(kinds["config"]), base)
    if kinds.get("pixels"):
        kinds["tokenizer"] = "pixels"
    return {s: KINDS[s].get(str(kinds.get(s))) or type(getattr(base, s)) for s in KINDS}


def preset_of(preset: str | None, data: str | None, process: str | None = None) -> str:
    """The name of the preset that holds for these data, or for a process that has one of its own name."""
    return preset or (process if process in PRESETS else None) or PRESET_OF.get(data or "fashion", "own")


def flags_of(section: str, kinds: Kinds | None = None) -> list[tuple[str, dataclasses.Field[Any], Any]]:
    """(flag, field, type) for every field of a section that has a flag."""
    cls = (kinds or {}).get(section) or type(getattr(RunConfig(), section))
    types, prefix = typing.get_type_hints(cls), PREFIX.get(section, "")
    visible = [f for f in fields(cls) if f.name not in HIDDEN.get(section, set())]
    return [(f"--{prefix}{NAMES.get(f.name, f.name).replace('_', '-')}", f, types[f.name]) for f in visible]


def add_config_flags(parser: argparse.ArgumentParser, sections: list[str], kinds: Kinds | None = None) -> None:
    """Adds one group of flags per section. None means the value of the preset or the file.

    Flags of kinds that were not chosen are known, so that `changed` can say whose they are, but not shown.
    """
    for section in sections:
        flags = flags_of(section, kinds)
        group = parser.add_argument_group(TITLES[section]) if flags else parser
        names = {flag for flag, _, _ in flags}
        for flag, f, kind in flags:
            add_flag(group, section, flag, f.name, kind, help=HELP.get(f.name) if section == "process" else None)
        for cls in KINDS.get(section, {}).values():
            for flag, f, kind in flags_of(section, {section: cls}):
                if flag not in names:
                    names.add(flag)
                    add_flag(group, section, flag, f.name, kind, help=argparse.SUPPRESS)


def add_flag(group: Any, section: str, flag: str, name: str, kind: Any, help: str | None) -> None:
    """Adds the flag of a field of this type.   help : argparse.SUPPRESS for one that is not shown"""
    dest, parts, hidden = f"{section}.{name}", typing.get_args(kind), help == argparse.SUPPRESS
    if kind is bool:
        group.add_argument(flag, dest=dest, action=argparse.BooleanOptionalAction, default=None, help=help)
    elif typing.get_origin(kind) is tuple:
        n = "+" if ... in parts or hidden else len(parts)  # of a flag that is not shown any number is the wrong kind
        group.add_argument(flag, dest=dest, type=parts[0], nargs=n, default=None, metavar=name[0].upper(), help=help)
    else:
        of = next(k for k in (parts or (kind,)) if k is not type(None))
        group.add_argument(flag, dest=dest, type=of, default=None, metavar=of.__name__.upper(), help=help)


def with_threads(config: RunConfig, threads: int | None) -> RunConfig:
    """The same run on `threads` cores; None: unchanged."""
    if threads is None:
        return config
    sections = ("train", "tokenizer_train", "judge_train")
    return replace(config, **{s: replace(getattr(config, s), shards=threads) for s in sections})


def resolve(args: argparse.Namespace, preset: str) -> RunConfig:
    """The preset, then --config FILE, then the flags; each over the one before. Raises ValueError for values out of range."""
    config = PRESETS[preset]
    if getattr(args, "config", None):
        config = read_config(Path(args.config), config)
    config = with_threads(with_kinds(config, args), getattr(args, "threads", None))
    for f in fields(RunConfig):
        changes = {
            dest.split(".", 1)[1]: tuple(v) if isinstance(v, list) else v
            for dest, v in vars(args).items()
            if dest.startswith(f"{f.name}.") and v is not None
        }
        if changes:
            config = replace(config, **{f.name: changed(f.name, getattr(config, f.name), changes)})
    return config


def with_kinds(config: RunConfig, args: argparse.Namespace) -> RunConfig:
    """The same run with the kinds that flags set. Raises ValueError if --pixels is combined with a tokenizer."""
    kinds = {section: getattr(args, section, None) for section in KINDS}
    file = getattr(args, "autoencoder", None)
    named = kinds["tokenizer"]
    if named is not None and named not in KINDS["tokenizer"]:
        if file:
            raise ValueError(f"--tokenizer {named} and --autoencoder {file} both name a trained one: leave out one of them")
        if not Path(named).exists():
            check_word("--tokenizer", named, [*KINDS["tokenizer"], "a run that exists"])
        file, kinds["tokenizer"] = named, None
    if getattr(args, "pixels", False):
        if file or kinds["tokenizer"] not in (None, "pixels"):
            raise ValueError("--pixels means that there is no autoencoder: leave out one of them")
        kinds["tokenizer"] = "pixels"
    elif file and kind_of("tokenizer", config.tokenizer) == "pixels" and kinds["process"] not in PRESETS:
        kinds["tokenizer"] = kinds["tokenizer"] or "autoencoder"
    changes: dict[str, Any] = {"data": replace(config.data, tokenizer=file)} if file else {}
    for section, kind in kinds.items():
        if kind and kind != kind_of(section, getattr(config, section)):
            changes[section] = KINDS[section][kind]()
    process = changes.get("process", config.process)
    for section, known in process.partners.items() if isinstance(process, TokensConfig) else ():
        if not kinds[section] and kind_of(section, getattr(config, section)) not in known:
            changes[section] = KINDS[section][known[0]]()
    return replace(config, **changes)


def changed(name: str, section: Any, changes: dict[str, Any]) -> Any:
    """A section with other values. Raises ValueError for a flag of another kind."""
    for key in changes:
        if not hasattr(section, key):
            flag = f"--{PREFIX.get(name, '')}{key.replace('_', '-')}"
            other = next(kind for kind, cls in KINDS[name].items() if key in {f.name for f in fields(cls)})
            raise ValueError(f"{flag}: the {name} of this run is {kind_of(name, section)}; add --{name} {other}")
    return replace(section, **changes)
