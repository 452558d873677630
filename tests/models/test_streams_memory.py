"""The predicted memory of an update of an MM-DiT or a FLUX on a CPU is what is allocated, within 15 %."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from minidit.diffusion.schedule import Schedule
from minidit.models.flux import Flux, FluxConfig
from minidit.models.mmdit import MMDiT, MMDiTConfig
from minidit.processes.diffusion import Diffusion
from minidit.processes.train import loop_for
from minidit.random import Philox
from minidit.training.loop import LoopConfig
from minidit.training.memory import memory_of_step

DDPM = Diffusion.on_ladder(Schedule.linear())
MM = MMDiTConfig(16, 2, 4, 64, 3, 2, vocabulary=20, caption_length=6)
FLUX = FluxConfig(16, 2, 4, 64, 2, 3, 2, vocabulary=20, caption_length=6)
NO_WORDS = {"vocabulary": 0, "caption_length": 0}
NETS = {
    "MM-DiT": MM, "without norm": replace(MM, qk_norm=False), "dual": replace(MM, dual_attention=(0, 1, 2)),
    "one dual": replace(MM, dual_attention=(0,)), "without words": replace(MM, **NO_WORDS), "wide": replace(MM, mlp_ratio=6.0),
    "many heads": replace(MM, num_heads=8), "many words": replace(MM, caption_length=30, context_ratio=4.0), "FLUX": FLUX,
    "FLUX without words": replace(FLUX, **NO_WORDS), "single blocks": replace(FLUX, depth=0),
    "double blocks": replace(FLUX, single_depth=0), "FLUX, many words": replace(FLUX, caption_length=30),
}  # fmt: skip
AGAIN = ("MM-DiT", "without words", "dual", "FLUX", "FLUX without words")


@pytest.mark.parametrize(("net", "again"), [*((net, False) for net in NETS), *((net, True) for net in AGAIN)])
def test_the_prediction_for_a_cpu_is_what_is_allocated(net, again):
    config, r = NETS[net], np.random.default_rng(0)
    x_0 = r.standard_normal((64, *config.shape), dtype=np.float32)
    data = (x_0, r.integers(1, 20, (64, config.caption_length))) if config.vocabulary else x_0
    train = LoopConfig(steps=3, batch_size=32, shards=1, checkpoint_blocks=again)
    model = (MMDiT if isinstance(config, MMDiTConfig) else Flux)(config, Philox(0))
    tracemalloc.start()
    try:
        updates = loop_for(model, data, DDPM, train).run()
        next(updates)
        tracemalloc.reset_peak()
        next(updates)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    predicted = memory_of_step(config, train, "cpu")
    assert predicted.kept + predicted.working == pytest.approx(peak, rel=0.15)
