"""The script for when a GPU is at hand, rehearsed on the imitation: all of it runs, and what fails takes nothing with it."""

import argparse
import json
import sys

import pytest
import standin

from benchmarks import gpu
from benchmarks.engine import EngineError
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
    assert record["tests"]["code"] == 0 and record["tests"]["failed"] == []
    assert record["machine"]["cores"] and record["packages"]["numpy"] and record["engines"]["checks"]["device"] == "stand-in"
    out = capsys.readouterr().out
    assert "ok   getitem" in out and "LOOK no such check" in out and f"written: {tmp_path}" in out


def test_every_primitive_is_among_the_checks():
    from benchmarks.gpu_checks import Checks

    assert set(PRIMITIVES) <= set(Checks("cuda", small=True).names())


def test_engines_are_timed_and_one_that_dies_takes_no_other_with_it(monkeypatch, tmp_path, capsys):
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
        part=2, rehearse=True, quick=True, rounds=2, budget=budget, timeout=5, patience=5, least=40.0, engines=[], sizes=[],
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
    told = []

    class Fake:
        def __init__(self, name):
            self.kind, self.full, self.process = gpu.GPU_KINDS[name], name == "eager", argparse.Namespace(poll=lambda: None)

        def send(self, call, **_):
            told.append((self.kind.name, call))

        def answer(self, call):
            if self.full:
                self.full = False
                raise EngineError("eager: OutOfMemoryError: CUDA out of memory")

        def ask(self, call, **_):
            told.append((self.kind.name, call))
            return {"steps": [0.001], "peak_gb": 2.0}.get(call)

    short = bench(tmp_path, budget=60)
    short.engines = {n: Fake(n) for n in ("eager", "minidit")}
    short.args.engines = list(short.engines)
    short.record["engines"] = {name: {} for name in short.engines}
    short.job(gpu.GPU_SIZES["S2"], "train", "bf16", tmp_path)
    found = {row["engine"]: row for row in short.record["results"]}
    assert found["eager"]["alone"] and not found["minidit"]["alone"] and found["minidit"]["speed beside"] == {"eager": 1.0}
    assert told.index(("minidit", "drop")) < len(told) - 1 - told[::-1].index(("eager", "prepare"))
    assert "eager*" in capsys.readouterr().out and any("OutOfMemory" in why for why in short.record["skipped"].values())
