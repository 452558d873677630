"""The U-Net once more, in NumPy and SciPy, from (T.15) to (T.17) and the names of a state alone."""

import numpy as np
from nn import plain


def has(state, stem):
    return f"{stem}.weight" in state


def conv3(state, name, x):
    return plain.conv(state, name, x)


def halved(state, name, x, even):
    """(L.7), or zeros on all four sides."""
    if even:
        return plain.conv(state, name, x, stride=2)
    w, b = state[f"{name}.weight"], state[f"{name}.bias"]
    x = np.pad(x, ((0, 0), (0, 0), (0, 1), (0, 1)))
    H, W = x.shape[2] // 2, x.shape[3] // 2
    y = np.zeros((len(x), len(w), H, W))
    for r in range(H):
        for c in range(W):
            y[:, :, r, c] = np.einsum("bcij,ocij->bo", x[:, :, 2 * r : 2 * r + 3, 2 * c : 2 * c + 3], w) + b
    return y


def block(state, name, x, c, config, change=None):
    g, eps = config.groups, config.norm_eps
    h = plain.silu(plain.group_norm(state, f"{name}.norm1", x, g, eps))
    if change == "half":
        x, h = (sum(a[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4 for a in (x, h))
    if change == "double":
        x, h = (a.repeat(2, axis=2).repeat(2, axis=3) for a in (x, h))
    h = conv3(state, f"{name}.conv1", h)
    m = plain.linear(state, f"{name}.time_emb_proj", plain.silu(c))[:, :, None, None]
    O = h.shape[1]
    if config.scale_shift:
        h = plain.group_norm(state, f"{name}.norm2", h, g, eps) * (1 + m[:, :O]) + m[:, O:]
    else:
        h = plain.group_norm(state, f"{name}.norm2", h + m, g, eps)
    h = conv3(state, f"{name}.conv2", plain.silu(h))
    return h + (conv3(state, f"{name}.conv_shortcut", x) if has(state, f"{name}.conv_shortcut") else x)


def attention(state, name, x, config):
    B, C, H, W = x.shape
    n = plain.group_norm(state, f"{name}.group_norm", x, config.groups, config.norm_eps).reshape(B, C, -1).swapaxes(1, 2)
    q, k, v = (plain.linear(state, f"{name}.to_{letter}", n) for letter in "qkv")
    y = np.stack([plain.attention(*qkv, C // (config.head_width or C)) for qkv in zip(q, k, v, strict=True)])
    return x + plain.linear(state, f"{name}.to_out.0", y).swapaxes(1, 2).reshape(B, C, H, W)


def stage(state, name, j, x, c, config):
    x = block(state, f"{name}.resnets.{j}", x, c, config)
    return attention(state, f"{name}.attentions.{j}", x, config) if has(state, f"{name}.attentions.{j}.to_q") else x


def condition(state, config, t, y):
    half = config.widths[0] // 2
    angle = np.asarray(t, float)[:, None] * 10000 ** (-np.arange(half) / (half - config.freq_shift))
    waves = [np.sin(angle), np.cos(angle)]
    emb = np.concatenate(waves[::-1] if config.cosine_first else waves, axis=1)
    c = plain.linear(state, "time_embedding.linear_2", plain.silu(plain.linear(state, "time_embedding.linear_1", emb)))
    return c if y is None else c + state["class_embedding.weight"][y]


def forward(state, config, x, t, y):
    c = condition(state, config, t, y)
    x = conv3(state, "conv_in", x)
    last, remembered = len(config.widths) - 1, [x]
    for i in range(last + 1):
        for j in range(config.blocks):
            x = stage(state, f"down_blocks.{i}", j, x, c, config)
            remembered.append(x)
        if i < last:
            name = f"down_blocks.{i}.downsamplers.0"
            conv = config.resample == "conv"
            x = halved(state, f"{name}.conv", x, config.even_padding) if conv else block(state, name, x, c, config, "half")
            remembered.append(x)
    x = stage(state, "mid_block", 1, stage(state, "mid_block", 0, x, c, config), c, config)
    for i in range(last + 1):
        for j in range(config.blocks + 1):
            x = stage(state, f"up_blocks.{i}", j, np.concatenate([x, remembered.pop()], axis=1), c, config)
        if i < last:
            name = f"up_blocks.{i}.upsamplers.0"
            larger = x.repeat(2, axis=2).repeat(2, axis=3)
            x = conv3(state, f"{name}.conv", larger) if config.resample == "conv" else block(state, name, x, c, config, "double")
    assert not remembered
    return conv3(state, "conv_out", plain.silu(plain.group_norm(state, "conv_norm_out", x, config.groups, config.norm_eps)))
