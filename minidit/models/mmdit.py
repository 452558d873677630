"""MM-DiT, the diffusion transformer of Stable Diffusion 3 (Esser et al. 2024): words and picture are two streams with weights of
their own, and meet in one attention.

    a = LN(h) ⊙ (1 + γ₁) + β₁,   for each stream h of (context, x), with (β₁, γ₁, α₁, β₂, γ₂, α₂) = Linear_h(SiLU(c))   (T.22)
    (y_context; y_x) = Attn(a_context; a_x)               joint, (N.14); with QK-norm (A.29) since 3.5
    h ← h + α₁ ⊙ W_h y_h,    h ← h + α₂ ⊙ MLP_h(LN(h) ⊙ (1 + γ₂) + β₂)                                                  (T.23)
    x ← x + α₃ ⊙ Attn'(LN(x) ⊙ (1 + γ₃) + β₃)             between the two parts of (T.23), in blocks of dual attention     (T.24)
    the context of the last block is only looked at: it has no W_h, no MLP, and two modulations                            (T.25)

With equal weights in both streams a joint block is a DiT block on (context; x), and without words it is one on x. Parameter names
are those of the official checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from minidit import ops
from minidit.autograd import Value
from minidit.backend import Array
from minidit.keywords import check_config
from minidit.models.backbone import PictureNetwork, check_inputs
from minidit.models.dit import FinalLayer
from minidit.models.embedders import TimestepEmbedder, embedders_of, read
from minidit.models.mmdit_config import MMDiTConfig
from minidit.nn import Linear, Mlp, Module, PatchEmbed, Sequential, SiLU, StreamAttention, joint_attention
from minidit.nn.attention import Turn
from minidit.nn.block import ModulatedBlock
from minidit.nn.initial import zeros
from minidit.nn.position import centre, sincos_2d
from minidit.nn.stack import through
from minidit.random import Philox

__all__ = ["MMDiT", "MMDiTConfig"]

Turns = Callable[[int], Turn]


class Stream(Module):
    """The weights of one stream of a joint block. dual: it attends to itself as well; last: it is only looked at."""

    def __init__(self, width: int, heads: int, inner: int, *, qk_norm: bool, dual: bool = False, last: bool = False) -> None:
        self.parts = 2 if last else 9 if dual else 6  # modulations
        self.attn = StreamAttention(width, heads, qk_norm=qk_norm, out=not last)
        self.attn2 = StreamAttention(width, heads, qk_norm=qk_norm) if dual else None
        self.mlp = None if last else Mlp(width, inner)
        self.adaLN_modulation = Sequential(SiLU(), Linear(width, self.parts * width, init=zeros))

    def go_on(self, h: Value, y: Value, m: list[Value]) -> Value:
        """h : (B, N, D), y the heads of the joint attention, m the modulations  ->  h after the block."""
        gate1, shift2, scale2, gate2 = m[2:6]
        h, x = self.attn.leave(h, gate1, y), h
        if self.attn2 is not None:
            shift3, scale3, gate3 = m[6:]
            (y,) = joint_attention([self.attn2], [ops.layer_norm_modulate(x, shift3, scale3)])
            h = self.attn2.leave(h, gate3, y)  # (T.24)
        assert self.mlp is not None
        return ops.gated_residual(h, gate2, self.mlp(ops.layer_norm_modulate(h, shift2, scale2)))  # (T.23)


class JointBlock(ModulatedBlock):
    """(context; x) : (B, M + N, D), c : (B, D)  ->  the same, or x alone after the last block. M may be 0: no words."""

    float32_tokens = True  # the gains of QK-norm are float32 under every policy

    def __init__(self, x: Stream, context: Stream | None, tokens: int, turn: Turns | None = None) -> None:
        self.tokens, self.turn = tokens, turn  # N; RoPE for M words, in FLUX
        self.context_block, self.x_block = context, x

    def modulations(self) -> list[Linear]:
        return [s.adaLN_modulation[1] for s in (self.context_block, self.x_block) if s is not None]

    def forward(self, h: Value, c: Value) -> Value:
        return self.modulated(h, ops.concat(*(linear(ops.silu(c)) for linear in self.modulations())))

    def modulated(self, h: Value, m: Value) -> Value:
        streams = [s for s in (self.context_block, self.x_block) if s is not None]
        parts = list(ops.split(m, parts=sum(s.parts for s in streams)))  # of width D each: the context's, then those of x
        modulations = [parts[: streams[0].parts], parts[streams[0].parts :]][: len(streams)]
        hs, words = [h], h.shape[1] - self.tokens
        if not words:
            streams, modulations = streams[-1:], modulations[-1:]
        elif len(streams) == 2:
            hs = list(ops.split(h, parts=(words, self.tokens), axis=1))
        entered = [ops.layer_norm_modulate(h, m[0], m[1]) for h, m in zip(hs, modulations, strict=True)]  # (T.22)
        ys = joint_attention([s.attn for s in streams], entered, None if self.turn is None else self.turn(words))
        outs = [s.go_on(h, y, m) for s, h, y, m in zip(streams, hs, ys, modulations, strict=True) if s.mlp is not None]  # (T.25)
        return outs[0] if len(outs) == 1 else ops.concat(*outs, axis=1)


class MMDiT(PictureNetwork):
    """out = model(x, t, y):  x (B, C, H, W), t (B,) as the path gives it  ->  (B, C or 2C, H, W).

    y : (B, length) ints, captions; or classes (B,), or None; or, of models for text encoders, a pair (their tokens (B, M, width),
    their vector (B, pooled)). rng=None allocates without initialising, for loading. Raises ValueError for wrong shapes.
    """

    config: MMDiTConfig
    joint_blocks: list[JointBlock]
    pos_embed: Array

    def __init__(
        self, config: MMDiTConfig, rng: Philox | None = None, *, device: str = "cpu", dtype: DTypeLike = np.float32
    ) -> None:
        check_config(self, config, MMDiTConfig, "md.MMDIT")
        D, p, self.config, condition = config.hidden_size, config.patch_size, config, config.condition
        self.shape, self.condition, self.second_half = config.shape, condition, config.learn_sigma
        self.x_embedder = PatchEmbed(config.in_channels, D, p)
        self.register_buffer("pos_embed", sincos_2d(D, config.side[0], config.side[1], config.unit)[None])
        self.t_embedder = TimestepEmbedder(D)
        self.context_embedder, self.y_embedder = embedders_of(condition, D)
        self.joint_blocks = [block_of(config, i) for i in range(config.depth)]
        self.final_layer = FinalLayer(D, p * p * config.out_channels, config.tokens)
        self.build(rng, device=device, dtype=dtype)

    def forward(self, x: Value, t: Array, y: Any = None) -> Value:
        check_inputs(self, x, t, y)
        context, more = read(self.context_embedder, self.y_embedder, y)
        c = self.t_embedder(t) if more is None else self.t_embedder(t) + more
        h = self.x_embedder(x) + centre(self.pos_embed, *self.config.side, *self.config.grid)
        h = h if context is None else ops.concat(context, h, axis=1)
        h = through(self.joint_blocks, self.final_layer, h, c)
        return ops.unpatchify(h, patch_size=self.config.patch_size, size=self.config.size)


def block_of(config: MMDiTConfig, i: int) -> JointBlock:
    """The i-th block. A model without words has no stream for them."""
    D, h, norm, last = config.hidden_size, config.num_heads, config.qk_norm, i == config.depth - 1
    context = Stream(D, h, int(D * config.context_ratio), qk_norm=norm, last=last) if config.words else None
    x = Stream(D, h, int(D * config.mlp_ratio), qk_norm=norm, dual=i in config.dual_attention)
    return JointBlock(x, context, config.tokens)
