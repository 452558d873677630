"""MM-DiT and FLUX on a GPU: an update is recorded, bit for bit the update that was not, and close to that of a CPU."""

import numpy as np
import pytest
import standin
from standin.cublas import imitated_cublas
from support import host

from minidit.diffusion.schedule import Schedule
from minidit.kernels import cuda_graph
from minidit.models.flux import Flux, FluxConfig
from minidit.models.mmdit import MMDiT, MMDiTConfig
from minidit.processes.diffusion import Diffusion
from minidit.processes.train import loop_for
from minidit.random import Philox
from minidit.training.loop import LoopConfig

CUPY = standin.install()
REAL = not getattr(CUPY, "__standin__", False)
pytestmark = pytest.mark.skipif(REAL or standin.raw.compiler() is None, reason="the stand-in, and g++ to run kernels on the CPU")
WORDS = {"vocabulary": 9, "caption_length": 3}
NETWORKS = {
    "words": MMDiTConfig(4, 2, 1, 32, 2, 2, **WORDS), "dual": MMDiTConfig(4, 2, 1, 32, 2, 2, dual_attention=(0,), **WORDS),
    "without norm": MMDiTConfig(4, 2, 1, 32, 2, 2, qk_norm=False, **WORDS),
    "FLUX": FluxConfig(4, 2, 1, 32, 1, 1, 2, **WORDS),
}  # fmt: skip


@pytest.fixture(autouse=True)
def a_gpu():
    cuda_graph.explain.cache_clear()
    with standin.kernels(), imitated_cublas():
        yield


def trained(config, device, **changes):
    model = (MMDiT if isinstance(config, MMDiTConfig) else Flux)(config, Philox(1), device=device)
    r = np.random.default_rng(0)
    there = np.asarray if device == "cpu" else CUPY.asarray
    for p in model.parameters():
        p.data[...] += there(0.1 * r.standard_normal(p.data.shape).astype(np.float32))
    data = r.standard_normal((11, *config.shape), dtype=np.float32), r.integers(1, 9, (11, 3))
    train = LoopConfig(steps=4, batch_size=6, lr=1e-3, warmup=2, clip=0.5, ema=0.9, eps=1e-3, **changes)
    losses = [float(host(r["loss"])) for r in loop_for(model, data, Diffusion.on_ladder(Schedule.linear(30)), train).run()]
    return losses, host(model.flat)


@pytest.mark.parametrize("name", NETWORKS)
def test_an_update_is_recorded_bit_for_bit_and_is_that_of_a_cpu(name, caplog):
    losses, weights = trained(NETWORKS[name], "cuda")
    assert caplog.messages == []
    same, also = trained(NETWORKS[name], "cuda", graph=False)
    assert losses == same and np.array_equal(weights, also)
    other, _ = trained(NETWORKS[name], "cpu", shards=1)
    assert losses == pytest.approx(other, rel=1e-4)


def test_tokens_stay_float32_in_bf16(caplog):
    """The gains of QK-norm are float32; the factors of the products are rounded."""
    pytest.importorskip("ml_dtypes")
    losses, _ = trained(NETWORKS["FLUX"], "cuda", precision="bf16")
    assert caplog.messages == [] and losses == pytest.approx(trained(NETWORKS["FLUX"], "cuda")[0], rel=0.05)
