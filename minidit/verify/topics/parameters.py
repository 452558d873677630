"""Topics: which parameters a DiT has, and how they begin.

A fresh adaLN-Zero network is the identity and returns 0. A start is random, so the law of a weight is compared, not its numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from minidit.backend import Array
from minidit.nn import initial
from minidit.random import Philox
from minidit.verify.core.reference import Group, Part, Probe, Reference, part
from minidit.verify.topics.block import block_linears

topic = Group("parameters")


@topic("T.9", "D, L, heads, patch_size, C, K classes, learn_sigma (MLP ratio 4, label dropout > 0)",
       "{official name: shape} of all trained parameters (pos_embed is none)",
       lambda: [Probe("tiny", (12, 1, 3, 2, 3, 10, True), "no norm has parameters; K + 1 labels; twice the channels"),
                Probe("two", (16, 2, 4, 2, 4, 7, False))])  # fmt: skip
def parameter_shapes(
    R: Reference, D: int, L: int, heads: int, patch_size: int, C: int, K: int, learn_sigma: bool
) -> dict[str, tuple[int, ...]]:
    """Every linear has weight and bias, no norm has any, the label table has K + 1 rows."""
    p = patch_size
    shapes: dict[str, tuple[int, ...]] = {"x_embedder.proj.weight": (D, C, p, p), "x_embedder.proj.bias": (D,)}
    shapes |= linear_shapes(R, "t_embedder.mlp.0", D, 256) | linear_shapes(R, "t_embedder.mlp.2", D, D)
    shapes["y_embedder.embedding_table.weight"] = (label_table_rows(R, K), D)
    for i in range(L):
        for name, m, n in block_linears(D, 4 * D):
            shapes |= linear_shapes(R, f"blocks.{i}.{name}", m, n)
        for norm in ("norm1", "norm2"):
            shapes |= norm_shapes(R, f"blocks.{i}.{norm}", D)
    shapes |= norm_shapes(R, "final_layer.norm_final", D) | linear_shapes(R, "final_layer.adaLN_modulation.1", 2 * D, D)
    return shapes | linear_shapes(R, "final_layer.linear", p * p * C * (2 if learn_sigma else 1), D)


linear_shapes = part(lambda R, name, m, n: {f"{name}.weight": (m, n), f"{name}.bias": (m,)})  # a weight and a bias
# norms have no parameters: adaLN makes their scale and shift
norm_shapes: Part[[str, int], dict[str, tuple[int, ...]]] = part(lambda R, name, D: {})
label_table_rows = part(lambda R, K: K + 1)  # K classes and the null label


def law_of(name: str, w: Array) -> str:
    """In words, the law a fresh weight was drawn from, told by its spread, its largest entry and its kurtosis."""
    w = np.asarray(w, np.float64)
    if not w.any():
        return "0"
    if (w == 1).all():
        return "1"
    fan_out, fan_in = (w.shape[0], math.prod(w.shape[1:])) if w.ndim > 1 else (w.size, w.size)
    uniform = {
        "Xavier uniform": (6 / (fan_in + fan_out)) ** 0.5,
        "U(±1/√fan_in)": fan_in**-0.5,
        "He uniform": (6 / fan_in) ** 0.5,
    }
    if w.ndim == 4:
        field = math.prod(w.shape[2:])
        uniform["Xavier uniform of a convolution"] = math.sqrt(6 / (fan_in + fan_out * field))
    gauss = {"N(0, 0.02²)": 0.02, "N(0, 1)": 1.0, "Xavier normal": (2 / (fan_in + fan_out)) ** 0.5}
    gauss |= {"LeCun normal": fan_in**-0.5, "He normal": (2 / fan_in) ** 0.5}
    std, top, wide = w.std(), np.abs(w).max(), 4.0 / math.sqrt(2 * w.size)
    flat = w.size < 8 or ((w / std) ** 4).mean() < 2.4  # 1.8 for a uniform law, 3 for a normal one
    fits = {law: abs(std * 3**0.5 / b - 1) for law, b in uniform.items() if flat and top <= b * (1 + 1e-6)}
    fits |= {law: abs(std / s - 1) for law, s in gauss.items() if not flat}
    best = min(fits, key=lambda law: fits[law], default="")
    return best if best and fits[best] < wide else f"another law (mean {w.mean():.3g}, std {std:.3g}, largest {top:.3g})"


def start_of(weights: Mapping[str, Array]) -> dict[str, str]:
    """name -> law, for every weight of a fresh network; biases of 0 go without saying."""
    laws = {name: law_of(name, w) for name, w in weights.items() if name != "pos_embed"}
    return {name: law for name, law in laws.items() if not (name.endswith("bias") and law == "0")}


@topic("T.7", "D, L, heads, patch_size, C, K classes, learn_sigma, seed",
       "{official name: array}: the weights of a freshly initialised network",
       lambda: [Probe("fresh", (64, 2, 4, 2, 4, 10, True, 0), "the zeros of T.7 come last; wide enough to tell laws apart")],
       measure=start_of, draws="seed",
       because="the law of each weight, told by its spread, its largest entry and its kurtosis")  # fmt: skip
def initial_weights(
    R: Reference, D: int, L: int, heads: int, patch_size: int, C: int, K: int, learn_sigma: bool, seed: int
) -> dict[str, Array]:
    """Xavier uniform, N(0, 0.02²) for time MLP and label table, biases 0; then 0 for adaLN and the last linear."""
    rng, out = Philox(seed), {}
    for name, shape in parameter_shapes(R, D, L, heads, patch_size, C, K, learn_sigma).items():
        out[name] = zero_start(R, name, first_start(R, rng, name, shape), rng)
    return out


@part
def first_start(R: Reference, rng: Philox, name: str, shape: tuple[int, ...]) -> Array:
    """Before the zeros: Xavier uniform for linears, N(0, 0.02²) for the time MLP and the label table, 0 for biases."""
    if name.endswith("bias"):
        return bias_start(R, rng, name, shape)
    if name.startswith(("t_embedder", "y_embedder")):
        return condition_start(R, rng, name, shape)
    return linear_start(R, rng, name, shape)


bias_start = part(lambda R, rng, name, shape: np.zeros(shape))  # 0
condition_start = part(lambda R, rng, name, shape: initial.normal(0.02)(rng, shape, np.float64))  # N(0, 0.02²)
# Xavier uniform; a patch embedding counts as a linear layer
linear_start = part(lambda R, rng, name, shape: initial.xavier_uniform(rng, shape, np.float64))


# (T.7): what makes shifts, scales and gates, and the last linear, is zero
zero_start = part(
    lambda R, name, w, rng: np.zeros_like(w) if "adaLN_modulation" in name or name.startswith("final_layer.linear") else w,
    each_weight=True,
)
