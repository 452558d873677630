"""Layer norm in registers: rows of every width, by one warp or by four, and what must be exactly zero."""

import numpy as np
import pytest
import standin
from hypothesis import given, settings
from hypothesis import strategies as st
from support import agree, host, spec

from minidit.autograd import NoTwin
from minidit.kernels.cuda_normalise import held_in_registers
from minidit.ops import layer_norm, layer_norm_modulate

CUPY = standin.install()
REAL = not getattr(CUPY, "__standin__", False)
pytestmark = pytest.mark.skipif(not REAL and standin.raw.compiler() is None, reason="no g++ to run kernels on the CPU")


def bfloat16():
    return np.dtype(pytest.importorskip("ml_dtypes").bfloat16)


@pytest.mark.parametrize("D, most, storage, variant", [
    (384, 8, "bf16", (4, 3, 1)),  # 8 at once would leave every fourth lane idle
    (768, 8, "bf16", (8, 3, 1)), (1152, 8, "bf16", (4, 9, 1)), (1536, 8, "bf16", (8, 6, 1)), (1544, 8, "bf16", (8, 2, 4)),
    (384, 1, "bf16", (1, 12, 1)), (1024, 4, "float", (4, 8, 1)), (1152, 4, "float", (4, 3, 4)), (1, 1, "float", (1, 1, 1)),
])  # fmt: skip
def test_a_row_is_held_by_as_few_registers_and_warps_as_it_needs(D, most, storage, variant):
    chosen = held_in_registers(D, most, storage)
    assert (chosen["VEC"], chosen["STEPS"], chosen["ROW_WARPS"]) == variant
    assert chosen["VEC"] * chosen["STEPS"] * chosen["ROW_WARPS"] * 32 >= D


def test_rows_that_no_block_can_hold_are_left_to_the_plain_text():
    with pytest.raises(NoTwin, match="6148"):
        held_in_registers(6148, 4, "bf16")
    x = CUPY.ones((2, 4100), np.float32)
    with standin.kernels() as state:
        state.launched.clear()
        y = layer_norm(x, x[0], x[0])
    assert (host(y) == 1).all() and (REAL or "layer_norm" not in state.launched)


@spec("A.15")
@settings(max_examples=6)
@given(
    st.sampled_from([1100, 1540, 3000]),
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
