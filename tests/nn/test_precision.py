"""Mixed precision: which policies there are, where each can be had, and that bf16 on a GPU stays near float32."""

import gc
import sys
from dataclasses import replace

import numpy as np
import pytest
import standin
from small import DIT, awake, pictures
from standin.cublas import imitated_cublas
from support import host

from minidit import ops
from minidit.autograd import NoTwin, Tensor, plain_text
from minidit.backend import to_device
from minidit.diffusion.schedule import Schedule
from minidit.kernels import blas, cuda_blas, cuda_launch
from minidit.nn import precision
from minidit.nn.precision import check_precision, computing_in, restored, stored
from minidit.processes.diffusion import Diffusion
from minidit.processes.sample import sample
from minidit.processes.train import loop_for
from minidit.training.loop import LoopConfig

CUPY = standin.install()
REAL = not getattr(CUPY, "__standin__", False)
CONFIG = LoopConfig(steps=4, batch_size=12, lr=3e-3, eps=1e-3, clip=1.0)
gpu = pytest.mark.skipif(REAL or standin.raw.compiler() is None, reason="the stand-in, and g++ to run kernels on the CPU")


def trained(policy, config=DIT):
    process, settings = Diffusion.on_ladder(Schedule.linear(30)), replace(CONFIG, precision=policy)
    loop = loop_for(awake(config, device="cuda"), pictures(config=config), process, settings)
    losses = [float(host(r["loss"])) for r in loop.run()]
    return losses, loop


@gpu
@pytest.mark.parametrize("config", [DIT, replace(DIT, learn_sigma=True, depth=2), replace(DIT, conditioning="adaln"),
                                    replace(DIT, conditioning="in_context")])  # fmt: skip
def test_bf16_trains_as_float32_does_but_for_rounding_and_its_weights_stay_float32(config):
    pytest.importorskip("ml_dtypes")
    with standin.kernels() as state, imitated_cublas():
        exact, _ = trained("float32", config)
        near, _ = trained("tf32", config)
        state.launched.clear()
        rough, loop = trained("bf16", config)
    assert np.allclose(near, exact, rtol=1e-3) and near != exact
    assert np.allclose(rough, exact, rtol=2e-2) and rough != exact
    arrays = loop.model.flat, loop.buffers[0], *loop.optimiser.state_dict().values()
    assert all(a.dtype == np.float32 for a in arrays)


@gpu
def test_under_bf16_the_tape_holds_half_the_memory():
    pytest.importorskip("ml_dtypes")
    config = replace(DIT, input_size=16, hidden_size=64, depth=6)
    x, labels = (to_device(a, "cuda") for a in pictures(8, config))
    used = lambda: (gc.collect(), CUPY.get_default_memory_pool().used_bytes())[1]
    held = {}
    with standin.kernels(), imitated_cublas():
        model = awake(config, device="cuda")
        t = CUPY.arange(8)
        cuda_blas.handle()  # with its workspace
        for policy in ("float32", "bf16"):
            with computing_in(policy, "cuda"):
                before = used()
                out = model(x, t, labels)
                held[policy] = used() - before
                assert out.dtype == np.float32
                del out
    assert 0.45 < held["bf16"] / held["float32"] < 0.6


@gpu
def test_samples_under_bf16_stay_near_those_of_float32():
    pytest.importorskip("ml_dtypes")
    sch = Schedule.linear(50)
    with standin.kernels(), imitated_cublas():
        model = awake(device="cuda")
        exact, rough = (host(sample(model, sch, [0, 1, 2], steps=4, guidance=2.0, precision=p)) for p in ("float32", "bf16"))
    assert exact.dtype == rough.dtype == np.float32
    assert 0 < np.abs(rough - exact).max() < 0.1 * np.abs(exact).max()


def test_a_policy_that_cannot_be_had_is_refused_with_what_is_missing(monkeypatch):
    with pytest.raises(ValueError, match="precision 'fp8' is not one of float32, tf32, bf16"):
        LoopConfig(precision="fp8")
    with pytest.raises(ValueError, match="is not one of"):
        check_precision("fp8", "cpu")
    with pytest.raises(ValueError, match="precision 'tf32' needs a GPU"):
        check_precision("tf32", "cpu")
    monkeypatch.setattr(blas, "mkl", lambda: None)
    with pytest.raises(ValueError, match=r"bf16.* needs the extra"), computing_in("bf16", "cpu"):
        pass
    if REAL:
        return
    for policy in ("tf32", "bf16"):
        with plain_text(), pytest.raises(ValueError, match=f"precision '{policy}' on a GPU needs the package's kernels"):
            check_precision(policy, "cuda")
    if standin.raw.compiler() is not None:
        with standin.kernels(), pytest.raises(ValueError, match="needs cuBLAS"):
            check_precision("bf16", "cuda")


def test_on_the_cpu_and_outside_of_bf16_activations_are_what_they_were(xp):
    x = Tensor(xp.ones(3, "float32"))
    assert stored(x) is x and restored(x, x) is x and stored(None) is None
    with cuda_blas.using_precision("tf32"):
        assert stored(x) is x
    assert restored(x, Tensor(xp.ones(1))).dtype == np.float64


def test_a_cast_rounds_and_its_gradient_comes_back_in_the_old_type(xp):
    x = Tensor(xp.asarray([1 / 3, 2.0]))
    y = ops.cast(x, dtype="float32")
    y.backward(xp.asarray([1.0, 2.0], dtype="float32"))
    assert y.dtype == np.float32 and host(y)[0] == np.float32(1 / 3)
    assert x.grad.dtype == np.float64 and host(x.grad).tolist() == [1.0, 2.0]


def test_bf16_on_a_gpu_names_the_package_that_it_lacks(monkeypatch):
    def missing():
        raise NoTwin("there is no bfloat16")

    monkeypatch.setattr(cuda_launch, "available", lambda name: True)
    monkeypatch.setattr(cuda_blas, "handle", object)
    monkeypatch.setattr(cuda_blas, "bfloat16", missing)
    with pytest.raises(ValueError, match=r"precision 'bf16' on a GPU: there is no bfloat16 \(pip install ml_dtypes\)"):
        check_precision("bf16", "cuda")
    check_precision("tf32", "cuda")


def test_the_first_question_about_a_gpu_imports_what_answers_it(monkeypatch):
    """A process that has not used the GPU yet has no CuPy, and so no kernels."""
    cupy = standin.install()
    monkeypatch.delitem(sys.modules, "cupy")
    monkeypatch.setattr(precision, "module_of", lambda device: sys.modules.setdefault("cupy", cupy))
    monkeypatch.setattr(cuda_launch, "available", lambda name: "cupy" in sys.modules)
    monkeypatch.setattr(cuda_blas, "handle", object)
    check_precision("tf32", "cuda")
