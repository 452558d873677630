"""Captures of the stand-in: what a recording refuses, what it computes, and which memory it keeps."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from standin import counting
from support import host

cp = sys.modules["cupy"]
pytestmark = pytest.mark.skipif(not getattr(cp, "__standin__", False), reason="there is a real GPU")


def x34():
    return cp.arange(12, dtype="float32").reshape(3, 4)


@pytest.fixture
def stream():
    stream, pool = cp.cuda.Stream(non_blocking=True), cp.cuda.MemoryPool()
    with stream, cp.cuda.using_allocator(pool.malloc):
        stream.begin_capture()
        yield stream
        if stream.is_capturing():
            stream.end_capture()


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x @ x.T,
        lambda x: cp.dot(x, x.T),
        lambda x: cp.tensordot(x, x),
        lambda x: cp.einsum("ij,ij->", x, x),
        lambda x: cp.linalg.eigh(x[:, :3]),
        lambda x: x.get(),
        lambda x: float(x[0, 0]),
        lambda x: bool(x[0, 0]),
        lambda x: repr(x),
        lambda x: cp.asarray([1.0]),
        lambda x: cp.asarray(np.ones(2)),
        lambda x: x[x > 1],
        lambda x: cp.where(x > 1),
        lambda x: x.__setitem__(x > 1, 0),
        lambda x: x[[0, 1]],
        lambda x: cp.cuda.Device().synchronize(),
        lambda x: cp.cuda.get_current_stream().synchronize(),
        lambda x: cp.cuda.get_current_stream().done,
    ],
)
def test_a_capture_refuses_what_a_real_one_refuses(request, f):
    x = x34()
    f(x)
    request.getfixturevalue("stream")
    with pytest.raises((RuntimeError, NotImplementedError), match="captur"):
        f(x)


def test_a_graph_computes_into_the_same_memory_at_every_launch():
    rate, weights, index = cp.ones(()), cp.zeros((2, 3)), cp.asarray([0, 0, 1])
    stream, pool = cp.cuda.Stream(non_blocking=True), cp.cuda.MemoryPool()
    with stream, cp.cuda.using_allocator(pool.malloc):
        stream.begin_capture()
        step = cp.full((2, 3), 2.0) * rate
        weights[:, 1:] += step[:, 1:]
        from cupyx import scatter_add

        scatter_add(weights, (slice(None), index), step)
        norm = cp.concatenate(cp.broadcast_arrays(weights, step)).sum(axis=1).reshape(2, 2).T.ravel()
        quotient, rest = cp.divmod(weights, 3)
        graph = stream.end_capture()
    assert np.isnan(host(norm)).all() and not host(weights).any()  # recorded, not run
    expected = np.zeros((2, 3))
    for value in (1.0, 3.0):
        rate[...] = value
        with counting() as n:
            graph.launch()
        expected += 2 * value * np.array([2, 2, 1])
        assert np.array_equal(host(weights), expected) and n.launches == 1
        rows = [*expected.sum(axis=1), 6 * value, 6 * value]
        assert np.array_equal(host(norm), np.reshape(rows, (2, 2)).T.ravel())
        assert np.array_equal(host(quotient * 3 + rest), expected)


def test_memory_of_a_recording_comes_from_a_pool_of_its_own_that_lives_as_long():
    stream, x = cp.cuda.Stream(non_blocking=True), cp.ones(2)
    with stream:
        stream.begin_capture()
        with pytest.raises(RuntimeError, match="from the shared pool"):
            x + 1
        pool = cp.cuda.MemoryPool()
        with cp.cuda.using_allocator(pool.malloc):
            y = x + 1
        graph = stream.end_capture()
    graph.launch()
    assert host(y).tolist() == [2, 2]
    del pool
    with pytest.raises(RuntimeError, match="pool of this graph is gone"):
        graph.launch()


def test_arrays_are_put_side_by_side_one_by_one_or_by_an_upload():
    x = x34()
    for n, launches, uploads in ((1, 1, 0), (8, 8, 0), (9, 1, 1)):
        for join in (cp.concatenate, cp.stack):
            with counting() as spent:
                join([x] * n)
            assert (spent.launches, spent.uploads) == (launches, uploads)


def test_only_the_capturing_stream_is_captured():
    stream, x = cp.cuda.Stream(non_blocking=True), cp.ones(2)
    with stream:
        stream.begin_capture()
    assert host(x + 1).tolist() == [2, 2] and stream.is_capturing()
    stream.end_capture()
    with pytest.raises(RuntimeError):
        stream.end_capture()
    with pytest.raises(RuntimeError, match="default"):
        cp.cuda.Stream.null.begin_capture()


def test_there_is_one_device():
    assert cp.cuda.runtime.getDeviceCount() == 1 and cp.is_available()
    cp.cuda.Device(0).use()
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        cp.cuda.Device(1).use()
