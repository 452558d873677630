"""Two processes in one folder, and children that outlive their parent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.faulty import runs
from benchmarks.faulty.kills import Trial, after, points, spread
from benchmarks.faulty.runs import ROOT, Outcome, Scenario, begin, command

OTHERS = {  # what the second process tries while the first one trains
    "train --resume": lambda f: ["train", "--resume", str(f)],
    "train --resume --steps": lambda f: ["train", "--resume", str(f), "--steps", "9"],
    "train --overwrite": lambda f: [*_words_of(f), "--overwrite"],
    "train": lambda f: _words_of(f),
    "train --resume auto": lambda f: [*_words_of(f), "--resume", "auto"],
}


def _words_of(folder: Path) -> list[str]:
    return json.loads(folder.with_name(f"{folder.name}.words").read_text())


def second(scenario: Scenario, folder: Path, other: str, at: int) -> Trial:
    """The first process waits at a change; the second is refused in one line; the first then makes its bits."""
    begin(scenario, folder)
    words = scenario.words(folder)
    folder.with_name(f"{folder.name}.words").write_text(json.dumps(words))
    trace = folder.with_name(f"{folder.name}.trace")
    plan = {"folder": str(folder), "trace": str(trace), "at": at, "do": "pause"}
    program = [sys.executable, "-m", "benchmarks.faulty.driver", json.dumps(plan), *words]
    trial = Trial(f"{other} while {scenario.name} is at change {at} ({scenario.trace[at - 1]})")
    with subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=runs.environment(),
                          start_new_session=True, cwd=ROOT) as first:  # fmt: skip
        os.waitid(os.P_PID, first.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        answer = command(OTHERS[other](folder), folder)
        os.kill(first.pid, signal.SIGCONT)
        _, err = first.communicate(timeout=300)
    lines = answer.err.splitlines()
    refused = [line for line in lines if "in use by process" in line or "holds a run already" in line]
    if answer.code != 1 or lines[-1:] != refused:
        trial.faults.append(f"the second: exit code {answer.code}: {answer.err[-500:]}")
    if first.returncode:
        trial.faults.append(f"the first: exit code {first.returncode}: {err[-500:]}")
    trial.faults += runs.differing_bits(folder, scenario.reference) + [f"{name} remains" for name in runs.remains(folder)]
    return trial


def together(scenario: Scenario, folder: Path) -> Trial:
    """Two equal commands begin at the same moment: one trains, or they take turns; no bit of the run is otherwise."""
    begin(scenario, folder)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: command(scenario.words(folder), folder), range(2)))
    trial = Trial(f"two of {scenario.name} at the same moment")
    for outcome in both:
        if outcome.code not in (0, 1) or (outcome.code == 1 and outcome.err.count("minidit: ") != 1):
            trial.faults.append(f"exit code {outcome.code}: {outcome.err[-500:]}")
    if all(outcome.code for outcome in both):
        trial.faults += [f"none trains: {outcome.err[-300:]}" for outcome in both]
    trial.faults += runs.differing_bits(folder, scenario.reference) + [f"{name} remains" for name in runs.remains(folder)]
    return trial


def forked(scenario: Scenario, folder: Path, at: int) -> Trial:
    """At a change the process forks a child and is killed; the child lives on, and the folder is free."""
    begin(scenario, folder)
    outcome: Outcome = command(scenario.words(folder), folder, {"at": at, "do": "fork"})
    return after(Trial(f"{scenario.name}, a child outlives a kill at change {at}"), scenario, folder, outcome)


def pair_plans(scenario: Scenario, n: int) -> Iterator[tuple[Any, ...]]:
    """n second processes at changes while the first one holds the folder, and half as many that begin together."""
    inside = range(next(i for i, line in enumerate(scenario.trace) if line == "update tokenizer 1"),
                   next(i for i, line in enumerate(scenario.trace) if line == "replace model.safetensors"))  # fmt: skip
    held = [at for at in points(scenario.trace) if at - 1 in inside]
    for k, at in enumerate(spread(held, n)):
        yield second, scenario, list(OTHERS)[k % len(OTHERS)], at
    for _ in range(n // 2):
        yield together, scenario


def fork_plans(scenario: Scenario, n: int) -> Iterator[tuple[Any, ...]]:
    """n children that outlive their parent."""
    for at in spread(points(scenario.trace), n):
        yield forked, scenario, at
