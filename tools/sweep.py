"""Property tests on fresh seeds: what the suite draws every time is no more than a sample.

    python tools/sweep.py --runs 100                  seeds 0 to 99, one after another; resumes where it was stopped
    python tools/sweep.py --runs 100 -- tests/nn      the tests of one folder
    python tools/sweep.py --page docs/sweep.md        writes the result

Every run is a pytest of its own over all tests that draw, with `--hypothesis-profile=fresh --hypothesis-seed=N`: the same two
options repeat a run that failed. Results go to build/sweep.jsonl, one line per run.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import subprocess
import sys
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "build" / "sweep.jsonl"


class Draws:
    """A pytest plugin: only the tests that draw, and what became of each; it runs inside the process of one seed."""

    def __init__(self) -> None:
        self.tests: list[str] = []
        self.failed: dict[str, str] = {}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [item for item in items if "given(" in inspect.getsource(inspect.unwrap(item.obj))]

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call":
            self.tests.append(report.nodeid)
        if report.failed:
            self.failed[report.nodeid] = str(report.longrepr)[-3000:]


def run_here(seed: int, files: list[str]) -> int:
    """One seed in this process; its line is printed last."""
    import pytest

    began, draws = time.process_time(), Draws()
    options = ["-q", "--hypothesis-profile=fresh", f"--hypothesis-seed={seed}", "-p", "no:cacheprovider", "-p", "no:xdist"]
    code = pytest.main([*options, *(files or ["tests"])], plugins=[draws])
    cpu = round(time.process_time() - began, 1)
    line = {"seed": seed, "files": files, "code": int(code), "tests": len(draws.tests), "cpu_s": cpu, "failed": draws.failed}
    print(json.dumps(line))
    return 0


def sweep(runs: int, files: list[str]) -> None:
    """The seeds without a line get one."""
    RESULTS.parent.mkdir(exist_ok=True)
    done = {r["seed"] for r in results() if r["files"] == files}
    for seed in sorted(set(range(runs)) - done):
        command = [sys.executable, __file__, "--seed", str(seed), "--", *files]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
        answer = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        line = answer.stdout.splitlines()[-1] if answer.returncode == 0 and answer.stdout else ""
        if not line.startswith("{"):
            raise SystemExit(f"seed {seed} ended without a result:\n{answer.stdout[-3000:]}")
        with RESULTS.open("a") as log:
            log.write(line + "\n")
        result = json.loads(line)
        print(f"seed {seed}: {result['tests']} tests, {len(result['failed'])} failed", *result["failed"], sep="\n  ", flush=True)


def results() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def page() -> str:
    """What all runs together found."""
    runs = results()
    counts = Counter(name for r in runs for name in r["failed"])
    tests, minutes = sum(r["tests"] for r in runs), sum(r["cpu_s"] for r in runs) / 60
    lines = [
        "# Property tests on fresh seeds", "",
        f"{len(runs)} runs, {tests:,} tests, {minutes:.0f} CPU minutes: {counts.total()} failures in {len(counts)} tests.", "",
        f"Hypothesis {version('hypothesis')}, Python {sys.version.split()[0]}.", "",
        "    python tools/sweep.py --runs 100", "",
    ]  # fmt: skip
    for name, n in counts.most_common():
        seeds = [r["seed"] for r in runs if name in r["failed"]]
        lines.append(f"- `{name}`: {n} times, seeds {', '.join(map(str, seeds[:10]))}")
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=100, help="seeds 0 to N - 1")
    parser.add_argument("--seed", type=int, help="this seed only, in this process")
    parser.add_argument("--page", type=Path, help="write the results that there are, and run nothing")
    parser.add_argument("files", nargs="*", help="tests to run (default: all that draw)")
    args = parser.parse_args()
    if args.page:
        args.page.write_text(page())
    elif args.seed is not None:
        return run_here(args.seed, args.files)
    else:
        sweep(args.runs, args.files)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
