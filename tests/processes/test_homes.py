"""The same seed on NumPy and on CuPy: the same integers, the same losses, the same pictures up to rounding."""

import numpy as np
import pytest
import standin
from small import DIT, awake, pictures
from standin.cublas import imitated_cublas
from support import host

from minidit.diffusion.fresh import ddim
from minidit.diffusion.schedule import Schedule
from minidit.processes.diffusion import Diffusion
from minidit.processes.sample import sample
from minidit.processes.train import loop_for
from minidit.training.draws import Clock, Draws
from minidit.training.loop import LoopConfig

CUPY = standin.install()
REAL = not getattr(CUPY, "__standin__", False)
CONFIG = LoopConfig(steps=20, batch_size=8, lr=3e-3, warmup=4, clip=1.0, weight_decay=0.01, ema=0.9, seed=5)
PATH = Schedule.cosine(1000)


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
def test_rungs_labels_and_images_of_an_update_are_the_same_integers():
    clock = Clock("cuda", CONFIG.batch_size)
    for update in (0, 1, 63, 64, 1000, 2**31):
        clock.set(update)
        here = Draws(7, 9, np.arange(8), per=8, when=update, batch_size=8)
        there = Draws(7, 9, clock.samples, "cuda", per=8, when=clock, batch_size=8)
        for _ in range(2):
            assert np.array_equal(host(there.integers(1, 1001)), here.integers(1, 1001))
        assert np.array_equal(host(there.uniform(number=5)), here.uniform(number=5))
        assert np.array_equal(host(there.pictures(11)), here.pictures(11))
        some = np.array([1, 6])  # a piece of the batch
        pieces = here.at(update, some), there.at(clock, CUPY.asarray(some))
        assert np.array_equal(*(host(d.pictures(11)) for d in pieces))
        assert np.array_equal(*(host(d.integers(1, 1001)) for d in pieces))


@pytest.mark.usefixtures("gpu")
def test_the_first_twenty_losses_agree_to_one_in_ten_thousand_and_the_samples_to_40_decibels():
    losses, samples = {}, {}
    for device in ("cpu", "cuda"):
        loop = loop_for(awake(DIT, device=device), pictures(), Diffusion.on_ladder(PATH), CONFIG)
        losses[device] = np.array([float(host(r["loss"])) for r in loop.run()])
        loop.model.flat[...] = loop.optimiser.average
        walk = {"steps": 10, "guidance": 2.0, "fresh": ddim(0.3)}
        samples[device] = host(sample(loop.model, PATH, np.array([0, 1, 2]), **walk))
    assert np.abs(losses["cuda"] / losses["cpu"] - 1).max() < 1e-4
    x, y = samples.values()
    assert 10 * np.log10(np.ptp(x) ** 2 / np.mean((x - y) ** 2)) > 40
