"""Command-line flags made from the fields of the configuration dataclasses: one source for defaults, TOML and --help."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from minidit.checkpoint import CheckpointError
from minidit.choices import check_word
from minidit.cli.flags import PREFIX
from minidit.cli.parser import Parser
from minidit.keywords import meant
from minidit.runs.config import read_config
from minidit.runs.kinds import KINDS, kind_of, with_room
from minidit.runs.presets import PRESETS, RunConfig, networks
from minidit.runs.token_kinds import TokensConfig

# embedded set -> the preset that is made for it
PRESET_OF = {"fashion": "fashion", "digits": "digits", "emoji": "words", "shapes": "scenes", "clips": "clips"}


def add_kinds(parser: Parser) -> None:
    """--model, --process and --tokenizer, the two short forms for a tokenizer, and --network for a whole model."""
    group, defaults = parser.add_argument_group("kinds, each with options of its own"), defaults_in(parser.words, RunConfig())
    default = {section: kind_of(section, getattr(defaults, section)) for section in KINDS}
    for section in ("model", "process"):
        words = sorted(KINDS[section])
        group.add_argument(f"--{section}", choices=words, help=f"the kind of {section} (default: {default[section]})")
    kinds = ", ".join(sorted(KINDS["tokenizer"]))
    group.add_argument("--tokenizer", metavar="KIND|RUN",
                       help=f"what turns pictures into latents or codes: a kind, which is then trained ({kinds}; default: "
                       f"{default['tokenizer']}), or a trained one, which stays as it is (a file, or a run folder)")  # fmt: skip
    group.add_argument("--pixels", action="store_true", help="short for --tokenizer pixels, for small pictures")
    group.add_argument("--network", metavar="NAME", help="the model of a preset or a paper (DiT-S/2, …): minidit info")
    group.add_argument("--autoencoder", metavar="FILE", help="the same as --tokenizer with a trained one")


def defaults_in(words: Sequence[str], base: RunConfig) -> RunConfig:
    """What a command line names as a whole, read before it is parsed: preset, file, kinds. Unknown words are left for the parser.

    base : what holds where neither the words nor the preset or the file that they name say another
    """
    kinds = _kinds_in(words)
    base = PRESETS.get(preset_of(kinds.get("preset"), kinds.get("data"), kinds.get("process")), base)
    if kinds.get("config"):
        with contextlib.suppress(CheckpointError):  # reported when it is read again
            base = read_config(Path(kinds["config"]), base)
    if kinds.get("pixels"):
        kinds["tokenizer"] = "pixels"
    base = replace(base, model=networks().get(str(kinds.get("network")), base.model))
    wanted = {s: KINDS[s].get(str(kinds.get(s)), type(getattr(base, s))) for s in KINDS}
    return replace(base, **{s: cls() for s, cls in wanted.items() if cls is not type(getattr(base, s))})


def _kinds_in(words: Sequence[str]) -> dict[str, Any]:
    """The flags of a command line that name something as a whole; {} where they cannot be read."""
    glance = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for flag in (*KINDS, "preset", "config", "data", "network"):
        glance.add_argument(f"--{flag}")
    glance.add_argument("--pixels", action="store_true")
    try:
        return vars(glance.parse_known_args(list(words))[0])
    except argparse.ArgumentError:
        return {}


def preset_in(words: Sequence[str]) -> str:
    """The name of the preset whose defaults hold for a command line."""
    kinds = _kinds_in(words)
    return preset_of(kinds.get("preset"), kinds.get("data"), kinds.get("process"))


def preset_of(preset: str | None, data: str | None, process: str | None = None) -> str:
    """The name of the preset that holds for these data, or for a process that has one of its own name."""
    return preset or (process if process in PRESETS else None) or PRESET_OF.get(data or "fashion", "own")


def with_threads(config: RunConfig, threads: int | None) -> RunConfig:
    """The same run on `threads` cores; None: unchanged."""
    if threads is None:
        return config
    if threads < 0:
        raise ValueError(f"--threads {threads} must be at least 0 (0: all cores)")
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
    if network := getattr(args, "network", None):
        known = networks()
        if network not in known:
            raise ValueError(f"there is no network {network!r}{meant(network, known) or '; minidit info lists them'}")
        config = replace(config, model=known[network])
    for section, kind in kinds.items():
        if kind and kind != kind_of(section, getattr(config, section)):
            changes[section] = KINDS[section][kind]()
    process = changes.get("process", config.process)
    for section, partners in process.partners.items() if isinstance(process, TokensConfig) else ():
        if not kinds[section] and kind_of(section, getattr(config, section)) not in partners:
            changes[section] = KINDS[section][partners[0]]()
    return replace(config, **changes)


def changed(name: str, section: Any, changes: dict[str, Any]) -> Any:
    """A section with other values. Raises ValueError for a flag of another kind."""
    for key in changes:
        if not hasattr(section, key):
            flag = f"--{PREFIX.get(name, '')}{key.replace('_', '-')}"
            other = next(kind for kind, cls in KINDS[name].items() if key in {f.name for f in fields(cls)})
            raise ValueError(f"{flag}: the {name} of this run is {kind_of(name, section)}; add --{name} {other}")
    if name == "model":
        changes = with_room(type(section), {**asdict(section), **changes}, changes)
    return replace(section, **changes)
