"""The order of the batches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidit.data import batch_indices
from minidit.data.order import epoch_order

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 60), st.integers(0, 2**32))


@given(SIZES)
def test_every_epoch_visits_every_image_exactly_once(sizes):
    batch, n, seed = sizes
    steps = -(-3 * n // batch)
    sequence = np.concatenate([batch_indices(s, batch, n, seed) for s in range(steps)])
    assert sequence.dtype == np.int64
    for epoch in range(3):
        np.testing.assert_array_equal(np.sort(sequence[epoch * n : (epoch + 1) * n]), np.arange(n))


@given(SIZES, st.lists(st.integers(0, 30), min_size=2, max_size=5))
def test_a_batch_depends_on_its_step_alone(sizes, steps):
    batch, n, seed = sizes
    forwards = {s: batch_indices(s, batch, n, seed) for s in sorted(steps)}
    epoch_order.cache_clear()
    for s in reversed(steps):
        np.testing.assert_array_equal(batch_indices(s, batch, n, seed), forwards[s])


@given(SIZES)
def test_one_batch_of_two_steps_is_two_batches_of_one(sizes):
    batch, n, seed = sizes
    halves = [batch_indices(s, batch, n, seed) for s in (4, 5)]
    np.testing.assert_array_equal(batch_indices(2, 2 * batch, n, seed), np.concatenate(halves))


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [tuple(epoch_order(e, 50, seed)) for e in range(3) for seed in range(3)]
    assert len(set(orders)) == 9
    assert not epoch_order(0, 50, 0).flags.writeable, "a caller cannot change what the next one is given"


def test_what_an_author_gets_is_theirs_to_change():
    first = batch_indices(0, 4, 8, 0)
    first += 100
    assert batch_indices(0, 4, 8, 0).max() < 8


@pytest.mark.parametrize("bad", [(-1, 4, 8), (0, 0, 8), (0, 4, 0)])
def test_senseless_sizes_are_refused(bad):
    with pytest.raises(ValueError, match="needs step"):
        batch_indices(*bad, seed=0)
