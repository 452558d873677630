"""Chapter Q: the nearest code, the gradients around it, codes in use, running means, and FSQ."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import agree, host, spec

from minidit import ops
from minidit.autograd import Tensor
from minidit.autoregressive import quantize as q


def drawn(seed, *shapes):
    r = np.random.default_rng(seed)
    return [r.normal(size=s) for s in shapes]


SEEDS = st.integers(0, 2**32 - 1)


@spec("Q.1")
@given(SEEDS, st.integers(1, 9), st.integers(1, 4))
def test_the_nearest_code_is_that_of_the_smallest_distance_and_a_code_is_its_own(xp, seed, K, d):
    z, codes = drawn(seed, (3, 5, d), (K, d))
    index = host(q.nearest(xp.asarray(z), xp.asarray(codes)))
    assert index.dtype == np.int64
    assert np.array_equal(index, ((z[..., None, :] - codes) ** 2).sum(-1).argmin(-1))
    assert np.array_equal(host(q.nearest(xp.asarray(codes), xp.asarray(codes))), np.arange(K))  # quantising twice is once


def test_of_equal_codes_the_first_is_taken():
    assert q.nearest(np.ones((1, 2)), np.ones((3, 2))).tolist() == [0]


@spec("Q.2")
@given(SEEDS)
def test_the_straight_through_value_is_the_code_to_the_bit_and_its_gradient_that_of_the_vector(seed):
    z, code, bar = drawn(seed, (2, 3), (2, 3), (2, 3))
    x = Tensor(1e3 * z)
    y = q.straight_through(x, code)
    assert np.array_equal(host(y), code)
    (y * bar).sum().backward()
    assert np.array_equal(x.grad, bar)


@spec("Q.3")
@given(SEEDS, st.floats(0, 2))
def test_codes_are_drawn_to_their_vectors_and_vectors_by_beta_to_their_codes(seed, beta):
    """With the numbers of one sample n: ē_k = (2/n) Σ_{i→k} (e_k - z_i), z̄ = β (2/n) (z - e), and nothing else."""
    z, codes = drawn(seed, (1, 6, 2), (3, 2))
    index = q.nearest(z, codes)
    x, e = Tensor(z), Tensor(codes)
    q.codebook_loss(x, ops.embedding(e, index=index), beta).sum().backward()
    for k in range(3):
        agree(e.grad[k], 2 / z.size * (codes[k] - z[0][index[0] == k]).sum(axis=0), bound=1e-14, of="Q.3")
    agree(x.grad, beta * 2 / z.size * (z - codes[index]), bound=1e-14, of="Q.3")


@spec("Q.4")
@given(SEEDS, st.floats(1e-3, 1e3))
def test_on_the_sphere_the_length_is_no_matter_and_codes_move_along_it(seed, length):
    z, codes, bar = drawn(seed, (4, 3), (5, 3), (5, 3))
    on, unit = q.on_sphere(codes), q.on_sphere(z)
    agree((on * on).sum(-1), np.ones(5), bound=1e-12, of="Q.4")
    agree(((unit[:, None] - on) ** 2).sum(-1), 2 - 2 * unit @ on.T, bound=1e-12, of="Q.4")
    assert np.array_equal(q.nearest(unit, on), q.nearest(q.on_sphere(length * z), on))
    e = Tensor(codes)
    (q.on_sphere(e) * bar).sum().backward()
    agree((e.grad * codes).sum(-1), np.zeros(5), bound=1e-12, of="Q.4")


@spec("Q.5")
@given(st.lists(st.integers(0, 50), min_size=1, max_size=9).filter(any))
def test_perplexity_lies_between_one_and_the_number_of_codes_in_use(used):
    n, live = q.perplexity(np.array(used)), sum(c > 0 for c in used)
    assert 1 - 1e-12 <= n <= live + 1e-9
    agree(q.perplexity(np.array([7] * 5 + [0] * 3)), 5.0, bound=1e-14, of="Q.5")
    agree(n, math.exp(-sum(c / sum(used) * math.log(c / sum(used)) for c in used if c)), bound=1e-12, of="Q.5")


@spec("Q.6", "Q.7")
@given(SEEDS, st.floats(0, 0.99))
def test_running_means_rest_where_k_means_rests(xp, seed, decay):
    z, codes = (xp.asarray(a) for a in drawn(seed, (40, 2), (4, 2)))
    for _ in range(60):
        codes = q.k_means_round(z, codes)
    index = q.nearest(z, codes)
    assert np.array_equal(host(q.counts(index, 4)), np.bincount(host(index), minlength=4))
    n, s = q.running_means(xp.zeros(4), xp.zeros((4, 2)), z, index, 0.0)
    live = host(n) > 0
    agree(host(s)[live] / host(n)[live][:, None], host(codes)[live], bound=1e-12, of="Q.7")
    n2, s2 = q.running_means(n, s, z, index, decay)
    agree(n2, host(n), bound=1e-12, of="Q.6")
    agree(s2, host(s), bound=1e-12, of="Q.6")


@spec("Q.7")
@given(SEEDS)
def test_a_round_of_k_means_never_makes_the_error_larger(seed):
    z, codes = drawn(seed, (30, 3), (5, 3))
    error = lambda e: ((z - e[q.nearest(z, e)]) ** 2).sum()
    assert error(q.k_means_round(z, codes)) <= error(codes) * (1 + 1e-12)


LEVELS = st.lists(st.integers(2, 6), min_size=1, max_size=4)


@spec("Q.8")
@given(LEVELS)
def test_every_vector_of_whole_numbers_has_one_number_and_comes_back(xp, levels):
    """By hand for (3, 2): -1, 0, 1 and -1, 0 in the order 0 .. 5, the first channel fastest."""
    index = xp.arange(math.prod(levels)).reshape(1, -1)
    v = q.vector_of(index, levels, np.float64)
    assert np.array_equal(host(q.number_of(v, levels)), host(index))
    assert len(np.unique(host(v)[0], axis=0)) == math.prod(levels)
    by_hand = [[-1, -1], [0, -1], [1, -1], [-1, 0], [0, 0], [1, 0]]
    assert q.vector_of(np.arange(6), (3, 2)).tolist() == by_hand


@spec("Q.8")
@given(SEEDS, LEVELS, st.floats(0.1, 1e3))
def test_rounding_reaches_all_levels_and_no_others(seed, levels, spread):
    (z,) = drawn(seed, (50, len(levels)))
    v = q.rounded(spread * z, levels)
    index = q.number_of(v, levels)
    assert index.min() >= 0 and index.max() < math.prod(levels)
    assert np.array_equal(v, q.vector_of(index, levels, v.dtype))
    agree(q.bounded(np.zeros((1, len(levels))), levels), np.zeros((1, len(levels))), bound=1e-15, of="Q.8")
    for k, L in enumerate(levels):
        line = np.zeros((4001, len(levels)))
        line[:, k] = np.linspace(-9, 9, 4001)
        assert len(np.unique(q.rounded(line, levels)[:, k])) == L


@spec("Q.8")
@given(SEEDS, LEVELS)
def test_the_gradient_of_rounding_is_that_of_the_bounded_vector(seed, levels):
    z, bar = drawn(seed, (2, len(levels)), (2, len(levels)))
    x, half = Tensor(z), np.array([L // 2 for L in levels])
    (q.rounded(x, levels) * bar).sum().backward()
    y = Tensor(z)
    (q.bounded(y, levels) / half * bar).sum().backward()
    agree(x.grad, y.grad, bound=1e-14, of="Q.8")


@pytest.mark.parametrize("levels", list(itertools.product((2, 3, 5), repeat=2)))
def test_codes_in_use_never_exceed_the_product_of_levels(levels):
    assert q.number_of(np.ones((1, 2)) * [(L - 1) // 2 / (L // 2) for L in levels], levels).tolist() == [math.prod(levels) - 1]
