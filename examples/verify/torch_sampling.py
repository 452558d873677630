"""Ladders, lists of timesteps, steps, whole samplers and scheduler objects in torch's own words, against the equations.

    python examples/verify/torch_sampling.py

Tables in float64 are made once for a ladder; a step gathers what it needs from them.
"""

import itertools
import math

import torch
import torch.nn.functional as F

import minidit as md

# ------------------------------------------------------------------------------------------------ ladders


def sure(betas):
    if not ((betas > 0) & (betas <= 1)).all():
        raise ValueError("a β outside (0, 1]")
    return betas


def linear_betas(T):
    return sure(torch.linspace(0.1 / T, 20 / T, T, dtype=torch.float64))


def scaled_linear_betas(T):
    return sure(torch.linspace(math.sqrt(0.85 / T), math.sqrt(12 / T), T, dtype=torch.float64).square())


def cosine_betas(T):
    f = torch.cos((torch.arange(T + 1, dtype=torch.float64) / T + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - f[1:] / f[:-1]).clamp(max=0.999)


def alpha_bar(betas):
    return torch.cumprod(1 - betas, 0)


def cosine_alpha_bar(T):
    return torch.log1p(-cosine_betas(T)).cumsum(0).exp()


def before(alpha_bar):
    return F.pad(alpha_bar[:-1], (1, 0), value=1.0)


def zero_snr_betas(betas):
    root = alpha_bar(betas).sqrt()
    signal = ((root - root[-1]) / (1 - root[-1] / root[0])).square()  # stretched so that the first stays where it was
    return 1 - signal / before(signal)


# ------------------------------------------------------------------------------------------------ which timesteps


def counted(T, N):
    if not 1 <= N <= T:
        raise ValueError(f"{N} of {T} timesteps")
    return torch.arange(N, dtype=torch.float64)


def leading_timesteps(T, N, offset):
    timesteps = torch.arange(N).flip(0) * (T // N) + offset
    if timesteps[0] >= T:
        raise ValueError(f"timestep {timesteps[0]} of {T}")
    return timesteps


def linspace_timesteps(T, N):
    return (counted(T, N).flip(0) * (T - 1) / (N - 1)).round().long()


def trailing_timesteps(T, N):
    return (T - counted(T, N) * T / N).round().long() - 1


def sampling_timesteps(T, N):
    return linspace_timesteps(T, N)


def space_timesteps(T, spec):
    if spec.startswith("ddim"):
        stride = next(i for i in range(1, T + 1) if math.ceil(T / i) == int(spec[4:]))
        return torch.arange(0, T, stride)
    counts = [int(n) for n in spec.split(",")]
    sizes = [len(section) for section in torch.arange(T).tensor_split(len(counts))]
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    each = zip(counts, sizes, starts, strict=True)
    return torch.cat([start + (counted(size, n) * ((size - 1) / max(n - 1, 1))).round().long() for n, size, start in each])


def respaced_betas(alpha_bar, timesteps):
    return 1 - alpha_bar[timesteps] / before(alpha_bar[timesteps])


def network_time(timesteps, i, T):
    return timesteps.gather(0, i)


def step_pairs(timesteps, T):
    return torch.stack([timesteps, F.pad(timesteps[1:], (0, 1), value=-1)], 1)


# ------------------------------------------------------------------------------------------------ variances and posterior


def levels(alpha_bar, t, s):
    return float(alpha_bar[t]), float(alpha_bar[s]) if s >= 0 else 1.0


def small(alpha_bar, t, s):
    a, p = levels(alpha_bar, t, s)
    return (1 - p) / (1 - a) * (1 - a / p)


def log_small(alpha_bar, t, s):
    return math.log(small(alpha_bar, t, s) if s >= 0 else small(alpha_bar, t + 1, t))


def posterior_variance(alpha_bar):
    return (1 - alpha_bar / before(alpha_bar)) * (1 - before(alpha_bar)) / (1 - alpha_bar)


def posterior_log_variance(alpha_bar):
    table = (1 - alpha_bar / before(alpha_bar)).log() + torch.log1p(-before(alpha_bar)) - torch.log1p(-alpha_bar)
    return torch.cat([table[1:2], table[1:]])


def fixed_large_variance(alpha_bar):
    return torch.cat([posterior_variance(alpha_bar)[1:2], 1 - alpha_bar[1:] / alpha_bar[:-1]])


def learned_range_variance(v, t, s, alpha_bar):
    a, p = levels(alpha_bar, t, s)
    low, high = (torch.full_like(v, x) for x in (log_small(alpha_bar, t, s), math.log(1 - a / p)))
    return torch.lerp(low, high, (v + 1) / 2).exp()


def posterior_mean(x_0, x_t, t, s, alpha_bar):
    a, p = levels(alpha_bar, t, s)
    return (math.sqrt(p) * (1 - a / p) * x_0 + math.sqrt(a / p) * (1 - p) * x_t) / (1 - a)


# ------------------------------------------------------------------------------------------------ steps


def guess(x_t, out, a, objective="eps"):
    """x̂_0 from what the network says."""
    if objective == "eps":
        return x_t / math.sqrt(a) - math.sqrt(1 / a - 1) * out
    return out if objective == "x_0" else math.sqrt(a) * x_t - math.sqrt(1 - a) * out


def ddpm_step(x_t, eps, t, s, alpha_bar, z, large=False):
    a, p = levels(alpha_bar, t, s)
    beta = 1 - a / p
    mean = (x_t - beta / math.sqrt(1 - a) * eps) / math.sqrt(1 - beta)  # Ho et al. (11)
    return mean if s < 0 else mean + math.sqrt(beta if large else small(alpha_bar, t, s)) * z


def ddpm_step_large(x_t, eps, t, s, alpha_bar, z):
    return ddpm_step(x_t, eps, t, s, alpha_bar, z, large=True)


def ddpm_step_clipped(x_t, eps, t, s, alpha_bar, z):
    mean = posterior_mean(guess(x_t, eps, float(alpha_bar[t])).clamp(-1, 1), x_t, t, s, alpha_bar)
    return mean if s < 0 else mean + math.sqrt(small(alpha_bar, t, s)) * z


def ddpm_step_learned(x_t, out, t, s, alpha_bar, z, objective):
    out, v = out.chunk(2, 1)
    mean = posterior_mean(guess(x_t, out, float(alpha_bar[t]), objective), x_t, t, s, alpha_bar)
    return mean if s < 0 else torch.addcmul(mean, learned_range_variance(v, t, s, alpha_bar).sqrt(), z)


def ddim_step(x_t, eps, t, s, alpha_bar, eta, z, clip=False):
    a, p = levels(alpha_bar, t, s)
    x_0 = guess(x_t, eps, a)
    if clip:
        x_0 = x_0.clamp(-1, 1)
        eps = (x_t - math.sqrt(a) * x_0) / math.sqrt(1 - a)
    sigma = eta * math.sqrt((1 - p) / (1 - a)) * math.sqrt(1 - a / p)
    return math.sqrt(p) * x_0 + math.sqrt(max(0.0, 1 - p - sigma**2)) * eps + (sigma * z if s >= 0 else 0)


def ddim_step_clipped(x_t, eps, t, s, alpha_bar, eta, z):
    return ddim_step(x_t, eps, t, s, alpha_bar, eta, z, clip=True)


def ddim_step_v(x_t, v, t, s, alpha_bar):
    a, p = levels(alpha_bar, t, s)
    turn = math.acos(math.sqrt(a)) - math.acos(math.sqrt(p))  # (x, v) is a point on a circle, and a step an angle
    return math.cos(turn) * x_t - math.sin(turn) * v


def ddim_invert_step(x_s, eps, s, t, alpha_bar):
    a, p = levels(alpha_bar, t, s)
    return math.sqrt(a / p) * x_s + (math.sqrt(1 - a) - math.sqrt(a * (1 - p) / p)) * eps


# ------------------------------------------------------------------------------------------------ samplers


def ddim_sample(denoise, x, N, alpha_bar, eta, z):
    for k, (t, s) in enumerate(step_pairs(sampling_timesteps(len(alpha_bar), N), len(alpha_bar)).tolist()):
        x = ddim_step(x, denoise(x, torch.full((len(x),), t)), t, s, alpha_bar, eta, z[k])
    return x


def ddpm_sample(denoise, x, N, alpha_bar, z):
    for k, (t, s) in enumerate(step_pairs(sampling_timesteps(len(alpha_bar), N), len(alpha_bar)).tolist()):
        x = ddpm_step(x, denoise(x, torch.full((len(x),), t)), t, s, alpha_bar, z[k])
    return x


def along(move, denoise, x, timesteps):
    for k, (t, s) in enumerate(itertools.pairwise([*timesteps.tolist(), -1])):
        x = move(x, denoise(x, t), t, s, k)
    return x


def ddim_along(denoise, x, timesteps, alpha_bar, eta, z):
    return along(lambda x, eps, t, s, k: ddim_step(x, eps, t, s, alpha_bar, eta, z[k]), denoise, x, timesteps)


def ddpm_along(denoise, x, timesteps, alpha_bar, z):
    return along(lambda x, eps, t, s, k: ddpm_step_large(x, eps, t, s, alpha_bar, z[k]), denoise, x, timesteps)


def ddim_invert(denoise, x, N, alpha_bar):
    up = sampling_timesteps(len(alpha_bar), N).tolist()[::-1]
    for s, t in zip([-1, *up], up, strict=False):
        x = ddim_invert_step(x, denoise(x, max(s, up[0])), s, t, alpha_bar)
    return x


class Scheduler:
    """As an object; the kit hands it NumPy arrays."""

    def __init__(self, alpha_bar, move):
        self.alpha_bar, self.move = alpha_bar, move

    def timesteps(self, N):
        self.below = dict(step_pairs(sampling_timesteps(len(self.alpha_bar), N), len(self.alpha_bar)).tolist())
        return list(self.below)

    def step(self, x_t, eps, t, z):
        x_t, eps, z = (torch.from_numpy(a).to(self.alpha_bar) for a in (x_t, eps, z))
        return self.move(x_t, eps, t, self.below[t], self.alpha_bar, z).numpy()


def ddim_scheduler(alpha_bar):
    return Scheduler(alpha_bar, lambda x_t, eps, t, s, table, z: ddim_step(x_t, eps, t, s, table, 0.0, z))


def ddpm_scheduler(alpha_bar):
    return Scheduler(alpha_bar, ddpm_step)


def mine():
    """topic -> function, from the names above."""
    return {name: f for name, f in globals().items() if name in md.verify.TOPICS}


def main():
    report = md.verify.check(md.verify.torch.functions(mine()))
    print(report)
    return report


if __name__ == "__main__":
    main()
