"""Mistakes on the way back that are in no catalogue: the forward pass is right, so that only gradients show them.

GRADIENTS: what is wrong -> the parts of the reference that are changed.
"""

import numpy as np

from minidit import ops
from minidit.autograd import Primitive, value
from minidit.verify.bank.wrap import arguments, instead, then
from minidit.verify.topics import block, embeddings, layers, network


def bent(forward, adjoint):
    """A primitive of one argument with another adjoint: adjoint(x, y_bar)."""
    p = Primitive(lambda x: (forward(x), lambda y_bar: (adjoint(x, y_bar),)))
    return instead(lambda R, x: p(x))


def first_sample(bar):
    return bar * (np.arange(len(bar)) == 0).reshape(-1, 1, 1, 1)


def of_names(match, f):
    return {network.bars_out: then(lambda bars: {n: f(b) if match in n else b for n, b in bars.items()})}


gelu = lambda x: ops.gelu.plain(x)[0]
sigmoid = lambda x: 1 / (1 + np.exp(-x))
GRADIENTS = {
    "the gate detached": {layers.gated_residual: instead(lambda R, x, gate, h, place="": x + value(gate)[:, None] * h)},
    "the scale detached": {layers.modulate: instead(lambda R, x, b, s, place="": x * (1 + value(s)[:, None]) + b[:, None])},
    "the shift detached": {layers.modulate: instead(lambda R, x, b, s, place="": x * (1 + s[:, None]) + value(b)[:, None])},
    "the picture detached": {embeddings.patches: arguments(lambda x, p: (value(x), p))},
    "keys detached": {layers.attention: arguments(lambda q, k, v: (q, value(k), v))},
    "values detached": {layers.attention: arguments(lambda q, k, v: (q, k, value(v)))},
    "what attends detached": {layers.softmax: then(value)},
    "the MLP's stream detached": {block.mlp_branch: arguments(lambda w, x, b, s, place: (w, value(x), b, s, place))},
    "time detached": {network.summed: instead(lambda R, e_t, e_y: value(e_t) + e_y)},
    "GELU's slope a thousandth off": {layers.gelu: bent(gelu, lambda x, bar: 1.001 * ops.gelu.plain(x)[1](bar)[0])},
    "SiLU's slope is σ": {layers.silu: bent(lambda x: x * sigmoid(x), lambda x, bar: bar * sigmoid(x))},
    "clipped to ±1": of_names("", lambda b: np.clip(b, -1, 1)),
    "rounded to float16": of_names("", lambda b: b.astype(np.float16).astype(float)),
    "half of one bias": of_names("blocks.0.mlp.fc1.bias", lambda b: b / 2),
    "one weight turned round": of_names("blocks.0.attn.proj.weight", lambda b: b.T),
    "the null row never learns": of_names("embedding_table", lambda b: b * (np.arange(len(b)) < len(b) - 1)[:, None]),
    "the first sample alone": {network.bar_in: then(first_sample)},
    "the mean over pixels": {network.bar_in: then(lambda bar: bar / bar[0].size)},
    "channels exchanged": {network.bar_in: then(lambda bar: bar[:, ::-1])},
}  # fmt: skip
