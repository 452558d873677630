"""Perfect networks: exact denoisers of known data, with the signature of a network, (x, time, y) -> output.

    x̂_0 = m + Q k Qᵀ(x - √A m)                                    Gaussian, covariance Q s² Qᵀ      (D.38)
    x̂_0 = Σ_k r_k (μ_k + √A s_k²/S_k (x - √A μ_k))                mixture                           (D.42)
          r_k ∝ w_k N(x; √A μ_k, S_k)    S_k = A s_k² + 1 - A
    x̂_0 = Σ_k softmax_k(-‖x - √A μ_k‖²/2(1-A)) μ_k                the points of a data set          (D.43)
    x_s = F_s⁻¹(F_t(x_t))                                         probability flow in 1-D           (D.44)
    ε_∅ from all components, ε_c from those of class c            exact guidance                    (G.6)

The target of every prediction is linear in (x_0, ε), so its best guess is the target of the best guesses (x̂_0, ε̂).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minidit.backend import Array, special_of, xp_of
from minidit.diffusion import gaussian
from minidit.diffusion.level import at
from minidit.diffusion.prediction import EPS, X_0, Prediction
from minidit.diffusion.schedule import Schedule


def column(a: Array, x: Array) -> Array:
    """ᾱ of a rung, a float or (B,), reshaped to broadcast against x : (B, ...), still in float64."""
    return a if isinstance(a, float) else a.reshape(-1, *[1] * (x.ndim - 1))


def cast(c: Array, x: Array) -> Array:
    """c in the home and precision of x, its shape unchanged (a mean with one axis is a picture, not one number per sample)."""
    return float(c) if isinstance(c, float) else xp_of(x).asarray(c, dtype=x.dtype)


@dataclass(frozen=True, eq=False, kw_only=True)
class Oracle:
    """The base of all perfect networks: looks up the ᾱ of a time in its schedule and returns the target of its prediction."""

    sch: Schedule
    prediction: Prediction = EPS

    def denoise(self, x: Array, a: Array, y: Array = None) -> Array:
        """x : (B, ...), a = ᾱ_t : float or (B,)  ->  E[x_0 | x_t = x, y]."""
        raise NotImplementedError

    def __call__(self, x: Array, time: Array, y: Array = None) -> Array:
        """x : (B, ...), time : int or (B,) as Schedule.time gives it, y : (B,) or None  ->  (B, ...)."""
        t = self.sch.rung(time)
        level = self.sch.level(t)
        x_0_hat, eps_hat = X_0.pair(self.denoise(x, at(self.sch.alpha_bar, t), y), x, level)
        return self.prediction.target(x_0_hat, eps_hat, level)


@dataclass(frozen=True, eq=False)
class Gaussian(Oracle):
    """mean : shape of a picture (or a float), variance : broadcasts against it, along the columns of basis : (D, D) if given."""

    mean: Array
    variance: Array
    basis: Array = None

    @classmethod
    def of_covariance(cls, mean: Array, covariance: Array, **rest: Any) -> Gaussian:
        """mean : shape of a picture with D entries, covariance : (D, D) symmetric."""
        variance, basis = np.linalg.eigh(covariance)
        return cls(mean, variance.reshape(np.shape(mean)), basis, **rest)

    def stretch(self, x: Array, factor: Array) -> Array:
        """Q factor Qᵀ x, with one factor per direction."""
        if self.basis is None:
            return cast(factor, x) * x
        q = cast(self.basis, x)
        along = (x.reshape(len(x), -1) @ q).reshape(x.shape) * cast(factor, x)
        return (along.reshape(len(x), -1) @ q.T).reshape(x.shape)

    def denoise(self, x: Array, a: Array, y: Array = None) -> Array:
        a, m = column(a, x), xp_of(x).asarray(self.mean)
        centred = x - cast(a**0.5 * m, x)
        k = gaussian.gain(a, xp_of(x).asarray(self.variance))
        return cast(m, x) + self.stretch(centred, k)  # (D.38)

    def flow(self, x: Array, a_t: Array, a_s: Array) -> Array:
        """x moved along the exact probability flow from the rung with ᾱ = a_t to the one with ᾱ = a_s (up or down)."""
        a_t, a_s, m = column(a_t, x), column(a_s, x), xp_of(x).asarray(self.mean)
        centred = x - cast(a_t**0.5 * m, x)
        factor = gaussian.flow_factor(a_t, a_s, xp_of(x).asarray(self.variance))
        return cast(a_s**0.5 * m, x) + self.stretch(centred, factor)  # (D.40)


@dataclass(frozen=True, eq=False)
class Mixture(Oracle):
    """weights : (K,) summing to 1, means : (K, ...), variances : (K,), one per component (0: points), classes : (K,) labels.

    y = null, the label of a sample whose class is left out, and y = None mean all classes together.
    """

    weights: Array
    means: Array
    variances: Array
    classes: Array = None
    null: int | None = None

    @classmethod
    def of_points(cls, points: Array, classes: Array = None, **rest: Any) -> Mixture:
        """The data set itself, points : (K, ...): the denoiser that has memorised it."""
        return cls(np.full(len(points), 1 / len(points)), points, np.zeros(len(points)), classes, **rest)  # (D.43)

    def responsibilities(self, x: Array, a: Array, y: Array = None) -> Array:
        """x : (B, ...)  ->  (B, K): the probability that each component of class y generated x."""
        xp = xp_of(x)
        a = a if isinstance(a, float) else a.reshape(-1, 1)
        spread = gaussian.spread(a, xp.asarray(self.variances))  # (K,) or (B, K)
        axes = tuple(range(2, x.ndim + 1))
        root = column(a, x[:, None]) ** 0.5
        distance = ((x[:, None] - root * xp.asarray(self.means)) ** 2).sum(axis=axes)
        log_r = xp.log(xp.asarray(self.weights)) - 0.5 * distance / spread - 0.5 * x[0].size * xp.log(spread)
        if y is not None and self.classes is not None:
            c = xp.asarray(self.classes)
            eligible = c == y[:, None]
            if self.null is not None:
                eligible |= y[:, None] == self.null
            log_r = xp.where(eligible, log_r, -xp.inf)  # (G.6)
        r = xp.exp(log_r - log_r.max(axis=1, keepdims=True))
        return r / r.sum(axis=1, keepdims=True)

    def denoise(self, x: Array, a: Array, y: Array = None) -> Array:
        xp = xp_of(x)
        means, variances = xp.asarray(self.means), xp.asarray(self.variances)
        r = self.responsibilities(x, a, y)  # (B, K)
        b = a if isinstance(a, float) else a.reshape(-1, 1)
        k = gaussian.gain(b, variances)  # (K,) or (B, K)
        factor = r * (1 - k * b**0.5)  # x̂_0 = Σ_k r_k (μ_k - k_k √A μ_k) + (Σ_k r_k k_k) x
        x_0_hat = xp.tensordot(factor, means, axes=1) + column((r * k).sum(axis=1), x) * x  # (D.42)
        return cast(x_0_hat, x)

    def cdf(self, x: Array, a: float, *, upper: bool = False) -> Array:
        """F_t(x), or 1 - F_t(x) without cancellation, of scalar data: x : any shape, means : (K,)."""
        xp = xp_of(x)
        mu, sd = xp.asarray(self.means), gaussian.spread(a, xp.asarray(self.variances)) ** 0.5
        z = (x[..., None] - a**0.5 * mu) / sd
        return (xp.asarray(self.weights) * special_of(x).erfc((z if upper else -z) / 2**0.5)).sum(axis=-1) / 2

    def transport(self, x: Array, a_t: float, a_s: float) -> Array:
        """Scalar x moved along the exact probability flow from ᾱ = a_t to a_s: a monotone map, which keeps the CDF."""
        xp = xp_of(x)
        below, above = self.cdf(x, a_t), self.cdf(x, a_t, upper=True)
        reach = 40 * (1 + np.max(np.sqrt(self.variances)))
        low = xp.full(x.shape, a_s**0.5 * np.min(self.means) - reach)
        high = xp.full(x.shape, a_s**0.5 * np.max(self.means) + reach)
        for _ in range(80):  # bisection, in the smaller tail
            middle = (low + high) / 2
            left = xp.where(below < above, self.cdf(middle, a_s) < below, self.cdf(middle, a_s, upper=True) > above)
            low, high = xp.where(left, middle, low), xp.where(left, high, middle)
        return (low + high) / 2  # (D.44)
