"""The server of an engine: a process that reads one JSON request per line and answers each with one JSON line."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

Step = Callable[[], Any]


def serve(engine: Any) -> None:
    """Requests {"call": name, **arguments} become engine.name(**arguments). Whatever the engine prints goes to stderr.

    After an error that leaves the device unusable (an illegal address, a launch that failed), every later call of the process
    would fail as well: it answers, and ends, so that its client starts another.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"ok": getattr(engine, request.pop("call"))(**request)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc(), "last": poisoned(engine)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        if answer.get("last"):
            os._exit(1)  # not by way of destructors, which would call the device


def poisoned(engine: Any) -> bool:
    """Whether the engine's device answers nothing any more."""
    try:
        engine.wait()
    except Exception:
        return True
    return False


def seconds(step: Step, k: int) -> list[float]:
    """The times of k steps, after one step that is not counted: it wakes caches and threads."""
    step()
    times = []
    for _ in range(k):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return times


def mean_seconds(step: Step, k: int, wait: Step) -> float:
    """The mean time of k steps that the host queues and the device then finishes, after one step that is not counted."""
    step()
    wait()
    start = time.perf_counter()
    for _ in range(k):
        step()
    wait()
    return (time.perf_counter() - start) / k


def best_gflops(product: Step, n: int, repeats: int = 12) -> float:
    """The best rate of an n × n × n matrix product."""
    return 2e-9 * n**3 / min(seconds(product, repeats))
