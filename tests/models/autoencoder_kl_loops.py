"""The KL autoencoder once more, with SciPy's correlation, from the equations (L.6), (L.7) and (L.8)."""

import numpy as np
from nn.plain import conv, group_norm, linear, silu, softmax
from scipy.signal import correlate


def block(state, name, x, groups):
    h = conv(state, f"{name}.conv1", silu(group_norm(state, f"{name}.norm1", x, groups)))
    h = conv(state, f"{name}.conv2", silu(group_norm(state, f"{name}.norm2", h, groups)))
    return h + (conv(state, f"{name}.conv_shortcut", x) if f"{name}.conv_shortcut.weight" in state else x)


def halved(state, name, x):
    w, b = state[f"{name}.weight"], state[f"{name}.bias"]
    x = np.pad(x, ((0, 0), (0, 0), (0, 1), (0, 1)))
    y = np.stack([[correlate(image, kernel, mode="valid")[0] for kernel in w] for image in x])
    return y[:, :, ::2, ::2] + b[:, None, None]


def pixels(state, name, x, groups):
    B, C, H, W = x.shape
    n = group_norm(state, f"{name}.group_norm", x, groups).reshape(B, C, H * W).swapaxes(1, 2)
    q, k, v = (linear(state, f"{name}.to_{letter}", n) for letter in "qkv")
    y = linear(state, f"{name}.to_out.0", softmax(q @ k.swapaxes(1, 2) / np.sqrt(C)) @ v)
    return x + y.swapaxes(1, 2).reshape(x.shape)


def middle(state, name, x, groups):
    x = block(state, f"{name}.resnets.0", x, groups)
    return block(state, f"{name}.resnets.1", pixels(state, f"{name}.attentions.0", x, groups), groups)


def encoded(state, config, x):
    """The moments: means, then log-variances without limits."""
    h, g = conv(state, "encoder.conv_in", x), config.groups
    for i in range(len(config.widths)):
        for j in range(config.blocks):
            h = block(state, f"encoder.down_blocks.{i}.resnets.{j}", h, g)
        if i < len(config.widths) - 1:
            h = halved(state, f"encoder.down_blocks.{i}.downsamplers.0.conv", h)
    h = silu(group_norm(state, "encoder.conv_norm_out", middle(state, "encoder.mid_block", h, g), g))
    return conv(state, "quant_conv", conv(state, "encoder.conv_out", h))


def decoded(state, config, z):
    h, g = conv(state, "decoder.conv_in", conv(state, "post_quant_conv", z)), config.groups
    h = middle(state, "decoder.mid_block", h, g)
    for i in range(len(config.widths)):
        for j in range(config.blocks + 1):
            h = block(state, f"decoder.up_blocks.{i}.resnets.{j}", h, g)
        if i < len(config.widths) - 1:
            h = conv(state, f"decoder.up_blocks.{i}.upsamplers.0.conv", h.repeat(2, axis=2).repeat(2, axis=3))
    return conv(state, "decoder.conv_out", silu(group_norm(state, "decoder.conv_norm_out", h, g)))
