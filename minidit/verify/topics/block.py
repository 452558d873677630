"""Topics: one block of a DiT and its final layer, on random weights.

A freshly initialised adaLN-Zero block is the identity, which hides every mistake inside; so all weights are random and none is
zero, except where a probe silences a branch to show the other one.
"""

from __future__ import annotations

import numpy as np

from minidit import ops
from minidit.backend import Array
from minidit.random import Philox
from minidit.verify.core.reference import Group, Probe, Reference, part
from minidit.verify.topics import layers
from minidit.verify.topics.layers import Numbers, Weights, dense, inside, linear, normal

topic = Group("network")


def block_linears(D: int, inner: int) -> tuple[tuple[str, int, int], ...]:
    """(official name, outputs, inputs) of the linears of a block."""
    attention = (("attn.qkv", 3 * D, D), ("attn.proj", D, D))
    return *attention, ("mlp.fc1", inner, D), ("mlp.fc2", D, inner), ("adaLN_modulation.1", 6 * D, D)


def block_weights(rng: Philox, D: int, inner: int) -> dict[str, Array]:
    """Random weights of a block, by the official names."""
    w: dict[str, Array] = {}
    for name, m, n in block_linears(D, inner):
        w[f"{name}.weight"], w[f"{name}.bias"] = dense(rng, m, n), normal(rng, m, std=0.5)
    return w


def at_the_peak(w: dict[str, Array], prefix: str = "") -> None:
    """Moves every unit of the MLP to where the forms of GELU differ most."""
    w[f"{prefix}mlp.fc1.weight"] = 0.2 * w[f"{prefix}mlp.fc1.weight"]
    w[f"{prefix}mlp.fc1.bias"] = np.full_like(w[f"{prefix}mlp.fc1.bias"], -layers.PEAK)
    w[f"{prefix}mlp.fc2.weight"] = 30 * w[f"{prefix}mlp.fc2.weight"]


def pieces_of_c(R: Reference, weights: Weights, c: Numbers, parts: int, place: str = "") -> Numbers:
    """Linear(SiLU(c)) in equal pieces (T.4, T.6)."""
    out = linear(R, silu_of_c(R, c), weights["adaLN_modulation.1.weight"], weights["adaLN_modulation.1.bias"])
    return ops.split(R.tap(f"{place}adaLN_modulation.1", out), parts=parts)


silu_of_c = part(lambda R, c: layers.silu(R, c))  # the activation before the linears that make shift, scale and gate
six_order = part(lambda R, six: six)  # shift₁, scale₁, gate₁, shift₂, scale₂, gate₂ as they lie in the product


@part
def attention_branch(
    R: Reference, weights: Weights, x: Numbers, shift: Numbers, scale: Numbers, heads: int, place: str
) -> Numbers:
    """Attn(LN(x) (1 + γ₁) + β₁)."""
    h = layers.modulate(R, layers.layer_norm(R, x, "attn"), shift, scale, "attn")
    return R.tap(f"{place}attn", layers.self_attention(R, inside(weights, "attn."), h, heads, f"{place}attn."))


@part
def mlp_branch(R: Reference, weights: Weights, x: Numbers, shift: Numbers, scale: Numbers, place: str) -> Numbers:
    """MLP(LN(x) (1 + γ₂) + β₂)."""
    h = layers.modulate(R, layers.layer_norm(R, x, "mlp"), shift, scale, "mlp")
    return R.tap(f"{place}mlp", layers.mlp(R, inside(weights, "mlp."), h, f"{place}mlp."))


@part
def block_stream(R: Reference, weights: Weights, x: Numbers, six: tuple[Numbers, ...], heads: int, place: str) -> Numbers:
    """(T.5): the second line reads what the first one wrote."""
    shift1, scale1, gate1, shift2, scale2, gate2 = six
    x = layers.gated_residual(R, x, gate1, attention_branch(R, weights, x, shift1, scale1, heads, place), "attn")
    return layers.gated_residual(R, x, gate2, mlp_branch(R, weights, x, shift2, scale2, place), "mlp")


def _blocks() -> list[Probe]:
    rng, D = Philox(51), 12
    out = []
    for name, x_std, gate in (("random", 1.0, 1.0), ("at-the-peak", 1.0, 1.0), ("small", 3e-3, 3e-3)):
        w = block_weights(rng, D, 4 * D)
        if name == "at-the-peak":
            at_the_peak(w)
        for k in ("weight", "bias"):
            w[f"adaLN_modulation.1.{k}"][2 * D : 3 * D] *= gate  # a branch as small as the stream
            w[f"adaLN_modulation.1.{k}"][5 * D :] *= gate
        reveals = {"small": "small activations show the ε of both norms", "at-the-peak": "the form of GELU"}.get(name, "")
        out.append(Probe(name, (w, normal(rng, 2, 5, D, std=x_std), normal(rng, 2, D), 3), reveals))
    return out


@topic("T.5", "weights {attn.qkv.*, attn.proj.*, mlp.fc1.*, mlp.fc2.*, adaLN_modulation.1.*}, x (B,N,D), c (B,D), heads",
       "(B,N,D)", _blocks, tol=2.0, because="rounding of one block")  # fmt: skip
def block(R: Reference, weights: Weights, x: Numbers, c: Numbers, heads: int, place: str = "") -> Numbers:
    """x ← x + gate₁ Attn(LN(x)(1+scale₁)+shift₁); then x ← x + gate₂ MLP(LN(x)(1+scale₂)+shift₂)."""
    return block_stream(R, weights, x, six_order(R, pieces_of_c(R, weights, c, 6, place)), heads, place)


def final_weights(rng: Philox, D: int, out: int) -> dict[str, Array]:
    w = {"adaLN_modulation.1.weight": dense(rng, 2 * D, D), "adaLN_modulation.1.bias": normal(rng, 2 * D, std=0.5)}
    return w | {"linear.weight": dense(rng, out, D), "linear.bias": normal(rng, out, std=0.5)}


def _finals() -> list[Probe]:
    rng, D = Philox(52), 12
    w = final_weights(rng, D, 8)
    x, c = normal(rng, 2, 5, D), normal(rng, 2, D)
    return [Probe("random", (w, x, c)), Probe("small", (w, 3e-3 * x, c), "small activations show ε")]


@topic("T.6", "weights {adaLN_modulation.1.*, linear.*}, x (B,N,D), c (B,D)", "(B, N, p*p*C_out)", _finals)
def final_layer(R: Reference, weights: Weights, x: Numbers, c: Numbers) -> Numbers:
    """Linear(LN(x)(1+scale)+shift), (shift, scale) = Linear(SiLU(c))."""
    shift, scale = two_order(R, pieces_of_c(R, weights, c, 2, "final_layer."))
    h = layers.modulate(R, layers.layer_norm(R, x, "final"), shift, scale, "final")
    return linear(R, h, weights["linear.weight"], weights["linear.bias"])


two_order = part(lambda R, two: two)  # shift, scale of the final layer
