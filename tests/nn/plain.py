"""What the tests of layers and networks share: random weights everywhere, and the layers once more in NumPy and SciPy."""

import numpy as np
from scipy.signal import correlate
from support import host

from minidit.backend import to_device


def grown(module, device="cpu", seed=0, size=0.6):
    """The module on the device with every parameter random, also those that begin at 0 or 1, and its state on the host."""
    r = np.random.default_rng(seed)
    for p in module.parameters():
        p.data[...] = to_device((size * r.standard_normal(p.data.shape)).astype(p.data.dtype), device)
    return module, {n: host(a).copy() for n, a in module.state_dict().items()}


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attention(q, k, v, heads):
    """q : (N, D), k, v : (M, D), head by head."""
    K = q.shape[1] // heads
    parts = [slice(h * K, (h + 1) * K) for h in range(heads)]
    return np.concatenate([softmax(q[:, p] @ k[:, p].T / np.sqrt(K)) @ v[:, p] for p in parts], axis=1)


def linear(state, name, x):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def conv(state, name, x, stride=1):
    """x : (B, C, H, W); an odd kernel, zeros around."""
    w, b = state[f"{name}.weight"], state[f"{name}.bias"]
    p = w.shape[2] // 2
    x = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    y = np.stack([[correlate(image, kernel, mode="valid")[0] for kernel in w] for image in x])
    return y[:, :, ::stride, ::stride] + b[:, None, None]


def group_norm(state, name, x, groups, eps=1e-6):
    g = x.reshape(len(x), groups, -1)
    g = (g - g.mean(-1, keepdims=True)) / np.sqrt(g.var(-1, keepdims=True) + eps)
    return g.reshape(x.shape) * state[f"{name}.weight"][:, None, None] + state[f"{name}.bias"][:, None, None]
