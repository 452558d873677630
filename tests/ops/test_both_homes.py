"""NumPy and CuPy give the same values and the same bars, and what a primitive makes lives where its arguments live."""

import numpy as np
import pytest
import standin
from hypothesis import given, settings
from ops.cases import CASES, EQUATIONS, is_array, tuple_of
from support import agree, host

from minidit import ops
from minidit.autograd import Tensor, no_grad
from minidit.backend import xp_of

CUPY = standin.install()


def moved(x):
    if isinstance(x, tuple):
        return tuple(moved(i) for i in x)
    return CUPY.asarray(x) if is_array(x) else x


def run(name, args, static, bars):
    """Values and gradients through Tensors, so that whatever the tape does to arrays is done to them too."""
    tensors = [Tensor(a) if hasattr(a, "shape") else a for a in args]
    out = tuple_of(getattr(ops, name)(*tensors, **static))
    total = 0.0
    for y, b in zip(out, bars, strict=True):
        total = total + (y * b).sum()
    total.backward()
    return [y.data for y in out], [t.grad if isinstance(t, Tensor) else None for t in tensors]


@pytest.mark.parametrize("name", sorted(CASES))
def test_both_homes_give_the_same_numbers(name):
    @settings(max_examples=10)
    @given(CASES[name])
    def check(case):
        args, static = case
        with no_grad():
            ys = tuple_of(getattr(ops, name)(*args, **static))
        bars = [np.random.default_rng(0).standard_normal(np.shape(y)) for y in ys]
        here = run(name, args, static, bars)
        there = run(name, [moved(a) for a in args], {k: moved(v) for k, v in static.items()}, [moved(b) for b in bars])
        for kind, (a, b) in enumerate(zip(here, there, strict=True)):
            for x, y in zip(a, b, strict=True):
                assert (x is None) == (y is None)
                if x is not None:
                    assert xp_of(y) is CUPY and y.shape == x.shape and y.dtype == x.dtype, kind
                    agree(host(y), x, bound=1e-12, of=EQUATIONS[name])

    check()


@pytest.mark.parametrize("name", sorted(CASES))
def test_no_primitive_waits_for_the_device(name):
    @settings(max_examples=5)
    @given(CASES[name])
    def check(case):
        args, static = [moved(a) for a in case[0]], {k: moved(v) for k, v in case[1].items()}
        with standin.counting() as n:
            out = getattr(ops, name)(*(Tensor(a) if hasattr(a, "shape") else a for a in args), **static)
            y = tuple_of(out)[0]
            y.backward(CUPY.ones_like(y.data))
        assert n.syncs == 0

    check()
