"""Writes that fail: at any change, on a full disk of any size, in a folder that may not be written. And damaged states."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.faulty import runs
from benchmarks.faulty.kills import Trial, points, spread
from benchmarks.faulty.runs import Outcome, Scenario, begin, command

CAUSE = re.compile(
    "Input/output error|No space left|quota exceeded|too large|Read-only|not permitted|denied|no permission|are free|directory"
)
WAY_ON = re.compile(r"--resume|--out|minidit eval|start again|another place|free some space|may write|another one")


def said(trial: Trial, folder: Path, outcome: Outcome) -> Trial:
    """A command that failed says so in one line: the file, the cause, the way on; one that went on has lost nothing."""
    text = outcome.err.splitlines()
    wrong = [line for line in text if line.startswith("minidit: ")]
    if outcome.code == 0:
        return trial
    if outcome.code < 0 or "Traceback" in outcome.err or len(wrong) != 1 or text[-1:] != wrong:
        trial.faults.append(f"exit code {outcome.code}, not one line: {outcome.err[-600:]}")
        return trial
    (line,) = wrong
    for what, there in {"the file": str(folder) in line, "the cause": CAUSE.search(line), "the way on": WAY_ON.search(line),
                        "no temporary": ".tmp" not in line}.items():  # fmt: skip
        if not there:
            trial.faults.append(f"{what} is missing: {line}")
    return trial


def failed(scenario: Scenario, folder: Path, at: int, errno: str, full: bool) -> Trial:
    """One change fails; full: from then on every write of the folder fails, as on a full disk."""
    begin(scenario, folder)
    plan = {"at": at, "do": "full" if full else "fail", "errno": errno}
    outcome = command([*scenario.words(folder), "--quiet"], folder, plan)
    what = f"{scenario.name}, {errno} {'from' if full else 'at'} change {at} ({scenario.trace[at - 1]})"
    return disturbed(said(Trial(what), folder, outcome), scenario, folder, outcome)


def disturbed(trial: Trial, scenario: Scenario, folder: Path, outcome: Outcome) -> Trial:
    """What must hold after a write fault: all is readable, and the next command makes the same bits."""
    trial.faults += runs.unreadable(folder) + runs.states_lost(folder, outcome.trace)
    if scenario.name == "overwrite" and scenario.before and runs.old_run_lost(folder, scenario.before):
        trial.faults.append("the overwritten run is incomplete, and the new one has no state")
    again = command(scenario.again(folder), folder)
    trial.faults += [again.err[-500:]] if again.code else runs.differing_bits(folder, scenario.reference)
    trial.faults += [f"{name} remains" for name in runs.remains(folder)]
    if not trial.faults:
        shutil.rmtree(folder, ignore_errors=True)
    return trial


def limited(scenario: Scenario, folder: Path, size: int) -> Trial:
    """No file may grow beyond some bytes (RLIMIT_FSIZE)."""
    begin(scenario, folder)
    outcome = command([*scenario.words(folder), "--quiet"], folder,
                      preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)))  # fmt: skip
    trial = said(Trial(f"{scenario.name}, files of at most {size} bytes"), folder, outcome)
    if outcome.code == 0 and size < max(p.stat().st_size for p in scenario.reference.rglob("*")):
        trial.faults.append("exit code 0, although a file could not be written")
    return disturbed(trial, scenario, folder, outcome)


def sizes(scenario: Scenario, n: int) -> list[int]:
    """Bytes around the end of every kind of file of a run, and n steps up to the largest."""
    largest = {p.stat().st_size for p in scenario.reference.rglob("*") if p.is_file()}
    return sorted({size + d for size in largest for d in (-1, 0)} | {max(largest) * i // n for i in range(n)})


# ------------------------------------------------------------------------------------------------ places


@contextlib.contextmanager
def small_disk(place: Path, size: int) -> Iterator[Callable[[str], None]]:
    """A tmpfs of so many bytes, and a function that mounts it anew with other options. Raises OSError if that is not allowed."""
    place.mkdir(parents=True, exist_ok=True)

    def mount(options: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True, capture_output=True)

    try:
        mount(f"size={size}")
    except (subprocess.CalledProcessError, OSError) as error:
        raise OSError(f"no tmpfs can be mounted: {error}") from error
    try:
        yield lambda options: mount(f"remount,{options}")
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True, capture_output=True)


def on_a_small_disk(scenario: Scenario, folder: Path, size: int) -> Trial:
    """The disk holds so many bytes; it grows before the next command."""
    with small_disk(folder, size) as remount:
        inside = folder / "run"
        try:
            begin(scenario, inside)
        except OSError:
            return Trial(f"{scenario.name}, a disk of {size} bytes, which does not hold what was there before")
        outcome = command([*scenario.words(inside), "--quiet"], inside)
        trial = said(Trial(f"{scenario.name}, a disk of {size} bytes"), inside, outcome)
        remount("size=100m")
        return disturbed(trial, scenario, inside, outcome)


def not_writable(scenario: Scenario, folder: Path, how: str) -> Trial:
    """how : "read-only", a disk that is mounted so; "another user", who owns nothing there."""
    trial = Trial(f"{scenario.name}, {how}")
    if how == "read-only":
        with small_disk(folder, 10**8) as remount:
            inside = begin(scenario, folder / "run")
            remount("ro")
            outcome = command([*scenario.words(inside), "--quiet"], inside)
            remount("rw")
            return refused(trial, scenario, inside, outcome)
    folder.mkdir()
    inside = begin(scenario, folder / "run")
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    outcome = command([*scenario.words(inside), "--quiet"], inside, before=user)
    return refused(trial, scenario, inside, outcome)


def refused(trial: Trial, scenario: Scenario, folder: Path, outcome: Outcome) -> Trial:
    """A command that may not write says so, and has changed nothing."""
    if outcome.code == 0:
        trial.faults.append("exit code 0")
    before = scenario.before or Path("/nonexistent")
    trial.faults += runs.differing_bits(folder, before) if before.exists() else [f"{p} is new" for p in folder.rglob("*")]
    return said(trial, folder, outcome)


# ------------------------------------------------------------------------------------------------ damaged states


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3] ^= 1
    path.write_bytes(data)


def flipped_header(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[60] ^= 4
    path.write_bytes(data)


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "cut in half": truncated, "empty": emptied, "a bit of its data flipped": flipped,
    "a bit of its header flipped": flipped_header, "a folder in its place": folder_instead,
}  # fmt: skip


def damaged(scenario: Scenario, folder: Path, phase: str, what: str, every: bool, at: int) -> Trial:
    """The latest state of a phase is damaged, or every one, after the command was killed at a change."""
    begin(scenario, folder)
    command(scenario.words(folder), folder, {"at": at, "do": "kill"})
    states = runs.paths_of(folder, phase)
    trial = Trial(f"{scenario.name}, killed at change {at}, {'every' if every else 'the latest'} state of the {phase}: {what}")
    for path in states if every else states[:1]:
        DAMAGES[what](path)
    again = command([word for word in scenario.again(folder) if word != "--quiet"], folder)
    named = str(states[0]) in again.err
    if what == "a folder in its place" and not every:  # which somebody made: it stays, and is named
        said(trial, folder, again)
        trial.faults += [] if again.code == 1 else [f"exit code {again.code}"]
        states[0].rmdir()
        again.code = command(scenario.again(folder), folder).code
    if every:
        if again.code == 0 or not named or again.err.count("minidit: ") != 1 or "delete" not in again.err:
            trial.faults.append(f"exit code {again.code}, not one line with the way on: {again.err[-500:]}")
        return trial
    if again.code or not named or "going on from update" not in again.err:
        trial.faults.append(f"the state before is not used or not named: {again.err[-500:]}")
        return trial
    trial.faults += runs.differing_bits(folder, scenario.reference) + [f"{name} remains" for name in runs.remains(folder)]
    return trial


def change_plans(found: list[Scenario], n: int) -> Iterator[tuple[Any, ...]]:
    """n failing changes, spread over all changes of all commands: one fails, or the disk is full from then on."""
    changes = [(s, at) for s in found for at in points(s.trace) if not s.trace[at - 1].startswith("update")]
    names = [("EIO", False), ("ENOSPC", True), ("EDQUOT", True), ("ENOSPC", False)]
    for k, i in enumerate(spread(list(range(len(changes))), n)):
        yield failed, *changes[i], *names[k % len(names)]


def disk_plans(scenario: Scenario, n: int) -> Iterator[tuple[Any, ...]]:
    """n disks from too small for anything to nearly large enough. Nothing where no tmpfs can be mounted."""
    room = sum(p.stat().st_size for p in scenario.reference.rglob("*") if p.is_file())
    if os.geteuid() == 0:
        for i in range(n):
            yield on_a_small_disk, scenario, 4096 * max(1, room * i // n // 4096)


def place_plans(found: list[Scenario]) -> Iterator[tuple[Any, ...]]:
    """Folders that may not be written. Nothing where this process may neither mount nor become another user."""
    if os.geteuid() == 0:
        needed = (Path(sys.executable).resolve(), Path(sys.prefix), Path(__file__))
        open_to_all = all(folder.stat().st_mode & 1 for path in needed for folder in path.absolute().parents)
        for scenario in found:
            for how in ("read-only", *(["another user"] if open_to_all else [])):  # who must be able to run this Python
                yield not_writable, scenario, how


def damage_plans(scenario: Scenario) -> Iterator[tuple[Any, ...]]:
    """Every damage to the latest state of both phases, and to every state of one."""
    for phase in ("tokenizer", "model"):
        at = scenario.trace.index(f"update {phase} 5") + 1
        for what in DAMAGES:
            yield damaged, scenario, phase, what, False, at
    for what in DAMAGES:
        yield damaged, scenario, "model", what, True, at
