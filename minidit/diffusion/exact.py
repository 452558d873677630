"""Perfect networks: exact denoisers of known data, with the signature of a network, (x, time, y) -> output, on any path.

    x̂_0 = m + Q k Qᵀ(x - α m)                                     Gaussian, covariance Q s² Qᵀ      (D.38)
    x̂_0 = Σ_k r_k (μ_k + α s_k²/S_k (x - α μ_k))                  mixture                           (D.42)
          r_k ∝ w_k N(x; α μ_k, S_k)    S_k = α² s_k² + σ²
    x̂_0 = Σ_k softmax_k(-‖x - α μ_k‖²/2σ²) μ_k                    the points of a data set          (D.43)
    x_s = F_s⁻¹(F_t(x_t))                                         probability flow in 1-D           (D.44)
    ε_∅ from all components, ε_c from those of class c            exact guidance                    (G.6)

The target of every prediction is linear in (x_0, ε), so its best guess is the target of the best guesses (x̂_0, ε̂).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minidit.backend import Array, home_of, special_of, xp_of
from minidit.diffusion import gaussian
from minidit.diffusion.level import Level
from minidit.diffusion.path import Path
from minidit.diffusion.prediction import EPS, X_0, Prediction


def column(a: Array, x: Array) -> Array:
    """One number, or one per sample, (B,), reshaped to broadcast against x : (B, ...), still in float64."""
    return a if home_of(a) == "" else a.reshape(-1, *[1] * (x.ndim - 1))


def against(at: Level, x: Array) -> Level:
    """A level whose numbers broadcast against x : (B, ...)."""
    return Level(column(at.alpha, x), column(at.sigma, x))


def rows(at: Level) -> Level:
    """A level whose numbers broadcast against (B, K), one column per component."""
    return at if home_of(at.alpha) == "" else Level(at.alpha.reshape(-1, 1), at.sigma.reshape(-1, 1))


def cast(c: Array, x: Array) -> Array:
    """c in the home and precision of x, its shape unchanged (a mean with one axis is a picture, not one number per sample)."""
    return float(c) if home_of(c) == "" else xp_of(x).asarray(c, dtype=x.dtype)


@dataclass(frozen=True, eq=False, kw_only=True)
class Oracle:
    """The base of all perfect networks: takes the inputs that its path gives a network, and returns its answer's best guess."""

    path: Path
    prediction: Prediction = EPS

    def denoise(self, x: Array, at: Level, y: Array = None) -> Array:
        """x : (B, ...) at this level  ->  E[x_0 | x_t = x, y]."""
        raise NotImplementedError

    def __call__(self, x: Array, time: Array, y: Array = None) -> Array:
        """x : (B, ...), time : a number or (B,), both as path.inputs gives them, y : (B,) or None  ->  (B, ...)."""
        x_t, t = self.path.origin(x, time)
        level = self.path.level(t)
        x_0_hat, eps_hat = X_0.pair(self.denoise(x_t, level, y), x_t, level)
        return self.prediction.target(x_0_hat, eps_hat, level)


@dataclass(frozen=True, eq=False)
class Gaussian(Oracle):
    """mean : shape of a picture (or a float), variance : broadcasts against it, along the columns of basis : (D, D) if given."""

    mean: Array
    variance: Array
    basis: Array = None

    @classmethod
    def of_covariance(cls, mean: Array, covariance: Array, *, path: Path, prediction: Prediction = EPS) -> Gaussian:
        """mean : shape of a picture with D entries, covariance : (D, D) symmetric."""
        variance, basis = np.linalg.eigh(covariance)
        return cls(mean, variance.reshape(np.shape(mean)), basis, path=path, prediction=prediction)

    def stretch(self, x: Array, factor: Array) -> Array:
        """Q factor Qᵀ x, with one factor per direction."""
        if self.basis is None:
            return cast(factor, x) * x
        q = cast(self.basis, x)
        along = (x.reshape(len(x), -1) @ q).reshape(x.shape) * cast(factor, x)
        return (along.reshape(len(x), -1) @ q.T).reshape(x.shape)

    def denoise(self, x: Array, at: Level, y: Array = None) -> Array:
        at, m = against(at, x), xp_of(x).asarray(self.mean)
        centred = x - cast(at.alpha * m, x)
        k = gaussian.gain(at, xp_of(x).asarray(self.variance))
        return cast(m, x) + self.stretch(centred, k)  # (D.38)

    def flow(self, x: Array, t: Level, s: Level) -> Array:
        """x moved along the exact probability flow from level t to level s (up or down)."""
        t, s, m = against(t, x), against(s, x), xp_of(x).asarray(self.mean)
        centred = x - cast(t.alpha * m, x)
        factor = gaussian.flow_factor(t, s, xp_of(x).asarray(self.variance))
        return cast(s.alpha * m, x) + self.stretch(centred, factor)  # (D.40)


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
    def of_points(
        cls, points: Array, classes: Array = None, *, null: int | None = None, path: Path, prediction: Prediction = EPS
    ) -> Mixture:
        """The data set itself, points : (K, ...): the denoiser that has memorised it."""
        equal = np.full(len(points), 1 / len(points))
        return cls(equal, points, np.zeros(len(points)), classes, null, path=path, prediction=prediction)  # (D.43)

    @classmethod
    def ring(cls, path: Path, shape: tuple[int, ...] = (2,), *, prediction: Prediction = EPS) -> Mixture:
        """Eight small Gaussians on a circle in the plane; points are two numbers of any shape."""
        angles = 2 * np.pi * np.arange(8) / 8
        means = 0.7 * np.stack([np.cos(angles), np.sin(angles)], axis=1).reshape(8, *shape)
        return cls(np.full(8, 1 / 8), means, np.full(8, 0.05**2), path=path, prediction=prediction)

    def responsibilities(self, x: Array, at: Level, y: Array = None) -> Array:
        """x : (B, ...)  ->  (B, K): the probability that each component of class y generated x."""
        xp = xp_of(x)
        spread = gaussian.spread(rows(at), xp.asarray(self.variances))  # (K,) or (B, K)
        axes = tuple(range(2, x.ndim + 1))
        distance = ((x[:, None] - column(at.alpha, x[:, None]) * xp.asarray(self.means)) ** 2).sum(axis=axes)
        log_r = xp.log(xp.asarray(self.weights)) - 0.5 * distance / spread - 0.5 * x[0].size * xp.log(spread)
        if y is not None and self.classes is not None:
            c = xp.asarray(self.classes)
            eligible = c == y[:, None]
            if self.null is not None:
                eligible |= y[:, None] == self.null
            log_r = xp.where(eligible, log_r, -xp.inf)  # (G.6)
        r = xp.exp(log_r - log_r.max(axis=1, keepdims=True))
        return r / r.sum(axis=1, keepdims=True)

    def denoise(self, x: Array, at: Level, y: Array = None) -> Array:
        xp = xp_of(x)
        means, variances = xp.asarray(self.means), xp.asarray(self.variances)
        r = self.responsibilities(x, at, y)  # (B, K)
        k = gaussian.gain(rows(at), variances)  # (K,) or (B, K)
        factor = r * (1 - k * rows(at).alpha)  # x̂_0 = Σ_k r_k (μ_k - k_k α μ_k) + (Σ_k r_k k_k) x
        x_0_hat = xp.tensordot(factor, means, axes=1) + column((r * k).sum(axis=1), x) * x  # (D.42)
        return cast(x_0_hat, x)

    def cdf(self, x: Array, at: Level, *, upper: bool = False) -> Array:
        """F_t(x), or 1 - F_t(x) without cancellation, of scalar data: x : any shape, means : (K,), at : a level of floats."""
        xp = xp_of(x)
        mu, sd = xp.asarray(self.means), gaussian.spread(at, xp.asarray(self.variances)) ** 0.5
        z = (x[..., None] - at.alpha * mu) / sd
        return (xp.asarray(self.weights) * special_of(x).erfc((z if upper else -z) / 2**0.5)).sum(axis=-1) / 2

    def transport(self, x: Array, t: Level, s: Level) -> Array:
        """Scalar x moved along the exact probability flow from level t to level s: a monotone map, which keeps the CDF."""
        xp = xp_of(x)
        below, above = self.cdf(x, t), self.cdf(x, t, upper=True)
        reach = 40 * (s.sigma + s.alpha * np.max(np.sqrt(self.variances)))
        low = xp.full(x.shape, s.alpha * np.min(self.means) - reach)
        high = xp.full(x.shape, s.alpha * np.max(self.means) + reach)
        for _ in range(80):  # bisection, in the smaller tail
            middle = (low + high) / 2
            left = xp.where(below < above, self.cdf(middle, s) < below, self.cdf(middle, s, upper=True) > above)
            low, high = xp.where(left, middle, low), xp.where(left, high, middle)
        return (low + high) / 2  # (D.44)
