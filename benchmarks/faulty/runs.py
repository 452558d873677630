"""Tiny runs that are disturbed, and what must hold afterwards."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from minidit.checkpoint import read_arrays
from minidit.html.folder import read_run
from minidit.runs.folder import REPLACED, WEIGHTS
from minidit.runs.state import latest, paths_of, updates_of

ROOT = Path(__file__).parents[2]
PHASES = ("tokenizer", "model", "judge")
EVERY = 2  # updates between two states
CLOCKS = ("wall_s", "img_per_s")  # of a line of metrics.jsonl: the only values that may differ
TINY = [
    "--hidden-size", "32", "--depth", "1", "--num-heads", "2", "--patch-size", "1", "--batch-size", "8", "--shards", "2",
    "--T", "20", "--ae-batch-size", "8", "--ae-shards", "2", "--ae-widths", "8", "8", "16", "--classifier-steps", "5",
    "--classifier-batch-size", "8", "--classifier-shards", "2", "--sample-steps", "3", "--sample-every", "3",
    "--sample-save-every", str(EVERY),
]  # fmt: skip


@dataclass
class Outcome:
    """A command that has ended: its exit code (negative: the signal), what it wrote, the changes that it made, its group."""

    code: int
    out: str
    err: str
    trace: list[str]
    group: int


@dataclass
class Scenario:
    """A command on a run folder: how the folder is before, the command, and the one that goes on after a disturbance."""

    name: str
    words: Callable[[Path], list[str]]
    again: Callable[[Path], list[str]]
    before: Path | None = None  # a folder of which it begins with a copy
    reference: Path = field(default_factory=Path)  # the folder of the command that nothing disturbed
    trace: list[str] = field(default_factory=list)  # and its changes


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def command(words: list[str], folder: Path, plan: dict[str, Any] | None = None, **options: Any) -> Outcome:
    """Runs `minidit` with these words in a session of its own; with a plan under the driver, which makes a trace."""
    program, trace = ["-m", "minidit"], folder.with_name(f"{folder.name}.trace")
    if plan is not None:
        trace.unlink(missing_ok=True)
        program = ["-m", "benchmarks.faulty.driver", json.dumps({"folder": str(folder), "trace": str(trace), **plan})]
    done = subprocess.Popen([*options.pop("before", []), sys.executable, *program, *words], stdout=subprocess.PIPE, text=True,
                            stderr=subprocess.PIPE, env=environment(), start_new_session=True, cwd=ROOT, **options)  # fmt: skip
    out, err = done.communicate(timeout=300)
    lines = trace.read_text().splitlines() if plan is not None and trace.exists() else []
    return Outcome(done.returncode, out, err, lines, done.pid)


def pictures(folder: Path, each: int = 30) -> Path:
    """Two classes of random pictures of 8 x 8."""
    rng = np.random.default_rng(0)
    for name in "ab":
        (folder / name).mkdir(parents=True)
        for i in range(each):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / name / f"{i}.png")
    return folder


def scenarios(place: Path, *names: str) -> list[Scenario]:
    """The commands that are disturbed, each with its reference."""
    data = str(pictures(place / "pictures"))
    train = ["train", "--data", data, "--tokenizer", "autoencoder", "--ae-steps", "6", *TINY]
    whole = ["--steps", "6"]
    other = place / "other"  # the run that is overwritten, with a file of somebody else's in its folder
    finished = place / "finished"

    def resume(folder: Path) -> list[str]:
        if (folder / "config.toml").exists():
            return ["train", "--resume", str(folder), "--quiet"]
        return [*train, *whole, "--out", str(folder), "--quiet"]

    def over(folder: Path) -> list[str]:
        config = folder / "config.toml"
        if config.exists() and config.read_bytes() != (other / "config.toml").read_bytes():
            return ["train", "--resume", str(folder), "--quiet"]
        return [*train, *whole, "--overwrite", "--out", str(folder), "--quiet"]

    table = [
        Scenario("train", lambda f: [*train, *whole, "--out", str(f)], resume),
        Scenario("train auto", lambda f: [*train, *whole, "--out", str(f)],
                 lambda f: [*train, *whole, "--resume", "auto", "--out", str(f), "--quiet"]),
        Scenario("more steps", lambda f: ["train", "--resume", str(f), "--steps", "10"],
                 lambda f: ["train", "--resume", str(f), "--steps", "10", "--quiet"], finished),
        Scenario("eval", lambda f: ["eval", str(f), "-n", "10", "--ddpm-steps", "2"],
                 lambda f: ["eval", str(f), "-n", "10", "--ddpm-steps", "2", "--quiet"], finished),
        Scenario("overwrite", lambda f: [*train, *whole, "--overwrite", "--out", str(f)], over, other),
    ]  # fmt: skip
    wanted = [s for s in table if not names or s.name in names]
    for folder, more in ((finished, []), (other, ["--seed", "1"])):
        if any(s.before == folder for s in wanted):
            expect(command([*train, *whole, *more, "--out", str(folder), "--quiet"], folder))
            if more:
                (folder / "notes.txt").write_text("mine")
                (folder / "samples" / "mine.png").write_bytes(b"mine")
    for s in wanted:
        s.reference = place / f"reference {s.name}"
        begin(s, s.reference)
        s.trace = expect(command(s.words(s.reference), s.reference, {})).trace
    return wanted


def expect(outcome: Outcome) -> Outcome:
    """The outcome of a command that must succeed. Raises AssertionError with its last words."""
    assert outcome.code == 0, f"exit code {outcome.code}: {outcome.err[-2000:]}"
    return outcome


def begin(scenario: Scenario, folder: Path) -> Path:
    """The folder as the scenario's command finds it."""
    shutil.rmtree(folder, ignore_errors=True)
    if scenario.before is not None:
        shutil.copytree(scenario.before, folder)
    return folder


# ------------------------------------------------------------------------------------------------ what must hold


def lines(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what a clock says."""
    read = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in CLOCKS} for line in read]


def differing_bits(folder: Path, reference: Path) -> list[str]:
    """What is otherwise in two folders: files that are missing or more, and files whose contents differ."""
    ours, theirs = ({str(p.relative_to(f)) for p in f.rglob("*") if p.is_file()} for f in (folder, reference))
    wrong = [f"{name} is {'more' if name in ours else 'missing'}" for name in sorted(ours ^ theirs)]
    for name in sorted(ours & theirs - {"report.html", "metrics.jsonl"}):  # the page shows the clocks of the metrics
        mine, other = ((f / name).read_bytes() for f in (folder, reference))
        if mine.replace(str(folder).encode(), b"") != other.replace(str(reference).encode(), b""):
            wrong.append(f"{name} differs")
    if "metrics.jsonl" in ours & theirs and lines(folder) != lines(reference):
        wrong.append("metrics.jsonl differs")
    return wrong


def unreadable(folder: Path) -> list[str]:
    """What cannot be read in a folder that a process left: states, weights, and all that a report shows."""
    wrong = []
    for phase in PHASES:
        try:
            _, faults = latest(folder, phase)
            wrong += faults
        except ValueError as error:
            wrong.append(str(error))
    for path in [folder / name for name in WEIGHTS if (folder / name).exists()]:
        try:
            read_arrays(path)
        except ValueError as error:
            wrong.append(str(error))
    try:
        if folder.is_dir():
            read_run(folder)
    except ValueError as error:
        wrong.append(str(error))
    return wrong


def updates_lost(folder: Path, trace: list[str]) -> int:
    """The updates of the phase that a killed process was in, less those of its latest state."""
    updates = [line.split()[1:] for line in trace if line.startswith("update ")]
    if not updates:
        return 0
    phase, done = updates[-1][0], int(updates[-1][1])
    states = paths_of(folder, phase)
    return max(0, done - (updates_of(states[0]) if states else 0))


def states_lost(folder: Path, trace: list[str]) -> list[str]:
    """Phases whose latest state is older than the one that was last written."""
    last: dict[str, int] = {}
    for line in trace[:-1]:
        if line.startswith("replace states/"):
            phase, number = line.removeprefix("replace states/").removesuffix(".safetensors").split("-")
            last[phase] = int(number)
    there = {phase: max((updates_of(p) for p in paths_of(folder, phase)), default=0) for phase in last}
    return [f"the {phase}'s state {n} is gone, the latest is {there[phase]}" for phase, n in last.items() if there[phase] < n]


def old_run_lost(folder: Path, old: Path) -> bool:
    """Whether an overwritten run is incomplete although the new one has no state yet."""
    if any(paths_of(folder, phase) and not same(paths_of(folder, phase)[0], folder, old) for phase in PHASES):
        return False  # the new run's states
    places = (folder, folder / REPLACED)
    files = [p.relative_to(old) for p in old.rglob("*") if p.is_file()]
    return not all(any(same(place / f, place, old) for place in places) for f in files)


def same(path: Path, folder: Path, old: Path) -> bool:
    """Whether a file is that of the old run."""
    other = old / path.relative_to(folder)
    return other.exists() and path.exists() and other.read_bytes() == path.read_bytes()


def remains(folder: Path) -> list[str]:
    """Temporaries, locks and overwritten runs in a folder."""
    return [str(p.relative_to(folder)) for p in folder.rglob(".*")]


def orphans(group: int, seconds: float = 2.0) -> list[int]:
    """Processes of a group that still run after some seconds."""
    end = time.monotonic() + seconds
    while left := [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if alive_in(pid, group)]:
        if time.monotonic() > end:
            return left
        time.sleep(0.01)
    return []


def alive_in(pid: int, group: int) -> bool:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return False
    return int(fields[2]) == group and fields[0] != "Z"
