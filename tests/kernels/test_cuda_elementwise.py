"""The kernels between products in every detail that a comparison of random arrays would miss: all 65,536 bfloat16, wide loads."""

import numpy as np
import pytest
import standin
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from support import host, spec

from minidit.autograd import Tensor
from minidit.kernels.cuda_launch import NULL, i32, launch, vector
from minidit.kernels.cuda_rows import column_sum
from minidit.ops import cast, gelu, self_attention

CUPY = standin.install()
REAL = not getattr(CUPY, "__standin__", False)
pytestmark = pytest.mark.skipif(not REAL and standin.raw.compiler() is None, reason="no g++ to run kernels on the CPU")
ml_dtypes = pytest.importorskip("ml_dtypes")
BF16 = np.dtype(ml_dtypes.bfloat16)
ALL = np.arange(1 << 16, dtype=np.uint16).view(BF16).reshape(256, 256)


def exact(x):
    """(gelu(x), gelu'(x)) in float64, with no cancellation (A.5)."""
    c0, c3 = np.sqrt(2 / np.pi), 0.044715
    phi, rest = (expit(s * 2 * c0 * (x + c3 * x**3)) for s in (1, -1))
    return x * phi, phi + 2 * x * phi * rest * c0 * (1 + 3 * c3 * x**2)


def wide(x):
    """In float64; a signalling NaN is a NaN too."""
    with np.errstate(invalid="ignore"):
        return host(x).astype(np.float64)


def unit(y):
    """The distance of two bfloat16 beside y."""
    return 2.0 ** (np.floor(np.log2(np.maximum(np.abs(y), 2.0**-126))) - 7)


@spec("A.5")
@pytest.mark.parametrize("width", [1, 4, 8])
def test_gelu_and_its_slope_are_rounded_to_the_nearest_for_all_bfloat16(width):
    a, ones, bias = CUPY.asarray(ALL), CUPY.asarray(np.ones_like(ALL)), CUPY.zeros(256, np.float32)
    y, g, bar = CUPY.empty(ALL.shape, BF16), CUPY.empty(ALL.shape, BF16), CUPY.empty(256, np.float32)
    grid, sizes = (256 // (32 * width), 1, 1), (i32(256), i32(256), i32(256))
    with standin.kernels():
        launch("elementwise", "bias_gelu", grid, 256, (a, bias, y, *sizes), VEC=width, STORAGE="bf16")
        args = (ones, a, bias, g, bar, NULL, NULL, *sizes)
        launch("elementwise", "gelu_backward", grid, 256, args, VEC=width, STORAGE="bf16")
    x = wide(ALL)
    finite = np.isfinite(x)
    for result, true in zip((y, g), exact(np.where(finite, x, 0)), strict=True):
        result = wide(result)
        assert (np.abs(result - true) <= 0.52 * unit(true) + 2.0**-118)[finite].all()
        assert np.isnan(result[np.isnan(x)]).all()
    assert host(y)[np.isposinf(x)] == np.inf


@spec("A.5", "A.12")
@given(st.sampled_from([8, 24, 264, 520]), st.sampled_from([1, 9, 300]), st.sampled_from(["float32", "bfloat16"]))
def test_a_bias_is_added_before_gelu_and_its_gradient_is_the_sum_over_the_rows(D, rows, dtype):
    """Against the plain text on the rounded numbers; several blocks of columns, several chunks, lanes beyond the last column."""
    r = np.random.default_rng(D + rows)
    dtype = BF16 if dtype == "bfloat16" else np.dtype(dtype)
    a, y_bar = (r.standard_normal((rows, D)).astype(np.float32).astype(dtype) for _ in range(2))
    bias = r.standard_normal(D).astype(np.float32)
    moved = [CUPY.asarray(x) for x in (y_bar, a, bias)]
    y, g, bar = CUPY.empty(a.shape, dtype), CUPY.empty(a.shape, dtype), CUPY.empty(D, np.float32)
    chunk = 16
    v = vector(D, *moved)
    assert v == (8 if dtype == BF16 else 4)
    grid = (-(-D // (32 * v)), -(-rows // chunk), 1)
    partial = CUPY.full((1, grid[1], D), np.nan, np.float32) if grid[1] > 1 else NULL
    counters = CUPY.zeros(grid[0], np.uint32) if grid[1] > 1 else NULL
    sizes = (i32(rows), i32(D), i32(chunk))
    with standin.kernels(5):
        kind = {"VEC": v, "STORAGE": "bf16" if dtype == BF16 else "float"}
        launch("elementwise", "bias_gelu", grid, 256, (moved[1], moved[2], y, *sizes), **kind)
        launch("elementwise", "gelu_backward", grid, 256, (*moved, g, bar, partial, counters, *sizes), **kind)
    x = wide(a) + bias
    value, vjp = gelu.plain(x)
    (expected,) = vjp(wide(y_bar))
    for result, true in ((y, value), (g, expected)):
        bound = unit(true) if dtype == BF16 else 2.0**-20
        assert (np.abs(wide(result) - true) <= bound).all()
    assert np.allclose(host(bar), expected.sum(axis=0), atol=2.0**-18 * rows**0.5 * 8)
    assert counters is NULL or not host(counters).any()


def test_a_lane_loads_sixteen_bytes_where_every_row_is_aligned():
    base = CUPY.zeros(4096, BF16)
    rows, floats = base[:1024].reshape(4, 256), CUPY.zeros(256, np.float32)
    assert vector(256, rows) == vector(256, rows, floats) == 8 and vector(256, floats) == 4
    assert vector(252, rows) == 4 and vector(255, rows) == 1  # rows of another length
    assert vector(256, base[4:1028].reshape(4, 256)) == 4 and vector(256, base[1:1025].reshape(4, 256)) == 1
    assert vector(8, base[:48].reshape(4, 12)[:, :8]) == 4  # rows that are 24 bytes apart
    assert vector(256, rows, floats[4:]) == 8 and vector(248, rows[:, :248], floats[2:250]) == 1


@pytest.mark.parametrize("n", [1, 4, 5, 8, 1000, 5000])
def test_a_cast_rounds_to_the_nearest_and_back_it_changes_nothing(n):
    r = np.random.default_rng(n)
    x = (r.standard_normal(n) * 10.0 ** r.integers(-30, 30, n)).astype(np.float32)
    x[: n // 2] = x[: n // 2].astype(BF16).astype(np.float32) * np.float32(1 + 2.0**-9)  # near the ties, and ties
    with standin.kernels() as state:
        state.launched.clear()
        y, vjp = cast.cuda(CUPY.asarray(x), dtype=BF16)
        (bar,) = vjp(y)
        back = bar()
        assert REAL or state.launched[-2:] == ["to_bfloat16", "to_float32"]  # before them, perhaps, their trial
        turned = cast.cuda(CUPY.asarray(x.reshape(1, -1)).T, dtype=BF16)[0]
    expected = x.astype(BF16)
    assert np.array_equal(host(y).view(np.uint16), expected.view(np.uint16)) and back.dtype == np.float32
    assert np.array_equal(host(back), expected.astype(np.float32)) and np.array_equal(host(turned)[:, 0], expected)


def test_a_gradient_of_another_type_and_other_types_are_left_to_the_array_library():
    x = CUPY.ones(5, np.float32)
    with standin.kernels() as state:
        _, vjp = cast.cuda(x, dtype=BF16)
        state.launched.clear()
        assert vjp(x)[0]().dtype == np.float32 and cast(x, dtype=np.float64).dtype == np.float64
        assert state.launched == []


@spec("A.3")
def test_a_sum_with_a_constant_costs_no_sum_over_its_stretched_axes():
    x, row = Tensor(CUPY.ones((4, 3), np.float32)), CUPY.ones(3, np.float32)
    y = x + row
    with standin.counting() as n:
        y.backward(CUPY.ones((4, 3), np.float32))
    assert host(x.grad).tolist() == [[1, 1, 1]] * 4 and (REAL or n.launches <= 2)  # the ones, and the copy into x.grad


@spec("A.12")
@pytest.mark.parametrize("D", [96, 99, 480])
def test_the_bias_of_keys_has_no_gradient_and_nothing_of_it_is_read(D):
    """One number more in all logits of a row: the softmax does not change. The kernel writes zeros where it does not look."""
    x = np.random.default_rng(D).standard_normal((70, D)).astype(np.float32)
    x[:, D // 3 : 2 * D // 3] = np.nan
    with standin.kernels(5):
        out = host(column_sum(CUPY.asarray(x), CUPY.empty(D, np.float32), (D // 3, 2 * D // 3)))
    assert (out[D // 3 : 2 * D // 3] == 0).all()
    for part in (slice(0, D // 3), slice(2 * D // 3, D)):
        assert np.allclose(out[part], x[:, part].astype(np.float64).sum(axis=0), atol=1e-4)
    r = np.random.default_rng(1)
    qkv, bar = r.standard_normal((1, 5, 24)), r.standard_normal((1, 5, 8))
    _, vjp = self_attention.plain(qkv, heads=2)
    assert np.abs(vjp(bar)[0][..., 8:16].sum(axis=(0, 1))).max() < 1e-15  # which is why
