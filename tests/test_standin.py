"""The stand-in refuses what CuPy refuses, computes what NumPy computes, and counts what a GPU would be asked to do."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import numpy as np
import pytest
import standin
from hypothesis import given
from hypothesis import strategies as st
from standin import counting, names
from support import host

cp = sys.modules["cupy"]
pytestmark = pytest.mark.skipif(not getattr(cp, "__standin__", False), reason="there is a real GPU")


def x34():
    return cp.arange(12, dtype="float32").reshape(3, 4)


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    "convert",
    [
        np.asarray,
        np.array,
        np.ascontiguousarray,
        memoryview,
        lambda x: np.add(np.ones(4), x),
        lambda x: np.ones(4) + x,
        lambda x: x + np.ones(4),
        lambda x: x * np.array(2.0),
        lambda x: x == np.ones(4),
        lambda x: cp.exp(np.ones(4)),
        lambda x: np.exp(x, out=np.empty((3, 4))),
        lambda x: cp.where(x > 1, np.ones(4), x),
        lambda x: cp.sum(np.ones(4)),
        lambda x: np.concatenate([x, np.ones((1, 4))]),
        lambda x: cp.stack([np.ones(4)]),
        lambda x: x[np.array([0, 1])],
        lambda x: x.__setitem__(0, [1.0, 2.0, 3.0, 4.0]),
        lambda x: cp.matmul(x, np.ones((4, 2))),
        lambda x: np.vecdot(x, x),
    ],
)
def test_numpy_and_device_arrays_never_mix_silently(convert):
    with pytest.raises(TypeError):
        convert(x34())


def test_the_message_is_the_one_of_cupy():
    with pytest.raises(TypeError, match=r"Implicit conversion to a NumPy array is not allowed. Please use `.get\(\)`"):
        np.asarray(cp.ones(2))
    with pytest.raises(ValueError, match=r"non-scalar numpy\.ndarray cannot be used for fill"):
        cp.ones(2)[:] = np.ones(2)
    assert not hasattr(cp.ones(2), "__array_interface__") and not hasattr(cp.ones(2), "__cuda_array_interface__")


@pytest.mark.parametrize(
    "call",
    [
        lambda: cp.add(x34(), [1.0]),
        lambda: cp.exp([1.0]),
        lambda: cp.sum([1.0]),
        lambda: x34().sum(where=x34() > 1),
        lambda: cp.add(x34(), 1, where=x34() > 1),
        lambda: cp.max(x34(), initial=0),
        lambda: cp.exp(x34(), subok=True),
        lambda: [1, 2][cp.zeros((), "int64")],
        lambda: len(cp.ones(())),
        lambda: {x34(): 1},
        lambda: list(cp.ones(())),
    ],
)
def test_lists_foreign_keywords_and_host_tricks_are_refused(call):
    with pytest.raises(TypeError):
        call()


@pytest.mark.parametrize("name", ["vecdot", "matvec", "random", "fft", "block", "errstate", "unstack", "add.at", "add.reduce"])
def test_what_is_not_in_the_tables_does_not_exist(name):
    with pytest.raises(AttributeError):
        getattr(cp.add, name[4:]) if name.startswith("add.") else getattr(cp, name)


def test_an_operator_gives_way_to_a_class_that_asks_for_it():
    class Other:
        __array_ufunc__ = None

        def __rmul__(self, x):
            return "mine"

        __radd__ = __rmatmul__ = __rmul__

    assert x34() * Other() == x34() + Other() == x34() @ Other() == "mine"


# ------------------------------------------------------------------------------------------------ what is computed

EXPRESSIONS = [
    lambda xp, x: x.sum(),
    lambda xp, x: x.mean(axis=(0, 1), keepdims=True),
    lambda xp, x: xp.var(x, axis=1, ddof=1),
    lambda xp, x: x.argmax(axis=1),
    lambda xp, x: 2 - x / (1 + abs(x)) ** 2.5 // 1 % 3,
    lambda xp, x: np.float32(2) * x,
    lambda xp, x: (x > 3) & ~(x < 7) | (x == 9),
    lambda xp, x: x @ x.T,
    lambda xp, x: xp.matmul(x[None], x.T[None]),
    lambda xp, x: xp.einsum("ij,kj->ik", x, x),
    lambda xp, x: xp.tensordot(x, x, axes=((1,), (1,))),
    lambda xp, x: xp.where(x > 3, x, 0.0),
    lambda xp, x: xp.concatenate([x, x], axis=1) + xp.stack([x, x]).max(axis=0).repeat(2, axis=1),
    lambda xp, x: xp.split(x, [1], axis=1)[1],
    lambda xp, x: xp.pad(x, ((1, 0), (0, 2)), mode="edge"),
    lambda xp, x: xp.take_along_axis(x, xp.argsort(-x, axis=1), axis=1),
    lambda xp, x: xp.take(x, xp.asarray([2, 0]), axis=1),
    lambda xp, x: x[xp.asarray([0, 2]), 1:],
    lambda xp, x: x[x > 3],
    lambda xp, x: xp.cumsum(x, axis=1).clip(1, 20),
    lambda xp, x: xp.tril(x) - xp.triu(x, 1),
    lambda xp, x: xp.broadcast_to(x[:1], (5, 4)).copy(),
    lambda xp, x: xp.broadcast_arrays(x, x[:1])[1],
    lambda xp, x: xp.isfinite(xp.log(x + 1)) | xp.isnan(x),
    lambda xp, x: xp.linalg.norm(x, axis=1),
    lambda xp, x: xp.linalg.eigh(x @ x.T)[0],
    lambda xp, x: xp.lib.stride_tricks.sliding_window_view(x, (2, 2)).sum(axis=(-1, -2)),
    lambda xp, x: xp.full_like(x, 2, dtype="float64") + xp.eye(3, 4) + xp.linspace(0, 1, 4),
    lambda xp, x: x.transpose(1, 0).reshape(2, 6).astype("float16").swapaxes(0, 1).ravel(),
    lambda xp, x: xp.add(x, x, out=xp.empty_like(x)),
    lambda xp, x: xp.sum(x, axis=0, out=xp.zeros(4, "float32")),
]


@pytest.mark.parametrize("f", EXPRESSIONS)
def test_it_computes_what_numpy_computes_and_stays_on_the_device(f):
    there, here = f(cp, x34()), np.asarray(f(np, host(x34())))
    assert type(there).__module__ == "cupy" and type(there).__name__ == "ndarray"
    assert there.dtype == here.dtype and there.shape == here.shape
    np.testing.assert_array_equal(host(there), here)


def test_numpy_functions_find_their_device_twins():
    assert type(np.exp(x34())) is type(np.sum(x34())) is type(np.concatenate([x34(), x34()])) is cp.ndarray
    assert cp.get_array_module(1, x34()) is cp and cp.get_array_module(np.ones(1)) is np
    assert isinstance(cp.asnumpy(x34()), np.ndarray) and cp.result_type(x34(), np.float64) == np.float64


def test_views_share_memory_and_copies_do_not():
    x = x34()
    x[1:3] += 1
    x.T[0] = 7
    x.reshape(2, 6)[0, 1] = 8
    cp.split(x, 2, axis=1)[1][...] *= 0
    x[cp.array([0])][...] = 99
    x.T.ravel()[...] = 99
    x[0, 3][...] = 5
    list(x[1])[2][...] = 4
    assert host(x).tolist() == [[7, 8, 0, 5], [7, 6, 4, 0], [7, 10, 0, 0]]


@given(i=st.lists(st.integers(-9, 9), min_size=1, max_size=4))
def test_indices_beyond_the_end_wrap_silently(i):
    x, index = x34(), cp.asarray(i)
    assert np.array_equal(host(x[:, index]), host(x)[:, np.array(i) % 4])
    assert np.array_equal(host(cp.take(x, index, axis=0)), host(x)[np.array(i) % 3])
    x[..., index] = 0
    assert not host(x)[:, np.array(i) % 4].any()
    with pytest.raises(IndexError):
        x[3]


def test_repeated_indices_add_up_where_the_device_has_an_atomic_addition():
    from cupyx import scatter_add

    x = cp.zeros(3)
    scatter_add(x, cp.asarray([0, 0, 2]), cp.asarray([1.0, 2.0, 3.0]))
    assert host(x).tolist() == [3, 0, 3]
    with pytest.raises(TypeError, match="scatter_add only supports"):
        scatter_add(cp.zeros(3, "int64"), cp.asarray([0]), 1)


def test_fresh_memory_is_poisoned_and_the_pool_knows_what_lives():
    assert np.isnan(host(cp.empty(3))).all() and host(cp.empty_like(x34(), dtype="int32")).min() == 2**31 - 1
    before = cp.get_default_memory_pool().used_bytes()
    x = cp.zeros((10, 10))
    y = x[2:]
    del x
    assert cp.get_default_memory_pool().used_bytes() == before + 800
    del y
    assert cp.get_default_memory_pool().used_bytes() == before


def test_batched_products_of_bfloat16_are_refused():
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    x = cp.ones((2, 2, 2)).astype(bfloat16)
    with pytest.raises(TypeError):
        x @ x


# ------------------------------------------------------------------------------------------------ what is counted


@pytest.mark.parametrize(
    ("f", "launches", "syncs"),
    [
        (lambda x: x + 1, 1, 0),
        (lambda x: cp.exp(x).sum(axis=1), 2, 0),
        (lambda x: x.T[1:].reshape(9)[..., None], 1, 0),  # a transposed array cannot be reshaped in place
        (lambda x: x.reshape(4, 3)[1:, ::2].swapaxes(0, 1)[None].squeeze(0), 0, 0),
        (lambda x: x.astype("float32", copy=False), 0, 0),
        (lambda x: float(x.sum()), 1, 1),
        (lambda x: int(x[0, 0]), 0, 1),
        (lambda x: bool((x > 1).any()), 2, 1),
        (lambda x: x.max().item(), 1, 1),
        (lambda x: x.get(), 0, 1),
        (lambda x: [len(row) for row in x], 0, 0),
        (lambda x: x[x > 1], 2, 1),
        (lambda x: cp.where(x > 1), 2, 1),
        (lambda x: x.nonzero(), 1, 1),
        (lambda x: x.__setitem__(slice(1), 0), 1, 0),
        (lambda x: x.__iadd__(x), 1, 0),
        (lambda x: f"{x[0, 0]:.1f}", 0, 1),
        (lambda x: cp.cuda.Stream.null.synchronize(), 0, 1),
    ],
)
def test_launches_and_synchronisations_are_counted(f, launches, syncs):
    x = x34()
    with counting() as n:
        f(x)
    assert (n.launches, n.syncs, n.uploads) == (launches, syncs, 0)
    with counting() as n:
        cp.asarray([1.0, 2.0])
        cp.array(np.ones(3))
    assert n.uploads == 2


# ------------------------------------------------------------------------------------------------ against the real one

LISTING = """
import inspect, json, sys
import cupy, cupyx.scipy.special
modules = {"cupy": cupy, "cupy.linalg": cupy.linalg, "special": cupyx.scipy.special, "tricks": cupy.lib.stride_tricks}
def parameters(f):
    try: return list(inspect.signature(f).parameters)
    except (TypeError, ValueError): return None
found = {name: {n: parameters(getattr(m, n)) for n in dir(m)} for name, m in modules.items()}
json.dump(found | {"array": dict.fromkeys(dir(cupy.ndarray))}, sys.stdout)
"""


def test_every_name_and_keyword_exists_in_the_real_cupy():
    run = subprocess.run([sys.executable, "-c", LISTING], capture_output=True, text=True)
    if run.returncode:
        pytest.skip("CuPy is not installed")
    real = json.loads(run.stdout)
    assert [n for n in vars(cp) if not n.startswith("_") and n not in real["cupy"]] == []
    assert [n for n in vars(cp.ndarray) if not n.startswith("_") and n not in real["array"]] == []
    assert [n for n in [*names.SPECIAL, *names.SPECIAL_KERNELS] if n not in real["special"]] == []
    tables = {"cupy": names.KERNELS | names.VIEWS | names.SYNCHRONISING | names.LIBRARY, "cupy.linalg": names.LINALG}
    tables |= {"tricks": names.STRIDE_TRICKS, "special": names.SPECIAL_KERNELS}
    for module, table in tables.items():
        for name, text in table.items():
            theirs, ours = real[module][name], inspect.signature(eval(f"lambda {text}: None")).parameters
            assert theirs is None or set(ours) - {"x1", "x2"} <= set(theirs), name


def test_installing_twice_changes_nothing():
    assert standin.install() is cp is sys.modules["cupy"]
