"""k-diffusion: a denoiser around a network that says ε or v on a discrete ladder, and samplers on x/√ᾱ, as answers to the kit.

EDM's denoiser, grid and steps it has as they are. Its Euler step is DDIM without noise, its ancestral Euler step DDIM with noise
η (and DDPM with the small variance for η = 1).
"""

import torch

from minidit.verify.borders.torch import functions

from . import drawing, stranger

package = stranger("k_diffusion")


def sigmas(alpha_bar):
    return (1 / alpha_bar - 1).sqrt()


def column(a, like):
    return a.reshape(-1, *[1] * (like.ndim - 1))


def denoised(x_t, output, t, alpha_bar, kind):
    """x̂_0 of its wrapper around a network that answers `output`; the wrapper must tell the network t itself."""
    times = []

    def network(x, time):
        times.append(time)
        return output

    wrapper = kind(network, alpha_bar, quantize=False)
    a = column(alpha_bar[t], x_t)
    wrapper.get_v = network
    out = wrapper(x_t / a.sqrt(), wrapper.sigmas[t])
    if (times[0] - t).abs().max() > 1e-3:
        raise ValueError(f"the network was told {times[0]} for {t}")
    return out


def x_0_from_eps(x_t, eps, t, alpha_bar):
    return denoised(x_t, eps, t, alpha_bar, package.external.DiscreteEpsDDPMDenoiser)


def x_0_from_v(x_t, v, t, alpha_bar):
    return denoised(x_t, v, t, alpha_bar, package.external.DiscreteVDDPMDenoiser)


def stepped(x_t, eps, t, s, alpha_bar, sampler, **options):
    a_t, a_s = alpha_bar[t], alpha_bar[s] if s >= 0 else torch.tensor(1.0).double()
    levels = sigmas(torch.stack([a_t, a_s]))

    def model(x, sigma):
        return x - column(sigma, x) * eps

    return sampler(model, x_t / a_t.sqrt(), levels, disable=True, **options) * a_s.sqrt()


def ddim_step(x_t, eps, t, s, alpha_bar, eta, z):
    s_ = package.sampling
    if eta == 0:
        return stepped(x_t, eps, t, s, alpha_bar, s_.sample_euler)
    return stepped(x_t, eps, t, s, alpha_bar, s_.sample_euler_ancestral, eta=eta, noise_sampler=lambda *levels: z)


def ddpm_step(x_t, eps, t, s, alpha_bar, z):
    return ddim_step(x_t, eps, t, s, alpha_bar, 1.0, z)


def edm_denoised(F, x, sigma, sigma_data):
    return package.layers.Denoiser(lambda x, sigma: F, sigma_data=sigma_data)(x, sigma)


def edm_grid(n, low, high, rho):
    return package.sampling.get_sigmas_karras(n, low, high, rho)


def moved(sampler, x, sigma, next, *guesses, z=None, **options):
    queue = list(guesses)
    levels = torch.tensor([sigma, next], dtype=x.dtype)
    with drawing(x if z is None else z):
        return sampler(lambda x, sigma: queue.pop(0), x, levels, disable=True, **options)


def edm_euler_step(x, D, sigma, next):
    return moved(package.sampling.sample_euler, x, sigma, next, D)


def edm_heun_step(x, D, D_next, sigma, next):
    return moved(package.sampling.sample_heun, x, sigma, next, D, D_next)


def edm_churn(x, z, sigma, raised):
    return moved(package.sampling.sample_euler, x, sigma, raised, x, z=z, s_churn=raised / sigma - 1)


def target():
    """topic -> answer."""
    from minidit.verify import TOPICS

    return functions({name: f for name, f in globals().items() if name in TOPICS})
