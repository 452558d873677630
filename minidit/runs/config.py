"""Configurations as TOML: written resolved beside every run, read back exactly, unknown keys refused."""

from __future__ import annotations

import json
import tomllib
import types
import typing
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from minidit.checkpoint import CheckpointError, config_from
from minidit.runs.presets import RunConfig


def to_toml(tables: dict[str, dict[str, Any]]) -> str:
    """Flat tables of strings, numbers, booleans and lists of them; None is left out (TOML has none)."""
    lines = []
    for name, table in tables.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {_value(v)}" for key, v in table.items() if v is not None]
        lines.append("")
    return "\n".join(lines)


def _value(v: Any) -> str:
    if isinstance(v, bool):
        return "true" if v else "false"
    if isinstance(v, (list, tuple)):
        return "[" + ", ".join(map(_value, v)) + "]"
    if isinstance(v, str):
        return json.dumps(v, ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML's basic strings are JSON's but for this
    return repr(v)


def tables_of(config: RunConfig) -> dict[str, dict[str, Any]]:
    """The sections of a run's configuration."""
    return {f.name: asdict(getattr(config, f.name)) for f in fields(config)}


def run_config_from(tables: dict[str, Any], where: str, base: RunConfig | None = None) -> RunConfig:
    """A RunConfig from TOML tables over `base`. Raises CheckpointError for an unknown section or key, with a suggestion."""
    base = base or RunConfig()
    known = {f.name for f in fields(RunConfig)}
    extra = {"environment", "result"}
    merged = {}
    for name, table in tables.items():
        if name not in known | extra:
            config_from(RunConfig, {name: None}, where)  # raises, with a suggestion
        if not isinstance(table, dict):
            raise CheckpointError(f"{where}: {name} must be a section, [{name}]")
    for f in fields(RunConfig):
        own = getattr(base, f.name)
        section = f"{where}, section [{f.name}]"
        given = tables.get(f.name, {})
        for key, kind in typing.get_type_hints(type(own)).items():
            if key in given and not _is_a(given[key], kind):
                raise CheckpointError(f"{section}: {key} = {given[key]!r} must be {_told(kind)}")
        merged[f.name] = config_from(type(own), {**asdict(own), **given}, section)
    return RunConfig(**merged)


def _is_a(v: Any, kind: Any) -> bool:
    """Whether a value read from TOML has the type of a field: a whole number is a float too, true is no number."""
    parts = typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        return isinstance(v, list) and len(v) == len(parts) and all(map(_is_a, v, parts))
    if isinstance(kind, types.UnionType):
        return any(_is_a(v, part) for part in parts)
    return isinstance(v, (int, float) if kind is float else kind) and (kind is bool or not isinstance(v, bool))


def _told(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    if typing.get_origin(kind) is tuple:
        return f"a list of {len(typing.get_args(kind))} numbers"
    return names.get(kind) or " or ".join(_told(part) for part in typing.get_args(kind) if part is not type(None))


def read_config(path: Path, base: RunConfig | None = None) -> RunConfig:
    """The configuration in a TOML file."""
    try:
        tables = tomllib.loads(path.read_text())
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: not TOML ({error})") from error
    return run_config_from(tables, str(path), base)
