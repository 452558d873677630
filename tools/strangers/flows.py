"""torchcfm: the variance-preserving interpolant is our ladder in another letter, √ᾱ = sin(πτ/2), and its velocity is -π/2 v."""

import math

import torch

from minidit.verify.borders.torch import functions

from . import stranger

package = stranger("torchcfm")
matcher = package.VariancePreservingConditionalFlowMatcher(sigma=0.0)


def tau(t, alpha_bar):
    return 2 / math.pi * torch.asin(alpha_bar[t].sqrt())


def q_sample(x_0, eps, t, alpha_bar):
    return matcher.sample_xt(eps, x_0, tau(t, alpha_bar), torch.zeros_like(x_0))


def v_from_pair(x_0, eps, t, alpha_bar):
    return -2 / math.pi * matcher.compute_conditional_flow(eps, x_0, tau(t, alpha_bar), None)


def target():
    """topic -> answer."""
    return functions({"q_sample": q_sample, "v_from_pair": v_from_pair})
