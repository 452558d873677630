"""Mistakes as strangers make them, the fourth group: layers, embeddings, blocks, whole networks."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy import special
from verify.strange_fourth import wrong


def affine(x, weights, name):
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def norm(x, eps=1e-6):
    return F.layer_norm(x, x.shape[-1:], eps=eps)


# ------------------------------------------------------------------------------------------------ layers


@wrong("gelu", "the quick form, x σ(1.702 x)")
def quick_gelu(x):
    return x * special.expit(1.702 * x)


@wrong("silu", "hard: x clip(x + 3, 0, 6)/6", True)
def hard_swish(x):
    return F.hardswish(x)


@wrong("softmax", "one more in the denominator")
def softmax_one(x):
    m = np.maximum(x.max(-1, keepdims=True), 0)
    e = np.exp(x - m)
    return e / (np.exp(-m) + e.sum(-1, keepdims=True))


@wrong("layer_norm", "the unbiased deviation, ε outside the root", True)
def unbiased(x, eps=1e-6):
    return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + eps)


@wrong("layer_norm", "no mean is taken off")
def root_mean_square(x):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)


@wrong("gated_residual", "1 + gate, as for the scale")
def one_plus_gate(x, gate, h):
    return x + (1 + gate)[:, None] * h


@wrong("attention", "softmax over the queries", True)
def over_queries(q, k, v):
    return torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-2) @ v


@wrong("self_attention", "scaled by the whole width", True)
def scaled_by_width(weights, x, heads):
    B, N, D = x.shape
    q, k, v = affine(x, weights, "qkv").view(B, N, 3, heads, D // heads).permute(2, 0, 3, 1, 4)
    y = F.scaled_dot_product_attention(q, k, v, scale=D**-0.5)
    return affine(y.transpose(1, 2).reshape(B, N, D), weights, "proj")


@wrong("self_attention", "heads outside of q, k, v in the rows of the weight")
def head_major(weights, x, heads):
    B, N, D = x.shape
    qkv = x @ weights["qkv.weight"].T + weights["qkv.bias"]
    qkv = qkv.reshape(B, N, heads, 3, D // heads)
    q, k, v = (qkv[:, :, :, i] for i in range(3))
    p = special.softmax(np.einsum("bnhk,bmhk->bhnm", q, k) / np.sqrt(D // heads), -1)
    return np.einsum("bhnm,bmhk->bnhk", p, v).reshape(B, N, D) @ weights["proj.weight"].T + weights["proj.bias"]


@wrong("mlp", "squared ReLU", True)
def squared_relu(weights, x):
    return affine(F.relu(affine(x, weights, "fc1")).square(), weights, "fc2")


# ------------------------------------------------------------------------------------------------ embeddings


@wrong("timestep_embedding", "sine and cosine interleaved")
def interleaved(t, width):
    f = np.exp(-np.log(10000.0) * np.arange(0, width, 2) / width)
    out = np.zeros((len(t), width))
    out[:, 0::2], out[:, 1::2] = np.sin(np.outer(t, f)), np.cos(np.outer(t, f))
    return out


@wrong("timestep_embedder", "a SiLU after the last layer as well", True)
def activated_twice(weights, t):
    f = torch.exp(-math.log(10000) * torch.arange(128, dtype=torch.float64) / 128)
    a = t[:, None].double() * f
    h = F.silu(affine(torch.cat([a.cos(), a.sin()], -1), weights, "mlp.0"))
    return F.silu(affine(h, weights, "mlp.2"))


@wrong("position_embedding", "places divided by the side of the grid")
def relative_places(D, h, w):
    omega = 1 / 10000 ** (np.arange(D // 4) / (D / 4))
    line = lambda n: np.concatenate([np.sin(np.outer(np.arange(n) / n, omega)), np.cos(np.outer(np.arange(n) / n, omega))], 1)
    return np.concatenate([np.tile(line(w), (h, 1)), np.repeat(line(h), w, 0)], 1)


@wrong("patch_embed", "patches flattened as (row, column, channel)", True)
def channels_last_patches(x, weight, bias):
    B, C, H, W = x.shape
    p = weight.shape[-1]
    x = x.view(B, C, H // p, p, W // p, p)
    tokens = torch.einsum("bchpwq->bhwpqc", x).reshape(B, -1, p * p * C)
    return tokens @ weight.flatten(1).T + bias


@wrong("unpatchify", "rows and columns inside a patch exchanged")
def turned_patches(tokens, p, size):
    H, W = size
    B, C = len(tokens), tokens.shape[-1] // p**2
    x = np.einsum("bhwpqc->bchqwp", tokens.reshape(B, H // p, W // p, p, p, C))
    return x.reshape(B, C, H, W)


@wrong("label_embedding", "a dropped label is class 0")
def dropped_to_zero(table, y, drop):
    return table[np.where(drop, 0, y)]


# ------------------------------------------------------------------------------------------------ blocks and networks


def attended(weights, x, heads, prefix="attn."):
    B, N, D = x.shape
    q, k, v = affine(x, weights, prefix + "qkv").view(B, N, 3, heads, -1).permute(2, 0, 3, 1, 4)
    return affine(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, N, D), weights, prefix + "proj")


def perceptron(weights, x, prefix="mlp."):
    return affine(F.gelu(affine(x, weights, prefix + "fc1"), approximate="tanh"), weights, prefix + "fc2")


@wrong("block", "parallel: the MLP reads the x from before the attention", True)
def parallel_block(weights, x, c, heads):
    a, b, g, d, e, h = affine(F.silu(c), weights, "adaLN_modulation.1")[:, None].chunk(6, -1)
    n = norm(x)
    return x + g * attended(weights, n * (1 + b) + a, heads) + h * perceptron(weights, n * (1 + e) + d)


@wrong("block", "gates through a tanh", True)
def tanh_gates(weights, x, c, heads):
    a, b, g, d, e, h = affine(F.silu(c), weights, "adaLN_modulation.1")[:, None].chunk(6, -1)
    x = x + g.tanh() * attended(weights, norm(x) * (1 + b) + a, heads)
    return x + h.tanh() * perceptron(weights, norm(x) * (1 + e) + d)


@wrong("final_layer", "no SiLU before the modulation", True)
def without_silu(weights, x, c):
    shift, scale = affine(c, weights, "adaLN_modulation.1")[:, None].chunk(2, -1)
    return affine(norm(x) * (1 + scale) + shift, weights, "linear")


@wrong("dit", "the condition is the mean of time and label", True)
def mean_condition(weights, x, t, y, heads, patch_size):
    part = lambda prefix: {k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)}
    p, (B, _, H, W) = patch_size, x.shape
    h = F.conv2d(x, weights["x_embedder.proj.weight"], weights["x_embedder.proj.bias"], stride=p).flatten(2).mT
    D = h.shape[-1]
    omega = 10000.0 ** (-torch.arange(D // 4, dtype=torch.float64) / (D // 4))
    line = lambda n: torch.cat([(torch.arange(n)[:, None] * omega).sin(), (torch.arange(n)[:, None] * omega).cos()], 1)
    h = h + torch.cat([line(W // p).repeat(H // p, 1), line(H // p).repeat_interleave(W // p, 0)], 1).to(h)
    a = t[:, None] * torch.exp(-math.log(10000) * torch.arange(128, dtype=torch.float64) / 128)
    time = affine(torch.cat([a.cos(), a.sin()], 1).to(h), weights, "t_embedder.mlp.0")
    c = (affine(F.silu(time), weights, "t_embedder.mlp.2") + weights["y_embedder.embedding_table.weight"][y]) / 2
    for i in range(1 + max(int(k.split(".")[1]) for k in weights if k.startswith("blocks."))):
        w = part(f"blocks.{i}.")
        s1, m1, g1, s2, m2, g2 = affine(F.silu(c), w, "adaLN_modulation.1")[:, None].chunk(6, -1)
        h = h + g1 * attended(w, norm(h) * (1 + m1) + s1, heads)
        h = h + g2 * perceptron(w, norm(h) * (1 + m2) + s2)
    w = part("final_layer.")
    shift, scale = affine(F.silu(c), w, "adaLN_modulation.1")[:, None].chunk(2, -1)
    h = affine(norm(h) * (1 + scale) + shift, w, "linear")
    return torch.einsum("bhwpqc->bchpwq", h.view(B, H // p, W // p, p, p, -1)).reshape(B, -1, H, W)


@wrong("group_norm", "channel c belongs to group c mod G: interleaved groups", True)
def interleaved_groups(x, weight, bias, groups, eps):
    B, C, H, W = x.shape
    if C % groups:
        raise ValueError("groups")
    y = x.view(B, C // groups, groups, H, W)
    y = (y - y.mean((1, 3, 4), keepdim=True)) / (y.var((1, 3, 4), keepdim=True, unbiased=False) + eps).sqrt()
    return y.reshape(B, C, H, W) * weight[:, None, None] + bias[:, None, None]


def normed(x, weights, name, groups, eps=1e-5):
    return F.group_norm(x, groups, weights[f"{name}.weight"], weights[f"{name}.bias"], eps)


def conv(x, weights, name):
    return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=weights[f"{name}.weight"].shape[-1] // 2)


@wrong("unet_block", "the time comes in after the second norm", True)
def time_after_norm(weights, x, c, groups):
    h = conv(F.silu(normed(x, weights, "norm1", groups)), weights, "conv1")
    h = normed(h, weights, "norm2", groups) + affine(F.silu(c), weights, "time_emb_proj")[:, :, None, None]
    h = conv(F.silu(h), weights, "conv2")
    return h + (conv(x, weights, "conv_shortcut") if "conv_shortcut.weight" in weights else x)


@wrong("unet_attention", "the normalised input is added back, not the input", True)
def normalised_residual(weights, x, groups):
    B, C, H, W = x.shape
    n = F.group_norm(x, groups, weights["group_norm.weight"], weights["group_norm.bias"], 1e-5)
    h = n.flatten(2).mT
    q, k, v = (affine(h, weights, name) for name in ("to_q", "to_k", "to_v"))
    h = affine(F.scaled_dot_product_attention(q, k, v), weights, "to_out.0")
    return n + h.mT.reshape(B, C, H, W)


@wrong("unet_double", "bilinear", True)
def bilinear(x, weight, bias):
    return F.conv2d(F.interpolate(x, scale_factor=2, mode="bilinear"), weight, bias, padding=1)


@wrong("autoencoder_block", "the activation before the norm", True)
def activated_first(weights, x, groups):
    h = conv(normed(F.silu(x), weights, "norm1", groups, 1e-6), weights, "conv1")
    h = conv(normed(F.silu(h), weights, "norm2", groups, 1e-6), weights, "conv2")
    return h + (conv(x, weights, "conv_shortcut") if "conv_shortcut.weight" in weights else x)
