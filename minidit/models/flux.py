"""FLUX.1 (Black Forest Labs 2024): an MM-DiT with rotary places whose later blocks have one stream, and that knows its guidance.

    (q, k) ← RoPE(norm(q), norm(k)),  places (0, row, column) of patches and (0, 0, 0) of words                   (A.29, A.30)
    double block:   (T.22), (T.23) on two streams
    single block:   a = LN(h) ⊙ (1 + γ) + β,    h ← h + α ⊙ (W_a Attn(a) + W_m gelu(W₁ a + b₁) + b),    h = (context; x)  (T.27)
    c ← c + G(w) - G(1),    G(w) = MLP(emb(1000 w)),  last weight zero at the start                       guidance         (T.28)

Attention and MLP of a single block run side by side. G(1) is left out in FLUX.1 itself; with it, w = 1 is the plain conditional
network however G was trained. Without words, a shift of all places changes nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from minidit import ops
from minidit.autograd import Value
from minidit.backend import Array, xp_of
from minidit.keywords import check_config
from minidit.models.backbone import PictureNetwork, check_inputs
from minidit.models.dit import FinalLayer
from minidit.models.embedders import TimestepEmbedder, embedders_of, read
from minidit.models.flux_config import FluxConfig, turn_of
from minidit.models.mmdit import JointBlock, Stream, Turns
from minidit.nn import Linear, Mlp, PatchEmbed, Sequential, SiLU, StreamAttention, joint_attention
from minidit.nn.block import ModulatedBlock
from minidit.nn.initial import zeros
from minidit.nn.stack import through
from minidit.random import Philox

__all__ = ["Flux", "FluxConfig"]


class SingleBlock(ModulatedBlock):
    """h = (context; x) : (B, M + N, D), c : (B, D)  ->  the same."""

    float32_tokens = True  # the gains of QK-norm are float32 under every policy

    def __init__(self, width: int, heads: int, inner: int, tokens: int, turn: Turns) -> None:
        self.tokens, self.turn = tokens, turn
        self.attn = StreamAttention(width, heads, qk_norm=True, out=False)
        self.proj, self.mlp = Linear(width, width, bias=False), Mlp(width, inner)
        self.adaLN_modulation = Sequential(SiLU(), Linear(width, 3 * width, init=zeros))

    def modulated(self, h: Value, m: Value) -> Value:
        shift, scale, gate = ops.split(m, parts=3)
        a = ops.layer_norm_modulate(h, shift, scale)
        (y,) = joint_attention([self.attn], [a], self.turn(h.shape[1] - self.tokens))
        return ops.gated_residual(h, gate, self.proj(y) + self.mlp(a))  # (T.27)


class Flux(PictureNetwork):
    """out = model(x, t, y, w=…):  x (B, C, H, W), t (B,) as the path gives it  ->  (B, C or 2C, H, W).

    y : captions, classes, a text encoder's outputs or None, as of an MM-DiT. w : a guidance scale, or one per sample; None is 1,
    the plain conditional network. Raises ValueError for wrong shapes, and for a w that the network does not know.
    """

    config: FluxConfig

    def __init__(
        self, config: FluxConfig, rng: Philox | None = None, *, device: str = "cpu", dtype: DTypeLike = np.float32
    ) -> None:
        check_config(self, config, FluxConfig, "md.FLUX")
        D, h, p, N = config.hidden_size, config.num_heads, config.patch_size, config.tokens
        inner, self.config = int(D * config.mlp_ratio), config
        self.shape, self.condition, self.second_half = config.shape, config.condition, config.learn_sigma
        self.x_embedder = PatchEmbed(config.in_channels, D, p)
        self.t_embedder = TimestepEmbedder(D)
        self.guidance_embedder = TimestepEmbedder(D, last=zeros) if config.guidance != "none" else None
        self.context_embedder, self.y_embedder = embedders_of(self.condition, D)
        turn: Turns = lambda words: turn_of(words, config.grid, config.axes)
        self.double_blocks = [
            JointBlock(Stream(D, h, inner, qk_norm=True), Stream(D, h, inner, qk_norm=True) if config.words else None, N, turn)
            for _ in range(config.depth)
        ]
        self.single_blocks = [SingleBlock(D, h, inner, N, turn) for _ in range(config.single_depth)]
        self.final_layer = FinalLayer(D, p * p * config.out_channels, N)
        self.build(rng, device=device, dtype=dtype)

    def forward(self, x: Value, t: Array, y: Any = None, *, w: Any = None) -> Value:
        check_inputs(self, x, t, y)
        context, more = read(self.context_embedder, self.y_embedder, y)
        c = self.t_embedder(t) if more is None else self.t_embedder(t) + more
        c = self._guided(c, t, w)
        h = self.x_embedder(x)
        h = h if context is None else ops.concat(context, h, axis=1)
        h = through([*self.double_blocks, *self.single_blocks], self._last, h, c)
        return self._picture(h)

    def _guided(self, c: Value, t: Array, w: Any) -> Value:
        """c with what the guidance scale adds (T.28)."""
        G = self.guidance_embedder
        if G is None:
            if w is not None:
                raise ValueError(f"w = {w!r}: this network was built without guidance")
            return c
        xp = xp_of(t)
        w = xp.broadcast_to(xp.asarray(1.0 if w is None else w, np.float64), t.shape)
        c = c + G(1000.0 * w)
        return c - G(xp.full(t.shape, 1000.0)) if self.config.guidance == "from_one" else c  # (T.28)

    def _last(self, h: Value, c: Value) -> Value:
        words = h.shape[1] - self.config.tokens
        x = ops.split(h, parts=(words, self.config.tokens), axis=1)[1] if words else h
        return self.final_layer(x, c)

    def _picture(self, tokens: Value) -> Value:
        """Tokens of (C, p, p) numbers each, the order in which `patchify` (T.1) flattens them, as a picture."""
        (h, w), p, C = self.config.grid, self.config.patch_size, self.config.out_channels
        cut = ops.reshape(tokens, shape=(-1, h, w, C, p, p))
        return ops.reshape(ops.transpose(cut, axes=(0, 3, 1, 4, 2, 5)), shape=(-1, C, h * p, w * p))
