"""minidit beside PyTorch on this machine's CPU: time, memory and gradients of the same network, weights and inputs.

    python -m benchmarks.cpu --torch-python PATH        all sizes, minidit and eager PyTorch
    python -m benchmarks.cpu --precision bf16           beside PyTorch's autocast (needs the extra mkl)
    python -m benchmarks.cpu --scaling                  time and memory against batch, tokens, width and depth

Every engine runs in its own process; they take turns, round by round, and never work at the same time. See README.md beside.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import fixtures, scaling
from benchmarks.engine import KINDS, Engine, EngineError, Kind
from benchmarks.machine import Others, cores, load, machine
from benchmarks.sizes import SIZES, Size
from benchmarks.table import print_check, print_gemm, print_rows

RESULTS = Path(__file__).parent / "results"
TASKS = ("train", "sample")
BASELINES = ("before", "eager")  # the first that runs has the speed 1
BUSY = 0.1  # cores kept busy by other programs: above this, times mean little (threads at barriers suffer most)
PAUSE = 0.3  # seconds, for the idle threads of the previous engine to go to sleep


class Bench:
    """One run of the benchmark: its arguments and its record."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.span = 0.3 if args.quick else 1.5  # seconds that a round of one engine should take
        self.pause = PAUSE
        self.record: dict[str, Any] = {"machine": machine(), "arguments": portable(args), "engines": {}, "gemm": {}}
        self.record |= {"checks": [], "results": [], "skipped": {}}
        self.kinds: list[Kind] = []

    def start(self, kind: Kind) -> Engine:
        python = self.args.torch_python if kind.torch else sys.executable
        return Engine(kind, python, self.args.timeout)

    def probe(self) -> None:
        """Which engines work here, with which libraries, and how fast their matrix product is."""
        kinds = [KINDS[name] for name in self.args.engines]
        if self.args.before:
            kinds.append(replace(KINDS["minidit"], name="before", root=self.args.before.resolve()))
        for kind in kinds:
            name = kind.name
            try:
                with self.start(kind) as engine:
                    self.record["engines"][name] = engine.ask("hello")
                    n, threads = 512 if self.args.quick else 1536, sorted({1, cores()})
                    self.record["gemm"][name] = {str(p): engine.ask("gemm", threads=p, n=n) for p in threads}
                self.kinds.append(kind)
            except EngineError as error:
                self.skip(name, error)

    def skip(self, name: str, error: Exception) -> None:
        print(f"skipped: {error}", file=sys.stderr)
        self.record["skipped"][name] = str(error)

    @property
    def peak(self) -> float:
        """The best matrix product that any engine showed on all cores, GFLOP/s."""
        return max(max(rates.values()) for rates in self.record["gemm"].values())

    def size(self, size: Size) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            fixtures.write(folder, size)
            self.record["checks"] += self.checks(size, folder)
            for task in TASKS:
                self.record["results"] += self.task(size, task, folder)

    def checks(self, size: Size, folder: Path) -> list[dict[str, Any]]:
        """Loss, gradients and x_s of every engine against float64, on a smaller batch."""
        true, rows = fixtures.truth(folder, size), []
        for kind in list(self.kinds):
            out = folder / "answer.npz"
            try:
                with self.start(kind) as engine:
                    engine.ask("check", size=size.as_dict(), folder=str(folder), out=str(out), precision=self.args.precision)
                rows.append({"size": size.name, "engine": kind.name, **fixtures.compare(dict(np.load(out)), true)})
                print_check(rows[-1])
            except EngineError as error:
                self.skip(kind.name, error)
                self.kinds.remove(kind)
        return rows

    def task(self, size: Size, task: str, folder: Path) -> list[dict[str, Any]]:
        """Prepares all engines at once, then times them in turns."""
        with contextlib.ExitStack() as stack:
            ready, base = [], {}
            for kind in list(self.kinds):
                engine = stack.enter_context(self.start(kind))
                try:
                    engine.ask("hello")
                    base[kind.name] = engine.memory()
                    request = {"size": size.as_dict(), "task": task, "folder": str(folder), "precision": self.args.precision}
                    engine.ask("prepare", **request)
                    ready.append((engine, self.warm(engine)))
                except EngineError as error:
                    self.skip(kind.name, error)
                    self.kinds.remove(kind)
            if not ready:
                return []
            with Others() as others:
                times = self.rounds(ready)
            rows = [
                {
                    "size": size.name,
                    "task": task,
                    "engine": engine.kind.name,
                    "steps_per_round": steps,
                    "others": others.share,
                    "memory": {"base": base[engine.kind.name], "after": engine.memory()},
                    **self.figures(size, task, engine.kind.name, times),
                }
                for engine, steps in ready
            ]
        print_rows(rows)
        if (others.share or 0) > BUSY:
            print(f"not a quiet machine: others kept {others.share:.2f} cores busy; do not quote these times", flush=True)
        return rows

    def warm(self, engine: Engine) -> int:
        """The number of steps per round, after steps that are not counted: compilation, first pages, threads."""
        least = 1 if self.args.quick else 2
        engine.ask("steps", k=1)
        return max(least, round(self.span / statistics.median(engine.ask("steps", k=least))))

    def rounds(self, engines: Sequence[tuple[Engine, int]]) -> dict[str, list[float]]:
        """The median step of each round of each engine, in ms."""
        times: dict[str, list[float]] = {engine.kind.name: [] for engine, _ in engines}
        for r in range(self.args.rounds):
            shift = r % len(engines)
            for engine, steps in [*engines[shift:], *engines[:shift]]:  # each round begins with another engine
                time.sleep(self.pause)
                times[engine.kind.name].append(1e3 * statistics.median(engine.ask("steps", k=steps)))
        return times

    def figures(self, size: Size, task: str, name: str, times: dict[str, list[float]]) -> dict[str, Any]:
        ms = times[name]
        rate = fixtures.gflop(size, task) / statistics.median(ms) * 1e3
        figures = {"ms": spread(ms), "rounds_ms": ms, "gflops": rate, "of_peak": rate / self.peak}
        baseline = next((n for n in BASELINES if n in times), None)
        if baseline:
            ratios = [b / m for b, m in zip(times[baseline], ms, strict=True)]
            figures |= {"speed": spread(ratios), "rounds_speed": ratios}
        return figures

    def run(self) -> None:
        print(f"{self.record['machine']['cpu']}, {cores()} cores, load {load()}")
        self.probe()
        print_gemm(self.record)
        for name in self.args.sizes:
            self.size(SIZES[name])
            write(self.args.out, self.record)


def portable(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments without the paths of this machine."""
    return {name: value for name, value in vars(args).items() if name not in ("out", "torch_python", "before")}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    q1, median, q3 = np.quantile(values, (0.25, 0.5, 0.75))
    return {"median": float(median), "q1": float(q1), "q3": float(q3)}


def ratio(theirs: list[float], ours: list[float]) -> float:
    """How many times faster ours is: the median over the rounds."""
    return statistics.median(b / m for b, m in zip(theirs, ours, strict=True))


def write(path: Path, record: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1, default=str) + "\n")


def names_of(known: Sequence[str]) -> Callable[[str], list[str]]:
    """An argument type: names from `known`, separated by commas."""

    def parse(text: str) -> list[str]:
        names = text.split(",")
        unknown = [n for n in names if n not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from {', '.join(known)}")
        return names

    return parse


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="minidit beside PyTorch on the CPU", prog="python -m benchmarks.cpu")
    parser.add_argument("--sizes", type=names_of(list(SIZES)), default=list(SIZES), help=f"of {','.join(SIZES)} (all)")
    parser.add_argument("--engines", type=names_of(list(KINDS)), default=["minidit", "eager"], help=f"of {','.join(KINDS)}")
    parser.add_argument("--rounds", type=int, help="rounds that count (9; with --quick 2)")
    parser.add_argument("--quick", action="store_true", help="short rounds, to see whether it runs; the numbers mean little")
    parser.add_argument("--scaling", action="store_true", help="time and memory against batch, tokens, width and depth")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32", help="of products' factors (float32)")
    parser.add_argument("--torch-python", default=sys.executable, help="the Python that has torch (this one)")
    parser.add_argument("--before", type=Path, help="another checkout of minidit, timed beside this one: what a change costs")
    parser.add_argument("--timeout", type=float, default=600, help="seconds that one request may take (600)")
    parser.add_argument("--out", type=Path, help="the JSON file (benchmarks/results/cpu-DATE.json)")
    args = parser.parse_args()
    args.rounds = args.rounds or (2 if args.quick else 9)
    kind = "scaling" if args.scaling else "cpu" if args.precision == "float32" else "cpu-bf16"
    args.out = args.out or RESULTS / f"{kind}-{time.strftime('%Y-%m-%d')}{'-quick' if args.quick else ''}.json"
    return args


def main() -> None:
    args = arguments()
    if args.scaling:
        write(args.out, scaling.run(args))
    else:
        Bench(args).run()
    print(f"written: {args.out}")


if __name__ == "__main__":
    main()
