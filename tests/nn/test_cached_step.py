"""One new token through a block with a cache: the fused form and the plain text are one function."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import agree, host, spec

from minidit.autograd import no_grad, plain_text
from minidit.models.gpt import GPT, GPTConfig
from minidit.nn.cache import one_token
from minidit.random import Philox


def network(zero_prefix=False, size=1.0, dtype=np.float32):
    config = GPTConfig(grid=(2, 3), vocabulary=5, hidden_size=16, depth=2, num_heads=2, inner=12, num_classes=2,
                       zero_prefix=zero_prefix)  # fmt: skip
    model = GPT(config, Philox(0), dtype=dtype)
    model.flat[...] += size * Philox(1).normal(model.flat.shape, dtype=dtype)
    return model


def written(model, index, y):
    """The logits of all places, one token after another through a cache."""
    cache = model.cache(len(index))
    with no_grad():
        return np.concatenate([host(model(index[:, max(i - 1, 0) : i], y, cache)) for i in range(6)], axis=1), cache


@spec("N.16", "T.42")
@given(st.integers(1, 5), st.booleans(), st.sampled_from([0.1, 1.0, 30.0]), st.integers(0, 99))
def test_token_by_token_the_fused_block_is_the_plain_one(B, zero_prefix, size, seed):
    """Also where logits are in the thousands. Both caches hold the same keys and values."""
    r = np.random.default_rng(seed)
    index, y, model = r.integers(0, 5, (B, 5)), r.integers(0, 3, B), network(zero_prefix, size)
    fused, cache = written(model, index, y)
    with plain_text():
        plain, other = written(model, index, y)
    exact = network(zero_prefix, size, np.float64)
    exact.load_state_dict(model.state_dict())
    with no_grad():
        whole = host(exact(index, y))
    scale = max(1.0, float(np.abs(whole).max()))
    error = max(float(np.abs(plain - whole).max()) / scale, 1e-6)
    assert np.abs(fused - whole).max() / scale <= 10 * error  # as near to the exact numbers as the plain text
    if size <= 1:
        agree(cache.keys, other.keys, bound=1e-5)
        agree(cache.values, other.values, bound=1e-5)
        agree(fused / scale, plain / scale, bound=2e-5, of="N.16")


def test_the_fused_form_writes_only_into_the_cache():
    model, index, y = network(), np.random.default_rng(0).integers(0, 5, (3, 5)), np.array([0, 1, 2])
    before = model.flat.copy()
    x = np.random.default_rng(1).standard_normal((3, 1, 16)).astype(np.float32)
    kept, cache = x.copy(), model.cache(3)
    with no_grad():
        model.layers[0](x, model.turn, None, cache, 0)
    written(model, index, y)
    assert np.array_equal(x, kept) and np.array_equal(model.flat, before)


def test_it_is_taken_for_one_token_without_a_tape_in_float32_only():
    model, x = network(), np.zeros((2, 1, 16), np.float32)
    cache = model.cache(2)
    assert not one_token(x, cache)  # the tape records
    with no_grad():
        assert one_token(x, cache) and not one_token(np.zeros((2, 2, 16), np.float32), cache)
        assert not one_token(x.astype(np.float64), cache)
        assert not one_token(x.astype(np.float64), network(dtype=np.float64).cache(2))
        with plain_text():
            assert not one_token(x, cache)


def test_a_full_cache_refuses_the_fused_form_too():
    model, index, y = network(), np.zeros((1, 5), int), np.array([0])
    _, cache = written(model, index, y)
    with no_grad(), pytest.raises(ValueError, match="room for 6 tokens, and this would be token 7"):
        model.layers[0](np.zeros((1, 1, 16), np.float32), model.turn, None, cache, 0)
