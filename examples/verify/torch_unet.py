"""The blocks of DDPM's U-Net in torch's own words, against the equations.

python examples/verify/torch_unet.py
"""

import torch
import torch.nn.functional as F

import minidit as md


def unet_time_embedding(t, width):
    frequency = torch.logspace(0, -4, width // 2, dtype=torch.float64)
    angle = torch.outer(t.double(), frequency)
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def group_norm(x, weight, bias, groups, eps):
    return F.group_norm(x, groups, weight, bias, eps)


def named(weights, name):
    return weights[f"{name}.weight"], weights[f"{name}.bias"]


def unet_block(weights, x, c, groups):
    h = F.conv2d(F.silu(F.group_norm(x, groups, *named(weights, "norm1"), 1e-6)), *named(weights, "conv1"), padding=1)
    h = h + F.linear(F.silu(c), *named(weights, "time_emb_proj"))[:, :, None, None]
    h = F.conv2d(F.silu(F.group_norm(h, groups, *named(weights, "norm2"), 1e-6)), *named(weights, "conv2"), padding=1)
    return h + (F.conv2d(x, *named(weights, "conv_shortcut")) if "conv_shortcut.weight" in weights else x)


def unet_attention(weights, x, groups):
    n = F.group_norm(x, groups, *named(weights, "group_norm"), 1e-6).flatten(2).mT
    q, k, v = (F.linear(n, *named(weights, name)) for name in ("to_q", "to_k", "to_v"))
    y = F.linear(F.scaled_dot_product_attention(q, k, v), *named(weights, "to_out.0"))
    return x + y.mT.reshape(x.shape)


def unet_stage(block, attention, x, c, groups):
    x = unet_attention(attention, unet_block(block, x, c, groups), groups)
    return x, x


def unet_double(x, weight, bias):
    return F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, bias, padding="same")


def unet_join(x, h):
    return torch.cat([x, h], dim=1)


def unet_channels(widths, blocks):
    """What a walk down and up meets, with tensors without memory."""
    here = lambda width: torch.empty(1, width, 0)
    x = here(widths[0])
    kept = [x]
    for level, width in enumerate(widths):
        for _ in range(blocks):
            x = here(width)
            kept.append(x)
        if level < len(widths) - 1:
            kept.append(x)
    got = []
    for width in reversed(widths):
        for _ in range(blocks + 1):
            got.append(unet_join(x, kept.pop()).shape[1])
            x = here(width)
    if kept:
        raise RuntimeError("something was remembered and never taken")
    return got


def mine():
    """topic -> function, from the names above."""
    return {name: f for name, f in globals().items() if name in md.verify.TOPICS}


def main():
    report = md.verify.check(md.verify.torch.functions(mine()))
    print(report)
    return report


if __name__ == "__main__":
    main()
