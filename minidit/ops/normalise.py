"""Normalisations.

    softmax:     y = e^x / Σ e^x                             x̄ = y ⊙ (ȳ - Σ ȳ⊙y)                        (A.13)
    layer norm:  x̂ = (x - μ) r,  r = 1/√(σ² + ε)             x̄ = r (g - mean g - x̂ mean(g⊙x̂))            (A.14)
    modulate:    y = x̂ (1 + scale) + shift                    the layer norm of adaLN                      (A.15)
    RMS norm:    x̂ = x r,  r = 1/√(mean x² + ε)               x̄ = r (g - x̂ mean(g⊙x̂))                    (A.16)
    group norm:  layer norm over the channels of a group and all pixels, then γ and β per channel            (A.17)

g is the gradient of x̂. μ and σ² are taken over the last axis, the variance is the biased one.
"""

from __future__ import annotations

from typing import Any

from minidit.autograd import Onto, Vjp, primitive
from minidit.backend import Array, xp_of
from minidit.kernels import cpu, cpu_norm, cuda_normalise
from minidit.ops.elementwise import silu


@primitive(cuda=cuda_normalise.softmax)
def softmax(x: Array, *, axis: int = -1) -> tuple[Array, Vjp]:
    """x : (..., n, ...) float  ->  y : same shape, y ≥ 0, Σ_axis y = 1."""
    xp = xp_of(x)
    e = xp.exp(x - x.max(axis=axis, keepdims=True))  # the shift cancels; overflow cannot happen
    y = e / e.sum(axis=axis, keepdims=True)  # (A.13)

    def vjp(y_bar: Array) -> tuple[Array]:
        s = (y_bar * y).sum(axis=axis, keepdims=True)
        return (y * (y_bar - s),)

    return y, vjp


@primitive
def standardise(x: Array, *, eps: float = 1e-6) -> tuple[Array, Vjp]:
    """x̂ = (x - μ)/√(σ² + ε) over the last axis: layer norm without parameters."""
    xp = xp_of(x)
    d = x - x.mean(axis=-1, keepdims=True)
    r = 1 / xp.sqrt((d * d).mean(axis=-1, keepdims=True) + eps)
    x_hat = d * r  # (A.14)
    return x_hat, lambda g: (r * (g - g.mean(axis=-1, keepdims=True) - x_hat * (g * x_hat).mean(axis=-1, keepdims=True)),)


@primitive(cuda=cuda_normalise.layer_norm)
def layer_norm(x: Array, weight: Array, bias: Array, *, eps: float = 1e-6) -> tuple[Array, Vjp]:
    """x : (..., D), weight, bias : (D,)  ->  x̂ ⊙ weight + bias."""
    x_hat, standardise_vjp = standardise.plain(x, eps=eps)
    leading = tuple(range(x.ndim - 1))

    def vjp(y_bar: Array) -> tuple[Array, ...]:
        return (*standardise_vjp(y_bar * weight), (y_bar * x_hat).sum(axis=leading), y_bar.sum(axis=leading))

    return x_hat * weight + bias, vjp


@primitive(cpu=cpu.layer_norm_modulate, cuda=cuda_normalise.layer_norm_modulate)
def layer_norm_modulate(x: Array, shift: Array, scale: Array, *, eps: float = 1e-6) -> tuple[Array, Vjp]:
    """x : (B, N, D), shift, scale : (B, D)  ->  x̂ (1 + scale) + shift: the adaptive layer norm of DiT."""
    x_hat, standardise_vjp = standardise.plain(x, eps=eps)
    s = 1 + scale[:, None]  # 1 +: scale 0 must mean "leave it", or a zero-initialised network is dead

    def vjp(y_bar: Array) -> tuple[Array, ...]:
        return (*standardise_vjp(y_bar * s), y_bar.sum(axis=1), (y_bar * x_hat).sum(axis=1))

    return x_hat * s + shift[:, None], vjp  # (A.15)


@primitive
def rms_norm(x: Array, weight: Array, *, eps: float = 1e-6) -> tuple[Array, Vjp]:
    """x : (..., D), weight : (D,)  ->  x / √(mean x² + ε) ⊙ weight."""
    xp = xp_of(x)
    r = 1 / xp.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)
    x_hat, leading = x * r, tuple(range(x.ndim - 1))  # (A.16)

    def vjp(y_bar: Array) -> tuple[Array, Array]:
        g = y_bar * weight
        x_bar = r * (g - x_hat * (g * x_hat).mean(axis=-1, keepdims=True))
        return x_bar, (y_bar * x_hat).sum(axis=leading)

    return x_hat * weight, vjp


def check_groups(x: Array, weight: Array, bias: Array, *, groups: int, eps: float = 1e-6) -> None:
    """Raises ValueError if the channels cannot be cut into equal groups."""
    if x.shape[1] % groups:
        raise ValueError(f"group_norm: {x.shape[1]} channels cannot be cut into {groups} equal groups")


@primitive(cpu=cpu_norm.group_norm, check=check_groups)
def group_norm(x: Array, weight: Array, bias: Array, *, groups: int, eps: float = 1e-6) -> tuple[Array, Vjp]:
    """x : (B, C, H, W), weight, bias : (C,)  ->  same shape. Raises ValueError unless C is divisible by groups."""
    B, shape = x.shape[0], x.shape
    x_hat, standardise_vjp = standardise.plain(x.reshape(B, groups, -1), eps=eps)  # (A.17)
    x_hat = x_hat.reshape(shape)
    w, b = weight[:, None, None], bias[:, None, None]

    def vjp(y_bar: Array) -> tuple[Array, ...]:
        (x_bar,) = standardise_vjp((y_bar * w).reshape(B, groups, -1))
        return x_bar.reshape(shape), (y_bar * x_hat).sum(axis=(0, 2, 3)), y_bar.sum(axis=(0, 2, 3))

    return x_hat * w + b, vjp


@primitive(cpu=cpu_norm.group_norm_silu, check=check_groups)
def group_norm_silu(x: Array, weight: Array, bias: Array, *, groups: int, eps: float = 1e-6) -> tuple[Array, Vjp]:
    """silu(group_norm(x)): x : (B, C, H, W), weight, bias : (C,)  ->  same shape."""
    z, norm_vjp = group_norm.pair(x, weight, bias, groups=groups, eps=eps)
    y, silu_vjp = silu.pair(z)

    def vjp(y_bar: Array) -> tuple[Any, ...]:
        (z_bar,) = silu_vjp(y_bar)
        return norm_vjp(z_bar() if isinstance(z_bar, Onto) else z_bar)

    return y, vjp
