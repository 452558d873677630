"""Autoregression: what a token may know, caches, probabilities that sum to one, and pictures that any batch writes alike."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import agree, host, spec

from minidit.autograd import Tensor, no_grad
from minidit.autoregressive.choose import nll
from minidit.autoregressive.order import total_correlation
from minidit.autoregressive.quantiser import Pyramid
from minidit.models.gpt import GPT, GPTConfig
from minidit.models.var import VAR, VARConfig
from minidit.processes.tokens import Raster, Scales, Writing, write
from minidit.random import Philox

F64 = np.float64


def gpt(grid=(2, 3), vocabulary=5, **more):
    """A network whose every weight is awake, with its process."""
    config = GPTConfig(grid=grid, vocabulary=vocabulary, hidden_size=16, depth=2, num_heads=2, inner=12, num_classes=3, **more)
    return awake(GPT(config, Philox(0), dtype=F64)), Raster(config.tokens)


def var(sizes=(1, 2, 3), vocabulary=5, channels=3, **more):
    config = VARConfig(sizes=sizes, vocabulary=vocabulary, channels=channels, hidden_size=16, depth=2, num_heads=2,
                       mlp_ratio=2.0, num_classes=3, **more)  # fmt: skip
    codes = Philox(9).normal((vocabulary, channels), dtype=F64)
    law = Pyramid(codes, config.sizes, lambda k, h: 0.5 * h + 0.5 * (h @ np.eye(channels)[::-1]))
    return awake(VAR(config, Philox(0), dtype=F64)), Scales(law)


def awake(network):
    network.flat[...] += 0.3 * Philox(7).normal(network.flat.shape, dtype=F64)
    return network


BOTH = pytest.mark.parametrize("make", [gpt, var])


def codes_of(process, network, B=2, seed=3):
    return Philox(seed).integers(0, network.config.vocabulary, (B, process.order.tokens))


def logits_of(network, process, index, y):
    with no_grad():
        return host(network(process.seen(index[:, : index.shape[1] - process.order.groups[-1]]), y))


# ------------------------------------------------------------------------------------------------ who knows what


@spec("Q.14", "Q.15", "T.41", "T.44", "T.45", "T.47")
@BOTH
@given(st.data())
def test_logits_change_for_later_groups_only(make, data):
    network, process = make()
    index, y = codes_of(process, network), np.array([0, 2])
    place = data.draw(st.integers(0, process.order.tokens - 1))
    other = index.copy()
    other[:, place] = (other[:, place] + 1) % network.config.vocabulary
    group = process.order.group_of
    before, after = logits_of(network, process, index, y), logits_of(network, process, other, y)
    same = group <= group[place]
    assert np.array_equal(before[:, same], after[:, same])
    later = ~same
    assert not later.any() or (np.abs(before - after)[:, later].max(axis=(0, 2)) > 1e-9).all()


@spec("Q.15")
@BOTH
def test_no_gradient_reaches_what_comes_later(make):
    network, process = make()
    index, y = codes_of(process, network), np.array([0, 2])
    seen = process.seen(index[:, : process.order.tokens - process.order.groups[-1]])
    logits = network(seen, y)
    cut = process.order.ends[0]
    logits[:, :cut].sum().backward()
    table = network.tok_embeddings.weight if isinstance(network, GPT) else network.word_embed.weight
    assert table.grad is None or not np.any(table.grad)  # the first group is made of the class alone


@BOTH
def test_the_class_reaches_every_token_and_samples_do_not_meet(make):
    network, process = make()
    index = codes_of(process, network)
    a, b = logits_of(network, process, index, np.array([0, 2])), logits_of(network, process, index, np.array([1, 2]))
    assert (np.abs(a - b)[0].max(axis=1) > 1e-9).all() and np.array_equal(a[1], b[1])


# ------------------------------------------------------------------------------------------------ caches


@spec("N.16", "Q.10")
@BOTH
def test_a_network_with_a_cache_gives_the_logits_of_the_whole(make):
    network, process = make()
    index, y = codes_of(process, network), np.array([0, 2])
    whole, cache, parts = logits_of(network, process, index, y), network.cache(2), []
    with no_grad():
        for start in (0, *process.order.ends[:-1]):
            parts.append(host(network(process.following(index[:, :start]), y, cache)))
    assert [p.shape[1] for p in parts] == list(process.order.groups) and cache.used == process.order.tokens
    agree(np.concatenate(parts, axis=1), whole, bound=1e-12, of="N.16")


@spec("N.16")
def test_several_tokens_at_once_fill_a_cache_as_one_after_another():
    network, process = gpt()
    index, y = codes_of(process, network), np.array([0, 2])
    with no_grad():
        many, cache = network.cache(2), network.cache(2)
        first = host(network(index[:, :3], y, many))
        for k in range(4):
            last = host(network(index[:, k - 1 : k] if k else index[:, :0], y, cache))
        agree(first[:, -1], last[:, 0], bound=1e-12, of="N.16")
        agree(host(network(index[:, 3:5], y, many)), logits_of(network, process, index, y)[:, 4:], bound=1e-12, of="N.16")
    with pytest.raises(ValueError, match="6 codes are before the next one, and a picture has 6"):
        network(index[:, :1], y, many)


# ------------------------------------------------------------------------------------------------ probabilities


@spec("Q.14", "Q.18")
@pytest.mark.parametrize(
    "made", [lambda: gpt((2, 2), 2), lambda: gpt((1, 3), 3), lambda: var((1, 2), 2, 2), lambda: var((1, 1, 1), 3, 2)]
)
def test_the_probabilities_of_all_pictures_sum_to_one(made):
    network, process = made()
    K, N = network.config.vocabulary, process.order.tokens
    index = np.array(list(itertools.product(range(K), repeat=N)))
    y = np.full(len(index), 1)
    with no_grad():
        loss, _ = process.loss(network, index, y, None)
    agree(np.exp(-N * host(loss)).sum(), 1.0, bound=1e-12, of=("Q.14", "Q.18"))


@spec("Q.17")
@BOTH
def test_scales_cannot_learn_that_their_codes_are_equal_and_a_raster_can(make):
    """Four equal random bits. The truth is one bit; drawn at once they cost four, and the total correlation is three."""
    p = np.zeros((2, 2, 2, 2))
    p[0, 0, 0, 0] = p[1, 1, 1, 1] = 0.5
    gap = total_correlation(p)
    agree(gap, 3 * math.log(2), bound=1e-14, of="Q.17")
    if make is gpt:
        network, process, equal = *gpt((2, 2), 2), np.array([[0] * 4, [1] * 4])
    else:
        network, process, equal = *var((1, 2), 2, 2), np.array([[0, *[0] * 4], [0, *[1] * 4]])
    y = np.array([1, 1])
    for k in range(300):
        process.loss(network, equal, y, None)[0].mean().backward()
        for w in network.parameters():
            w.data -= 0.02 * (1 - k / 300) * np.sign(w.grad if w.grad is not None else 0.0)
            w.grad = None
    best = math.log(2) + (0 if make is gpt else gap)
    agree(process.order.tokens * float(process.loss(network, equal, y, None)[0].mean()), best, bound=0.02, of="Q.17")


# ------------------------------------------------------------------------------------------------ writing


@spec("N.16", "Q.22")
@BOTH
@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_a_cache_changes_no_code_and_any_batch_writes_the_same_pictures(make, guidance):
    network, process = make()
    labels = np.array([0, 2, 1])
    how = Writing(guidance=guidance, seed=4)
    index = write(network, process, labels, how)
    assert index.shape == (3, process.order.tokens) and index.dtype == np.int64
    assert np.array_equal(write(network, process, labels, Writing(guidance=guidance, seed=4, cached=False)), index)
    assert np.array_equal(write(network, process, labels[:2], how), index[:2])
    assert not np.array_equal(write(network, process, labels, Writing(guidance=guidance, seed=5)), index)


@spec("Q.14", "Q.22")
@BOTH
def test_pictures_are_written_as_often_as_the_network_says(make):
    network, process = gpt((1, 2), 3) if make is gpt else var((1, 1), 3, 2)
    n = 6000
    index = write(network, process, np.full(n, 1))
    pairs = np.array(list(itertools.product(range(3), repeat=2)))
    with no_grad():
        p = np.exp(-2 * host(process.loss(network, pairs, np.full(9, 1), None)[0]))
    share = np.bincount(index[:, 0] * 3 + index[:, 1], minlength=9) / n
    assert (np.abs(share - p) < 5 * np.sqrt(p * (1 - p) / n) + 1e-9).all()


@BOTH
def test_the_most_probable_code_is_written_where_only_one_is_kept(make):
    network, process = make()
    labels = np.array([0, 2])
    a, b = (write(network, process, labels, Writing(top_k=1, seed=s)) for s in (0, 1))
    assert np.array_equal(a, b)
    assert np.array_equal(logits_of(network, process, a, labels).argmax(-1), a)


@spec("Q.19", "Q.20")
@BOTH
def test_guidance_rises_from_group_to_group_where_it_is_asked_to(make):
    """With one kept code per place the picture shows which logits were used: those guided by 1 at first, by w at the end."""
    network, process = make()
    y, G = np.array([0, 2]), process.order.passes
    for rises in (False, True):
        index = write(network, process, y, Writing(guidance=5.0, rises=rises, top_k=1))
        l_c, l_u = (logits_of(network, process, index, label) for label in (y, network.null(y)))
        w = 1 + 4 * process.order.group_of / (G - 1) if rises else np.full(process.order.tokens, 5.0)
        assert np.array_equal((l_u + w[:, None] * (l_c - l_u)).argmax(-1), index)


@BOTH
@pytest.mark.parametrize("cached", [False, True])
def test_codes_that_are_given_are_kept_and_the_others_follow_as_if_they_had_been_written(make, cached):
    network, process = make()
    y, how = np.array([0, 2]), Writing(guidance=2.0, seed=3, cached=cached)
    index = write(network, process, y, how)
    for end in process.order.ends[:-1]:
        assert np.array_equal(write(network, process, y, how, given=index[:, :end]), index)
    other = (index[:, : process.order.ends[0]] + 1) % network.config.vocabulary
    assert np.array_equal(write(network, process, y, how, given=other)[:, : process.order.ends[0]], other)


def test_guidance_without_a_null_label_is_refused():
    network, process = gpt(class_dropout_prob=0.0)
    with pytest.raises(ValueError, match="guidance needs a model"):
        write(network, process, np.array([0]), Writing(guidance=2.0))


def test_the_likelihood_is_differentiable():
    network, process = gpt()
    index = codes_of(process, network)
    losses, _ = process.loss(network, index, np.array([0, 1]), None)
    assert isinstance(losses, Tensor) and losses.shape == (2,)
    losses.mean().backward()
    assert all(w.grad is not None and np.isfinite(w.grad).all() for w in network.parameters())
    agree(losses, nll(network(index[:, :-1], np.array([0, 1])), index), bound=1e-14, of="Q.18")
