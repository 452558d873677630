"""Blocks one after another, and the engine's work between them, which a paper's equations leave out.

    x_k = block_k(x_{k-1}, c),   k = 1 .. L,        then last(x_L, c)

Four things change no equation: tokens may be stored in the type of the precision policy, a block may keep its inputs only and
run again when its gradient is needed, the modulations of all blocks are computed from c in one product, and on a GPU the end of
a block may be one kernel with the start of the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minidit import ops
from minidit.autograd import Value
from minidit.nn.block import Block, ModulatedBlock, launches_matter
from minidit.nn.module import Parameter
from minidit.nn.precision import restored, stored
from minidit.nn.recompute import recomputes, run


def through(blocks: Sequence[Block], last: Callable[[Value, Value], Value], x: Value, c: Value) -> Value:
    """last(x_L, c) in the type of x. The blocks are of one kind; `last` is not recomputed, because its adjoint runs first."""
    h = x
    if not blocks[0].float32_tokens:
        h, c = stored(h), stored(c)
    return restored(last(all_of(blocks, h, c), c), x)


def all_of(blocks: Sequence[Block], h: Value, c: Value) -> Value:
    """x_L from x_0 = h."""
    modulated = [block for block in blocks if isinstance(block, ModulatedBlock)]
    if len(modulated) < len(blocks):
        return one_by_one([(block, c) for block in blocks], h)
    parts = modulations(modulated, c)
    if len({type(block) for block in blocks}) == 1 and launches_matter(h) and not recomputes():
        joined = modulated[0].joined(modulated, h, parts)
        if joined is not None:
            return joined
    return one_by_one([(block.modulated, m) for block, m in zip(modulated, parts, strict=True)], h)


def one_by_one(calls: Sequence[tuple[Callable[..., Any], Any]], h: Value) -> Value:
    """calls : (f, m) for every block, so that f(x, m) is block(x, c)."""
    for call, part in calls:
        h = run(call, h, part)
    return h


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
