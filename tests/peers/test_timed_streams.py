"""The networks of `benchmarks.streams` in PyTorch are ours, and the shards that are timed compute what one process computes."""

import numpy as np
import pytest

pytest.importorskip("torch")

from support import spec

from benchmarks.streams import Ours, Theirs, farthest, inputs, networks


@spec("T.22", "T.27", "T.33", "T.34")
@pytest.mark.parametrize("name", ["words", "flux-words", "clips", "clips-full", "clips-factor"])
def test_what_is_timed_beside_pytorch_is_the_same_function_with_the_same_gradients(name):
    model, peer = networks(name)
    data = inputs(model, 3)
    theirs = Theirs(peer, data, model.null(data[2]))
    with Ours(model, data, 1) as alone, Ours(model, data, 2) as shards:
        for ours in (alone, shards):
            gradients, guided_steps = farthest(ours, theirs)
            assert gradients < 3e-5
            assert guided_steps < 3e-6
        np.testing.assert_allclose(shards.flats[0], alone.flats[0], atol=1e-5 * np.abs(alone.flats[0]).max())
