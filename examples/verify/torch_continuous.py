"""Flows, EDM and consistency models in torch's own words, as their papers write them, against the equations.

    python examples/verify/torch_continuous.py

t = 0 is the data. Velocities are ε - x_0, noise levels are σ, and every function is what a training script would hold.
"""

import math
from itertools import pairwise

import torch
from torch.distributions import Normal

import minidit as md

# ------------------------------------------------------------------------------------------------ the straight path


def wide(t, x):
    return t.view(-1, *[1] * (x.dim() - 1))


def straight_sample(x_0, eps, t):
    return torch.lerp(x_0, eps, wide(t, x_0).expand_as(x_0))


def straight_velocity(x_0, eps):
    return eps - x_0


def pair_from_velocity(x_t, u, t):
    t = wide(t, x_t)
    x_0 = x_t - t * u
    return x_0, x_0 + u


def velocity_from_x_0(x_t, x_0_hat, t):
    return (x_t - x_0_hat) / wide(t, x_t)


def score_from_velocity(x_t, u, t):
    return -(x_t + (1 - wide(t, x_t)) * u) / wide(t, x_t)


def pair_from_u(x_t, u, alpha, sigma):
    alpha, sigma = wide(alpha, x_t), wide(sigma, x_t)
    x_0 = (x_t - sigma * u) / (alpha + sigma)
    return x_0, x_0 + u


def straight_time(t):
    return 1000 * t


def straight_embedding(t, width):
    half = width // 2
    frequency = torch.logspace(0, -4 * (half - 1) / half, half, dtype=torch.float64)
    angle = torch.outer(1000 * t.double(), frequency)
    return torch.cat([angle.cos(), angle.sin()], dim=1).to(t)


def to_straight(x, alpha, sigma):
    return x / wide(alpha + sigma, x), sigma / (alpha + sigma)


def to_exploding(x, alpha, sigma):
    return x / wide(alpha, x), sigma / alpha


# ------------------------------------------------------------------------------------------------ EDM


def edm_scalings(sigma, sigma_data):
    total = sigma.square() + sigma_data**2
    return sigma_data**2 / total, sigma * sigma_data * total.rsqrt(), total.rsqrt(), sigma.log() / 4


def edm_denoised(F, x, sigma, sigma_data):
    c_skip, c_out, _, _ = edm_scalings(wide(sigma, x), sigma_data)
    return torch.addcmul(c_skip * x, c_out, F)


def edm_target(x_0, eps, sigma, sigma_data):
    sigma = wide(sigma, x_0)
    return (sigma * x_0 / sigma_data - sigma_data * eps) / (sigma.square() + sigma_data**2).sqrt()


def edm_weight(sigma, sigma_data):
    return sigma.pow(-2) + sigma_data**-2


# ------------------------------------------------------------------------------------------------ times


def normal(u):
    return Normal(torch.zeros((), dtype=u.dtype), torch.ones((), dtype=u.dtype)).icdf(u)


def logit_normal_times(u, mean, std):
    return torch.sigmoid(mean + std * normal(u))


def logit_normal_weight(t, mean, std):
    return torch.ones_like(t)


def mode_times(u, scale):
    if not -1 <= scale <= 2 / (math.pi - 2):
        raise ValueError("not monotone")
    return 1 - u - scale * (torch.cos(math.pi * u / 2).square() - 1 + u)


def cosmap_times(u):
    tan = torch.tan(math.pi * u / 2)
    return tan / (tan + 1)


def edm_sigmas(u):
    return (1.2 * normal(u) - 1.2).exp()


def shift_time(t, a):
    return a * t / (1 + (a - 1) * t)


def resolution_shift(m, n):
    return math.sqrt(m / n)


def partly_uniform_times(u, p):
    return torch.where(u < p, u / p, torch.sigmoid(normal(((u - p) / (1 - p)).clamp(min=1e-9))))


def flux_shift(n):
    return math.exp(0.5 * (4096 - n) / 3840 + 1.15 * (n - 256) / 3840)


def clip_shift(frames, m, n):
    return math.sqrt(frames) * resolution_shift(m, n)


def users_grid(times, a):
    return times.clone()


def linear_grid(n):
    if n < 1:
        raise ValueError("no steps")
    return torch.linspace(1, 0, n + 1, dtype=torch.float64)


def shifted_grid(n, a):
    return shift_time(linear_grid(n), a)


def karras(n, low, high, rho):
    if n < 1 or not 0 < low < high:
        raise ValueError("no grid")
    return torch.linspace(high ** (1 / rho), low ** (1 / rho), n, dtype=torch.float64) ** rho


def edm_grid(n, low, high, rho):
    return torch.nn.functional.pad(karras(n, low, high, rho), (0, 1))


# ------------------------------------------------------------------------------------------------ steps


def flow_euler_step(x_t, u, t, s):
    return torch.add(x_t, u, alpha=s - t)


def flow_heun_step(x_t, u_t, u_s, t, s):
    return torch.lerp(x_t + (s - t) * u_t, x_t + (s - t) * u_s, 0.5)


def flow_ab2_step(x_t, u, u_before, before, t, s):
    slope = (u - u_before) / (t - before)
    return x_t + (s - t) * u + (s - t) ** 2 / 2 * slope


def straight_climb(x_s, z, s, t):
    keep = (1 - t) / (1 - s)
    return keep * x_s + math.sqrt(t**2 - (keep * s) ** 2) * z


def fresh_step(x_0_hat, eps_hat, z, alpha, sigma, c):
    return alpha * x_0_hat + math.sqrt(sigma**2 - c**2) * eps_hat + c * z


def edm_euler_step(x, D, sigma, next):
    return torch.lerp(D, x, next / sigma)


def edm_heun_step(x, D, D_next, sigma, next):
    d = (x - D) / sigma
    end = x + (next - sigma) * d
    return end if next == 0 else x + (next - sigma) * (d + (end - D_next) / next) / 2


def churned_sigma(sigma, churn, n, low, high):
    return sigma + (min(churn / n, math.sqrt(2) - 1) if low <= sigma <= high else 0.0) * sigma


def edm_churn(x, z, sigma, raised):
    return x + math.sqrt(raised**2 - sigma**2) * z


# ------------------------------------------------------------------------------------------------ samplers


def time_input(t, x):
    return torch.tensor(t, dtype=x.dtype)


def flow_euler(net, x, N, a):
    grid = shifted_grid(N, a).tolist()
    for t, s in pairwise(grid):
        x = flow_euler_step(x, net(x, time_input(1000 * t, x)), t, s)
    return x


def flow_heun(net, x, N):
    for k in range(N, 0, -1):
        u, h = net(x, time_input(1000 * k / N, x)), 1 / N
        x_s = x - h * u
        x = x_s if k == 1 else x - h * (u + net(x_s, time_input(1000 * (k - 1) / N, x))) / 2
    return x


def edm_sample(net, x, sigmas, churn, low, high, z):
    for sigma, after, noise in zip(sigmas.tolist(), sigmas[1:].tolist(), z, strict=False):
        t = churned_sigma(sigma, churn, len(z), low, high)
        x = edm_churn(x, noise, sigma, t)
        d = (x - net(x, torch.tensor(t, dtype=x.dtype))) / t
        end = x + (after - t) * d
        if after:
            d = (d + (end - net(end, torch.tensor(after, dtype=x.dtype))) / after) / 2
        x = x + (after - t) * d
    return x


def flow_ab2(net, x, N):
    past = None
    for k in range(N, 0, -1):
        u = net(x, time_input(1000 * k / N, x))
        x, past = x - (u if past is None else (3 * u - past) / 2) / N, u
    return x


# ------------------------------------------------------------------------------------------------ training and its measures


def flow_loss(v, x_0, eps):
    return torch.nn.functional.mse_loss(v, eps - x_0, reduction="none").flatten(1).mean(1)


def denoised_flow_loss(x_0_hat, x_0, t):
    return ((x_0_hat - x_0) / wide(t, x_0)).square().mean(dim=(1, 2))


def coupled_batch(x_0, y, z, i, j):
    return x_0[i], y[i], z[j]


def straightness(t, x):
    h = t.diff().abs() / (t[0] - t[-1]).abs()
    chord, pieces = x[0] - x[-1], (x[:-1] - x[1:]) / wide(h, x)
    return (h * (chord - pieces).square().flatten(1).mean(1)).sum()


# ------------------------------------------------------------------------------------------------ consistency


def consistency_scalings(t, end, sigma_data):
    data = sigma_data**2
    return data / ((t - end).square() + data), (t - end) * sigma_data / (t.square() + data).sqrt()


def consistency_end(F, x, t, end, sigma_data):
    c_skip, c_out = consistency_scalings(wide(t, x), end, sigma_data)
    return c_skip * x + c_out * F


def consistency_inputs(x, t, sigma_data):
    return x / torch.hypot(wide(t, x), torch.full_like(wide(t, x), sigma_data)), 1000 * t.log() / 4


def consistency_step(f, z, s, end):
    return f + math.sqrt((s - end) * (s + end)) * z


def consistency_sample(f, x, times, end, z):
    for k, s in enumerate([*times[1:].tolist(), end]):
        x = consistency_step(f(x, times[k]), z[k], s, end)
    return x


def pseudo_huber(x, y, c):
    return torch.hypot(torch.linalg.vector_norm((x - y).flatten(1), dim=1), torch.full((len(x),), c, dtype=x.dtype)) - c


def huber_constant(dim):
    return 0.00054 * math.sqrt(dim)


def training_pair(x_0, z, low, high):
    return x_0 + wide(low, x_0) * z[0], x_0 + wide(high, x_0) * z[0]


def ict_weights(t):
    return t.diff().reciprocal()


def training_levels(k, K, s_0, s_1):
    return math.ceil(math.sqrt(k / K * ((s_1 + 1) ** 2 - s_0**2) + s_0**2) - 1) + 1


def target_decay(k, K, s_0, s_1, mu_0):
    return mu_0 ** (s_0 / training_levels(k, K, s_0, s_1))


def ict_levels(k, K, s_0, s_1):
    doublings = (s_1 // s_0).bit_length() - 1
    return min(s_0 * 2 ** (k // (K // (doublings + 1))), s_1) + 1


def consistency_grid(N, low, high, rho):
    return karras(N, low, high, rho).flip(0)


def ict_probabilities(t):
    edge = torch.special.ndtr((t.log() + 1.1) / 2)
    return edge.diff() / (edge[-1] - edge[0])


def mine():
    """topic -> function, from the names above."""
    return {name: f for name, f in globals().items() if name in md.verify.TOPICS}


def main():
    report = md.verify.check(md.verify.torch.functions(mine()))
    print(report)
    return report


if __name__ == "__main__":
    main()
