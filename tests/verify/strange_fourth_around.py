"""Mistakes as strangers make them, the fourth group: guidance, likelihood, losses, training, flows, EDM and consistency."""

import itertools
import math

import numpy as np
import torch
from scipy import special
from verify.strange_fourth import wrong


def per_sample(a, x):
    return np.reshape(a, (-1,) + (1,) * (x.ndim - 1))


# ------------------------------------------------------------------------------------------------ guidance and latents


@wrong("guide", "the two ends of lerp exchanged", True)
def lerp_backwards(eps_u, eps_c, w):
    return torch.lerp(eps_c, eps_u, w)


@wrong("guide_uncond_first", "the doubled batch comes back", True)
def still_doubled(out, w):
    uncond, cond = out.chunk(2)
    guided = uncond + w * (cond - uncond)
    return torch.cat([guided, guided])


@wrong("rescale_guided", "one deviation for the whole batch", True)
def std_of_the_batch(eps, eps_c, phi):
    return phi * eps * (eps_c.std() / eps.std()) + (1 - phi) * eps


@wrong("guidance_interval", "the upper end counts as inside")
def closed_interval(w, t, low, high):
    return np.where((t >= low) & (t <= high), w, 1.0)


@wrong("clip_dynamic", "clamped to ±q and never divided by q", True)
def clamped_only(x_0, p, most):
    q = torch.quantile(x_0.flatten(1).abs(), p, dim=1).clamp(1.0, most).view(-1, 1, 1, 1)
    return torch.maximum(torch.minimum(x_0, q), -q)


@wrong("latent_sample", "only the mean is scaled", True)
def scaled_mean(mean, logvar, eps, scale):
    return mean * scale + torch.exp(0.5 * logvar) * eps


@wrong("measured_scale", "1/variance for 1/deviation")
def by_variance(latents):
    return 1 / latents.var()


@wrong("pixels_out", "128 levels a unit: (x + 1) · 128")
def by_128(x):
    return np.clip((x + 1) * 128, 0, 255).astype(np.uint8)


# ------------------------------------------------------------------------------------------------ likelihood and losses


@wrong("bits_per_dim", "one mean for the whole batch")
def one_number(nats):
    return np.full(len(nats), nats.mean() / np.log(2))


@wrong("normal_kl", "divided by the first variance, not the second")
def kl_by_the_first(mean_1, logvar_1, mean_2, logvar_2):
    return 0.5 * (-1 + logvar_2 - logvar_1 + np.exp(logvar_1 - logvar_2) + (mean_1 - mean_2) ** 2 * np.exp(-logvar_1))


@wrong("discretised_nll", "half bins of 1/256")
def bins_of_256(x, mean, log_variance):
    s = np.exp(0.5 * log_variance)
    cdf = lambda y: special.ndtr((y - mean) / s)
    upper = np.where(x > 0.999, 1.0, cdf(x + 1 / 256))
    lower = np.where(x < -0.999, 0.0, cdf(x - 1 / 256))
    return -np.log(np.maximum(upper - lower, 1e-12))


@wrong("prior_bits", "in nats")
def prior_in_nats(x_0, alpha_bar):
    a = alpha_bar[-1]
    kl = 0.5 * (-1 - np.log1p(-a) + (1 - a) + a * x_0**2)
    return kl.reshape(len(x_0), -1).mean(1)


@wrong("min_snr_eps", "divided by SNR + 1, as for v")
def as_for_v(alpha_bar, gamma):
    snr = alpha_bar / (1 - alpha_bar)
    return np.minimum(snr, gamma) / (snr + 1)


@wrong("weighted_loss", "divided by the sum of the weights")
def normalised_weights(out, target, weights):
    loss = ((out - target) ** 2).mean(axis=(1, 2, 3))
    return np.average(loss, weights=weights)


@wrong("importance_weights", "1/p without 1/T")
def reciprocal(p, t):
    return 1 / p[t]


@wrong("simple_loss", "v is compared with the noise", True)
def noise_whatever_is_asked(out, x_0, eps, t, alpha_bar, objective):
    target = x_0 if objective == "x_0" else eps
    return torch.nn.functional.mse_loss(out, target)


# ------------------------------------------------------------------------------------------------ training


@wrong("ema_decay", "(1 + n)/(10 + n) from n = 0")
def warm_from_zero(decay, n):
    step = n - 1
    return min(decay, (1 + step) / (10 + step))


@wrong("ema_object", "starts from zero, and is corrected like Adam's moments", True)
class corrected_average:
    def __init__(self, decay):
        self.decay, self.n = decay, 0

    def start(self, theta):
        self.shadow = torch.zeros_like(torch.as_tensor(theta))
        self.first = torch.as_tensor(theta).clone()

    def update(self, theta):
        self.n += 1
        self.shadow = self.decay * self.shadow + (1 - self.decay) * torch.as_tensor(theta)

    def average(self):
        return self.shadow / (1 - self.decay**self.n) if self.n else self.first


@wrong("adamw_update", "ε inside the root")
def eps_inside(theta, m, v, g, n, lr, beta1, beta2, eps, weight_decay):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    m_hat, v_hat = m / (1 - beta1**n), v / (1 - beta2**n)
    return theta - lr * (m_hat / np.sqrt(v_hat + eps) + weight_decay * theta), m, v


@wrong("adamw_update", "the decay is not multiplied by the rate", True)
def undamped_decay(theta, m, v, g, n, lr, beta1, beta2, eps, weight_decay):
    m = torch.lerp(g, m, beta1)
    v = v * beta2 + (1 - beta2) * g.square()
    theta = theta * (1 - weight_decay)
    return theta - lr * (m / (1 - beta1**n)) / ((v / (1 - beta2**n)).sqrt() + eps), m, v


@wrong("clip_gradients", "every tensor by its own norm")
def tensor_by_tensor(gradients, limit):
    return {k: g * min(1.0, limit / (np.linalg.norm(g) + 1e-12)) for k, g in gradients.items()}


@wrong("warmup_rate", "starts from a rate of 0")
def from_zero(n, lr, warmup):
    return lr * min((n - 1) / warmup, 1.0)


# ------------------------------------------------------------------------------------------------ flows


@wrong("straight_sample", "σ_min of conditional flow matching: a thousandth of noise stays")
def with_sigma_min(x_0, eps, t, sigma_min=1e-3):
    t = t[:, None, None]
    return (1 - t) * x_0 + (sigma_min + (1 - sigma_min) * t) * eps


@wrong("pair_from_velocity", "the two answers come in the other order")
def noise_first(x_t, u, t):
    t = t[:, None, None]
    return x_t + (1 - t) * u, x_t - t * u


@wrong("velocity_from_x_0", "divided by 1 - t")
def by_the_other_end(x_t, x_0_hat, t):
    return (x_t - x_0_hat) / (1 - t)[:, None, None]


@wrong("shift_time", "the - 1 is missing below")
def shift_without_minus(t, a):
    return a * t / (1 + a * t)


@wrong("flux_shift", "linear in tokens, and no exponential")
def mu_itself(n):
    m = (1.15 - 0.5) / (4096 - 256)
    return m * n + 0.5 - m * 256


@wrong("logit_normal_times", "the sigmoid of a normal, whose deviation is taken as a variance")
def root_of_std(u, mean, std):
    return special.expit(mean + np.sqrt(std) * special.ndtri(u))


@wrong("flow_euler", "the network hears the end of the step")
def late_time(net, x, N, a):
    t = np.linspace(1, 0, N + 1)
    t = a * t / (1 + (a - 1) * t)
    for now, after in itertools.pairwise(t):
        x = x + (after - now) * net(x, 1000 * after)
    return x


@wrong("flow_heun_step", "the sum of both velocities, not their mean")
def sum_of_two(x_t, u_t, u_s, t, s):
    return x_t + (s - t) * (u_t + u_s)


@wrong("flow_loss", "summed over the entries of a sample", True)
def summed(v, x_0, eps):
    return ((v - (eps - x_0)) ** 2).flatten(1).sum(1)


@wrong("flow_ab2_step", "3/2 and 1/2 whatever the steps are")
def equal_steps(x_t, u, u_before, before, t, s):
    return x_t + (s - t) * (1.5 * u - 0.5 * u_before)


# ------------------------------------------------------------------------------------------------ EDM and consistency


@wrong("edm_scalings", "c_out without its root", True)
def c_out_without_root(sigma, sigma_data):
    total = sigma**2 + sigma_data**2
    return sigma_data**2 / total, sigma * sigma_data / total, total.rsqrt(), sigma.log() / 4


@wrong("edm_denoised", "x comes in unscaled where c_skip stands: c_in twice")
def scaled_twice(F, x, sigma, sigma_data):
    sigma = sigma[:, None, None]
    total = sigma**2 + sigma_data**2
    x = x / np.sqrt(total)
    return sigma_data**2 / total * x + sigma * sigma_data / np.sqrt(total) * F


@wrong("edm_weight", "the product below is not squared")
def product_not_squared(sigma, sigma_data):
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data)


@wrong("edm_sigmas", "uniform where the normal should be")
def uniform_as_normal(u, P_mean=-1.2, P_std=1.2):
    return np.exp(u * P_std + P_mean)


@wrong("edm_grid", "n + 1 points of the ramp, the last replaced by 0", True)
def ramp_of_n_plus_one(n, low, high, rho):
    if not 0 < low < high:
        raise ValueError("levels")
    ramp = torch.linspace(0, 1, n + 1, dtype=torch.float64)[:-1]
    lo, hi = low ** (1 / rho), high ** (1 / rho)
    return torch.cat([(hi + ramp * (lo - hi)) ** rho, torch.zeros(1, dtype=torch.float64)])


@wrong("edm_churn", "√(σ̂ - σ) for √(σ̂² - σ²)")
def root_of_the_difference(x, z, sigma, raised):
    return x + (raised - sigma) ** 0.5 * z


@wrong("edm_heun_step", "the second slope is divided by the first noise level")
def first_level_twice(x, D, D_next, sigma, following):
    d = (x - D) / sigma
    x_next = x + (following - sigma) * d
    if following == 0:
        return x_next
    d_prime = (x_next - D_next) / sigma
    return x + (following - sigma) * (d + d_prime) / 2


@wrong("churned_sigma", "no limit at √2 - 1")
def unlimited(sigma, churn, n, low, high):
    gamma = churn / n if low <= sigma <= high else 0
    return sigma * (1 + gamma)


@wrong("consistency_scalings", "t for t - ε: the boundary is missed", True)
def without_boundary(t, end, sigma_data):
    return sigma_data**2 / (t**2 + sigma_data**2), t * sigma_data / (t**2 + sigma_data**2).sqrt()


@wrong("consistency_step", "s for √(s² - ε²)")
def from_zero_noise(f, z, s, end):
    return f + s * z


@wrong("pseudo_huber", "of the mean square, not of the norm")
def huber_of_the_mean(x, y, c):
    return np.sqrt(((x - y) ** 2).mean((1, 2)) + c**2) - c


@wrong("huber_constant", "0.00054 · dim: the root forgotten")
def linear_constant(dim):
    return 0.00054 * dim


@wrong("ict_weights", "1/t_i")
def reciprocal_level(t):
    return 1 / t[:-1]


@wrong("training_levels", "the inner root is missing its ends: s_0 + k/K (s_1 - s_0)")
def linear_levels(k, K, s_0, s_1):
    return int(math.ceil(s_0 + k / K * (s_1 - s_0)) + 1)
