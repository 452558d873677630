"""Functions on torch tensors, as they are: the adapter hands them tensors (sharing memory, by DLPack) and takes tensors back.

    python examples/verify/torch_functions.py
    minidit verify torch examples/verify/torch_functions.py

Conversions, guidance, layers, embeddings and latents, written from the equations in another way than minidit's: tables first,
then torch's own functions. Ladders and samplers: torch_sampling.py; losses and optimisers: torch_training.py.
"""


import torch
import torch.nn.functional as F

import minidit as md


def column(table, t, like):
    return table[t].reshape(-1, *[1] * (like.ndim - 1)).to(like)


# ------------------------------------------------------------------------------------------------ laws


def q_sample(x_0, eps, t, alpha_bar):
    return torch.addcmul(column(alpha_bar.sqrt(), t, x_0) * x_0, column((1 - alpha_bar).sqrt(), t, eps), eps)


def x_0_from_eps(x_t, eps, t, alpha_bar):
    return column(alpha_bar.rsqrt(), t, x_t) * x_t - column((1 / alpha_bar - 1).sqrt(), t, x_t) * eps


def eps_from_x_0(x_t, x_0, t, alpha_bar):
    return (column(alpha_bar.rsqrt(), t, x_t) * x_t - x_0) / column((1 / alpha_bar - 1).sqrt(), t, x_t)


def v_from_pair(x_0, eps, t, alpha_bar):
    angle = torch.acos(alpha_bar.sqrt())
    return column(angle.cos(), t, eps) * eps - column(angle.sin(), t, x_0) * x_0


def x_0_from_v(x_t, v, t, alpha_bar):
    return column(alpha_bar.sqrt(), t, x_t) * x_t - column((1 - alpha_bar).sqrt(), t, v) * v


def eps_from_v(x_t, v, t, alpha_bar):
    return column((1 - alpha_bar).sqrt(), t, x_t) * x_t + column(alpha_bar.sqrt(), t, v) * v


def score_from_eps(eps, t, alpha_bar):
    return -eps * column((1 - alpha_bar).rsqrt(), t, eps)


def eps_from_score(score, t, alpha_bar):
    return -score * column((1 - alpha_bar).sqrt(), t, score)


# ------------------------------------------------------------------------------------------------ guidance


def guide(eps_u, eps_c, w):
    return torch.lerp(eps_u, eps_c, w)


def guide_omega(eps_u, eps_c, omega):
    return torch.lerp(eps_u, eps_c, 1 + omega)


def guide_uncond_first(out, w):
    return torch.lerp(*out.chunk(2), w)


def guide_cond_first(out, w):
    return torch.lerp(*out.chunk(2)[::-1], w)


def clip_static(x_0):
    return F.hardtanh(x_0)


def clip_dynamic(x_0, p, most):
    s = x_0.flatten(1).abs().quantile(p, dim=1).clamp(1, most).reshape(-1, *[1] * (x_0.ndim - 1))
    return x_0.clamp(-s, s) / s


def rescale_guided(eps, eps_c, phi):
    wide, narrow = (e.std((1, 2, 3), keepdim=True) for e in (eps_c, eps))
    return torch.lerp(eps, eps * wide / narrow, phi)


def guidance_interval(w, t, low, high):
    return 1 + (w - 1) * ((t >= low) & (t < high)).double()


# ------------------------------------------------------------------------------------------------ layers


def linear(x, weight, bias):
    return F.linear(x, weight, bias)


def gelu(x):
    return F.gelu(x, approximate="tanh")


def silu(x):
    return F.silu(x)


def softmax(x):
    return F.softmax(x, -1)


def layer_norm(x):
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def attention(q, k, v):
    return F.scaled_dot_product_attention(q, k, v)


def modulate(x, shift, scale):
    return torch.addcmul(shift[:, None], x, 1 + scale[:, None])


def gated_residual(x, gate, h):
    return torch.addcmul(x, gate[:, None], h)


def self_attention(weights, x, heads):
    out, _ = F.multi_head_attention_forward(
        *[x.transpose(0, 1)] * 3, x.shape[-1], heads, weights["qkv.weight"], weights["qkv.bias"], None, None, False, 0.0,
        weights["proj.weight"], weights["proj.bias"], need_weights=False,
    )  # fmt: skip
    return out.transpose(0, 1)


def mlp(weights, x):
    h = F.gelu(F.linear(x, weights["fc1.weight"], weights["fc1.bias"]), approximate="tanh")
    return F.linear(h, weights["fc2.weight"], weights["fc2.bias"])


def final_layer(weights, x, c):
    c = F.linear(F.silu(c), weights["adaLN_modulation.1.weight"], weights["adaLN_modulation.1.bias"])
    x = modulate(F.layer_norm(x, x.shape[-1:], eps=1e-6), *c.chunk(2, 1))
    return F.linear(x, weights["linear.weight"], weights["linear.bias"])


def block(weights, x, c, heads):
    six = F.linear(F.silu(c), weights["adaLN_modulation.1.weight"], weights["adaLN_modulation.1.bias"]).chunk(6, 1)
    attn, feed = ({n.removeprefix(p): w for n, w in weights.items() if n.startswith(p)} for p in ("attn.", "mlp."))
    x = gated_residual(x, six[2], self_attention(attn, modulate(layer_norm(x), *six[:2]), heads))
    return gated_residual(x, six[5], mlp(feed, modulate(layer_norm(x), *six[3:5])))


# ------------------------------------------------------------------------------------------------ time, class, place, patches


def patch_embed(x, weight, bias):
    if any(n % weight.shape[-1] for n in x.shape[2:]):  # the convolution would silently leave the last rows out
        raise ValueError(f"the patches of {weight.shape[-1]} do not fill {tuple(x.shape[2:])}")
    return F.conv2d(x, weight, bias, stride=weight.shape[-1]).flatten(2).mT


def unpatchify(tokens, p, size):
    B, N, _ = tokens.shape
    h, w = size[0] // p, size[1] // p
    if h * w != N:
        raise ValueError(f"{N} tokens are not {h} x {w}")
    by_channel = tokens.reshape(B, N, p * p, -1).permute(0, 3, 2, 1).reshape(B, -1, N)  # as fold wants it: (C p p, N)
    return F.fold(by_channel, tuple(size), p, stride=p)


def timestep_embedding(t, width):
    f = 10000.0 ** (-torch.arange(width // 2, dtype=torch.float64) / (width // 2))
    phase = torch.outer(t.double(), f)
    return torch.cat([phase.cos(), phase.sin()], 1)


def timestep_embedder(weights, t):
    h = F.linear(timestep_embedding(t, 256).to(weights["mlp.0.weight"]), weights["mlp.0.weight"], weights["mlp.0.bias"])
    return F.linear(F.silu(h), weights["mlp.2.weight"], weights["mlp.2.bias"])


def null_label(num_classes):
    return num_classes  # the row behind those of the classes


def label_embedding(table, y, drop):
    return F.embedding(torch.where(drop, len(table) - 1, y), table)


def position_embedding(D, h, w):
    row, column = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    return torch.cat([timestep_embedding(k.flatten(), D // 2).roll(D // 4, 1) for k in (column, row)], 1)  # sine first


# ------------------------------------------------------------------------------------------------ latents and pixels


def latent_sample(mean, logvar, eps, scale):
    return torch.addcmul(mean, (logvar / 2).exp(), eps) * scale


def latent_to_decoder(z_0, scale):
    return z_0 / scale


def measured_scale(latents):
    return 1 / latents.std(correction=0)


def pixels_in(pixels):
    return pixels.double().div(127.5).sub(1)


def pixels_out(x):
    return x.add(1).mul(127.5).clamp(0, 255).round().byte()


def halve(x, weight, bias):
    return F.conv2d(F.pad(x, (0, 1, 0, 1)), weight, bias, stride=2)


def main():
    report = md.verify.check(md.verify.torch.functions(mine()))
    print(report)
    return report


def mine():
    """topic -> function, from the names above."""
    return {name: f for name, f in globals().items() if name in md.verify.TOPICS}


if __name__ == "__main__":
    main()
