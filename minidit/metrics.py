"""Measures of reconstructions and samples in NumPy float64, without a network: the caller supplies features and logits.

    psnr      = mean_i  -10 log₁₀ mean_p (x_ip - y_ip)²,   pixels in [0, 1]                              (E.1)
    accuracy  = mean_i  [argmax_k logits_ik = y_i]                                                       (E.2)
    d²        = |μ_a - μ_b|² + tr(A + B - 2 (A^½ B A^½)^½)                     Fréchet distance          (E.3)
    tr (A^½ B A^½)^½ = Σ σ(LᵀM)   for any  A = L Lᵀ, B = M Mᵀ                  its trace, always real    (E.4)
    f(φ, Φ)   = [ ∃ φ' ∈ Φ : |φ - φ'| ≤ |φ' - NN_k(φ', Φ)| ]                   inside the k-NN balls     (E.5)
    precision = mean_g f(φ_g, Φ_r),   recall = mean_r f(φ_r, Φ_g)                                        (E.6)
    distance  = min_j (mean_p (x_p - b_jp)²)^½,   pixels in [0, 1]             nearest neighbour         (E.7)
    SW        = (mean_θ mean_i (sort x_θ - sort y_θ)_i²)^½,   x_θ = x·(cos θ, sin θ)       sliced Wasserstein     (E.30)
    rank      = #{ j : |P x - P b_j| < |P x - P b_right| }     P: means of squares of pixels     retrieval (E.11)

A Fréchet distance depends on its features: quote it beside the distance of real images from real images, never alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from minidit.backend import Array, to_host

BLOCK = 1 << 22  # distances held at once, 32 MiB of float64


def psnr(x: Array, y: Array, crop: int = 0) -> float:
    """The mean over images of each image's peak signal-to-noise ratio in decibels (E.1); equal images give inf.

    x, y : (B, C, H, W) in [-1, 1];  crop : pixels left out at every border, so 2 turns padded 32x32 into 28x28.
    Values outside [-1, 1] are measured as they are. Raises ValueError for unequal shapes or a crop that leaves nothing.
    """
    x, y = _host(x, "x"), _host(y, "y")
    if x.shape != y.shape or x.ndim != 4 or len(x) == 0:
        raise ValueError(f"psnr needs two (B, C, H, W) arrays of one shape, got {x.shape} and {y.shape}")
    if crop < 0 or 2 * crop >= min(x.shape[2:]):
        raise ValueError(f"a crop of {crop} leaves nothing of {x.shape[2]}x{x.shape[3]}")
    inner = (..., slice(crop, x.shape[2] - crop), slice(crop, x.shape[3] - crop))
    mse = (((x - y)[inner] / 2) ** 2).mean((1, 2, 3))
    with np.errstate(divide="ignore"):
        return float((-10 * np.log10(mse)).mean())                                            # (E.1)


def accuracy(logits: Array, labels: Array) -> float:
    """The share of rows whose largest logit is the label's (E.2).   logits : (B, K);  labels : (B,) int"""
    logits, labels = _host(logits, "logits"), np.asarray(to_host(labels))
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or len(labels) == 0:
        raise ValueError(f"accuracy needs logits (B, K) and labels (B,), got {logits.shape} and {labels.shape}")
    return float((logits.argmax(1) == labels).mean())                                         # (E.2)


# ------------------------------------------------------------------------------------------------ Fréchet distance


def moments(features: Array) -> tuple[Array, Array]:
    """Mean (D,) and unbiased covariance (D, D) of features (N, D), N ≥ 2."""
    f = _host(features, "features")
    if f.ndim != 2 or len(f) < 2:
        raise ValueError(f"a covariance needs features (N, D) with N ≥ 2, got {f.shape}")
    return f.mean(0), np.atleast_2d(np.cov(f, rowvar=False))


def frechet(features_a: Array, features_b: Array) -> float:
    """The squared Fréchet distance between Gaussians fitted to two sets of features (N, D), (M, D) (E.3).

    Heusel et al. 2017 took Inception's features; here the caller chooses them. Biased upwards for small N.
    """
    return frechet_of_moments(*moments(features_a), *moments(features_b))


def frechet_of_moments(mean_a: Array, cov_a: Array, mean_b: Array, cov_b: Array) -> float:
    """The squared Fréchet distance of N(μ_a, A) and N(μ_b, B) (E.3); covariances may be singular (Dowson, Landau 1982).

    mean : (D,);  cov : (D, D) symmetric, positive semi-definite  ->  a real number ≥ 0
    """
    mean_a, mean_b = _host(mean_a, "mean_a"), _host(mean_b, "mean_b")
    a, b = _host(cov_a, "cov_a"), _host(cov_b, "cov_b")
    d = mean_a.size
    if mean_a.shape != (d,) or mean_b.shape != (d,) or a.shape != (d, d) or b.shape != (d, d):
        raise ValueError(f"widths differ: means {mean_a.shape}, {mean_b.shape}, covariances {a.shape}, {b.shape}")
    cross = np.linalg.svd(_factor(a).T @ _factor(b), compute_uv=False).sum()                  # (E.4)
    distance = ((mean_a - mean_b) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * cross         # (E.3)
    return max(0.0, float(distance))  # for equal statistics the rounding error may be negative


def _factor(a: Array) -> Array:
    """L with L Lᵀ = A. Eigenvalues at the level of rounding are set to zero: their square roots would not be small."""
    values, vectors = np.linalg.eigh(a)
    values = np.where(values > len(a) * np.finfo(np.float64).eps * max(values[-1], 0.0), values, 0.0)
    return vectors * np.sqrt(values)


# ------------------------------------------------------------------------------------------------ precision and recall


def precision_recall(real: Array, generated: Array, k: int = 3) -> tuple[float, float]:
    """(precision, recall): generated features that lie among the real ones, and real among the generated (E.6).

    real : (N, D), generated : (M, D), both more than k;  Kynkäänniemi et al. 2019, "improved precision and recall".
    """
    r, g = _host(real, "real"), _host(generated, "generated")
    if r.ndim != 2 or g.ndim != 2 or r.shape[1] != g.shape[1]:
        raise ValueError(f"precision_recall needs features (N, D) and (M, D) of one width, got {r.shape} and {g.shape}")
    if not 1 <= k < min(len(r), len(g)):
        raise ValueError(f"k = {k} neighbours need more than k samples and k ≥ 1, got {len(r)} real and {len(g)} generated")
    return float(_covered(g, r, k).mean()), float(_covered(r, g, k).mean())                   # (E.6)


def _covered(queries: Array, points: Array, k: int) -> Array:
    """f(φ, Φ) for each query φ (E.5). Squared distances of plain differences, so that equal points are at exactly zero."""
    rows = max(1, BLOCK // len(points))
    radius = np.concatenate([np.partition(cdist(points[i:i + rows], points, "sqeuclidean"), k, axis=1)[:, k]  # 0th: itself
                             for i in range(0, len(points), rows)])
    return np.concatenate([(cdist(queries[i:i + rows], points, "sqeuclidean") <= radius).any(1)
                           for i in range(0, len(queries), rows)])                            # (E.5)


# ------------------------------------------------------------------------------------------------ copies of the training set


def nearest(query: Array, bank: Array) -> tuple[Array, Array]:
    """Each query's nearest image in the bank: the pixel RMSE in [0, 1] units (E.7), and where it is.

    query : (Q, C, H, W), bank : (N, C, H, W), both in [-1, 1]  ->  distance (Q,) float64, index (Q,) int
    The bank is read in blocks, so memory stays bounded for any bank. The distance of a copy is exactly zero.
    """
    query, bank = to_host(query), to_host(bank)
    if query.shape[1:] != bank.shape[1:] or query.ndim < 2 or len(bank) == 0:
        raise ValueError(f"nearest needs images of one shape and a bank that is not empty, got {query.shape} and {bank.shape}")
    q = _host(query, "query").reshape(len(query), -1)
    best, index = np.full(len(q), np.inf), np.zeros(len(q), np.intp)
    step = max(1, BLOCK // max(len(q), q.shape[1]))
    for i in range(0, len(bank), step):
        b = _host(bank[i:i + step], "bank").reshape(-1, q.shape[1])
        gap = (b * b).sum(1) - 2 * (q @ b.T)                      # |q-b|² - |q|²: the same order over b
        j = gap.argmin(1)
        closer = gap[np.arange(len(q)), j] < best
        best[closer], index[closer] = gap[np.arange(len(q)), j][closer], i + j[closer]
    closest = np.asarray(bank[index], np.float64).reshape(q.shape)
    return np.sqrt((((q - closest) / 2) ** 2).mean(1)), index                                 # (E.7)


# ------------------------------------------------------------------------------------------------ retrieval


def ranks(drawn: Array, right: Array, bank: Array, side: int = 4) -> Array:
    """How many pictures of a bank are more like each drawn picture than the right one is (E.11): 0 for the best.

    drawn : (Q, C, H, W), bank : (N, C, H, W), right : (Q,) ints, places in the bank  ->  (Q,) ints
    side : of the squares of pixels whose means are compared, so that a shift of a pixel or a rough texture matters little
    """
    drawn, bank, right = to_host(drawn), to_host(bank), np.asarray(to_host(right))
    if drawn.shape[1:] != bank.shape[1:] or right.shape != drawn.shape[:1]:
        raise ValueError(f"ranks needs pictures of one shape and one place each, got {drawn.shape}, {bank.shape}, {right.shape}")
    q, b = _low(drawn, side, "drawn"), _low(bank, side, "bank")
    distance = cdist(q, b, "sqeuclidean")
    return (distance < distance[np.arange(len(q)), right][:, None]).sum(1)                    # (E.11)


def sliced_wasserstein(x: Array, y: Array, lines: int = 64) -> float:
    """The sliced 2-Wasserstein distance of two clouds of as many points in the plane (E.30), over so many directions.

    x, y : (N, 2), or (N, …) with two numbers each. Raises ValueError for clouds of different sizes.
    """
    x, y = (_host(a, "a cloud").reshape(len(a), -1) for a in (x, y))
    if x.shape != y.shape or x.shape[1] != 2 or not len(x):
        raise ValueError(f"a sliced distance needs as many points of two numbers, got {x.shape} and {y.shape}")
    turn = np.exp(1j * np.pi * np.arange(lines) / lines)
    x, y = (np.sort(a @ np.stack([turn.real, turn.imag]), axis=0) for a in (x, y))
    return float(np.mean((x - y) ** 2) ** 0.5)                                                # (E.30)


def _low(x: Array, side: int, name: str) -> Array:
    """The means of squares of side × side pixels : (N, …)."""
    n, c, h, w = x.shape
    if h % side or w % side:
        raise ValueError(f"{h} × {w} pixels cannot be cut into squares of {side}")
    return _host(x, name).reshape(n, c, h // side, side, w // side, side).mean((3, 5)).reshape(n, -1)


def _host(x: Array, name: str) -> np.ndarray[Any, Any]:
    """The values in float64 on the host. Raises ValueError if some are not finite."""
    values = np.asarray(to_host(x), np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{name} has {np.count_nonzero(~np.isfinite(values))} values that are not finite")
    return values
