"""The same seed on NumPy and on CuPy: the same integers, the same losses, the same pictures up to rounding."""

import numpy as np
import pytest
import standin
from small import DIT, awake, pictures
from standin.cublas import imitated_cublas
from support import host

from minidit.diffusion.schedule import Schedule
from minidit.kernels.cuda_laws import Philox
from minidit.processes.sample import ddim, sample
from minidit.processes.train import TrainConfig, loop_for
from minidit.training.clock import Clock, batch_of, stream_of

CUPY = standin.install()
REAL = not getattr(CUPY, "__standin__", False)
CONFIG = TrainConfig(steps=20, batch_size=8, lr=3e-3, warmup=4, clip=1.0, weight_decay=0.01, ema=0.9, schedule="cosine", seed=5)


@pytest.fixture(params=[pytest.param("a GPU", marks=pytest.mark.gpu), "the stand-in"])
def gpu(request):
    if request.param == "a GPU":
        yield
    elif REAL or standin.raw.compiler() is None:
        pytest.skip("the stand-in, and g++ to run kernels on the CPU")
    else:
        with standin.kernels(), imitated_cublas():
            yield


@pytest.mark.usefixtures("gpu")
def test_rungs_labels_and_images_of_a_step_are_the_same_integers():
    clock = Clock("cuda", CONFIG.batch_size)
    for step in (0, 1, 63, 64, 1000, 2**31):
        clock.set(step)
        here, there = stream_of(step, 7, 9, 8), stream_of(clock, 7, 9, 8)
        for _ in range(2):
            drawn = there.integers(1, 1001, (8,), clock.samples, "cuda")
            assert np.array_equal(host(drawn), here.integers(1, 1001, (8,), np.arange(8)))
        asked = [host(batch_of(s, q, 11, CONFIG, d)) for s, q, d in ((step, np.arange(8), "cpu"), (clock, clock.samples, "cuda"))]
        assert np.array_equal(*asked)
    assert isinstance(there, Philox)


@pytest.mark.usefixtures("gpu")
def test_the_first_twenty_losses_agree_to_one_in_ten_thousand_and_the_samples_to_40_decibels():
    losses, samples = {}, {}
    for device in ("cpu", "cuda"):
        loop = loop_for(awake(DIT, device=device), pictures(), CONFIG)
        losses[device] = np.array([float(host(r["loss"])) for r in loop.run()])
        loop.model.flat[...] = loop.optimiser.average
        walk = {"steps": 10, "guidance": 2.0, "step": ddim(0.3)}
        samples[device] = host(sample(loop.model, Schedule.cosine(1000), np.array([0, 1, 2]), **walk))
    assert np.abs(losses["cuda"] / losses["cpu"] - 1).max() < 1e-4
    x, y = samples.values()
    assert 10 * np.log10(np.ptp(x) ** 2 / np.mean((x - y) ** 2)) > 40
