"""Parameters with shapes: modules, layers, attention, positions, patches."""

from minidit.nn.attention import CrossAttention, SelfAttention, StreamAttention, joint_attention
from minidit.nn.layers import Conv2d, Embedding, GroupNorm, LayerNorm, Linear, RMSNorm, Sequential, SiLU
from minidit.nn.mlp import Mlp
from minidit.nn.module import Flat, Module, Parameter
from minidit.nn.patch import PatchEmbed
from minidit.nn.pixels import Double, Halve, PixelAttention
from minidit.nn.position import rotary, sincos_1d, sincos_2d, timestep_embedding

__all__ = [
    "Conv2d", "CrossAttention", "Double", "Embedding", "Flat", "GroupNorm", "Halve", "LayerNorm", "Linear", "Mlp", "Module",
    "Parameter", "PatchEmbed", "PixelAttention", "RMSNorm", "SelfAttention", "Sequential", "SiLU", "StreamAttention",
    "joint_attention", "rotary", "sincos_1d", "sincos_2d", "timestep_embedding",
]  # fmt: skip
