"""Codes, and the writing of tokens, in torch's own words, against the equations.

python examples/verify/torch_tokens.py
"""

import torch
import torch.nn.functional as F

import minidit as md

# ------------------------------------------------------------------------------------------------ codes


def nearest_code(z, codes):
    return torch.cdist(z, codes).argmin(dim=1)


def codebook_loss(z, codes, beta):
    z, codes = z.clone().requires_grad_(), codes.clone().requires_grad_()
    e = F.embedding(nearest_code(z.detach().flatten(0, -2), codes.detach()), codes).view_as(z)
    loss = F.mse_loss(e, z.detach()) + beta * F.mse_loss(z, e.detach())
    return (loss.detach(), *torch.autograd.grad(loss, (z, codes)))


def straight_through(z, codes, y_bar):
    z, codes = z.clone().requires_grad_(), codes.clone().requires_grad_()
    e = codes[nearest_code(z.detach(), codes.detach())]
    out = z + (e - z).detach()
    z_bar, codes_bar = torch.autograd.grad(out, (z, codes), y_bar, allow_unused=True)
    return out.detach(), z_bar, torch.zeros_like(codes) if codes_bar is None else codes_bar


def sphere_code(z, codes):
    z, codes = F.normalize(z, dim=1), F.normalize(codes, dim=1)
    chosen = nearest_code(z, codes)
    return chosen, codes[chosen]


def code_perplexity(counts):
    return torch.distributions.Categorical(probs=counts / counts.sum()).entropy().exp()


def running_codes(n, s, z, index, decay):
    n = n.lerp(torch.bincount(index, minlength=len(n)).to(n), 1 - decay)
    s = s.lerp(torch.zeros_like(s).index_add(0, index, z), 1 - decay)
    return n, s, s / n[:, None]


def fsq_code(z, levels):
    L = torch.tensor(levels, dtype=z.dtype)
    half, shift = (L - 1) * (1 + 1e-3) / 2, torch.where(L % 2 == 1, 0.0, 0.5).to(z)
    q = ((z + (shift / half).atanh()).tanh() * half - shift).round()
    digits, number = (q + L // 2).long(), 0
    for d in reversed(range(len(levels))):
        number = number * levels[d] + digits[:, d]
    return q / (L // 2), number


def area_rows(p, H):
    return F.adaptive_avg_pool1d(torch.eye(H, dtype=torch.float64)[None], p)[0].mT


def bicubic(x, size):
    return F.interpolate(x, size=size, mode="bicubic", align_corners=False)


def bicubic_rows(H, p):
    columns = torch.eye(p, dtype=torch.float64)[None, :, :, None].expand(1, p, p, p)
    return bicubic(columns.contiguous(), (H, p))[0, :, :, 0].mT


def shared_phi(scales, shared):
    edge = 1 / (3 * shared) if shared == 4 else 1 / (2 * shared)
    ticks = torch.linspace(edge, 1 - edge, shared, dtype=torch.float64)
    if scales == 1:
        return torch.tensor([shared // 2])
    return torch.stack([(ticks - k / (scales - 1)).abs().argmin() for k in range(scales)])


def picture(e, p):
    return e.view(p, p, -1).permute(2, 0, 1)[None]


def residual_codes(f, codes, blends, sizes):
    rest, drawn, numbers, maps = f.permute(2, 0, 1)[None].clone(), 0, [], []
    for k, p in enumerate(sizes):
        z = F.interpolate(rest, size=(p, p), mode="area")
        numbers.append(nearest_code(z[0].flatten(1).mT.contiguous(), codes))
        h = picture(codes[numbers[-1]], p)
        h = h if p == len(f) else bicubic(h, f.shape[:2])
        h = 0.5 * h + 0.5 * F.conv2d(h, blends[shared_phi(len(sizes), len(blends))[k]], padding=1)
        rest, drawn = rest - h, drawn + h
        maps.append(drawn[0].permute(1, 2, 0))
    return torch.cat(numbers), torch.stack(maps)


def scale_inputs(index, codes, sizes):
    H, drawn, inputs = sizes[-1], 0, []
    for ids, p, after in zip(index.split([p * p for p in sizes]), sizes, sizes[1:], strict=False):
        drawn = drawn + bicubic(picture(codes[ids], p), (H, H))
        inputs.append(F.interpolate(drawn, size=(after, after), mode="area")[0].flatten(1).mT)
    return torch.cat(inputs)


# ------------------------------------------------------------------------------------------------ tokens


def token_mask(groups):
    level = torch.repeat_interleave(torch.arange(len(groups)), torch.tensor(groups))
    return (level[:, None] >= level).long()


def token_nll(logits, x):
    return F.cross_entropy(logits.mT, x, reduction="none").mean(dim=1)


def guided_logits(l, l_u, w):
    return torch.lerp(l_u, l, w)


def rising_scale(w, g, G):
    return torch.linspace(1, w, G, dtype=torch.float64)[g] if G > 1 else w


def kept_probabilities(logits, temperature, top_k, top_p):
    logits = logits / temperature
    if top_k:
        logits = logits.masked_fill(logits < logits.topk(top_k, dim=-1).values[:, -1:], -torch.inf)
    falling, order = logits.softmax(dim=-1).sort(dim=-1, descending=True)
    beyond = torch.zeros_like(falling, dtype=torch.bool).scatter(-1, order, falling.cumsum(dim=-1) - falling >= top_p)
    return logits.masked_fill(beyond, -torch.inf).softmax(dim=-1)


def chosen_token(p, u):
    return torch.searchsorted(p.cumsum(dim=1), u[:, None], right=True)[:, 0]


def turned(x, cos, sin):
    return torch.view_as_real(
        torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) * torch.complex(cos, sin)[:, None]
    ).flatten(-2)


def cached_attention(q, k, v, cos, sin, calls):
    out, keys, values = [], [], []
    for new in torch.arange(len(q)).split(list(calls)):
        keys.append(turned(k[new], cos[new], sin[new]))
        values.append(v[new])
        K, V = torch.cat(keys).transpose(0, 1), torch.cat(values).transpose(0, 1)
        mask = torch.ones(len(new), K.shape[1], dtype=torch.bool).tril(K.shape[1] - len(new))
        query = turned(q[new], cos[new], sin[new]).transpose(0, 1)
        out.append(F.scaled_dot_product_attention(query, K, V, attn_mask=mask).transpose(0, 1))
    return torch.cat(out)


def prefix_turns(h, w, width, theta):
    omega = theta ** -(torch.arange(0, width // 2, 2, dtype=torch.float64) / (width // 2))
    row, column = torch.meshgrid(torch.arange(h).double(), torch.arange(w).double(), indexing="ij")
    angles = torch.cat([torch.outer(row.flatten(), omega), torch.outer(column.flatten(), omega)], dim=1)
    angles = torch.cat([torch.zeros(1, width // 2, dtype=torch.float64), angles[:-1]])
    return angles.cos(), angles.sin()


def rms_norm(x, weight, eps):
    return F.rms_norm(x, weight.shape, weight, eps)


def swiglu(x, w1, w3, w2):
    return F.linear(F.silu(F.linear(x, w1)) * F.linear(x, w3), w2)


def normed(x):
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def var_modulation(x, c, weight, bias, a):
    a1, a2, g1, g2, b1, b2 = F.linear(F.silu(c), weight, bias)[:, None].chunk(6, dim=-1)
    return normed(x) * (1 + g1) + b1, x + a1 * a, normed(x) * (1 + g2) + b2, x + a2 * a


def var_head(x, c, weight, bias):
    g, b = F.linear(F.silu(c), weight, bias)[:, None].chunk(2, dim=-1)
    return normed(x) * (1 + g) + b


def cosine_logits(q, k, s):
    return F.cosine_similarity(q[:, :, None], k[:, None], dim=-1) * s.exp().clamp(max=100)[:, None, None]


def mine():
    """topic -> function, from the names above."""
    return {name: f for name, f in globals().items() if name in md.verify.TOPICS}


def main():
    report = md.verify.check(md.verify.torch.functions(mine()))
    print(report)
    return report


if __name__ == "__main__":
    main()
