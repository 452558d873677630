"""Blocks one after another, and the engine's work between them, which a paper's equations leave out.

    x_k = block_k(x_{k-1}, c),   k = 1 .. L,        then last(x_L, c)

Three things change no equation: tokens may be stored in the type of the precision policy, a block may keep its inputs only and
run again when its gradient is needed, and the modulations of all blocks are computed from c in one product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minidit import ops
from minidit.autograd import Value
from minidit.nn.block import Block, ModulatedBlock
from minidit.nn.module import Parameter
from minidit.nn.precision import restored, stored
from minidit.nn.recompute import run


def through(blocks: Sequence[Block], last: Callable[[Value, Value], Value], x: Value, c: Value) -> Value:
    """last(x_L, c) in the type of x. The blocks are of one kind; `last` is not recomputed, because its adjoint runs first."""
    h = x
    if not blocks[0].float32_tokens:
        h, c = stored(h), stored(c)
    for call, part in calls_of(blocks, c):
        h = run(call, h, part)
    return restored(last(h, c), x)


def calls_of(blocks: Sequence[Block], c: Value) -> list[tuple[Callable[..., Any], Any]]:
    """(f, m) for every block, so that f(x, m) is block(x, c)."""
    modulated = [block for block in blocks if isinstance(block, ModulatedBlock)]
    if len(modulated) < len(blocks):
        return [(block, c) for block in blocks]
    return [(block.modulated, m) for block, m in zip(modulated, modulations(modulated, c), strict=True)]


def modulations(blocks: Sequence[ModulatedBlock], c: Value) -> Sequence[Any]:
    """(T.4) of all blocks in one product: the flat buffer holds their weights side by side, see `modulations_first`."""
    linears = [block.modulations() for block in blocks]
    weight, bias = (ops.concat(*(getattr(one, name) for own in linears for one in own), axis=0) for name in ("weight", "bias"))
    widths = tuple(sum(one.weight.declared[0] for one in own) for own in linears)
    equal = len(set(widths)) == 1
    parts: Sequence[Any] = ops.split(ops.linear(ops.silu(c), weight, bias), parts=len(widths) if equal else widths)
    return parts


def modulations_first(parameters: dict[str, Parameter]) -> list[Parameter]:
    """A layout of the flat buffer: all weights of modulations, then their biases, one matrix and one vector; then the rest."""
    first = [p for tail in ("weight", "bias") for n, p in parameters.items() if n.endswith(f"adaLN_modulation.1.{tail}")]
    return first + [p for p in parameters.values() if not any(p is q for q in first)]
