"""Functions on torch tensors, as they are: the adapter hands them tensors (sharing memory, by DLPack) and takes tensors back.

    python examples/verify/torch_functions.py
    minidit verify torch examples/verify/torch_functions.py

Written from the equations in another way than minidit's: tables first, then torch's own functions.
"""

import math

import torch
import torch.nn.functional as F

import minidit as md


def column(table, t, like):
    return table[t].reshape(-1, *[1] * (like.ndim - 1)).to(like)


def rungs(alpha_bar, t, s):
    return float(alpha_bar[t]), float(alpha_bar[s]) if s >= 0 else 1.0


# ------------------------------------------------------------------------------------------------ laws


def alpha_bar(betas):
    return torch.cumprod(1 - betas, 0)


def linear_betas(T):
    if T <= 20:
        raise ValueError("β would reach 1")
    return torch.linspace(0.1 / T, 20 / T, T, dtype=torch.float64)


def cosine_betas(T):
    f = torch.cos((torch.arange(T + 1, dtype=torch.float64) / T + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - f[1:] / f[:-1]).clamp(max=0.999)


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


def ddim_step(x_t, eps, t, s, alpha_bar, eta, z):
    a, p = rungs(alpha_bar, t, s)
    x_0 = x_t / math.sqrt(a) - math.sqrt(1 / a - 1) * eps
    sigma = eta * math.sqrt((1 - p) / (1 - a)) * math.sqrt(1 - a / p)
    return math.sqrt(p) * x_0 + math.sqrt(max(0.0, 1 - p - sigma**2)) * eps + (sigma * z if s >= 0 else 0)


def ddpm_step(x_t, eps, t, s, alpha_bar, z):
    a, p = rungs(alpha_bar, t, s)
    beta = 1 - a / p
    mean = (x_t - beta / math.sqrt(1 - a) * eps) / math.sqrt(1 - beta)  # Ho et al. (11)
    return mean + (math.exp(0.5 * math.log(beta * (1 - p) / (1 - a))) * z if s >= 0 else 0)


def posterior_variance(alpha_bar):
    before = F.pad(alpha_bar[:-1], (1, 0), value=1.0)
    return (1 - alpha_bar / before) * (1 - before) / (1 - alpha_bar)


def guide(eps_u, eps_c, w):
    return torch.lerp(eps_u, eps_c, w)


def normal_kl(mean_1, logvar_1, mean_2, logvar_2):
    m_1, l_1, m_2, l_2 = (torch.as_tensor(a, dtype=torch.float64) for a in (mean_1, logvar_1, mean_2, logvar_2))
    normal = torch.distributions.Normal
    return torch.distributions.kl_divergence(normal(m_1, (l_1 / 2).exp()), normal(m_2, (l_2 / 2).exp()))


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
