"""Flows, EDM and consistency models in NumPy and SciPy, each by another road than the equation's own.

    python examples/verify/scipy_continuous.py

Pairs by solving two linear equations, EDM's scalings from the law that they come from (regression of the data on a noisy
sample), laws of times as quantiles of distributions, steps as exact integrals of a polynomial slope, grids by powers of means,
and curricula by search.
"""

import bisect
import math
from itertools import count, pairwise

import numpy as np
from scipy import integrate, optimize, stats

import minidit as md


def each(a, x):
    """One number per sample, beside arrays x."""
    return np.asarray(a).reshape(-1, *[1] * (np.ndim(x) - 1))


def solved(rows, *sides):
    """Two equations in two unknown arrays: rows ((a, b), (c, d)), one set per sample."""
    matrix = np.stack([np.stack(np.broadcast_arrays(*map(np.asarray, row)), -1) for row in rows], -2).astype(np.float64)
    right = np.stack([side.reshape(len(side), -1) for side in sides], 1)
    out = np.linalg.solve(matrix, right)
    return tuple(out[:, k].reshape(sides[0].shape) for k in range(2))


# ------------------------------------------------------------------------------------------------ the straight path


def straight_sample(x_0, eps, t):
    return x_0 + each(t, x_0) * (eps - x_0)


def straight_velocity(x_0, eps):
    return straight_sample(x_0, eps, np.ones(len(x_0))) - straight_sample(x_0, eps, np.zeros(len(x_0)))


def pair_from_velocity(x_t, u, t):
    return solved(((1 - t, t), (-np.ones_like(t), np.ones_like(t))), x_t, u)


def velocity_from_x_0(x_t, x_0_hat, t):
    t = each(t, x_t)
    return (x_t - (1 - t) * x_0_hat) / t - x_0_hat


def score_from_velocity(x_t, u, t):
    x_0, _ = pair_from_velocity(x_t, u, t)
    t = each(t, x_t)
    return ((1 - t) * x_0 - x_t) / t**2


def pair_from_u(x_t, u, alpha, sigma):
    return solved(((alpha, sigma), (-np.ones_like(alpha), np.ones_like(alpha))), x_t, u)


def straight_time(t):
    return t / 1e-3


def straight_embedding(t, width):
    half = width // 2
    turn = np.exp(1j * np.outer(1000.0 * t.astype(np.float64), 10000.0 ** (-np.arange(half) / half)))
    return np.hstack([turn.real, turn.imag])


def to_straight(x, alpha, sigma):
    noise = sigma / alpha
    return x / each(alpha, x) / each(1 + noise, x), noise / (1 + noise)


def to_exploding(x, alpha, sigma):
    t = sigma / (alpha + sigma)
    return x / each(alpha + sigma, x) / each(1 - t, x), t / (1 - t)


# ------------------------------------------------------------------------------------------------ EDM


def edm_scalings(sigma, sigma_data):
    """D = E[x_0 | x] for normal data, and c_out the std of what is left, which the network has to say at unit variance."""
    covariance, variance = sigma_data**2, sigma_data**2 + sigma.astype(np.float64) ** 2
    left = covariance * (sigma.astype(np.float64) ** 2 / variance)
    return covariance / variance, left**0.5, variance**-0.5, np.log2(sigma) * (math.log(2) / 4)


def edm_denoised(F, x, sigma, sigma_data):
    c_skip, c_out, _, _ = (each(c, x) for c in edm_scalings(sigma, sigma_data))
    return c_skip * x + c_out * F


def edm_target(x_0, eps, sigma, sigma_data):
    angle = each(np.arctan2(sigma, sigma_data), x_0)
    return np.sin(angle) * x_0 / sigma_data - np.cos(angle) * eps


def edm_weight(sigma, sigma_data):
    return 1 / edm_scalings(sigma, sigma_data)[1] ** 2


# ------------------------------------------------------------------------------------------------ times


def logit_normal_times(u, mean, std):
    odds = stats.lognorm.ppf(u, std, scale=math.exp(mean))
    return odds / (1 + odds)


def logit_normal_weight(t, mean, std):
    return t**0.0


def mode_times(u, scale):
    if scale < -1 or scale * (math.pi / 2 - 1) > 1:
        raise ValueError("times would turn back")
    return 1 - u + scale * (np.sin(math.pi * u / 2) ** 2 - u)


def cosmap_times(u):
    x, y = np.cos(math.pi * u / 2), np.sin(math.pi * u / 2)
    return y / (x + y)


def edm_sigmas(u):
    return stats.lognorm.ppf(u, 1.2, scale=math.exp(-1.2))


def shift_time(t, a):
    return t * a / (t * a + (1 - t))


def resolution_shift(m, n):
    return math.exp(0.5 * (math.log(m) - math.log(n)))


def partly_uniform_times(u, p):
    """The quantiles of the mixture, each of its own part."""
    inner = stats.norm.ppf((np.maximum(u, p) - p) / (1 - p))
    return np.where(u < p, u / p, 1 / (1 + np.exp(-inner)))


def flux_shift(n):
    return float(np.exp(np.polyval(np.polyfit([256, 4096], [0.5, 1.15], 1), n)))


def clip_shift(frames, m, n):
    return math.sqrt(frames * m / n)


def users_grid(times, a):
    return times


def linear_grid(n):
    if n < 1:
        raise ValueError("no steps")
    return np.arange(n, -1, -1) / n


def shifted_grid(n, a):
    i = np.arange(n, -1, -1)
    return a * i / (a * i + n - i) if n >= 1 else linear_grid(n)


def karras(n, low, high, rho):
    """Power means of exponent 1/ρ of the two ends."""
    if n < 1 or not 0 < low < high:
        raise ValueError("no grid")
    weight = np.arange(n) / max(n - 1, 1)
    return high * (1 - weight * (1 - (low / high) ** (1 / rho))) ** rho


def edm_grid(n, low, high, rho):
    return np.r_[karras(n, low, high, rho), 0.0]


# ------------------------------------------------------------------------------------------------ steps


def flow_euler_step(x_t, u, t, s):
    return x_t - t * u + s * u


def flow_heun_step(x_t, u_t, u_s, t, s):
    return x_t + integrate.trapezoid(np.stack([u_t, u_s]), [t, s], axis=0)


def flow_ab2_step(x_t, u, u_before, before, t, s):
    """The integral of the line through both velocities."""
    line = np.polynomial.Polynomial([0.0, 1.0])
    now, past = (b.integ()(s) - b.integ()(t) for b in ((line - before) / (t - before), (line - t) / (before - t)))
    return x_t + now * u + past * u_before


def straight_climb(x_s, z, s, t):
    """Two independent noises: what is left of the first, and what has to come."""
    left = (1 - t) * s / (1 - s)
    return (1 - t) / (1 - s) * x_s + math.sqrt((t - left) * (t + left)) * z


def fresh_step(x_0_hat, eps_hat, z, alpha, sigma, c):
    angle = math.asin(c / sigma)
    return alpha * x_0_hat + sigma * (math.cos(angle) * eps_hat + math.sin(angle) * z)


def edm_euler_step(x, D, sigma, next):
    return D + next / sigma * (x - D)


def edm_heun_step(x, D, D_next, sigma, next):
    end = edm_euler_step(x, D, sigma, next)
    if not next:
        return end
    return (end + x + (next - sigma) * (end - D_next) / next) / 2


def churned_sigma(sigma, churn, n, low, high):
    inside = np.clip(sigma, low, high) == sigma
    return float(sigma * (1 + inside * min(churn / n, 2**0.5 - 1)))


def edm_churn(x, z, sigma, raised):
    return x + math.sqrt((raised - sigma) * (raised + sigma)) * z


# ------------------------------------------------------------------------------------------------ samplers


def flow_euler(net, x, N, a):
    grid = shifted_grid(N, a)
    for k in range(N):
        x = flow_euler_step(x, net(x, np.array(grid[k] / 1e-3)), grid[k], grid[k + 1])
    return x


def flow_heun(net, x, N):
    for k in range(N, 0, -1):
        u = net(x, np.array(1000 * k / N))
        end = flow_euler_step(x, u, k / N, (k - 1) / N)
        x = flow_heun_step(x, u, net(end, np.array(1000 * (k - 1) / N)), k / N, (k - 1) / N) if k > 1 else end
    return x


def flow_ab2(net, x, N):
    seen = []
    for k in range(N, 0, -1):
        seen.append(net(x, np.array(1000 * k / N)))
        t, s = k / N, (k - 1) / N
        x = flow_ab2_step(x, seen[-1], seen[-2], (k + 1) / N, t, s) if len(seen) > 1 else flow_euler_step(x, seen[0], t, s)
    return x


def edm_sample(net, x, sigmas, churn, low, high, z):
    for k in range(len(z)):
        raised = churned_sigma(sigmas[k], churn, len(z), low, high)
        x = edm_churn(x, z[k], sigmas[k], raised)
        D = net(x, np.array(raised))
        last = k == len(z) - 1
        D_next = D if last else net(edm_euler_step(x, D, raised, sigmas[k + 1]), sigmas[k + 1])
        x = edm_heun_step(x, D, D_next, raised, sigmas[k + 1])
    return x


# ------------------------------------------------------------------------------------------------ training and its measures


def flow_loss(v, x_0, eps):
    error = (v + x_0 - eps).reshape(len(v), -1)
    return np.einsum("bn,bn->b", error, error) / error.shape[1]


def denoised_flow_loss(x_0_hat, x_0, t):
    return np.array([np.mean(((a - b) / s) ** 2) for a, b, s in zip(x_0_hat, x_0, t, strict=True)])


def coupled_batch(x_0, y, z, i, j):
    rows = [(x_0[a], y[a], z[b]) for a, b in zip(i, j, strict=True)]
    return tuple(np.stack(column) for column in zip(*rows, strict=True))


def straightness(t, x):
    """The mean square of the velocities less the square of their mean, which is the chord."""
    h = -np.diff(t)
    x = x.reshape(len(x), -1).astype(np.float64)
    velocities = np.diff(x, axis=0) / h[:, None]
    return float((h @ velocities**2 - (h @ velocities) ** 2).mean())


# ------------------------------------------------------------------------------------------------ consistency


def consistency_scalings(t, end, sigma_data):
    apart = (t - end) / sigma_data
    return 1 / (1 + apart**2), apart * sigma_data / np.sqrt(1 + (t / sigma_data) ** 2)


def consistency_end(F, x, t, end, sigma_data):
    c_skip, c_out = (each(c, x) for c in consistency_scalings(t, end, sigma_data))
    return x + (c_skip - 1) * x + c_out * F


def consistency_inputs(x, t, sigma_data):
    return x / each(np.hypot(t, sigma_data), x), 250 * np.log10(t) / math.log10(math.e)


def consistency_step(f, z, s, end):
    return f + s * math.sqrt(1 - (end / s) ** 2) * z


def consistency_sample(f, x, times, end, z):
    for k in range(len(times)):
        answer = f(x, times[k])
        x = consistency_step(answer, z[k], times[k + 1], end) if k + 1 < len(times) else answer
    return x


def pseudo_huber(x, y, c):
    """From the square over the sum, which does not cancel for small errors."""
    squared = ((x - y).reshape(len(x), -1) ** 2).sum(axis=1)
    return squared / (np.sqrt(squared + c * c) + c)


def huber_constant(dim):
    return float(np.linalg.norm(np.full(dim, 0.00054)))


def training_pair(x_0, z, low, high):
    a = straight_sample(x_0, x_0 + z[0], low)
    return a, a + each(high - low, x_0) * z[0]


def ict_weights(t):
    return np.array([1 / (b - a) for a, b in pairwise(t)])


def training_levels(k, K, s_0, s_1):
    """The least N with N² ≥ s_0² + k/K ((s_1+1)² - s_0²)."""
    goal = s_0**2 * K + k * ((s_1 + 1) ** 2 - s_0**2)
    return bisect.bisect_left(range(s_1 + 2), goal, key=lambda N: N * N * K)


def target_decay(k, K, s_0, s_1, mu_0):
    levels = training_levels(k, K, s_0, s_1)
    return float(optimize.brentq(lambda mu: mu**levels - mu_0**s_0, 0.5, 1, xtol=1e-15))


def ict_levels(k, K, s_0, s_1):
    doublings = next(n for n in count() if s_0 * 2 ** (n + 1) > s_1 // s_0 * s_0)
    levels = s_0
    for _ in range(k // (K // (doublings + 1))):
        levels = min(2 * levels, s_1)
    return levels + 1


def consistency_grid(N, low, high, rho):
    return low * (1 + np.arange(N) / (N - 1) * ((high / low) ** (1 / rho) - 1)) ** rho


def ict_probabilities(t):
    mass = np.diff(stats.lognorm.cdf(t, 2.0, scale=math.exp(-1.1)))
    return mass / mass.sum()


def mine():
    """topic -> function, from the names above."""
    return {name: f for name, f in globals().items() if name in md.verify.TOPICS}


def main():
    report = md.verify.check(mine())
    print(report)
    return report


if __name__ == "__main__":
    main()
