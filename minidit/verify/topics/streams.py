"""Topics: several streams: rotary places, QK-norm, joint attention, blocks of MM-DiT and FLUX, conditions, clips.

Blocks are put together from small parts, because mistakes change an order, a half or a place in the middle of them (M151 to
M166); the tests hold them to the package's networks.
"""

from __future__ import annotations

import numpy as np

from minidit.backend import Array
from minidit.random import Philox
from minidit.verify.core.reference import Group, Probe, Reference, part
from minidit.verify.topics.embeddings import position_embedding, timestep_embedding
from minidit.verify.topics.layers import Weights, dense, gelu, inside, layer_norm, normal, silu, softmax

topic = Group("streams")

# ------------------------------------------------------------------------------------------------ rotary places

pair_of = part(lambda R, x: (x[..., ::2], x[..., 1::2]))  # the two numbers that are turned together
paired = part(lambda R, even, odd: np.stack((even, odd), axis=-1).reshape(*even.shape[:-1], -1))
turn_sign = part(lambda R, sin: sin)


def _turns() -> list[Probe]:
    rng = Philox(341)
    angle = normal(rng, 3, 2)
    return [Probe("two-heads", (normal(rng, 3, 2, 4), np.cos(angle), np.sin(angle)), "neighbours are turned, not halves")]


@topic("A.30", "x (N,h,K), cos, sin (N,K/2)", "(N,h,K)", _turns)
def rope(R: Reference, x: Array, cos: Array, sin: Array) -> Array:
    """(x_2j cos - x_2j+1 sin, x_2j sin + x_2j+1 cos)."""
    (even, odd), c, s = pair_of(R, x), cos[:, None], turn_sign(R, sin[:, None])
    return paired(R, even * c - odd * s, even * s + odd * c)


axis_exponents = part(lambda R, d, whole: np.arange(0, d, 2) / d)  # of θ, for an axis with d of all numbers of a head
axis_order = part(lambda R, angles: angles)  # one array per axis of the place


@topic("N.12", "ids (N,axes) ints: the place of every token; widths: numbers of a head for each axis; theta",
       "(cos, sin) (N, Σ widths/2)",
       lambda: [Probe("three-axes", (np.array([[0, 0, 0], [0, 1, 2], [1, 3, 1]]), (2, 4, 6), 1e4), "every axis")])  # fmt: skip
def rope_angles(R: Reference, ids: Array, widths: tuple[int, ...], theta: float) -> tuple[Array, Array]:
    """id θ^(-2j/d) per axis, one axis after another."""
    whole = sum(widths)
    angles = axis_order(R, [i[:, None] * theta ** -axis_exponents(R, d, whole) for i, d in zip(ids.T, widths, strict=True)])
    together = np.concatenate(angles, axis=1)
    return np.cos(together), np.sin(together)


word_places = part(lambda R, words: np.zeros((words, 3), np.int64))
picture_places = part(lambda R, r, c: np.stack((0 * r, r, c), axis=1))


@topic("T.27", "words, h, w", "(words + h·w, 3) ints: the places of words, then of patches",
       lambda: [Probe("2-words", (2, 2, 3), "words stand at (0, 0, 0); rows before columns")])  # fmt: skip
def stream_places(R: Reference, words: int, h: int, w: int) -> Array:
    """(0, 0, 0) for words, (0, row, column) for patches."""
    return np.concatenate((word_places(R, words), picture_places(R, *np.divmod(np.arange(h * w), w))))


# ------------------------------------------------------------------------------------------------ queries and keys

normed_over = part(lambda R, heads: 1)  # how many heads share one mean of squares
stream_eps = part(lambda R: 1e-6)  # of QK-norm
gains = part(lambda R, w_q, w_k: (w_q, w_k))


@part
def normed_heads(R: Reference, x: Array, weight: Array) -> Array:
    """x/√(mean x² + ε) w over the K numbers of a head."""
    N, heads, K = x.shape
    together = x.reshape(N, -1, normed_over(R, heads) * K)
    r = np.sqrt((together**2).mean(axis=-1, keepdims=True) + stream_eps(R))
    return (together / r).reshape(x.shape) * weight


@part
def prepared(R: Reference, x: Array, weight: Array, cos: Array, sin: Array) -> Array:
    """Normalised, then turned."""
    return rope(R, normed_heads(R, x, weight), cos, sin)


def _queries() -> list[Probe]:
    rng = Philox(342)
    w, angle = 1 + normal(rng, 2, 4, std=0.4), normal(rng, 3, 2)
    q, k = normal(rng, 3, 2, 4), normal(rng, 3, 2, 4)
    turn = np.cos(angle), np.sin(angle)
    return [Probe("unit", (q, 3 * k, *w, *turn), "before the turn, head by head"),
            Probe("small", (2e-3 * q, k, *w, *turn), "ε beside a small mean of squares")]  # fmt: skip


@topic(
    "A.29",
    "q, k (N,h,K), w_q, w_k (K,), cos, sin (N,K/2)",
    "(q, k), each (N,h,K)",
    _queries,
    tol=3.0,
    because="a norm and a turn",
)
def queries_and_keys(
    R: Reference, q: Array, k: Array, w_q: Array, w_k: Array, cos: Array, sin: Array
) -> tuple[Array, Array]:  # fmt: skip
    """RoPE(RMSNorm(q)), RoPE(RMSNorm(k)), each with gains of its own."""
    w_q, w_k = gains(R, w_q, w_k)
    return prepared(R, q, w_q, cos, sin), prepared(R, k, w_k, cos, sin)


# ------------------------------------------------------------------------------------------------ joint attention

together = part(lambda R, context, x: np.concatenate((context, x)))  # the sequence of one attention
apart = part(lambda R, y, words: (y[:words], y[words:]))  # what each stream gets
stream_scale = part(lambda R, K: K**-0.5)
keys_of = part(lambda R, all, own: all)  # whose keys and values a stream sees


def _joint() -> list[Probe]:
    rng = Philox(343)
    context, x = [normal(rng, 2, 2, 4) for _ in range(3)], [normal(rng, 3, 2, 4) for _ in range(3)]
    places = np.array([[0.0], [0.4], [1.1], [2.0], [0.7]]) * np.array([1.0, 0.3])
    return [Probe("2-and-3", (*context, *x, np.cos(places), np.sin(places)), "two streams of unlike length, words first")]


@topic("N.14", "q_c, k_c, v_c (M,h,K) of the context, q, k, v (N,h,K) of the picture; cos, sin (M+N,K/2), the words' first",
       "(context (M,h,K), picture (N,h,K))", _joint, tol=5.0, because="a softmax between two products")  # fmt: skip
def joint_attention(
    R: Reference, q_c: Array, k_c: Array, v_c: Array, q: Array, k: Array, v: Array, cos: Array, sin: Array
) -> tuple[Array, Array]:  # fmt: skip
    """(y_c; y) = softmax(RoPE(q_c; q) RoPE(k_c; k)ᵀ/√K) (v_c; v)."""
    words, K = len(q_c), q.shape[-1]
    queries, keys = (rope(R, together(R, a, b), cos, sin) for a, b in ((q_c, q), (k_c, k)))
    logits = np.einsum("nhd,mhd->hnm", queries, keys) * stream_scale(R, K)
    own = np.arange(len(queries)) < words
    seen = keys_of(R, np.ones(logits.shape[1:], bool), own[:, None] == own)
    y = np.einsum("hnm,mhd->nhd", softmax(R, np.where(seen, logits, -np.inf)), together(R, v_c, v))
    return apart(R, y, words)


# ------------------------------------------------------------------------------------------------ blocks

stream_order = part(lambda R, parts: parts)  # six parts as β₁, γ₁, α₁, β₂, γ₂, α₂
single_order = part(lambda R, parts: parts)  # three parts as β, γ, α
final_order = part(lambda R, parts: parts)  # two parts as β, γ
after_attention = part(lambda R, h, gate, y: h + gate[:, None] * y)  # what goes on to the MLP


def entered(R: Reference, h: Array, shift: Array, scale: Array) -> Array:
    return layer_norm(R, h) * (1 + scale[:, None]) + shift[:, None]


def stream_weights(rng: Philox, D: int, parts: int) -> dict[str, Array]:
    """Modulation, projection and MLP of one stream."""
    sizes = {"adaLN_modulation.1": (parts * D, D), "attn.proj": (D, D), "mlp.fc1": (2 * D, D), "mlp.fc2": (D, 2 * D)}
    weights = {f"{name}.weight": dense(rng, *size) for name, size in sizes.items()}
    return weights | {f"{name}.bias": normal(rng, size[0], std=0.3) for name, size in sizes.items()}


def by(weights: Weights, name: str, x: Array) -> Array:
    """W x + b."""
    return np.asarray(x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"])


def _streams() -> list[Probe]:
    rng, D = Philox(344), 4
    weights = stream_weights(rng, D, 6)
    return [Probe("two-samples", (weights, normal(rng, 2, 3, D), normal(rng, 2, 3, D), normal(rng, 2, D)), "which part is which")]


NAMES = "adaLN_modulation.1 (6D,D), attn.proj (D,D), mlp.fc1, mlp.fc2"


@topic("T.23", f"weights {{{NAMES}: .weight, .bias}}, h (B,N,D), y (B,N,D) from attention, c (B,D)",
       "(input of attention, h at the end)", _streams, tol=5.0, because="a norm and four products")  # fmt: skip
def stream_block(R: Reference, weights: Weights, h: Array, y: Array, c: Array) -> tuple[Array, Array]:
    """LN(h)(1+γ₁)+β₁;  h + α₁(W_o y + b_o), then h + α₂ MLP(LN(h)(1+γ₂)+β₂), parts (β₁, γ₁, α₁, β₂, γ₂, α₂)."""
    parts = stream_order(R, np.split(by(weights, "adaLN_modulation.1", silu(R, c)), 6, axis=1))
    shift1, scale1, gate1, shift2, scale2, gate2 = parts
    a = entered(R, h, shift1, scale1)
    h = after_attention(R, h, gate1, by(weights, "attn.proj", y))
    inner = gelu(R, by(weights, "mlp.fc1", entered(R, h, shift2, scale2)))
    return a, h + gate2[:, None] * by(weights, "mlp.fc2", inner)


single_input = part(lambda R, y, inner: np.concatenate((y, inner), axis=-1))  # of linear2
single_mlp_sees = part(lambda R, a, h: a)  # the tokens that enter the MLP
single_gated = part(lambda R, h, gate, out: h + gate[:, None] * out)


def _singles() -> list[Probe]:
    rng, D, inner = Philox(345), 4, 6
    weights = {"modulation.weight": dense(rng, 3 * D, D), "modulation.bias": normal(rng, 3 * D, std=0.3),
               "linear1.weight": dense(rng, inner, D), "linear1.bias": normal(rng, inner, std=0.3),
               "linear2.weight": dense(rng, D, D + inner), "linear2.bias": normal(rng, D, std=0.3)}  # fmt: skip
    return [
        Probe("two-samples", (weights, normal(rng, 2, 3, D), normal(rng, 2, 3, D), normal(rng, 2, D)), "attention stands first")
    ]


@topic("T.27", "weights {modulation (3D,D), linear1 (I,D): rows of the MLP only, linear2 (D,D+I): .weight, .bias}, h (B,N,D), "
       "y (B,N,D) from attention, c (B,D)", "(input of attention, h at the end)", _singles,
       tol=5.0, because="a norm and three products")  # fmt: skip
def single_block(R: Reference, weights: Weights, h: Array, y: Array, c: Array) -> tuple[Array, Array]:
    """a = LN(h)(1+γ)+β;  h + α W₂ (y; gelu(W₁ a + b₁)) + α b₂, parts (β, γ, α)."""
    shift, scale, gate = single_order(R, np.split(by(weights, "modulation", silu(R, c)), 3, axis=1))
    a = entered(R, h, shift, scale)
    inner = gelu(R, by(weights, "linear1", single_mlp_sees(R, a, h)))
    return a, single_gated(R, h, gate, by(weights, "linear2", single_input(R, y, inner)))


def _finals() -> list[Probe]:
    rng, D = Philox(346), 4
    weights = {"adaLN_modulation.1.weight": dense(rng, 2 * D, D), "adaLN_modulation.1.bias": normal(rng, 2 * D, std=0.3),
               "linear.weight": dense(rng, 6, D), "linear.bias": normal(rng, 6, std=0.3)}  # fmt: skip
    return [Probe("two-samples", (weights, normal(rng, 2, 3, D), normal(rng, 2, D)), "which half is the shift")]


@topic("T.6", "weights {adaLN_modulation.1 (2D,D), linear (O,D): .weight, .bias}, x (B,N,D), c (B,D)", "(B,N,O)", _finals,
       tol=3.0, because="a norm and two products")  # fmt: skip
def stream_final(R: Reference, weights: Weights, x: Array, c: Array) -> Array:
    """W (LN(x)(1+γ)+β) + b, (β, γ) = W_c silu(c) + b_c: the shift comes first."""
    shift, scale = final_order(R, np.split(by(weights, "adaLN_modulation.1", silu(R, c)), 2, axis=1))
    return by(weights, "linear", entered(R, x, shift, scale))


# ------------------------------------------------------------------------------------------------ conditions

guidance_unit = part(lambda R, w: 1000.0 * w)
pooled_part = part(lambda R, embedded: embedded)  # what the text's vector adds
guidance_part = part(lambda R, embedded: embedded)  # what the guidance scale adds
hidden_activation = part(lambda R, x: silu(R, x))


def _two_layers(rng: Philox, name: str, n: int, D: int) -> dict[str, Array]:
    sizes = {f"{name}.mlp.0": (D, n), f"{name}.mlp.2": (D, D)}
    weights = {f"{k}.weight": dense(rng, *size) for k, size in sizes.items()}
    return weights | {f"{k}.bias": normal(rng, D, std=0.3) for k in sizes}


def _conditions() -> list[Probe]:
    rng, D, P = Philox(347), 4, 5
    weights = (
        _two_layers(rng, "t_embedder", 16, D)
        | _two_layers(rng, "y_embedder", P, D)
        | _two_layers(rng, "guidance_embedder", 16, D)
    )
    return [Probe("two-samples", (weights, np.array([37.0, 903.0]), normal(rng, 2, P), np.array([1.0, 3.5])), "the unit of w")]


@topic("T.28", "weights {t_embedder, y_embedder, guidance_embedder: .mlp.0, .mlp.2: .weight, .bias}, t (B,) in 0..1000, "
       "pooled (B,P), w (B,)", "(B,D)", _conditions, tol=20.0, because="an angle of 3500 in float32 is off by 1e-4")  # fmt: skip
def stream_condition(R: Reference, weights: Weights, t: Array, pooled: Array, w: Array) -> Array:
    """MLP(emb(t)) + MLP'(pooled) + MLP''(emb(1000 w))."""

    def embedded(name: str, x: Array) -> Array:
        own = inside(weights, f"{name}.")
        return by(own, "mlp.2", hidden_activation(R, by(own, "mlp.0", x)))

    n = weights["t_embedder.mlp.0.weight"].shape[1]
    c = embedded("t_embedder", np.asarray(timestep_embedding(R, t, n))) + pooled_part(R, embedded("y_embedder", pooled))
    return c + guidance_part(R, embedded("guidance_embedder", np.asarray(timestep_embedding(R, guidance_unit(R, w), n))))


first_row = part(lambda R, side, n: (side - n) // 2)  # of the part of a table that is used


@topic("N.7", "D, side: the table's side; h, w: the grid", "(h*w, D)",
       lambda: [Probe("3-by-4-of-6", (8, 6, 3, 4), "the middle of the table, rounded down")])  # fmt: skip
def cropped_places(R: Reference, D: int, side: int, h: int, w: int) -> Array:
    """The middle h × w places of a table of side × side."""
    table = np.asarray(position_embedding(R, D, side, side)).reshape(side, side, D)
    top, left = first_row(R, side, h), first_row(R, side, w)
    return table[top : top + h, left : left + w].reshape(h * w, D)


patch_numbers = part(lambda R: (0, 2, 4, 1, 3, 5))  # axes of (C, h, p, w, p) and a batch, as tokens: see `packed_patches`


@topic("T.1", "x (B,C,H,W), p", "(B, (H/p)(W/p), C·p·p)",
       lambda: [Probe("2-of-4x6", (np.arange(96.0).reshape(2, 2, 4, 6), 2), "channels are the slowest")])  # fmt: skip
def packed_patches(R: Reference, x: Array, p: int) -> Array:
    """Patches flattened in the order (C, row, column)."""
    B, C, H, W = x.shape
    grid = x.reshape(B, C, H // p, p, W // p, p).transpose(patch_numbers(R))
    return grid.reshape(B, (H // p) * (W // p), C * p * p)


# ------------------------------------------------------------------------------------------------ clips

frames_of = part(lambda R, x, T: x.reshape(x.shape[0] * T, -1, x.shape[-1]))  # (B·T, S, D)


@part
def sites_of(R: Reference, x: Array, T: int) -> Array:
    """(B·S, T, D)."""
    B, N, D = x.shape
    return x.reshape(B, T, N // T, D).transpose(0, 2, 1, 3).reshape(-1, T, D)


@topic("T.34", "x (B,N,D): tokens frame by frame; T frames", "(frames (B·T,S,D), sites (B·S,T,D)): the groups of attention",
       lambda: [Probe("2-clips", (np.arange(48.0).reshape(2, 12, 2), 3), "no token leaves its clip")])  # fmt: skip
def factorised_groups(R: Reference, x: Array, T: int) -> tuple[Array, Array]:
    """All sites of one frame; all frames of one site."""
    return frames_of(R, x, T), sites_of(R, x, T)


repeated = part(lambda R, c, n: np.repeat(c, n, axis=0))  # every row n times in a row


@topic("T.34", "c (B,D): one condition per clip; n groups of a clip", "(B·n, D): one per group, clips one after another",
       lambda: [Probe("2-clips", (np.arange(6.0).reshape(2, 3), 4), "a clip's groups have its own condition")])  # fmt: skip
def group_conditions(R: Reference, c: Array, n: int) -> Array:
    """Every row n times, one after another."""
    return repeated(R, c, n)


origin_of_time = part(lambda R, p: p - p[:1])  # the first frame has the place zero
frame_numbers = part(lambda R, F: np.arange(F))
time_halves = part(lambda R, angle: np.concatenate((np.sin(angle), np.cos(angle)), axis=1))


@topic(
    "T.32", "F frames, D", "(F, D)", lambda: [Probe("3-frames", (3, 8), "a clip of one frame is a picture: its place is zero")]
)
def frame_places(R: Reference, F: int, D: int) -> Array:
    """p(f) - p(0), p(f) = [sin f ω | cos f ω], ω_i = 10000^(-i/(D/2))."""
    angle = frame_numbers(R, F)[:, None] * 10000.0 ** (-np.arange(D // 2) / (D // 2))
    return origin_of_time(R, time_halves(R, angle))


@topic("T.31", "x (B,C,T,H,W), t, p", "(B, (T/t)(H/p)(W/p), C·t·p·p)",
       lambda: [Probe("2-2-of-4x4x6", (np.arange(192.0).reshape(1, 2, 4, 4, 6), 2, 2), "frames are the slowest")])  # fmt: skip
def clip_patches(R: Reference, x: Array, t: int, p: int) -> Array:
    """Tokens frame by frame and row by row, each flattened in the order (C, frame, row, column)."""
    B, C, T, H, W = x.shape
    grid = clip_order(R, x.reshape(B, C, T // t, t, H // p, p, W // p, p))
    return grid.reshape(B, -1, C * t * p * p)


clip_order = part(lambda R, grid: grid.transpose(0, 2, 4, 6, 1, 3, 5, 7))  # of (B, C, f, t, h, p, w, p)
