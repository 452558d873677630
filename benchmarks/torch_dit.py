"""The same DiT in PyTorch, written from the equations (T.3) to (T.6), with the official names."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.sizes import Size


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale[:, None]) + shift[:, None]


class PatchEmbed(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.proj = nn.Conv2d(size.channels, size.width, size.patch, stride=size.patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class TimestepEmbedder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        # the table in float64: angles of float32 are off by 3e-5 at t = 999 and would hide smaller differences
        f = torch.exp(-math.log(10000) * torch.arange(128, dtype=torch.float64) / 128)
        self.register_buffer("f", f, persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        angle = t[:, None] * self.f
        return self.mlp(torch.cat((angle.cos(), angle.sin()), dim=1).float())


class LabelEmbedder(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(size.classes + 1, size.width)

    def forward(self, y: Tensor) -> Tensor:
        return self.embedding_table(y)


class Attention(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads = size.heads
        self.qkv, self.proj = nn.Linear(size.width, 3 * size.width), nn.Linear(size.width, size.width)

    def forward(self, x: Tensor) -> Tensor:
        B, N, D = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, N, D))


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.attn, self.mlp = Attention(size), Mlp(size.width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(size.width, 6 * size.width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(c).chunk(6, dim=1)
        x = x + gate1[:, None] * self.attn(modulated(x, shift1, scale1))
        return x + gate2[:, None] * self.mlp(modulated(x, shift2, scale2))


class FinalLayer(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.linear = nn.Linear(size.width, size.patch**2 * size.channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(size.width, 2 * size.width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=1)
        return self.linear(modulated(x, shift, scale))


class DiT(nn.Module):
    """x : (B, C, H, W), t : (B,), y : (B,)  ->  (B, C, H, W)

    narrow: the residual stream is bfloat16; autocast alone keeps it in float32, because the position table is float32
    """

    def __init__(self, size: Size, narrow: bool = False) -> None:
        super().__init__()
        self.size, self.narrow = size, narrow
        self.register_buffer("pos_embed", torch.zeros(1, size.tokens, size.width))
        self.x_embedder = PatchEmbed(size)
        self.t_embedder = TimestepEmbedder(size.width)
        self.y_embedder = LabelEmbedder(size)
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.depth))
        self.final_layer = FinalLayer(size)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        h = self.x_embedder(x) + self.pos_embed
        if self.narrow:
            h = h.bfloat16()
        c = self.t_embedder(t) + self.y_embedder(y)
        for block in self.blocks:
            h = block(h, c)
        h = self.final_layer(h, c)
        B, g, p = len(x), self.size.input_size // self.size.patch, self.size.patch
        return h.reshape(B, g, g, p, p, -1).permute(0, 5, 1, 3, 2, 4).reshape(x.shape)
