"""A U-Net on a GPU: an update is recorded and replayed, and is the update of the plain text; a KL autoencoder runs there too."""

from dataclasses import replace

import numpy as np
import pytest
import standin
from standin.cublas import imitated_cublas
from support import agree, host, spec

from minidit.autograd import plain_text
from minidit.diffusion.schedule import Schedule
from minidit.kernels import cuda_graph
from minidit.models.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from minidit.models.unet import UNet, UNetConfig
from minidit.processes.diffusion import Diffusion
from minidit.processes.train import loop_for
from minidit.random import Philox
from minidit.training.loop import LoopConfig

CUPY = standin.install()
REAL = not getattr(CUPY, "__standin__", False)
pytestmark = pytest.mark.skipif(REAL or standin.raw.compiler() is None, reason="the stand-in, and g++ to run kernels on the CPU")
SMALL = UNetConfig(input_size=4, in_channels=2, widths=(4, 8), blocks=1, groups=2, num_classes=3)
TRAIN = LoopConfig(steps=4, batch_size=3, lr=1e-2, clip=0.5, eps=1e-3)
DDPM = Diffusion.on_ladder(Schedule.linear(30))


@pytest.fixture(autouse=True)
def a_gpu():
    cuda_graph.explain.cache_clear()
    with standin.kernels(), imitated_cublas():
        yield


def trained(config, **changes):
    """(losses, weights) of a short run; the first weights are drawn so that no gradient is zero."""
    model = UNet(config, Philox(3), device="cuda")
    model.flat[...] = CUPY.asarray(0.1 * np.random.default_rng(0).standard_normal(model.layout.size).astype(np.float32))
    r = np.random.default_rng(1)
    data = r.standard_normal((9, 2, 4, 4)).astype(np.float32), r.integers(0, 3, 9)
    loop = loop_for(model, data, DDPM, replace(TRAIN, **changes))
    return [host(record["loss"]) for record in loop.run()], host(model.flat)


@spec("A.17", "A.23", "T.16", "T.17")
@pytest.mark.parametrize("more", [{}, {"resample": "resnet", "scale_shift": True, "head_width": 2}])
def test_an_update_of_a_u_net_is_recorded_bit_for_bit_and_is_the_plain_one(more, caplog):
    config = replace(SMALL, **more)
    losses, weights = trained(config)
    eager = trained(config, graph=False)
    assert caplog.messages == []
    assert losses == eager[0] and np.array_equal(weights, eager[1])
    with plain_text():
        expected = trained(config, graph=False)
    agree(np.asarray(losses), np.asarray(expected[0]), bound=1e-5)
    agree(weights, expected[1], bound=1e-5)


def test_a_replayed_update_is_one_launch_and_nobody_waits():
    model = UNet(SMALL, Philox(3), device="cuda")
    loop = loop_for(model, (np.zeros((9, 2, 4, 4), np.float32), np.zeros(9, int)), DDPM, TRAIN)
    steps = loop.run()
    next(steps)
    next(steps)
    with standin.counting() as spent:
        next(steps)
    assert spent.syncs == spent.uploads == 0 and 0 < spent.launches <= 2


@spec("A.23", "L.7")
def test_a_kl_autoencoder_encodes_on_a_gpu_what_it_encodes_here():
    config = AutoencoderKLConfig(channels=3, widths=(4, 8), blocks=1, groups=2)
    model, there = (AutoencoderKL(config, Philox(1), device=device) for device in ("cpu", "cuda"))
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 6)).astype(np.float32)
    for a, b in zip(model.encode(x), there.encode(CUPY.asarray(x)), strict=True):
        agree(host(getattr(b, "data", b)), getattr(a, "data", a), bound=1e-5, of=("A.23", "L.7"))
