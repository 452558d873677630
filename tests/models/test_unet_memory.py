"""The predicted memory of a U-Net's update is what is allocated, within 15 %."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import standin
from standin import core, cublas

from minidit.diffusion.schedule import Schedule
from minidit.models.unet import UNet, UNetConfig
from minidit.processes.diffusion import Diffusion
from minidit.processes.train import loop_for
from minidit.random import Philox
from minidit.training.loop import LoopConfig
from minidit.training.memory import memory_of_step

CUPY = standin.install()
KERNELS = pytest.mark.skipif(
    not getattr(CUPY, "__standin__", False) or standin.raw.compiler() is None, reason="the stand-in, and g++ to run kernels"
)
NET = UNetConfig(input_size=8, in_channels=4, widths=(16, 32), blocks=2, groups=8, num_classes=5)
NETS = {
    "as it is": {}, "wide": {"widths": (32, 64)}, "large pictures": {"input_size": 16}, "scaled": {"scale_shift": True},
    "three sizes": {"widths": (16, 32, 32)}, "no attention": {"attention": (), "middle_attention": False},
    "many heads": {"attention": (0, 1), "head_width": 4}, "blocks that halve": {"resample": "resnet"},
}  # fmt: skip
DDPM = Diffusion.on_ladder(Schedule.linear())


def second_update(config, train, device, before):
    r = np.random.default_rng(0)
    data = r.standard_normal((64, *config.shape), dtype=np.float32), r.integers(0, 5, 64)
    updates = loop_for(UNet(config, Philox(0), device=device), data, DDPM, train).run()
    next(updates)
    before()
    next(updates)


@pytest.mark.parametrize(("net", "again"), [*((net, False) for net in NETS), ("as it is", True), ("large pictures", True)])
def test_the_prediction_for_a_cpu_is_what_is_allocated(net, again):
    config = replace(NET, **NETS[net])
    train = LoopConfig(steps=3, batch_size=32, shards=1, checkpoint_blocks=again)
    tracemalloc.start()
    try:
        second_update(config, train, "cpu", tracemalloc.reset_peak)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    predicted = memory_of_step(config, train, "cpu")
    assert predicted.kept + predicted.working == pytest.approx(peak, rel=0.15)


@KERNELS
@pytest.mark.parametrize(("net", "again"), [("as it is", False), ("scaled", False), ("as it is", True)])
def test_the_prediction_for_a_gpu_is_what_its_kernels_are_given(net, again, monkeypatch):
    most, config = [0], replace(NET, **NETS[net])
    train = LoopConfig(steps=3, batch_size=4, shards=1, graph=False, checkpoint_blocks=again)

    class Memory(core.Memory):
        def __init__(self, nbytes):
            super().__init__(nbytes)
            most[0] = max(most[0], core.Device.used)

    monkeypatch.setattr(core, "Memory", Memory)

    def before():
        most[:] = [0, core.Device.used]

    with standin.kernels(), cublas.imitated_cublas():
        second_update(config, train, "cuda", before)
    predicted = memory_of_step(config, train, "cuda")
    assert predicted.kept + predicted.working == pytest.approx(most[0] - most[1], rel=0.15)
