"""cuDNN's attention through its Python frontend: what it is asked, what comes out, and when it is taken."""

import ctypes
import importlib.util
import sys
import warnings
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import standin
from standin.device import COUNTS, Device
from support import agree, host

from minidit import ops
from minidit.kernels import cuda_attention, cudnn_attention
from minidit.kernels.cuda_graph import Captured

CUPY = standin.install()
REAL = not getattr(CUPY, "__standin__", False)
pytestmark = pytest.mark.skipif(REAL or standin.raw.compiler() is None, reason="the stand-in, and g++ to run kernels on the CPU")
B16 = 2.0**-8
ml_dtypes = pytest.importorskip("ml_dtypes")


class Tensor:
    """What the frontend knows of an array."""

    def __init__(self, dim=None, stride=None, data_type=None, name="", virtual=False):
        self.dim, self.stride, self.data_type, self.name, self.virtual = dim, stride, data_type, name, virtual

    def set_output(self, on):
        self.virtual = not on
        return self

    def set_dim(self, dim):
        self.dim = dim
        return self

    def set_stride(self, stride):
        self.stride = stride
        return self

    def set_data_type(self, kind):
        self.data_type = kind
        return self

    def at(self, address):
        dtype = np.dtype({"BFLOAT16": ml_dtypes.bfloat16, "FLOAT": np.float32}[self.data_type])
        span = sum((n - 1) * s for n, s in zip(self.dim, self.stride, strict=True)) + 1
        memory = (ctypes.c_char * (span * dtype.itemsize)).from_address(address)
        return np.ndarray(self.dim, dtype, memory, strides=[s * dtype.itemsize for s in self.stride])


class Graph:
    """One attention, or its adjoint, in the frontend's words; `execute` computes it."""

    wrong = 0.0

    def __init__(self, *, io_data_type, intermediate_data_type, compute_data_type, handle):
        assert (io_data_type, intermediate_data_type, compute_data_type) == ("BFLOAT16", "FLOAT", "FLOAT")
        self.handle, self.tensors, self.built = handle, [], False

    def tensor(self, *, dim, stride, data_type, name):
        assert len(dim) == len(stride) == 4 and stride[-1] == 1
        self.tensors.append(Tensor(dim, stride, data_type, name))
        return self.tensors[-1]

    def outputs(self, n):
        made = [Tensor(virtual=True) for _ in range(n)]
        self.tensors += made
        return made

    def sdpa(self, *, q, k, v, attn_scale, generate_stats, name):
        assert generate_stats
        self.scale, self.run = attn_scale, self.forward
        return self.outputs(2)

    def sdpa_backward(self, *, q, k, v, o, dO, stats, attn_scale, use_deterministic_algorithm, name):
        assert use_deterministic_algorithm
        self.scale, self.run = attn_scale, self.backward
        return self.outputs(3)

    def build(self, modes):
        assert modes == ["A", "FALLBACK"] and not any(t.virtual or t.dim is None for t in self.tensors)
        self.built = True

    def get_workspace_size(self):
        return 0

    def execute(self, pack, workspace, handle):
        assert self.built and handle is self.handle and type(workspace) is int and workspace
        assert list(pack) == self.tensors and all(type(p) is int for p in pack.values())
        assert handle.stream == CUPY.cuda.get_current_stream().ptr
        arrays = [t.at(p) for t, p in pack.items()]
        COUNTS.launches += 1
        if Device.capture() is None:
            self.run(*arrays)
        else:
            Device.capture().nodes.append((self.run, arrays, {}, ()))

    def forward(self, q, k, v, y, stats):
        q, k, v = (a.astype(np.float32) for a in (q, k, v))
        s = self.scale * (q @ k.swapaxes(-1, -2))
        stats[...] = np.log(np.exp(s - s.max(-1, keepdims=True)).sum(-1, keepdims=True)) + s.max(-1, keepdims=True)
        y[...] = np.exp(s - stats) @ v + Graph.wrong

    def backward(self, q, k, v, o, bar, stats, q_bar, k_bar, v_bar):
        q, k, v, o, bar = (a.astype(np.float32) for a in (q, k, v, o, bar))
        p = np.exp(self.scale * (q @ k.swapaxes(-1, -2)) - stats)
        s_bar = self.scale * p * (bar @ v.swapaxes(-1, -2) - (bar * o).sum(-1, keepdims=True))
        q_bar[...], k_bar[...], v_bar[...] = s_bar @ k, s_bar.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ bar


@pytest.fixture
def cudnn(monkeypatch):
    fake = ModuleType("cudnn")
    fake.pygraph, fake.create_handle = Graph, lambda: SimpleNamespace(stream=None)
    fake.data_type = SimpleNamespace(BFLOAT16="BFLOAT16", FLOAT="FLOAT")
    fake.heur_mode = SimpleNamespace(A="A", FALLBACK="FALLBACK")
    fake.set_stream = lambda *, handle, stream: setattr(handle, "stream", stream)
    monkeypatch.setitem(sys.modules, "cudnn", fake)
    monkeypatch.setattr(cudnn_attention, "installed", lambda: True)
    monkeypatch.setattr(cudnn_attention, "_chosen", {})
    monkeypatch.setattr(cudnn_attention, "_handles", {})
    monkeypatch.setattr(Graph, "wrong", 0.0)
    monkeypatch.setenv("MINIDIT_CUDNN", "auto")
    with standin.kernels() as fake.state:
        fake.state.launched.clear()
        yield fake


def case(B=2, N=5, heads=2, K=8):
    r = np.random.default_rng(0)
    qkv, bias = r.standard_normal((B, N, 3 * heads * K)), r.standard_normal(3 * heads * K)
    return qkv.astype(ml_dtypes.bfloat16), bias.astype(np.float32), heads


def takes(monkeypatch, ours, theirs):
    """What the clock says of the two, once."""
    times = iter((ours, theirs))
    monkeypatch.setattr(CUPY.cuda, "get_elapsed_time", lambda start, end: next(times))


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("shape", [(2, 5, 2, 8), (1, 1, 1, 16), (3, 70, 3, 24)])
def test_packed_rows_and_their_bias_are_the_plain_text_s(cudnn, monkeypatch, biased, shape):
    monkeypatch.setenv("MINIDIT_CUDNN", "on")
    qkv, bias, heads = case(*shape)
    there = CUPY.asarray(qkv)
    cuda_attention.fused_attention(there.copy(), CUPY.asarray(bias) if biased else None, heads)  # the race that is none
    cudnn.state.launched.clear()
    y, vjp = cuda_attention.fused_attention(there, CUPY.asarray(bias) if biased else None, heads)
    bar = np.random.default_rng(1).standard_normal(y.shape).astype(ml_dtypes.bfloat16)
    out, bias_bar = vjp(CUPY.asarray(bar))
    assert cudnn.state.launched == (["add_bias", "column_sum"] if biased else [])
    rows = qkv.astype(np.float64) + (bias if biased else 0)
    e, plain_vjp = ops.self_attention.plain(rows, heads=heads)
    (expected,) = plain_vjp(bar.astype(np.float64))
    agree(host(y).astype(np.float64), e, bound=8 * B16 * np.abs(e).max())
    agree(host(out).astype(np.float64), expected, bound=12 * B16 * np.abs(expected).max())
    assert (bias_bar is None) is not biased
    if biased:
        sums, D = host(out).astype(np.float32).sum(axis=(0, 1)), y.shape[-1]
        assert np.abs(expected.sum(axis=(0, 1))[D : 2 * D]).max() < 1e-13
        sums[D : 2 * D] = 0  # what remains of k̄ in sums is rounding
        agree(host(bias_bar), sums, bound=1e-4 * max(1, np.abs(host(bias_bar)).max()))


def test_the_faster_of_the_two_is_taken_once_a_shape(cudnn, monkeypatch):
    qkv, _, heads = case()
    for theirs, taken in ((1.0, True), (3.0, False)):
        cudnn_attention._chosen.clear()
        takes(monkeypatch, 2.0, theirs)
        for _ in range(2):
            with standin.counting() as spent:
                cudnn.state.launched.clear()
                cuda_attention.fused_attention(CUPY.asarray(qkv), None, heads)
        assert ("attention_bf16" not in cudnn.state.launched) is taken and spent.syncs == 0
        (reason,) = cudnn_attention.choices().values()
        assert reason.startswith("cuDNN: " if taken else "ours: ") and "ms by cuDNN" in reason


def test_what_disagrees_or_fails_is_not_taken_and_says_why(cudnn, monkeypatch):
    monkeypatch.setenv("MINIDIT_CUDNN", "on")
    qkv, _, heads = case()
    monkeypatch.setattr(Graph, "wrong", 1.0)
    with pytest.warns(RuntimeWarning, match="cuDNN's attention is not used: it differs by"):
        cuda_attention.fused_attention(CUPY.asarray(qkv), None, heads)
    cudnn_attention._chosen.clear()
    monkeypatch.setattr(Graph, "build", lambda self, modes: (_ for _ in ()).throw(RuntimeError("no engine for this\nor that")))
    with pytest.warns(RuntimeWarning, match="RuntimeError: no engine for this$"):
        cuda_attention.fused_attention(CUPY.asarray(qkv), None, heads)
    cudnn.state.launched.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        cuda_attention.fused_attention(CUPY.asarray(qkv), None, heads)
    assert cudnn.state.launched == ["attention_bf16"]


def test_a_recording_takes_what_was_chosen_before_and_holds_no_race(cudnn, monkeypatch):
    monkeypatch.setenv("MINIDIT_CUDNN", "on")
    qkv, _, heads = case()
    there, first = CUPY.asarray(qkv), CUPY.asarray(case(N=7)[0])
    f = Captured(lambda: cuda_attention.fused_attention(there, None, heads)[0], "attention")
    runs = [host(f()) for _ in range(3)]
    assert f.graph is not None and all(np.array_equal(a.view(np.uint16), runs[0].view(np.uint16)) for a in runs)
    stream, pool = CUPY.cuda.Stream(non_blocking=True), CUPY.cuda.MemoryPool()
    with stream, CUPY.cuda.using_allocator(pool.malloc):
        stream.begin_capture()
        cudnn.state.launched.clear()
        cuda_attention.fused_attention(first, None, heads)
        stream.end_capture()
    assert cudnn.state.launched == ["attention"] and len(cudnn_attention.choices()) == 1  # nothing new is asked there


def test_it_is_left_alone_where_it_is_not_installed_switched_off_or_not_asked_for_bfloat16(cudnn, monkeypatch):
    qkv, _, heads = case()
    for x, wish, there in ((qkv, "off", True), (qkv, "", True), (qkv.astype(np.float32), "on", True), (qkv, "auto", False)):
        monkeypatch.setenv("MINIDIT_CUDNN", wish)
        if not wish:
            monkeypatch.delenv("MINIDIT_CUDNN")
        monkeypatch.setattr(cudnn_attention, "installed", lambda there=there: there)
        cuda_attention.fused_attention(CUPY.asarray(x), None, heads)
    assert cudnn.state.launched == ["attention_bf16"] * 2 + ["attention", "attention_bf16"] and cudnn_attention.choices() == {}


def test_the_frontend_is_looked_for_without_importing_it():
    cudnn_attention.installed.cache_clear()
    assert cudnn_attention.installed() is (importlib.util.find_spec("cudnn") is not None)
