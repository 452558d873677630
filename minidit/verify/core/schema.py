"""The form of the vectors' files, in the few words of JSON Schema that it needs, and a check of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# of every suite: `vectors export` copies it from the shipped one
SCHEMA: dict[str, Any] = json.loads((Path(__file__).parents[2] / "vectors" / "schema.json").read_text("utf-8"))
TYPES: dict[str, Any] = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float)}


def violations(value: Any, schema: dict[str, Any], where: str = "") -> Iterator[str]:
    """Where a value is not of the form, as "[place]: what is wrong"."""
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where}: {value!r} is not one of {schema['enum']}"
    if "type" in schema and (not isinstance(value, TYPES[schema["type"]]) or isinstance(value, bool)):
        yield f"{where}: {str(value)[:40]!r} is no {schema['type']}"
        return
    if isinstance(value, dict):
        yield from (f"{where}: lacks {key!r}" for key in schema.get("required", ()) if key not in value)
        more = schema.get("additionalProperties", {})
        for key, entry in value.items():
            inner = schema.get("properties", {}).get(key, more)
            if inner is False:
                yield f"{where}: unknown {key!r}"
            else:
                yield from violations(entry, inner, f"{where}[{key!r}]")
    if isinstance(value, list):
        for i, entry in enumerate(value):
            yield from violations(entry, schema.get("items", {}), f"{where}[{i}]")
