"""flow_matching: the path of conditional optimal transport, with data at t = 1, as answers to the kit."""

import torch

from minidit.verify.borders.torch import functions

from . import stranger

path = stranger("flow_matching.path").CondOTProbPath()


def straight_sample(x_0, eps, t):
    return path.sample(x_0=eps, x_1=x_0, t=t).x_t


def straight_velocity(x_0, eps):
    return path.sample(x_0=eps, x_1=x_0, t=torch.full((len(x_0),), 0.5, dtype=x_0.dtype)).dx_t


def pair_from_velocity(x_t, u, t):
    rows = [(path.velocity_to_target(u[k], x_t[k], t[k]), path.velocity_to_epsilon(u[k], x_t[k], t[k])) for k in range(len(t))]
    return tuple(torch.stack(column) for column in zip(*rows, strict=True))


def velocity_from_x_0(x_t, x_0_hat, t):
    return torch.stack([path.target_to_velocity(x_0_hat[k], x_t[k], t[k]) for k in range(len(t))])


def target():
    """topic -> answer."""
    from minidit.verify import TOPICS

    return functions({name: f for name, f in globals().items() if name in TOPICS})
