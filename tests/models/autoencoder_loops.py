"""The latent autoencoder and the classifier once more, with SciPy's correlation."""

import numpy as np
from nn.plain import conv, group_norm, linear, silu


def block(state, name, x, groups):
    h = conv(state, f"{name}.conv1", silu(group_norm(state, f"{name}.norm1", x, groups)))
    return x + conv(state, f"{name}.conv2", silu(group_norm(state, f"{name}.norm2", h, groups)))


def larger(x):
    """Channel 4c + 2i + j becomes pixel (i, j) of the squares of channel c."""
    B, C, h, w = x.shape
    y = np.empty((B, C // 4, 2 * h, 2 * w))
    for k in range(4):
        y[:, :, k // 2 :: 2, k % 2 :: 2] = x[:, k::4]
    return y


def encoded(state, x, groups):
    """The moments: means, then log-variances without limits."""
    h = silu(conv(state, "encoder.down1", x, stride=2))
    h = silu(conv(state, "encoder.down2", h, stride=2))
    h = block(state, "encoder.block", conv(state, "encoder.wide", h), groups)
    return conv(state, "encoder.out", silu(group_norm(state, "encoder.norm", h, groups)))


def decoded(state, z, groups):
    h = block(state, "decoder.block", conv(state, "decoder.wide", z), groups)
    h = silu(group_norm(state, "decoder.norm", h, groups))
    h = silu(larger(conv(state, "decoder.up1", h)))
    h = silu(larger(conv(state, "decoder.up2", h)))
    return conv(state, "decoder.out", h)


def classified(state, x, groups=8):
    """(logits, features)"""
    h = silu(conv(state, "conv1", x, stride=2))
    h = silu(group_norm(state, "norm2", conv(state, "conv2", h, stride=2), groups))
    h = silu(group_norm(state, "norm3", conv(state, "conv3", h, stride=2), groups))
    features = silu(linear(state, "hidden", h.reshape(len(h), -1)))
    return linear(state, "head", features), features
