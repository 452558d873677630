"""EDM from a checkout of its repository: the preconditioned network and its loss weight. It computes in float32."""

import torch

from minidit.verify.borders.torch import functions

from . import drawing, stranger

networks, losses = stranger("training.networks"), stranger("training.loss")


class Constant(torch.nn.Module):
    """A network that answers what it is told to, and keeps what it was given."""

    def __init__(self, **options):
        super().__init__()

    def forward(self, x, time, class_labels=None):
        self.seen = x, time
        return self.answer


networks.Constant = Constant


def asked(x, answer, sigma, sigma_data):
    """(D, the network's inputs)."""
    made = networks.EDMPrecond(x.shape[-1], x.shape[1], sigma_data=sigma_data, model_type="Constant")
    made.model.answer = answer.float().reshape(*x.shape)
    return made(x, sigma), made.model.seen


def edm_scalings(sigma, sigma_data):
    one, zero = torch.ones(len(sigma), 1, 1, 1), torch.zeros(len(sigma), 1, 1, 1)
    skip, (scaled, time) = asked(one, zero, sigma, sigma_data)
    return skip.flatten(), asked(zero, one, sigma, sigma_data)[0].flatten(), scaled.flatten(), time


def edm_denoised(F, x, sigma, sigma_data):
    return asked(x[..., None], F[..., None], sigma, sigma_data)[0][..., 0]


def edm_weight(sigma, sigma_data):
    """The loss of a guess that is 1 off, one level after the other."""
    loss = losses.EDMLoss(P_std=1.0, P_mean=0.0, sigma_data=sigma_data)
    out = []
    for level in sigma:
        with drawing(level.log().reshape(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)):
            out.append(loss(lambda x, sigma, labels, augment_labels: x + 1, torch.zeros(1, 1, 1, 1)))
    return torch.cat(out).flatten()


def edm_sigmas(u):
    loss, seen = losses.EDMLoss(), []
    normal = torch.distributions.Normal(torch.zeros((), dtype=u.dtype), torch.ones((), dtype=u.dtype))

    def network(x, sigma, labels, augment_labels):
        seen.append(sigma)
        return x

    with drawing(normal.icdf(u).reshape(-1, 1, 1, 1), torch.zeros(len(u), 1, 1, 1)):
        loss(network, torch.zeros(len(u), 1, 1, 1))
    return seen[0].flatten()


def target():
    """topic -> answer."""
    from minidit.verify import TOPICS

    return functions({name: f for name, f in globals().items() if name in TOPICS})
