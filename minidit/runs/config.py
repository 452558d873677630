"""Configurations as TOML: written into every run folder, read back exactly; unknown keys and kinds are refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from minidit.checkpoint import CheckpointError, config_from
from minidit.choices import check_word
from minidit.incoming import read_toml, reading
from minidit.runs import former
from minidit.runs.kinds import KINDS, kind_of, with_room
from minidit.runs.presets import RunConfig

Tables = dict[str, dict[str, Any]]
BESIDE = {"environment", "history", "result"}  # sections that a run writes but that are not read back


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
    values = {**(asdict(base) if cls is type(base) else {}), **table}
    return config_from(cls, with_room(cls, values, table) if name == "model" else values, where)


def with_later_settings(name: str, table: dict[str, Any]) -> dict[str, Any]:
    """A section as an earlier version recorded it, and the settings that came later, with the defaults that change nothing."""
    kinds = KINDS.get(name)
    kind = table.get("kind")
    cls = type(getattr(RunConfig(), name)) if kinds is None else kinds.get(kind) if isinstance(kind, str) else None
    return table if cls is None else {**asdict(cls()), **table}


def read_config(path: Path, base: RunConfig | None = None) -> RunConfig:
    """The configuration in a TOML file."""
    tables = read_toml(path, CheckpointError)
    with reading(path, CheckpointError, ""):
        return run_config_from(tables, str(path), base)
