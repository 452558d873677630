"""Whole training steps with the CUDA twins, on the stand-in: the same numbers as the plain text, fewer launches, no waiting."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import standin
from standin.cublas import imitated_cublas
from support import agree, host, spec

from benchmarks.launches import counted
from minidit.autograd import no_grad, plain_text
from minidit.cli import main
from minidit.diffusion.schedule import Schedule
from minidit.kernels import cuda_blas
from minidit.kernels.cublaslt import BIAS
from minidit.models.dit import DiT, DiTConfig
from minidit.ops import gelu, linear_gelu
from minidit.processes.diffusion import Diffusion
from minidit.processes.train import loop_for
from minidit.random import Philox
from minidit.training.launches import launches_of
from minidit.training.loop import LoopConfig

CUPY = standin.install()
REAL = not getattr(CUPY, "__standin__", False)
pytestmark = pytest.mark.skipif(REAL or standin.raw.compiler() is None, reason="the stand-in, and g++ to run kernels on the CPU")

SIZES = {"input_size": 4, "patch_size": 1, "in_channels": 2, "hidden_size": 24, "depth": 2, "num_heads": 3, "num_classes": 3}
CONFIG = DiTConfig(**SIZES, learn_sigma=False)
TRAIN = LoopConfig(steps=3, batch_size=4, lr=1e-2, weight_decay=0.1, clip=0.5, eps=1e-3)  # a small ε magnifies rounding

DDPM = Diffusion.on_ladder(Schedule.linear(50))


def trained(config=CONFIG, train=TRAIN):
    """(losses, weights, EMA) of a short run on the device; the first weights are drawn so that no gradient is zero."""
    model = DiT(config, Philox(3), device="cuda")
    model.flat[...] = CUPY.asarray(0.1 * np.random.default_rng(0).standard_normal(model.layout.size).astype(np.float32))
    r = np.random.default_rng(1)
    data = r.standard_normal((9, 2, 4, 4)).astype(np.float32), r.integers(0, 3, 9)
    loop = loop_for(model, data, DDPM, train)
    return [host(record["loss"]) for record in loop.run()], host(model.flat), host(loop.optimiser.average)


@spec("A.12", "A.15", "A.19", "A.21", "D.1", "O.2", "O.4", "P.1", "R.3")
@pytest.mark.parametrize("learn_sigma", [False, True])
def test_a_run_with_twins_is_the_run_of_the_plain_text(learn_sigma):
    config = replace(CONFIG, learn_sigma=learn_sigma)
    with plain_text():
        losses, weights, average = trained(config)
    with standin.kernels() as state:
        state.launched.clear()
        fast = trained(config)
        kernels = set(state.launched)
    for a, e in zip(fast, (losses, weights, average), strict=True):
        agree(np.asarray(a), np.asarray(e), bound=1e-5)
    blocks = "layer_norm bias_gelu add_bias attention gated_residual silu"
    adjoints = "layer_norm_backward gelu_backward attention_backward gated_residual_backward"
    assert kernels >= {*blocks.split(), *adjoints.split(), "embedding_backward", "column_sum"}
    assert kernels >= {"normal", "uniform", "integers", "mix", "adamw_ema", "set_rates"}
    with plain_text(), standin.kernels() as state:
        state.launched.clear()
        trained(config, replace(TRAIN, steps=1))
        assert state.launched == []


def test_the_command_counts_launches_per_block(capsys):
    with standin.kernels():
        plain, twins = launches_of(CONFIG, 2, counted).values()
        assert twins.per_block < 25 and twins.around < 64 and plain.per_block > 120
        assert main(["bench", "--launches"]) == 2 and "cannot list" in capsys.readouterr().err  # the stand-in draws no graphs
    assert main(["bench"]) == 2 and "--launches" in capsys.readouterr().err
    assert main(["bench", "--launches", "--preset", "huge"]) == 2


def test_without_a_gpu_the_command_says_so_and_the_benchmark_counts_on_the_stand_in(tmp_path):
    root = Path(__file__).parents[2]
    settings = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(root)}, "capture_output": True, "text": True}
    command = subprocess.run([sys.executable, "-m", "minidit", "bench", "--launches"], **settings)
    assert command.returncode == 2 and "counted on a GPU" in command.stderr and "CuPy" in command.stderr
    assert len(command.stderr.splitlines()) == 1
    counted = subprocess.run([sys.executable, "-m", "benchmarks.launches"], **settings)
    assert counted.returncode == 0, counted.stderr
    assert [line.split()[0] for line in counted.stdout.splitlines()] == ["plain", "twins"]


# ------------------------------------------------------------------------------------------------ our own cuBLAS handle


@spec("A.11")
@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_our_own_handle_takes_every_layout_and_rounds_as_asked(precision):
    if precision == "bf16":
        pytest.importorskip("ml_dtypes")
    r = np.random.default_rng(0)
    f = lambda *shape: CUPY.asarray(r.standard_normal(shape).astype(np.float32))
    a, b = f(5, 7), f(7, 4)
    turned = lambda x: CUPY.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2)
    wide = CUPY.zeros((5, 9), np.float32)
    with imitated_cublas() as library, cuda_blas.using_precision(precision):
        for x in (a, turned(a), f(5, 14)[:, ::2], f(9, 7)[2:7], f(5, 9)[:, 1:8]):
            for y in (b, turned(b), f(7, 9)[:, 3:7]):
                for out in (CUPY.empty((5, 4), np.float32), wide[:, 2:6]):
                    expected = host(x) @ host(y)
                    agree(cuda_blas.gemm(x, y, out), expected, bound={"float32": 1e-6, "tf32": 4e-3, "bf16": 3e-2}[precision])
        assert set(library.calls) == {"gemm"}
        x, y = f(3, 5, 7), f(3, 4, 7)
        agree(cuda_blas.product(x, y.swapaxes(1, 2)), host(x) @ host(y).swapaxes(1, 2), bound=3e-2)
        one = cuda_blas.gemm(f(1, 1), f(1, 1), CUPY.empty((1, 1), np.float32))
        assert library.calls[-2:] == ["batched", "gemm"] and one.shape == (1, 1)
    if precision != "float32":
        with pytest.raises(cuda_blas.NoTwin), cuda_blas.using_precision(precision):
            cuda_blas.gemm(a, b, CUPY.empty((5, 4), np.float32))
    with pytest.raises(ValueError, match="precision"), cuda_blas.using_precision("fp8"):
        pass


def test_a_product_can_be_captured_and_follows_the_stream():
    a, b, out = CUPY.ones((2, 3), np.float32), CUPY.ones((3, 4), np.float32), CUPY.empty((2, 4), np.float32)
    stream = CUPY.cuda.Stream(non_blocking=True)
    with imitated_cublas():
        cuda_blas.gemm(a, b, out)  # on the default stream
        with stream:
            stream.begin_capture()
            cuda_blas.gemm(a, b, out)  # another stream: its workspace is set again
            graph = stream.end_capture()
        a[...] = 2.0
        graph.launch()
    assert (host(out) == 6).all()


@spec("A.5", "A.12")
@pytest.mark.parametrize("trouble", ["", "refuse", "fail"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_epilogues_save_launches_and_change_no_number(trouble, precision, monkeypatch, caplog):
    if precision == "bf16":
        pytest.importorskip("ml_dtypes")
    launches, train = {}, replace(TRAIN, precision=precision, clip=0.0)
    with standin.kernels(), imitated_cublas() as library:
        expected = trained(train=train)
        launches["off"] = launches_of(CONFIG, 2, counted)["twins"]
        assert library.epilogues == []
        monkeypatch.setenv("MINIDIT_CUBLASLT", "on")
    with standin.kernels(), imitated_cublas() as library:
        if trouble:
            setattr(library, trouble, True)
        fast = trained(train=train)
        launches["on"] = launches_of(CONFIG, 2, counted)["twins"]
        assert set(library.epilogues) == (set() if trouble else {4, 164, 192, 512})
        library.epilogues.clear()
        x, weight, bias = CUPY.ones((8, 16), np.float32), CUPY.ones((8, 16), np.float32) / 16, CUPY.ones(8, np.float32)
        with no_grad():
            agree(linear_gelu(x, weight, bias), gelu(np.full((8, 8), 2.0)), bound=1e-6)  # its input is not kept
        assert library.epilogues[-1:] == ([] if trouble else [36])  # before it, its trial
    for a, e in zip(fast, expected, strict=True):
        agree(np.asarray(a), np.asarray(e), bound=1e-5 if precision == "float32" or trouble else 2e-2)
    saved = [off - on for off, on in zip(launches["off"], launches["on"], strict=True)]
    assert saved == ([0, 0] if trouble else [3, 12])  # per block GELU, its slope and the sum for b̄ of q, k, v; around six layers
    lines = [m for m in caplog.messages if m.startswith("cublasLt does not multiply ")]
    assert bool(lines) is bool(trouble) and len(lines) == len(set(lines)) and all("\n" not in line for line in lines)


@pytest.mark.parametrize("times, chosen", [((1.0, 2.0), True), ((2.0, 1.0), False)])
def test_an_epilogue_may_be_timed_beside_our_kernels_and_is_used_if_it_is_faster(times, chosen, monkeypatch, caplog):
    r = np.random.default_rng(0)
    a, b, bias = (CUPY.asarray(r.standard_normal(s).astype(np.float32)) for s in ((8, 16), (16, 24), (24,)))
    out, laps, calls = CUPY.empty((8, 24), np.float32), list(times), []
    monkeypatch.setenv("MINIDIT_CUBLASLT", "auto")
    monkeypatch.setattr(CUPY.cuda, "get_elapsed_time", lambda start, end: laps.pop(0))
    plain = lambda: (calls.append(0), cuda_blas.gemm(a, b, out), CUPY.add(out, bias, out=out))
    with imitated_cublas() as library:
        stream = CUPY.cuda.Stream(non_blocking=True)
        with stream, CUPY.cuda.using_allocator(CUPY.cuda.MemoryPool().malloc):
            cuda_blas.gemm(a, b, out)
            stream.begin_capture()
            assert cuda_blas.fused(a, b, out, BIAS, bias, plain) is False and len(laps) == 2  # nothing is timed in a recording
            stream.end_capture()
        for _ in range(2):
            assert cuda_blas.fused(a, b, out, BIAS, bias, plain) is chosen and laps == []
            agree(out, host(a) @ host(b) + host(bias), bound=1e-6)
            library.epilogues.clear(), calls.clear()
        assert cuda_blas.fused(a, b, out, BIAS, bias, plain) is chosen
        assert (library.epilogues, calls) == (([4], []) if chosen else ([], [0]))
        assert cuda_blas.fused(a, b, out, BIAS, bias * 2, plain) is chosen  # decided by the kind, not by the numbers
    with imitated_cublas() as library:  # a library that computes something else is not used
        monkeypatch.setattr(library, "_run_lt", lambda desc, pointers, layouts: None)
        out[...] = 0
        assert cuda_blas.fused(a, b, out, BIAS, bias, plain) is False
        agree(out, host(a) @ host(b) + host(bias), bound=1e-6)
    assert sum("differs" in line for line in caplog.messages) == 1


def test_training_with_tf32_products_stays_near():
    with plain_text():
        losses, _, _ = trained()
    with standin.kernels(), imitated_cublas() as library:
        fast, _, _ = trained(train=replace(TRAIN, precision="tf32"))
        assert "gemm" in library.calls
    agree(np.asarray(fast), np.asarray(losses), bound=2e-2)
    assert np.abs(np.asarray(fast) / np.asarray(losses) - 1).max() > 1e-5


@spec("A.12")
def test_under_bf16_the_weights_are_rounded_once_a_step():
    pytest.importorskip("ml_dtypes")
    spent = {}
    with standin.kernels(), imitated_cublas():
        for policy in ("float32", "bf16"):
            loop = loop_for(DiT(CONFIG, Philox(3), device="cuda"), (np.zeros((4, 2, 4, 4), np.float32), np.zeros(4, int)), DDPM,
                            replace(TRAIN, precision=policy, graph=False))  # fmt: skip
            steps = loop.run()
            next(steps)
            with standin.counting() as spent[policy]:
                next(steps)
        assert spent["bf16"].launches - spent["float32"].launches < 19  # the ends; not 8 a block, nor one for all weights
        flat = CUPY.arange(24, dtype="float32") / 3
        w, other = flat[8:20].reshape(3, 4), CUPY.ones((3, 4), "float32")
        with cuda_blas.using_precision("bf16"), cuda_blas.rounded_once(flat):
            with standin.counting() as free:
                views = cuda_blas.rounded(w), cuda_blas.rounded(w.T)
            assert free.launches == 0 and cuda_blas.rounded(views[0]) is views[0]
            for view, x in zip(views, (w, w.T), strict=True):
                assert np.array_equal(host(view), host(x.astype(view.dtype)))
            with standin.counting() as cost:
                cuda_blas.rounded(other)
            assert cost.launches == 1


@spec("O.2")
@pytest.mark.parametrize("graph", [False, True])
def test_the_optimiser_keeps_the_copy_of_the_weights_that_a_cast_would_make(graph, monkeypatch):
    """Bit for bit, one pass and one launch less per update; who changes weights in between says so."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    train, runs, launches = replace(TRAIN, precision="bf16", graph=graph, steps=4), [], []

    def run():
        loop = loop_for(DiT(CONFIG, Philox(3), device="cuda"), (np.ones((4, 2, 4, 4), np.float32), np.zeros(4, int)), DDPM, train)
        steps, losses = loop.run(), []
        for k in range(4):
            with standin.counting() as n:
                losses.append(host(next(steps)["loss"]))
            if kept := loop.optimiser.copy is not None:
                assert np.array_equal(host(loop.optimiser.copy), host(loop.model.flat).astype(ml_dtypes.bfloat16))
            if k == 1:
                loop.model.flat[...] *= 0.5
                loop.optimiser.weights_changed()
        launches.append(n.launches)
        runs.append((kept, losses, host(loop.model.flat)))

    with standin.kernels(), imitated_cublas():
        run()
        monkeypatch.setattr("minidit.training.loop.copy_of", lambda weights, policy: None)
        run()
    (kept, *with_copy), (cast, *without) = runs
    assert kept and not cast and all(np.array_equal(a, b) for a, b in zip(with_copy, without, strict=True))
    assert graph or launches[1] - launches[0] == 1
