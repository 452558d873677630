"""Codes written on a GPU: one step, whose number is counted there, is recorded once and replayed."""

from dataclasses import replace

import numpy as np
import pytest
import standin
from hypothesis import given
from hypothesis import strategies as st
from standin.cublas import imitated_cublas
from support import agree, host, spec

from minidit import ops
from minidit.autograd import no_grad
from minidit.backend import to_device
from minidit.kernels import cuda_graph
from minidit.models.gpt import GPT, GPTConfig
from minidit.processes.tokens import Raster, Writing, groups_written, write
from minidit.random import Philox
from minidit.training.loop import Loop, LoopConfig
from minidit.training.source import Pictures

cupy = standin.install()
Y = np.array([0, 2, 1])
WAYS = {
    "plainly": Writing(seed=1),
    "guided": Writing(guidance=2.0, temperature=0.8, seed=2),
    "guided more and more": Writing(guidance=3.0, rises=True, seed=3),
    "of the most probable": Writing(guidance=1.5, top_k=4, top_p=0.9, seed=4),
}


@pytest.fixture(autouse=True)
def gpu():
    if not getattr(standin.install(), "__standin__", False) or standin.raw.compiler() is None:
        pytest.skip("the stand-in, and g++ to run kernels on the CPU")
    cuda_graph.explain.cache_clear()
    with standin.kernels(), imitated_cublas():
        yield


def gpt(device, zero_prefix=False):
    """A network whose every weight is awake, and its process."""
    config = GPTConfig(grid=(3, 3), vocabulary=7, hidden_size=16, depth=2, num_heads=2, inner=12, num_classes=3,
                       zero_prefix=zero_prefix)  # fmt: skip
    made = GPT(config, Philox(0))
    made.flat[...] += 0.3 * Philox(7).normal(made.flat.shape)
    there = GPT(config, None, device=device)
    there.load_state_dict(made.state_dict())
    return there, Raster(config.tokens)


@spec("N.16", "Q.22")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("zero_prefix", [False, True])
def test_recorded_codes_are_the_eager_ones_and_those_of_the_cpu(way, zero_prefix, caplog):
    how = WAYS[way]
    network, process = gpt("cuda", zero_prefix)
    recorded, eager = (host(write(network, process, Y, replace(how, graph=graph))) for graph in (True, False))
    whole = host(write(network, process, Y, replace(how, cached=False)))
    assert caplog.messages == []
    assert np.array_equal(recorded, eager) and np.array_equal(recorded, whole)
    assert np.array_equal(recorded, host(write(*gpt("cpu", zero_prefix), Y, how)))


@pytest.mark.parametrize("way", ["plainly", "guided", "guided more and more"])
def test_a_replayed_step_is_one_launch_without_uploads_and_without_waiting(way):
    groups = groups_written(*gpt("cuda"), Y, WAYS[way])
    first = [next(groups) for _ in range(2)]  # runs, then is recorded
    with standin.counting() as spent:
        rest = list(groups)
    assert len(first) + len(rest) == 9
    assert spent.uploads == 0 and spent.syncs == 0 and spent.launches <= len(rest)  # a graph counts as one


def test_logits_at_a_counted_place_are_those_of_the_whole_sequence():
    network, here = gpt("cuda")[0], gpt("cpu")[0]
    index = Philox(5).integers(0, 7, (3, 9))
    there, y, cache = cupy.asarray(index), cupy.asarray(Y), network.cache(3, counted=True)
    with no_grad():
        parts = [host(network(there[:, max(i - 1, 0), None], y, cache)) for i in range(9)]
        agree(np.concatenate(parts, axis=1), host(here(index[:, :-1], Y)), bound=1e-4, of="N.16")
    assert host(cache.at).tolist() == [9] and cache.used == 0


@spec("A.18", "A.19")
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 9), st.integers(1, 6), st.integers(0, 4), st.booleans())
def test_attention_of_views_on_a_device_is_its_plain_text(B, heads, K, N, more, masked):
    """In float32, with a mask or without, and its bars."""
    r, M = np.random.default_rng(B + 10 * K), N + more
    qkv = [r.standard_normal((B, n, heads, K)).astype(np.float32).swapaxes(1, 2) for n in (N, M, M)]
    mask = [np.where(np.arange(M) <= np.arange(N)[:, None], 0.5, -np.inf).astype(np.float32)] if masked else []
    bar = r.standard_normal((B, heads, N, K)).astype(np.float32)
    with standin.kernels():
        y, vjp = ops.attention.cuda(*map(cupy.asarray, (*qkv, *mask)))
        answers = [y, *(b() if callable(b) else b for b in vjp(cupy.asarray(bar)))]
    y, vjp = ops.attention.plain(*(a.astype(np.float64) for a in (*qkv, *mask)))
    for a, b in zip(answers, [y, *(b() if callable(b) else b for b in vjp(bar.astype(np.float64)))], strict=True):
        if b is not None:  # as the bar of no mask is
            agree(host(a), b, bound=2e-5, of="A.19")


def test_a_recorded_update_of_a_gpt_is_the_update_bit_for_bit(caplog):
    codes, losses = Philox(4).integers(0, 7, (12, 9)), {}
    for name, device, graph in (("recorded", "cuda", True), ("eager", "cuda", False), ("host", "cpu", False)):
        network, process = gpt(device)
        source = Pictures(to_device(codes, device), to_device(np.arange(12) % 3, device))
        config = LoopConfig(steps=4, batch_size=6, lr=1e-3, warmup=2, seed=3, graph=graph)
        losses[name] = np.array([float(host(r["loss"])) for r in Loop(network, process, source, config).run()])
    assert caplog.messages == [] and np.array_equal(losses["recorded"], losses["eager"])
    agree(losses["recorded"], losses["host"], bound=2e-3)
