"""New tokens through blocks with a cache: the fused forms and the plain text are one function."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import agree, host, spec

from minidit.autograd import no_grad, plain_text
from minidit.kernels import cpu_step
from minidit.models.gpt import GPT, GPTConfig
from minidit.models.var import VAR, VARConfig
from minidit.random import Philox

GROUPS = {"gpt": (1,) * 6, "var": (1, 4, 9)}
BOTH = st.sampled_from(["gpt", "var"])


def network(name, size=1.0, dtype=np.float32, zero_prefix=False):
    """Six codes one after another, or three scales; every weight is awake."""
    common = {"vocabulary": 5, "hidden_size": 16, "depth": 2, "num_heads": 2, "num_classes": 2}
    if name == "gpt":
        model = GPT(GPTConfig(grid=(2, 3), inner=12, zero_prefix=zero_prefix, **common), Philox(0), dtype=dtype)
    else:
        model = VAR(VARConfig(sizes=(1, 2, 3), channels=3, mlp_ratio=1.5, **common), Philox(0), dtype=dtype)
    model.flat[...] += size * Philox(1).normal(model.flat.shape, dtype=dtype)
    return model


def seen_by(name, B, seed=0):
    """What stands before every group but the first, which sees the class alone."""
    r = np.random.default_rng(seed)
    return r.integers(0, 5, (B, 5)) if name == "gpt" else r.standard_normal((B, 13, 3)).astype(np.float32)


def written(name, model, seen, y, first=1):
    """The logits of all places, group after group through a cache, the first few of them together."""
    ends = np.cumsum([0, *GROUPS[name]])
    offset, cache = GROUPS[name][0], model.cache(len(seen))
    cuts = [0, *ends[first:]]
    with no_grad():
        parts = [seen[:, max(a - offset, 0) : b - offset] for a, b in itertools.pairwise(cuts)]
        return np.concatenate([host(model(part, y, cache)) for part in parts], axis=1), cache


@spec("N.16", "T.42", "T.47", "T.48", "T.49")
@given(BOTH, st.integers(1, 9), st.booleans(), st.sampled_from([0.1, 1.0, 30.0]), st.integers(1, 3), st.integers(0, 99))
def test_group_by_group_the_fused_blocks_are_the_plain_ones(name, B, zero_prefix, size, first, seed):
    """Also where logits are in the thousands, and where the first groups come together. Both caches hold the same."""
    seen, y = seen_by(name, B, seed), np.random.default_rng(seed).integers(0, 3, B)
    model = network(name, size, zero_prefix=zero_prefix)
    fused, cache = written(name, model, seen, y, first)
    with plain_text():
        plain, other = written(name, model, seen, y, first)
    exact = network(name, size, np.float64, zero_prefix)
    exact.load_state_dict(model.state_dict())
    with no_grad():
        whole = host(exact(seen if name == "gpt" else seen.astype(np.float64), y))
    scale = max(1.0, float(np.abs(whole).max()))
    error = max(float(np.abs(plain - whole).max()) / scale, 1e-6)
    assert np.abs(fused - whole).max() / scale <= 10 * error  # as near to the exact numbers as the plain text
    if size <= 1:
        agree(cache.keys, other.keys, bound=1e-5)
        agree(cache.values, other.values, bound=1e-5)
        agree(fused / scale, plain / scale, bound=2e-5, of="N.16")


@pytest.mark.parametrize("sign", [1, -1])
def test_logits_beyond_the_exponentials_of_float32_are_shifted(sign):
    """The first token sees itself alone, with logits of either sign beyond ±88: e^logits is inf, or 0. The last block meets
    them, so no later block can notice."""
    model = GPT(GPTConfig(grid=(2, 3), vocabulary=5, hidden_size=16, depth=1, num_heads=2, inner=12, num_classes=2), Philox(0))
    model.flat[...] += Philox(1).normal(model.flat.shape, dtype=np.float32)
    q, k, _ = np.split(model.layers[0].attention.wqkv.weight.data, 3)
    q *= 10
    k[...] = sign * q
    fused, _ = written("gpt", model, seen_by("gpt", 2), np.array([0, 1]))
    with plain_text():
        agree(fused, written("gpt", model, seen_by("gpt", 2), np.array([0, 1]))[0], bound=1e-3)


@given(BOTH)
def test_the_fused_forms_write_only_into_the_cache(name):
    model, seen, y = network(name), seen_by(name, 3), np.array([0, 1, 2])
    before, kept = model.flat.copy(), seen.copy()
    written(name, model, seen, y)
    assert np.array_equal(seen, kept) and np.array_equal(model.flat, before)


@given(BOTH)
def test_they_are_taken_without_a_tape_in_float32_only(name):
    cache = network(name).cache(2)
    assert not cache.fuses  # the tape records
    with no_grad():
        assert cache.fuses and not network(name, dtype=np.float64).cache(2).fuses
        with plain_text():
            assert not cache.fuses


@given(BOTH)
def test_what_a_cache_keeps_of_the_weights_is_its_own(name):
    """A second sequence after a change of the weights does not see those of the first."""
    model, seen, y = network(name), seen_by(name, 2), np.array([0, 2])
    before, _ = written(name, model, seen, y)
    model.flat *= 0.5
    after, _ = written(name, model, seen, y)
    with plain_text():
        agree(after, written(name, model, seen, y)[0], bound=1e-5, of="N.16")
    assert np.abs(after - before).max() > 0.01


def test_a_cache_asks_once_for_what_is_the_same_at_every_step():
    calls, cache = [], network("gpt").cache(1)

    def made(n):
        calls.append(n)
        return [n]

    assert cache.once(made, 3) is cache.once(made, 3) and calls == [3]


@pytest.mark.parametrize(
    "name, message", [("gpt", "6 codes are before the next one, and a picture has 6"), ("var", "expected .B, whole scales, 3.")]
)
def test_a_full_cache_refuses_the_fused_forms_too(name, message):
    model, seen, y = network(name), seen_by(name, 1), np.array([0])
    _, cache = written(name, model, seen, y)
    with no_grad(), pytest.raises(ValueError, match=message):
        model(seen[:, -1:] if name == "gpt" else seen[:, -9:], y, cache)
    with pytest.raises(ValueError, match=f"room for {cache.length} tokens, and this would be token {cache.length + 1}"):
        cache.room(1)


@given(BOTH)
def test_two_caches_at_once_share_no_memory_and_a_later_one_finds_nothing_of_an_earlier(name):
    model, y = network(name), np.array([0, 2])
    seens = [seen_by(name, 2, seed) for seed in (1, 2)]
    alone = [written(name, model, seen, y)[0] for seen in seens]
    ends, offset = np.cumsum([0, *GROUPS[name]]), GROUPS[name][0]
    caches, parts = [model.cache(2), model.cache(2)], ([], [])
    with no_grad():
        for a, b in itertools.pairwise(ends):
            for seen, cache, logits in zip(seens, caches, parts, strict=True):
                logits.append(host(model(seen[:, max(a - offset, 0) : max(b - offset, 0)], y, cache)))
    for together, by_itself in zip(parts, alone, strict=True):
        assert np.array_equal(np.concatenate(together, axis=1), by_itself)


def test_batches_of_many_sizes_leave_no_more_memory_than_is_kept(monkeypatch):
    monkeypatch.setattr(cpu_step, "MOST", 3 << 20)
    monkeypatch.setattr(cpu_step.reused, "arena", cpu_step.Arena())
    model, seen, y = network("gpt"), seen_by("gpt", 1), np.array([0])
    alone = written("gpt", model, seen, y)[0]
    for B in range(100, 2000, 100):  # of up to 3 MB each
        model.cache(B)
    assert cpu_step.reused.arena.nbytes < 2 * cpu_step.MOST
    assert np.array_equal(written("gpt", model, seen, y)[0], alone)
