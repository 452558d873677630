"""Augmentation: mirrored and shifted pictures, the same for every number of shards and after a resumption."""

from dataclasses import replace

import numpy as np
import pytest
import standin
from hypothesis import given
from hypothesis import strategies as st
from small import DIT, awake, losses_of, pictures
from standin.cublas import imitated_cublas
from support import host

from minidit.backend import to_device
from minidit.diffusion.schedule import Schedule
from minidit.processes.diffusion import Diffusion
from minidit.processes.train import loop_for
from minidit.training.augment import FLIP, NOTHING, STREAM, Augment, flips, reflected
from minidit.training.draws import Draws
from minidit.training.loop import LoopConfig
from minidit.training.source import Augmented, Pictures

CUPY = standin.install()
REAL = not getattr(CUPY, "__standin__", False)
CONFIG = LoopConfig(steps=5, batch_size=6, lr=1e-2, warmup=2, shards=2)
PROCESS = Diffusion.on_ladder(Schedule.linear(30))


def draws(n=64, update=3, samples=None, **more):
    return Draws(5, 9, np.arange(n) if samples is None else np.asarray(samples), per=8, when=update, batch_size=n, **more)


def numbered(n=64, H=5, W=7):
    """Pictures all of whose pixels differ."""
    return np.arange(n * 2 * H * W, dtype=np.float32).reshape(n, 2, H, W)


def test_a_mirrored_picture_is_the_picture_from_right_to_left_and_half_of_them_are():
    x, mirrored = numbered(4000), flips(draws(4000))
    y = Augment(flip=True)(x, draws(4000))
    assert np.array_equal(y[mirrored], x[mirrored][..., ::-1]) and np.array_equal(y[~mirrored], x[~mirrored])
    assert abs(mirrored.mean() - 0.5) < 4 * 0.5 / 4000**0.5


@given(st.integers(1, 9), st.integers(-8, 16))
def test_indices_are_reflected_as_numpy_pads(n, k):
    if -n < k < 2 * n - 1:
        assert reflected(np.array(k), n) == np.pad(np.arange(n), n - 1, mode="reflect")[k + n - 1]


@given(st.integers(1, 4))
def test_a_shifted_picture_is_a_crop_of_the_padded_one(N):
    x = numbered(200)
    y, mine = Augment(crop=N)(x, draws(200)), replace(draws(200), stream=9 ^ STREAM, per=3, taken=set())
    down, right = (mine.integers(-N, N + 1, number=k) for k in (1, 2))
    padded = np.pad(x, ((0, 0), (0, 0), (N, N), (N, N)), mode="reflect")
    for b in range(200):
        i, j = N + down[b], N + right[b]
        assert np.array_equal(y[b], padded[b, :, i : i + 5, j : j + 7])
    assert set(down) == set(right) == set(range(-N, N + 1)) and (down != right).any()


@given(st.permutations(range(12)), st.integers(1, 11), st.booleans(), st.integers(0, 4))
def test_a_sample_is_changed_alike_in_every_shard(order, cut, flip, crop):
    x, augment = numbered(12), Augment(flip, crop)
    whole = augment(x, draws(12))
    for part in (np.asarray(order[:cut]), np.asarray(order[cut:])):
        assert np.array_equal(augment(x[part], draws(12, samples=part)), whole[part])


def test_another_update_and_another_process_draw_anew():
    x, augment = numbered(), Augment(True, 2)
    first = augment(x, draws())
    assert np.array_equal(first, augment(x, draws()))
    assert not np.array_equal(first, augment(x, draws(update=4)))
    assert not np.array_equal(first, augment(x, replace(draws(), stream=10)))


def test_augmentation_takes_no_draw_of_the_process_and_leaves_labels_alone():
    x, labels = pictures(9)
    plain = loop_for(awake(), Pictures(x, labels), PROCESS, CONFIG)
    same = loop_for(awake(), Augmented(Pictures(x, labels), Augment(crop=0)), PROCESS, CONFIG)
    other = loop_for(awake(), Augmented(Pictures(x, labels), Augment(True, 1)), PROCESS, CONFIG)
    questions = [seen(loop) for loop in (plain, same, other)]
    for a, b in ((0, 1), (0, 2)):
        assert np.array_equal(questions[a]["t"], questions[b]["t"]) and np.array_equal(questions[a]["y"], questions[b]["y"])
    assert np.array_equal(questions[0]["x_t"], questions[1]["x_t"])
    noise = [q["x_t"] - 0 for q in questions]
    assert not np.array_equal(noise[0], noise[2]) and not NOTHING and Augment(True) and Augment(crop=1)


def seen(loop):
    """What the network of a loop is shown at update 2."""
    shown = {}

    class Network:
        def __call__(self, x_t, t, y=None):
            shown.update(x_t=np.array(x_t), t=np.array(t), y=np.array(y))
            return loop.model(x_t, t, y)

    losses_of(loop, 2, network=Network())
    return shown


def trained(device="cpu", **changes):
    x, labels = (to_device(a, device) for a in pictures(9))
    source = Augmented(Pictures(x, labels), Augment(True, 1))
    loop = loop_for(awake(device=device), source, PROCESS, replace(CONFIG, **changes))
    return [float(host(r["loss"])) for r in loop.run()], host(loop.model.flat)


def test_a_resumed_run_sees_the_augmented_pictures_that_it_would_have_seen():
    x, labels = pictures(9)
    source = Augmented(Pictures(x, labels), Augment(True, 1))
    first = loop_for(awake(), source, PROCESS, CONFIG)
    losses = []
    for record in first.run():
        losses.append(record["loss"])
        first.stop = record["step"] == 3
    second = loop_for(awake(), source, PROCESS, CONFIG)
    second.model.flat[...] = first.model.flat
    second.optimiser.load_state_dict(first.optimiser.state_dict())
    second.done = first.done
    losses += [r["loss"] for r in second.run()]
    assert losses == trained()[0] and np.array_equal(second.model.flat, trained()[1])


@pytest.mark.skipif(REAL or standin.raw.compiler() is None, reason="the stand-in, and g++ to run kernels on the CPU")
def test_a_recorded_update_augments_as_the_host_does(caplog):
    with standin.kernels(), imitated_cublas():
        (recorded, theta), (eager, other) = trained("cuda"), trained("cuda", graph=False)
        x = numbered(12)
        there = Draws(5, 9, CUPY.arange(12), "cuda", per=8, when=3, batch_size=12)
        assert np.array_equal(host(Augment(True, 2)(CUPY.asarray(x), there)), Augment(True, 2)(x, draws(12)))
    assert recorded == eager and np.array_equal(theta, other) and caplog.messages == []
    assert np.allclose(recorded, trained()[0], rtol=1e-4)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="crop = -1"):
        Augment(crop=-1)
    Augment(crop=7).check((8, 9))
    with pytest.raises(ValueError, match="--crop 8: pictures of 8 x 9 are shifted by less than their size"):
        Augment(crop=8).check((8, 9))


def test_the_flips_are_a_fixed_number_of_the_stream():
    mine = replace(draws(), stream=9 ^ STREAM, per=3, taken=set())
    assert np.array_equal(flips(draws()), mine.uniform(number=FLIP) < 0.5) and DIT.num_classes == 3
