"""Chapter Q: likelihood, guidance on logits, what is kept, and the choice of a token."""

import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import agree, host, spec

from minidit import ops
from minidit.autoregressive import choose as c

SEEDS = st.integers(0, 2**32 - 1)


def logits_of(seed, shape):
    return np.random.default_rng(seed).normal(0, 2, shape)


@spec("Q.18")
@given(SEEDS)
def test_the_likelihood_is_the_mean_of_the_cross_entropies(seed):
    logits = logits_of(seed, (2, 3, 5))
    index = np.random.default_rng(seed).integers(0, 5, (2, 3))
    p = host(ops.softmax(logits))
    expected = [-np.mean([math.log(p[b, i, index[b, i]]) for i in range(3)]) for b in range(2)]
    agree(c.nll(logits, index), expected, bound=1e-13, of="Q.18")


@spec("Q.14", "Q.18")
@given(SEEDS, st.integers(2, 3), st.integers(1, 4))
def test_of_a_markov_chain_nothing_is_likelier_on_average_than_the_chain_itself(seed, K, N):
    """The mean of the nats over all sequences, by their probabilities, is the entropy rate; of any other network it is more."""
    P = host(ops.softmax(logits_of(seed, (K, K))))  # from the row's code to the column's
    values, vectors = np.linalg.eig(P.T)
    rest = np.real(vectors[:, np.argmax(np.real(values))])
    rest /= rest.sum()  # where the chain stays
    rate = -float((rest[:, None] * P * np.log(P)).sum())
    index = np.array(list(itertools.product(range(K), repeat=N + 1)))
    weight = rest[index[:, 0]] * np.prod(P[index[:, :-1], index[:, 1:]], axis=1)
    chain = np.log(P)[index[:, :-1]]
    agree(weight @ host(c.nll(chain, index[:, 1:])), rate, bound=1e-12, of="Q.18")
    other = chain + logits_of(seed + 1, (K, K))[index[:, :-1]]
    assert weight @ host(c.nll(other, index[:, 1:])) >= rate - 1e-12


@spec("Q.19")
@given(SEEDS, st.floats(0, 4))
def test_guidance_on_logits_is_a_product_of_powers(seed, w):
    a, b = logits_of(seed, (2, 3, 6))
    p_c, p_u = host(ops.softmax(a)), host(ops.softmax(b))
    product = p_c**w * p_u ** (1 - w)
    agree(ops.softmax(c.guided(a, b, w)), product / product.sum(-1, keepdims=True), bound=1e-12, of="Q.19")
    assert np.array_equal(c.guided(a, b, 0), b)
    agree(c.guided(a, b, 1), a, bound=1e-14, of="Q.19")


@spec("Q.20")
def test_the_scale_rises_from_one_to_w_and_one_group_has_it_at_once():
    assert [c.rising(3.0, g, 5) for g in range(5)] == [1.0, 1.5, 2.0, 2.5, 3.0]
    assert c.rising(3.0, 0, 1) == 3.0


@spec("Q.21")
@given(SEEDS, st.integers(1, 8), st.floats(0.01, 1.0))
def test_top_k_keeps_the_largest_and_top_p_the_smallest_set_of_enough_mass(xp, seed, k, p):
    logits = logits_of(seed, (4, 7))
    alive = lambda l: np.isfinite(host(l))
    largest = np.argsort(-logits, axis=-1)
    top = alive(c.kept(xp.asarray(logits), top_k=k))
    assert all(set(np.flatnonzero(row)) == set(order[:k].tolist()) for row, order in zip(top, largest, strict=True))
    mass = host(ops.softmax(logits))
    for row, order, prob in zip(alive(c.kept(xp.asarray(logits), top_p=p)), largest, mass, strict=True):
        n = row.sum()
        assert set(np.flatnonzero(row)) == set(order[:n].tolist())
        assert prob[order[:n]].sum() >= p - 1e-12 and (n == 1 or prob[order[: n - 1]].sum() < p + 1e-12)


@spec("Q.21")
@given(SEEDS, st.floats(0.05, 20))
def test_the_temperature_divides_and_one_without_limits_changes_nothing(seed, temperature):
    logits = logits_of(seed, (3, 5))
    assert np.array_equal(c.kept(logits), logits)
    agree(c.kept(logits, temperature=temperature), logits / temperature, bound=1e-15, of="Q.21")


@pytest.mark.parametrize("bad, message", [
    ({"temperature": 0}, "temperature 0 must be above 0 (always the most probable code: top_k 1)"),
    ({"temperature": -1}, "temperature -1 must be above 0"),
    ({"temperature": np.nan}, "temperature nan must be above 0"),
    ({"top_k": -1}, "top_k -1 must be at least 0 (0: all codes)"),
    ({"top_p": 0}, "top_p 0 must be above 0 and at most 1 (1: all codes)"),
    ({"top_p": 1.5}, "top_p 1.5 must be above 0 and at most 1 (1: all codes)"),
])  # fmt: skip
def test_the_setting_that_has_no_meaning_is_the_one_that_is_named(bad, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        c.kept(np.zeros((1, 2)), **bad)


@spec("Q.22")
@given(SEEDS)
def test_tokens_are_chosen_as_often_as_they_are_probable_and_those_left_out_never(xp, seed):
    logits = logits_of(seed, 6)
    logits[[0, 3, 5]] = -np.inf
    u = (np.arange(4000) + 0.5) / 4000
    index = host(c.chosen(xp.asarray(np.broadcast_to(logits, (4000, 6))), xp.asarray(u)))
    share = np.bincount(index, minlength=6) / 4000
    agree(share, host(ops.softmax(logits)), bound=1 / 4000 + 1e-9, of="Q.22")
    assert (share[[0, 3, 5]] == 0).all()
    edges = np.array([0.0, np.nextafter(1, 0)])
    assert host(c.chosen(xp.asarray(np.broadcast_to(logits, (2, 6))), xp.asarray(edges))).tolist() == [1, 4]


@spec("Q.21", "Q.22")
@given(SEEDS, st.floats(0, 0.999999))
def test_one_kept_token_is_the_most_probable_one(seed, u):
    logits = logits_of(seed, (1, 9))
    assert c.chosen(c.kept(logits, top_k=1), np.array([u])).tolist() == logits.argmax(-1).tolist()
