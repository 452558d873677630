"""Kernels that no GPU has run are asked whether they agree before their first use; one that lies is never heard."""

import numpy as np
import pytest
import standin
from support import agree, host

from minidit import ops
from minidit.autograd import NoTwin
from minidit.kernels import cuda_attention, cuda_attention_bf16, cuda_blas, cuda_rows, cuda_trust
from minidit.kernels.cuda_attention_bf16 import Bf16Kernels

CUPY = standin.install()
REAL = not getattr(CUPY, "__standin__", False)
pytestmark = pytest.mark.skipif(REAL or standin.raw.compiler() is None, reason="the stand-in, and g++ to run kernels on the CPU")
ml_dtypes = pytest.importorskip("ml_dtypes")
BF16 = ml_dtypes.bfloat16


@pytest.fixture(autouse=True)
def nothing_asked_yet(monkeypatch):
    monkeypatch.setattr(cuda_trust, "_agrees", {})


def rows(*shape, seed=0):
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)


def lying(monkeypatch, name):
    """Bf16Kernels.<name> writes a 9 somewhere. Returns the list of its calls."""
    true, calls = getattr(Bf16Kernels, name), []

    def lie(self, *args):
        calls.append(name)
        true(self, *args)
        target = args[-1] if name == "backward" else args[-2:-1]  # the bars, or y
        target[-1][..., 0] = 9

    monkeypatch.setattr(Bf16Kernels, name, lie)
    return calls


@pytest.mark.parametrize("name", ["forward", "backward"])
def test_attention_that_disagrees_is_left_to_the_proved_kernel_with_one_warning(name, monkeypatch):
    calls = lying(monkeypatch, name)
    qkv, bar = rows(2, 20, 3 * 32).astype(BF16), rows(2, 20, 32, seed=1).astype(BF16)
    with standin.kernels() as state:
        with pytest.warns(RuntimeWarning, match="attention in bfloat16 is not used: it differs by") as warned:
            cuda_attention.fused_attention(CUPY.asarray(qkv), None, 2)
        state.launched.clear()
        y, vjp = cuda_attention.fused_attention(CUPY.asarray(qkv), None, 2)  # not a second warning, which would be an error
        answers = host(y), host(vjp(CUPY.asarray(bar))[0])
        assert set(state.launched) == {"attention", "attention_backward"} and len(calls) == 1 and len(warned) == 1
    y, vjp = ops.self_attention.plain(qkv.astype(np.float64), heads=2)
    for a, e in zip(answers, (y, vjp(bar.astype(np.float64))[0]), strict=True):
        agree(a.astype(np.float64), e, bound=2.0**-6 * np.abs(e).max())


def test_attention_through_a_mask_that_disagrees_is_left_to_the_plain_text(monkeypatch):
    lying(monkeypatch, "backward")
    q, k, v = (CUPY.asarray(rows(1, 2, 9, 16, seed=i).astype(BF16)) for i in range(3))
    with standin.kernels(), pytest.warns(RuntimeWarning, match="attention"), pytest.raises(NoTwin, match="not trusted"):
        cuda_attention_bf16.attention(q, k, v, CUPY.asarray(rows(9, 9)))


def test_a_kernel_that_fails_is_not_used(monkeypatch):
    def fails(*args):
        raise ValueError("no such instruction\nand a long listing")

    monkeypatch.setattr(Bf16Kernels, "forward", fails)
    with standin.kernels(), pytest.warns(RuntimeWarning, match="is not used: ValueError: no such instruction$"):
        cuda_attention.fused_attention(CUPY.asarray(rows(1, 5, 48).astype(BF16)), None, 1)


CALLS = {
    "GELU": lambda: ops.linear_gelu(*map(CUPY.asarray, (rows(3, 8), rows(16, 8), rows(16)))),
    "layer norm": lambda: ops.layer_norm_modulate(*map(CUPY.asarray, (rows(2, 3, 16), rows(2, 16), rows(2, 16)))),
    "casts": lambda: ops.cast(CUPY.asarray(rows(3, 8)), dtype=BF16),
}


@pytest.mark.parametrize("what", CALLS)
def test_the_other_new_kernels_are_asked_once_and_the_plain_text_replaces_one_that_lies(what, monkeypatch):
    with standin.kernels() as state:
        right = host(CALLS[what]())
        first = len(state.launched)
        CALLS[what]()
        assert len(state.launched) < 2 * first  # the trial is not run again
        cuda_trust._agrees.clear()
        monkeypatch.setattr(cuda_trust, "_off", lambda a, b: 0.5)
        with pytest.warns(RuntimeWarning, match=f"the kernel of {what} is not used: it differs by 5.0e-01"):
            replaced = CALLS[what]()
        state.launched.clear()
        CALLS[what]()
        assert state.launched == []
    agree(host(replaced).astype(np.float64), right.astype(np.float64), bound=1e-5 * np.abs(right.astype(np.float64)).max())


def test_a_number_that_is_nan_agrees_with_nothing():
    assert cuda_trust._off(np.array([np.nan, 1.0]), np.array([1.0, 1.0])) == np.inf


def test_nothing_is_asked_while_a_stream_is_captured():
    x = CUPY.asarray(rows(3, 8))
    stream = CUPY.cuda.Stream(non_blocking=True)
    with standin.kernels(), stream:
        stream.begin_capture()
        try:
            with pytest.raises(NoTwin, match="not trusted"):
                cuda_rows.converted(x, BF16)
        finally:
            stream.end_capture()
        assert cuda_trust._agrees == {}
        assert cuda_blas.to_bfloat16(x).dtype.name == "bfloat16" and cuda_trust._agrees


def test_what_was_refused_where_nothing_compiles_is_asked_again_where_it_does():
    """An answer belongs to the compiler that was asked, not to the process."""
    x = rows(4, 8)

    def trial():
        with_kernels.append(hasattr(CUPY, "RawModule"))
        if not with_kernels[-1]:
            raise NoTwin("nothing compiles here")
        return [(CUPY.asarray(x), x)]

    with_kernels = []
    assert not cuda_trust.agrees("a kernel", "float", (), trial)
    with standin.kernels():
        assert cuda_trust.agrees("a kernel", "float", (), trial)
    assert not cuda_trust.agrees("a kernel", "float", (), trial) and with_kernels == [False, True]
