"""Mistakes in styles of code that the bank does not have: in place, with state, in chunks, in a generator, in half precision."""

import itertools
import math

import numpy as np
import pytest

import minidit as md
from minidit.verify.bank.fits import beyond
from minidit.verify.bank.nonlinear import fit
from minidit.verify.core.finding import Finding, Reason
from minidit.verify.core.judge import Judge
from minidit.verify.core.reference import Kind
from minidit.verify.topics import TOPICS


def rooted_in_place(x_0, eps, t, alpha_bar):
    a = alpha_bar[t].reshape(-1, 1, 1, 1)
    np.sqrt(a, out=a)
    return a * x_0 + np.sqrt(1 - a) * eps


def dilated_patches(x, weight, bias):
    B, C, H, W = x.shape
    p = weight.shape[2]
    tokens = x.reshape(B, C, p, H // p, p, W // p).transpose(0, 3, 5, 1, 2, 4).reshape(B, -1, C * p * p)
    return np.einsum("bnk,dk->bnd", tokens, weight.reshape(len(weight), -1)) + bias


class WarmedAverage:
    def __init__(self, decay):
        self.decay, self.steps = decay, 0

    def start(self, theta):
        self.shadow = theta.copy()

    def update(self, theta):
        self.steps += 1
        d = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.shadow += (1 - d) * (theta - self.shadow)

    def average(self):
        return self.shadow


def states(denoise, x, N, alpha_bar, eta, z):
    """A generator whose network hears the timestep of arrival."""
    down = np.round(np.linspace(0, len(alpha_bar) - 1, N)).astype(int)[::-1].tolist()
    for (t, s), noise in zip(itertools.pairwise([*down, -1]), z, strict=False):
        a, b = alpha_bar[t], alpha_bar[s] if s >= 0 else 1.0
        eps, sigma = denoise(x, max(s, 0)), eta * math.sqrt((1 - b) / (1 - a) * (1 - a / b))
        x = math.sqrt(b) * (x - math.sqrt(1 - a) * eps) / math.sqrt(a) + math.sqrt(1 - b - sigma**2) * eps + sigma * noise
        yield x


def half_frequencies(t, width):
    f = np.exp(-np.log(1e4) * np.arange(width // 2) / (width // 2)).astype(np.float16)
    angle = np.outer(t, f.astype(np.float64))
    return np.hstack([np.cos(angle), np.sin(angle)])


def in_chunks(q, k, v, cos, sin, calls):
    """A new chunk does not see the last token of the one before."""

    def turned(x):
        pairs = x.reshape(*x.shape[:-1], -1, 2)
        a, b, c, s = pairs[..., 0], pairs[..., 1], cos[:, None], sin[:, None]
        return np.stack([a * c - b * s, a * s + b * c], -1).reshape(x.shape)

    (q, k), out, start = (turned(q), turned(k)), [], 0
    for n in calls:
        end, past = start + n, max(start - 1, 0)
        keys, values = (np.concatenate([a[:past], a[start:end]]) for a in (k, v))
        seen = np.concatenate([np.ones((n, past), bool), np.tril(np.ones((n, n), bool))], axis=1)
        weights = np.exp(np.where(seen, np.einsum("nhd,mhd->hnm", q[start:end], keys) / math.sqrt(q.shape[-1]), -np.inf))
        out.append(np.einsum("hnm,mhd->nhd", weights / weights.sum(-1, keepdims=True), values))
        start = end
    return np.concatenate(out)


def first_beta_twice(theta, m, v, g, n, lr, beta1, beta2, eps, weight_decay):
    m, v = m + (1 - beta1) * (g - m), beta2 * v + (1 - beta1) * g * g
    step = lr / (1 - beta1**n) * m / (np.sqrt(v) / math.sqrt(1 - beta2**n) + eps)
    return theta * (1 - lr * weight_decay) - step, m, v


def halves_by_neighbours(x, cos, sin):
    half = x.shape[-1] // 2
    c, s = (np.repeat(a, 2, axis=1)[:, None] for a in (cos, sin))
    return x * c + np.concatenate([-x[..., half:], x[..., :half]], -1) * s


class CutOff:
    """A scheduler whose timesteps are cut off."""

    def __init__(self, alpha_bar):
        self.alpha_bar = alpha_bar

    def timesteps(self, N):
        self.down = [int(k * (len(self.alpha_bar) - 1) / (N - 1)) for k in range(N)][::-1]
        return self.down

    def step(self, x_t, eps, t, z):
        s = [*self.down, -1][self.down.index(t) + 1]
        a, b = self.alpha_bar[t], self.alpha_bar[s] if s >= 0 else 1.0
        return b**0.5 * (x_t - (1 - a) ** 0.5 * eps) / a**0.5 + (1 - b) ** 0.5 * eps


SAID = {
    "q_sample": (rooted_in_place, "the coefficient of ε is √(1-√ᾱ_t) for √(1-ᾱ_t)"),
    "patch_embed": (dilated_patches, "equals N.9 with a patch of pixels that are H/p and W/p apart"),
    "ema_object": (WarmedAverage, "equals O.4 with a decay that rises as (1+n)/(10+n)"),
    "ddim_sample": (lambda *args: [*states(*args)][-1], "equals D.7 with the network asked at the timestep of arrival"),
    "timestep_embedding": (half_frequencies, "time_frequencies (topics/embeddings.py) rounded to float16"),
    "cached_attention": (in_chunks, "equals N.16 with the last token of earlier calls unseen"),
    "adamw_update": (first_beta_twice, "equals O.2 with 1-β₁ before g²"),
    "rope": (halves_by_neighbours, "equals A.30 with halves turned by angles that stand in turns, as for neighbours"),
    "bits_per_dim": (lambda nats: nats.sum(axis=(1, 2, 3)) / math.prod(nats.shape[2:]) / math.log(2), "the answer is C times"),
    "latent_moments": (lambda h: (h[:, :2], h[:, 2:].clip(-20, 30)), "equals L.1 with λ between -20 and 30"),
    "ddim_scheduler": (CutOff, "its list of timesteps: cut off where it should be rounded"),
}


@pytest.mark.parametrize("topic", SAID)
def test_a_mistake_in_another_style_is_explained(topic):
    function, words = SAID[topic]
    (f,) = md.verify.check({topic: function}).findings
    assert not f.passed and not f.candidates and words in f.sentences[0] and not f.note


def test_a_reason_carries_the_kind_of_its_explanation():
    kinds = {
        Kind.RELATION: ("guide", lambda u, c, w: -TOPICS["guide"].by(Judge().reference(()))(u, c, w)),
        Kind.COEFFICIENT: ("q_sample", rooted_in_place), Kind.CHANGE: ("latent_moments", SAID["latent_moments"][0]),
        Kind.LAW: ("min_snr_x_0", lambda a, gamma: np.minimum(a / (1 - a), gamma) / (a / (1 - a) + 1)),
    }  # fmt: skip
    for kind, (topic, function) in kinds.items():
        (f,) = md.verify.check({topic: function}).findings
        assert [r.kind for r in f.reasons][:1] == [kind], (kind, f.sentences)


def test_the_search_goes_by_the_kind_and_not_by_the_words():
    """Another wording of the same explanation is as weak, or as strong, as before."""
    topic = TOPICS["min_snr_x_0"]
    laws = [d for d in beyond(topic, ()) if d.kind is Kind.LAW]
    assert laws and all(d.patches.keys() == {topic} for d in laws)
    assert fit("the law of nothing", topic, lambda f: f).kind is Kind.CHANGE
    finding = Finding(topic, "unknown", None, 1e-9, whole=True)
    for kind, weak in ((Kind.LAW, True), (Kind.CHANGE, False), (Kind.RELATION, False)):
        finding.reasons = [Reason("with the law of the coefficient", kind)]
        assert Judge().weak(finding, []) is weak
