"""openai/consistency_models from a checkout: scalings, samplers, grids and curricula as answers to the kit."""

import types

import torch

from minidit.verify.borders.torch import functions

from . import stranger

karras, script = stranger("cm.karras_diffusion"), stranger("cm.script_util")


def denoiser(distillation, **options):
    return karras.KarrasDenoiser(distillation=distillation, loss_norm="l2", **options)


def heard(x, t, **options):
    """What the network is given, and what comes of its answer 0 and of its answer 1."""
    seen = []

    def network(value):
        def answer(x, time):
            seen.append((x, time))
            return torch.full_like(x, value)

        return answer

    made = denoiser(**options)
    outs = [made.denoise(network(value), x, t)[1] for value in (0.0, 1.0)]
    return *seen[0], *outs


def four_numbers(t, **options):
    one = torch.ones(len(t), 1, dtype=t.dtype)
    scaled, time, skip, both = heard(one, t, **options)
    return skip.flatten(), (both - skip).flatten(), scaled.flatten(), time


def edm_scalings(sigma, sigma_data):
    made = denoiser(False, sigma_data=sigma_data)
    return *made.get_scalings(sigma), four_numbers(sigma, distillation=False, sigma_data=sigma_data)[3]


def edm_denoised(F, x, sigma, sigma_data):
    return denoiser(False, sigma_data=sigma_data).denoise(lambda x, t: F, x, sigma)[1]


def consistency_scalings(t, end, sigma_data):
    return denoiser(True, sigma_data=sigma_data, sigma_min=end).get_scalings_for_boundary_condition(t)[:2]


def consistency_end(F, x, t, end, sigma_data):
    return denoiser(True, sigma_data=sigma_data, sigma_min=end).denoise(lambda x, t: F, x, t)[1]


def consistency_inputs(x, t, sigma_data):
    return heard(x, t, distillation=True, sigma_data=sigma_data)[:2]


def generator(z):
    """Hands out these noises one after the other."""
    queue = list(z)
    return types.SimpleNamespace(randn_like=lambda x: queue.pop(0) if len(queue) > 1 else queue[0])


def consistency_sample(f, x, times, end, z):
    """Its sampler takes places on a grid, the last of them at the end, and so they are given to it."""
    high, steps, rho = float(times[0]), 40, 7.0
    place = lambda t: (steps - 1) * (high ** (1 / rho) - t ** (1 / rho)) / (high ** (1 / rho) - end ** (1 / rho))
    places = [place(float(t)) for t in times] + [steps - 1]
    call = lambda x, t: f(x, t[0])
    return karras.stochastic_iterative_sampler(call, x, None, generator(z), places, t_min=end, t_max=high, rho=rho, steps=steps)


def moved(sampler, x, sigma, next, *guesses, z=None, **options):
    queue = list(guesses)
    levels = torch.tensor([sigma, next], dtype=x.dtype)
    return sampler(lambda x, sigma: queue.pop(0), x, levels, generator([x if z is None else z]), **options)


def edm_euler_step(x, D, sigma, next):
    return moved(karras.sample_euler, x, sigma, next, D)


def edm_heun_step(x, D, D_next, sigma, next):
    return moved(karras.sample_heun, x, sigma, next, D, D_next)


def edm_churn(x, z, sigma, raised):
    return moved(karras.sample_heun, x, sigma, raised, x, x, z=z, s_churn=raised / sigma - 1)


def edm_grid(n, low, high, rho):
    return karras.get_sigmas_karras(n, low, high, rho)


def consistency_grid(N, low, high, rho):
    return karras.get_sigmas_karras(N, low, high, rho)[:-1]


def curriculum(k, K, s_0, s_1, mu_0):
    return script.create_ema_and_scales_fn("adaptive", mu_0, "progressive", s_0, s_1, K, 0)(k)


def training_levels(k, K, s_0, s_1):
    return curriculum(k, K, s_0, s_1, 0.9)[1]


def target_decay(k, K, s_0, s_1, mu_0):
    return curriculum(k, K, s_0, s_1, mu_0)[0]


def target():
    """topic -> answer."""
    from minidit.verify import TOPICS

    return functions({name: f for name, f in globals().items() if name in TOPICS})
