"""Draws: which number of the stream is drawn when, the same on the host and where a device counts the updates."""

import numpy as np
import pytest
import standin
from standin.cublas import imitated_cublas
from support import agree, host, spec

from minidit.data import batch_indices
from minidit.random import Philox
from minidit.training.draws import LABEL, Clock, Draws
from minidit.training.source import POSTERIOR, LabelDropout, Latents, Pictures, Unlabelled

CUPY = standin.install()
REAL = not getattr(CUPY, "__standin__", False)
STREAM, PER = 9, 8


def draws(samples=range(4), update=0, **more):
    return Draws(5, STREAM, np.asarray(samples), dtype=np.float64, per=PER, when=update, **more)


def numbered(k, samples=range(4)):
    """Four uniforms: number k of the stream."""
    return Philox(5, STREAM, state=k).uniform((len(samples),), np.asarray(samples))


@spec("R.5")
def test_a_draw_without_a_number_takes_the_lowest_that_is_free():
    d = draws(update=3)
    first, label, second, third = d.uniform(), d.uniform(number=LABEL), d.uniform(), d.uniform()
    for u, k in ((first, 0), (label, 1), (second, 2), (third, 3)):
        assert np.array_equal(u, numbered(3 * PER + k))
    other = draws(update=3)
    other.uniform(number=POSTERIOR)
    assert np.array_equal(other.uniform(), first)  # number 1 is kept for labels, also where nobody drops them
    assert np.array_equal(other.uniform(), third)  # number 2 is the posterior's


def test_a_number_that_is_taken_or_belongs_to_the_next_update_is_refused():
    d = draws(update=3)
    d.uniform(number=2)
    for number in (2, PER):
        with pytest.raises(ValueError, match=f"draw {number} of {PER}"):
            d.uniform(number=number)


def test_an_update_may_be_any_whole_number():
    assert np.array_equal(draws(update=np.int64(3)).uniform(), draws(update=3).uniform())


@spec("R.5")
def test_a_fixed_number_is_the_same_draw_whatever_was_drawn_before():
    early, late = draws(update=2), draws(update=2)
    late.normal((4, 3))
    late.integers(0, 9, number=4)
    assert (LABEL, POSTERIOR) == (1, 2)  # files of states and the numbers of earlier versions rest on these
    for number in (LABEL, POSTERIOR):
        assert np.array_equal(early.uniform(number=number), late.uniform(number=number))


@spec("R.5")
def test_another_update_begins_anew_and_other_samples_have_their_own_numbers():
    d = draws(update=1)
    d.uniform()
    again, later, part = d.at(1), d.at(2), d.at(1, np.array([2, 3]))
    assert np.array_equal(again.uniform(), numbered(PER)) and np.array_equal(later.uniform(), numbered(2 * PER))
    assert np.array_equal(part.uniform(), numbered(PER)[2:])
    z = Philox(5, STREAM, state=PER + 2).normal((2, 3), np.array([2, 3]), dtype=np.float64)
    assert np.array_equal(part.normal((2, 3)), z)


def test_a_batch_is_a_piece_of_the_endless_order_and_a_sample_its_place_in_it():
    whole = draws(range(6), 7, batch_size=6).pictures(10)
    assert np.array_equal(whole, batch_indices(7, 6, 10, 5))
    assert np.array_equal(draws([1, 4], 7, batch_size=6).pictures(10), whole[[1, 4]])


@pytest.mark.skipif(REAL or standin.raw.compiler() is None, reason="the stand-in, and g++ to run kernels on the CPU")
def test_a_clock_on_the_device_draws_what_the_host_draws():
    with standin.kernels(), imitated_cublas():
        clock = Clock("cuda", 4)
        for update in (0, 1, 63, 64, 65):
            clock.set(update)
            wide = {"dtype": np.float64}
            for name, args, more in (("integers", (1, 1001), {}), ("uniform", (), {}), ("uniform", (), wide),
                                     ("normal", ((4, 2, 3),), {})):  # fmt: skip
                here = Draws(5, STREAM, np.arange(4), per=PER, when=update, batch_size=4)
                there = Draws(5, STREAM, clock.samples, "cuda", per=PER, when=clock, batch_size=4)
                for number in (None, LABEL + 2):
                    mine, other = (getattr(d, name)(*args, number=number, **more) for d in (here, there))
                    agree(other, mine, bound=2.0**-22)
                    assert name == "normal" or np.array_equal(host(other), mine)
            assert np.array_equal(host(there.pictures(11)), here.pictures(11))


# ------------------------------------------------------------------------------------------------ sources


def pictures(n=6):
    x_0 = Philox(1).normal((n, 1, 2, 2), dtype=np.float64)
    return Pictures(x_0, np.arange(n) % 3, 17)


@spec("G.7")
def test_a_source_that_leaves_labels_out_changes_nothing_else(device):
    source, n = LabelDropout(pictures(), 0.25, 3), 8000
    index = np.arange(n) % 6
    x_0, y = source.draw(index, draws(range(n)))
    plain, labels = pictures().draw(index, draws(range(n)))
    assert np.array_equal(x_0, plain) and (len(source), source.levels) == (6, 17)
    assert np.array_equal(source.labels, pictures().labels)
    out = Philox(5, STREAM, state=LABEL).uniform((n,), np.arange(n)) < 0.25
    assert np.array_equal(y, np.where(out, 3, labels))
    assert abs(out.mean() - 0.25) < 4 * (0.25 * 0.75 / n) ** 0.5
    some = np.array([5, 17, 90])
    assert np.array_equal(source.draw(index[some], draws(some))[1], y[some])  # a piece of the batch: the same decisions


class Shifted(Pictures):
    """Pictures that take a draw of their own."""

    def draw(self, index, draws):
        shift = draws.uniform()
        x_0, y = super().draw(index, draws)
        return x_0 + shift.reshape(-1, 1, 1, 1), y


def test_the_labels_that_are_left_out_do_not_depend_on_what_the_pictures_drew():
    x_0, labels, index = pictures().x_0, pictures().labels, np.arange(6)
    sources = pictures(), Latents(x_0, np.ones_like(x_0), 2.0, labels), Shifted(x_0, labels)
    left = [LabelDropout(source, 0.5, 3).draw(index, draws(range(6), 4))[1] for source in sources]
    assert np.array_equal(left[0], left[1]) and np.array_equal(left[0], left[2])
    dropped = left[0] == 3
    assert dropped.any() and np.array_equal(left[0][~dropped], labels[~dropped]) and not dropped.all()


def test_a_source_without_labels_is_the_same_pictures():
    source = Unlabelled(pictures())
    x_0, y = source.draw(np.array([4, 0]), draws(range(2)))
    assert y is None and source.labels is None and (len(source), source.levels) == (6, 17)
    assert np.array_equal(x_0, pictures().x_0[[4, 0]])
