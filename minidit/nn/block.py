"""The common parts of transformer blocks, and the form in which a GPU runs a gated block.

    m  = W SiLU(c) + b                                       shifts, scales and gates of one block, concatenated
    x' = x + α₁ ⊙ (W_o a + b_o),   h = LN(x') ⊙ (1 + γ₂) + β₂      one primitive on a GPU, with a the heads before W_o
    y  = x' + α₂ ⊙ (W₂ gelu(W₁ h + b₁) + b₂),   LN(y) ⊙ (1 + γ₁) + β₁      one primitive, the last with the next block's γ₁, β₁
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from minidit import ops
from minidit.autograd import Value, kernels_on, value
from minidit.nn.attention import SelfAttention
from minidit.nn.layers import Linear, Sequential
from minidit.nn.mlp import Mlp
from minidit.nn.module import Module


class Costs(NamedTuple):
    """Costs of a block or a final layer, besides its attention, its MLP and its last linear layer."""

    macs: int  # of one sample
    parameters: int
    kept: int = 0  # numbers per token and channel that the adjoint of a whole block keeps, its MLP's inner width not counted
    kept_of_sample: int = 0  # numbers per sample and channel: shifts, scales, gates, or embeddings
    more_tokens: int = 0  # tokens of attention and MLP besides those of the picture


class Block(Module):
    """One block of a stack: x : (B, N, D), c  ->  (B, N, D)."""

    float32_tokens: ClassVar[bool] = True  # its layer norms have trained weights, which are float32 under every policy

    @staticmethod
    def costs(N: int, M: int, D: int) -> Costs:
        """Costs of a block of width D on N tokens with M embeddings of the condition."""
        raise NotImplementedError


class ModulatedBlock(Block):
    """A block whose condition c : (B, D) enters by one linear layer: it uses c only through m : (B, parts · D).

    A stack computes the m of all blocks in one product; a single block computes its own.
    """

    float32_tokens = False
    adaLN_modulation: Sequential

    def modulations(self) -> list[Linear]:
        """The linear layers whose outputs, side by side, are m."""
        return [self.adaLN_modulation[1]]

    def modulated(self, x: Value, m: Value) -> Value:
        """The block on tokens x with its part m of the condition."""
        raise NotImplementedError

    @staticmethod
    def joined(blocks: Sequence[Any], x: Value, ms: Sequence[Value]) -> Value | None:
        """`modulated` of all blocks of this kind, one after another, in fewer kernels for a GPU; None: there is no such form."""
        return None

    def forward(self, x: Value, c: Value) -> Value:
        return self.modulated(x, self.adaLN_modulation(c))


def launches_matter(x: Value) -> bool:
    """Whether fewer and larger kernels are faster here: on a GPU, unless the plain text is switched on."""
    return kernels_on() and not isinstance(value(x), np.ndarray)


Text = Callable[[Any, Value, Value], Value]  # a method of a block: (block, tokens, its part of the condition) -> tokens


def in_large_steps(large: Text) -> Callable[[Text], Text]:
    """`@in_large_steps(large)` above a method of a block: on a GPU `large`, the same function in fewer kernels, runs instead."""

    def choice(plain: Text) -> Text:
        @functools.wraps(plain)
        def chosen(block: Any, x: Value, m: Value) -> Value:
            return (large if launches_matter(x) else plain)(block, x, m)

        return chosen

    return choice


class GatedBlock(Protocol):
    """A block of two gated branches, attention and MLP."""

    attn: SelfAttention
    mlp: Mlp
    eps: float  # of the norm before the MLP


def first_branch(block: GatedBlock, x: Value, n: Value, pieces: Sequence[Value]) -> tuple[Value, Value]:
    """(x, h) of (T.5): x after the attention, and its norm for the MLP. n : that for the attention; pieces : of m, as in (T.4)"""
    _, _, gate, shift, scale, _ = pieces
    o, heads = block.attn.proj, block.attn.mixed(n)
    joined: tuple[Value, Value] = ops.linear_residual_modulate(x, gate, heads, o.weight, o.bias, shift, scale, eps=block.eps)
    return joined


def mlp_of(block: GatedBlock) -> tuple[Value, ...]:
    """(W₁, b₁, W₂, b₂) of its MLP."""
    fc1, fc2 = block.mlp.fc1, block.mlp.fc2
    return fc1.weight, fc1.bias, fc2.weight, fc2.bias


def gated_branches(block: GatedBlock, x: Value, m: Value) -> Value:
    """(T.5) for a GPU, m : (B, 6D) as in (T.4). The last linear layer of a branch, its gate, the sum and the next norm are one
    primitive."""
    pieces = ops.split(m, parts=6)
    x, h = first_branch(block, x, ops.layer_norm_modulate(x, *pieces[:2]), pieces)
    return ops.mlp_residual(x, pieces[5], h, *mlp_of(block))


def gated_stack(blocks: Sequence[GatedBlock], x: Value, ms: Sequence[Value]) -> Value:
    """`gated_branches` of several blocks, one after another: the end of each is joined with the norm at the start of the next."""
    pieces = [ops.split(m, parts=6) for m in ms]
    n = ops.layer_norm_modulate(x, *pieces[0][:2])
    for k, block in enumerate(blocks):
        x, h = first_branch(block, x, n, pieces[k])
        if k + 1 < len(blocks):
            x, n = ops.mlp_residual_modulate(x, pieces[k][5], h, *mlp_of(block), *pieces[k + 1][:2])
        else:
            x = ops.mlp_residual(x, pieces[k][5], h, *mlp_of(block))
    return x
