"""What stands around the laws, in torch's own words: doubled batches, weights, halves of channels, end bins, an average.

python examples/verify/torch_around.py
"""

import copy
import math

import torch
import torch.nn.functional as F

import minidit as md


def guided_output(net, x, t, y, null, w):
    labels = torch.cat([y, torch.full_like(y, null)])
    eps_c, eps_u = net(torch.cat([x, x]), t, labels).chunk(2)
    return torch.lerp(eps_u, eps_c, w)


def guided_sample(net, x, y, null, w, N, alpha_bar, eta, z):
    """The state itself is doubled, as DiT's sampler has it: both halves get one answer and one noise."""
    B, x = len(x), torch.cat([x, x])
    timesteps = torch.linspace(len(alpha_bar) - 1, 0, N, dtype=torch.float64).round().long()
    for t, s, noise in zip(timesteps.tolist(), [*timesteps[1:].tolist(), -1], z, strict=True):
        a, b = float(alpha_bar[t]), float(alpha_bar[s]) if s >= 0 else 1.0
        eps = guided_output(net, x[:B], t, y, null, w).repeat(2, 1, 1, 1)
        sigma = eta * math.sqrt((1 - b) / (1 - a) * (1 - a / b))
        x_0 = (x - math.sqrt(1 - a) * eps) / math.sqrt(a)
        x = math.sqrt(b) * x_0 + math.sqrt(max(1 - b - sigma**2, 0.0)) * eps + sigma * noise[:B].repeat(2, 1, 1, 1)
    return x[:B]


def weighted_loss(out, target, weights):
    return (F.mse_loss(out, target, reduction="none").flatten(1).mean(dim=1) * weights).mean()


def split_output(out):
    return torch.chunk(out, 2, dim=1)


def latent_moments(h):
    mean, logvar = h.chunk(2, dim=1)
    return mean, logvar.clamp(-30.0, 20.0)


def bin_edges(k):
    x = k.double() / 127.5 - 1
    return torch.where(k == 0, -torch.inf, x - 1 / 255), torch.where(k == 255, torch.inf, x + 1 / 255)


def prior_moments(x_0, alpha_bar):
    return alpha_bar[-1].sqrt() * x_0, torch.log1p(-alpha_bar[-1].double())


class ema_object:
    def __init__(self, decay):
        self.decay = decay

    def start(self, theta):
        self.shadow = copy.deepcopy(torch.as_tensor(theta))

    def update(self, theta):
        self.shadow = torch.lerp(self.shadow, torch.as_tensor(theta), 1 - self.decay)

    def average(self):
        return self.shadow


def normed(x, weights, name, groups):
    return F.silu(F.group_norm(x, groups, weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-6))


def convolved(x, weights, name):
    weight = weights[f"{name}.weight"]
    return F.conv2d(x, weight, weights[f"{name}.bias"], padding=weight.shape[-1] // 2)


def autoencoder_block(weights, x, groups):
    h = convolved(normed(x, weights, "norm1", groups), weights, "conv1")
    h = convolved(normed(h, weights, "norm2", groups), weights, "conv2")
    return h + (convolved(x, weights, "conv_shortcut") if "conv_shortcut.weight" in weights else x)


def mine():
    """topic -> function, from the names above."""
    return {name: f for name, f in globals().items() if name in md.verify.TOPICS}


def main():
    report = md.verify.check(md.verify.torch.functions(mine()))
    print(report)
    return report


if __name__ == "__main__":
    main()
