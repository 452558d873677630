"""Mistakes as strangers make them, the fourth group: codes, tokens and streams."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy import special
from verify.strange_fourth import wrong
from verify.strange_fourth_networks import affine, norm, perceptron

# ------------------------------------------------------------------------------------------------ codes and tokens


@wrong("nearest_code", "the largest product, without the length of the codes")
def largest_product(z, codes):
    return np.argmax(z @ codes.T, axis=1)


@wrong("codebook_loss", "no stop-gradients: both sides feel both terms", True)
def without_detach(z, codes, beta):
    z, codes = z.clone().requires_grad_(), codes.clone().requires_grad_()
    e = codes[torch.cdist(z.reshape(-1, z.shape[-1]), codes).argmin(1)].view_as(z)
    loss = F.mse_loss(e, z) + beta * F.mse_loss(e, z)
    return loss.detach(), *torch.autograd.grad(loss, (z, codes))


@wrong("running_codes", "the new part weighs γ, the old 1 - γ")
def decay_exchanged(n, s, z, index, decay):
    hot = np.eye(len(n))[index]
    n = (1 - decay) * n + decay * hot.sum(0)
    s = (1 - decay) * s + decay * hot.T @ z
    return n, s, s / n[:, None]


@wrong("token_mask", "strictly causal within a group")
def plain_triangle(groups):
    return np.tril(np.ones((sum(groups), sum(groups))))


@wrong("kept_probabilities", "the token that crosses top_p is dropped", True)
def crossing_dropped(logits, temperature, top_k, top_p):
    logits = logits / temperature
    if top_k:
        kth = torch.topk(logits, min(top_k, logits.shape[-1]))[0][:, -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    ordered, index = torch.sort(logits, descending=True)
    gone = ordered.softmax(-1).cumsum(-1) > top_p
    gone[:, 0] = False
    gone = torch.zeros_like(gone).scatter(1, index, gone)
    return logits.masked_fill(gone, -torch.inf).softmax(-1)


@wrong("chosen_token", "the place in the sorted list, not the token")
def place_in_the_list(p, u):
    ordered = -np.sort(-p, axis=1)
    return (np.cumsum(ordered, 1) <= u[:, None]).sum(1)


def turned(x, cos, sin):
    x1, x2 = x[..., 0::2], x[..., 1::2]
    c, s = cos[:, None], sin[:, None]
    return np.stack([x1 * c - x2 * s, x1 * s + x2 * c], -1).reshape(x.shape)


@wrong("cached_attention", "every call turns its tokens from place 0 on")
def places_start_again(q, k, v, cos, sin, calls):
    cache_k, cache_v, out, start = [], [], [], 0
    for n in calls:
        part = slice(start, start + n)
        cache_k.append(turned(k[part], cos[:n], sin[:n]))
        cache_v.append(v[part])
        keys, values = np.concatenate(cache_k), np.concatenate(cache_v)
        logits = np.einsum("nhk,mhk->hnm", turned(q[part], cos[:n], sin[:n]), keys) / np.sqrt(q.shape[-1])
        hidden = np.arange(len(keys))[None] > np.arange(start, start + n)[:, None]
        out.append(np.einsum("hnm,mhk->nhk", special.softmax(np.where(hidden, -1e30, logits), -1), values))
        start += n
    return np.concatenate(out)


@wrong("rms_norm", "1 + weight, as Gemma has it", True)
def one_plus_weight(x, weight, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * (1 + weight)


@wrong("swiglu", "the gate is the other branch")
def other_gate(x, w1, w3, w2):
    g = x @ w3.T
    return (x @ w1.T * g * special.expit(g)) @ w2.T


@wrong("token_nll", "each logit is compared with the token after next: shifted once more", True)
def shifted_again(logits, x):
    nll = F.cross_entropy(logits[:, :-1].transpose(1, 2), x[:, 1:], reduction="none")
    return nll.mean(1)


@wrong("rope", "turned the other way", True)
def other_way(x, cos, sin):
    z = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(z * torch.complex(cos, -sin)[:, None]).flatten(-2)


@wrong("rope_angles", "every axis has the frequencies of the whole head")
def frequencies_of_the_head(ids, widths, theta):
    f = theta ** (-np.arange(0, sum(widths), 2) / sum(widths))
    angles, start = [], 0
    for axis, d in enumerate(widths):
        angles.append(np.outer(ids[:, axis], f[start : start + d // 2]))
        start += d // 2
    angles = np.concatenate(angles, 1)
    return np.cos(angles), np.sin(angles)


@wrong("joint_attention", "the words see only words")
def words_alone(q_c, k_c, v_c, q, k, v, cos, sin):
    M = len(q_c)
    q, k, v = turned(np.concatenate([q_c, q]), cos, sin), turned(np.concatenate([k_c, k]), cos, sin), np.concatenate([v_c, v])
    logits = np.einsum("nhk,mhk->hnm", q, k) / np.sqrt(q.shape[-1])
    logits[:, :M, M:] = -np.inf
    y = np.einsum("hnm,mhk->nhk", special.softmax(logits, -1), v)
    return y[:M], y[M:]


@wrong("queries_and_keys", "turned first, normalised afterwards")
def norm_after_rope(q, k, w_q, w_k, cos, sin):
    unit = lambda x: x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    return unit(turned(q, cos, sin)) * w_q, unit(turned(k, cos, sin)) * w_k


@wrong("stream_block", "the MLP normalises the h from before the attention", True)
def block_of_the_old_h(weights, h, y, c):
    b1, g1, a1, b2, g2, a2 = affine(F.silu(c), weights, "adaLN_modulation.1")[:, None].chunk(6, -1)
    first = norm(h) * (1 + g1) + b1
    after = h + a1 * affine(y, weights, "attn.proj")
    return first, after + a2 * perceptron(weights, norm(h) * (1 + g2) + b2)


@wrong("stream_condition", "the guidance is told as it is, not a thousandfold", True)
def quiet_guidance(weights, t, pooled, w):
    half = weights["t_embedder.mlp.0.weight"].shape[1] // 2
    f = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float64) / half)
    wave = lambda a: torch.cat([(a[:, None] * f).cos(), (a[:, None] * f).sin()], -1)
    mlp = lambda x, name: affine(F.silu(affine(x, weights, f"{name}.mlp.0")), weights, f"{name}.mlp.2")
    return mlp(wave(t), "t_embedder") + mlp(pooled, "y_embedder") + mlp(wave(w), "guidance_embedder")
