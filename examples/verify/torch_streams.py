"""Streams, rotary places and the groups of clips in torch's own words, against the equations.

python examples/verify/torch_streams.py
"""

import torch
import torch.nn.functional as F

import minidit as md


def rope(x, cos, sin):
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.complex(cos, sin)[:, None]).flatten(-2)


def rope_angles(ids, widths, theta):
    omega = [theta ** -(torch.arange(0, d, 2, dtype=torch.float64) / d) for d in widths]
    angles = torch.cat([torch.outer(i.double(), w) for i, w in zip(ids.mT, omega, strict=True)], dim=1)
    return angles.cos(), angles.sin()


def stream_places(words, h, w):
    return F.pad(torch.cartesian_prod(torch.zeros(1).long(), torch.arange(h), torch.arange(w)), (0, 0, words, 0))


def queries_and_keys(q, k, w_q, w_k, cos, sin):
    return tuple(rope(F.rms_norm(x, w.shape, w, 1e-6), cos, sin) for x, w in ((q, w_q), (k, w_k)))


def joint_attention(q_c, k_c, v_c, q, k, v, cos, sin):
    q, k, v = torch.cat([q_c, q]), torch.cat([k_c, k]), torch.cat([v_c, v])
    q, k, v = (x.transpose(0, 1) for x in (rope(q, cos, sin), rope(k, cos, sin), v))
    return F.scaled_dot_product_attention(q, k, v).transpose(0, 1).split([len(q_c), q.shape[1] - len(q_c)])


def entered(x, shift, scale):
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


def applied(weights, name, x):
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def parts_of(weights, name, c, n):
    return applied(weights, name, F.silu(c))[:, None].chunk(n, dim=-1)


def stream_block(weights, h, y, c):
    b1, g1, a1, b2, g2, a2 = parts_of(weights, "adaLN_modulation.1", c, 6)
    first = entered(h, b1, g1)
    h = h + a1 * applied(weights, "attn.proj", y)
    inner = F.gelu(applied(weights, "mlp.fc1", entered(h, b2, g2)), approximate="tanh")
    return first, h + a2 * applied(weights, "mlp.fc2", inner)


def single_block(weights, h, y, c):
    b, g, a = parts_of(weights, "modulation", c, 3)
    first = entered(h, b, g)
    inner = F.gelu(applied(weights, "linear1", first), approximate="tanh")
    return first, h + a * applied(weights, "linear2", torch.cat([y, inner], dim=-1))


def stream_final(weights, x, c):
    return applied(weights, "linear", entered(x, *parts_of(weights, "adaLN_modulation.1", c, 2)))


def stream_condition(weights, t, pooled, w):
    def wave(t):
        half = weights["t_embedder.mlp.0.weight"].shape[1] // 2
        angle = torch.outer(t.double(), 10000.0 ** -(torch.arange(half, dtype=torch.float64) / half))
        return torch.cat([angle.cos(), angle.sin()], dim=1).to(pooled)

    def two_layers(name, x):
        return applied(weights, f"{name}.mlp.2", F.silu(applied(weights, f"{name}.mlp.0", x)))

    return (
        two_layers("t_embedder", wave(t))
        + two_layers("y_embedder", pooled)
        + two_layers("guidance_embedder", wave(1000 * w.double()))
    )


def dual_block(weights, h, y, y2, c):
    b1, g1, a1, b2, g2, a2, b3, g3, a3 = parts_of(weights, "adaLN_modulation.1", c, 9)
    seen = entered(h, b1, g1), entered(h, b3, g3)
    h = h + a1 * applied(weights, "attn.proj", y) + a3 * applied(weights, "attn2.proj", y2)
    inner = F.gelu(applied(weights, "mlp.fc1", entered(h, b2, g2)), approximate="tanh")
    return *seen, h + a2 * applied(weights, "mlp.fc2", inner)


def last_context(weights, h, c):
    return entered(h, *parts_of(weights, "adaLN_modulation.1", c, 2))


def patches_alone(h, words):
    return h.split([words, h.shape[1] - words], dim=1)[1]


def conditions_with_text(time, text):
    return time + text, time + text


def factorised_blocks(x, T, depth):
    places = frame_places(T, x.shape[2]).to(x)
    for k in range(depth):
        a = x.unflatten(1, (T, -1))
        a = (a + places[:, None]).transpose(1, 2) if k % 2 else a
        y = F.scaled_dot_product_attention(a, a, a)
        x = x + (y.transpose(1, 2) if k % 2 else y).flatten(1, 2)
    return x


def cropped_places(D, side, h, w):
    omega = 10000.0 ** -(torch.arange(D // 4, dtype=torch.float64) / (D // 4))
    row, column = torch.meshgrid(*(torch.arange((side - n) // 2, (side - n) // 2 + n) for n in (h, w)), indexing="ij")
    angles = [torch.outer(s.flatten().double(), omega) for s in (column, row)]
    return torch.cat([wave(a) for a in angles for wave in (torch.sin, torch.cos)], dim=1)


def packed_patches(x, p):
    return F.unfold(x, p, stride=p).mT


def factorised_groups(x, T):
    clips = x.unflatten(1, (T, -1))
    return clips.flatten(0, 1), clips.transpose(1, 2).flatten(0, 1)


def group_conditions(c, n):
    return c.repeat_interleave(n, dim=0)


def frame_places(F, D):
    angle = torch.outer(torch.arange(F).double(), 10000.0 ** -(torch.arange(0, D, 2, dtype=torch.float64) / D))
    places = torch.cat([angle.sin(), angle.cos()], dim=1)
    return places - places[0]


def clip_patches(x, t, p):
    """What a convolution in three dimensions multiplies."""
    C = x.shape[1]
    eye = torch.eye(C * t * p * p, dtype=x.dtype).view(-1, C, t, p, p)
    return F.conv3d(x, eye, stride=(t, p, p)).flatten(2).mT


def mine():
    """topic -> function, from the names above."""
    return {name: f for name, f in globals().items() if name in md.verify.TOPICS}


def main():
    report = md.verify.check(md.verify.torch.functions(mine()))
    print(report)
    return report


if __name__ == "__main__":
    main()
