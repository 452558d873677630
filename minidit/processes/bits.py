"""How many bits a picture costs a trained model: every term of the variational bound, one noise draw each.

    total = L_T + Σ_{t=2..T} L_{t-1} + L_0        in bits a dimension, one network call for every rung        (K.8)

Pixels are grey levels, and L_0 is the discretised decoder's; latents are not, and theirs is the continuous one's, so the
bits of a latent model are not those of its pictures.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from minidit.autograd import no_grad, value
from minidit.backend import Arena, Array, to_host, xp_of
from minidit.diffusion import likelihood, threshold, variance
from minidit.diffusion.ddpm import q_sample
from minidit.diffusion.likelihood import Bound
from minidit.diffusion.schedule import at
from minidit.processes.train import at_time
from minidit.random import Philox

BITS_STREAM = 0x62697473


def log_variances(pipeline: Any, v: Array | None, t: int) -> dict[str, Any]:
    """The log-variance of the step from t to t - 1 by every law there is: small, large, and the model's own if it learned one."""
    sch = pipeline.schedule
    laws: dict[str, Any] = {
        "small": variance.log_small(t, t - 1, sch), "large": float(np.log(variance.large(t, t - 1, sch))),
    }  # fmt: skip
    if v is not None:
        laws["learned"] = variance.log_learned_range(v, t, t - 1, sch)
    return laws


def bits_per_dim(
    pipeline: Any,
    x_0: Array,
    labels: Array | None,
    *,
    levels: int = 256,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Bound]:
    """x_0 : (B, C, H, W), pixels or scaled latents, where the model lives  ->  {variance law: Bound}, on the host."""
    model, sch = pipeline.model, pipeline.schedule
    pixels = pipeline.autoencoder is None
    decoder = functools.partial(likelihood.discretised_nll, levels=levels) if pixels else likelihood.continuous_nll
    rng, samples = Philox(seed, BITS_STREAM), np.arange(len(x_0))
    terms: dict[str, list[Array]] = {}
    with no_grad(), Arena():
        for t in range(1, sch.T + 1):
            rng.state = t
            x_t = q_sample(x_0, t, rng.normal(x_0.shape, samples, model.device, x_0.dtype), sch)
            xp = xp_of(x_t)
            out = model(x_t, at_time(sch, xp.full(len(x_0), t, dtype=xp.int64)), labels)
            out = value(out)
            channels = model.config.in_channels
            v = out[:, channels:] if model.config.learn_sigma else None
            x_0_hat, _ = pipeline.prediction.pair(out[:, :channels], x_t, at(sch.alpha_bar, t))
            if pixels:
                x_0_hat = threshold.static(x_0_hat)
            for law, log_variance in log_variances(pipeline, v, t).items():
                term = likelihood.bound_term(x_0, x_t, x_0_hat, log_variance, t, sch, decoder=decoder)
                terms.setdefault(law, []).append(to_host(term).copy())
            if progress is not None:
                progress(t, sch.T)
    prior = to_host(likelihood.bits(likelihood.prior_term(x_0, sch)))
    return {law: Bound(prior, np.stack(rows)) for law, rows in terms.items()}

