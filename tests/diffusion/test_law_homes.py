"""The laws are arithmetic: they run on Tensors, and with rungs on a device the host never waits."""

import numpy as np
import pytest
import standin
from diffusion.draws import LINEAR, pictures
from hypothesis import given, settings
from support import agree, host, spec

from minidit.autograd import Tensor
from minidit.diffusion.ddim import ddim_step
from minidit.diffusion.ddpm import ddpm_step, posterior, q_sample
from minidit.diffusion.guidance import guide
from minidit.diffusion.level import enter
from minidit.diffusion.prediction import PREDICTIONS, predict_eps, predict_v, predict_x_0
from minidit.diffusion.variance import learned_range

T_OF_BATCH = np.array([3, 700])


def laws(t, s):
    """Every law of two pictures, linear in the first."""
    level = LINEAR.level(t)
    yield "D.1", lambda x, y: q_sample(x, t, y, LINEAR)
    yield "D.4", lambda x, y: predict_x_0(y, x, t, LINEAR)
    yield "D.5", lambda x, y: predict_eps(y, x, t, LINEAR)
    yield "D.10", lambda x, y: predict_v(x, y, t, LINEAR)
    yield "D.8", lambda x, y: posterior(y, x, t, s, LINEAR)[0]
    yield "D.7", lambda x, y: ddim_step(y, x, t, s, LINEAR, eta=0.5, z=y)
    yield "D.17", lambda x, y: ddpm_step(y, x, t, s, LINEAR, z=y)
    yield "G.1", lambda x, y: guide(y, x, 3.0)
    for p in PREDICTIONS.values():
        yield "D.10", lambda x, y, p=p: p.target(x, y, level) + p.pair(x, y, level)[0]


@spec("D.1", "D.4", "D.5", "D.7", "D.8", "D.10", "D.17", "G.1")
@settings(max_examples=5)
@given(pictures(3, (2, 1, 2, 2)))
def test_a_law_on_a_tensor_has_the_value_and_the_slope_of_the_law_on_arrays(xp, xs):
    x, y, bar = map(xp.asarray, xs)
    for t, s in ((700, 300), (xp.asarray(T_OF_BATCH), xp.asarray(T_OF_BATCH - 2))):
        for of, law in laws(t, s):
            leaf = Tensor(x)
            out = law(leaf, y)
            agree(out, law(x, y), bound=1e-13, of=of)
            out.backward(bar)
            slope = law(xp.ones_like(x), y) - law(xp.zeros_like(x), y)  # linear, so this is the slope
            agree(leaf.grad, host(slope) * xs[2], bound=1e-10, of=of)


def test_float32_tensors_are_never_promoted(xp):
    x, y = xp.ones((2, 1, 2, 2), dtype="float32"), xp.ones((2, 1, 2, 2), dtype="float32")
    for t, s in ((700, 300), (xp.asarray(T_OF_BATCH), xp.asarray(T_OF_BATCH - 2))):
        for _, law in laws(t, s):
            assert law(Tensor(x), y).dtype == "float32" == law(x, y).dtype
        assert learned_range(Tensor(x), t, s, LINEAR).dtype == "float32"


def test_a_tensor_passes_the_door_as_it_is():
    x = Tensor(np.ones((2, 3)))
    assert enter(x, like=np.ones((2, 3))) is x
    assert enter(np.ones(2), like=x).shape == (2, 1)


def test_rungs_on_a_device_are_not_looked_at():
    if not getattr(standin.install(), "__standin__", False):
        pytest.skip("only the stand-in counts")
    import cupy

    x, t = cupy.ones((2, 1, 2, 2)), cupy.asarray(T_OF_BATCH)
    with standin.counting() as counts:
        for _, law in laws(t, t - 2):
            law(x, x)
    assert counts.syncs == 0
