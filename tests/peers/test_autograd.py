"""Values and gradients of random graphs of all our primitives are those of torch.autograd."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install 'minidit[peers]')")
import torch.nn.functional as F  # noqa: E402

import minidit as md  # noqa: E402
from minidit.autograd import PRIMITIVES, Tensor  # noqa: E402

ops = md.ops
B, N, D = 2, 4, 8  # every step takes values (B, N, D) and makes one: N is a 2 × 2 picture, D its channels
IMAGE = (B, D, 2, 2)


def image(x):
    """(B, N, D) as (B, D, 2, 2); the same text serves both libraries."""
    return (x.transpose(0, 2, 1) if isinstance(x, Tensor) else x.permute(0, 2, 1)).reshape(*IMAGE)


def tokens(x):
    flat = x.reshape(B, D, N)
    return flat.transpose(0, 2, 1) if isinstance(x, Tensor) else flat.permute(0, 2, 1)


def positive(x):
    return x * x + 0.5


def row(x):
    """(B, D): what is told to a whole sample."""
    return x[:, 1]


ANGLE = np.random.default_rng(5).uniform(0, 6, (N, 2))
COS, SIN = np.cos(ANGLE), np.sin(ANGLE)


def packed(a, b, c):
    """torch: (B, N, 3, heads, K)"""
    return torch.cat([a, b, c], -1).reshape(B, N, 3, 2, 4)


def mixed(q, k, v):
    """(B, heads, N, K) each, as (B, N, D); the same text serves both libraries."""
    y = q * k + v
    return (y.transpose(0, 2, 1, 3) if isinstance(y, Tensor) else y.permute(0, 2, 1, 3)).reshape(B, N, D)


def added(parts):
    q, k, v = parts
    return q * k + v


def turned(x):
    """torch: pairs of neighbours of every head as complex numbers, turned by the angle of their token."""
    turn = torch.polar(torch.ones(N, 2, dtype=torch.float64), torch.tensor(ANGLE))[:, None]
    z = torch.view_as_complex(x.reshape(B, N, 2, 2, 2).contiguous()) * turn
    return torch.view_as_real(z).reshape(B, N, D)


def vector(x):
    """(D,): a weight."""
    return x[0, 2]


def square(x):
    """(D, D): a weight that depends on x."""
    return x.reshape(D, B * N * D // D)


def heads(x):
    """(B, 2, N, D/2)"""
    cut = x.reshape(B, N, 2, D // 2)
    return cut.transpose(0, 2, 1, 3) if isinstance(x, Tensor) else cut.permute(0, 2, 1, 3)


def joined(x):
    return (x.transpose(0, 2, 1, 3) if isinstance(x, Tensor) else x.permute(0, 2, 1, 3)).reshape(B, N, D)


def qkv(a, b, c, cat):
    return cat(a, b, c)


def kernel(x):
    """(D, D, 1, 1) weights of a convolution."""
    return x.reshape(D, D, 1, 1)


def torch_residual(x, b, h, bias=None):
    return x + row(b)[:, None] * F.linear(h, square(b), vector(h) if bias is None else bias)


def torch_norm(x, eps=1e-6):
    return F.layer_norm(x, (D,), eps=eps)


def torch_kl(mean, logvar):
    return 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum()


def torch_self_attention(x):
    q, k, v = (part.reshape(B, N, 2, D // 2).permute(0, 2, 1, 3) for part in x.chunk(3, -1))
    return joined(F.scaled_dot_product_attention(q, k, v))


def torch_patches(x):
    """Our order inside a token is (C, p, p), as torch's unfold has it."""
    return F.unfold(x, 2, stride=2).permute(0, 2, 1)


LABELS = np.array([1, 0, 3, 7, 7, 2, 5, 1])
INDEX = np.array([[3, 0, 0, 1], [7, 7, 2, 5]])
BIAS = np.linspace(-1, 1, D)
WEIGHTS = np.array([0.3, 1.7])  # of samples: what a loss is weighted with is no parameter, and has no gradient
MASK = np.where(np.tri(N, dtype=bool), 0.0, -1e9)
LIKE = torch.from_numpy

# primitive: (ours, theirs), each from three values (B, N, D) to one
STEPS = {
    "add": (lambda a, b, c: a + b[:, :1], lambda a, b, c: a + b[:, :1]),
    "sub": (lambda a, b, c: a - b[:1], lambda a, b, c: a - b[:1]),
    "mul": (lambda a, b, c: a * b[:, :, :1], lambda a, b, c: a * b[:, :, :1]),
    "div": (lambda a, b, c: a / positive(b), lambda a, b, c: a / positive(b)),
    "neg": (lambda a, b, c: -a, lambda a, b, c: -a),
    "power": (lambda a, b, c: positive(a) ** -0.7, lambda a, b, c: positive(a) ** -0.7),
    "cast": (lambda a, b, c: ops.cast(ops.cast(a, dtype=np.float32), dtype=np.float64), lambda a, b, c: a.float().double()),
    "exp": (lambda a, b, c: ops.exp(ops.tanh(a)), lambda a, b, c: a.tanh().exp()),
    "log": (lambda a, b, c: ops.log(positive(a)), lambda a, b, c: positive(a).log()),
    "sqrt": (lambda a, b, c: ops.sqrt(positive(a)), lambda a, b, c: positive(a).sqrt()),
    "tanh": (lambda a, b, c: ops.tanh(a), lambda a, b, c: a.tanh()),
    "sigmoid": (lambda a, b, c: ops.sigmoid(a), lambda a, b, c: a.sigmoid()),
    "silu": (lambda a, b, c: ops.silu(a), lambda a, b, c: F.silu(a)),
    "gelu": (lambda a, b, c: ops.gelu(a), lambda a, b, c: F.gelu(a, approximate="tanh")),
    "gelu_erf": (lambda a, b, c: ops.gelu_erf(a), lambda a, b, c: F.gelu(a)),
    "clip": (lambda a, b, c: ops.clip(a, low=-0.6, high=0.9), lambda a, b, c: a.clamp(-0.6, 0.9)),
    "softmax": (lambda a, b, c: ops.softmax(a, axis=1), lambda a, b, c: a.softmax(1)),
    "sum": (lambda a, b, c: b * a.sum(axis=(0, 2), keepdims=True), lambda a, b, c: b * a.sum((0, 2), keepdim=True)),
    "mean": (lambda a, b, c: b - a.mean(axis=1, keepdims=True), lambda a, b, c: b - a.mean(1, keepdim=True)),
    "broadcast_to": (
        lambda a, b, c: ops.broadcast_to(a[:, :1], shape=(B, N, D)) * b, lambda a, b, c: a[:, :1].expand(B, N, D) * b),
    "concat": (lambda a, b, c: ops.concat(a[:, :1], b[:, 1:], axis=1), lambda a, b, c: torch.cat([a[:, :1], b[:, 1:]], 1)),
    "split": (
        lambda a, b, c: ops.concat(*ops.split(a, parts=2)[::-1], axis=-1), lambda a, b, c: torch.cat(a.chunk(2, -1)[::-1], -1)),
    "getitem": (lambda a, b, c: a[:, np.array([2, 2, 0, 1])], lambda a, b, c: a[:, [2, 2, 0, 1]]),
    "reshape": (lambda a, b, c: a.reshape(B, D, N).reshape(B, N, D), lambda a, b, c: a.reshape(B, D, N).reshape(B, N, D)),
    "transpose": (lambda a, b, c: a.reshape(B, D, N).transpose(0, 2, 1), lambda a, b, c: a.reshape(B, D, N).permute(0, 2, 1)),
    "matmul": (lambda a, b, c: a @ square(b), lambda a, b, c: a @ square(b)),
    "linear": (lambda a, b, c: ops.linear(a, square(b), vector(c)), lambda a, b, c: F.linear(a, square(b), vector(c))),
    "linear_gelu": (
        lambda a, b, c: ops.linear_gelu(a, square(b), vector(c)),
        lambda a, b, c: F.gelu(F.linear(a, square(b), vector(c)), approximate="tanh")),
    "mlp": (
        lambda a, b, c: ops.mlp(a, square(b), vector(c), square(c), vector(b)),
        lambda a, b, c: F.linear(F.gelu(F.linear(a, square(b), vector(c)), approximate="tanh"), square(c), vector(b))),
    "embedding": (lambda a, b, c: ops.embedding(square(a), index=INDEX), lambda a, b, c: F.embedding(LIKE(INDEX), square(a))),
    "standardise": (lambda a, b, c: ops.standardise(a), lambda a, b, c: torch_norm(a)),
    "layer_norm": (
        lambda a, b, c: ops.layer_norm(a, vector(b), vector(c)),
        lambda a, b, c: F.layer_norm(a, (D,), vector(b), vector(c), 1e-6)),
    "layer_norm_modulate": (
        lambda a, b, c: ops.layer_norm_modulate(a, row(b), row(c)),
        lambda a, b, c: torch_norm(a) * (1 + row(c)[:, None]) + row(b)[:, None]),
    "unpacked": (
        lambda a, b, c: mixed(*ops.unpacked(ops.concat(a, b, c, axis=-1), heads=2)),
        lambda a, b, c: mixed(*packed(a, b, c).permute(2, 0, 3, 1, 4))),
    "qk_norm": (
        lambda a, b, c: added(ops.split(
            ops.qk_norm(ops.concat(a, b, c, axis=-1), vector(a)[:4], vector(b)[:4], heads=2), parts=3)),
        lambda a, b, c: added((
            F.rms_norm(a.reshape(B, N, 2, 4), (4,), vector(a)[:4], 1e-6).reshape(B, N, D),
            F.rms_norm(b.reshape(B, N, 2, 4), (4,), vector(b)[:4], 1e-6).reshape(B, N, D), c))),
    "rope": (
        lambda a, b, c: ops.rope(a.reshape(B, N, 2, 4), COS, SIN).reshape(B, N, D) * b,
        lambda a, b, c: turned(a) * b),
    "qk_rope": (
        lambda a, b, c: added(ops.split(ops.qk_rope(ops.concat(a, b, c, axis=-1), COS, SIN, heads=2), parts=3)),
        lambda a, b, c: added((turned(a), turned(b), c))),
    "rms_norm": (lambda a, b, c: ops.rms_norm(a, vector(b)), lambda a, b, c: F.rms_norm(a, (D,), vector(b), 1e-6)),
    "group_norm": (
        lambda a, b, c: tokens(ops.group_norm(image(a), vector(b), vector(c), groups=2)),
        lambda a, b, c: tokens(F.group_norm(image(a), 2, vector(b), vector(c), 1e-6))),
    "group_norm_silu": (
        lambda a, b, c: tokens(ops.group_norm_silu(image(a), vector(b), vector(c), groups=2)),
        lambda a, b, c: tokens(F.silu(F.group_norm(image(a), 2, vector(b), vector(c), 1e-6)))),
    "gated_residual": (
        lambda a, b, c: ops.gated_residual(a, row(b), c), lambda a, b, c: a + row(b)[:, None] * c),
    "linear_residual": (
        lambda a, b, c: ops.linear_residual(a, row(b), c, square(b), vector(c)), lambda a, b, c: torch_residual(a, b, c)),
    "mlp_residual": (
        lambda a, b, c: ops.mlp_residual(a, row(b), c, square(a), vector(b), square(b), vector(c)),
        lambda a, b, c: torch_residual(a, b, F.gelu(F.linear(c, square(a), vector(b)), approximate="tanh"), vector(c))),
    "mlp_residual_modulate": (
        lambda a, b, c: ops.add(*ops.mlp_residual_modulate(
            a, row(b), c, square(a), vector(b), square(b), vector(c), row(c), row(a))),
        lambda a, b, c: (y := torch_residual(
            a, b, F.gelu(F.linear(c, square(a), vector(b)), approximate="tanh"), vector(c)
        )) + torch_norm(y) * (1 + row(a)[:, None]) + row(c)[:, None]),
    "linear_residual_modulate": (
        lambda a, b, c: ops.add(*ops.linear_residual_modulate(a, row(b), c, square(b), vector(c), row(c), row(a))),
        lambda a, b, c: (y := torch_residual(a, b, c)) + torch_norm(y) * (1 + row(a)[:, None]) + row(c)[:, None]),
    "projected_attention": (
        lambda a, b, c: ops.projected_attention(
            a, ops.concat(*map(square, (a, b, c)), axis=0), ops.concat(*map(vector, (a, b, c)), axis=0), heads=2),
        lambda a, b, c: torch_self_attention(
            F.linear(a, torch.cat([square(x) for x in (a, b, c)]), torch.cat([vector(x) for x in (a, b, c)])))),
    "attention": (
        lambda a, b, c: joined(ops.attention(heads(a), heads(b), heads(c), MASK)),
        lambda a, b, c: joined(F.scaled_dot_product_attention(heads(a), heads(b), heads(c), LIKE(MASK)))),
    "self_attention": (
        lambda a, b, c: ops.self_attention(ops.concat(a, b, c, axis=-1), heads=2),
        lambda a, b, c: torch_self_attention(torch.cat([a, b, c], -1))),
    "conv2d": (
        lambda a, b, c: tokens(ops.conv2d(image(a), kernel(b), vector(c))),
        lambda a, b, c: tokens(F.conv2d(image(a), kernel(b), vector(c)))),
    "upsample_nearest": (
        lambda a, b, c: tokens(ops.upsample_nearest(image(a))[:, :, 1:3, 1:3]),
        lambda a, b, c: tokens(F.interpolate(image(a), scale_factor=2)[:, :, 1:3, 1:3])),
    "patchify": (
        lambda a, b, c: ops.patchify(image(a), patch_size=2).reshape(B, N, D) * b,
        lambda a, b, c: torch_patches(image(a)).reshape(B, N, D) * b),
    "unpatchify": (
        lambda a, b, c: tokens(ops.unpatchify(a.reshape(B, 1, N * D), patch_size=2, size=(2, 2))),
        lambda a, b, c: tokens(a.reshape(B, 2, 2, D).permute(0, 3, 1, 2))),
    "mse": (
        lambda a, b, c: a * ops.mse(b, c, WEIGHTS).mean(),
        lambda a, b, c: a * ((b - c) ** 2 * LIKE(WEIGHTS)[:, None, None]).mean()),
    "cross_entropy": (
        lambda a, b, c: a * ops.cross_entropy(b.reshape(B * N, D), labels=LABELS).mean(),
        lambda a, b, c: a * F.cross_entropy(b.reshape(B * N, D), LIKE(LABELS))),
    "gaussian_kl": (
        lambda a, b, c: a * ops.gaussian_kl(b, ops.tanh(c)).sum() * (1 / (B * N * D)),
        lambda a, b, c: a * torch_kl(b, c.tanh()) / (B * N * D)),
}  # fmt: skip


def test_every_primitive_has_its_twin_in_torch():
    assert sorted(STEPS) == sorted(PRIMITIVES)


def ran(leaves, plan, kind):
    """The values of a plan: each step reads three of those before it; a mild squeeze keeps long chains finite."""
    made = list(leaves)
    for name, i, j, k in plan:
        step = STEPS[name][kind]
        out = step(*(made[n % len(made)] for n in (i, j, k)))
        made.append(out / (1 + 0.1 * out * out) if out.shape == (B, N, D) else None)
        assert made[-1] is not None, f"{name} made {out.shape}"
    return made[-1]


def compared(plan, seed):
    arrays = [np.random.default_rng([seed, n]).normal(size=(B, N, D)) for n in range(3)]
    bar = np.random.default_rng(seed + 1).normal(size=(B, N, D))
    ours, theirs = [Tensor(a) for a in arrays], [torch.from_numpy(a.copy()).requires_grad_(True) for a in arrays]
    y, want = ran(ours, plan, 0), ran(theirs, plan, 1)
    y.backward(bar)
    bars = torch.autograd.grad(want, theirs, torch.from_numpy(bar), allow_unused=True)
    yield y.data, want.detach().numpy()
    for mine, his, a in zip(ours, bars, arrays, strict=True):
        zero = np.zeros_like(a)
        yield (zero if mine.grad is None else mine.grad), (zero if his is None else his.numpy())


def agrees(plan, seed=0, bound=1e-9):
    for mine, his in compared(plan, seed):
        assert np.abs(mine - his).max() <= bound * max(1.0, np.abs(his).max())


@pytest.mark.parametrize("name", sorted(STEPS))
def test_a_primitive_alone(name):
    agrees([(name, 0, 1, 2)], bound=1e-12)


SMOOTH = sorted(STEPS.keys() - {"cast"})  # the last digit decides how a cast rounds


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(SMOOTH), *(st.integers(0, 20),) * 3), min_size=2, max_size=14),
    st.integers(0, 2**20),
)
def test_random_graphs_have_the_gradients_of_torch(plan, seed):
    """Values are shared by several steps, so that gradients add up; the last step is where the gradient enters."""
    agrees(plan, seed)
