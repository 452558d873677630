"""What stands around the laws, with NumPy and SciPy: doubled batches, weights, halves of channels, end bins, an average.

python examples/verify/scipy_around.py
"""

import numpy as np
from scipy.signal import correlate
from scipy.special import expit, log1p

import minidit as md


def guided_output(net, x, t, y, null, w):
    eps_u = net(x, t, np.full(len(x), null))
    return eps_u + w * (net(x, t, y) - eps_u)


def guided_sample(net, x, y, null, w, N, alpha_bar, eta, z):
    timesteps = np.rint(np.arange(N) * (len(alpha_bar) - 1) / (N - 1)).astype(int)[::-1]
    for k, t in enumerate(timesteps):
        a, b = alpha_bar[t], alpha_bar[timesteps[k + 1]] if k + 1 < N else 1.0
        eps = guided_output(net, x, int(t), y, null, w)
        sigma = eta * np.sqrt((1 - b) / (1 - a) * (1 - a / b))
        x_0 = (x - np.sqrt(1 - a) * eps) / np.sqrt(a)
        x = np.sqrt(b) * x_0 + np.sqrt(max(1 - b - sigma**2, 0)) * eps + sigma * z[k, : len(x)]
    return x


def weighted_loss(out, target, weights):
    return np.average(((out - target) ** 2).mean(axis=(1, 2, 3)) * weights)


def split_output(out):
    C = out.shape[1] // 2
    return out[:, :C], out[:, C:]


def latent_moments(h):
    mean, logvar = split_output(h)
    return mean, np.minimum(np.maximum(logvar, -30), 20)


def bin_edges(k):
    middle = np.append(np.arange(256), 256) / 127.5 - 1 - 1 / 255
    middle[[0, 256]] = -np.inf, np.inf
    return middle[k], middle[k + 1]


def prior_moments(x_0, alpha_bar):
    return alpha_bar[-1] ** 0.5 * x_0, float(log1p(-alpha_bar[-1]))


class ema_object:
    def __init__(self, decay):
        self.decay = decay

    def start(self, theta):
        self.mean = theta.copy()

    def update(self, theta):
        self.mean += (1 - self.decay) * (theta - self.mean)

    def average(self):
        return self.mean


def group_norm(x, weight, bias, groups):
    cut = x.reshape(len(x), groups, -1)
    n = (cut - cut.mean(axis=2, keepdims=True)) / np.sqrt(cut.var(axis=2, keepdims=True) + 1e-6)
    return n.reshape(x.shape) * weight[:, None, None] + bias[:, None, None]


def convolution(x, weight, bias):
    p = weight.shape[2] // 2
    x = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    return np.stack([np.stack([correlate(a, w, mode="valid")[0] for w in weight]) for a in x]) + bias[:, None, None]


def autoencoder_block(weights, x, groups):
    h = x
    for k in (1, 2):
        h = group_norm(h, weights[f"norm{k}.weight"], weights[f"norm{k}.bias"], groups)
        h = convolution(h * expit(h), weights[f"conv{k}.weight"], weights[f"conv{k}.bias"])
    return h + (convolution(x, weights["conv_shortcut.weight"], weights["conv_shortcut.bias"]) if len(weights) > 8 else x)


def mine():
    """topic -> function, from the names above."""
    return {name: f for name, f in globals().items() if name in md.verify.TOPICS and name != "group_norm"}


def main():
    report = md.verify.check(mine())
    print(report)
    return report


if __name__ == "__main__":
    main()
