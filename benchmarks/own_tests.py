"""Runs the package's tests on a device, beside other work there."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.engine import ROOT, SHARING

GRACE = 15.0  # seconds for interrupted tests to write their report


class Tests:
    """pytest on some files, in its own process; interrupted at the end of the budget, it reports the tests that ran."""

    def __init__(self, files: str, folder: Path) -> None:
        self.files, name = files, re.sub(r"\W", "-", files)
        self.report, self.log = folder / f"{name}.xml", folder / f"{name}.log"
        options = ["-p", "no:cacheprovider", "-W", "default"]  # warnings of other versions of libraries are no failures here
        command = [sys.executable, "-m", "pytest", files, f"--junitxml={self.report}", *options]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env={**os.environ, **SHARING})

    def wait(self, seconds: float) -> bool:
        """Waits at most that many seconds; returns whether the tests ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(max(0.0, seconds))
        return self.process.returncode is not None

    def outcome(self, finished: bool, seconds: float) -> dict[str, Any]:
        """The report of the tests. Those that have not finished were interrupted, and get that many seconds to write it."""
        if not finished and not self.wait(seconds):
            self.process.kill()
            self.process.wait()
        failed, ran = [], 0
        if self.report.exists():
            for case in ElementTree.parse(self.report).getroot().iter("testcase"):
                ran += 1
                for bad in (*case.findall("failure"), *case.findall("error")):
                    message = (bad.get("message") or "").partition("\n")[0][:300]
                    failed.append([f"{case.get('classname')}::{case.get('name')}", message])
        tail = self.log.read_text().strip().splitlines()[-1:]
        outcome = {"code": self.process.returncode, "finished": finished, "ran": ran, "summary": " ".join(tail), "failed": failed}
        return {"files": self.files, **outcome}


def results(tests: Sequence[Tests], seconds: float) -> Iterator[dict[str, Any]]:
    """The outcomes of all tests, after at most that many seconds and GRACE."""
    ends = time.monotonic() + seconds
    finished = [test.wait(ends - time.monotonic()) for test in tests]
    for test, done in zip(tests, finished, strict=True):
        if not done:
            test.process.send_signal(signal.SIGINT)
    ends = time.monotonic() + GRACE
    for test, done in zip(tests, finished, strict=True):
        yield test.outcome(done, ends - time.monotonic())
