"""A function recorded as a graph: the same numbers in the same memory, in turn with other streams; or a line why not."""

import gc
import logging

import numpy as np
import pytest
import standin
from standin.cublas import imitated_cublas
from support import host

from minidit.autograd import plain_text
from minidit.backend import bytes_held
from minidit.kernels import cuda_graph
from minidit.kernels.cuda_graph import Captured, obstacle

CUPY = standin.install()
REAL = not getattr(CUPY, "__standin__", False)
pytestmark = pytest.mark.skipif(REAL, reason="the imitation of a capture")


@pytest.fixture(autouse=True)
def every_reason_is_new():
    cuda_graph.explain.cache_clear()


def counter():
    """(n, a function that adds 1 to n, keeps a temporary array no longer than it needs it, and returns 2 n)."""
    n = CUPY.zeros((3,), np.int64)

    def count():
        CUPY.add(n, 1, out=n)
        return (n + 0) * 2

    return n, count


def test_the_first_call_runs_the_second_records_and_the_rest_replay():
    n, count = counter()
    calls = []
    f = Captured(lambda: (calls.append(0), count())[1], "the counter")
    for k in range(1, 6):
        with standin.counting() as spent:
            out = f()
        assert host(out).tolist() == host(2 * n).tolist() == [2 * k] * 3
        assert len(calls) == min(k, 2) and spent.syncs == spent.uploads == 0
        assert spent.launches == (1 if k > 2 else 3 if k == 1 else 4)  # a recording counts its kernels, and is launched
    assert f() is out  # static memory


def test_the_graph_keeps_its_memory_and_lets_go_of_it():
    before = CUPY.get_default_memory_pool().used_bytes()
    n, count = counter()
    f = Captured(count, "the counter")
    f()
    f()
    gc.collect()
    pool = f.pool
    held, f.pool = bytes_held("cuda"), None
    assert bytes_held("cuda") == held - pool.total_bytes() < held
    f.pool = pool
    f()
    assert all(p() is pool for p in f.graph.pools) and len(f.graph.pools) == 2
    f.pool = pool = None
    gc.collect()
    with pytest.raises(RuntimeError, match="the memory pool of this graph is gone"):
        f()
    del f, n, count
    gc.collect()
    assert CUPY.get_default_memory_pool().used_bytes() == before


def test_the_streams_take_turns_and_the_host_waits_for_neither(monkeypatch):
    calls = []
    for name in ("record", "synchronize"):
        monkeypatch.setattr(CUPY.cuda.Event, name, lambda self, stream=None, name=name: calls.append((name, self, stream)))
    monkeypatch.setattr(CUPY.cuda.Stream, "wait_event", lambda self, event: calls.append(("wait", event, self)))
    _, count = counter()
    f = Captured(count, "the counter")
    for _ in range(3):
        calls.clear()
        outer = CUPY.cuda.get_current_stream()
        f()
        assert calls == [("record", f.before, outer), ("wait", f.before, f.stream), ("record", f.after, f.stream),
                        ("wait", f.after, outer)]  # fmt: skip
        assert CUPY.cuda.get_current_stream() is outer


@pytest.mark.parametrize("forbidden, words", [
    (lambda x: float(x.sum()), "a copy to the host"),
    (lambda x: x @ x, "cuBLAS"),
    (lambda x: x[x > 0], "mask"),
    (lambda x: CUPY.asarray([1.0]), "a copy from the host"),
    (lambda x: CUPY.concatenate([x] * 9), "a copy from the host"),
])  # fmt: skip
def test_what_cannot_be_recorded_goes_on_with_one_line_of_explanation(forbidden, words, caplog):
    n, count = counter()
    x = CUPY.ones(3)

    def f():
        out = count()
        forbidden(x)
        return out

    for _ in range(2):  # a second one of the kind says nothing more
        n[...] = 0
        g = Captured(f, "the counter")
        assert [host(g())[0] for _ in range(4)] == [2, 4, 6, 8]
    (line,) = caplog.messages
    assert line.startswith("the counter is not recorded as a CUDA graph: ") and words in line and "\n" not in line


def test_an_error_of_the_function_itself_is_raised():
    def f():
        raise ValueError("of its own")

    with pytest.raises(ValueError, match="of its own"):
        Captured(f, "nothing")()
    g = Captured(lambda: 1, "nothing")
    g()
    g.f = f
    with pytest.raises(ValueError, match="of its own"):
        g()


def test_what_stands_in_the_way_is_known_beforehand(caplog):
    with standin.kernels() if standin.raw.compiler() else pytest.skip("no g++"):
        with plain_text():
            assert obstacle(np.dtype("float32")) == "the kernels are switched off"
        assert obstacle(np.dtype("float64")) == "there are no kernels for float64"
        assert obstacle(np.dtype("float32")) == "cuBLAS does not load here"
        with imitated_cublas():
            assert obstacle(np.dtype("float32")) == ""
    assert obstacle(np.dtype("float32")) == "the kernels do not compile here"
    assert caplog.get_records("call") == [] and logging.getLogger("minidit").handlers == []
