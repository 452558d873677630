"""Topics: between pictures, latents and the network: samples of the posterior, the one scale, ranges, bytes.

Sampling and scaling are spelled out, because mistakes change the standard deviation and the scale apart (M88 to M91).
"""

from __future__ import annotations

import numpy as np

from minidit import ops, pictures
from minidit.backend import Array
from minidit.random import Philox
from minidit.verify.core.reference import Group, Probe, Reference, part
from minidit.verify.topics.ddpm import halves_of_channels
from minidit.verify.topics.layers import normal

topic = Group("latents")

SD_SCALE = 0.18215


def _posteriors() -> list[Probe]:
    rng = Philox(101)
    mean, logvar, eps = normal(rng, 2, 4, 2, 3, std=5.0), normal(rng, 2, 4, 2, 3) - 2, normal(rng, 2, 4, 2, 3)
    return [Probe("narrow", (mean, logvar, eps, SD_SCALE)), Probe("wide", (mean, logvar + 3, eps, 0.4), "another scale")]


@topic("L.5", "mean, logvar (B,C,h,w) of the encoder, eps: the noise of the sample, scale",
       "z_0 (B,C,h,w), what the denoiser is trained on", _posteriors)  # fmt: skip
def latent_sample(R: Reference, mean: Array, logvar: Array, eps: Array, scale: float) -> Array:
    """scale (μ + e^{λ/2} ε)."""
    return scaled(R, posterior_sample(R, mean, logvar, eps), scale)


def _moments() -> list[Probe]:
    h = normal(Philox(105), 2, 4, 2, 3, std=20.0)
    return [Probe("wide", (h,), "log-variances beyond [-30, 20]; four channels, of which two are means")]


@topic("L.1", "h (B,2C,h,w): what the encoder ends with", "(mean, logvar), each (B,C,h,w), logvar within [-30, 20]", _moments)
def latent_moments(R: Reference, h: Array) -> tuple[Array, Array]:
    """(μ, λ): the first C channels; the last C, within [-30, 20]."""
    mean, logvar = halves_of_channels(R, h)
    return mean, limited_logvar(R, logvar)


limited_logvar = part(lambda R, logvar: np.clip(logvar, -30.0, 20.0))  # λ within [-30, 20]
posterior_std = part(lambda R, logvar: np.exp(0.5 * logvar))  # e^{λ/2}
posterior_sample = part(lambda R, mean, logvar, eps: mean + posterior_std(R, logvar) * eps)  # a sample, not the mode
scaled = part(lambda R, z, scale: z * scale)  # latents of unit variance: multiplied, once


@topic("L.3", "z_0 (B,C,h,w) as the sampler returns it, scale", "(B,C,h,w), what the decoder is given",
       lambda: [Probe("sample", (normal(Philox(102), 2, 4, 2, 3), SD_SCALE))])  # fmt: skip
def latent_to_decoder(R: Reference, z_0: Array, scale: float) -> Array:
    """z_0 / scale."""
    return unscaled(R, z_0, scale)


unscaled = part(lambda R, z, scale: z / scale)  # divided, once


@topic("L.3", "latents (B,C,h,w), unscaled", "the scale that gives them unit variance",
       lambda: [Probe("four-channels", (normal(Philox(103), 6, 4, 3, 2, std=5.5) + 0.4 * np.arange(4).reshape(4, 1, 1),),
                       "one number for all channels")],
       tol=100.0, because="a mean of many numbers")  # fmt: skip
def measured_scale(R: Reference, latents: Array) -> float:
    """1 / std over everything."""
    return float(1 / latents.std())


def _halves() -> list[Probe]:
    rng = Philox(104)
    impulse = np.zeros((1, 1, 4, 6))
    impulse[0, 0, 2, 3] = 1
    kernel = np.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    return [
        Probe("impulse", (impulse, kernel, np.zeros(1)), "one bright pixel: where its window begins"),
        Probe("random", (normal(rng, 2, 3, 6, 4), normal(rng, 2, 3, 3, 3), normal(rng, 2))),
    ]


@topic("L.7", "x (B,C,H,W), weight (O,C,3,3), bias (O,)", "(B,O,H/2,W/2)", _halves)
def halve(R: Reference, x: Array, weight: Array, bias: Array) -> Array:
    """The convolution of stride 2 over x with zeros below and to the right only."""
    return ops.conv2d(halve_padding(R, x), weight, bias, stride=2)


halve_padding = part(lambda R, x: np.pad(x, ((0, 0), (0, 0), (0, 1), (0, 1))))  # zeros below and to the right only


@topic("D.1", "pixels (H,W,C) uint8", "floats of the same shape, the range that the prior N(0,1) and the clip to ±1 assume",
       lambda: [Probe("all-bytes", (np.arange(256, dtype=np.uint8).reshape(16, 16, 1),))])  # fmt: skip
def pixels_in(R: Reference, pixels: Array) -> Array:
    """u/127.5 - 1, in [-1, 1]."""
    return pixels / 127.5 - 1


def _values() -> list[Probe]:
    x = np.array([-1.7, -1.0, -0.999, -0.4999, -0.25, 0.0, 0.1, 0.4, 0.4999, 0.7531, 0.9972, 0.9999, 1.0, 1.7])
    row = np.linspace(-1.05, 1.05, 211)
    sure = row[abs(255 * (row + 1) - np.rint(255 * (row + 1))) > 2e-3]  # no half and no whole, where precisions may disagree
    return [
        Probe("values", (x,), "outside ±1, near the edges of bytes, and a tie: 0.4 is 178.5"),
        Probe("row", (sure,), "all levels"),
    ]


@topic("E.8", "x floats in [-1, 1], may lie outside", "uint8 of the same shape", _values)
def pixels_out(R: Reference, x: Array) -> Array:
    """round(255 (x+1)/2), clipped, ties to even."""
    return pictures.to_uint8(x)
