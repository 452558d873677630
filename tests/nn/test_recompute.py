"""Blocks that keep their inputs only: the same loss and the same gradients bit for bit, for less memory."""

from dataclasses import replace

import numpy as np
import pytest
import standin
from small import DIT, awake, pictures
from support import host

from minidit import ops
from minidit.autograd import Gradients, Tensor, no_grad
from minidit.backend import Arena, to_device
from minidit.diffusion.schedule import Schedule
from minidit.nn.recompute import recomputing, run
from minidit.processes.diffusion import Diffusion
from minidit.processes.train import loop_for
from minidit.training.loop import LoopConfig

CONFIG = LoopConfig(steps=3, batch_size=12, lr=1e-2, eps=1e-3, shards=1)
CONDITIONINGS = ("adaln_zero", "adaln", "cross_attention", "in_context")


def step_of(config, device="cpu", dtype=np.float32, **changes):
    """(loss, gradient, arena) of one training step."""
    model = awake(config, device=device, dtype=dtype)
    data = tuple(to_device(a, device) for a in pictures(config=config, dtype=dtype))
    loop = loop_for(model, data, Diffusion.on_ladder(Schedule.linear(30)), replace(CONFIG, **changes))
    record = next(loop.run())
    return float(host(record["loss"])), host(loop.buffers[0]), loop.arenas[0]


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_are_those_of_the_plain_tape_bit_for_bit(device, conditioning, dtype):
    config = replace(DIT, depth=3, conditioning=conditioning)
    loss, gradient, _ = step_of(config, device, dtype)
    again, other, _ = step_of(config, device, dtype, checkpoint_blocks=True)
    assert loss == again and np.array_equal(gradient, other) and np.abs(gradient).max() > 0


@pytest.mark.skipif(standin.raw.compiler() is None, reason="needs g++ to run kernels on the CPU")
def test_the_kernels_of_a_gpu_make_the_same_sums_up_to_rounding():
    with standin.kernels():
        plain, again = (step_of(replace(DIT, depth=2), "cuda", checkpoint_blocks=on)[:2] for on in (False, True))
    largest = np.abs(plain[1]).max()
    assert plain[0] == again[0] and np.abs(plain[1] - again[1]).max() < 1e-6 * largest  # blocks that run again are not joined


def test_several_pieces_add_up_as_they_do_without():
    config = replace(DIT, depth=2)
    plain, again = (step_of(config, shards=2, accumulate=2, checkpoint_blocks=on) for on in (False, True))
    assert plain[0] == again[0] and np.array_equal(plain[1], again[1])


def test_most_of_the_memory_between_forwards_and_backwards_is_saved():
    config = replace(DIT, input_size=16, hidden_size=64, depth=8)
    plain, again = (step_of(config, checkpoint_blocks=on)[2].nbytes for on in (False, True))
    assert again < plain / 3


def test_only_inside_and_only_where_somebody_wants_a_gradient():
    calls = []

    def f(x, y):
        calls.append(1)
        return ops.mul(x, y)

    x = Tensor(np.arange(3.0))
    run(f, x, 2.0).backward(np.ones(3))
    assert len(calls) == 1 and (x.grad == 2).all()
    with recomputing():
        with no_grad():
            assert run(f, x, 2.0).node is None  # nothing is remembered
        assert isinstance(run(f, np.ones(3), 2.0), np.ndarray)  # arrays stay arrays
        assert len(calls) == 3
        x.grad = None
        y = run(f, x, 2.0)
        assert len(calls) == 4
    y.backward(np.ones(3))
    assert len(calls) == 5 and (x.grad == 2).all()
    with recomputing(False):
        run(f, x, 2.0)
    assert len(calls) == 6


def test_shared_inputs_unused_inputs_and_parameters_get_what_is_theirs():
    w, x, unused = Tensor(np.full(3, 2.0)), Tensor(np.arange(3.0)), Tensor(np.ones(3))

    def f(a, b, c):
        return a * b * w

    with recomputing():
        y = run(f, x, x, unused)
        z = run(f, y, x, unused)
    home = np.empty(3)
    with Gradients([w.data], [home]):
        z.backward(np.ones(3))
    assert np.allclose(x.grad, 3 * x.data**2 * 4) and np.allclose(home, 4 * x.data**3) and unused.grad is None


def test_what_was_kept_is_freed_as_the_tape_runs():
    import gc
    import weakref

    x = Tensor(np.ones(4))
    with recomputing(), Arena():
        h = x * 2.0
        y = run(lambda a: a * 3.0, h)
        seen = weakref.ref(h)
        del h
        gc.collect()
        assert seen() is None  # the input is kept as an array, not with the history of its Tensor
        y.backward(np.ones(4))
    assert (x.grad == 6).all()
