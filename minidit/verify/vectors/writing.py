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

from minidit.checkpoint.files import write_arrays
from minidit.outgoing import check_writable, write_text, writing
from minidit.verify.cases import topics_named
from minidit.verify.core.compare import TOLERANCE, allowed
from minidit.verify.core.denoiser import Linear
from minidit.verify.core.finding import copies
from minidit.verify.core.reference import AnyTopic, Probe
from minidit.verify.core.schema import SCHEMA
from minidit.verify.core.values import ValueFormError, packed
from minidit.verify.refusals import refusals
from minidit.verify.vectors.suite import FORMAT, entry_of, json_of, made

SUITE = "1.7.0"  # of the vectors themselves, apart from the package's and SPEC's
INLINE = 64
CORE = 96_000  # bytes of arrays that the questions of one topic may bring into the core pack, beyond its smallest question
OBSERVED = Path(__file__).parents[1] / "observed.json"  # made by tools/observe_vectors.py
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
    manifest = json_of(folder / "manifest.json") if "manifest.json" in names else {}
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
            cases = list(_cases(topic, full, arrays.setdefault(topic.group, {})))
        except ValueFormError as error:
            left_out.append({"topic": topic.name, "why": str(error)})
            continue
        groups.setdefault(topic.group, []).append(_about(topic) | {"cases": cases})
    files = []
    for group, topics in groups.items():
        _write_group(folder / f"{group}.json", group, topics)
        files.append(entry_of(folder / f"{group}.json", sum(len(t["cases"]) for t in topics)))
        if arrays[group]:
            write_arrays(folder / f"{group}.safetensors", arrays[group], {})
            files.append(entry_of(folder / f"{group}.safetensors", 0))
    _write(folder / "schema.json", SCHEMA)
    manifest = manifest_of([*files, entry_of(folder / "schema.json", 0)], left_out, full)
    _write(folder / "manifest.json", manifest)
    return manifest


def manifest_of(files: list[dict[str, Any]], left_out: list[dict[str, str]], full: bool) -> dict[str, Any]:
    """What a suite says of itself and of its files."""
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
        answer, on_the_way = made(topic, copies(probe.args))
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
