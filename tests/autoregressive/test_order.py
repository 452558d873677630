"""Chapter Q: groups, what they see, what they cost, and what independence costs."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from support import agree, spec

from minidit.autoregressive.order import Order, by_scale, raster, total_correlation

GROUPS = st.lists(st.integers(1, 5), min_size=1, max_size=6).map(tuple)


@spec("Q.14", "Q.15")
@given(GROUPS)
def test_a_token_sees_its_own_group_and_all_before_it(groups):
    order = Order(groups)
    group, see = order.group_of, order.visible
    assert (order.tokens, order.passes) == (sum(groups), len(groups)) == (len(group), group[-1] + 1)
    for i in range(order.tokens):
        assert see[i].tolist() == [g <= group[i] for g in group]
    assert np.array_equal(see[order.ends[0] - 1, : order.ends[0]], np.ones(order.ends[0], bool))


@spec("Q.15")
def test_scales_of_one_token_each_are_the_causal_mask():
    assert np.array_equal(raster(5).visible, np.tril(np.ones((5, 5), bool))) and by_scale((1, 1, 1)) == raster(3)


@spec("Q.16")
@given(GROUPS)
def test_pairs_are_the_entries_that_the_mask_lets_through(groups):
    order = Order(groups)
    assert order.pairs() == order.visible.sum()
    assert order.pairs(cached=False) == sum(e * e for e in order.ends)


@spec("Q.16")
def test_four_scales_make_more_pairs_than_sixty_four_single_tokens():
    """The numbers of the papers' sizes: VAR's ten scales against a raster of 16 × 16, and both at 8 × 8."""
    var = by_scale((1, 2, 3, 4, 5, 6, 8, 10, 13, 16))
    assert (var.tokens, var.passes, var.pairs(), var.pairs(cached=False)) == (680, 10, 286_434, 743_654)
    assert (raster(256).pairs(), raster(256).pairs(cached=False)) == (32_896, 5_625_216)
    assert (by_scale((1, 2, 4, 8)).pairs(), by_scale((1, 2, 3, 4, 6, 8)).pairs(), raster(64).pairs()) == (5797, 11323, 2080)


@spec("Q.17")
def test_two_equal_bits_cost_one_bit_if_they_are_drawn_at_once():
    agree(total_correlation(np.array([[0.5, 0.0], [0.0, 0.5]])), math.log(2), bound=1e-15, of="Q.17")


@spec("Q.17")
@given(st.integers(0, 2**32 - 1))
def test_independence_costs_nothing_for_independent_tokens_and_never_pays(seed):
    r = np.random.default_rng(seed)
    a, b = r.dirichlet(np.ones(3)), r.dirichlet(np.ones(4))
    agree(total_correlation(a[:, None] * b), 0.0, bound=1e-13, of="Q.17")
    assert total_correlation(r.dirichlet(np.ones(12)).reshape(3, 2, 2)) >= -1e-13


@spec("Q.17")
@given(st.integers(0, 2**32 - 1))
def test_the_best_likelihood_of_tokens_drawn_at_once_exceeds_the_truth_by_the_total_correlation(seed):
    p = np.random.default_rng(seed).dirichlet(np.ones(6)).reshape(2, 3)
    best = p.sum(1)[:, None] * p.sum(0)  # of all products, that of the marginals has the largest likelihood
    agree(-(p * np.log(best)).sum() + (p * np.log(p)).sum(), total_correlation(p), bound=1e-13, of="Q.17")
