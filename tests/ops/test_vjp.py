"""Every primitive: ⟨ȳ, J u⟩ = ⟨Jᵀ ȳ, u⟩, with J u by finite differences. A primitive that is not in the table fails."""

import numpy as np
import pytest
from finite import check_adjoint, flat
from hypothesis import given, settings
from ops.cases import CASES, CONSTANT, EQUATIONS, frozen, is_array, norm, settled, tuple_of
from support import agree, spec

from minidit import ops
from minidit.autograd import PRIMITIVES, Tensor

OURS = {n: p for n, p in PRIMITIVES.items() if p.__module__.startswith("minidit")}


def test_every_primitive_is_in_the_table_and_has_a_public_name():
    assert set(OURS) == set(CASES) == set(EQUATIONS) == set(ops.__all__)


def pairing(a, b):
    return sum(float((x * y).sum()) for x, y in zip(a, b, strict=True))


def along(f, args, u):
    """s ↦ f(x + s u), all outputs in one vector."""
    return lambda s: flat(tuple_of(f(*(a + s * d if is_array(a) else a for a, d in zip(args, u, strict=True)))))


def drawn_like(r, xs):
    return [r.standard_normal(x.shape) if is_array(x) else x for x in xs]


@spec("A.1", "A.3", "A.4", "A.5", "A.6", "A.7", "A.8", "A.9", "A.10", "A.11", "A.12", "A.13", "A.14", "A.15", "A.16", "A.17",
      "A.18", "A.19", "A.20", "A.21", "A.22", "A.23", "A.24", "A.25", "A.26", "A.27", "A.29", "A.30", "T.1", "T.2")  # fmt: skip
@pytest.mark.parametrize("name", sorted(CASES))
def test_the_adjoint_is_the_transpose_of_the_derivative(name):
    plain, equations = PRIMITIVES[name].plain, ("A.1", *tuple_of(EQUATIONS[name]))

    @settings(max_examples=25)
    @given(CASES[name])
    def check(case):
        args, static = case
        args, r = tuple(frozen(a) for a in args), np.random.default_rng(0)
        y, vjp = plain(*args, **static)
        bar = [frozen(b) for b in drawn_like(r, tuple_of(y))]
        bars = settled(vjp(*bar))
        assert len(bars) >= len(args)
        differentiable = [i for i, a in enumerate(args) if is_array(a) and i not in CONSTANT.get(name, ())]
        for i, a in enumerate(args):
            if i in differentiable:
                assert (bars[i].shape, bars[i].dtype) == (a.shape, a.dtype)
            elif is_array(a):
                assert bars[i] is None
        for one in [*([i] for i in differentiable), differentiable]:  # every argument alone, then all of them together
            u = [d if i in one else d * 0 if is_array(d) else 0 for i, d in enumerate(drawn_like(r, args))]
            back = pairing([bars[i] for i in one], [u[i] for i in one])
            f, floor = along(lambda *xs: plain(*xs, **static)[0], args, u), max(1e-3 * norm(tuple_of(y)), 1e-12)
            check_adjoint(back, f, flat(bar), bound=1e-6, of=equations, floor=floor)

    check()


@spec("A.1")
@pytest.mark.parametrize("name", sorted(CASES))
def test_an_adjoint_is_linear_and_may_be_asked_twice(name):
    @settings(max_examples=10)
    @given(CASES[name])
    def check(case):
        args, static = case
        y, vjp = PRIMITIVES[name].plain(*args, **static)
        r = np.random.default_rng(1)
        a, b = drawn_like(r, tuple_of(y)), drawn_like(r, tuple_of(y))
        of_a, of_b = settled(vjp(*a)), settled(vjp(*b))
        for x, p, q in zip(settled(vjp(*(3 * s - 2 * t for s, t in zip(a, b, strict=True)))), of_a, of_b, strict=True):
            if x is not None:
                agree(x, 3 * p - 2 * q, bound=1e-12, of="A.1")

    check()


@spec("A.1", "A.2")
@pytest.mark.parametrize("name", sorted(CASES))
def test_a_tensor_carries_the_same_numbers_as_the_plain_function(name):
    @settings(max_examples=10)
    @given(CASES[name])
    def check(case):
        args, static = case
        y, vjp = PRIMITIVES[name].plain(*args, **static)
        tensors = [Tensor(a) if is_array(a) else a for a in args]
        out = PRIMITIVES[name](*tensors, **static)
        assert isinstance(out, tuple) == isinstance(y, tuple)
        bar = drawn_like(np.random.default_rng(2), tuple_of(y))
        for t, v in zip(tuple_of(out), tuple_of(y), strict=True):
            assert is_array(t.data)
            agree(t, v, bound=0)
        if len(bar) > 1:
            total = 0.0
            for t, b in zip(out, bar, strict=True):
                total = (t * b).sum() + total
            total.backward()
        else:
            tuple_of(out)[0].backward(bar[0])
        for t, b in zip(tensors, settled(vjp(*bar)), strict=False):
            if is_array(b) and isinstance(t, Tensor):
                agree(t.grad, b, bound=1e-14, of="A.2")

    check()
