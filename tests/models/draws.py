"""Small transformers of every kind, their inputs, and the whole forward pass once more, written as loops from the paper."""

import math

import numpy as np
from hypothesis import strategies as st
from nn import plain

from minidit.models.dit import DiT, DiTConfig


@st.composite
def configs(draw, **fixed):
    """Rectangles of patches, several heads, any number of classes (0 too), with and without a null label."""
    p, heads = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    drawn = {
        "input_size": (p * draw(st.integers(1, 3)), p * draw(st.integers(1, 4))),
        "patch_size": p,
        "in_channels": draw(st.integers(1, 3)),
        "hidden_size": 4 * heads * draw(st.integers(1, 2)),
        "depth": draw(st.integers(1, 2)),
        "num_heads": heads,
        "mlp_ratio": draw(st.sampled_from([1.0, 1.5, 4.0])),
        "class_dropout_prob": draw(st.sampled_from([0.0, 0.1])),
        "num_classes": draw(st.sampled_from([0, 1, 3, 10])),
        "learn_sigma": draw(st.booleans()),
    }
    return DiTConfig(**{**drawn, **fixed})


def model_of(config, device="cpu", seed=0):
    """A float64 DiT with every weight random, and its state on the host."""
    return plain.grown(DiT(config, None, device=device, dtype=np.float64), device, seed, size=0.3)


def inputs_of(config, B, xp=np, seed=0):
    """(x, t, y): the times all different, the labels from all that the model knows, the null label among them."""
    r = np.random.default_rng(seed)
    t = r.permutation(1000)[:B]
    rows = config.num_classes + (config.class_dropout_prob > 0)
    y = xp.asarray(r.permutation(np.arange(B) % rows)) if config.num_classes else None
    return xp.asarray(r.standard_normal((B, config.in_channels, *config.size))), xp.asarray(t), y


def modulated(h, shift, scale):
    d = h - h.mean(-1, keepdims=True)
    return d / np.sqrt((d * d).mean(-1, keepdims=True) + 1e-6) * (1 + scale) + shift


def forward(state, config, x, t, y):
    """DiT sample by sample, from the equations (T.1) to (T.6) and (N.3) to (N.9)."""
    return np.stack([one(state, config, x[b], t[b], None if y is None else y[b]) for b in range(len(x))])


def condition(state, t, y):
    f = [10000 ** (-i / 128) for i in range(128)]
    emb = np.array([math.cos(t * a) for a in f] + [math.sin(t * a) for a in f])
    c = plain.linear(state, "t_embedder.mlp.2", plain.silu(plain.linear(state, "t_embedder.mlp.0", emb)))
    return c if y is None else c + state["y_embedder.embedding_table.weight"][y]


def tokens_of(state, config, x):
    p, D = config.patch_size, config.hidden_size
    h, w = config.size[0] // p, config.size[1] // p
    tokens, q = np.zeros((h * w, D)), D // 4
    for r in range(h):
        for c in range(w):
            patch = x[:, r * p : (r + 1) * p, c * p : (c + 1) * p]
            W = state["x_embedder.proj.weight"]
            tokens[r * w + c] = [(W[d] * patch).sum() for d in range(D)] + state["x_embedder.proj.bias"]
            place = [g(s * 10000 ** (-i / q)) for s in (c, r) for g in (math.sin, math.cos) for i in range(q)]
            tokens[r * w + c] += place
    return tokens


def one(state, config, x, t, y):
    c, D = condition(state, t, y), config.hidden_size
    h = tokens_of(state, config, x)
    for i in range(config.depth):
        name = f"blocks.{i}"
        six = plain.linear(state, f"{name}.adaLN_modulation.1", plain.silu(c))
        shift1, scale1, gate1, shift2, scale2, gate2 = (six[k * D : (k + 1) * D] for k in range(6))
        qkv = plain.linear(state, f"{name}.attn.qkv", modulated(h, shift1, scale1))
        a = plain.attention(qkv[:, :D], qkv[:, D : 2 * D], qkv[:, 2 * D :], config.num_heads)
        h = h + gate1 * plain.linear(state, f"{name}.attn.proj", a)
        inner = plain.gelu(plain.linear(state, f"{name}.mlp.fc1", modulated(h, shift2, scale2)))
        h = h + gate2 * plain.linear(state, f"{name}.mlp.fc2", inner)
    two = plain.linear(state, "final_layer.adaLN_modulation.1", plain.silu(c))
    tokens = plain.linear(state, "final_layer.linear", modulated(h, two[:D], two[D:]))
    C, p, w = config.out_channels, config.patch_size, config.size[1] // config.patch_size
    out = np.zeros((C, *config.size))
    for n, token in enumerate(tokens):
        for i in range(p):
            for j in range(p):
                out[:, n // w * p + i, n % w * p + j] = token[(i * p + j) * C : (i * p + j + 1) * C]
    return out
