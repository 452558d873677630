"""A command is killed or stopped at any moment, and goes on to the bits of one that was not."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.faulty import runs
from benchmarks.faulty.runs import EVERY, ROOT, Outcome, Scenario, begin, command


@dataclass
class Trial:
    """One disturbance, and everything that did not hold afterwards; nothing, if the command survived it."""

    what: str
    faults: list[str] = field(default_factory=list)
    lost: int = 0  # updates that had to be made again


def points(trace: list[str]) -> list[int]:
    """The numbers of the changes at which something can be otherwise: of the writes to one file the first, a middle, the last."""
    chosen, begun = [], 0
    for i, line in enumerate(trace):
        if i and not (line == trace[i - 1] and line.startswith("write ")):
            begun = i
        last = i + 1 == len(trace) or trace[i + 1] != line
        if not line.startswith("write ") or i == begun or last or i == begun + 2:
            chosen.append(i + 1)
    return chosen


def spread(points: list[int], n: int) -> list[int]:
    """n of the points, evenly."""
    return [points[i * len(points) // n] for i in range(n)] if n < len(points) else points


def killed(scenario: Scenario, folder: Path, at: int, whole_group: bool) -> Trial:
    """A SIGKILL at a change of the folder: to the command alone, or to it and its workers."""
    begin(scenario, folder)
    outcome = command(scenario.words(folder), folder, {"at": at, "do": "kill group" if whole_group else "kill"})
    trial = Trial(f"{scenario.name}, at change {at} ({scenario.trace[at - 1]}){', with its workers' if whole_group else ''}")
    if outcome.code != -signal.SIGKILL and not too_late(outcome, at):
        trial.faults.append(f"exit code {outcome.code}: {outcome.err[-500:]}")
    return after(trial, scenario, folder, outcome)


def killed_outside(scenario: Scenario, folder: Path, seconds: float) -> Trial:
    """A SIGKILL from outside to the plain command, after some seconds."""
    begin(scenario, folder)
    words = [sys.executable, "-m", "minidit", *scenario.words(folder)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=runs.environment(), cwd=ROOT,
                          start_new_session=True) as process:  # fmt: skip
        time.sleep(seconds)
        process.kill()
    outcome = Outcome(process.returncode, "", "", [], process.pid)
    return after(Trial(f"{scenario.name}, after {seconds:.2f} s"), scenario, folder, outcome)


def stopped(scenario: Scenario, folder: Path, at: int, numbers: list[int]) -> Trial:
    """Signals at a change of the folder: the first ends the command gently, a second INT or TERM at once, HUP never."""
    begin(scenario, folder)
    names = " then ".join(signal.Signals(n).name for n in numbers)
    trial = Trial(f"{scenario.name}, {names} at change {at}")
    outcome = command(scenario.words(folder), folder, {"at": at, "do": "signal", "number": numbers})
    as_wanted = outcome.code in [code for n in numbers for code in (128 + n, -n)]
    if not (as_wanted or too_late(outcome, at)) or "Traceback" in outcome.err:
        trial.faults.append(f"exit code {outcome.code}: {outcome.err[-500:]}")
    return after(trial, scenario, folder, outcome)


def too_late(outcome: Outcome, at: int) -> bool:
    """Whether the command ended with fewer changes than its reference made; a page may need one write less."""
    return outcome.code == 0 and len(outcome.trace) < at


def after(trial: Trial, scenario: Scenario, folder: Path, outcome: Outcome) -> Trial:
    """All that must hold: no orphan, all readable, little lost; the next command makes the same bits and leaves no remains."""
    trial.faults += [f"a process survived: {pid}" for pid in runs.orphans(outcome.group)]
    trial.faults += runs.unreadable(folder) + runs.states_lost(folder, outcome.trace)
    if scenario.name == "overwrite" and scenario.before and runs.old_run_lost(folder, scenario.before):
        trial.faults.append("the overwritten run is incomplete, and the new one has no state")
    trial.lost = runs.updates_lost(folder, outcome.trace)
    if trial.lost > EVERY:
        trial.faults.append(f"{trial.lost} updates are lost")
    again = command(scenario.again(folder), folder)
    if again.code:
        trial.faults.append(f"going on: exit code {again.code}: {again.err[-500:]}")
    else:
        trial.faults += runs.differing_bits(folder, scenario.reference)
    trial.faults += [f"{name} remains" for name in runs.remains(folder)]
    if not trial.faults:
        shutil.rmtree(folder, ignore_errors=True)
    return trial


def kill_plans(found: list[Scenario], n: int) -> Iterator[tuple[Any, ...]]:
    """n kills: a tenth at random times from outside, the others spread over all changes of all commands."""
    rng, outside = random.Random(0), n // 10
    changes = [(s, at) for s in found for at in points(s.trace)]
    for k, i in enumerate(spread(list(range(len(changes))), n - outside)):
        yield killed, *changes[i], bool(k % 2)
    for _ in range(outside):
        yield killed_outside, rng.choice(found), rng.uniform(0.2, 1.6)


def stop_plans(found: list[Scenario], n: int) -> Iterator[tuple[Any, ...]]:
    """n stops, spread over all changes of all commands, with one signal and with two."""
    INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    orders = [[INT], [TERM], [HUP], [INT, HUP], [INT, INT], [TERM, TERM], [HUP, HUP], [HUP, TERM]]
    changes = [(s, at) for s in found for at in points(s.trace)]
    for k, i in enumerate(spread(list(range(len(changes))), n)):
        yield stopped, *changes[i], [int(number) for number in orders[k % len(orders)]]
