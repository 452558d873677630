"""The GPU benchmark, rehearsed on the stand-in: all of it runs, and an engine that fails affects no other."""

import argparse
import json
import os
import select
import sys

import pytest
import standin
from standin.cublas import imitated_cublas

from benchmarks import fixtures, gpu, minidit_engine, own_tests
from benchmarks.engine import EngineError, Kind
from benchmarks.kernel_times import summary
from benchmarks.minidit_engine import MiniditEngine
from benchmarks.sizes import REHEARSED
from minidit.autograd import PRIMITIVES

IMITATED = getattr(standin.install(), "__standin__", False) and standin.raw.compiler() is not None
pytestmark = pytest.mark.skipif(not IMITATED, reason="the stand-in, and g++ to run kernels on the CPU")


def rehearsed(monkeypatch, tmp_path, *arguments):
    """The record of a part, as it lies in the file."""
    out = tmp_path / "gpu.json"
    monkeypatch.setattr(sys, "argv", ["gpu", "--rehearse", "--out", str(out), *arguments])
    gpu.main()
    return json.loads(out.read_text())


def test_correctness_is_checked_and_a_check_that_fails_is_one_line_of_many(monkeypatch, tmp_path, capsys):
    names = "getitem,no such check,integers,exchange"
    record = rehearsed(monkeypatch, tmp_path, "--part", "1", "--checks", names, "--tests", "tests/test_init.py")
    rows = {row["check"]: row for row in record["checks"]}
    assert list(rows) == names.split(",")
    assert rows["getitem"]["ok"] and rows["integers"]["ok"] and not rows["no such check"]["ok"]
    (tests,) = record["tests"]
    assert tests["code"] == 0 and tests["failed"] == [] and tests["finished"] and tests["ran"] and "passed" in tests["summary"]
    assert record["machine"]["cores"] and record["packages"]["numpy"] and record["engines"]["checks"]["device"] == "stand-in"
    out = capsys.readouterr().out
    assert "ok   getitem" in out and "LOOK no such check" in out and f"written: {tmp_path}" in out


def test_every_primitive_is_among_the_checks_and_those_with_a_twin_come_first():
    from benchmarks.gpu_checks import Checks

    names = Checks("cuda", small=True).names()
    assert set(PRIMITIVES) <= set(names) and len(names) == len(set(names))
    twins = [p.cuda is not None for n in names if (p := PRIMITIVES.get(n)) is not None]
    assert twins == sorted(twins, reverse=True)


def test_tests_that_outlast_the_budget_report_what_ran(tmp_path):
    (tmp_path / "test_slow.py").write_text(
        "import pathlib, time\n"
        "def test_quick(): pass\n"
        "def test_slow(): pathlib.Path(__file__).with_name('begun').touch(); time.sleep(600)\n"
    )
    tests = own_tests.Tests(str(tmp_path / "test_slow.py"), tmp_path)
    while not (tmp_path / "begun").exists() and not tests.wait(0.1):
        pass
    (row,) = own_tests.results([tests], 0)
    assert not row["finished"] and row["ran"] >= 1 and row["code"] and row["failed"] == []


def test_engines_are_timed_and_one_that_dies_takes_no_other_with_it(monkeypatch, tmp_path, capsys):
    pytest.importorskip("ml_dtypes", reason="the first check is of bfloat16: pip install 'minidit[cuda-test]'")
    jobs = gpu.jobs_of
    monkeypatch.setattr(gpu, "jobs_of", lambda *args: [job for job in jobs(*args) if job[2] == "float32"][:1])
    broken = gpu.GPU_KINDS["minidit-eager"].on("--no-such-option")
    monkeypatch.setitem(gpu.GPU_KINDS, "minidit-eager", broken)
    record = rehearsed(monkeypatch, tmp_path, "--part", "2", "--engines", "minidit-eager,minidit")
    (row,) = record["results"]
    assert row["engine"] == "minidit" and row["ms"]["median"] > 0 and row["tflops"] > 0 and len(row["rounds_ms"]) == 2
    assert any(name.startswith("minidit-eager") for name in record["skipped"])
    assert record["checks"][0]["gradient"] < 0.1
    assert "minidit " in capsys.readouterr().out


def bench(tmp_path, budget):
    args = argparse.Namespace(
        part=2, plan=None, checkers=1,
        rehearse=True, quick=True, rounds=2, budget=budget, timeout=5, patience=5, least=40.0, engines=[], sizes=[],
        out=tmp_path / "x.json", torch_python=sys.executable, checks=None, tests=[],
    )  # fmt: skip
    return gpu.GpuBench(args)


def test_what_the_budget_does_not_reach_is_listed(tmp_path, capsys):
    short = bench(tmp_path, budget=30)
    short.run()
    assert [what.partition(",")[0] for what in short.record["left out"]] == ["no time for rehearsal batch 3"] * 4
    assert json.loads(short.args.out.read_text())["left out"] == short.record["left out"]


def test_what_does_not_fit_beside_the_others_is_timed_alone(monkeypatch, tmp_path, capsys):
    """Engines without processes: the first has no room until the other has dropped its model."""
    requests = []

    class Fake:
        def __init__(self, name):
            self.kind, self.process = gpu.GPU_KINDS[name], argparse.Namespace(poll=lambda: None)
            self.full = {"eager": 1, "compile": 2}.get(name, 0)  # how often there is no room

        def send(self, call, **_):
            requests.append((self.kind.name, call))

        def answer(self, call):
            if self.full:
                self.full -= 1
                raise EngineError(f"{self.kind.name}: OutOfMemoryError: CUDA out of memory")

        def ask(self, call, **_):
            requests.append((self.kind.name, call))
            return {"steps": [0.001], "report": {"peak_gb": 2.0, "recomputed": self.kind.name == "minidit"}}.get(call)

    short = bench(tmp_path, budget=60)
    short.engines = {n: Fake(n) for n in ("eager", "minidit", "compile")}
    short.args.engines = list(short.engines)
    short.record["engines"] = {name: {} for name in short.engines}
    short.job(gpu.GPU_SIZES["S2"], "train", "bf16", tmp_path, list(short.engines))
    found = {row["engine"]: row for row in short.record["results"]}
    assert found["eager"]["alone"] and not found["minidit"]["alone"] and found["minidit"]["speed beside"] == {"eager": 1.0}
    timed, last = requests.index(("minidit", "steps")), len(requests) - 1 - requests[::-1].index(("eager", "prepare"))
    assert ("minidit", "drop") in requests[timed:last]
    assert found["compile"]["out of memory"] and "ms" not in found["compile"] and found["minidit"]["recomputed"]
    out = capsys.readouterr().out
    assert "eager*" in out and "does not fit into the memory" in out and out.count("recomputed") == 1
    assert any("OutOfMemory" in why for why in short.record["skipped"].values())


POISONED = """
from benchmarks.serve import serve

class Engine:
    broken = False
    def check(self, name):
        self.broken = name == "illegal address"
        if name != "fine":
            raise RuntimeError(name)
        return {"ok": True}
    def wait(self):
        if self.broken:
            raise RuntimeError("the device answers nothing")

serve(Engine())
"""


def test_an_engine_whose_device_is_unusable_is_replaced_and_one_with_an_ordinary_error_is_not(monkeypatch, tmp_path, capsys):
    (tmp_path / "poisoned.py").write_text(POISONED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(gpu.GpuBench, "kind", lambda self, name: Kind(name, "poisoned"))
    short, processes = bench(tmp_path, budget=60), []
    for name in ("fine", "an ordinary error", "illegal address", "fine"):
        short.check_one("checks#0", name)
        processes.append(short.engines["checks#0"].process.pid if "checks#0" in short.engines else None)
    short.close("checks#0")
    first, second, gone, fresh = processes
    assert first == second and gone is None and fresh not in (None, first)
    assert [row["ok"] for row in short.record["checks"]] == [True, False, False, True]


def test_the_kernels_of_a_trace_are_added_up_per_step_the_longest_first():
    kernel = {"ph": "X", "cat": "kernel", "args": {"grid": [4, 1, 1], "registers per thread": 32}}
    events = [kernel | {"name": "short", "ts": 10.0 * i, "dur": 1.0} for i in range(4)]
    host = {"ph": "X", "cat": "cpu_op", "name": "no kernel", "ts": 0.0, "dur": 99.0}
    found = summary([*events, kernel | {"name": "long", "ts": 50.0, "dur": 9.0}, host], steps=2)
    assert [(row["name"], row["per step"], row["us"]) for row in found["rows"]] == [("long", 0.5, 4.5), ("short", 2.0, 2.0)]
    assert (found["busy_ms"], found["span_ms"], found["launches"]) == pytest.approx((6.5e-3, 29.5e-3, 2.5))
    assert "absent" in summary([], 1)


@pytest.fixture
def engine(tmp_path):
    fixtures.write(tmp_path, REHEARSED)
    with standin.kernels(), imitated_cublas():
        yield MiniditEngine(device="cuda")


@pytest.mark.parametrize("why", ["it fits", "predicted", "predicted for an empty device", "found out"])
def test_a_step_that_does_not_fit_recomputes_its_blocks_and_says_so(monkeypatch, tmp_path, engine, why):
    asked = {"size": REHEARSED.as_dict(), "task": "train", "folder": str(tmp_path)}
    engine.eager = True  # a step's launches tell what it does twice
    engine.prepare(**asked)
    with standin.counting() as once:
        engine.step()
    training, scarce = MiniditEngine.training, {"predicted": "memory_of", "predicted for an empty device": "memGetInfo"}.get(why)

    def full(self, model):
        if not self.recomputed:
            raise MemoryError("Out of memory allocating 512 bytes (allocated so far: 0 bytes).")
        return training(self, model)

    if scarce == "memory_of":
        monkeypatch.setattr(minidit_engine, "memory_of", lambda device: 1 << 20)
    elif scarce:
        monkeypatch.setattr(standin.install().cuda.runtime, "memGetInfo", lambda: (1 << 20, 1 << 20))
    elif why == "found out":
        monkeypatch.setattr(MiniditEngine, "training", full)
        with pytest.raises(MemoryError):  # beside others: it is tried again alone
            engine.prepare(**asked)
    engine.prepare(**asked, alone=why != "predicted for an empty device")
    report = engine.report()
    assert report["recomputed"] == (why != "it fits") and report["peak_gb"] > 0
    with standin.counting() as spent:
        engine.step()
    assert (spent.launches > once.launches) == report["recomputed"] and engine.steps(1)[0] > 0


def test_a_walk_is_recorded_and_does_what_the_eager_one_does(monkeypatch, tmp_path, engine, caplog):
    monkeypatch.setattr(minidit_engine, "WALK", 3)
    asked = {"size": REHEARSED.as_dict(), "task": "sample", "folder": str(tmp_path), "precision": "tf32"}
    found = []
    for eager in (False, True):
        engine.eager = eager
        engine.prepare(**asked)
        with standin.counting() as spent:
            found.append(engine.step().get())
        found.append(spent.launches)
    (captured, few, eager, many) = found
    assert (captured == eager).all() and few < many and caplog.messages == []


def test_a_plan_passes_arguments_on_and_ends_a_part_with_all_that_it_started(monkeypatch, tmp_path):
    """Each part starts an engine that would never end, and that holds a pipe open."""
    python, pipe = tmp_path / "python", tmp_path / "pipe"
    python.write_text(f'#!/bin/sh\nexec 3> {pipe}\necho "$@" >> {tmp_path}/arguments\nsleep 100000 &\nwait\n')
    python.chmod(0o755)
    os.mkfifo(pipe)
    held = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    monkeypatch.setattr(gpu, "PLANS", {"A": (("--part 1", 2), ("--part 3", 2))})
    monkeypatch.setattr(gpu.signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(sys, "argv", ["gpu", "--plan", "A", "--rounds", "5", "--torch-python", "there"])
    gpu.main()
    for line, part in zip((tmp_path / "arguments").read_text().splitlines(), (1, 3), strict=True):
        assert f"--part {part} --budget 1.7" in line and line.endswith("--rounds 5 --torch-python there")
    assert select.select([held], [], [], 60)[0] and os.read(held, 1) == b""  # nobody holds it any more
    os.close(held)


def test_a_plan_names_a_folder_and_no_file(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu", "--plan", "B", "--out", "one.json"])
    with pytest.raises(SystemExit):
        gpu.main()
    assert "MINIDIT_BENCH_OUT" in capsys.readouterr().err
