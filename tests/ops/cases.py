"""A hypothesis strategy for every primitive: arguments on which its value, its adjoint and its twins are checked."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import basic_indices, mutually_broadcastable_shapes

SIDES = st.integers(1, 4)
SHAPES = st.lists(SIDES, min_size=1, max_size=3).map(tuple)
SEEDS = st.integers(0, 2**32 - 1)
EPS = st.sampled_from([1e-6, 1e-3, 0.1])


def values(seed, shape, low=-2.0, high=2.0):
    """Numbers in (low, high)."""
    return np.random.default_rng(seed).uniform(low, high, shape)


def laid_out(x, layout):
    """The same numbers, differently placed in memory: as they are, backwards, with gaps, or with the axes reversed."""
    if layout == "backwards":
        return x[..., ::-1].copy()[..., ::-1]
    if layout == "gaps":
        return np.repeat(x, 2, axis=-1)[..., ::2]
    return np.asarray(x, order="F") if layout == "fortran" else x


@st.composite
def array(draw, shape, low=-2.0, high=2.0):
    layouts = st.sampled_from(["plain", "fortran", "backwards", "gaps"]) if shape else st.just("plain")
    return laid_out(values(draw(SEEDS), shape, low, high), draw(layouts))


def unary(low=-2.0, high=2.0, **static):
    """One array of any shape, and static arguments drawn from the strategies."""
    return st.tuples(st.tuples(SHAPES.flatmap(lambda s: array(s, low, high))), st.fixed_dictionaries(static))


@st.composite
def binary(draw, low=-2.0):
    a, b = draw(mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=4)).input_shapes
    args = [draw(array(a)), draw(array(b, low))]
    number = draw(st.sampled_from([None, None, None, 0, 1]))
    if number is not None and args[1 - number].ndim:
        args[number] = draw(st.floats(0.5, 2.0))
    return tuple(args), {}


@st.composite
def powers(draw):
    p = draw(st.sampled_from([2, 3, -1, 0.5, -0.5, 1, 2.5]))
    return (draw(SHAPES.flatmap(lambda s: array(s, 0.3, 2.0))),), {"p": p}


@st.composite
def clips(draw):
    x = draw(SHAPES.flatmap(array))
    return (x + 0.01 * np.sign(np.round(x) - x),), {"low": -1.0, "high": 1.0}  # a hair away from the corners


@st.composite
def reductions(draw):
    x = draw(SHAPES.flatmap(array))
    one = st.integers(-x.ndim, x.ndim - 1)
    several = st.sets(st.integers(0, x.ndim - 1), min_size=1).map(tuple)
    return (x,), {"axis": draw(st.none() | one | several), "keepdims": draw(st.booleans())}


@st.composite
def reshapes(draw):
    x = draw(SHAPES.flatmap(array))
    a = draw(st.sampled_from([d for d in range(1, x.size + 1) if x.size % d == 0]))
    return (x,), {"shape": draw(st.sampled_from([(a, x.size // a), (-1,), (a, -1), (1, x.size, 1)]))}


@st.composite
def transposes(draw):
    x = draw(SHAPES.flatmap(array))
    axes = draw(st.permutations(range(x.ndim)))
    return (x,), {"axes": tuple(a - x.ndim if draw(st.booleans()) else a for a in axes)}


@st.composite
def concats(draw):
    shape = draw(SHAPES)
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    lengths = draw(st.lists(SIDES, min_size=1, max_size=4))
    at = lambda n: tuple(n if i == axis % len(shape) else s for i, s in enumerate(shape))
    return tuple(draw(array(at(n))) for n in lengths), {"axis": axis}


@st.composite
def splits(draw):
    shape, parts = draw(SHAPES), draw(st.integers(1, 3))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    lengths = draw(st.lists(SIDES, min_size=1, max_size=3).map(tuple)) if draw(st.booleans()) else None
    along = shape[axis] * parts if lengths is None else sum(lengths)
    shape = tuple(along if i == axis % len(shape) else n for i, n in enumerate(shape))
    return (draw(array(shape)),), {"parts": parts if lengths is None else lengths, "axis": axis}


@st.composite
def getitems(draw):
    shape = draw(SHAPES)
    rows = st.lists(st.integers(-shape[0], shape[0] - 1), min_size=1, max_size=5).map(np.array)
    pairs = st.tuples(rows, st.just(Ellipsis))
    return (draw(array(shape)),), {"index": draw(basic_indices(shape, allow_newaxis=True) | rows | pairs)}


@st.composite
def stretches(draw):
    shape = draw(SHAPES)
    old = tuple(1 if draw(st.booleans()) else n for n in shape)[draw(st.integers(0, len(shape) - 1)) :]
    return (draw(array(old)),), {"shape": shape}


@st.composite
def patches(draw):
    B, C, h, w, p = (draw(st.integers(1, 3)) for _ in range(5))
    return (draw(array((B, C, h * p, w * p))),), {"patch_size": p}


@st.composite
def tokens(draw):
    B, C, h, w, p = (draw(st.integers(1, 3)) for _ in range(5))
    return (draw(array((B, h * w, p * p * C))),), {"patch_size": p, "size": (h * p, w * p)}


@st.composite
def upsamples(draw):
    return (draw(array(tuple(draw(SIDES) for _ in range(4)))),), {"factor": draw(st.integers(1, 3))}


@st.composite
def products(draw):
    leading = draw(mutually_broadcastable_shapes(num_shapes=2, max_dims=2, max_side=3)).input_shapes
    n, k, m = (draw(SIDES) for _ in range(3))
    return (draw(array((*leading[0], n, k))), draw(array((*leading[1], k, m)))), {}


def optional(draw, args, last):
    """The arguments with the last one given, given as None, or left out."""
    return draw(st.sampled_from([(*args, last), (*args, None), args]))


@st.composite
def linears(draw, bias=True, most=2.0):
    """most : of every entry. With 0.9, |W x + b| < 4.2: where GELU's tanh form has the digits for a finite difference."""
    shape, n, m = draw(st.lists(SIDES, max_size=2).map(tuple)), draw(SIDES), draw(SIDES)
    args, last = [draw(array(s, -most, most)) for s in ((*shape, n), (m, n))], draw(array((m,), -most, most))
    return (*args, last) if bias else optional(draw, args, last), {}


@st.composite
def mlps(draw):
    (x, weight, bias), _ = draw(linears(most=0.9))
    k = draw(SIDES)
    return (x, weight, bias, draw(array((k, len(weight)))), draw(array((k,)))), {}


@st.composite
def axes_of_softmax(draw):
    x = draw(SHAPES.flatmap(lambda s: array(s, -5.0, 5.0)))
    return (x,), {"axis": draw(st.integers(-x.ndim, x.ndim - 1))}


@st.composite
def norms(draw, parameters):
    shape = (*draw(SHAPES)[:2], draw(st.integers(1, 6)))
    return (draw(array(shape)), *(draw(array(shape[-1:])) for _ in range(parameters))), {"eps": draw(EPS)}


@st.composite
def modulations(draw):
    B, N, D = draw(SIDES), draw(SIDES), draw(st.integers(1, 6))
    return (draw(array((B, N, D))), draw(array((B, D))), draw(array((B, D)))), {"eps": draw(EPS)}


@st.composite
def groups(draw):
    g, per, B, H, W = (draw(st.integers(1, 3)) for _ in range(5))
    C = g * per
    return (draw(array((B, C, H, W))), draw(array((C,))), draw(array((C,)))), {"groups": g, "eps": draw(EPS)}


@st.composite
def attentions(draw):
    leading = draw(st.lists(st.integers(1, 3), max_size=2).map(tuple))
    N, M, K, V = (draw(SIDES) for _ in range(4))
    args = draw(array((*leading, N, K))), draw(array((*leading, M, K))), draw(array((*leading, M, V)))
    mask = draw(array(draw(st.sampled_from([(N, M), (1, M), (M,), (*leading, N, M)]))))
    return optional(draw, args, mask), {}


@st.composite
def self_attentions(draw):
    B, N, h, K = draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return (draw(array((B, N, 3 * h * K))),), {"heads": h}


@st.composite
def head_norms(draw):
    (qkv,), static = draw(self_attentions())
    K = qkv.shape[-1] // 3 // static["heads"]
    args = qkv, draw(array((K,))), draw(array((K,)))
    angles = draw(array((qkv.shape[1], K // 2), -4.0, 4.0))
    tables = (np.cos(angles), np.sin(angles)) if K % 2 == 0 and draw(st.booleans()) else ()
    return (*args, *tables), {**static, "eps": draw(EPS)}


@st.composite
def turns(draw, parts=1):
    """Heads, and tables of the cosines and sines of any angles: in packed rows if there are three parts."""
    B, N, h, pairs = draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    angles = draw(array((N, pairs), -4.0, 4.0))
    shape = (B, N, 3 * h * 2 * pairs) if parts == 3 else (B, N, h, 2 * pairs)
    return (draw(array(shape)), np.cos(angles), np.sin(angles)), {"heads": h} if parts == 3 else {}


@st.composite
def residuals(draw):
    B, N, D = draw(SIDES), draw(SIDES), draw(SIDES)
    return (draw(array((B, N, D))), draw(array((B, D))), draw(array((B, N, D)))), {}


@st.composite
def projected_attentions(draw):
    B, N, n, h, K = (draw(st.integers(1, 3)) for _ in range(5))
    return (draw(array((B, N, n))), draw(array((3 * h * K, n))), draw(array((3 * h * K,)))), {"heads": h}


@st.composite
def linear_residuals(draw, then=0):
    B, N, n, D = draw(SIDES), draw(SIDES), draw(SIDES), draw(SIDES) + (2 if then else 0)
    args = draw(array((B, N, D))), draw(array((B, D))), draw(array((B, N, n))), draw(array((D, n))), draw(array((D,)))
    return (*args, *(draw(array((B, D))) for _ in range(then))), {"eps": draw(st.sampled_from([1e-3, 0.1]))} if then else {}


@st.composite
def mlp_residuals(draw, then=0):
    B, N, n, D = draw(SIDES), draw(SIDES), draw(SIDES), draw(SIDES) + (2 if then else 0)
    tokens = draw(array((B, N, D))), draw(array((B, D))), draw(array((B, N, D)))
    first = draw(array((n, D), -0.9, 0.9)), draw(array((n,), -0.9, 0.9))
    args = *tokens, *first, draw(array((D, n))), draw(array((D,)))
    return (*args, *(draw(array((B, D))) for _ in range(then))), {"eps": draw(st.sampled_from([1e-3, 0.1]))} if then else {}


@st.composite
def convolutions(draw):
    B, C, O, kh, kw, stride = (draw(st.integers(1, 3)) for _ in range(6))
    padding = draw(st.integers(0, 2) | st.tuples(st.integers(0, 2), st.integers(0, 2)))
    around = 2 * padding if isinstance(padding, int) else sum(padding)
    H, W = (max(1, k - around) + draw(st.integers(0, 4)) for k in (kh, kw))
    args, bias = (draw(array((B, C, H, W))), draw(array((O, C, kh, kw)))), draw(array((O,)) | array((B, O)))
    return optional(draw, args, bias), {"stride": stride, "padding": padding}


@st.composite
def tables(draw):
    K, shape = draw(SIDES), draw(st.lists(SIDES, max_size=2).map(tuple))
    index = np.random.default_rng(draw(SEEDS)).integers(0, K, shape)
    return (draw(array((K, draw(SIDES)))),), {"index": index}


@st.composite
def squares(draw):
    shape = draw(SHAPES)
    args, weight = (draw(array(shape)), draw(array(shape))), draw(array(shape[:1], 0.1, 2.0))
    return optional(draw, args, weight), {}


@st.composite
def classifications(draw):
    B, K = draw(SIDES), draw(SIDES)
    labels = np.random.default_rng(draw(SEEDS)).integers(0, K, B)
    return (draw(array((B, K), -5.0, 5.0)),), {"labels": labels}


@st.composite
def gaussians(draw):
    shape = draw(SHAPES)
    return (draw(array(shape)), draw(array(shape))), {}


CASES = {
    "add": binary(), "sub": binary(), "mul": binary(), "div": binary(low=0.3), "neg": unary(), "power": powers(), "exp": unary(),
    "log": unary(low=0.3), "sqrt": unary(low=0.3), "tanh": unary(), "sigmoid": unary(-6, 6), "silu": unary(-6, 6),
    "cast": unary(dtype=st.just("float64")),
    # left of -4 the tanh form keeps few digits of its tail, too few for a finite difference; mpmath holds the values there
    "gelu": unary(-4, 5), "gelu_erf": unary(-5, 5), "clip": clips(),
    "sum": reductions(), "mean": reductions(),
    "reshape": reshapes(), "transpose": transposes(), "concat": concats(), "split": splits(), "getitem": getitems(),
    "broadcast_to": stretches(), "patchify": patches(), "unpatchify": tokens(), "upsample_nearest": upsamples(),
    "matmul": products(), "linear": linears(bias=False), "linear_gelu": linears(most=0.9), "mlp": mlps(),
    "softmax": axes_of_softmax(), "standardise": norms(0), "layer_norm": norms(2), "layer_norm_modulate": modulations(),
    "rms_norm": norms(1), "group_norm": groups(), "group_norm_silu": groups(),
    "attention": attentions(), "self_attention": self_attentions(), "unpacked": self_attentions(), "qk_norm": head_norms(),
    "rope": turns(), "qk_rope": turns(parts=3), "gated_residual": residuals(),
    "projected_attention": projected_attentions(), "linear_residual": linear_residuals(),
    "linear_residual_modulate": linear_residuals(then=2), "mlp_residual": mlp_residuals(),
    "mlp_residual_modulate": mlp_residuals(then=2),
    "conv2d": convolutions(), "embedding": tables(),
    "mse": squares(), "cross_entropy": classifications(), "gaussian_kl": gaussians(),
}  # fmt: skip

CONSTANT = {"mse": {2}, "rope": {1, 2}, "qk_rope": {1, 2}, "qk_norm": {3, 4}}  # arguments without a gradient; it says so

EQUATIONS = {
    "add": "A.3", "sub": "A.3", "mul": "A.3", "div": "A.3", "neg": "A.1", "power": "A.1", "exp": "A.1", "log": "A.1",
    "sqrt": "A.1", "tanh": "A.1", "sigmoid": "A.1",
    "silu": "A.4", "gelu": "A.5", "gelu_erf": "A.6", "clip": "A.1", "cast": "A.1", "sum": "A.7", "mean": "A.8",
    "reshape": "A.9", "transpose": "A.9", "concat": "A.9", "split": "A.9", "getitem": "A.9", "broadcast_to": "A.3",
    "patchify": "T.1", "unpatchify": "T.2", "upsample_nearest": "A.10", "matmul": "A.11", "linear": "A.12",
    "linear_gelu": ("A.12", "A.5"), "mlp": "N.5", "softmax": "A.13", "standardise": "A.14", "layer_norm": "A.14",
    "layer_norm_modulate": "A.15", "rms_norm": "A.16", "group_norm": "A.17", "group_norm_silu": ("A.4", "A.17"),
    "attention": ("A.18", "A.19"), "self_attention": ("A.19", "A.20"), "unpacked": "A.20", "qk_norm": ("A.16", "A.29"),
    "rope": "A.30", "qk_rope": "A.30",
    "projected_attention": ("A.12", "A.19"), "linear_residual": ("A.12", "A.21"),
    "linear_residual_modulate": ("A.12", "A.15", "A.21"), "mlp_residual": ("A.5", "A.12", "A.21"), "gated_residual": "A.21",
    "mlp_residual_modulate": ("A.5", "A.12", "A.15", "A.21"),
    "conv2d": ("A.22", "A.23"), "embedding": "A.24", "mse": "A.25", "cross_entropy": "A.26",
    "gaussian_kl": "A.27",
}  # fmt: skip


def is_array(x):
    return isinstance(x, np.ndarray)


def tuple_of(y):
    return y if isinstance(y, tuple) else (y,)


def settled(bars):
    """The bars with the lazy ones computed."""
    return tuple(b() if callable(b) else b for b in bars)


def norm(arrays):
    return math.sqrt(sum(float((np.asarray(a, np.float64) ** 2).sum()) for a in arrays if is_array(a)))


def frozen(x):
    """A view of the array that cannot be written to."""
    view = x.view() if is_array(x) else x
    if is_array(view):
        view.flags.writeable = False
    return view
