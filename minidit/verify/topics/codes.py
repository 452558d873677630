"""Topics: vectors and numbers of codes: the nearest code and its gradients, whole numbers, and pyramids of codes.

Losses and gradients are spelled out, because mistakes exchange β, stop no gradient or the wrong one (M130 to M132); so is
the walk over scales, where mistakes enter between two sums (M133, M134, M135). The tests hold both to `autoregressive/`.
"""

from __future__ import annotations

import numpy as np

from minidit import ops
from minidit.autoregressive import quantize as law
from minidit.autoregressive import scales
from minidit.backend import Array
from minidit.random import Philox
from minidit.verify.core.reference import Group, Probe, Reference, part
from minidit.verify.topics.layers import normal

topic = Group("codes")
TOKENS = "z (N,d), codes (K,d)"
closest = part(lambda R, z, codes: np.asarray(law.nearest(z, codes)))  # the number of the nearest code of every vector


def _pairs(seed: int, *shape: int, K: int = 5) -> tuple[Array, Array]:
    rng = Philox(seed)
    return normal(rng, *shape), normal(rng, K, shape[-1]) * (0.5 + np.arange(K))[:, None]


@topic("Q.1", TOKENS, "(N,) ints", lambda: [Probe("unlike-lengths", _pairs(301, 9, 3), "codes of unlike length")])
def nearest_code(R: Reference, z: Array, codes: Array) -> Array:
    """argmin_k ‖z - e_k‖²."""
    return closest(R, z, codes)


# ------------------------------------------------------------------------------------------------ the loss and its gradients

weight_of_codes = part(lambda R, beta: 1.0)  # of mean (e - sg z)²
weight_of_commitment = part(lambda R, beta: beta)  # of mean (sg e - z)²
averaged = part(lambda R, numbers, width: numbers)  # over how many numbers the squares are averaged
# from g = 2 (z - e)/n and the two weights: what reaches z, and what reaches the codes
stopped = part(lambda R, g, of_codes, of_commitment: (of_commitment * g, -of_codes * g))


def _losses() -> list[Probe]:
    z, codes = _pairs(302, 2, 3, 4)
    return [Probe("a-quarter", (z, codes, 0.25), "the weights of both terms"), Probe("two", (z, codes, 2.0), "β above 1")]


@topic("Q.3", "z (B,N,d), codes (K,d), beta", "(loss, its gradient (B,N,d) of z, its gradient (K,d) of the codes)", _losses)
def codebook_loss(R: Reference, z: Array, codes: Array, beta: float) -> tuple[float, Array, Array]:
    """mean (e - sg z)² + β mean (sg e - z)² over all numbers, e the nearest codes."""
    width = z.shape[-1]
    i = closest(R, z.reshape(-1, width), codes)
    a, b, n = weight_of_codes(R, beta), weight_of_commitment(R, beta), averaged(R, z.size, width)
    apart = z - codes[i].reshape(z.shape)
    z_bar, e_bar = stopped(R, 2 * apart / n, a, b)
    return (a + b) * float((apart**2).sum()) / n, z_bar, _onto(codes, i, e_bar)


def _onto(codes: Array, i: Array, bars: Array) -> Array:
    """What the codes of these numbers get : (K, d)."""
    out = np.zeros_like(codes)
    np.add.at(out, i, bars.reshape(-1, codes.shape[1]))
    return out


passed_on = part(lambda R, y_bar: (y_bar, 0 * y_bar))  # the gradient of ẑ: what reaches z, and what reaches the code
given_for = part(lambda R, z, code: code)  # ẑ


def _through() -> list[Probe]:
    z, codes = _pairs(303, 6, 3)
    return [Probe("six", (z, codes, normal(Philox(304), 6, 3)), "whose the gradient is")]


@topic(
    "Q.2", f"{TOKENS}, y_bar (N,d): the gradient of ẑ", "(ẑ (N,d), gradient (N,d) of z, gradient (K,d) of the codes)", _through
)
def straight_through(R: Reference, z: Array, codes: Array, y_bar: Array) -> tuple[Array, Array, Array]:
    """ẑ = e + (z - sg z): the code in value, z in gradient."""
    i = closest(R, z, codes)
    z_bar, e_bar = passed_on(R, y_bar)
    return given_for(R, z, codes[i]), z_bar, _onto(codes, i, e_bar)


unit_vectors = part(lambda R, z: z / np.linalg.norm(z, axis=-1, keepdims=True))
unit_codes = part(lambda R, codes: codes / np.linalg.norm(codes, axis=-1, keepdims=True))
decoded_from = part(lambda R, unit, codes: unit)  # the table that the decoder's vectors are taken from


@topic("Q.4", TOKENS, "(numbers (N,), vectors (N,d) for the decoder)",
       lambda: [Probe("unlike-lengths", _pairs(305, 9, 3), "lengths of codes say nothing")])  # fmt: skip
def sphere_code(R: Reference, z: Array, codes: Array) -> tuple[Array, Array]:
    """argmin_k ‖z/‖z‖ - e_k/‖e_k‖‖², and that e_k/‖e_k‖."""
    unit = unit_codes(R, codes)
    i = closest(R, unit_vectors(R, z), unit)
    return i, decoded_from(R, unit, codes)[i]


surprise = part(lambda R, p: np.log(np.where(p > 0, p, 1.0)))  # ln p, 0 for a code that nobody uses
of_entropy = part(lambda R, H: float(np.exp(H)))


@topic("Q.5", "counts (K,): how often every code is used", "float, 1 to K",
       lambda: [Probe("one-unused", (np.array([3.0, 0.0, 5.0, 1.0]),), "0 ln 0 = 0"),
                Probe("even", (np.full(6, 4.0),))])  # fmt: skip
def code_perplexity(R: Reference, counts: Array) -> float:
    """exp(-Σ p ln p), p the shares."""
    p = np.asarray(counts, np.float64) / np.sum(counts)
    return of_entropy(R, -float((p * surprise(R, p)).sum()))


kept_share = part(lambda R, decay: decay)  # of what was counted before
divided_by = part(lambda R, running, counted: running)  # the counts that sums are divided by


def _means() -> list[Probe]:
    rng = Philox(309)
    before = np.array([2.0, 1.0, 3.0, 0.5]), normal(rng, 4, 2)
    return [Probe("one-unused", (*before, normal(rng, 5, 2), np.array([0, 2, 2, 1, 0]), 0.9), "a code without new vectors stays")]


@topic("Q.6", "n (K,), s (K,d): running counts and sums; z (N,d), index (N,): vectors and their codes; decay",
       "(n (K,), s (K,d), codes (K,d))", _means)  # fmt: skip
def running_codes(
    R: Reference, n: Array, s: Array, z: Array, index: Array, decay: float
) -> tuple[Array, Array, Array]:  # fmt: skip
    """n ← γ n + (1-γ) count, s ← γ s + (1-γ) Σ z, e = s/n."""
    count, share = np.bincount(index, minlength=len(n)).astype(np.float64), kept_share(R, decay)
    n, s = share * n + (1 - share) * count, share * s + (1 - share) * _onto(s, index, z)
    return n, s, s / divided_by(R, n, count)[:, None]


# ------------------------------------------------------------------------------------------------ without a codebook

LEVELS = (8, 5, 3)
in_levels = part(lambda R, z, levels: np.rint(law.bounded(z, levels)))  # whole numbers, -⌊L/2⌋ to ⌈L/2⌉ - 1
place_values = part(lambda R, levels: np.cumprod([1, *levels[:-1]]))  # of the digits in the number


@topic("Q.8", "z (N,D), levels: D ints", "(vectors (N,D) in [-1,1], numbers (N,))",
       lambda: [Probe("8-5-3", (np.linspace(-4, 4, 21).reshape(7, 3), LEVELS), "an even number of levels")])  # fmt: skip
def fsq_code(R: Reference, z: Array, levels: tuple[int, ...]) -> tuple[Array, Array]:
    """round(f(z)) per channel; i = Σ (q_d + ⌊L_d/2⌋) Π_{j<d} L_j."""
    q, half = in_levels(R, z, levels), np.array([L // 2 for L in levels])
    return q / half, ((q + half) * place_values(R, levels)).sum(axis=-1)


# ------------------------------------------------------------------------------------------------ pyramids

shrunk_by = part(lambda R, p, H: np.asarray(scales.area(p, H)))  # (p, H)
cubic_a = part(lambda R: -0.75)  # the slope of cubic convolution
stretched_by = part(lambda R, H, p: np.asarray(scales.bicubic(H, p, cubic_a(R))))  # (H, p)


@topic("Q.11", "p, H", "(p, H): row i weighs the H places of part i", lambda: [
    Probe(f"{p}-of-{H}", (p, H), "parts that overlap where p does not divide H") for p, H in ((3, 8), (2, 4))])  # fmt: skip
def area_rows(R: Reference, p: int, H: int) -> Array:
    """The mean of the places ⌊iH/p⌋ .. ⌈(i+1)H/p⌉-1."""
    return shrunk_by(R, p, H)


@topic("Q.12", "H, p", "(H, p): row i weighs the p places that i is made of", lambda: [
    Probe(f"{p}-to-{H}", (H, p), "the slope -3/4; edges are repeated; corners are not aligned")
    for p, H in ((3, 8), (1, 4), (4, 4))])  # fmt: skip
def bicubic_rows(R: Reference, H: int, p: int) -> Array:
    """Cubic convolution with a = -3/4."""
    return stretched_by(R, H, p)


phi_ticks = part(lambda R, n: np.linspace(1 / 3 / n, 1 - 1 / 3 / n, n) if n == 4 else np.linspace(1 / 2 / n, 1 - 1 / 2 / n, n))
phi_place = part(lambda R, k, K: k / (K - 1) if K > 1 else 0.5 + 1e-9)  # of scale k on [0, 1]; a single one is in the middle
phi_number = part(lambda R, k, K, n: int(np.abs(phi_ticks(R, n) - phi_place(R, k, K)).argmin()))


@topic("Q.13", "scales, shared: the number of scales, and of the φ that they share", "(scales,) ints", lambda: [
    Probe(f"{K}-share-{n}", (K, n), why)
    for K, n, why in ((10, 4, "the published sizes"), (5, 2, "2 shares"), (1, 4, "one scale"))
])  # fmt: skip
def shared_phi(R: Reference, scales: int, shared: int) -> Array:
    """The φ whose tick, spread over [0, 1], is nearest to k/(K-1)."""
    return np.array([phi_number(R, k, scales, shared) for k in range(scales)])


def _resized(f: Array, m: Array) -> Array:
    """f : (H, H, d) by one matrix (h, H) for both axes."""
    return np.einsum("ih,jw,hwd->ijd", m, m, f)


to_size = part(lambda R, f, p: f if len(f) == p else _resized(f, shrunk_by(R, p, len(f))))
to_full = part(lambda R, e, H: e if len(e) == H else _resized(e, stretched_by(R, H, len(e))))
still_left = part(lambda R, f, rest, h, drawn: rest - h)  # after a scale that drew h, made of `drawn` by φ
so_far = part(lambda R, before, h: before + h)  # f̂_k
own_share = part(lambda R, h: 0.5 * h)  # of φ(h), besides half of the convolution


@part
def blended(R: Reference, h: Array, blend: Array) -> Array:
    """½ h + ½ conv(h)."""
    conv = np.asarray(ops.conv2d(h.transpose(2, 0, 1)[None], blend, np.zeros(len(blend)), padding=1))[0].transpose(1, 2, 0)
    return own_share(R, h) + 0.5 * conv


def _pyramids() -> list[Probe]:
    rng, d = Philox(307), 2
    f, codes, blends = normal(rng, 4, 4, d), normal(rng, 6, d), normal(rng, 2, d, d, 3, 3, std=0.3)
    return [Probe("1-2-3-4", (f, codes, blends, (1, 2, 3, 4)), "each scale codes what is left; two φ for four scales")]


@topic("Q.9", "f (H,H,d), codes (K,d), blends (n,d,d,3,3), sizes: sides of the scales, the last H",
       "(numbers (Σp²,), maps (scales,H,H,d): f̂_1, f̂_2, …)", _pyramids, tol=10.0, because="sums over all scales")  # fmt: skip
def residual_codes(
    R: Reference, f: Array, codes: Array, blends: Array, sizes: tuple[int, ...]
) -> tuple[Array, Array]:  # fmt: skip
    """i = nearest(A r), h = φ(U e[i]), r ← r - h, f̂ ← f̂ + h, with φ(h) = ½ h + ½ conv(h)."""
    rest, whole, numbers, maps = f, np.zeros_like(f), [], []
    for k, p in enumerate(sizes):
        i = closest(R, to_size(R, rest, p).reshape(p * p, -1), codes)
        drawn = to_full(R, codes[i].reshape(p, p, -1), len(f))
        h = blended(R, drawn, blends[phi_number(R, k, len(sizes), len(blends))])
        rest, whole = still_left(R, f, rest, h, drawn), so_far(R, whole, h)
        numbers.append(i)
        maps.append(whole)
    return np.concatenate(numbers), np.stack(maps)


shown_of = part(lambda R, whole, h: whole)  # which map is shown before the next scale: f̂_k
of_scale = part(lambda R, seen, k: seen[k])  # what is shown before scale k + 2, of the maps after scales 1, 2, …


def _seen() -> list[Probe]:
    rng = Philox(308)
    return [Probe("1-2-4", (rng.permutation(21) % 6, normal(rng, 6, 2), (1, 2, 4)), "the sum of all coarser scales")]


@topic("Q.10", "index (Σp²,) numbers of all scales, codes (K,d), sizes", "(p_2²+p_3²+…, d): before every scale but the first",
       _seen, tol=10.0, because="sums over all scales")  # fmt: skip
def scale_inputs(R: Reference, index: Array, codes: Array, sizes: tuple[int, ...]) -> Array:
    """A_{k+1} f̂_k, f̂_k the sum of U e over the scales up to k."""
    H, starts, whole, seen = sizes[-1], scales.starts(sizes), np.zeros((sizes[-1], sizes[-1], codes.shape[1])), []
    for k, p in enumerate(sizes):
        h = to_full(R, codes[index[starts[k] : starts[k + 1]]].reshape(p, p, -1), H)
        whole = so_far(R, whole, h)
        seen.append(shown_of(R, whole, h))
    return np.concatenate([to_size(R, of_scale(R, seen, k), p).reshape(p * p, -1) for k, p in enumerate(sizes[1:])])
