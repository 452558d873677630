"""The blocks of DDPM's U-Net in NumPy and SciPy, each by another road than the equation's own.

    python examples/verify/scipy_unet.py

Convolutions as sums of correlated planes, norms by z-scores of each group, attention pixel by pixel, channels by counting.
"""

import numpy as np
from scipy import signal, special, stats

import minidit as md


def unet_time_embedding(t, width):
    turn = np.exp(1j * np.outer(t, np.geomspace(1, 1e-4, width // 2)))
    return np.hstack([turn.imag, turn.real])


def group_norm(x, weight, bias, groups, eps):
    out = np.empty_like(x)
    if x.shape[1] % groups:
        raise ValueError("the groups do not divide the channels")
    for sample, row in zip(x, out, strict=True):
        for planes, rows in zip(np.split(sample, groups), np.split(row, groups), strict=True):
            variance = planes.astype(np.float64).var()
            rows[...] = stats.zscore(planes.astype(np.float64), axis=None) * np.sqrt(variance / (variance + eps))
    return out * weight[:, None, None] + bias[:, None, None]


def silu(x):
    return x * special.expit(x)


def convolved(x, weight, bias):
    """Same size, zeros around."""
    planes = [[sum(signal.correlate2d(p, k, "same") for p, k in zip(s, f, strict=True)) for f in weight] for s in x]
    return np.array(planes) + bias[:, None, None]


def named(weights, name):
    return weights[f"{name}.weight"], weights[f"{name}.bias"]


def unet_block(weights, x, c, groups):
    h = convolved(silu(group_norm(x, *named(weights, "norm1"), groups, 1e-6)), *named(weights, "conv1"))
    w, b = named(weights, "time_emb_proj")
    h = h + (silu(c) @ w.T + b)[:, :, None, None]
    h = convolved(silu(group_norm(h, *named(weights, "norm2"), groups, 1e-6)), *named(weights, "conv2"))
    if "conv_shortcut.weight" not in weights:
        return x + h
    w, b = named(weights, "conv_shortcut")
    return np.einsum("oc,bchw->bohw", w[:, :, 0, 0], x) + b[:, None, None] + h


def unet_attention(weights, x, groups):
    n, out = group_norm(x, *named(weights, "group_norm"), groups, 1e-6), x.copy()
    (wq, bq), (wk, bk), (wv, bv), (wo, bo) = (named(weights, name) for name in ("to_q", "to_k", "to_v", "to_out.0"))
    for b in range(len(x)):
        tokens = [n[b, :, i, j] for i, j in np.ndindex(x.shape[2:])]
        for i, j in np.ndindex(x.shape[2:]):
            logits = np.array([(wq @ n[b, :, i, j] + bq) @ (wk @ m + bk) for m in tokens]) / np.sqrt(x.shape[1])
            seen = sum(share * (wv @ m + bv) for share, m in zip(special.softmax(logits), tokens, strict=True))
            out[b, :, i, j] += wo @ seen + bo
    return out


def unet_stage(block, attention, x, c, groups):
    x = unet_attention(attention, unet_block(block, x, c, groups), groups)
    return x, x


def unet_double(x, weight, bias):
    return convolved(np.kron(x, np.ones((1, 1, 2, 2), x.dtype)), weight, bias)


def unet_join(x, h):
    B, C, H, W = x.shape
    out = np.empty((B, C + h.shape[1], H, W), x.dtype)
    out[:, :C], out[:, C:] = x, h
    return out


def unet_channels(widths, blocks):
    """A size's blocks meet its own blocks from last to first, and then what came into it: a halved picture, or the first."""
    got = []
    for level in range(len(widths) - 1, -1, -1):
        skips = [widths[level]] * blocks + [widths[max(level - 1, 0)]]
        own = [widths[min(level + 1, len(widths) - 1)]] + [widths[level]] * blocks
        got += [a + b for a, b in zip(own, skips, strict=True)]
    return got


def mine():
    """topic -> function, from the names above."""
    return {name: f for name, f in globals().items() if name in md.verify.TOPICS}


def main():
    report = md.verify.check(mine())
    print(report)
    return report


if __name__ == "__main__":
    main()
