"""Mistakes around the laws: doubled batches, weights, halves of channels, bins of grey levels, the object of an average."""

from __future__ import annotations

import numpy as np

from minidit.backend import Array
from minidit.verify.bank.wrap import instead, then
from minidit.verify.core.reference import Deviation, Reference
from minidit.verify.topics import guided, latents, likelihood, losses, training
from minidit.verify.topics.ddpm import halves_of_channels

BOTH = "one x, one noise and one guided ε̂ for both branches"
HALVES = "the first C channels, then the last C"
ENDS = "the bins of 0 and 255 are open outwards, and no others"
WEIGHTED = "mean over b of w_b (mean over entries of sample b)"
AVERAGE = "θ̃ begins as a copy of θ; then θ̃ ← d θ̃ + (1-d) θ after every step"
PRIOR = "q(x_T | x_0) = N(√ᾱ_T x_0, 1-ᾱ_T)"


def _half_twice(R: Reference, x: Array, x_second: Array) -> Array:
    half = x[: max(len(x) // 2, 1)]
    return np.resize(np.concatenate((half, half)), (2 * len(x), *x.shape[1:]))


def _interleaved(R: Reference, out: Array) -> tuple[Array, Array]:
    return out[:, ::2], out[:, 1::2]


BANK = [
    Deviation("X221", "DOUBLED_HALF_OF_A_BATCH", "G.1", "doubles the first half of x, which was not doubled before", BOTH,
        {guided.doubled: instead(_half_twice)}, "class (forward_with_cfg expects a doubled batch)"),
    Deviation("X222", "DOUBLED_LABELS_ALTERNATE", "G.1", "x is [x; x], the labels alternate: y_0, null, y_1, null, …", BOTH,
        {guided.labels_of_both: instead(lambda R, y, null: np.stack((y, null), axis=1).ravel())}),
    Deviation("X223", "BRANCHES_WITH_OWN_NOISE", "G.1", "gives the second half of the doubled batch noise of its own", BOTH,
        {guided.second_branch: instead(lambda R, x, before, eps, eps_u, step, z: step(before, eps, z))}),
    Deviation("X224", "SECOND_BRANCH_UNGUIDED", "G.1", "steps the unconditional half with its own ε̂: it drifts away", BOTH,
        {guided.second_branch: instead(lambda R, x, before, eps, eps_u, step, z: step(before, eps_u, z))}),
    Deviation("X225", "WEIGHTS_ALONG_LAST_AXIS", "D.35", "(B,) times (B,C,H,W): the weights go along W where W = B", WEIGHTED,
        {losses.weighted: instead(lambda R, squares, w: w * squares)}),
    Deviation("X226", "WEIGHTS_AVERAGED", "D.35", "(B,) times (B,1) is all pairs: mean weight times mean loss", WEIGHTED,
        {losses.weighted: instead(lambda R, squares, w: w.mean() * squares)}),
    Deviation("X227", "WEIGHTS_NORMALISED", "D.35", "divides by the sum of the weights", WEIGHTED,
        {losses.batch_weight: instead(lambda R, w: w / w.mean())}),
    Deviation("X228", "HALVES_ALTERNATE", "D.22", "takes every other channel", HALVES,
        {halves_of_channels: instead(_interleaved)}),
    Deviation("X229", "HALVES_EXCHANGED", "D.22", "takes the second half for the first", HALVES,
        {halves_of_channels: then(lambda halves: halves[::-1])}),
    Deviation("X230", "LOGVAR_NOT_LIMITED", "L.1", "takes ln σ² as it comes", "ln σ² within [-30, 20]",
        {latents.limited_logvar: instead(lambda R, logvar: logvar)}),
    Deviation("X231", "LOWEST_BIN_CLOSED", "K.4", "the bin of grey level 0 has a lower edge", ENDS,
        {likelihood.end_bins: instead(lambda R, x: (x < -np.inf, x > 0.999))}),
    Deviation("X232", "HIGHEST_BIN_CLOSED", "K.4", "the bin of grey level 255 has an upper edge", ENDS,
        {likelihood.end_bins: instead(lambda R, x: (x < -0.999, x > np.inf))}),
    Deviation("X233", "SECOND_BINS_OPEN", "K.4", "|x| > 0.99: the bins of 1 and 254 are open, too", ENDS,
        {likelihood.end_bins: instead(lambda R, x: (x < -0.99, x > 0.99))}),
    Deviation("X234", "PRIOR_STD_AS_VARIANCE", "K.2", "takes √(1-ᾱ_T) for the variance", PRIOR,
        {likelihood.prior_log_variance: instead(lambda R, a: 0.5 * np.log1p(-a))}),
    Deviation("X235", "PRIOR_MEAN_WITHOUT_ROOT", "K.2", "ᾱ_T x_0", PRIOR,
        {likelihood.prior_mean: instead(lambda R, x_0, a: a * x_0)}),
    Deviation("X236", "PRIOR_OF_FIRST_RUNG", "K.2", "takes ᾱ of the first rung", PRIOR,
        {likelihood.last_level: instead(lambda R, alpha_bar: float(alpha_bar[0]))}),
    Deviation("X237", "AVERAGE_IS_THE_WEIGHTS", "O.4", "keeps the array of the weights, which training overwrites", AVERAGE,
        {training.kept_start: instead(lambda R, theta: theta)}, "class (no deep copy)"),
    Deviation("X238", "AVERAGE_BEGINS_LATE", "O.4", "copies the weights at the first update, averages from the second", AVERAGE,
        {training.first_update: instead(lambda R, average, theta, decay: np.array(theta))}),
    Deviation("X239", "AVERAGE_READ_AND_UPDATED", "O.4", "updates again whenever it is read", AVERAGE,
        {training.read_average: instead(lambda R, average, theta, decay: training.ema_update(R, average, theta, decay))}),
]  # fmt: skip
