"""denoising-diffusion-pytorch: its schedules, its table of coefficients, its samplers and losses as answers to the kit.

It has one ladder and steps from t to t - 1. A step from t to s of a topic is a step of a ladder with the two rungs ᾱ_s, ᾱ_t. Its
tables are made in float64 and kept in float32, so it is judged in float32. Its samplers always clip.
"""

import torch

from minidit.verify.borders.torch import functions

from . import drawing, stranger

package = stranger("denoising_diffusion_pytorch")
laws = package.denoising_diffusion_pytorch
learned = package.learned_gaussian_diffusion
OBJECTIVE = {"eps": "pred_noise", "x_0": "pred_x0", "v": "pred_v"}


class Says(torch.nn.Module):
    """A network that answers what it was made with."""

    def __init__(self, answer, channels=3, out_dim=None):
        super().__init__()
        self.answer, self.channels, self.out_dim, self.self_condition = answer, channels, out_dim or channels, False

    def forward(self, x, t, *_):
        return self.answer


def made(alpha_bar, answer=None, kind=laws.GaussianDiffusion, **options):
    """Their object on this ladder, for a network that says `answer`."""
    alpha_bar = torch.as_tensor(alpha_bar, dtype=torch.float64)
    before = torch.nn.functional.pad(alpha_bar[:-1], (1, 0), value=1.0)
    original, laws.linear_beta_schedule = laws.linear_beta_schedule, lambda T: 1 - alpha_bar / before
    try:
        network = Says(answer, out_dim=6 if kind is learned.LearnedGaussianDiffusion else None)
        settings = {"objective": "pred_noise", "beta_schedule": "linear", "auto_normalize": False} | options
        return kind(network, image_size=4, timesteps=len(alpha_bar), **settings)
    finally:
        laws.linear_beta_schedule = original


def two(alpha_bar, t, s):
    """(the ladder of the rungs s and t, the index of t in it)"""
    return (alpha_bar[[s, t]], 1) if s >= 0 else (alpha_bar[[t]], 0)


def whole(t, x):
    return torch.full((len(x),), t)


# ------------------------------------------------------------------------------------------------ answers


def linear_betas(T):
    betas = laws.linear_beta_schedule(T)
    if betas[-1] >= 1:  # they have no check
        raise ValueError(f"β reaches {float(betas[-1])}")
    return betas


def cosine_betas(T):
    return laws.cosine_beta_schedule(T)


def q_sample(x_0, eps, t, alpha_bar):
    return made(alpha_bar).q_sample(x_0, t, eps)


def x_0_from_eps(x_t, eps, t, alpha_bar):
    return made(alpha_bar).predict_start_from_noise(x_t, t, eps)


def eps_from_x_0(x_t, x_0, t, alpha_bar):
    return made(alpha_bar).predict_noise_from_start(x_t, t, x_0)


def v_from_pair(x_0, eps, t, alpha_bar):
    return made(alpha_bar).predict_v(x_0, t, eps)


def x_0_from_v(x_t, v, t, alpha_bar):
    return made(alpha_bar).predict_start_from_v(x_t, t, v)


def posterior_variance(alpha_bar):
    return made(alpha_bar).posterior_variance


def posterior_log_variance(alpha_bar):
    return made(alpha_bar).posterior_log_variance_clipped


def posterior_mean(x_0, x_t, t, s, alpha_bar):
    ladder, i = two(alpha_bar, t, s)
    return made(ladder).q_posterior(x_0, x_t, whole(i, x_t))[0]


def ddpm_step_clipped(x_t, eps, t, s, alpha_bar, z):
    ladder, i = two(alpha_bar, t, s)
    with drawing(z):
        return made(ladder, eps).p_sample(x_t, i)[0].clone()


def ddim_step_clipped(x_t, eps, t, s, alpha_bar, eta, z):
    ladder, _ = two(alpha_bar, t, s)
    with drawing(x_t, z):
        options = {"sampling_timesteps": len(ladder), "ddim_sampling_eta": eta}
        return made(ladder, eps, **options).ddim_sample(tuple(x_t.shape), return_all_timesteps=True)[:, 1].clone()


def learned_range_variance(v, t, s, alpha_bar):
    ladder, i = two(alpha_bar, t, s)
    out = torch.cat([torch.zeros_like(v), v], 1)
    d = made(ladder, kind=learned.LearnedGaussianDiffusion)
    return d.p_mean_variance(x=torch.zeros_like(v), t=whole(i, v), clip_denoised=False, model_output=out)[1]


def ddpm_step_learned(x_t, out, t, s, alpha_bar, z, objective):
    ladder, i = two(alpha_bar, t, s)
    d = made(ladder, out, kind=learned.LearnedGaussianDiffusion, objective=OBJECTIVE[objective])
    mean, _, log_variance, _ = d.p_mean_variance(x=x_t, t=whole(i, x_t), clip_denoised=False, model_output=out)
    return mean + (0.5 * log_variance).exp() * z * (i > 0)


def hybrid_loss(out, x_0, eps, t, alpha_bar):
    d = made(alpha_bar, out, kind=learned.LearnedGaussianDiffusion)
    return d.p_losses(x_0, whole(t, x_0), noise=eps, loss_reduction="none")


def simple_loss(out, x_0, eps, t, alpha_bar, objective):
    d = made(alpha_bar, out, objective=OBJECTIVE[objective])
    d.loss_weight.fill_(1)  # the weights are topics of their own
    return d.p_losses(x_0, t, noise=eps)


def _weights(objective):
    def weights(alpha_bar, gamma):
        options = {"objective": objective, "min_snr_loss_weight": True, "min_snr_gamma": gamma}
        return made(alpha_bar, **options).loss_weight

    return weights


min_snr_eps, min_snr_x_0, min_snr_v = map(_weights, ("pred_noise", "pred_x0", "pred_v"))


def normal_kl(mean_1, logvar_1, mean_2, logvar_2):
    return learned.normal_kl(*(torch.as_tensor(a, dtype=torch.float64) for a in (mean_1, logvar_1, mean_2, logvar_2)))


def discretised_nll(x, mean, log_variance):
    return -learned.discretized_gaussian_log_likelihood(x, means=mean, log_scales=0.5 * log_variance)


def timestep_embedding(t, width):
    return laws.SinusoidalPosEmb(width)(t)


def target():
    """topic -> answer."""
    from minidit.verify import TOPICS

    return functions({name: f for name, f in globals().items() if name in TOPICS})
