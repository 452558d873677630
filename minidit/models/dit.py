"""DiT, the diffusion transformer (Peebles and Xie 2022), with adaLN-Zero conditioning.

    (β₁, γ₁, α₁, β₂, γ₂, α₂) = Linear(SiLU(c))        shift, scale, gate for attention, then for the MLP      (T.4)
    x ← x + α₁ ⊙ Attn(LN(x) ⊙ (1 + γ₁) + β₁)
    x ← x + α₂ ⊙ MLP(LN(x) ⊙ (1 + γ₂) + β₂)                                                                   (T.5)
    out = unpatchify(Linear(LN(x) ⊙ (1 + γ) + β)),    (β, γ) = Linear(SiLU(c))                                 (T.6)
    all linears that make α, β, γ, and the last linear, start at zero: every block is the identity, the output 0  (T.7)

Parameter names are those of the official checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minidit import ops
from minidit.autograd import kernels_on, value
from minidit.backend import Array
from minidit.models import conditioning as other
from minidit.models.backbone import Classes, Condition, Nothing, check_one_per_sample
from minidit.models.condition import FREQUENCIES, LabelEmbedder, TimestepEmbedder
from minidit.models.conditioning import Conditioning
from minidit.nn import Linear, Mlp, Module, PatchEmbed, SelfAttention, Sequential, SiLU, sincos_2d
from minidit.nn.initial import zeros
from minidit.nn.module import Parameter
from minidit.nn.precision import restored, stored
from minidit.nn.recompute import run
from minidit.random import Philox


@dataclass(frozen=True)
class DiTConfig:
    """A DiT. Raises ValueError for sizes that do not fit together."""

    input_size: int | tuple[int, int] = 32  # height and width of the (latent) image
    patch_size: int = 2
    in_channels: int = 4
    hidden_size: int = 384
    depth: int = 12
    num_heads: int = 6
    mlp_ratio: float = 4.0
    class_dropout_prob: float = 0.1
    num_classes: int = 1000  # 0: unconditional
    conditioning: str = "adaln_zero"  # adaln_zero, adaln, cross_attention or in_context
    learn_sigma: bool = True  # twice the channels: the second half speaks about the variance
    freq_shift: int = 0  # 1: the other frequencies of time, N.10, as in diffusers
    mlp_norm_eps: float = 1e-6  # of the layer norm before the MLP; 1e-5 in diffusers

    def __post_init__(self) -> None:
        H, W = self.size
        if min(H, W, self.patch_size, self.in_channels, self.hidden_size, self.depth, self.num_heads, self.mlp_ratio) <= 0:
            raise ValueError(f"every size must be positive: {self}")
        if self.num_classes < 0 or not 0 <= self.class_dropout_prob < 1:
            raise ValueError(f"num_classes {self.num_classes} or class_dropout_prob {self.class_dropout_prob} is out of range")
        if H % self.patch_size or W % self.patch_size:
            raise ValueError(f"input_size {H} x {W} is not divisible by patch_size {self.patch_size}")
        if self.conditioning not in CONDITIONING:
            raise ValueError(f"conditioning {self.conditioning!r} is not one of {', '.join(CONDITIONING)}")
        if self.freq_shift not in (0, 1) or not self.mlp_norm_eps > 0:
            raise ValueError(f"freq_shift {self.freq_shift} must be 0 or 1, mlp_norm_eps {self.mlp_norm_eps} above 0")
        if self.mlp_norm_eps != 1e-6 and self.conditioning != "adaln_zero":
            raise ValueError("mlp_norm_eps is a setting of adaln_zero blocks only")
        if self.hidden_size % self.num_heads or self.hidden_size % 4:
            raise ValueError(f"hidden_size {self.hidden_size} must be divisible by num_heads {self.num_heads} and by 4")

    @property
    def size(self) -> tuple[int, int]:
        return (self.input_size, self.input_size) if isinstance(self.input_size, int) else tuple(self.input_size)  # type: ignore[return-value]

    @property
    def tokens(self) -> int:
        return (self.size[0] // self.patch_size) * (self.size[1] // self.patch_size)

    @property
    def out_channels(self) -> int:
        return self.in_channels * (2 if self.learn_sigma else 1)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one sample: (C, H, W)."""
        return (self.in_channels, *self.size)

    @property
    def condition(self) -> Condition:
        """The null label is one above the last class."""
        if not self.num_classes:
            return Nothing()
        return Classes(self.num_classes, self.num_classes if self.class_dropout_prob > 0 else None, self.class_dropout_prob)

    def macs(self) -> int:
        """Multiply-accumulates of one forward pass of one sample; the "Gflops" of the paper are these (T.8)."""
        N, D, L, p = self.tokens, self.hidden_size, self.depth, self.patch_size
        M = 2 if self.num_classes else 1  # embeddings
        n = N + M if self.conditioning == "in_context" else N
        own = {"adaln_zero": 6 * D * D, "adaln": 4 * D * D, "cross_attention": 2 * (N + M) * D * D + 2 * N * M * D}  # (T.13)
        block = (4 + 2 * self.mlp_ratio) * n * D * D + 2 * n * n * D + own.get(self.conditioning, 0)  # (T.8)
        final = 2 * D * D if self.conditioning.startswith("adaln") else 0
        return int(L * block + N * D * p * p * (self.in_channels + self.out_channels) + final + FREQUENCIES * D + D * D)

    def parameters(self) -> int:
        """Numbers in the checkpoint of such a model, the frozen position table included, as the paper counts (T.9)."""
        D, L, p = self.hidden_size, self.depth, self.patch_size
        inner = int(D * self.mlp_ratio)
        own = {"adaln_zero": 6 * D * D + 6 * D, "adaln": 4 * D * D + 4 * D, "cross_attention": 4 * D * D + 10 * D}
        block = 4 * D * D + 4 * D + 2 * D * inner + inner + D + own.get(self.conditioning, 4 * D)  # (T.14)
        final = 2 * D * D + 2 * D if self.conditioning.startswith("adaln") else 2 * D
        out = p * p * self.out_channels
        ends = (self.in_channels * p * p + 1) * D + (FREQUENCIES + 1) * D + (D + 1) * D + final + (D + 1) * out
        return L * block + ends + self.condition.rows * D + self.tokens * D  # (T.9)


class DiTBlock(Module):
    """x : (B, N, D), c : (B, D)  ->  (B, N, D); modulation : (B, 6D) if it was made elsewhere."""

    def __init__(self, width: int, heads: int, inner: int, eps: float = 1e-6) -> None:
        self.eps = eps
        self.attn = SelfAttention(width, heads)
        self.mlp = Mlp(width, inner)
        self.adaLN_modulation = Sequential(SiLU(), Linear(width, 6 * width, init=zeros))  # (T.7)

    def forward(self, x: Any, c: Any, modulation: Any = None) -> Any:
        modulation = self.adaLN_modulation(c) if modulation is None else modulation
        shift1, scale1, gate1, shift2, scale2, gate2 = ops.split(modulation, parts=6)  # (T.4)
        if in_coarse_steps(x):
            return self.coarse(x, shift1, scale1, gate1, shift2, scale2, gate2)
        x = ops.gated_residual(x, gate1, self.attn(ops.layer_norm_modulate(x, shift1, scale1)))  # (T.5)
        return ops.gated_residual(x, gate2, self.mlp(ops.layer_norm_modulate(x, shift2, scale2, eps=self.eps)))  # (T.5)

    def coarse(self, x: Any, shift1: Any, scale1: Any, gate1: Any, shift2: Any, scale2: Any, gate2: Any) -> Any:
        """The same in fewer and larger steps, for a GPU, where each has its price: the last linear of a branch, its gate, the
        sum and the next norm are one primitive."""
        o, fc2, h = self.attn.proj, self.mlp.fc2, self.attn.mixed(ops.layer_norm_modulate(x, shift1, scale1))
        x, h = ops.linear_residual_modulate(x, gate1, h, o.weight, o.bias, shift2, scale2, eps=self.eps)
        return ops.linear_residual(x, gate2, self.mlp.inner(h), fc2.weight, fc2.bias)


def in_coarse_steps(x: Any) -> bool:
    """Whether the number of kernels matters here: on a GPU, unless everything is to run as it reads."""
    return kernels_on() and not isinstance(value(x), np.ndarray)


class FinalLayer(Module):
    """x : (B, N, D), c : (B, D)  ->  (B, N, p p C_out)"""

    def __init__(self, width: int, out: int) -> None:
        self.linear = Linear(width, out, init=zeros)  # (T.7)
        self.adaLN_modulation = Sequential(SiLU(), Linear(width, 2 * width, init=zeros))

    def forward(self, x: Any, c: Any) -> Any:
        shift, scale = ops.split(self.adaLN_modulation(c), parts=2)
        return self.linear(ops.layer_norm_modulate(x, shift, scale))  # (T.6)


CONDITIONING: dict[str, Conditioning] = {
    "adaln_zero": Conditioning(DiTBlock, FinalLayer, other.summed, other.unchanged),
    "adaln": Conditioning(other.AdaLNBlock, FinalLayer, other.summed, other.unchanged),
    "cross_attention": Conditioning(other.CrossAttentionBlock, other.PlainFinalLayer, other.as_context, other.unchanged),
    "in_context": Conditioning(other.PlainBlock, other.PlainFinalLayer, other.as_tokens, other.first),
}


class DiT(Module):
    """out = model(x, t, y):  x (B, C, H, W), t (B,) as Schedule.time gives it, y (B,) int  ->  (B, C or 2C, H, W).

    rng=None allocates without initialising, for loading. y=None is for num_classes=0. Raises ValueError for wrong shapes.
    """

    pos_embed: Array
    blocks: list[Any]

    def __init__(self, config: DiTConfig, rng: Philox | None = None, *, device: str = "cpu", dtype: Any = np.float32) -> None:
        D, p = config.hidden_size, config.patch_size
        self.config = config
        self.shape, self.condition, self.second_half = config.shape, config.condition, config.learn_sigma
        H, W = config.size
        self.register_buffer("pos_embed", sincos_2d(D, H // p, W // p)[None])
        self.x_embedder = PatchEmbed(config.in_channels, D, p)
        self.t_embedder = TimestepEmbedder(D, config.freq_shift)
        if config.num_classes:
            self.y_embedder = LabelEmbedder(config.num_classes, D, config.class_dropout_prob)
        self.how = CONDITIONING[config.conditioning]
        own = {"eps": config.mlp_norm_eps} if config.conditioning == "adaln_zero" else {}
        self.blocks = [self.how.block(D, config.num_heads, int(D * config.mlp_ratio), **own) for _ in range(config.depth)]
        self.final_layer = self.how.final(D, p * p * config.out_channels)
        self.build(rng, device=device, dtype=dtype)

    def null(self, y: Array | None) -> Array:
        """The labels of the same batch with the class left out. Raises ValueError if the model has no null label."""
        return self.condition.left_out(y)

    @property
    def null_label(self) -> int:
        """The label of a sample whose class is not told."""
        return self.config.num_classes

    def layout_order(self, parameters: dict[str, Parameter]) -> list[Parameter]:
        """The blocks' modulation weights first, then their biases: one matrix and one vector for all blocks."""
        first = [p for tail in ("weight", "bias") for n, p in parameters.items() if n.endswith(f"adaLN_modulation.1.{tail}")]
        return first + [p for p in parameters.values() if not any(p is q for q in first)]

    def modulations(self, c: Any) -> list[Any]:
        """(T.4) of all blocks in one product, whose weights lie side by side; None for a block that makes its own."""
        if self.config.conditioning != "adaln_zero":
            return [None] * self.config.depth
        linears = [block.adaLN_modulation[1] for block in self.blocks]
        weight, bias = (ops.concat(*(getattr(linear, name) for linear in linears), axis=0) for name in ("weight", "bias"))
        return list(ops.split(ops.linear(ops.silu(c), weight, bias), parts=len(linears)))

    def forward(self, x: Any, t: Array, y: Array | None = None) -> Any:
        config = self.config
        self._check(x, t, y)
        h = self.x_embedder(x) + self.pos_embed
        embeddings = [self.t_embedder(t)] + ([] if y is None else [self.y_embedder(y)])
        h, c = self.how.enter(h, embeddings)
        if config.conditioning.startswith("adaln"):  # layer norms without trained weights, which stay float32
            h, c = stored(h), stored(c)
        for block, modulation in zip(self.blocks, self.modulations(c), strict=True):
            h = run(block, h, c, modulation)
        h = self.final_layer(self.how.leave(h, config.tokens), c)
        return ops.unpatchify(restored(h, x), patch_size=config.patch_size, size=config.size)

    def _check(self, x: Any, t: Array, y: Array | None) -> None:
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"x has shape {tuple(x.shape)}, expected (B, {', '.join(map(str, self.shape))})")
        check_one_per_sample("t", t, len(x))
        self.condition.check(y, len(x))


_SIZES = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16), "XL": (1152, 28, 16)}

DIT: dict[str, DiTConfig] = {
    f"DiT-{name}/{p}": DiTConfig(hidden_size=width, depth=depth, num_heads=heads, patch_size=p)
    for name, (width, depth, heads) in _SIZES.items()
    for p in (2, 4, 8)
}
_TINY = DiTConfig(input_size=8, hidden_size=128, depth=4, num_heads=4, num_classes=10, learn_sigma=False)
DIT["fashion"] = _TINY  # 4 × 8 × 8 latents of 32 × 32 pictures
DIT["digits"] = replace(_TINY, in_channels=1, hidden_size=96)  # 8 × 8 pixels
