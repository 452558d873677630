"""Layers against sums written out: attention head by head, the feed-forward layer, convolutions, patches pixel by pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nn import plain
from support import agree, host, spec

from minidit import nn
from minidit.autograd import Tensor

few = st.integers(1, 3)
tokens = st.integers(1, 6)


def built(layer, device, seed=0):
    return plain.grown(layer.build(None, device=device, dtype=np.float64), device, seed)


def numbers(shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape)


@spec("N.3")
@settings(max_examples=20)
@given(few, tokens, few, few)
def test_self_attention_is_heads_side_by_side_between_two_products(xp, device, B, N, heads, K):
    D = heads * K
    layer, state = built(nn.SelfAttention(D, heads), device)
    x = numbers((B, N, D))
    qkv = plain.linear(state, "qkv", x)
    y = np.stack([plain.attention(s[:, :D], s[:, D : 2 * D], s[:, 2 * D :], heads) for s in qkv])
    agree(layer(xp.asarray(x)), plain.linear(state, "proj", y), bound=1e-10, of="N.3")


@spec("N.4")
@settings(max_examples=20)
@given(few, tokens, tokens, few, few)
def test_cross_attention_asks_with_x_and_reads_the_context(xp, device, B, N, M, heads, K):
    D = heads * K
    layer, state = built(nn.CrossAttention(D, heads), device)
    x, context = numbers((B, N, D)), numbers((B, M, D), 2)
    q, kv = plain.linear(state, "q", x), plain.linear(state, "kv", context)
    y = np.stack([plain.attention(a, b[:, :D], b[:, D:], heads) for a, b in zip(q, kv, strict=True)])
    agree(layer(xp.asarray(x), xp.asarray(context)), plain.linear(state, "proj", y), bound=1e-10, of="N.4")


@spec("N.4", "N.3")
def test_the_order_of_a_context_does_not_matter_and_that_of_the_questions_stays(xp, device):
    layer, _ = built(nn.CrossAttention(6, 2), device)
    x, context = xp.asarray(numbers((2, 4, 6))), xp.asarray(numbers((2, 5, 6), 2))
    y = layer(x, context)
    agree(layer(x, xp.asarray(host(context)[:, ::-1].copy())), y, bound=1e-12, of="N.4")
    agree(layer(xp.asarray(host(x)[:, [2, 0, 3, 1]]), context), host(y)[:, [2, 0, 3, 1]], bound=1e-12, of="N.4")
    layer, _ = built(nn.SelfAttention(6, 2), device)
    agree(layer(xp.asarray(host(x)[:, [2, 0, 3, 1]])), host(layer(x))[:, [2, 0, 3, 1]], bound=1e-12, of="N.3")


@spec("N.5")
@settings(max_examples=20)
@given(few, tokens, st.integers(1, 5), st.integers(1, 7))
def test_the_feed_forward_layer(xp, device, B, N, D, inner):
    layer, state = built(nn.Mlp(D, inner), device)
    x = 3 * numbers((B, N, D))
    expected = plain.linear(state, "fc2", plain.gelu(plain.linear(state, "fc1", x)))
    agree(layer(xp.asarray(x)), expected, bound=1e-10, of="N.5")


@settings(max_examples=20)
@given(few, few, few, st.sampled_from([1, 3]), st.integers(3, 7), st.integers(3, 7), st.sampled_from([1, 2]))
def test_a_convolution_pads_by_half_its_kernel(xp, device, B, C, out, kernel, H, W, stride):
    layer, state = built(nn.Conv2d(C, out, kernel, stride=stride), device)
    x = numbers((B, C, H, W))
    y = layer(xp.asarray(x))
    assert tuple(y.shape) == (B, out, -(-H // stride), -(-W // stride))
    agree(y, plain.conv({f"c.{n}": a for n, a in state.items()}, "c", x, stride), bound=1e-10)


@given(few, st.integers(2, 5), few)
def test_norms_and_rows(xp, device, B, D, groups):
    x = numbers((B, 3, D))
    layer, state = built(nn.LayerNorm(D), device)
    d = x - x.mean(-1, keepdims=True)
    expected = d / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * state["weight"] + state["bias"]
    agree(layer(xp.asarray(x)), expected, bound=1e-10)
    layer, state = built(nn.GroupNorm(groups * D, groups), device)
    x = numbers((B, groups * D, 2, 3))
    expected = plain.group_norm({f"n.{n}": a for n, a in state.items()}, "n", x, groups)
    agree(layer(xp.asarray(x)), expected, bound=1e-10)
    layer, state = built(nn.Embedding(5, D), device)
    index = np.array([[4, 0], [2, 2]])
    agree(layer(xp.asarray(index)), state["weight"][index], bound=0)
    layer, state = built(nn.Linear(D, 4, bias=False), device)
    agree(layer(xp.asarray(x[:, :D, 0, 0])), x[:, :D, 0, 0] @ state["weight"].T, bound=1e-10)


@spec("N.9")
@settings(max_examples=20)
@given(few, few, st.integers(1, 5), few, few, few)
def test_a_token_is_the_sum_over_its_pixels(xp, device, B, C, D, p, h, w):
    layer, state = built(nn.PatchEmbed(C, D, p), device)
    x = numbers((B, C, h * p, w * p))
    expected = np.zeros((B, h * w, D)) + state["proj.bias"]
    for r in range(h):
        for c in range(w):
            patch = x[:, :, r * p : (r + 1) * p, c * p : (c + 1) * p]
            expected[:, r * w + c] += np.tensordot(patch, state["proj.weight"], axes=([1, 2, 3], [1, 2, 3]))
    agree(layer(xp.asarray(x)), expected, bound=1e-10, of="N.9")


@spec("N.9")
@pytest.mark.parametrize(("C", "p", "h", "w"), [(2, 2, 2, 3), (3, 1, 2, 1), (1, 3, 1, 2)])
def test_a_weight_that_is_one_at_one_place_picks_that_pixel(xp, device, C, p, h, w):
    layer, _ = built(nn.PatchEmbed(C, C * p * p, p), device)
    x = np.arange(C * h * p * w * p, dtype=np.float64).reshape(1, C, h * p, w * p)
    weight = np.zeros((C * p * p, C, p, p))
    d = 0
    for c in range(C):
        for i in range(p):
            for j in range(p):
                weight[d, c, i, j] = 1
                d += 1
    layer.proj.weight.data[...] = xp.asarray(weight)
    layer.proj.bias.data[...] = 0
    y = host(layer(xp.asarray(x)))
    for n in range(h * w):
        for d in range(C * p * p):
            c, i, j = d // (p * p), d // p % p, d % p
            assert y[0, n, d] == x[0, c, n // w * p + i, n % w * p + j]


def test_layers_pass_gradients_to_their_parameters_and_their_input(xp, device):
    for layer, shapes in (
        (nn.SelfAttention(4, 2), [(2, 3, 4)]),
        (nn.CrossAttention(4, 2), [(2, 3, 4), (2, 5, 4)]),
        (nn.Mlp(4, 6), [(2, 3, 4)]),
        (nn.PatchEmbed(2, 4, 2), [(1, 2, 4, 2)]),
        (nn.Conv2d(2, 3, 3), [(1, 2, 4, 4)]),
        (nn.LayerNorm(4), [(2, 4)]),
        (nn.GroupNorm(4, 2), [(1, 4, 2, 2)]),
    ):
        built(layer, device)
        xs = [Tensor(xp.asarray(numbers(s, k))) for k, s in enumerate(shapes)]
        y = layer(*xs)
        y.backward(xp.asarray(numbers(tuple(y.shape), 9)))
        for leaf in [*xs, *layer.parameters()]:
            assert leaf.grad.shape == leaf.data.shape
            if not (isinstance(layer, nn.SelfAttention | nn.CrossAttention) and leaf.data.ndim == 1):  # the keys' bias cancels
                assert float(abs(host(leaf.grad)).min()) > 0
