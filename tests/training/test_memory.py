"""What `info --memory` predicts is what a step takes, within 15 %; what does not fit is said in one line, with what would."""

import os
import re
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import standin
from small import pictures
from standin import core, cublas
from support import host

import minidit as md
from minidit.cli import main
from minidit.diffusion.schedule import Schedule
from minidit.kernels import cublaslt, cuda_launch
from minidit.models.dit import DiTConfig
from minidit.processes.diffusion import Diffusion
from minidit.processes.train import loop_for
from minidit.training import memory
from minidit.training.loop import LoopConfig, RunError
from minidit.training.memory import largest_batch, memory_of_step

TESTS = Path(__file__).parent.parent
CUPY = standin.install()
IMITATED = getattr(CUPY, "__standin__", False)
KERNELS = pytest.mark.skipif(not IMITATED or standin.raw.compiler() is None, reason="the stand-in, and g++ to run kernels")

NET = DiTConfig(input_size=8, patch_size=2, in_channels=4, hidden_size=64, depth=3, num_heads=2, num_classes=5, learn_sigma=False)
TRAIN = LoopConfig(steps=3, batch_size=32, shards=1, graph=False)
DDPM = Diffusion.on_ladder(Schedule.linear())
NETS = {
    "as it is": {}, "wide MLP": {"mlp_ratio": 6.0}, "many heads": {"num_heads": 8}, "learned variance": {"learn_sigma": True},
    "adaln": {"conditioning": "adaln"}, "cross": {"conditioning": "cross_attention"},
    "in context": {"conditioning": "in_context"}, "no classes": {"num_classes": 0},
}  # fmt: skip
TRAININGS = {"as it is": {}, "recomputed": {"checkpoint_blocks": True}, "in pieces": {"accumulate": 2}}
CASES = [(n, "as it is") for n in NETS] + [("as it is", t) for t in TRAININGS][1:]


class Memory(core.Memory):
    """The stand-in's memory, which knows the most that was in use, and refuses what goes beyond a limit."""

    most, limit = 0, 0

    def __init__(self, a):
        if Memory.limit and core.Device.used + a.nbytes > Memory.limit:
            self.nbytes = 0
            raise MemoryError(f"Out of memory allocating {a.nbytes} bytes")
        super().__init__(a)
        Memory.most = max(Memory.most, core.Device.used)


@pytest.fixture
def counted(monkeypatch):
    monkeypatch.setattr(core, "Memory", Memory)
    monkeypatch.setattr(Memory, "most", 0)
    monkeypatch.setattr(Memory, "limit", 0)
    return Memory


def second_step(config, train, device, before):
    """The second step of a run, `before()` called between the two."""
    model = md.DiT(config, md.Philox(0), device=device)
    x_0, labels = pictures(train.batch_size, config)
    loop = loop_for(model, (x_0, labels) if config.num_classes else x_0, DDPM, train)
    steps = loop.run()
    next(steps)
    before()
    record = next(steps)
    return loop, record


@pytest.mark.parametrize(("net", "train"), CASES)
def test_the_prediction_for_a_cpu_is_what_is_allocated(net, train):
    config, train = replace(NET, **NETS[net]), replace(TRAIN, **TRAININGS[train])
    tracemalloc.start()
    try:
        second_step(config, train, "cpu", tracemalloc.reset_peak)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    predicted = memory_of_step(config, train, "cpu")  # the vectors of weights are shared memory, which is not traced
    assert predicted.kept + predicted.working == pytest.approx(peak, rel=0.15)


ON_A_GPU = [
    ("as it is", "as it is", "float32"), ("as it is", "as it is", "bf16"), ("as it is", "recomputed", "bf16"),
    ("wide MLP", "in pieces", "bf16"), ("cross", "as it is", "float32"), ("in context", "recomputed", "float32"),
    ("adaln", "as it is", "bf16"),
]  # fmt: skip


@KERNELS
@pytest.mark.parametrize(("net", "train", "precision"), ON_A_GPU)
def test_the_prediction_for_a_gpu_is_what_its_kernels_are_given(counted, net, train, precision):
    if precision == "bf16":
        pytest.importorskip("ml_dtypes")
    config, train = replace(NET, **NETS[net]), replace(TRAIN, **TRAININGS[train], precision=precision, batch_size=8)
    with standin.kernels(), cublas.imitated_cublas():
        used = []

        def before():
            used.append(core.Device.used)
            Memory.most = 0

        second_step(config, train, "cuda", before)
    predicted = memory_of_step(config, train, "cuda")
    assert predicted.kept + predicted.working == pytest.approx(Memory.most - used[0], rel=0.15)


GROWTH = """
import sys
from dataclasses import replace
import numpy as np
from training.test_memory import NET, TRAIN, second_step
def most():
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmHWM"))
second_step(replace(NET, hidden_size=8, num_heads=1), replace(TRAIN, batch_size=1), "cpu", lambda: None)  # imports, BLAS
before = most()
second_step(replace(NET, hidden_size=128, depth=6), replace(TRAIN, batch_size=128), "cpu", lambda: None)
print(most() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="who else tells the most memory that a process had?")
def test_a_process_grows_by_what_was_predicted():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (TESTS, TESTS.parent)))}
    out = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True, env=environment).stdout
    predicted = memory_of_step(replace(NET, hidden_size=128, depth=6), replace(TRAIN, batch_size=128), "cpu")
    assert predicted.total == pytest.approx(int(out), rel=0.15)


@KERNELS
@pytest.mark.parametrize("recomputed", [False, True])
def test_what_does_not_fit_is_said_with_a_batch_that_does(counted, monkeypatch, recomputed):
    train = replace(TRAIN, checkpoint_blocks=recomputed, steps=1)
    monkeypatch.setattr(cublaslt, "WORKSPACE", 1 << 16)  # its 32 MB would hide what so small a network needs
    monkeypatch.setattr(memory, "LIBRARIES", 4 * cuda_launch.COUNTERS + (1 << 16))
    scarce = replace(train, batch_size=8 if recomputed else 32, checkpoint_blocks=True)
    limit = int(memory_of_step(NET, scarce, "cuda").total / 0.9) + 8
    monkeypatch.setattr(CUPY.get_default_memory_pool(), "limit", limit)
    with standin.kernels(), cublas.imitated_cublas():
        monkeypatch.setattr(Memory, "limit", core.Device.used + limit)

        def run(train):
            model = md.DiT(NET, md.Philox(0), device="cuda")
            return [float(host(r["loss"])) for r in md.train(model, pictures(train.batch_size, NET), DDPM, train)]

        with pytest.raises(RunError, match=r"^out of memory on cuda: a batch of 32 needs about .* GB, .* are avail") as error:
            run(train)
        message = str(error.value)
        del error  # its frames hold the arrays of the step that failed
        fits, pieces = (int(re.search(rf"--{flag} (\d+)", message)[1]) for flag in ("batch-size", "accumulate"))
        assert 7 <= fits < 32 and ("--recompute" in message) is not recomputed and "\n" not in message
        assert len(run(replace(train, batch_size=fits))) == 1 and len(run(replace(train, accumulate=pieces))) == 1


def test_the_largest_batch_is_the_largest():
    for budget in (1e6, 3e6, 1e7):
        most = largest_batch(NET, TRAIN, "cuda", budget + 40e6)
        fits = [memory_of_step(NET, replace(TRAIN, batch_size=b), "cuda").total <= budget + 40e6 for b in range(1, 33)]
        assert most == sum(fits)
    assert largest_batch(NET, TRAIN, "cpu", 0) == 0


def test_other_errors_are_left_as_they_are():
    model = md.DiT(NET, md.Philox(0))
    with pytest.raises(ValueError, match="no labels"):
        next(md.train(model, np.zeros((4, 4, 8, 8), np.float32)))


@pytest.mark.parametrize("error", [MemoryError("x"), RuntimeError("cudaErrorMemoryAllocation: out of memory")])
def test_the_command_says_it_in_one_line(monkeypatch, tmp_path, capsys, error):
    def full(*_, **__):
        raise error

    monkeypatch.setattr("minidit.runs.trainer.Loop", full)
    monkeypatch.setattr("minidit.training.memory.memory_of", lambda device: 1 << 20)
    assert main(["train", "--preset", "quick", "--steps", "2", "--out", str(tmp_path / "run"), "--quiet"]) == 1
    message = capsys.readouterr().err
    assert message.startswith("minidit: out of memory on cpu: a batch of 64 needs about ") and message.count("\n") == 1
    assert message.endswith("no batch would fit: a smaller network would\n")


@pytest.mark.parametrize("arguments", [[], ["--network", "DiT-XL/2", "--precision", "bf16", "--recompute"], ["--device", "cpu"]])
def test_info_predicts_without_a_gpu(capsys, arguments):
    assert main(["info", "--memory", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "of a training update" in lines[0] and any("DiT-XL/2" in line for line in lines[2:])
