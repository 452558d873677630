"""Doubled batches, weighted losses, halves of channels, end bins and objects that average: right ones pass in any style."""

import copy

import numpy as np
import pytest
from verify import fresh_layers as fresh
from verify.fresh_laws import ddim
from verify.strange_third_layers import conv, group_norm

import minidit as md
from minidit.diffusion import likelihood
from minidit.verify.core.reference import Reference
from minidit.verify.topics import TOPICS
from minidit.verify.topics.schedules import full


def guided(net, x, t, y, null, w):
    """Two calls, each of the batch itself."""
    u, c = net(x, t, np.full(len(x), null)), net(x, t, y)
    return u + w * (c - u)


def doubled_first(net, x, t, y, null, w):
    """One call, [uncond; cond]."""
    u, c = np.split(net(np.concatenate([x, x]), t, np.concatenate([0 * y + null, y])), 2)
    return (1 - w) * u + w * c


def sample_of(branches):
    def run(net, x, y, null, w, N, alpha_bar, eta, z):
        ts = np.linspace(0, len(alpha_bar) - 1, N).round().astype(int)[::-1]
        for k, (t, s) in enumerate(zip(ts, [*ts[1:], -1], strict=True)):
            x = ddim(x, branches(net, x, t, y, null, w), int(t), int(s), alpha_bar, eta, z[k][: len(x)])
        return x

    return run


def whole_state(net, x, y, null, w, N, alpha_bar, eta, z):
    """As DiT's sampler does: the state itself is doubled, and both halves get the same guided answer and noise."""
    B, x = len(x), np.concatenate([x, x])
    ts = np.linspace(0, len(alpha_bar) - 1, N).round().astype(int)[::-1]
    for k, (t, s) in enumerate(zip(ts, [*ts[1:], -1], strict=True)):
        c, u = np.split(net(np.concatenate([x[:B], x[:B]]), t, np.concatenate([y, 0 * y + null])), 2)
        eps = np.concatenate([u + w * (c - u)] * 2)
        x = ddim(x, eps, int(t), int(s), alpha_bar, eta, np.concatenate([z[k][:B]] * 2))
    return x[:B]


class Shadow:
    """As torch users keep one: a deep copy, updated in place."""

    def __init__(self, decay):
        self.decay = decay

    def start(self, theta):
        self.shadow = copy.deepcopy(theta)

    def update(self, theta):
        self.shadow *= self.decay
        self.shadow += (1 - self.decay) * theta

    def average(self):
        return self.shadow


class Difference(Shadow):
    def update(self, theta):
        self.shadow = self.shadow - (1 - self.decay) * (self.shadow - theta)

    def average(self):
        return self.shadow.tolist()


def edges(k):
    x = 2 * np.asarray(k) / 255 - 1
    low, high = x - 1 / 255, x + 1 / 255
    low[np.asarray(k) == 0], high[np.asarray(k) == 255] = -np.inf, np.inf
    return low, high


def block(w, x, groups):
    h = x
    for k in "12":
        h = group_norm(h, w[f"norm{k}.weight"], w[f"norm{k}.bias"], groups, 1e-6)
        h = conv(fresh.silu(h), w[f"conv{k}.weight"], w[f"conv{k}.bias"])
    return h + (conv(x, w["conv_shortcut.weight"], w["conv_shortcut.bias"], 0) if "conv_shortcut.weight" in w else x)


def moments(x, a):
    return np.sqrt(a[-1]) * x, np.log(1 - a[-1])


RIGHT = [
    ("guided_output", guided), ("guided_output", doubled_first), ("guided_sample", sample_of(guided)),
    ("guided_sample", sample_of(doubled_first)), ("guided_sample", whole_state), ("ema_object", Shadow),
    ("ema_object", Difference), ("bin_edges", edges), ("autoencoder_block", block), ("prior_moments", moments),
    ("weighted_loss", lambda out, y, w: (w * ((out - y) ** 2).reshape(len(w), -1).mean(axis=1)).mean()),
    ("weighted_loss", lambda out, y, w: np.einsum("b,bchw->", w, (out - y) ** 2) / out.size),
    ("split_output", lambda out: np.split(out, 2, axis=1)),
    ("split_output", lambda out: np.moveaxis(out.reshape(len(out), 2, -1, *out.shape[2:]), 1, 0)),
    ("latent_moments", lambda h: (h[:, : h.shape[1] // 2], h[:, h.shape[1] // 2 :].clip(-30, 20))),
]  # fmt: skip


@pytest.mark.parametrize("topic, function", RIGHT)
def test_right_code_of_any_style_passes(topic, function):
    (finding,) = md.verify.check({topic: function}).findings
    assert finding.verdict == "equal", md.verify.report.line(finding)


class Alias(Shadow):
    """The shadow is the weights themselves until the first update."""

    def start(self, theta):
        self.shadow = theta

    def update(self, theta):
        self.shadow = self.decay * self.shadow + (1 - self.decay) * theta


def drifting(net, x, y, null, w, N, alpha_bar, eta, z):
    """A doubled state whose halves get noise of their own."""
    B, x = len(x), np.concatenate([x, x])
    ts = np.linspace(0, len(alpha_bar) - 1, N).round().astype(int)[::-1]
    for k, (t, s) in enumerate(zip(ts, [*ts[1:], -1], strict=True)):
        c, u = np.split(net(x, t, np.concatenate([y, 0 * y + null])), 2)
        x = ddim(x, np.concatenate([u + w * (c - u)] * 2), int(t), int(s), alpha_bar, eta, z[k])
    return x[:B]


WRONG = [
    ("ema_object", Alias, "X237"), ("guided_sample", drifting, "X223"),
    ("weighted_loss", lambda out, y, w: (w * (out - y) ** 2).mean(), "X225"),
    ("weighted_loss", lambda out, y, w: (w * ((out - y) ** 2).mean(axis=(1, 2, 3), keepdims=True)).mean(), "X226"),
    ("bin_edges", lambda k: (edges(k)[0], 2 * np.asarray(k) / 255 - 1 + 1 / 255), "X232"),
    ("latent_moments", lambda h: (h[:, : h.shape[1] // 2], h[:, h.shape[1] // 2 :]), "X230"),
    ("prior_moments", lambda x, a: (np.sqrt(a[-1]) * x, np.log(np.sqrt(1 - a[-1]))), "X234"),
]  # fmt: skip


@pytest.mark.parametrize("topic, function, name", WRONG)
def test_mistakes_that_others_make_there_are_named(topic, function, name):
    assert md.verify.check({topic: function}).mistakes == [name]


def test_the_prior_s_two_numbers_give_its_bits():
    """KL of the two moments is the law of the package (K.2)."""
    for probe in TOPICS["prior_moments"].probes():
        x_0, alpha_bar = probe.args
        mean, log_variance = TOPICS["prior_moments"](Reference(), x_0, alpha_bar)
        law = likelihood.prior_term(x_0, full(alpha_bar))
        kl = likelihood.normal_kl(mean, np.full_like(mean, log_variance), 0 * mean, 0 * mean)
        np.testing.assert_allclose(kl, law, atol=1e-14)


def test_the_edges_of_bins_leave_no_gap():
    low, high = TOPICS["bin_edges"](Reference(), np.arange(256))
    np.testing.assert_allclose(low[1:], high[:-1], atol=1e-15)
    assert low[0] == -np.inf and high[-1] == np.inf


def test_a_network_with_labels_is_asked_once_or_twice_per_step_and_nothing_is_said_of_its_calls():
    wrong = lambda net, x, y, null, w, N, a, eta, z: 2 * sample_of(guided)(net, x, y, null, w, N, a, eta, z)
    (finding,) = md.verify.check({"guided_sample": wrong}).findings
    assert not finding.layer and finding.sentences == ["the answer is 2 times the right one"]
