"""Primitives: plain functions on arrays that return (y, vjp), lifted to Tensors. Read `normalise.softmax` first."""

from minidit.ops.attention import (
    attention, gated_residual, linear_residual, linear_residual_modulate, mlp_residual, mlp_residual_modulate,
    projected_attention, self_attention,
)  # fmt: skip
from minidit.ops.conv import conv2d
from minidit.ops.elementwise import (
    add, cast, clip, div, exp, gelu, gelu_erf, log, mul, neg, power, sigmoid, silu, sqrt, sub, tanh,
)  # fmt: skip
from minidit.ops.gather import embedding
from minidit.ops.heads import qk_norm, qk_rope, rope, unpacked
from minidit.ops.linear import linear, linear_gelu, matmul, mlp
from minidit.ops.loss import cross_entropy, gaussian_kl, mse
from minidit.ops.normalise import group_norm, group_norm_silu, layer_norm, layer_norm_modulate, rms_norm, softmax, standardise
from minidit.ops.reduce import mean, sum
from minidit.ops.shape import (
    broadcast_to, concat, getitem, patchify, reshape, split, transpose, unpatchify, upsample_nearest,
)  # fmt: skip

__all__ = [
    "add", "attention", "broadcast_to", "cast", "clip", "concat", "conv2d", "cross_entropy", "div", "embedding", "exp",
    "gated_residual", "gaussian_kl", "gelu", "gelu_erf", "getitem", "group_norm", "group_norm_silu", "layer_norm",
    "layer_norm_modulate", "linear", "linear_gelu", "linear_residual", "linear_residual_modulate", "log", "matmul", "mean",
    "mlp", "mlp_residual", "mlp_residual_modulate",
    "mse", "mul", "neg", "patchify", "power", "projected_attention", "qk_norm", "qk_rope", "reshape",
    "rms_norm", "rope",
    "self_attention", "sigmoid", "silu", "softmax", "split", "sqrt", "standardise", "sub", "sum", "tanh", "transpose",
    "unpacked", "unpatchify", "upsample_nearest",
]  # fmt: skip
