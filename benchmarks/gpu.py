"""Everything that needs a GPU, in parts of less than nine minutes; each part ends with a table and a JSON file in results/.

    python -m benchmarks.gpu --part 1      is it right? every primitive, the streams, a run and samples beside NumPy; the tests
    python -m benchmarks.gpu --part 2      how fast? DiT-S/2 and B/2, training and guided sampling, beside PyTorch
    python -m benchmarks.gpu --part 3      the same for DiT-XL/2
    python -m benchmarks.gpu --plan A      a short loan, first call (280 s): is it right, and where does the time of DiT-S/2 go?
    python -m benchmarks.gpu --plan B      second call (430 s): beside PyTorch, eager and compiled
    python -m benchmarks.gpu --part 1 --rehearse     tiny, without a GPU, on the CPU stand-in that the tests use

Engines are processes that take turns (see README.md in this folder). Missing packages are reported and skipped. An engine that
fails or dies affects no other. Every result is written at once. When the time budget is spent, the remaining jobs are listed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import fixtures
from benchmarks.cpu import names_of, ratio, spread
from benchmarks.engine import GPU_KINDS, EngineError
from benchmarks.gpu_engines import Engines
from benchmarks.kernel_times import print_kernels
from benchmarks.sizes import GPU_SIZES, REHEARSED, Size
from benchmarks.table import print_check, print_gpu_rows

RESULTS = Path(__file__).parent / "results"
FOLDER = "MINIDIT_BENCH_OUT"  # the environment variable that names another folder for results
PLANS = {  # arguments and seconds of each part; on a borrowed machine little time is left and only one folder comes back
    "A": (("--part 1", 120), ("--part 2 --sizes S2 --engines minidit,minidit-own,eager --rounds 3", 140)),
    "B": (("--part 2 --engines minidit,minidit-own,eager,eager-bf16,compile,compile-bf16 --rounds 3", 270),
          ("--part 3 --engines minidit,minidit-own,eager,compile --rounds 3", 140)),
}  # fmt: skip
BUDGET = 510.0  # seconds: a job begun just before the end must still finish within nine minutes
PEAKS = {  # dense TFLOP/s by the maker's data sheet
    "H100": {"bf16": 989, "tf32": 495, "float32": 67}, "H200": {"bf16": 989, "tf32": 495, "float32": 67},
    "A100": {"bf16": 312, "tf32": 156, "float32": 19.5},
}  # fmt: skip
TESTS = ["tests/kernels", "tests/ops", "tests/test_random.py", "tests/test_optim.py", "tests/nn", "tests/test_exchange.py"]


def jobs_of(part: int, names: list[str], rehearse: bool) -> list[tuple[Size, str, str]]:
    """(size with its batch, task, precision), the most important first."""
    if rehearse:
        return [(REHEARSED, task, precision) for precision in ("bf16", "float32") for task in ("train", "sample")]
    sizes = [GPU_SIZES[n] for n in names or (("S2", "B2") if part == 2 else ("XL2",))]
    first = [(s.with_batch(b), task, "bf16") for b, task in ((64, "train"), (256, "train"), (64, "sample")) for s in sizes]
    return first + [(s.with_batch(64), "train", p) for p in ("tf32", "float32") for s in sizes]


COMPILED = {name for name, kind in GPU_KINDS.items() if "--compile" in kind.arguments}


class GpuBench(Engines):
    """One part. Its record is written after every result."""

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        self.truths: dict[str, dict[str, Any]] = {}

    # -------------------------------------------------------------------------------------- parts 2 and 3

    def alive(self) -> list[str]:
        """The engines that have answered once and died less than three times."""
        return [n for n in self.args.engines if n in self.record["engines"] and self.deaths.get(n, 0) < 3]

    def compare(self, size: Size, folder: Path, *, compiled: bool) -> None:
        """Loss, gradients and x_s of the engines in bf16 against float64, on a small batch. compiled: those that take long."""
        names = [n for n in self.alive() if (n in COMPILED) == compiled]
        if names and size.name not in self.truths:  # for XL/2 it takes a while
            self.truths = {size.name: fixtures.truth(folder, size)}
        true = self.truths.get(size.name, {})
        for name in names:
            out = folder / f"answer-{name}.npz"
            try:
                request = {"size": size.as_dict(), "folder": str(folder), "out": str(out), "precision": "bf16"}
                self.engine(name, self.args.patience).ask("check", **request)
                row = {"size": size.name, "engine": name, **fixtures.compare(dict(np.load(out)), true)}
                self.record["checks"].append(row)
                print_check(row)
            except (EngineError, ValueError) as error:
                self.failed(name, error)
            out.unlink(missing_ok=True)
        self.flush()

    def probe(self) -> None:
        """Which engines work here, and how fast their matrix product is in each precision."""
        names = [n for n in self.args.engines if not self.lacks_torch(n)]
        for name in names:  # all at once: importing takes a while
            self.engine(name).send("hello")
        for name in names:
            try:
                self.record["engines"][name] = self.engines[name].answer("hello")
            except EngineError as error:
                self.failed(name, error)
        n = 32 if self.args.rehearse else 8192
        for name in self.alive():
            rates = self.record["gemm"].setdefault(name, {})
            for precision in ("bf16", "tf32", "float32"):
                try:
                    rates[precision] = self.engine(name).ask("gemm", threads=1, n=n, precision=precision)
                except EngineError as error:
                    self.failed(name, error, f"product in {precision}")
            rates_text = ", ".join(f"{p} {r / 1e3:.0f}" for p, r in rates.items())
            print(f"{name}: {self.record['engines'][name]}; products TFLOP/s {rates_text}", flush=True)
        self.flush()

    def lacks_torch(self, name: str) -> bool:
        lacks = GPU_KINDS[name].torch and self.args.torch_python == sys.executable and "torch" not in self.record["packages"]
        if lacks:
            self.leave_out(f"{name}: PyTorch is not installed here (--torch-python names another Python)")
        return lacks

    def speed(self) -> None:
        """All jobs without compilation first, and then, with what time is left, those of the compiled engines beside minidit."""
        self.probe()
        jobs = jobs_of(self.args.part, self.args.sizes, self.args.rehearse)
        with tempfile.TemporaryDirectory() as name:
            folder, quick = Path(name), [n for n in self.alive() if n not in COMPILED]
            self.sizes_and_jobs(jobs, folder, quick)
            if len(quick) < len(self.alive()):
                self.sizes_and_jobs(jobs, folder, [n for n in self.alive() if n in COMPILED or n == "minidit"])
            for size in {size.name: size for size, *_ in jobs if (folder / size.name).is_dir()}.values():
                if self.left() < self.args.least:
                    self.leave_out(f"no time to compare compiled engines on {size.name}")
                    continue
                self.compare(size, folder / size.name, compiled=True)
        for engine in list(self.engines):
            self.close(engine)

    def sizes_and_jobs(self, jobs: list[tuple[Size, str, str]], top: Path, names: list[str]) -> None:
        for size, task, precision in jobs:
            what = f"{size.name} batch {size.batch}, {task}, {precision}"
            if self.left() < self.args.least:
                self.leave_out(f"no time for {what} of {', '.join(names)}")
                continue
            folder = top / size.name
            if not folder.is_dir():
                folder.mkdir()
                fixtures.write(folder, size, initial=False)
                self.compare(size, folder, compiled=False)
            fixtures.write_inputs(folder, size)
            self.job(size, task, precision, folder, names)

    def prepared(
        self, names: list[str], size: Size, task: str, precision: str, folder: Path, *, alone: bool
    ) -> tuple[list[str], list[str]]:
        """(engines ready for a job, engines out of memory).

        Compiled engines prepare at once, with a time limit; the others in turns before them, because some time kernels to choose.
        """
        request = {"size": size.as_dict(), "task": task, "folder": str(folder), "precision": precision, "alone": alone}
        for name in list(self.engines) if alone else names:  # first the previous job is dropped everywhere
            with contextlib.suppress(EngineError):
                self.engine(name).ask("drop")
        ready, full = [], []

        def wait_for(name: str, until: float) -> None:
            try:
                self.engines[name].timeout = max(1.0, until - time.monotonic())
                self.engines[name].answer("prepare")
                ready.append(name)
            except EngineError as error:
                full.extend([name] if "memory" in str(error).lower() else [])
                self.failed(name, error, f"{size.name} {size.batch} {task} {precision}")

        for name in (n for n in names if n not in COMPILED):
            self.engine(name).send("prepare", **request)
            wait_for(name, time.monotonic() + min(self.args.patience, self.left()))
        slow = [n for n in names if n in COMPILED]
        for name in slow:
            self.engine(name).send("prepare", **request)
        until = time.monotonic() + min(self.args.patience, self.left())
        for name in slow:
            wait_for(name, until)
        return ready, full

    def job(self, size: Size, task: str, precision: str, folder: Path, names: list[str]) -> None:
        """One table: the engines in turns, then, each alone, those that did not fit into the memory beside the others."""
        names = [n for n in self.alive() if n in names]
        ready, full = self.prepared(names, size, task, precision, folder, alone=False)
        rows, lacking = self.timed(ready, size, task, precision, alone=False), list[dict[str, Any]]()
        for name in full:
            ready, still = self.prepared([name], size, task, precision, folder, alone=True)
            rows += self.timed(ready, size, task, precision, alone=True)
            lacking += [self.row(n, size, task, precision, alone=True) | {"out of memory": True} for n in still]
        for row in rows:
            bases = [r for r in rows if r["engine"] in ("eager", "compile") and r is not row]
            row["speed beside"] = {r["engine"]: ratio(r["rounds_ms"], row["rounds_ms"]) for r in bases}
        self.record["results"] += rows + lacking
        self.flush()
        print_gpu_rows(rows + lacking)
        for row in rows:
            if "kernels" in row:
                print_kernels(f"{row['engine']}, {row['size']} {row['batch']} {row['task']} {row['precision']}", row["kernels"])

    def row(self, name: str, size: Size, task: str, precision: str, *, alone: bool) -> dict[str, Any]:
        return {"size": size.name, "batch": size.batch, "task": task, "precision": precision, "engine": name, "alone": alone}

    def timed(self, names: list[str], size: Size, task: str, precision: str, *, alone: bool) -> list[dict[str, Any]]:
        ready, rows = [], []
        for name in names:
            try:
                engine = self.engine(name)
                first = statistics.median(engine.ask("steps", k=2))
                ready.append((engine, max(1, round(self.span / first))))
            except EngineError as error:
                self.failed(name, error)
        try:
            times = self.rounds(ready) if ready else {}
        except EngineError as error:  # its message begins with the name of the engine: the others are timed again without it
            gone = str(error).partition(":")[0]
            self.failed(gone, error)
            return self.timed([n for n in names if n != gone], size, task, precision, alone=alone) if gone in names else []
        for engine, steps in ready:
            name = engine.kind.name
            row = self.row(name, size, task, precision, alone=alone)
            row |= {"steps_per_round": steps, "ms": spread(times[name]), "rounds_ms": times[name]}
            with contextlib.suppress(EngineError):
                row |= engine.ask("report")
                if precision == "bf16" and not self.args.rehearse:
                    row |= {"kernels": engine.ask("kernels")}
            rows.append(row | self.utilisation(size, task, precision, row["ms"]["median"]))
        return rows

    def utilisation(self, size: Size, task: str, precision: str, ms: float) -> dict[str, Any]:
        """Model FLOPs per second (matrix products of the network: forward once, backward twice), beside two peaks."""
        rate = fixtures.gflop(size, task) / ms  # TFLOP/s
        peak = next((p[precision] for n, p in PEAKS.items() if n in str(self.record["machine"].get("gpu"))), None)
        product = max((r[precision] / 1e3 for r in self.record["gemm"].values() if precision in r), default=None)
        return {"tflops": rate, "mfu": peak and rate / peak, "of the measured product": product and rate / product}

    def run(self) -> None:
        began = time.monotonic()
        gpu = self.record["machine"].get("gpu") or "no nvidia-smi"
        print(f"part {self.args.part}: {gpu}, {self.record['packages']}", flush=True)
        self.flush()
        try:
            if self.args.part == 1:
                self.correctness()
            else:
                self.speed()
        finally:
            self.record["seconds"] = round(time.monotonic() - began, 1)
            self.flush()
            for name in list(self.engines):
                self.close(name)
        for what in self.record["left out"]:
            print(f"left out: {what}")


def arguments() -> argparse.Namespace:
    about = "everything that needs a GPU, in parts"
    parser = argparse.ArgumentParser(description=about, prog="python -m benchmarks.gpu", allow_abbrev=False)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--part", type=int, choices=(1, 2, 3))
    what.add_argument("--plan", choices=sorted(PLANS), help="parts with budgets for a machine that is lent for minutes")
    parser.add_argument("--rehearse", action="store_true", help="tiny, on the CPU stand-in: does everything run?")
    parser.add_argument("--sizes", type=names_of(list(GPU_SIZES)), default=[], help=f"of {','.join(GPU_SIZES)} (as the part has)")
    parser.add_argument("--engines", type=names_of(list(GPU_KINDS)), default=["minidit", "eager", "compile"],
                        help=f"of {','.join(n for n in GPU_KINDS if n != 'checks')}")  # fmt: skip
    parser.add_argument("--checks", type=lambda text: text.split(","), help="part 1: only these")
    parser.add_argument("--tests", type=lambda text: text.split(",") if text else [], help="part 1: files for pytest, or none")
    parser.add_argument("--rounds", type=int, help="rounds that count (7; in a rehearsal 2)")
    parser.add_argument("--budget", type=float, default=BUDGET, help=f"seconds ({BUDGET:.0f})")
    parser.add_argument("--patience", type=float, help="seconds to get ready for a job (150; part 3: 270)")
    parser.add_argument("--timeout", type=float, default=150, help="seconds for any other request (150)")
    parser.add_argument("--torch-python", default=sys.executable, help="the Python that has torch (this one)")
    parser.add_argument("--checkers", type=int, default=min(6, os.cpu_count() or 1), help="part 1: processes that check at once")
    parser.add_argument("--out", type=Path, help=f"the JSON file (gpu-DATE-partN.json in ${FOLDER}, or in benchmarks/results)")
    args = parser.parse_args()
    plan = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    plan.add_argument("--plan")
    args.rest = plan.parse_known_args()[1]
    if args.plan and args.out:
        parser.error(f"a plan writes one file per part: name their folder in ${FOLDER}")
    args.quick, args.patience = args.rehearse, args.patience or (270.0 if args.part == 3 else 150.0)
    args.rounds = args.rounds or (2 if args.rehearse else 7)
    args.least = 1.0 if args.rehearse else 40.0  # seconds that must be left to begin a job
    if args.tests is None:
        args.tests = ["tests/nn/test_place_and_time.py"] if args.rehearse else TESTS
    name = f"gpu-{time.strftime('%Y-%m-%d')}-part{args.part}{'-'.join(['', *args.sizes])}{'-rehearsed' if args.rehearse else ''}"
    args.out = args.out or Path(os.environ.get(FOLDER, RESULTS)) / f"{name}.json"
    return args


def planned(plan: str, rest: list[str]) -> None:
    """The parts of a plan, one after the other. At its limit a part is ended with all its engines: none keeps the GPU.

    rest : arguments of every part, over those of the plan
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `finally` ends the part when this process is ended
    for arguments, limit in PLANS[plan]:
        within = ["--budget", str(0.85 * limit), "--tests", ""]
        command = [sys.executable, "-m", "benchmarks.gpu", *arguments.split(), *within, *rest]
        part = subprocess.Popen(command, start_new_session=True)
        try:
            part.wait(limit)
        except subprocess.TimeoutExpired:
            print(f"ended after {limit} s: {arguments}", flush=True)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(part.pid, signal.SIGKILL)
            part.wait()


def main() -> None:
    args = arguments()
    if args.plan:
        planned(args.plan, args.rest)
        return
    GpuBench(args).run()
    print(f"written: {args.out}")


if __name__ == "__main__":
    main()
