"""The bits per dimension of a picture under a trained model: every term of the variational bound, one noise draw each.

    total = L_T + Σ_{t=2..T} L_{t-1} + L_0        in bits per dimension, one network call per rung        (K.8)

Pixels are grey levels, and their L_0 uses the discretised decoder; latents are not, and theirs uses the continuous one, so
the bits of a latent model are not those of its pictures. Several ranks share the pictures.
"""

from __future__ import annotations

import functools

import numpy as np

from minidit.autograd import no_grad
from minidit.backend import Arena, Array, to_host
from minidit.diffusion import likelihood, variance
from minidit.diffusion.level import mix
from minidit.diffusion.likelihood import Bound
from minidit.diffusion.schedule import Schedule
from minidit.processes.denoise import Denoiser
from minidit.processes.walk import Progress
from minidit.training.draws import Draws
from minidit.training.ranks import ranks
from minidit.training.workers import shard_of

BITS_STREAM = 0x62697473


def log_variances(sch: Schedule, v: Array | None, t: int) -> dict[str, Array]:
    """The log-variance of the step from t to t - 1 by every variance law: small, large, and the network's own if it has one."""
    laws = {"small": variance.log_small(t, t - 1, sch), "large": float(np.log(variance.large(t, t - 1, sch)))}
    return laws if v is None else {**laws, "learned": variance.log_learned_range(v, t, t - 1, sch)}


def bits_per_dim(
    denoiser: Denoiser,
    sch: Schedule,
    x_0: Array,
    labels: Array | None,
    *,
    levels: int | None = 256,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Bound]:
    """x_0 : (B, ...) on the network's device, with grey `levels` (None: latents)  ->  {variance law: Bound}, on the host.

    labels : (B,) on the device, captions (B, length), or None
    seed : of the one noise draw per picture and rung, the same for every variance law   progress : (rungs done, T)
    """
    network = denoiser.network
    decoder = likelihood.continuous_nll if levels is None else functools.partial(likelihood.discretised_nll, levels=levels)
    team, n = ranks(), len(x_0)
    parts = [shard_of(n, team.count, r) if n >= team.count else slice(0, n) for r in range(team.count)]  # or everybody all
    mine = parts[team.me]
    x_0, labels = x_0[mine], None if labels is None else labels[mine]
    draws = Draws(seed, BITS_STREAM, np.arange(n)[mine], network.device, x_0.dtype)
    terms: dict[str, list[Array]] = {}
    with no_grad(), Arena():
        for t in range(1, sch.T + 1):
            level = sch.level(t)
            x_t = mix(x_0, draws.at(t).normal(x_0.shape), level)
            F, _, v = denoiser(x_t, t, labels)
            x_0_hat, _ = denoiser.answer.pair(F, x_t, level)
            x_0_hat = x_0_hat if denoiser.limit is None else denoiser.limit(x_0_hat)
            for law, log_variance in log_variances(sch, v, t).items():
                term = likelihood.bound_term(x_0, x_t, x_0_hat, log_variance, t, sch, decoder=decoder)
                terms.setdefault(law, []).append(to_host(term).copy())
            if progress is not None:
                progress(t, sch.T)
    prior = to_host(likelihood.bits(likelihood.prior_term(x_0, sch)))
    tables: dict[str, Array] = {}
    for law, rows in terms.items():
        mixed = np.stack([prior, *rows], axis=1)
        tables[law] = table = np.empty((n, 1 + sch.T), mixed.dtype)  # a row per picture: L_T, L_0, …, L_{T-1}
        table[mine] = mixed
        if n >= team.count:
            team.gather(table, parts)
    return {law: Bound(table[:, 0], table[:, 1:].T.copy()) for law, table in tables.items()}
