"""Where arrays live: homes that never mix, devices that say why not, memory that is never reused while somebody looks at it."""

from __future__ import annotations

import multiprocessing
import sys
import threading
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import host

from minidit import backend
from minidit.backend import Arena, device_of, empty, flat_buffer, module_of, scatter_add, special_of, to_device, to_host, xp_of

# ------------------------------------------------------------------------------------------------ homes


def test_the_array_decides_where_work_happens(xp, device):
    x = xp.ones(3)
    assert xp_of(x) is xp and xp_of(x, 2.0, None, x) is xp and device_of(x) == device
    assert float(special_of(x).erf(x)[0]) == pytest.approx(0.8427007929497149)


def test_scalars_are_at_home_everywhere(xp):
    assert xp_of() is np and xp_of(1.0, np.float32(2)) is np
    assert xp_of(np.float32(2), xp.ones(1)) is xp


def test_mixed_homes_raise_one_readable_error():
    cupy = sys.modules["cupy"]
    with pytest.raises(ValueError, match=r"different homes \(numpy and cupy\): move them together with to_device"):
        xp_of(np.ones(2), cupy.ones(2))
    with pytest.raises(ValueError, match="different homes"):
        scatter_add(np.zeros(2), cupy.zeros(1, "int64"), np.ones(1))


def test_a_list_is_no_array():
    with pytest.raises(TypeError, match=r"not an array.*list"):
        xp_of([1.0, 2.0])


def test_an_array_travels_there_and_back_unchanged(xp, device):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    there = to_device(x, device)
    assert xp_of(there) is xp and to_device(there, device) is there
    back = to_host(there)
    assert isinstance(back, np.ndarray) and back.dtype == x.dtype and np.array_equal(back, x)
    assert np.array_equal(to_device(there, "cpu"), x)
    assert np.array_equal(to_host([1, 2]), [1, 2])


@given(data=st.data(), rows=st.integers(1, 5), n=st.integers(0, 12))
def test_scatter_add_counts_every_repeated_index(xp, device, data, rows, n):
    index = np.array(data.draw(st.lists(st.integers(0, rows - 1), min_size=n, max_size=n)), np.int64)
    values = np.arange(2 * n, dtype=np.float64).reshape(n, 2)
    expected = np.ones((rows, 2))
    for i, v in zip(index, values, strict=True):
        expected[i] += v
    target = xp.ones((rows, 2))
    scatter_add(target, to_device(index, device), to_device(values, device))
    assert np.array_equal(host(target), expected)


def test_scatter_add_takes_an_index_of_several_axes(xp, device):
    target, i = xp.zeros((2, 3, 2)), to_device(np.array([0, 0, 1]), device)
    scatter_add(target, (slice(None), i), xp.ones((2, 3, 2)))
    assert host(target)[0].tolist() == [[2, 2], [1, 1], [0, 0]]


# ------------------------------------------------------------------------------------------------ devices


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cuda0", "CPU", ""])
def test_an_unknown_device_is_named(device):
    with pytest.raises(ValueError, match="unknown device"):
        module_of(device)


def package(**contents):
    module = ModuleType("cupy")
    module.__dict__.update(contents)
    return module


def broken(*_):
    raise RuntimeError("libnvrtc.so.12 not found\nsecond line")


def silent(*_):
    raise RuntimeError


@pytest.mark.parametrize(
    ("cupy", "reason"),
    [
        (None, r"CuPy is not installed \(pip install"),
        (package(is_available=lambda: False), "CuPy finds no GPU"),
        (package(is_available=lambda: True, ones=broken), "the CUDA libraries do not work: libnvrtc.so.12 not found$"),
        (package(is_available=silent), "the CUDA libraries do not work: RuntimeError$"),
    ],
)
def test_a_missing_gpu_is_told_with_its_reason(monkeypatch, cupy, reason):
    monkeypatch.setitem(sys.modules, "cupy", cupy)  # None: importing it fails
    with pytest.raises(ValueError, match=f"device 'cuda': {reason}"):
        to_device(np.ones(2), "cuda")
    assert backend.cupy_or_reason()[0] is None


def test_a_cupy_that_cannot_be_loaded_is_not_called_missing(monkeypatch):
    def refused(name):
        raise ImportError("libcuda.so.1: cannot open shared object file\nsecond line")

    monkeypatch.setattr(backend.importlib, "import_module", refused)
    reason = "the CUDA libraries do not work: libcuda.so.1: cannot open shared object file"
    assert backend.cupy_or_reason() == (None, reason)


def test_the_probe_of_the_gpu_runs_once(monkeypatch):
    probes = []
    cupy = package(is_available=lambda: True, ones=lambda n: probes.append(n) or np.ones(n))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert module_of("cuda") is cupy and module_of("cuda") is cupy and len(probes) == 1


def test_a_device_number_is_used(monkeypatch):
    used = []
    device = ModuleType("device")
    device.use = lambda: used.append("used")
    cuda = ModuleType("cuda")
    cuda.Device = lambda i: used.append(i) or device
    monkeypatch.setitem(sys.modules, "cupy", package(is_available=lambda: True, ones=np.ones, cuda=cuda))
    module_of("cuda:1")
    assert used == [1, "used"]


# ------------------------------------------------------------------------------------------------ memory

SIZE = 2 * backend.SMALL
LIKE = np.empty(0, np.float32)


@given(shape=st.lists(st.integers(0, 4), max_size=3).map(tuple), dtype=st.sampled_from([None, "float64", np.dtype("int32")]))
def test_empty_has_the_home_and_type_of_its_model(xp, shape, dtype):
    like = xp.ones(1, "float32")
    for arena in (None, Arena()):
        x = in_arena(arena, like, shape, dtype)
        assert xp_of(x) is xp and x.shape == shape and x.dtype == (dtype or "float32")


def in_arena(arena, like, shape, dtype=None):
    if arena is None:
        return empty(like, shape, dtype)
    with arena:
        return empty(like, shape, dtype)


def references(pool):
    """The count that `Arena.empty` sees, made in the same way."""
    for buffer, _ in reversed(pool):
        return sys.getrefcount(buffer)


def test_a_view_adds_to_the_references_that_tell_a_free_buffer():
    """Should an interpreter count otherwise one day, this fails, and not somebody's activations."""
    arena = Arena()
    x = arena.empty((SIZE,), LIKE.dtype)
    (pool,) = arena.pools.values()
    assert references(pool) == Arena.ALONE + 1
    y = x[::2]
    del x
    assert references(pool) == Arena.ALONE + 1 and len(y) == SIZE // 2
    del y
    assert references(pool) == Arena.ALONE


def test_a_free_buffer_is_used_again_and_a_kept_one_is_not():
    with Arena() as arena:
        first = empty(LIKE, (SIZE,))
        address = first.ctypes.data
        del first
        again = empty(LIKE, (2, SIZE // 2))  # another shape of the same size
        assert again.ctypes.data == address
        part = again[1:, ::2].T  # a view of a view keeps the buffer
        del again
        other = empty(LIKE, (SIZE,))
        assert not np.shares_memory(other, part) and arena.nbytes == 2 * 4 * SIZE


@given(steps=st.lists(st.tuples(st.sampled_from(["keep", "view", "drop"]), st.integers(1, 3), st.integers(0, 99)), max_size=30))
def test_no_buffer_is_reused_while_a_view_of_it_is_alive(steps):
    alive, written = [], 0.0
    with Arena() as arena:
        for action, size, k in steps:
            if action == "drop":
                if alive:
                    alive.pop(k % len(alive))
                continue
            written += 1
            x = empty(LIKE, (size, SIZE))
            x.fill(written)
            alive.append((x if action == "keep" else x[-1:, k : SIZE - k].reshape(-1)[::3], written))
            del x
            assert all((view == value).all() for view, value in alive)
        most = sum(len(pool) for pool in arena.pools.values())
    assert most <= max(1, len(steps))


def test_arenas_nest_and_may_be_entered_again():
    outer, inner = Arena(), Arena()
    with outer:
        a = empty(LIKE, (SIZE,))
        with inner:
            b = empty(LIKE, (SIZE,))
            with outer:
                c = empty(LIKE, (SIZE,))
        d = empty(LIKE, (SIZE,))
    e = empty(LIKE, (SIZE,))
    assert [serves(outer, x) for x in (a, b, c, d, e)] == [True, False, True, True, False]
    assert [serves(inner, x) for x in (a, b, c, d, e)] == [False, True, False, False, False]


def serves(arena, x):
    return any(x.base is buffer for pool in arena.pools.values() for buffer, _ in pool)


def test_an_arena_ends_with_an_error_too():
    arena = Arena()
    with pytest.raises(ZeroDivisionError), arena:
        1 / 0  # noqa: B018
    empty(LIKE, (SIZE,))
    assert arena.nbytes == 0


def test_a_thread_does_not_see_the_arena_of_another():
    arrays = []
    with Arena() as arena:
        thread = threading.Thread(target=lambda: arrays.append(empty(LIKE, (SIZE,))))
        thread.start()
        thread.join()
    assert len(arrays) == 1 and arena.nbytes == 0


def test_buffers_start_at_different_places_of_a_page():
    with Arena() as arena:
        starts = [empty(LIKE, (SIZE,)) for _ in range(5)]
        assert len({x.ctypes.data % 4096 for x in starts}) == 5 and all(x.ctypes.data % 64 == 0 for x in starts)
        assert len(arena.pools) == 1


def test_a_flat_buffer_is_zeros_in_its_home(xp, device):
    for n in (0, 7):
        x = flat_buffer(n, np.float64, device)
        assert xp_of(x) is xp and x.dtype == np.float64 and host(x).tolist() == [0.0] * n
        x[...] = 1.0
        assert host(x.sum()) == n


def write_one(x):
    x[1] = 5.0


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 warns of threads, which BLAS has
def test_a_flat_buffer_is_shared_with_a_forked_worker():
    x = flat_buffer(3)
    worker = multiprocessing.get_context("fork").Process(target=write_one, args=(x,))
    worker.start()
    worker.join()
    assert worker.exitcode == 0 and x.tolist() == [0.0, 5.0, 0.0]
