"""The same MM-DiT, FLUX and spacetime DiT in PyTorch, from the equations (T.21) to (T.34), with our names and PyTorch's fused
attention."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minidit.models.flux_config import FluxConfig, turn_of
from minidit.models.mmdit_config import MMDiTConfig
from minidit.models.spacetime_config import SpacetimeConfig


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale[:, None]) + shift[:, None]


def two_layers(n: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n, width), nn.SiLU(), nn.Linear(width, width))


def frequencies() -> Tensor:
    return torch.exp(-math.log(10000) * torch.arange(128, dtype=torch.float64) / 128)


def time_embedding(t: Tensor, f: Tensor) -> Tensor:
    angle = t[:, None] * f
    return torch.cat((angle.cos(), angle.sin()), dim=1).float()


class Mlps(nn.Module):
    """Two linear layers with SiLU between them, under the name `mlp`."""

    def __init__(self, n: int, width: int) -> None:
        super().__init__()
        self.mlp = two_layers(n, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x)


class Mlp(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class StreamAttention(nn.Module):
    def __init__(self, width: int, heads: int, norm: bool, out: bool) -> None:
        super().__init__()
        self.heads, K = heads, width // heads
        self.qkv = nn.Linear(width, 3 * width)
        if norm:
            self.ln_q, self.ln_k = nn.RMSNorm(K, eps=1e-6), nn.RMSNorm(K, eps=1e-6)
        if out:
            self.proj = nn.Linear(width, width)
        self.norm = norm

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        B, N, D = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        return (self.ln_q(q), self.ln_k(k), v) if self.norm else (q, k, v)


class Stream(nn.Module):
    def __init__(self, width: int, heads: int, inner: int, norm: bool, last: bool) -> None:
        super().__init__()
        self.attn = StreamAttention(width, heads, norm, not last)
        if not last:
            self.mlp = Mlp(width, inner)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, (2 if last else 6) * width))
        self.last = last

    def go_on(self, h: Tensor, y: Tensor, m: tuple[Tensor, ...]) -> Tensor:
        h = h + m[2][:, None] * self.attn.proj(y)
        return h + m[5][:, None] * self.mlp(modulated(h, m[3], m[4]))


class JointBlock(nn.Module):
    def __init__(self, width: int, heads: int, inner: int, context_inner: int, norm: bool, last: bool) -> None:
        super().__init__()
        self.context_block = Stream(width, heads, context_inner, norm, last)
        self.x_block = Stream(width, heads, inner, norm, False)

    def forward(self, context: Tensor, x: Tensor, c: Tensor, turn: Tensor | None = None) -> tuple[Tensor, Tensor]:
        streams, hs = (self.context_block, self.x_block), (context, x)
        ms = [s.adaLN_modulation(c).chunk(2 if s.last else 6, dim=1) for s in streams]
        parts = [s.attn.parts(modulated(h, m[0], m[1])) for s, h, m in zip(streams, hs, ms, strict=True)]
        q, k, v = (torch.cat(pair, dim=2) for pair in zip(*parts, strict=True))
        if turn is not None:
            q, k = turned(q, turn), turned(k, turn)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        M = context.shape[1]
        x = self.x_block.go_on(x, y[:, M:], ms[1])
        return context if self.context_block.last else self.context_block.go_on(context, y[:, :M], ms[0]), x


class FinalLayer(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, out)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=1)
        return self.linear(modulated(x, shift, scale))


class PatchEmbed(nn.Module):
    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class Words(nn.Module):
    def __init__(self, rows: int, length: int, width: int) -> None:
        super().__init__()
        self.words, self.places = nn.Parameter(torch.zeros(rows, width)), nn.Parameter(torch.zeros(length, width))

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        e = F.embedding(y, self.words) + self.places
        here = (y != 0).float()
        return e, (e * (here / here.sum(1, keepdim=True).clamp(min=1).sqrt())[..., None]).sum(1)


class MMDiT(nn.Module):
    """x : (B, C, H, W), t : (B,), y : (B, M)  ->  (B, C, H, W); captions, no dual attention."""

    def __init__(self, c: MMDiTConfig) -> None:
        super().__init__()
        D, self.p = c.hidden_size, c.patch_size
        self.x_embedder = PatchEmbed(c.in_channels, D, c.patch_size)
        self.register_buffer("pos_embed", torch.zeros(1, c.tokens, D))
        self.t_embedder, self.y_embedder = Mlps(256, D), Mlps(D, D)
        self.context_embedder = Words(c.condition.rows, c.caption_length, D)
        inner = int(D * c.mlp_ratio), int(D * c.context_ratio)
        self.joint_blocks = nn.ModuleList(JointBlock(D, c.num_heads, *inner, c.qk_norm, i == c.depth - 1) for i in range(c.depth))
        self.final_layer = FinalLayer(D, c.patch_size**2 * c.out_channels)
        self.register_buffer("f", frequencies(), persistent=False)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        context, pooled = self.context_embedder(y)
        c = self.t_embedder(time_embedding(t, self.f)) + self.y_embedder(pooled)
        h = self.x_embedder(x) + self.pos_embed
        for block in self.joint_blocks:
            context, h = block(context, h, c)
        B, C, H, W = x.shape
        p = self.p
        return self.final_layer(h, c).reshape(B, H // p, W // p, p, p, C).permute(0, 5, 1, 3, 2, 4).reshape(x.shape)


def turned(x: Tensor, turn: Tensor) -> Tensor:
    """x : (B, heads, N, K), turn : (N, K/2) complex."""
    return torch.view_as_real(torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2)) * turn).flatten(3)


class SingleBlock(nn.Module):
    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.attn = StreamAttention(width, heads, True, False)
        self.proj, self.mlp = nn.Linear(width, width, bias=False), Mlp(width, inner)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 3 * width))

    def forward(self, h: Tensor, c: Tensor, turn: Tensor) -> Tensor:
        shift, scale, gate = self.adaLN_modulation(c).chunk(3, dim=1)
        a = modulated(h, shift, scale)
        q, k, v = self.attn.parts(a)
        y = F.scaled_dot_product_attention(turned(q, turn), turned(k, turn), v).transpose(1, 2).flatten(2)
        return h + gate[:, None] * (self.proj(y) + self.mlp(a))


class Flux(nn.Module):
    """x : (B, C, H, W), t : (B,), y : (B, M)  ->  (B, C, H, W); captions, no guidance embedding."""

    def __init__(self, c: FluxConfig) -> None:
        super().__init__()
        D, h, inner, self.p = c.hidden_size, c.num_heads, int(c.hidden_size * c.mlp_ratio), c.patch_size
        self.x_embedder = PatchEmbed(c.in_channels, D, c.patch_size)
        self.t_embedder, self.y_embedder = Mlps(256, D), Mlps(D, D)
        self.context_embedder = Words(c.condition.rows, c.caption_length, D)
        self.double_blocks = nn.ModuleList(JointBlock(D, h, inner, inner, True, False) for _ in range(c.depth))
        self.single_blocks = nn.ModuleList(SingleBlock(D, h, inner) for _ in range(c.single_depth))
        self.final_layer = FinalLayer(D, c.patch_size**2 * c.out_channels)
        self.register_buffer("f", frequencies(), persistent=False)
        cos, sin = turn_of(c.caption_length, c.grid, c.axes)
        self.register_buffer("turn", torch.complex(torch.tensor(cos).float(), torch.tensor(sin).float()), persistent=False)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        context, pooled = self.context_embedder(y)
        c = self.t_embedder(time_embedding(t, self.f)) + self.y_embedder(pooled)
        h = self.x_embedder(x)
        for block in self.double_blocks:
            context, h = block(context, h, c, self.turn)
        M = context.shape[1]
        h = torch.cat((context, h), dim=1)
        for block in self.single_blocks:
            h = block(h, c, self.turn)
        B, C, H, W = x.shape
        p = self.p
        return self.final_layer(h[:, M:], c).reshape(B, H // p, W // p, C, p, p).permute(0, 3, 1, 4, 2, 5).reshape(x.shape)


class ClipAttention(nn.Module):
    """x : (B, F n, D)  ->  the same shape. over : "all" tokens, those of one "frame", or of one "site"."""

    def __init__(self, c: SpacetimeConfig, over: str) -> None:
        super().__init__()
        self.heads, self.sites, self.over, D = c.num_heads, c.sites, over, c.hidden_size
        self.qkv, self.proj = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.register_buffer("times", places_of_time(c) if over == "site" else None, persistent=False)

    def mixed(self, x: Tensor) -> Tensor:
        """x : (groups, tokens of each, D), the tokens of a group attend to each other."""
        G, N, D = x.shape
        q, k, v = self.qkv(x).reshape(G, N, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(G, N, D)

    def forward(self, x: Tensor) -> Tensor:
        B, N, D = x.shape
        if self.over == "all":
            return self.proj(self.mixed(x))
        if self.over == "frame":
            return self.proj(self.mixed(x.reshape(-1, self.sites, D)).reshape(B, N, D))
        by_site = (x.reshape(B, -1, self.sites, D) + self.times).transpose(1, 2).reshape(B * self.sites, -1, D)
        return self.proj(self.mixed(by_site).reshape(B, self.sites, -1, D).transpose(1, 2).reshape(B, N, D))


class ClipBlock(nn.Module):
    def __init__(self, c: SpacetimeConfig, over: str) -> None:
        super().__init__()
        D = c.hidden_size
        self.attn, self.mlp = ClipAttention(c, over), Mlp(D, int(D * c.mlp_ratio))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(D, 6 * D))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(c).chunk(6, dim=1)
        x = x + gate1[:, None] * self.attn(modulated(x, shift1, scale1))
        return x + gate2[:, None] * self.mlp(modulated(x, shift2, scale2))


class Linears(nn.Module):
    """One linear layer, under the name `proj`."""

    def __init__(self, n: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(n, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class Table(nn.Module):
    """Rows of classes, under the name `embedding_table`."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(rows, width)

    def forward(self, y: Tensor) -> Tensor:
        return self.embedding_table(y)


def places_of_time(c: SpacetimeConfig) -> Tensor:
    """(F, 1, D): (T.32)"""
    half = c.hidden_size // 2
    f = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float64) / half)
    angle = torch.arange(c.times, dtype=torch.float64)[:, None] * f
    p = torch.cat((angle.sin(), angle.cos()), dim=1)
    return (p - p[:1]).float()[:, None]


class Spacetime(nn.Module):
    """x : (B, C, T, H, W), t : (B,), y : (B,)  ->  the same shape as x; classes, places of time added."""

    def __init__(self, c: SpacetimeConfig) -> None:
        super().__init__()
        D, self.c = c.hidden_size, c
        kinds = {"full": ["all"], "factorised": ["frame", "site"], "none": ["frame"]}[c.time_attention]
        self.x_embedder = Linears(c.in_channels * c.numbers, D)
        self.register_buffer("pos_embed", torch.zeros(1, c.sites, D))
        self.register_buffer("times", places_of_time(c) if c.time_attention == "full" else None, persistent=False)
        self.t_embedder, self.y_embedder = Mlps(256, D), Table(c.condition.rows, D)
        self.blocks = nn.ModuleList(ClipBlock(c, kinds[i % len(kinds)]) for i in range(c.depth))
        self.final_layer = FinalLayer(D, c.numbers * c.out_channels)
        self.register_buffer("f", frequencies(), persistent=False)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        B, C, T, H, W = x.shape
        n, p = self.c.frame_patch, self.c.patch_size
        grid = x.reshape(B, C, T // n, n, H // p, p, W // p, p).permute(0, 2, 4, 6, 1, 3, 5, 7)
        h = self.x_embedder(grid.reshape(B, T // n, self.c.sites, -1)) + self.pos_embed
        h = (h if self.times is None else h + self.times).flatten(1, 2)
        c = self.t_embedder(time_embedding(t, self.f)) + self.y_embedder(y)
        for block in self.blocks:
            h = block(h, c)
        grid = self.final_layer(h, c).reshape(B, T // n, H // p, W // p, n, p, p, C)
        return grid.permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(x.shape)
