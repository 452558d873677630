"""Command-line flags made from the fields of the configuration dataclasses: one source for defaults, TOML and --help."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from minidit.runs.config import read_config
from minidit.runs.presets import PRESETS, RunConfig

HIDDEN = {  # what the data decide, or another flag says, or what only the weights of others need
    "dit": {"input_size", "in_channels", "num_classes", "freq_shift", "mlp_norm_eps"},
    "autoencoder": {"channels", "size"},
    "data": {"source", "size", "channels", "pixels", "autoencoder", "init"},
    "sample": {"eta"},
}
PREFIX = {"train": "", "dit": "", "autoencode": "ae-", "autoencoder": "ae-", "sample": "sample-", "classify": "classifier-"}
NAMES = {"checkpoint_blocks": "recompute"}  # fields whose flag says more shortly what they do
TITLES = {
    "train": "training the denoiser",
    "dit": "the denoiser",
    "autoencode": "training the autoencoder",
    "autoencoder": "the autoencoder",
    "sample": "grids while training",
    "classify": "the classifier that judges samples",
}


def flags_of(section: str) -> list[tuple[str, dataclasses.Field[Any], Any]]:
    """(flag, field, type) for every field of a section that has a flag."""
    cls = next(type(getattr(RunConfig(), f.name)) for f in fields(RunConfig) if f.name == section)
    types = typing.get_type_hints(cls)
    shown = [f for f in fields(cls) if f.name not in HIDDEN.get(section, set())]
    return [(f"--{PREFIX[section]}{NAMES.get(f.name, f.name).replace('_', '-')}", f, types[f.name]) for f in shown]


def add_config_flags(parser: argparse.ArgumentParser, sections: list[str]) -> None:
    """Adds a group of flags a section. None means: as the preset or the file says."""
    for section in sections:
        group = parser.add_argument_group(TITLES[section])
        for flag, f, kind in flags_of(section):
            dest = f"{section}.{f.name}"
            if kind is bool:
                group.add_argument(flag, dest=dest, action=argparse.BooleanOptionalAction, default=None)
            elif typing.get_origin(kind) is tuple:
                n = len(typing.get_args(kind))
                of = typing.get_args(kind)[0]
                group.add_argument(flag, dest=dest, type=of, nargs=n, default=None, metavar=f.name[0].upper())
            else:
                of = next(k for k in (typing.get_args(kind) or (kind,)) if k is not type(None))
                group.add_argument(flag, dest=dest, type=of, default=None, metavar=of.__name__.upper())


def with_threads(config: RunConfig, threads: int | None) -> RunConfig:
    """The same run on so many cores; None: as it is."""
    if threads is None:
        return config
    return replace(config, **{s: replace(getattr(config, s), shards=threads) for s in ("train", "autoencode", "classify")})


def resolve(args: argparse.Namespace, preset: str) -> RunConfig:
    """The preset, then --config FILE, then the flags; each over the one before. Raises ValueError for values out of range."""
    config = PRESETS[preset]
    if getattr(args, "config", None):
        config = read_config(Path(args.config), config)
    config = with_threads(config, getattr(args, "threads", None))
    for f in fields(RunConfig):
        given = {
            dest.split(".", 1)[1]: tuple(v) if isinstance(v, list) else v
            for dest, v in vars(args).items()
            if dest.startswith(f"{f.name}.") and v is not None
        }
        if given:
            config = replace(config, **{f.name: replace(getattr(config, f.name), **given)})
    return config
