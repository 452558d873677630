"""Layer norm in registers: rows of every width, by one warp or by four, and what must be exactly zero."""

import numpy as np
import pytest
import standin
from hypothesis import given, settings
from hypothesis import strategies as st
from standin.cublas import imitated_cublas
from support import agree, host, spec

from minidit.autograd import NoTwin
from minidit.kernels.cuda_normalise import held_in_registers
from minidit.ops import layer_norm, layer_norm_modulate, linear_residual_modulate

CUPY = standin.install()
REAL = not getattr(CUPY, "__standin__", False)
pytestmark = pytest.mark.skipif(not REAL and standin.raw.compiler() is None, reason="no g++ to run kernels on the CPU")


def bfloat16():
    return np.dtype(pytest.importorskip("ml_dtypes").bfloat16)


@pytest.mark.parametrize("D, most, variant", [
    (384, 8, (4, 3, 1, 1)),  # 8 at once would leave every fourth lane idle
    (768, 8, (4, 3, 2, 1)), (1152, 8, (4, 3, 3, 1)), (1024, 8, (8, 1, 4, 1)), (2048, 8, (8, 1, 8, 1)), (3080, 8, (8, 2, 8, 0)),
    (384, 1, (1, 12, 1, 1)), (1024, 4, (4, 2, 4, 1)), (1, 1, (1, 1, 1, 0)), (160, 8, (8, 1, 1, 0)), (6144, 8, (8, 3, 8, 1)),
])  # fmt: skip
def test_a_row_is_held_by_few_lanes_with_few_numbers_each(D, most, variant):
    chosen = held_in_registers(D, most)
    assert tuple(chosen[name] for name in ("VEC", "STEPS", "ROW_WARPS", "WHOLE")) == variant
    lanes = chosen["VEC"] * chosen["STEPS"] * chosen["ROW_WARPS"] * 32
    assert lanes >= D and (lanes == D) == bool(chosen["WHOLE"])


def test_rows_that_no_block_can_hold_are_left_to_the_plain_text():
    with pytest.raises(NoTwin, match="6148"):
        held_in_registers(6148, 4)
    x = CUPY.ones((2, 6148), np.float32)
    with standin.kernels() as state:
        state.launched.clear()
        y = layer_norm(x, x[0], x[0])
    assert (host(y) == 1).all() and (REAL or "layer_norm" not in state.launched)


@spec("A.12", "A.15", "A.21")
@settings(max_examples=8)
@given(
    st.sampled_from([24, 384, 400, 768, 1152, 1100, 1540]),
    st.sampled_from([1, 9, 70]),
    st.sampled_from(["float32", "bfloat16"]),
    st.sampled_from([0, 1, 3, 5]),
)
def test_the_end_of_a_branch_and_the_next_norm_are_one_kernel_forwards_and_backwards(D, N, dtype, order):
    r = np.random.default_rng(D + N)
    dtype = bfloat16() if dtype == "bfloat16" else np.dtype(dtype)
    drawn = lambda *shape: r.standard_normal(shape).astype(np.float32).astype(dtype)
    x, h, both, weight = drawn(3, N, D), drawn(3, N, 6), drawn(3, 3 * D), drawn(D, 6)
    bias, bars = drawn(D).astype(np.float32), (drawn(3, N, D), drawn(3, N, D))
    pieces = lambda a: (a[:, :D], a[:, D : 2 * D], a[:, 2 * D :])
    wide = [a.astype(np.float64) for a in (x, h, both, weight, bias)]
    gate, shift, scale = pieces(wide[2])
    y, plain_vjp = linear_residual_modulate.plain(wide[0], gate, wide[1], *wide[3:], shift, scale)
    expected = plain_vjp(*(bar.astype(np.float64) for bar in bars))
    with standin.kernels(order) as state, imitated_cublas():
        x, h, both, weight, bias, *bars = map(CUPY.asarray, (x, h, both, weight, bias, *bars))
        gate, shift, scale = pieces(both)
        out, vjp = linear_residual_modulate.cuda(x, gate, h, weight, bias, shift, scale)
        state.launched.clear()
        answers = [b() if callable(b) else b for b in vjp(*bars)]
        assert REAL or state.launched == ["layer_norm_backward", "column_sum"]
    for a, e in zip((*out, *answers), (*y, *expected), strict=True):
        e = e() if callable(e) else e
        size = np.abs(e).max()
        agree(host(a).astype(np.float64) / size, e / size, bound=2.0**-6 if dtype != np.float32 else 2.0**-17, of="A.15")


@spec("A.15")
@settings(max_examples=6)
@given(
    st.sampled_from([1100, 1540, 3080]),
    st.sampled_from([1, 9, 70]),
    st.sampled_from(["float32", "bfloat16"]),
    st.sampled_from([0, 1, 5]),
)
def test_rows_longer_than_a_warp_can_hold_are_the_rows_of_the_plain_text(D, N, dtype, order):
    r = np.random.default_rng(D + N)
    dtype = bfloat16() if dtype == "bfloat16" else np.dtype(dtype)
    x, shift, scale, bar, onto = (r.standard_normal(s).astype(np.float32).astype(dtype) for s in
                                  ((2, N, D), (2, D), (2, D), (2, N, D), (2, N, D)))  # fmt: skip
    e, plain_vjp = layer_norm_modulate.plain(*(a.astype(np.float64) for a in (x, shift, scale)))
    with standin.kernels(order):
        y, vjp = layer_norm_modulate.cuda(*map(CUPY.asarray, (x, shift, scale)))
        through, shift_bar, scale_bar = vjp(CUPY.asarray(bar))
        bars = host(through(CUPY.asarray(onto))), host(shift_bar()), host(scale_bar())
    x_bar, *expected = plain_vjp(bar.astype(np.float64))
    for a, true in zip((host(y), *bars), (e, x_bar + onto.astype(np.float64), *expected), strict=True):
        size = np.abs(true).max()
        agree(a.astype(np.float64) / size, true / size, bound=2.0**-7 if dtype != np.float32 else 2.0**-18, of="A.15")


@spec("A.14", "A.15")
@given(st.floats(-1e3, 1e3, width=32), st.floats(-2, 2, width=32), st.floats(-1e3, 1e3, width=32))
def test_a_row_of_one_number_is_its_shift_and_sends_exactly_nothing_back(x, scale, bar):
    one = lambda v, *shape: CUPY.asarray(np.full(shape, v, np.float32))
    with standin.kernels():
        y, vjp = layer_norm_modulate.cuda(one(x, 1, 3, 1), one(0.5, 1, 1), one(scale, 1, 1))
        through, shift_bar, scale_bar = vjp(one(bar, 1, 3, 1))
        assert (host(y) == 0.5).all() and not host(through()).any() and not host(scale_bar()).any()
        assert host(shift_bar()) == np.float32(np.float32(bar + bar) + bar)
