"""The form of the vectors' files, in the few words of JSON Schema that it needs, and a check of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_TEXT, _NUMBER, _LIST = {"type": "string"}, {"type": "number"}, {"type": "array"}
_TOLERANCE = {"type": "object", "required": ["float64", "float32"], "additionalProperties": _NUMBER}
_FILE = {
    "type": "object", "required": ["path", "sha256", "bytes", "cases"],
    "properties": {"path": _TEXT, "sha256": _TEXT, "bytes": {"type": "integer"}, "cases": {"type": "integer"}},
}  # fmt: skip
_CASE = {
    "type": "object", "required": ["id", "args", "result"],
    "properties": {
        "id": _TEXT, "reveals": _TEXT, "args": _LIST, "result": {"enum": ["valid", "invalid"]}, "answer": {}, "error": _TEXT,
        "measure": _TEXT, "measured": {}, "intermediate": {"type": "object"},
    },
    "additionalProperties": False,
}  # fmt: skip
_TOPIC = {
    "type": "object", "required": ["topic", "spec", "takes", "gives", "tolerance", "because", "observed", "cases"],
    "properties": {
        "topic": _TEXT, "spec": _TEXT, "takes": _TEXT, "gives": _TEXT, "tolerance": _TOLERANCE, "because": _TEXT,
        "observed": {"type": "object", "additionalProperties": _NUMBER}, "absolute": {"enum": [True]}, "unobserved": _TEXT,
        "cases": {"type": "array", "items": _CASE},
    },
    "additionalProperties": False,
}  # fmt: skip

SCHEMA: dict[str, Any] = {
    "manifest": {
        "type": "object",
        "required": ["suite", "format", "version", "pack", "rule", "tolerance", "cases", "bytes", "files", "left_out"],
        "properties": {
            "suite": {"enum": ["minidit-vectors"]}, "format": {"type": "integer"}, "version": _TEXT,
            "pack": {"enum": ["core", "full"]}, "files": {"type": "array", "items": _FILE}, "tolerance": _TOLERANCE,
            "left_out": {"type": "array", "items": {"type": "object", "required": ["topic", "why"]}},
        },
    },
    "group": {
        "type": "object", "required": ["format", "group", "topics"],
        "properties": {"format": {"type": "integer"}, "group": _TEXT, "topics": {"type": "array", "items": _TOPIC}},
        "additionalProperties": False,
    },
}  # fmt: skip
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
