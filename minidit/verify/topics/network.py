"""Topics: the whole network on random weights, and its gradients.

A freshly initialised adaLN-Zero network returns 0, which hides every mistake inside; so all weights are random. A target may
return (answer, taps) with taps a mapping from names of layers (blocks.0.attn, …) to their outputs: then the first layer that
differs is named.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minidit import ops
from minidit.autograd import Tensor
from minidit.backend import Array
from minidit.nn import sincos_2d
from minidit.random import Philox
from minidit.verify.core.reference import Group, Part, Probe, Reference, part
from minidit.verify.topics import embeddings
from minidit.verify.topics.block import at_the_peak, block, block_weights, final_layer, final_weights
from minidit.verify.topics.layers import Numbers, Weights, inside, normal

topic, of_squares = Group("network"), Group("squares")


def network_weights(rng: Philox, D: int, L: int, p: int, C: int, out: int, K: int, inner: int) -> dict[str, Array]:
    """Random weights of a whole DiT by the official names; the fixed position table is not among them."""
    w = {"x_embedder.proj.weight": normal(rng, D, C, p, p, std=(C * p * p) ** -0.5)}
    w["x_embedder.proj.bias"] = normal(rng, D, std=0.3)
    w |= {f"t_embedder.{n}": a for n, a in embeddings.time_weights(rng, D).items()}
    w["y_embedder.embedding_table.weight"] = normal(rng, K + 1, D)
    for i in range(L):
        w |= {f"blocks.{i}.{n}": a for n, a in block_weights(rng, D, inner).items()}
    return w | {f"final_layer.{n}": a for n, a in final_weights(rng, D, p * p * out).items()}


def silenced(w: dict[str, Array], D: int, chunk: int) -> None:
    """Zero gates: chunk 2 takes the attention out of every block, 5 the MLP."""
    for name, a in w.items():
        if name.startswith("blocks.") and "adaLN" in name:
            a[chunk * D : (chunk + 1) * D] = 0


def _small_tokens(w: dict[str, Array], x: Array, D: int, p: int, size: float) -> None:
    """Solves for a patch embedding that cancels the position table on these pictures: tokens of this size remain."""
    B, C, H, W = x.shape
    seen = ops.patchify(x, patch_size=p).reshape(-1, C * p * p)
    wanted = normal(Philox(59), len(seen), D, std=size) - np.tile(sincos_2d(D, H // p, W // p), (B, 1))
    w["x_embedder.proj.weight"] = np.linalg.lstsq(seen, wanted, rcond=None)[0].T.reshape(D, C, p, p)
    w["x_embedder.proj.bias"] = np.zeros(D)
    for name in [n for n in w if n.startswith("blocks.") and "adaLN" in n]:
        for chunk in (2, 5):
            w[name][chunk * D : (chunk + 1) * D] *= size


class Size(NamedTuple):
    """One question to the whole network: its sizes, and what it was chosen to show."""

    name: str
    reveals: str
    D: int
    L: int
    heads: int
    p: int
    C: int
    out: int
    K: int
    grid: tuple[int, int]
    t: tuple[int, ...]
    y: tuple[int, ...]


SIZES = (
    Size("ends", "silent blocks leave embeddings, places, the final layer and the order of patches",
         16, 1, 2, 2, 3, 3, 10, (4, 6), (3, 37), (9, 2)),
    Size("attention", "only the attention of the block speaks", 16, 1, 2, 2, 3, 3, 10, (4, 6), (5, 0), (10, 1)),
    Size("mlp", "only the MLP of the block speaks, at the peak of the difference of the two GELUs",
         16, 1, 2, 2, 3, 3, 10, (4, 6), (5, 44), (0, 7)),
    Size("small", "small tokens show the ε of the norms", 16, 1, 4, 2, 4, 4, 10, (4, 6), (2, 21), (3, 5)),
    Size("whole", "two blocks, four heads, learned variance, distinct times, a null label",
         48, 2, 4, 2, 4, 8, 10, (6, 8), (12, 250, 131), (4, 10, 9)),
    Size("16-tokens", "a square number of tokens on a grid that is no square",
         24, 3, 3, 2, 2, 4, 7, (4, 16), (501, 64), (7, 0)),
)  # fmt: skip


def network_probe(k: int, grid: tuple[int, int] | None = None) -> Probe:
    """The k-th of SIZES on random weights; grid: another height and width."""
    size, rng = SIZES[k], Philox(61 + k)
    w = network_weights(rng, size.D, size.L, size.p, size.C, size.out, size.K, 4 * size.D)
    x = normal(rng, len(size.t), size.C, *(grid or size.grid))
    if size.name in ("ends", "mlp"):
        silenced(w, size.D, 2)
    if size.name in ("ends", "attention"):
        silenced(w, size.D, 5)
    if size.name == "mlp":
        at_the_peak(w, "blocks.0.")
    if size.name == "small":
        _small_tokens(w, x, size.D, size.p, 0.05)
    return Probe(size.name, (w, x, np.array(size.t), np.array(size.y), size.heads, size.p), size.reveals)


TAKES = (
    "weights {official name: array}, all but pos_embed, which is fixed (N.7); x (B,C,H,W), t (B,) ints 0..T-1, y (B,) ints "
    "0..K, K the null label; heads, patch_size. Sizes follow from the shapes, differently in each probe; C_out may be 2C"
)


@topic("T.6", TAKES, "(B,C_out,H,W), or (that, taps) with taps {layer name: its output}",
       lambda: [network_probe(k) for k in range(len(SIZES))], tol=2.0,
       because="rounding of a few blocks; a float32 angle of time")  # fmt: skip
def dit(R: Reference, weights: Weights, x: Numbers, t: Array, y: Array, heads: int, patch_size: int) -> Numbers:
    """unpatchify(final(blocks(patches + pos, c), c)), c = MLP(emb(t)) + table[y]."""
    D, p, R.where = weights["x_embedder.proj.weight"].shape[0], patch_size, "embedders"
    H, W = x.shape[2:]
    tokens = embeddings.patch_embed(R, x, weights["x_embedder.proj.weight"], weights["x_embedder.proj.bias"])
    h = placed(R, R.tap("x_embedder", tokens), embeddings.position_embedding(R, D, H // p, W // p))
    c = condition(R, weights, t, y)
    for i in range(depth_of(weights)):
        R.where, place = f"blocks.{i}", f"blocks.{i}."
        h = R.tap(f"blocks.{i}", block(R, inside(weights, place), h, c, heads, place))
    R.where = "final_layer"
    out = R.tap("final_layer", final_layer(R, inside(weights, "final_layer."), h, c))
    return embeddings.unpatchify(R, out, p, (H, W))


def depth_of(weights: Weights) -> int:
    return 1 + max(int(n.split(".")[1]) for n in weights if n.startswith("blocks."))


placed = part(lambda R, tokens, table: tokens + table)  # tokens with their places


@part
def condition(R: Reference, weights: Weights, t: Array, y: Array) -> Numbers:
    """c = MLP(emb(t)) + table[y]."""
    e_t = R.tap("t_embedder", embeddings.timestep_embedder(R, inside(weights, "t_embedder."), t))
    table = weights["y_embedder.embedding_table.weight"]
    K = table.shape[0] - 1  # the null label of the question
    e_y = R.tap("y_embedder", embeddings.label_rows(R, table, np.where(y == K, embeddings.null_label(R, K), y)))
    return R.tap("c", summed(R, e_t, e_y))


summed = part(lambda R, e_t, e_y: e_t + e_y)  # how time and class meet


# On square grids alone, for implementations that know no others: their answers to `dit`, which asks with H ≠ W, are errors that
# hide everything else (M73, M99). Twice the channels come out, or as many as go in.
@of_squares("T.6", TAKES + "; H = W", "(B,C_out,H,W), or (that, taps) with taps {layer name: its output}",
            lambda: [network_probe(k, (4, 4) if k < 4 else (6, 6) if k == 4 else (8, 8)) for k in range(6)], tol=2.0,
            because="rounding of a few blocks; a float32 angle of time")  # fmt: skip
def dit_square(R: Reference, weights: Weights, x: Numbers, t: Array, y: Array, heads: int, patch_size: int) -> Numbers:
    """unpatchify(final(blocks(patches + pos, c), c)), c = MLP(emb(t)) + table[y]; here H = W."""
    return dit(R, weights, x, t, y, heads, patch_size)


def _gradients() -> list[Probe]:
    out = []
    for k in (0, 1, 2, 4):
        name, reveals = SIZES[k].name, SIZES[k].reveals
        w, x, t, y, heads, p = network_probe(k).args
        if name == "whole":
            t, y = np.array([12, 501, 131]), np.array([4, 10, 4])
            reveals = "a label twice: both gradients reach its row"
        elif name in ("attention", "mlp"):
            t, y = t[:2], np.array([7, 7])
        bar = normal(Philox(81 + k), len(x), w["final_layer.linear.bias"].size // p**2, *x.shape[2:])
        out.append(Probe(name, (w, x, t, y, heads, p, bar), reveals))
    return out


@topic("A.1", TAKES + "; out_bar (B,C_out,H,W)",
       "{official name: gradient of Σ out_bar ⊙ out with respect to that weight, 'x': with respect to x}", _gradients, tol=10.0,
       because="rounding of a few blocks, forwards and backwards")  # fmt: skip
def dit_gradients(
    R: Reference, weights: Weights, x: Array, t: Array, y: Array, heads: int, patch_size: int, out_bar: Array
) -> dict[str, Array]:
    """∂(Σ out_bar ⊙ out)/∂w of every weight, and of x."""
    leaves = {name: Tensor(np.asarray(w)) for name, w in weights.items()}
    pixels = Tensor(np.asarray(x))
    dit(R, leaves, pixels, t, y, heads, patch_size).backward(bar_in(R, out_bar))
    tensors = leaves | {"x": pixels}
    return bars_out(R, {name: np.zeros(a.shape) if a.grad is None else a.grad for name, a in tensors.items()})


bar_in = part(lambda R, out_bar: out_bar)  # the gradient that enters
bars_out: Part[[dict[str, Array]], dict[str, Array]] = part(lambda R, bars: bars)  # the gradients that leave
