"""The side of an engine: a process that reads one JSON line, does what it says, and answers with one JSON line."""

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
    """Requests {"call": name, **arguments} become engine.name(**arguments). Whatever the engine prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"ok": getattr(engine, request.pop("call"))(**request)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def seconds(step: Step, k: int) -> list[float]:
    """One step to wake caches and threads, not counted, then the times of k steps."""
    step()
    times = []
    for _ in range(k):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return times


def mean_seconds(step: Step, k: int, wait: Step) -> float:
    """The time of k steps that are only queued by the host, until the device has done them; a step before is not counted."""
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
