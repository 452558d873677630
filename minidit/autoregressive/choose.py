"""From logits to the next token.

    -ln p(x) = Σ_i CE(logits_i, x_i)                           the likelihood of a sequence                             (Q.18)
    l = l_u + w (l_c - l_u)                                    guidance: p ∝ p_c^w p_u^(1-w)                            (Q.19)
    w_g = 1 + (w-1) g/(G-1)                                    rising over the groups g = 0 .. G-1                      (Q.20)
    l/τ;  the k largest;  the smallest set of mass ≥ p         temperature, top-k, top-p                                (Q.21)
    x = #{j : F_j ≤ u},  F the cumulative sums of p            the choice of a uniform u in [0, 1)                      (Q.22)
"""

from __future__ import annotations

from minidit import ops
from minidit.autograd import Value
from minidit.backend import Array, xp_of


def nll(logits: Value, index: Array) -> Value:
    """logits : (B, N, K), index : (B, N) ints  ->  (B,) nats per token, the mean over a sequence."""
    B, N, K = logits.shape
    return ops.cross_entropy(logits.reshape(B * N, K), labels=index.reshape(-1)).reshape(B, N).mean(axis=1)  # (Q.18)


def guided(logits: Array, logits_u: Array, w: float) -> Array:
    """Logits with and without the condition; w = 1 is plainly conditional, as everywhere (G.1)."""
    return logits_u + w * (logits - logits_u)  # (Q.19)


def rising(w: float, group: int, groups: int) -> float:
    """The scale of a group, from 1 at the first to w at the last; w itself where there is only one."""
    return w if groups == 1 else 1 + (w - 1) * group / (groups - 1)  # (Q.20)


def check_choice(temperature: float, top_k: int, top_p: float) -> None:
    """Raises ValueError for a choice that has no meaning."""
    if not temperature > 0:
        greedy = "" if temperature else " (always the most probable code: top_k 1)"
        raise ValueError(f"temperature {temperature:g} must be above 0{greedy}")
    if top_k < 0:
        raise ValueError(f"top_k {top_k} must be at least 0 (0: all codes)")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p {top_p:g} must be above 0 and at most 1 (1: all codes)")


def kept(logits: Array, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Array:
    """logits : (..., K)  ->  the same over the temperature, -inf where a token is left out. top_k = 0, top_p = 1: none is.

    Of equal logits at the edge of top_k all stay; top_p always keeps the most probable token.
    """
    check_choice(temperature, top_k, top_p)
    xp = xp_of(logits)
    if temperature != 1:
        logits = logits / temperature
    few = 0 < top_k < logits.shape[-1]
    if few or top_p < 1:
        falling = xp.sort(logits, axis=-1)[..., ::-1]
    if few:
        edge = falling[..., top_k - 1, None]
        falling, logits = (xp.where(l < edge, -xp.inf, l) for l in (falling, logits))
    if top_p < 1:
        p = ops.softmax(falling)
        before = xp.cumsum(p, axis=-1) - p  # the mass of all more probable tokens
        edge = xp.where(before < top_p, falling, xp.inf).min(axis=-1, keepdims=True)
        logits = xp.where(logits < edge, -xp.inf, logits)
    return logits  # (Q.21)


def chosen(logits: Array, u: Array) -> Array:
    """logits : (..., K), u : (...) uniform in [0, 1)  ->  (...) int64. A token left out (-inf) is never chosen."""
    xp = xp_of(logits)
    p = xp.exp(logits - logits.max(axis=-1, keepdims=True))
    F = p.astype(xp.float64)
    xp.cumsum(F, axis=-1, out=F)  # times Σ p: u is as well
    return (u[..., None] * F[..., -1:] < F).argmax(axis=-1).astype("int64")  # (Q.22)  the first F_j above u
