"""A training step and a sampler's side in torch's own words: losses, optimisers, distributions and layers against the equations.

    python examples/verify/torch_training.py
"""

import math

import torch
import torch.nn.functional as F
from torch.distributions import Normal

import minidit as md


def column(table, t, like):
    return table[t].reshape(-1, *[1] * (like.ndim - 1))


# ------------------------------------------------------------------------------------------------ losses and likelihood


def simple_loss(out, x_0, eps, t, alpha_bar, objective):
    a = column(alpha_bar, t, x_0)
    return F.mse_loss(out, {"eps": eps, "x_0": x_0, "v": a.sqrt() * eps - (1 - a).sqrt() * x_0}[objective])


def min_snr_x_0(alpha_bar, gamma):
    return (alpha_bar / (1 - alpha_bar)).clamp(max=gamma)


def min_snr_eps(alpha_bar, gamma):
    return (gamma * (1 / alpha_bar - 1)).clamp(max=1)


def min_snr_v(alpha_bar, gamma):
    return torch.minimum(alpha_bar, gamma * (1 - alpha_bar))


def importance_weights(p, t):
    return 1 / (len(p) * p[t])


def continuous_nll(x, mean, log_variance):
    return F.gaussian_nll_loss(mean, x, log_variance.exp(), full=True, eps=1e-30, reduction="none")


def discretised_nll(x, mean, log_variance):
    normal = Normal(mean, (log_variance / 2).exp())
    upper = torch.where(x > 0.999, 1.0, normal.cdf(x + 1 / 255))
    return -(upper - torch.where(x < -0.999, 0.0, normal.cdf(x - 1 / 255))).clamp(min=1e-12).log()


def bits_per_dim(nats):
    return nats.flatten(1).mean(1) / math.log(2)


def prior_bits(x_0, alpha_bar):
    a = alpha_bar[-1]
    last = Normal(a.sqrt() * x_0, (1 - a).sqrt().expand_as(x_0))
    return bits_per_dim(torch.distributions.kl_divergence(last, Normal(0.0, 1.0)))


# ------------------------------------------------------------------------------------------------ optimisers


def adamw_update(theta, m, v, g, n, lr, beta1, beta2, eps, weight_decay):
    p = torch.nn.Parameter(theta.clone())
    optimiser = torch.optim.AdamW([p], lr, (beta1, beta2), eps, weight_decay)
    optimiser.state[p] = {"step": torch.tensor(float(n - 1)), "exp_avg": m.clone(), "exp_avg_sq": v.clone()}
    p.grad = g.clone()
    optimiser.step()
    state = optimiser.state[p]
    return p.detach(), state["exp_avg"], state["exp_avg_sq"]


def clip_gradients(gradients, limit):
    ps = {name: torch.nn.Parameter(torch.zeros_like(g)) for name, g in gradients.items()}
    for name, p in ps.items():
        p.grad = gradients[name].clone()
    torch.nn.utils.clip_grad_norm_(ps.values(), limit)
    return {name: p.grad for name, p in ps.items()}


def ema_update(average, theta, decay):
    return torch.lerp(theta, average, decay)


# ------------------------------------------------------------------------------------------------ sampling


def posterior_log_variance(alpha_bar):
    before = F.pad(alpha_bar[:-1], (1, 0), value=1.0)
    table = (1 - alpha_bar / before).log() + (1 - before).log() - (1 - alpha_bar).log()
    table[0] = table[1]
    return table


def posterior_mean(x_0, x_t, t, s, alpha_bar):
    a, p = alpha_bar[t], alpha_bar[s] if s >= 0 else torch.tensor(1.0, dtype=torch.float64)
    return (p.sqrt() * (1 - a / p) * x_0 + (a / p).sqrt() * (1 - p) * x_t) / (1 - a)


def ddim_invert_step(x_s, eps, s, t, alpha_bar):
    a, p = float(alpha_bar[t]), float(alpha_bar[s]) if s >= 0 else 1.0
    return math.sqrt(a / p) * x_s + (math.sqrt(1 - a) - math.sqrt(a * (1 - p) / p)) * eps


def score_from_eps(eps, t, alpha_bar):
    return -eps * column((1 - alpha_bar).rsqrt(), t, eps)


def eps_from_score(score, t, alpha_bar):
    return -score * column((1 - alpha_bar).sqrt(), t, score)


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


# ------------------------------------------------------------------------------------------------ layers and latents


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


def label_embedding(table, y, drop):
    return F.embedding(torch.where(drop, len(table) - 1, y), table)


def final_layer(weights, x, c):
    c = F.linear(F.silu(c), weights["adaLN_modulation.1.weight"], weights["adaLN_modulation.1.bias"])
    x = modulate(F.layer_norm(x, x.shape[-1:], eps=1e-6), *c.chunk(2, 1))
    return F.linear(x, weights["linear.weight"], weights["linear.bias"])


def latent_to_decoder(z_0, scale):
    return z_0 / scale


def mine():
    """topic -> function, from the names above."""
    return {name: f for name, f in globals().items() if name in md.verify.TOPICS}


def main():
    report = md.verify.check(md.verify.torch.functions(mine()))
    print(report)
    return report


if __name__ == "__main__":
    main()
