"""Right, but written in an unusual way: none of these may be called wrong."""

import functools
import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy import special
from verify.strange_fourth import right


@right("alpha_bar", "by logarithms, from the end of a reversed list")
def by_logs(betas):
    return [math.exp(math.fsum(math.log1p(-b) for b in betas[: i + 1])) for i in range(len(betas))]


@right("cosine_betas", "tan in place of a ratio of cosines")
def by_half_angles(T):
    phi = (np.arange(T + 1) / T + 0.008) / 1.008 * np.pi
    f = (1 + np.cos(phi)) / 2
    return np.clip((f[:-1] - f[1:]) / f[:-1], None, 0.999)


@right("ddim_step", "in the coordinates of the exploding path")
def as_an_ode(x_t, eps, t, s, alpha_bar, eta, z):
    a, b = alpha_bar[t], alpha_bar[s] if s >= 0 else 1.0
    c2 = eta**2 * (1 - b) * (1 - a / b) / (1 - a)
    y = x_t / a**0.5 + eps * (((1 - b - c2) / b) ** 0.5 - ((1 - a) / a) ** 0.5)
    return (y + (c2 / b) ** 0.5 * z) * b**0.5


@right("ddpm_step", "the posterior as a product of two Gaussians", True)
def by_precisions(x_t, eps, t, s, alpha_bar, z):
    a = alpha_bar[t]
    x_0 = (x_t - (1 - a).sqrt() * eps) / a.sqrt()
    if s < 0:
        return x_0
    b = alpha_bar[s]
    alpha = a / b
    precision = alpha / (1 - alpha) + 1 / (1 - b)
    mean = (alpha.sqrt() * x_t / (1 - alpha) + b.sqrt() * x_0 / (1 - b)) / precision
    return mean + z / precision.sqrt()


@right("gelu", "by the logistic function of twice the argument")
def by_expit(x):
    return x * special.expit(1.5957691216057308 * x * (1 + 0.044715 * x * x))


@right("attention", "one query at a time, with a running softmax")
def streaming(q, k, v):
    out = np.zeros_like(v)
    for b, h, n in np.ndindex(q.shape[:3]):
        top, total, kept = -np.inf, 0.0, np.zeros(v.shape[-1])
        for m in range(k.shape[2]):
            score = float(q[b, h, n] @ k[b, h, m]) / math.sqrt(q.shape[-1])
            new = max(top, score)
            shrink, weight = math.exp(top - new), math.exp(score - new)
            total, kept, top = total * shrink + weight, kept * shrink + weight * v[b, h, m], new
        out[b, h, n] = kept / total
    return out


@right("layer_norm", "as a matrix that takes the mean off")
def by_projection(x):
    D = x.shape[-1]
    centred = x @ (np.eye(D) - 1 / D)
    return centred / np.sqrt(np.einsum("...d,...d->...", centred, centred)[..., None] / D + 1e-6)


@right("patch_embed", "by unfold", True)
def by_unfold(x, weight, bias):
    p = weight.shape[-1]
    return F.unfold(x, p, stride=p).transpose(1, 2) @ weight.flatten(1).T + bias


@right("rope", "as complex numbers, keyword-only", True)
def by_phases(*, x, cos, sin):
    z = torch.view_as_complex(x.contiguous().unflatten(-1, (-1, 2)))
    return torch.view_as_real(z * torch.complex(cos, sin)[:, None]).flatten(-2)


@right("guided_logits", "of log-probabilities: another constant per row", True)
def of_log_probabilities(l, l_u, w):
    return torch.lerp(F.log_softmax(l_u, -1), F.log_softmax(l, -1), w)


@right("edm_denoised", "c_skip as one minus a square", True)
def by_angles(F_, x, sigma, sigma_data):
    phi = torch.atan2(sigma, torch.full_like(sigma, sigma_data))[:, None, None]
    return phi.cos() ** 2 * x + sigma_data * phi.sin() * F_


class Buffered:
    """One output array for all calls."""

    def __init__(self):
        self.out = None

    def __call__(self, x_0, eps, t, alpha_bar):
        if self.out is None or self.out.shape != x_0.shape:
            self.out = np.empty(x_0.shape)
        a = alpha_bar[t].reshape(-1, 1, 1, 1)
        np.multiply(np.sqrt(a), x_0, out=self.out)
        self.out += np.sqrt(1 - a) * eps
        return self.out


right("q_sample", "writes into its own buffer again")(Buffered())


@right("group_norm", "channels last, in one pass of moments")
def channels_last(x, weight, bias, groups, eps):
    if x.shape[1] % groups:
        raise ValueError("groups do not divide the channels")
    y = np.moveaxis(x, 1, -1)
    y = y.reshape(*y.shape[:3], groups, -1)
    mean = y.mean((1, 2, 4), keepdims=True)
    y = (y - mean) * ((y - mean) ** 2).mean((1, 2, 4), keepdims=True).__add__(eps) ** -0.5
    return np.moveaxis(y.reshape(*y.shape[:3], -1) * weight + bias, -1, 1)


@right("ema_run", "as one weighted sum over the whole past")
def as_a_sum(theta_0, updates, decay):
    path = np.cumsum(np.concatenate([theta_0[None], updates]), 0)
    n = len(updates)
    weights = np.array([decay**n, *((1 - decay) * decay ** (n - 1 - np.arange(n)))])
    return path[-1], weights @ path


@right("nearest_code", "by a tree of all pairs, with functools")
def by_reduction(z, codes):
    best = lambda row: functools.reduce(
        lambda i, j: j if np.sum((row - codes[j]) ** 2) < np.sum((row - codes[i]) ** 2) else i, range(len(codes))
    )
    return [best(row) for row in z]
