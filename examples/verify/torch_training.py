"""A training step in torch's own words: losses, the bound, its gradient, optimisers and averages against the equations.

    python examples/verify/torch_training.py
"""

import math

import torch
import torch.nn.functional as F
from torch.distributions import Normal
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

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


def importance_probabilities(history):
    p = F.normalize(history.square().mean(1).sqrt(), p=1, dim=0)
    return torch.full_like(p, 1 / len(p)) if p.isnan().any() else torch.lerp(p, torch.full_like(p, 1 / len(p)), 0.001)


def normal_kl(mean_1, logvar_1, mean_2, logvar_2):
    m_1, l_1, m_2, l_2 = (torch.as_tensor(a, dtype=torch.float64) for a in (mean_1, logvar_1, mean_2, logvar_2))
    normal = torch.distributions.Normal
    return torch.distributions.kl_divergence(normal(m_1, (l_1 / 2).exp()), normal(m_2, (l_2 / 2).exp()))


def continuous_nll(x, mean, log_variance):
    return F.gaussian_nll_loss(mean, x, log_variance.exp(), full=True, eps=1e-30, reduction="none")


def discretised_nll(x, mean, log_variance):
    std = (log_variance / 2).exp()
    low = ((x - mean - 1 / 255) / std).masked_fill(x < -0.999, -torch.inf)
    high = ((x - mean + 1 / 255) / std).masked_fill(x > 0.999, torch.inf)
    far = low + high > 0  # mirrored to the left, where the difference of two Φ does not cancel
    low, high = torch.where(far, -high, low), torch.where(far, -low, high)
    phi = lambda z: torch.erfc(-z / math.sqrt(2)) / 2  # torch.special.ndtr is (1 + erf)/2, which has no digits left at -8
    return -(phi(high) - phi(low)).clamp(min=1e-12).log()


def bits_per_dim(nats):
    return nats.flatten(1).mean(1) / math.log(2)


def prior_bits(x_0, alpha_bar):
    a = alpha_bar[-1]
    last = Normal(a.sqrt() * x_0, (1 - a).sqrt().expand_as(x_0))
    return bits_per_dim(torch.distributions.kl_divergence(last, Normal(0.0, 1.0)))


def posterior(t, alpha_bar):
    """c_1, c_2 of the mean of q(x_{t-1} | x_t, x_0), ln β̃ (at t = 0 that of t = 1) and ln β."""
    p = alpha_bar[t - 1] if t else torch.ones_like(alpha_bar[0])
    alpha, k = alpha_bar[t] / p, max(t, 1)
    low = torch.log1p(-alpha_bar[k] / alpha_bar[k - 1]) + torch.log1p(-alpha_bar[k - 1]) - torch.log1p(-alpha_bar[k])
    return p.sqrt() * (1 - alpha) / (1 - alpha_bar[t]), alpha.sqrt() * (1 - p) / (1 - alpha_bar[t]), low, (1 - alpha).log()


def vb_term(x_0, x_t, x_0_hat, log_variance, t, alpha_bar, decoder=discretised_nll):
    c_1, c_2, low, _ = posterior(t, alpha_bar)
    mean = c_1 * x_0_hat + c_2 * x_t
    if t == 0:
        return bits_per_dim(decoder(x_0, mean, log_variance))
    return bits_per_dim(normal_kl(c_1 * x_0 + c_2 * x_t, low, mean, log_variance))


def vb_term_latents(x_0, x_t, x_0_hat, log_variance, t, alpha_bar):
    return vb_term(x_0, x_t, x_0_hat, log_variance, t, alpha_bar, continuous_nll)


def bound_total(x_0, x_t, x_0_hat, log_variance, alpha_bar):
    terms = [vb_term(x_0, x_t[t], x_0_hat[t], log_variance[t], t, alpha_bar) for t in range(len(alpha_bar))]
    return torch.stack([*terms, prior_bits(x_0, alpha_bar)]).sum(0)


def hybrid_loss(out, x_0, eps, t, alpha_bar):
    a, (eps_hat, v), (_, _, low, high) = alpha_bar[t], out.chunk(2, 1), posterior(t, alpha_bar)
    x_t = a.sqrt() * x_0 + (1 - a).sqrt() * eps
    x_0_hat = (x_t - (1 - a).sqrt() * eps_hat.detach()) / a.sqrt()  # the bound teaches the variance only
    bound = vb_term(x_0, x_t, x_0_hat, torch.lerp(low, high, (v + 1) / 2), t, alpha_bar)
    return F.mse_loss(eps_hat, eps, reduction="none").mean((1, 2, 3)) + len(alpha_bar) / 1000 * bound


def hybrid_gradient(out, x_0, eps, t, alpha_bar):
    out = out.clone().requires_grad_()
    return torch.autograd.grad(hybrid_loss(out, x_0, eps, t, alpha_bar).sum(), out)[0]


def bound_weight(t, s, alpha_bar, variance):
    alpha = alpha_bar[t] / alpha_bar[s]
    return (1 - alpha) ** 2 / (2 * variance * alpha * (1 - alpha_bar[t]))


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
    norm = torch.nn.utils.get_total_norm(gradients.values())  # clip_grad_norm_ adds 1e-6 to it, which is no rounding
    return {name: g * (limit / norm).clamp(max=1) for name, g in gradients.items()}


def ema_update(average, theta, decay):
    return torch.lerp(theta, average, decay)


def ema_decay(decay, n):
    return min(decay, (n + 1) / (n + 10))


def ema_run(theta_0, updates, decay):
    module = torch.nn.Module()
    module.theta = torch.nn.Parameter(theta_0.clone())
    average = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(decay))
    average.update_parameters(module)  # the first call copies
    for update in updates:
        module.theta.data += update
        average.update_parameters(module)
    return module.theta.detach(), average.module.theta.detach()


def weight_decays(shapes, weight_decay):
    return {name: weight_decay if torch.empty(shape, device="meta").dim() > 1 else 0.0 for name, shape in shapes.items()}


def warmup_rate(n, lr, warmup):
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr)
    rising = torch.optim.lr_scheduler.LinearLR(optimiser, 1 / warmup, total_iters=warmup - 1)
    for _ in range(n - 1):
        optimiser.step()
        rising.step()
    return rising.get_last_lr()[0]


def mine():
    """topic -> function, from the names above."""
    return {name: f for name, f in globals().items() if name in md.verify.TOPICS}


def main():
    report = md.verify.check(md.verify.torch.functions(mine()))
    print(report)
    return report


if __name__ == "__main__":
    main()
