"""A suite of vectors that is there: read, and checked against the reference of today."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minidit.checkpoint.files import read_arrays
from minidit.incoming import Refusal, printable, read_json, reading
from minidit.verify.cases import topics_named
from minidit.verify.core.compare import difference
from minidit.verify.core.denoiser import Linear
from minidit.verify.core.reference import AnyTopic, Reference
from minidit.verify.core.schema import SCHEMA, violations
from minidit.verify.core.values import unpacked

FORMAT = 1  # of the files' form
SHIPPED = Path(__file__).parents[2] / "vectors"  # the core pack


class VectorsError(Refusal):
    """A folder that is no suite of vectors; the message is one line and names the file."""


def read(folder: str | Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(topic, case) for every case of a suite, with `args`, `answer`, `measured` and `intermediate` as Python values."""
    folder = Path(folder)
    with reading(folder / "manifest.json", VectorsError):
        paths = [_inside(folder, entry) for entry in json_of(folder / "manifest.json")["files"] if entry["cases"]]
    for path in paths:
        with reading(path, VectorsError):
            beside = path.with_name(path.name.replace(".json", ".safetensors"))
            arrays = read_arrays(beside)[0] if beside.exists() else {}
            for topic in json_of(path)["topics"]:
                for case in topic["cases"]:
                    values = {k: case[k] for k in ("args", "answer", "measured", "intermediate") if k in case}
                    yield topic, case | {k: unpacked(v, lambda file, name: arrays[name]) for k, v in values.items()}  # noqa: B023


def _inside(folder: Path, entry: dict[str, Any]) -> Path:
    """A file of the manifest. Raises VectorsError for a way out of the folder."""
    if Path(entry["path"]).name != entry["path"]:
        raise VectorsError(f"{folder / 'manifest.json'}: {entry['path']!r} is not the name of a file beside it")
    return folder / str(entry["path"])


def json_of(path: Path) -> Any:
    if not path.exists():
        raise VectorsError(f"{path.parent} is no suite of vectors: it has no {path.name}")
    return read_json(path, VectorsError, "")


def check(folder: str | Path) -> list[str]:
    """What is wrong with a suite, one sentence each: checksums, form, ids, and every answer against the reference of today."""
    with reading(folder, VectorsError):
        return [printable(problem) for problem in _problems(Path(folder))]


def _problems(folder: Path) -> list[str]:
    manifest = json_of(folder / "manifest.json")
    problems = [f"manifest.json{v}" for v in violations(manifest, SCHEMA["manifest"])]
    if problems or manifest["format"] != FORMAT:
        return problems or [f"format {manifest['format']}, this version reads {FORMAT}"]
    for entry in manifest["files"]:
        path = _inside(folder, entry)
        if not path.is_file():
            problems.append(f"{entry['path']} is missing")
        elif entry_of(path, entry["cases"]) != entry:
            problems.append(f"{entry['path']} is not the file of the manifest (sha256 or size)")
        elif entry["cases"]:
            group = json_of(path)
            problems += [f"{entry['path']}{v}" for v in violations(group, SCHEMA["group"])]
    known = {entry["path"] for entry in manifest["files"]} | {"manifest.json"}
    problems += [f"{p.name} is not in the manifest" for p in sorted(folder.iterdir()) if p.name not in known]
    return problems or _again(folder)


def _again(folder: Path) -> list[str]:
    problems, seen = [], set()
    topics = {t.name: t for t in topics_named(None)}
    for about, case in read(folder):
        if case["id"] in seen:
            problems.append(f"{case['id']} is there twice")
        seen.add(case["id"])
        if about["topic"] not in topics:
            problems.append(f"{case['id']}: there is no such topic any more")
            continue
        topic = topics[about["topic"]]
        try:
            args = [Linear(**a["linear"]) if isinstance(a, dict) and "linear" in a else a for a in case["args"]]
            answer, on_the_way = made(topic, args)
        except Exception as error:
            problems += [f"{case['id']}: refused today ({error})"] if case["result"] == "valid" else []
            continue
        if case["result"] == "invalid":
            problems.append(f"{case['id']}: not refused today")
            continue
        pairs = [(topic.measure(answer), case["measured"])] if topic.measure else [(answer, case["answer"])]
        pairs += [(on_the_way, case["intermediate"])] if "intermediate" in case else []
        relative = not about.get("absolute", False)
        gap = max((difference(now, then, relative=relative) for now, then in pairs), key=lambda d: d.error)
        if not gap.error <= about["tolerance"]["float64"]:
            problems.append(f"{case['id']}: {gap.where} {gap.what} (error {gap.error:.1e})")
    return problems


def made(topic: AnyTopic, args: Sequence[Any]) -> tuple[Any, dict[str, Any]]:
    """The reference's answer, and what came up on the way: outputs of layers, and every call of a sampler's denoiser."""
    R = Reference()
    with np.errstate(all="ignore"):
        answer = topic(R, *args)
    nets = [a for a in args if isinstance(a, Linear) and a.labels is None]  # others may be called once or twice per step
    calls = {f"step {k}": call._asdict() for a in nets for k, call in enumerate(a.seen)}
    return answer, R.taps | calls


def entry_of(path: Path, cases: int) -> dict[str, Any]:
    """What the manifest says of a file."""
    content = path.read_bytes()
    return {"path": path.name, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), "cases": cases}
