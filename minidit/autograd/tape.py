"""The tape: nodes that know where their inputs came from, and the traversal that runs their adjoints backwards.

    x̄ = Σ over all uses of x of the bar that the use sends back     shared values add up          (A.2)

The tape keeps nodes, never data: what the adjoints need lives in their closures, and each closure is freed once it has run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from minidit.autograd.changed import prints_of, refuse_changed
from minidit.autograd.gradients import Leaf, add_to_leaf, collecting
from minidit.backend import Array, empty, xp_of

Vjp = Callable[..., tuple[Any, ...]]
Parent = tuple["Node | Leaf", int] | None  # of an input: the node or leaf that it came from, and which output; None: no history


class Onto(functools.partial[Any]):
    """A bar that one kernel computes and adds to the earlier ones (A.2): f(so_far=None) -> the sum, in fresh memory."""


class Node:
    """One application of a primitive: where its inputs came from, and how to send gradients back to them."""

    __slots__ = ("bars", "leaf", "owned", "parents", "prints", "shapes", "vjp", "waiting")

    def __init__(self, parents: Sequence[Parent], vjp: Vjp | None, outputs: Sequence[Array], leaf: object = False):
        self.parents, self.vjp, self.leaf = parents, vjp, bool(leaf)
        self.shapes = [(xp_of(y), y.shape, y.dtype) for y in outputs] if len(outputs) > 1 else []
        self.bars: list[Array] = [None] * max(1, len(outputs))
        self.owned = [False] * max(1, len(outputs))
        self.waiting = 0  # uses that have not sent their bar yet
        self.prints = [] if vjp is None or collecting() else prints_of(vjp)

    def add(self, k: int, bar: Array) -> None:
        """Adds the bar from one use of output k (A.2). In place only into memory that this node allocated itself."""
        old = self.bars[k]
        if old is None:
            self.bars[k] = bar
        elif self.owned[k]:
            xp_of(old).add(old, bar, out=old)
        else:  # another node may hold the first bar too: the first sum goes to fresh memory
            self.bars[k], self.owned[k] = xp_of(old).add(old, bar, out=empty(bar, bar.shape)), True

    def run(self) -> tuple[Any, ...]:
        """The bars of the parents. Afterwards the node holds nothing: the next adjoint may reuse what the closure kept."""
        vjp, bars, parents = self.vjp, self.bars, self.parents
        assert vjp is not None
        if self.prints:
            refuse_changed(self.prints)
            self.prints = []
        if self.shapes:  # an unused output has the gradient zero
            bars = [xp.zeros(s, d) if b is None else b for b, (xp, s, d) in zip(bars, self.shapes, strict=True)]
        self.vjp, self.bars, self.parents, self.shapes = None, [], (), []
        return (None,) * len(parents) if bars[0] is None else vjp(*bars)


LEAF = Node((), None, (), leaf=True)  # the node of every leaf: nothing made it


def run_backwards(root: Node, k: int, bar: Array) -> None:
    """Sends a bar of root's output k back to every leaf that root was made of (A.2). This consumes the graph."""
    count_uses(root)
    root.add(k, bar)
    ready = [root]
    while ready:
        node = ready.pop()
        parents, bars = node.parents, node.run()
        for parent, b in zip(parents, bars, strict=False):  # bars of arguments that were left out are dropped
            if parent is None:
                continue
            source, k = parent
            if isinstance(b, Onto) and isinstance(source, Node):
                source.bars[k], source.owned[k], b = b(source.bars[k]), True, None
            elif callable(b):
                b = b()  # computed only here, where its gradient is known to be needed
            if not isinstance(source, Node):
                if b is not None:
                    add_to_leaf(source, b)
                continue
            if b is not None:
                source.add(k, b)
            source.waiting -= 1
            if source.waiting == 0:
                ready.append(source)
        del bars, b  # before the next adjoint runs: it may need the memory


def count_uses(root: Node) -> None:
    """Counts the bars each node waits for. Without the count a node shared by two uses would run on the first one's bar alone
    and again on the second's: that is why the tape is traversed in topological order. Iterative, because a graph may be deeper
    than Python's stack. Leaves are shared between threads and are never written to here."""
    stack, seen = [root], {id(root)}
    while stack:
        node = stack.pop()
        if node.vjp is None:
            raise ValueError("backward: this graph was already run backwards, and what it saved is gone")
        for parent in node.parents:
            if parent is None or not isinstance(parent[0], Node):
                continue
            if id(parent[0]) not in seen:
                seen.add(id(parent[0]))
                parent[0].waiting = 0
                stack.append(parent[0])
            parent[0].waiting += 1
