"""Flags made from the fields of dataclasses: type, words and default from the field, the help from the comment behind it."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from dataclasses import fields
from typing import Any

from minidit.choices import comments_of, words_of
from minidit.cli.parser import Parser
from minidit.runs.kinds import KINDS, Config
from minidit.runs.presets import RunConfig

HIDDEN = {  # set by the data or by another flag, or needed only for the weights of other projects
    "model": {
        "input_size",
        "frames",
        "in_channels",
        "num_classes",
        "freq_shift",
        "mlp_norm_eps",
        "cosine_first",
        "even_padding",
        "norm_eps",
        "vocabulary",
        "caption_length",
        "channels",
        "text_width",
        "text_pooled",
        "text_length",
        "position_side",
        "rope_widths",
        "grid",
        "sizes",
    },
    "tokenizer": {"channels", "size", "scale"},
    "data": {
        "source", "size", "channels", "frames", "pictures", "tokenizer", "init", "held_out", "skip_bad", "flip", "crop", "cache",
    },
    "sample": {"eta"},
}
OFTEN = {  # the fields whose flags --help shows; --help-all shows all
    "train": {"lr", "steps", "batch_size", "seed", "precision"},
    "model": {"hidden_size", "depth", "num_heads", "patch_size", "widths"},
    "process": {"prediction", "schedule", "times", "shift", "learn_from", "pairs"},
    "tokenizer_train": {"steps"},
    "sample": {"steps", "guidance", "every", "save_every"},
}
PREFIX = {"tokenizer": "ae-", "tokenizer_train": "ae-", "sample": "sample-", "judge_train": "classifier-"}
NAMES = {"checkpoint_blocks": "recompute", "learn_from": "teacher"}  # fields whose flag has a shorter name
TITLES = {
    "train": "training the model", "model": "the model", "process": "the process", "tokenizer_train": "training the autoencoder",
    "tokenizer": "the autoencoder", "sample": "grids while training, and saved states",
    "judge_train": "the classifier that judges samples",
}  # fmt: skip
LETTERS = {int: "N", float: "X", str: "RUN"}  # of values in the help
Kinds = dict[str, type[Config]]  # section -> the dataclass of its kind


def flags_of(section: str, kinds: Kinds | None = None) -> list[tuple[str, dataclasses.Field[Any], Any]]:
    """(flag, field, type) for every field of a section that has a flag."""
    cls = (kinds or {}).get(section) or type(getattr(RunConfig(), section))
    types, prefix = typing.get_type_hints(cls), PREFIX.get(section, "")
    visible = [f for f in fields(cls) if f.name not in HIDDEN.get(section, set())]
    return [(f"--{prefix}{NAMES.get(f.name, f.name).replace('_', '-')}", f, types[f.name]) for f in visible]


def add_config_flags(parser: Parser, sections: list[str], defaults: RunConfig) -> None:
    """Adds one group of flags per section, those that are often used first. None means the value of the preset or the file.

    defaults : what holds where no flag is set. Flags of other kinds are known, so that `changed` can say whose they are, but not
    shown.
    """
    for section in sections:
        own = getattr(defaults, section)
        comments = comments_of(type(own))
        flags = flags_of(section, {section: type(own)})
        often = OFTEN.get(section, set())
        group = parser.add_argument_group(TITLES[section]) if flags else parser
        for flag, f, kind in sorted(flags, key=lambda entry: entry[1].name not in often):
            visible = parser.complete or f.name in often
            parser.rare += not visible
            text = about(f, comments.get(f.name, ""), getattr(own, f.name)) if visible else argparse.SUPPRESS
            add_flag(group, section, flag, f, kind, text)
        names = {flag for flag, _, _ in flags}
        for cls in KINDS.get(section, {}).values():
            for flag, f, kind in flags_of(section, {section: cls}):
                if flag not in names:
                    names.add(flag)
                    add_flag(group, section, flag, f, kind, argparse.SUPPRESS, any_number=True)


def about(f: dataclasses.Field[Any], comment: str, default: Any) -> str:
    """The help of a field's flag: its comment, and its default."""
    text = in_words(default)
    ending = f" (default: {text})" if text else ""
    return (comment.replace("None: ", "default: ") + ending).strip().replace("%", "%%")


def in_words(value: Any) -> str:
    """A default as one would write it on the command line; "" for none."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple | list):
        return " ".join(map(in_words, value)) or "none"
    return "" if value in (None, "") else f"{value:g}" if isinstance(value, float) else str(value)


def add_flag(
    group: Any, section: str, flag: str, f: dataclasses.Field[Any], kind: Any, help: str, *, any_number: bool = False
) -> None:
    """Adds the flag of a field of this type.   any_number : of values, for a flag that is refused in any case"""
    dest, parts = f"{section}.{f.name}", typing.get_args(kind)
    if kind is bool:
        group.add_argument(flag, dest=dest, action=argparse.BooleanOptionalAction, default=None, help=help)
    elif typing.get_origin(kind) is tuple:
        n = "+" if ... in parts or any_number else len(parts)
        group.add_argument(flag, dest=dest, type=parts[0], nargs=n, default=None, metavar=LETTERS[parts[0]], help=help)
    else:
        of = next(k for k in (parts or (kind,)) if k is not type(None))
        words = words_of(f)
        metavar = f"{{{','.join(words)}}}" if words else LETTERS[of]
        group.add_argument(flag, dest=dest, type=of, default=None, metavar=metavar, help=help)
