"""Part 1 of the GPU benchmark: engines that may die without taking others with them, and what they check."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

from benchmarks.cpu import Bench, write
from benchmarks.engine import GPU_KINDS, Engine, EngineError, Kind
from benchmarks.machine import card, packages
from benchmarks.own_tests import Tests, results


def checks_of(i: int) -> str:
    """The name of the i-th engine that checks."""
    return f"checks#{i}"


class Engines(Bench):
    """Engines by name, each started when it is first asked, and again after it died. The record is written after every result."""

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        self.ends = time.monotonic() + args.budget
        self.span, self.pause = (0.05, 0.0) if args.rehearse else (0.4, 0.02)
        self.record |= {"machine": {**self.record["machine"], **card()}, "packages": packages(), "left out": [], "tests": []}
        self.engines: dict[str, Engine] = {}
        self.deaths: dict[str, int] = {}
        self.lock = Lock()

    def left(self) -> float:
        return self.ends - time.monotonic()

    def flush(self) -> None:
        write(self.args.out, self.record)

    def leave_out(self, what: str) -> None:
        print(f"left out: {what}", file=sys.stderr)
        self.record["left out"].append(what)

    # -------------------------------------------------------------------------------------- engines that may die

    def kind(self, name: str) -> Kind:
        kind = GPU_KINDS[name.partition("#")[0]]
        if not self.args.rehearse:
            return kind
        return replace(kind, arguments=(*kind.arguments[:-1], "cpu")) if kind.torch else kind.on("--standin")

    def engine(self, name: str, patience: float | None = None) -> Engine:
        """The running engine, restarted if it has died, with the timeout of its next answer set."""
        if name not in self.engines:
            engine = self.start(self.kind(name))
            self.engines[name] = engine.__enter__()
        self.engines[name].timeout = max(1.0, min(patience or self.args.timeout, self.left()))
        return self.engines[name]

    def failed(self, name: str, error: Exception, what: str = "") -> None:
        """Records that an engine failed. If its process is gone, it is restarted for its next request."""
        self.skip(f"{name}{what and f' ({what})'}", error)
        engine = self.engines.get(name)
        if engine is not None and (engine.process.poll() is not None or "no answer" in str(error)):
            self.close(name)
            self.deaths[name] = self.deaths.get(name, 0) + 1
        self.flush()

    def close(self, name: str) -> None:
        engine = self.engines.pop(name, None)
        if engine is not None:
            with contextlib.suppress(OSError):
                engine.__exit__(None, None, None)

    # -------------------------------------------------------------------------------------- part 1

    def correctness(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            tests = [Tests(files, Path(folder)) for files in self.args.tests]
            try:
                self.run_checks()
            finally:  # the tests end with the budget, too
                for row in results(tests, self.left()):
                    self.record_tests(row)

    def record_tests(self, row: dict[str, Any]) -> None:
        self.record["tests"].append(row)
        self.flush()
        if not row["finished"]:
            self.leave_out(f"no time for the end of pytest {row['files']}: {row['ran']} tests ran")
        print(f"{'LOOK' if row['code'] else 'ok  '} pytest {row['files']}: {row['summary']}")
        for test, message in row["failed"]:
            print(f"  LOOK {test}: {message}")

    def run_checks(self) -> None:
        """Several engines share the list: most of the time of a check on a new machine is compilation, on one core."""
        first = checks_of(0)
        try:
            self.record["engines"]["checks"] = self.engine(first).ask("hello")
            names = self.args.checks or self.engine(first).ask("names")
        except EngineError as error:
            self.failed(first, error)
            return
        left = deque(names)
        with ThreadPoolExecutor(self.args.checkers) as pool:
            list(pool.map(lambda i: self.check_some(checks_of(i), left), range(self.args.checkers)))
        if left:
            self.leave_out(f"no time for {', '.join(left)}")
        order = {name: k for k, name in enumerate(names)}
        self.record["checks"].sort(key=lambda row: order[row["check"]])
        for i in range(self.args.checkers):
            self.close(checks_of(i))

    def check_some(self, engine: str, names: deque[str]) -> None:
        """One engine takes names from the list until it is empty or the time is over."""
        while names and self.left() > 0.1 * self.args.budget:
            with contextlib.suppress(IndexError):  # another engine took the last one
                self.check_one(engine, names.popleft())

    def check_one(self, engine: str, name: str) -> None:
        try:
            row = {"check": name, **self.engine(engine).ask("check", name=name)}
        except EngineError as error:
            row = {"check": name, "ok": False, "error": str(error)}
            self.failed(engine, error)
        worst = f"{row['worst']:10.3g} of the tolerance" if "worst" in row else ""
        more = ", ".join(f"{k} {v}" for k, v in row.items() if k not in ("check", "worst", "ok"))
        with self.lock:
            self.record["checks"].append(row)
            self.flush()
            print(f"{'ok  ' if row['ok'] else 'LOOK'} {name:22s} {worst}  {more[:200]}", flush=True)
