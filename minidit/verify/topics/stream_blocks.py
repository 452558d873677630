"""Topics: the blocks of MM-DiT and FLUX, what they are told, and how they end; places and patches of their pictures.

A block gets what its attention answered: how streams meet is asked in topics/streams.py.
"""

from __future__ import annotations

import numpy as np

from minidit.backend import Array
from minidit.random import Philox
from minidit.verify.core.reference import Probe, Reference, part
from minidit.verify.topics.embeddings import position_embedding, timestep_embedding
from minidit.verify.topics.layers import Weights, dense, entered, gelu, inside, normal, silu
from minidit.verify.topics.streams import topic

# ------------------------------------------------------------------------------------------------ blocks

stream_order = part(lambda R, parts: parts)  # six parts as β₁, γ₁, α₁, β₂, γ₂, α₂
single_order = part(lambda R, parts: parts)  # three parts as β, γ, α
final_order = part(lambda R, parts: parts)  # two parts as β, γ
after_attention = part(lambda R, h, gate, y: h + gate[:, None] * y)  # what goes on to the MLP


def stream_weights(rng: Philox, D: int, parts: int) -> dict[str, Array]:
    """Modulation, projection and MLP of one stream."""
    sizes = {"adaLN_modulation.1": (parts * D, D), "attn.proj": (D, D), "mlp.fc1": (2 * D, D), "mlp.fc2": (D, 2 * D)}
    weights = {f"{name}.weight": dense(rng, *size) for name, size in sizes.items()}
    return weights | {f"{name}.bias": normal(rng, size[0], std=0.3) for name, size in sizes.items()}


def by(weights: Weights, name: str, x: Array) -> Array:
    """W x + b."""
    return np.asarray(x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"])


def pieces(R: Reference, weights: Weights, c: Array, n: int, name: str = "adaLN_modulation.1") -> list[Array]:
    """W silu(c) + b in n parts."""
    return list(np.split(by(weights, name, silu(R, c)), n, axis=1))


def parts_of(R: Reference, weights: Weights, c: Array, n: int) -> list[Array]:
    """β₁, γ₁, α₁, β₂, γ₂, α₂ and, of a block with two attentions, three more."""
    parts = pieces(R, weights, c, n)
    return [*stream_order(R, parts[:6]), *parts[6:]]


def after_mlp(R: Reference, weights: Weights, h: Array, seen: Array, of_mlp: list[Array]) -> Array:
    """h + α₂ MLP(LN(seen)(1+γ₂)+β₂)."""
    shift, scale, gate = of_mlp
    return h + gate[:, None] * by(weights, "mlp.fc2", gelu(R, by(weights, "mlp.fc1", entered(R, seen, shift, scale))))


def _streams() -> list[Probe]:
    rng, D = Philox(344), 4
    weights = stream_weights(rng, D, 6)
    return [Probe("two-samples", (weights, normal(rng, 2, 3, D), normal(rng, 2, 3, D), normal(rng, 2, D)), "which part is which")]


NAMES = "adaLN_modulation.1 (6D,D), attn.proj (D,D), mlp.fc1, mlp.fc2"


@topic("T.23", f"weights {{{NAMES}: .weight, .bias}}, h (B,N,D), y (B,N,D) from attention, c (B,D)",
       "(input of attention, h at the end)", _streams, tol=5.0, because="a norm and four products")  # fmt: skip
def stream_block(R: Reference, weights: Weights, h: Array, y: Array, c: Array) -> tuple[Array, Array]:
    """LN(h)(1+γ₁)+β₁;  h + α₁(W_o y + b_o), then h + α₂ MLP(LN(h)(1+γ₂)+β₂), parts (β₁, γ₁, α₁, β₂, γ₂, α₂)."""
    shift1, scale1, gate1, *of_mlp = parts_of(R, weights, c, 6)
    after = after_attention(R, h, gate1, by(weights, "attn.proj", y))
    return entered(R, h, shift1, scale1), after_mlp(R, weights, after, after, of_mlp)


dual_sees = part(lambda R, h, after: h)  # the tokens that enter the second attention
dual_order = part(lambda R, parts: parts)  # nine parts: the six of any stream, then β₃, γ₃, α₃
dual_added = part(lambda R, h, gate, y: h + gate[:, None] * y)
dual_mlp_sees = part(lambda R, after, both: both)  # after one attention, or after both


def _duals() -> list[Probe]:
    rng, D = Philox(348), 4
    weights = stream_weights(rng, D, 9) | {"attn2.proj.weight": dense(rng, D, D), "attn2.proj.bias": normal(rng, D, std=0.3)}
    tokens = [normal(rng, 2, 3, D) for _ in range(3)]
    return [Probe("two-samples", (weights, *tokens, normal(rng, 2, D)), "what the second attention sees, and where it is added")]


@topic("T.24", f"weights {{{NAMES.replace('6D', '9D')}, attn2.proj: .weight, .bias}}, h (B,N,D), y, y2 (B,N,D) from the joint "
       "attention and from that of the picture alone, c (B,D)", "(input of the joint attention, of the other, h at the end)",
       _duals, tol=5.0, because="a norm and five products")  # fmt: skip
def dual_block(R: Reference, weights: Weights, h: Array, y: Array, y2: Array, c: Array) -> tuple[Array, Array, Array]:
    """LN(h)(1+γ₁)+β₁;  LN(h)(1+γ₃)+β₃;  h + α₁(W_o y + b_o) + α₃(W_o' y2 + b_o'), then the MLP; parts (β₁ … α₂, β₃, γ₃, α₃)."""
    parts = dual_order(R, parts_of(R, weights, c, 9))
    (shift1, scale1, gate1, *of_mlp), (shift3, scale3, gate3) = parts[:6], parts[6:]
    after = after_attention(R, h, gate1, by(weights, "attn.proj", y))
    both = dual_added(R, after, gate3, by(weights, "attn2.proj", y2))
    second = entered(R, dual_sees(R, h, after), shift3, scale3)
    return entered(R, h, shift1, scale1), second, after_mlp(R, weights, both, dual_mlp_sees(R, after, both), of_mlp)


last_context_order = part(lambda R, parts: parts)  # two parts as β, γ


def _last_words() -> list[Probe]:
    (probe,) = _finals()
    weights, h, c = probe.args
    mine = {name: w for name, w in weights.items() if name.startswith("adaLN")}
    return [Probe("two-samples", (mine, h, c), "two parts and no gate; which half is the shift")]


@topic("T.25", "weights {adaLN_modulation.1 (2D,D): .weight, .bias}, h (B,M,D): the words before the last block, c (B,D)",
       "(B,M,D): the input of its attention; nothing of the words goes on", _last_words,
       tol=3.0, because="a norm and a product")  # fmt: skip
def last_context(R: Reference, weights: Weights, h: Array, c: Array) -> Array:
    """LN(h)(1+γ)+β, (β, γ) = W_c silu(c) + b_c."""
    return entered(R, h, *last_context_order(R, pieces(R, weights, c, 2)))


@topic("T.27", "h (B,M+N,D): words and patches after the last block of one stream; words: M", "(B,N,D): what the last layer gets",
       lambda: [Probe("2-and-3", (np.arange(20.0).reshape(2, 5, 2), 2), "the words stood first"),
                Probe("no-words", (np.arange(12.0).reshape(2, 3, 2), 0), "nothing to leave out")])  # fmt: skip
def patches_alone(R: Reference, h: Array, words: int) -> Array:
    """The last N of M + N tokens."""
    return h[:, words:]


single_input = part(lambda R, y, inner: np.concatenate((y, inner), axis=-1))  # of linear2
single_mlp_sees = part(lambda R, a, h: a)  # the tokens that enter the MLP
single_gated = part(lambda R, h, gate, out: h + gate[:, None] * out)


def _singles() -> list[Probe]:
    rng, D, inner = Philox(345), 4, 6
    weights = {"modulation.weight": dense(rng, 3 * D, D), "modulation.bias": normal(rng, 3 * D, std=0.3),
               "linear1.weight": dense(rng, inner, D), "linear1.bias": normal(rng, inner, std=0.3),
               "linear2.weight": dense(rng, D, D + inner), "linear2.bias": normal(rng, D, std=0.3)}  # fmt: skip
    h, y, c = normal(rng, 2, 3, D), normal(rng, 2, 3, D), normal(rng, 2, D)
    return [Probe("two-samples", (weights, h, y, c), "attention stands first"),
            Probe("large", (weights, 1e5 * h, y, c), "numbers beyond float16's")]  # fmt: skip


@topic("T.27", "weights {modulation (3D,D), linear1 (I,D): rows of the MLP only, linear2 (D,D+I): .weight, .bias}, h (B,N,D), "
       "y (B,N,D) from attention, c (B,D)", "(input of attention, h at the end)", _singles,
       tol=5.0, because="a norm and three products")  # fmt: skip
def single_block(R: Reference, weights: Weights, h: Array, y: Array, c: Array) -> tuple[Array, Array]:
    """a = LN(h)(1+γ)+β;  h + α W₂ (y; gelu(W₁ a + b₁)) + α b₂, parts (β, γ, α)."""
    shift, scale, gate = single_order(R, pieces(R, weights, c, 3, "modulation"))
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
    return by(weights, "linear", entered(R, x, *final_order(R, pieces(R, weights, c, 2))))


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


@topic("T.28", "weights {t_embedder, y_embedder, guidance_embedder: .mlp.0 (D, width), .mlp.2 (D,D): .weight, .bias}, "
       "t (B,) in 0..1000, pooled (B,P), w (B,); emb has the width of its mlp.0", "(B,D)", _conditions, tol=20.0,
       because="an angle of 3500 in float32 is off by 1e-4")  # fmt: skip
def stream_condition(R: Reference, weights: Weights, t: Array, pooled: Array, w: Array) -> Array:
    """MLP(emb(t)) + MLP'(pooled) + MLP''(emb(1000 w))."""

    def embedded(name: str, x: Array) -> Array:
        own = inside(weights, f"{name}.")
        return by(own, "mlp.2", hidden_activation(R, by(own, "mlp.0", x)))

    n = weights["t_embedder.mlp.0.weight"].shape[1]
    c = embedded("t_embedder", np.asarray(timestep_embedding(R, t, n))) + pooled_part(R, embedded("y_embedder", pooled))
    return c + guidance_part(R, embedded("guidance_embedder", np.asarray(timestep_embedding(R, guidance_unit(R, w), n))))


text_of_the_last = part(lambda R, text: text)  # what the last layer is told of it


@topic("T.21", "time, text (B,D): their embeddings", "(c of the blocks, c of the last layer), each (B,D)",
       lambda: [Probe("one", (np.array([[1.0, 2.0]]), np.array([[0.5, -4.0]])), "the last layer hears of the text")])  # fmt: skip
def conditions_with_text(R: Reference, time: Array, text: Array) -> tuple[Array, Array]:
    """time + text, for the blocks and for the last layer."""
    return time + text, time + text_of_the_last(R, text)


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
