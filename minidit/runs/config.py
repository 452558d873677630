"""Configurations as TOML: written into every run folder, read back exactly; unknown keys and kinds are refused."""

from __future__ import annotations

import json
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from minidit.checkpoint import CheckpointError, config_from
from minidit.runs import former
from minidit.runs.kinds import KINDS, check_word, kind_of
from minidit.runs.presets import RunConfig

Tables = dict[str, dict[str, Any]]
BESIDE = {"environment", "result"}  # sections that a run writes but that are not read back


def to_toml(tables: Tables) -> str:
    """Flat tables of strings, numbers, booleans and lists of them; None is left out (TOML has none)."""
    lines = []
    for name, table in tables.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {_value(v)}" for key, v in table.items() if v is not None]
        lines.append("")
    return "\n".join(lines)


def _value(v: object) -> str:
    if isinstance(v, bool):
        return "true" if v else "false"
    if isinstance(v, (list, tuple)):
        return "[" + ", ".join(map(_value, v)) + "]"
    if isinstance(v, str):
        return json.dumps(v, ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML's basic strings are JSON's except for this
    return repr(v)


def tables_of(config: RunConfig) -> Tables:
    """The sections of a run's configuration; a section that has kinds begins with its kind."""
    tables = {}
    for f in fields(config):
        section = getattr(config, f.name)
        tables[f.name] = ({"kind": kind_of(f.name, section)} if f.name in KINDS else {}) | asdict(section)
    return tables


def run_config_from(tables: Mapping[str, Any], where: str, base: RunConfig | None = None) -> RunConfig:
    """A RunConfig from TOML tables over `base`, in the current names or in those of earlier versions.

    Raises CheckpointError for an unknown section, key or kind, with a suggestion.
    """
    base, names = base or RunConfig(), [f.name for f in fields(RunConfig)]
    for name, table in tables.items():
        if name not in {*names, *former.SECTIONS, *BESIDE}:
            config_from(RunConfig, {name: None}, where)  # raises, with a suggestion
        if not isinstance(table, dict):
            raise CheckpointError(f"{where}: {name} must be a section, [{name}]")
    tables = former.sections(tables)
    return RunConfig(**{n: _section(n, tables.get(n, {}), getattr(base, n), f"{where}, section [{n}]") for n in names})


def _section(name: str, table: dict[str, Any], base: Any, where: str) -> Any:
    """One section: the values of the table over those of the base, if both are of one kind."""
    cls, table = type(base), dict(table)
    if "kind" in table and name in KINDS:
        kind = table.pop("kind")
        try:
            check_word("kind", kind, KINDS[name])
        except ValueError as error:
            raise CheckpointError(f"{where}: {error}") from error
        cls = KINDS[name][kind]
    for key, expected in typing.get_type_hints(cls).items():
        if key in table and not _is_a(table[key], expected):
            raise CheckpointError(f"{where}: {key} = {table[key]!r} must be {_in_words(expected)}")
    return config_from(cls, {**(asdict(base) if cls is type(base) else {}), **table}, where)


def _is_a(v: object, expected: Any) -> bool:
    """Whether a value read from TOML has the type of a field: a whole number is a float too, true is not a number."""
    parts = typing.get_args(expected)
    if typing.get_origin(expected) is tuple:
        parts = parts[:1] * len(v) if isinstance(v, list | tuple) and ... in parts else parts
        return isinstance(v, list | tuple) and len(v) == len(parts) and all(map(_is_a, v, parts))
    if isinstance(expected, types.UnionType):
        return any(_is_a(v, part) for part in parts)
    return isinstance(v, (int, float) if expected is float else expected) and (expected is bool or not isinstance(v, bool))


def _in_words(expected: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    if typing.get_origin(expected) is tuple:
        parts = typing.get_args(expected)
        return "a list of numbers" if ... in parts else f"a list of {len(parts)} numbers"
    return names.get(expected) or " or ".join(_in_words(part) for part in typing.get_args(expected) if part is not type(None))


def read_config(path: Path, base: RunConfig | None = None) -> RunConfig:
    """The configuration in a TOML file."""
    try:
        tables = tomllib.loads(path.read_text())
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: not TOML ({error})") from error
    return run_config_from(tables, str(path), base)
