"""torchcfm: matchers with data at t = 1, and the time embedding of its U-Net.

The variance-preserving interpolant is our ladder in another letter, √ᾱ = sin(πτ/2), and its velocity is -π/2 v.
"""

import math

import torch

from minidit.verify.borders.torch import functions

from . import stranger

package = stranger("torchcfm")
matcher = package.VariancePreservingConditionalFlowMatcher(sigma=0.0)
straight = package.ConditionalFlowMatcher(sigma=0.0)


def tau(t, alpha_bar):
    return 2 / math.pi * torch.asin(alpha_bar[t].sqrt())


def q_sample(x_0, eps, t, alpha_bar):
    return matcher.sample_xt(eps, x_0, tau(t, alpha_bar), torch.zeros_like(x_0))


def v_from_pair(x_0, eps, t, alpha_bar):
    return -2 / math.pi * matcher.compute_conditional_flow(eps, x_0, tau(t, alpha_bar), None)


def straight_sample(x_0, eps, t):
    return straight.sample_xt(eps, x_0, t, torch.zeros_like(x_0))


def straight_velocity(x_0, eps):
    return straight.compute_conditional_flow(eps, x_0, None, None)


def timestep_embedding(t, width):
    return stranger("torchcfm.models.unet.nn").timestep_embedding(t, width)


def straight_embedding(t, width):
    """What its U-Net makes of the time that it is called with, which is t itself."""
    return timestep_embedding(t, width)


def target():
    """topic -> answer."""
    from minidit.verify import TOPICS

    return functions({name: f for name, f in globals().items() if name in TOPICS})
