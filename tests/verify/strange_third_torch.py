"""More mistakes as users of PyTorch write them, layers and whole blocks: (what is wrong, topic, function on tensors)."""

import math

import torch
import torch.nn.functional as F

EYE = lambda x: x


def block(w, x, c, heads, *, act=F.silu, norm=None, mlp_act=lambda h: F.gelu(h, approximate="tanh"), order=(0, 1, 2, 3, 4, 5),
          parallel=False, scale=None, post=False, gates=True, drop=EYE, tail=EYE):  # fmt: skip
    D = x.shape[-1]
    norm = norm or (lambda h: F.layer_norm(h, (D,), eps=1e-6))
    chunks = F.linear(act(c), w["adaLN_modulation.1.weight"], w["adaLN_modulation.1.bias"]).unsqueeze(1).chunk(6, dim=-1)
    b1, s1, g1, b2, s2, g2 = (chunks[k] for k in order)
    if not gates:
        g1 = g2 = 1.0

    def attn(h):
        q, k, v = (a.unflatten(-1, (heads, -1)).transpose(1, 2)
                   for a in F.linear(h, w["attn.qkv.weight"], w["attn.qkv.bias"]).chunk(3, dim=-1))  # fmt: skip
        y = F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2).flatten(2)
        return F.linear(y, w["attn.proj.weight"], w["attn.proj.bias"])

    def mlp(h):
        return F.linear(mlp_act(F.linear(h, w["mlp.fc1.weight"], w["mlp.fc1.bias"])), w["mlp.fc2.weight"], w["mlp.fc2.bias"])

    if post:
        x = norm(x + g1 * attn(x * (1 + s1) + b1))
        return norm(x + g2 * mlp(x * (1 + s2) + b2))
    y = x + g1 * drop(attn(norm(x) * (1 + s1) + b1))
    return tail(y + g2 * mlp(norm(x if parallel else y) * (1 + s2) + b2))


def final(w, x, c, act=F.silu, flip=False, norm=True, add=0.0):
    shift, scale = F.linear(act(c), w["adaLN_modulation.1.weight"], w["adaLN_modulation.1.bias"]).chunk(2, dim=1)
    h = F.layer_norm(x, x.shape[-1:], eps=1e-6) if norm else x
    h = h * (1 + shift[:, None]) + scale[:, None] if flip else h * (1 + scale[:, None]) + shift[:, None]
    return F.linear(h, w["linear.weight"], w["linear.bias"] + add)


def gather(a, t, x):
    return a.gather(-1, t).reshape(-1, *[1] * (x.dim() - 1)).to(x)


STRANGE = [
    ("add_noise with cumprod done twice", "q_sample", lambda x, n, t, a: (
        c := torch.cumprod(a, 0), gather(c, t, x).sqrt() * x + (1 - gather(c, t, x)).sqrt() * n)[-1]),
    ("gather on the flipped table", "q_sample", lambda x, n, t, a: (
        c := a.flip(0), gather(c, t, x).sqrt() * x + (1 - gather(c, t, x)).sqrt() * n)[-1]),
    ("broadcast over the last axis", "q_sample", lambda x, n, t, a: (
        c := a[t].mean(), c.sqrt() * x + (1 - c).sqrt() * n)[-1]),
    ("noise like the first sample", "q_sample", lambda x, n, t, a: (
        gather(a, t, x).sqrt() * x + (1 - gather(a, t, x)).sqrt() * n[:1].expand_as(n))),
    ("lerp", "q_sample", lambda x, n, t, a: torch.lerp(n, x, gather(a, t, x))),
    ("smooth l1", "simple_loss", lambda out, x, e, t, a, o: F.smooth_l1_loss(out, {
        "eps": e, "x_0": x, "v": gather(a, t, x).sqrt() * e - (1 - gather(a, t, x)).sqrt() * x}[o])),
    ("l1_loss", "simple_loss", lambda out, x, e, t, a, o: F.l1_loss(out, {
        "eps": e, "x_0": x, "v": gather(a, t, x).sqrt() * e - (1 - gather(a, t, x)).sqrt() * x}[o])),
    ("mse of sums", "simple_loss", lambda out, x, e, t, a, o: F.mse_loss(out, {
        "eps": e, "x_0": x, "v": gather(a, t, x).sqrt() * e - (1 - gather(a, t, x)).sqrt() * x}[o], reduction="sum")),
    ("gelu of torch's default", "gelu", F.gelu),
    ("mish", "silu", F.mish),
    ("glu's gate", "silu", lambda x: torch.sigmoid(x)),
    ("log softmax", "softmax", lambda x: F.log_softmax(x, dim=-1)),
    ("dim=1", "softmax", lambda x: F.softmax(x, dim=1)),
    ("torch.std is unbiased", "layer_norm", lambda x: (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6)),
    ("eps of torch's default", "layer_norm", lambda x: F.layer_norm(x, x.shape[-1:])),
    ("F.normalize", "layer_norm", lambda x: F.normalize(x - x.mean(-1, keepdim=True), dim=-1)),
    ("is_causal", "attention", lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)),
    ("q scaled before, and again", "attention", lambda q, k, v: F.scaled_dot_product_attention(q * q.shape[-1] ** -0.5, k, v)),
    ("key and query exchanged", "attention", lambda q, k, v: F.scaled_dot_product_attention(k, q, v)),
    ("parallel branches", "block", lambda w, x, c, h: block(w, x, c, h, parallel=True)),
    ("post-norm", "block", lambda w, x, c, h: block(w, x, c, h, post=True)),
    ("no gates", "block", lambda w, x, c, h: block(w, x, c, h, gates=False)),
    ("scale before shift", "block", lambda w, x, c, h: block(w, x, c, h, order=(1, 0, 2, 4, 3, 5))),
    ("the MLP's triple first", "block", lambda w, x, c, h: block(w, x, c, h, order=(3, 4, 5, 0, 1, 2))),
    ("exact gelu in the MLP", "block", lambda w, x, c, h: block(w, x, c, h, mlp_act=F.gelu)),
    ("relu in the MLP", "block", lambda w, x, c, h: block(w, x, c, h, mlp_act=F.relu)),
    ("eps 1e-5", "block", lambda w, x, c, h: block(w, x, c, h, norm=lambda a: F.layer_norm(a, a.shape[-1:]))),
    ("an RMS norm", "block", lambda w, x, c, h: block(w, x, c, h, norm=lambda a: F.rms_norm(a, a.shape[-1:], eps=1e-6))),
    ("attention without a scale", "block", lambda w, x, c, h: block(w, x, c, h, scale=1.0)),
    ("no SiLU before the modulation", "block", lambda w, x, c, h: block(w, x, c, h, act=EYE)),
    ("a norm at the end", "block", lambda w, x, c, h: block(w, x, c, h, tail=lambda a: F.layer_norm(a, a.shape[-1:], eps=1e-6))),
    ("gelu before the modulation", "final_layer", lambda w, x, c: final(w, x, c, act=F.gelu)),
    ("shift and scale flipped", "final_layer", lambda w, x, c: final(w, x, c, flip=True)),
    ("no norm", "final_layer", lambda w, x, c: final(w, x, c, norm=False)),
    ("chunk(2, dim=0)", "guide_uncond_first", lambda out, w: (lambda c, u: u + w * (c - u))(*out.chunk(2, dim=0))),
    ("std of the batch", "rescale_guided", lambda e, c, phi: phi * e * c.std() / e.std() + (1 - phi) * e),
    ("quantile of the batch", "clip_dynamic", lambda x, p, most: (
        q := torch.quantile(x.abs().flatten(), p).clamp(1, most), x.clamp(-q, q) / q)[-1]),
    ("clamp without the division", "clip_dynamic", lambda x, p, most: (
        q := torch.quantile(x.abs().flatten(1), p, dim=1).clamp(1, most).view(-1, 1, 1, 1), x.clamp(-q, q))[-1]),
    ("lerp_ with the decay as weight", "ema_update", lambda a, th, d: torch.lerp(a, th, d)),
    ("GroupNorm of one group", "group_norm", lambda x, w, b, g, eps: F.group_norm(x, g and x.shape[1] % g + 1, w, b, eps)),
    ("bilinear", "unet_double", lambda x, w, b: F.conv2d(F.interpolate(
        x, scale_factor=2, mode="bilinear", align_corners=False), w, b, padding=1)),
    ("concatenated the other way", "unet_join", lambda x, h: torch.cat([h, x], dim=1)),
    ("padding of torch's conv", "halve", lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1)),
    ("pixel_shuffle", "unpatchify", lambda tok, p, size: F.pixel_shuffle(
        tok.transpose(1, 2).unflatten(2, (size[0] // p, size[1] // p)), p)),
    ("the convolution flattened by columns", "patch_embed",
     lambda x, w, b: F.conv2d(x, w, b, stride=w.shape[-1]).transpose(2, 3).flatten(2).transpose(1, 2)),
    ("u + w c", "guide", lambda u, c, w: torch.add(u, c, alpha=w)),
    ("time embedding by torch.arange / (half - 1)", "timestep_embedding", lambda t, n: (
        a := t.double()[:, None] * torch.exp(-math.log(10000) * torch.arange(n // 2).double() / (n // 2 - 1)),
        torch.cat([a.cos(), a.sin()], -1))[-1]),
]  # fmt: skip
