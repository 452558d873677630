"""Test vectors: the topics and their questions with the answers, as files that any language can read.

    minidit vectors export DIR         manifest.json, schema.json, and for each group of topics GROUP.json with GROUP.safetensors

Answers are float64, made by the reference; there is no second source. An array of more than 64 entries stands in the safetensors
file under the hash of its contents, so that equal tables stand there once. A case is valid (the answer is given) or invalid (an
implementation has to refuse it); `intermediate` holds what every block and every step of a sampler made on the way. The same
topics give the same bytes on one machine; elsewhere the numbers agree within the tolerances, which each topic states with its
reason and with what independent implementations were observed to need.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minidit.checkpoint.files import read_arrays, write_arrays
from minidit.incoming import Refusal, printable, read_json, reading
from minidit.outgoing import check_writable, write_text, writing
from minidit.verify.cases import topics_named
from minidit.verify.core.compare import TOLERANCE, allowed, difference
from minidit.verify.core.denoiser import Linear
from minidit.verify.core.finding import copies
from minidit.verify.core.reference import AnyTopic, Probe, Reference
from minidit.verify.core.schema import SCHEMA, violations
from minidit.verify.core.values import ValueFormError, packed, unpacked
from minidit.verify.refusals import refusals

FORMAT, SUITE = 1, "1.5.0"  # of the files' form; of the vectors themselves, apart from the package's and SPEC's
INLINE = 64
CORE = 96_000  # bytes of arrays that the questions of one topic may bring into the core pack, beyond its smallest question
SHIPPED = Path(__file__).parents[1] / "vectors"  # the core pack
OBSERVED = Path(__file__).with_name("observed.json")  # made by tools/observe_vectors.py
DENOISER = (
    "{linear: slope, shift, pattern} is the network of a sampler's case: eps = slope[t] * x + shift[t] * pattern; "
    "one with labels answers slope[t] * x + labels[y] * shift[t] * pattern"
)
RULE = (
    "max |a - b| / max |b| over each array, b the answer here, or max |a - b| where a topic is marked absolute; "
    "NaN equals NaN, infinities equal themselves; shapes must agree"
)
UNOBSERVED = (
    "a draw: what is compared is how many standard errors its statistics are from those of the law, and the generator decides "
    "that, not rounding"
)


class VectorsError(Refusal):
    """A folder that is no suite of vectors; the message is one line and names the file."""


def export(folder: str | Path, *, full: bool = False) -> dict[str, Any]:
    """Writes the suite into a folder and returns its manifest. full: every question, not only what the core pack has room for.

    A suite that is there stays until the new one is complete, and is replaced as a whole. Raises ValueError for a folder that
    holds anything else than a suite, which stays as it is.
    """
    named, folder = folder, Path(folder).resolve()
    _check_replaceable(folder)
    check_writable(folder / "manifest.json", 2**22)
    with writing(named), _beside(folder) as beside:
        new, old = beside / "new", beside / "old"
        new.mkdir()
        manifest = _export(new, full)
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        except BaseException:
            if old.exists():
                old.rename(folder)
            raise
    return manifest


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A new folder beside this one, removed at the end."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".minidit-", dir=folder.parent, ignore_cleanup_errors=True) as beside:
        yield Path(beside)


def _check_replaceable(folder: Path) -> None:
    """ValueError where something would be lost that is no suite."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file: name a folder for the vectors alone")
    names = {p.name for p in folder.iterdir()}
    if not names:
        return
    manifest = _json(folder / "manifest.json") if "manifest.json" in names else {}
    if not isinstance(manifest, dict) or manifest.get("suite") != "minidit-vectors":
        raise ValueError(f"{folder} holds other files ({min(names)}) and is no suite: name a folder for the vectors alone")
    strange = sorted(names - {"manifest.json"} - {entry["path"] for entry in manifest.get("files", [])})
    if strange:
        raise ValueError(f"{folder} holds other files ({strange[0]}): name a folder for the vectors alone")


def _export(folder: Path, full: bool) -> dict[str, Any]:
    """Into an empty folder."""
    groups: dict[str, list[dict[str, Any]]] = {}
    arrays: dict[str, dict[str, Any]] = {}
    left_out = []
    for topic in topics_named(None):
        try:
            made = list(_cases(topic, full, arrays.setdefault(topic.group, {})))
        except ValueFormError as error:
            left_out.append({"topic": topic.name, "why": str(error)})
            continue
        groups.setdefault(topic.group, []).append(_about(topic) | {"cases": made})
    files = []
    for group, topics in groups.items():
        _write_group(folder / f"{group}.json", group, topics)
        files.append(_file(folder / f"{group}.json", sum(len(t["cases"]) for t in topics)))
        if arrays[group]:
            write_arrays(folder / f"{group}.safetensors", arrays[group], {})
            files.append(_file(folder / f"{group}.safetensors", 0))
    _write(folder / "schema.json", SCHEMA)
    manifest = _manifest([*files, _file(folder / "schema.json", 0)], left_out, full)
    _write(folder / "manifest.json", manifest)
    return manifest


def _manifest(files: list[dict[str, Any]], left_out: list[dict[str, str]], full: bool) -> dict[str, Any]:
    from minidit.version import __version__

    return {
        "suite": "minidit-vectors", "format": FORMAT, "version": SUITE, "pack": "full" if full else "core", "licence": "MIT",
        "generator": {"name": "minidit", "version": __version__}, "rule": RULE, "denoiser": DENOISER,
        "tolerance": TOLERANCE,
        "cases": sum(f["cases"] for f in files), "bytes": sum(f["bytes"] for f in files), "files": files, "left_out": left_out,
    }  # fmt: skip


def _about(topic: AnyTopic) -> dict[str, Any]:
    """What a reader has to know of a topic: signature, tolerance in every precision with its reason, observed errors."""
    observed = json.loads(OBSERVED.read_text("utf-8")) if OBSERVED.exists() else {}
    return {
        "topic": topic.name, "spec": topic.spec, "takes": topic.takes, "gives": topic.gives,
        "tolerance": {name: allowed(topic, name) for name in TOLERANCE}, "because": topic.because,
        "observed": observed.get(topic.name, {}), **({"absolute": True, "unobserved": UNOBSERVED} if topic.allowed else {}),
    }  # fmt: skip


def _cases(topic: AnyTopic, full: bool, arrays: dict[str, Any]) -> Iterator[dict[str, Any]]:
    used = 0
    nonsense = [probe for name, probe in refusals() if name == topic.name]
    for k, probe in enumerate([*topic.probes(), *nonsense]):
        new_arrays: dict[str, Any] = {}
        case = _case(topic, probe, new_arrays)
        size = sum(a.nbytes for name, a in new_arrays.items() if name not in arrays)
        if full or k == 0 or k >= len(topic.probes()) or used + size <= CORE:
            arrays.update(new_arrays)
            used += size
            yield case


def _case(topic: AnyTopic, probe: Probe, arrays: dict[str, Any]) -> dict[str, Any]:
    """One question with its answer; its large arrays go into `arrays`."""

    def keep(array: Any) -> dict[str, str]:
        head = f"{array.dtype} {array.shape} ".encode()
        arrays[name := hashlib.sha256(head + array.tobytes()).hexdigest()[:16]] = array
        return {"file": f"{topic.group}.safetensors", "name": name}

    def call(function: Any) -> str:
        raise ValueFormError("its question holds a function, which cannot be written down (the process protocol can ask it)")

    def form(value: Any) -> Any:
        return packed(value, keep, call, INLINE)

    if topic.allowed and any(isinstance(a, Linear) for a in probe.args):
        raise ValueFormError("its noise is the sampler's own: only the moments of very many samples say something")
    case: dict[str, Any] = {"id": f"{topic.group}.{topic.name}.{probe.name}", "reveals": probe.reveals}
    case["args"] = form([{"linear": _tables(a)} if isinstance(a, Linear) else a for a in probe.args])
    try:
        answer, on_the_way = _made(topic, copies(probe.args))
    except Exception as error:
        return case | {"result": "invalid", "error": case["reveals"] or str(error)}
    case |= {"result": "valid"}
    if topic.measure is None:
        case["answer"] = form(answer)
    else:  # what is compared; the answer itself may be random, or an object
        case["measure"] = topic.measure.__name__.strip("_")
        case["measured"] = form(topic.measure(answer))
    return case | ({"intermediate": form(on_the_way)} if on_the_way else {})


def _tables(net: Linear) -> dict[str, Any]:
    """What a network of a case is made of."""
    tables = {"slope": net.slope, "shift": net.shift, "pattern": net.pattern}
    return tables if net.labels is None else tables | {"labels": net.labels}


def _made(topic: AnyTopic, args: Sequence[Any]) -> tuple[Any, dict[str, Any]]:
    """The reference's answer, and what came up on the way: outputs of layers, and every call of a sampler's denoiser."""
    R = Reference()
    with np.errstate(all="ignore"):
        answer = topic(R, *args)
    nets = [a for a in args if isinstance(a, Linear) and a.labels is None]  # others may be called once or twice per step
    calls = {f"step {k}": call._asdict() for a in nets for k, call in enumerate(a.seen)}
    return answer, R.taps | calls


def _write(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _write_group(path: Path, group: str, topics: Sequence[dict[str, Any]]) -> None:
    """One line per case, so that people and version control can read it."""

    def line(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))

    blocks = []
    for topic in topics:
        head = {k: v for k, v in topic.items() if k != "cases"}
        blocks.append(f'{line(head)[:-1]},"cases":[\n' + ",\n".join(map(line, topic["cases"])) + "\n]}")
    head = {"format": FORMAT, "group": group}
    write_text(path, f'{line(head)[:-1]},"topics":[\n' + ",\n".join(blocks) + "\n]}\n")


def _file(path: Path, cases: int) -> dict[str, Any]:
    content = path.read_bytes()
    return {"path": path.name, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), "cases": cases}


# ------------------------------------------------------------------------------------------------ reading and checking


def read(folder: str | Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(topic, case) for every case of a suite, with `args`, `answer`, `measured` and `intermediate` as Python values."""
    folder = Path(folder)
    with reading(folder / "manifest.json", VectorsError):
        paths = [_inside(folder, entry) for entry in _json(folder / "manifest.json")["files"] if entry["cases"]]
    for path in paths:
        with reading(path, VectorsError):
            beside = path.with_name(path.name.replace(".json", ".safetensors"))
            arrays = read_arrays(beside)[0] if beside.exists() else {}
            for topic in _json(path)["topics"]:
                for case in topic["cases"]:
                    values = {k: case[k] for k in ("args", "answer", "measured", "intermediate") if k in case}
                    yield topic, case | {k: unpacked(v, lambda file, name: arrays[name]) for k, v in values.items()}  # noqa: B023


def _inside(folder: Path, entry: dict[str, Any]) -> Path:
    """A file of the manifest. Raises VectorsError for a way out of the folder."""
    if Path(entry["path"]).name != entry["path"]:
        raise VectorsError(f"{folder / 'manifest.json'}: {entry['path']!r} is not the name of a file beside it")
    return folder / str(entry["path"])


def _json(path: Path) -> Any:
    if not path.exists():
        raise VectorsError(f"{path.parent} is no suite of vectors: it has no {path.name}")
    return read_json(path, VectorsError, "")


def check(folder: str | Path) -> list[str]:
    """What is wrong with a suite, one sentence each: checksums, form, ids, and every answer against the reference of today."""
    with reading(folder, VectorsError):
        return [printable(problem) for problem in _problems(Path(folder))]


def _problems(folder: Path) -> list[str]:
    manifest = _json(folder / "manifest.json")
    problems = [f"manifest.json{v}" for v in violations(manifest, SCHEMA["manifest"])]
    if problems or manifest["format"] != FORMAT:
        return problems or [f"format {manifest['format']}, this version reads {FORMAT}"]
    for entry in manifest["files"]:
        path = _inside(folder, entry)
        if not path.is_file():
            problems.append(f"{entry['path']} is missing")
        elif _file(path, entry["cases"]) != entry:
            problems.append(f"{entry['path']} is not the file of the manifest (sha256 or size)")
        elif entry["cases"]:
            group = _json(path)
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
            answer, on_the_way = _made(topic, args)
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
