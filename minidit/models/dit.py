"""DiT, the diffusion transformer (Peebles and Xie 2022), with adaLN-Zero conditioning.

    (β₁, γ₁, α₁, β₂, γ₂, α₂) = Linear(SiLU(c))        shift, scale, gate for attention, then for the MLP      (T.4)
    x ← x + α₁ ⊙ Attn(LN(x) ⊙ (1 + γ₁) + β₁)
    x ← x + α₂ ⊙ MLP(LN(x) ⊙ (1 + γ₂) + β₂)                                                                   (T.5)
    out = unpatchify(Linear(LN(x) ⊙ (1 + γ) + β)),    (β, γ) = Linear(SiLU(c))                                 (T.6)
    all linears that make α, β, γ, and the last linear, start at zero: every block is the identity, the output 0  (T.7)

Parameter names are those of the official checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import DTypeLike

from minidit import ops
from minidit.autograd import Value
from minidit.backend import Array
from minidit.choices import check_words, one_of
from minidit.keywords import Named, check_config, suggesting
from minidit.models import variants
from minidit.models.backbone import OfPatches, PictureNetwork, check_inputs
from minidit.models.condition import Condition, Tokens, check_dropout
from minidit.models.embedders import FREQUENCIES, CaptionEmbedder, LabelEmbedder, TimestepEmbedder
from minidit.models.variants import Variant, summed
from minidit.nn import Linear, Mlp, Module, PatchEmbed, SelfAttention, Sequential, SiLU, sincos_2d
from minidit.nn.block import Block, Costs, ModulatedBlock, gated_branches, gated_stack, in_large_steps
from minidit.nn.initial import zeros
from minidit.nn.memory import HOMES, SampleMemory
from minidit.nn.stack import through
from minidit.random import Philox

CONDITIONINGS = ("adaln_zero", "adaln", "cross_attention", "in_context")  # rows of VARIANTS


@suggesting
@dataclass(frozen=True)
class DiTConfig(OfPatches):
    """The sizes of a DiT. Raises ValueError if they conflict."""

    input_size: int | tuple[int, int] = 32  # height and width of the (latent) image
    patch_size: int = 2  # pixels or latents per side of a token: twice as many are a quarter of the work
    in_channels: int = 4
    hidden_size: int = 384  # the width: numbers per token
    depth: int = 12  # blocks
    num_heads: int = 6  # heads of attention; they divide the width
    mlp_ratio: float = 4.0  # hidden width of the MLP, in widths
    class_dropout_prob: float = 0.1  # how often training leaves the class out, which guidance needs
    num_classes: int = 1000  # 0: unconditional
    vocabulary: int = 0  # words of captions, padding (0) among them; 0: no captions
    caption_length: int = 0  # words per caption
    word_dropout_prob: float = 0.0  # words of captions that training makes unknown
    conditioning: str = one_of("adaln_zero", CONDITIONINGS)  # how the condition enters the blocks
    learn_sigma: bool = True  # twice the channels: the second half is for the variance
    freq_shift: int = 0  # 1: the frequencies of time that diffusers uses, N.10
    mlp_norm_eps: float = 1e-6  # of the layer norm before the MLP; 1e-5 in diffusers

    def __post_init__(self) -> None:
        self.check_sizes(self.depth)
        check_dropout(self.num_classes, self.class_dropout_prob, self.word_dropout_prob)
        if (self.vocabulary > 0) != (self.caption_length > 0) or (self.vocabulary > 0 and self.num_classes > 0):
            raise ValueError("vocabulary and caption_length go together, and without classes")
        check_words(self)
        if self.freq_shift not in (0, 1) or not self.mlp_norm_eps > 0:
            raise ValueError(f"freq_shift {self.freq_shift} must be 0 or 1, mlp_norm_eps {self.mlp_norm_eps} above 0")
        if self.mlp_norm_eps != 1e-6 and self.conditioning != "adaln_zero":
            raise ValueError("mlp_norm_eps is a setting of adaln_zero blocks only")

    @property
    def condition(self) -> Condition:
        """Classes, captions or nothing; the null word is one above the last word."""
        if not self.vocabulary:
            return super().condition
        null = self.vocabulary if self.class_dropout_prob > 0 else None
        return Tokens(self.vocabulary, self.caption_length, null, self.class_dropout_prob, self.word_dropout_prob)

    def captioned(self, vocabulary: int, length: int) -> Self:
        """The same DiT for captions of so many words, out of so many. It reads them as a bag, whose order it does not see."""
        return replace(self, vocabulary=vocabulary, caption_length=length, num_classes=0)

    @property
    def embeddings(self) -> int:
        """The number of embeddings of the condition: time, and class or caption if there is one."""
        return 2 if self.condition.count else 1

    @property
    def variant(self) -> Variant:
        """Block, final layer and the way in of the conditioning."""
        return VARIANTS[self.conditioning]

    def costs(self) -> Costs:
        """Costs of one block."""
        return self.variant.block.costs(self.tokens, self.embeddings, self.hidden_size)

    def macs(self) -> int:
        """Multiply-accumulates of one forward pass of one sample; the "Gflops" of the paper are these (T.8)."""
        N, D, L, p = self.tokens, self.hidden_size, self.depth, self.patch_size
        extra, final = self.costs(), self.variant.final.costs(D)  # (T.13)
        n = N + extra.more_tokens
        block = (4 + 2 * self.mlp_ratio) * n * D * D + 2 * n * n * D + extra.macs  # (T.8)
        ends = N * D * p * p * (self.in_channels + self.out_channels) + FREQUENCIES * D + (3 if self.vocabulary else 1) * D * D
        return int(L * block + ends + final.macs)

    def parameters(self) -> int:
        """Numbers in the checkpoint of such a model, the frozen position table included, as the paper counts (T.9)."""
        D, L, p = self.hidden_size, self.depth, self.patch_size
        inner, extra, final = int(D * self.mlp_ratio), self.costs(), self.variant.final.costs(D)  # (T.14)
        block = 4 * D * D + 4 * D + 2 * D * inner + inner + D + extra.parameters
        out = p * p * self.out_channels
        ends = (self.in_channels * p * p + 1) * D + (FREQUENCIES + 1) * D + (D + 1) * D + final.parameters + (D + 1) * out
        mlp = 2 * (D * D + D) if self.vocabulary else 0
        return L * block + ends + self.condition.rows * D + mlp + self.tokens * D  # (T.9)

    def step_memory(self, home: str, precision: str) -> SampleMemory:
        """The memory of a training update per sample on "cpu" or "cuda"."""
        D, r, extra, at = self.hidden_size, self.mlp_ratio, self.costs(), HOMES[home]
        n = self.tokens + extra.more_tokens
        size = 2 if home == "cuda" and precision == "bf16" and not self.variant.block.float32_tokens else 4
        block = size * ((extra.kept + at.inner_kept * r) * n * D + extra.kept_of_sample * D) + at.attention(n, self.num_heads)
        ends = 4 * math.prod(self.size) * (self.in_channels + self.out_channels)
        working = size * (at.working + at.inner_made * r) * n * D + at.ends * ends
        return SampleMemory(self.depth * block, block, self.depth * size * n * D, working, size, apart=4 * 2 * r * D * D)


class DiTBlock(ModulatedBlock):
    """x : (B, N, D), c : (B, D)  ->  (B, N, D)"""

    def __init__(self, width: int, heads: int, inner: int, eps: float = 1e-6) -> None:
        self.eps = eps
        self.attn = SelfAttention(width, heads)
        self.mlp = Mlp(width, inner)
        self.adaLN_modulation = Sequential(SiLU(), Linear(width, 6 * width, init=zeros))  # (T.7)

    @in_large_steps(gated_branches)
    def modulated(self, x: Value, m: Value) -> Value:
        """m : (B, 6D) = Linear(SiLU(c)), the output of adaLN_modulation."""
        shift1, scale1, gate1, shift2, scale2, gate2 = ops.split(m, parts=6)  # (T.4)
        x = ops.gated_residual(x, gate1, self.attn(ops.layer_norm_modulate(x, shift1, scale1)))  # (T.5)
        return ops.gated_residual(x, gate2, self.mlp(ops.layer_norm_modulate(x, shift2, scale2, eps=self.eps)))  # (T.5)

    @staticmethod
    def joined(blocks: Sequence[DiTBlock], x: Value, ms: Sequence[Value]) -> Value:
        return gated_stack(blocks, x, ms)

    @staticmethod
    def costs(N: int, M: int, D: int) -> Costs:
        return Costs(macs=6 * D * D, parameters=6 * D * D + 6 * D, kept=10, kept_of_sample=7)


class FinalLayer(Module):
    """x : (B, N, D), c : (B, D)  ->  (B, N, p p C_out)"""

    def __init__(self, width: int, out: int, tokens: int) -> None:
        self.linear = Linear(width, out, init=zeros)  # (T.7)
        self.adaLN_modulation = Sequential(SiLU(), Linear(width, 2 * width, init=zeros))

    def forward(self, x: Value, c: Value) -> Value:
        shift, scale = ops.split(self.adaLN_modulation(c), parts=2)
        return self.linear(ops.layer_norm_modulate(x, shift, scale))  # (T.6)

    @staticmethod
    def costs(D: int) -> Costs:
        return Costs(macs=2 * D * D, parameters=2 * D * D + 2 * D)


VARIANTS: dict[str, Variant] = {
    "adaln_zero": Variant(DiTBlock, FinalLayer, summed),
    "adaln": Variant(variants.AdaLNBlock, FinalLayer, summed),
    "cross_attention": Variant(variants.CrossAttentionBlock, variants.PlainFinalLayer, variants.as_context),
    "in_context": Variant(variants.PlainBlock, variants.FirstTokens, variants.as_tokens),
}


class DiT(PictureNetwork):
    """out = model(x, t, y):  x (B, C, H, W), t (B,) as Schedule.time gives it, y (B,) int  ->  (B, C or 2C, H, W).

    y is (B, length) for captions, None for num_classes=0. rng=None allocates without initialising, for loading. Raises ValueError
    for wrong shapes.
    """

    config: DiTConfig
    pos_embed: Array
    blocks: list[Block]

    def __init__(
        self, config: DiTConfig, rng: Philox | None = None, *, device: str = "cpu", dtype: DTypeLike = np.float32
    ) -> None:
        check_config(self, config, DiTConfig, "md.DIT")
        D, p, variant = config.hidden_size, config.patch_size, config.variant
        self.config, self.enter = config, variant.enter
        self.shape, self.condition, self.second_half = config.shape, config.condition, config.learn_sigma
        self.register_buffer("pos_embed", sincos_2d(D, *config.grid)[None])
        self.x_embedder = PatchEmbed(config.in_channels, D, p)
        self.t_embedder = TimestepEmbedder(D, config.freq_shift)
        if config.condition.count:
            self.y_embedder = (CaptionEmbedder if config.vocabulary else LabelEmbedder)(config.condition.rows, D)
        inner = int(D * config.mlp_ratio)
        self.blocks = [variant.block(D, config.num_heads, inner, config.mlp_norm_eps) for _ in range(config.depth)]
        self.final_layer = variant.final(D, p * p * config.out_channels, config.tokens)
        self.build(rng, device=device, dtype=dtype)

    def forward(self, x: Value, t: Array, y: Array | None = None) -> Value:
        check_inputs(self, x, t, y)
        return self.conditioned(x, [self.t_embedder(t), *([] if y is None else [self.y_embedder(y)])])

    def conditioned(self, x: Value, embeddings: list[Value]) -> Value:
        """x : (B, C, H, W), the embeddings of its condition : (B, D) each  ->  (B, C or 2C, H, W)."""
        h, c = self.enter(self.x_embedder(x) + self.pos_embed, embeddings)  # T.3
        h = through(self.blocks, self.final_layer, h, c)  # T.4 and T.5 for every block, then T.6
        return ops.unpatchify(h, patch_size=self.config.patch_size, size=self.config.size)


_SIZES = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16), "XL": (1152, 28, 16)}

DIT: Named[DiTConfig] = Named(
    {
        f"DiT-{name}/{p}": DiTConfig(hidden_size=width, depth=depth, num_heads=heads, patch_size=p)
        for name, (width, depth, heads) in _SIZES.items()
        for p in (2, 4, 8)
    }
)
_TINY = DiTConfig(input_size=8, hidden_size=128, depth=4, num_heads=4, num_classes=10, learn_sigma=False)
DIT["demo"] = _TINY  # 4 × 8 × 8 latents of 32 × 32 pictures
DIT["fashion"] = replace(_TINY, hidden_size=160, depth=6, num_heads=5)  # that of the shipped weights
DIT["digits"] = replace(_TINY, in_channels=1, hidden_size=96)  # 8 × 8 pixels
DIT["words"] = replace(_TINY, input_size=32, patch_size=8, in_channels=3, hidden_size=192, depth=6, num_heads=6)  # for captions
