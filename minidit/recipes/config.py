"""Configurations as TOML: written resolved beside every run, read back exactly, unknown keys refused."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

from minidit.checkpoint import CheckpointError, config_from
from minidit.recipes.presets import RunConfig


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
        escaped = v.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'
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
    for name in tables:
        if name not in known | extra:
            config_from(RunConfig, {name: None}, where)  # raises, with a suggestion
    for f in fields(RunConfig):
        own = getattr(base, f.name)
        assert is_dataclass(own)
        values = {**asdict(own), **tables.get(f.name, {})}  # type: ignore[arg-type]
        try:
            merged[f.name] = config_from(type(own), values, f"{where}, section [{f.name}]")
        except ValueError as error:
            raise CheckpointError(str(error)) from error
    return RunConfig(**merged)


def read_config(path: Path, base: RunConfig | None = None) -> RunConfig:
    """The configuration in a TOML file."""
    try:
        tables = tomllib.loads(path.read_text())
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: not TOML ({error})") from error
    return run_config_from(tables, str(path), base)
