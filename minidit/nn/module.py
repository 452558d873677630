"""Parameters with names: a tree of Modules whose leaves are views into one flat buffer.

A Module declares its parameters (a shape and a way to initialise it); `build` then lays all of them out in one flat array, in the
order of declaration, and draws their values. An update, an average or a checksum over all parameters is then one
operation on one array instead of hundreds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import DTypeLike

from minidit import shown
from minidit.autograd import LEAF, Tensor, watcher
from minidit.backend import Array, device_of, flat_buffer, module_of, to_device
from minidit.nn import tree
from minidit.random import Philox

Init = Callable[[Philox, tuple[int, ...], DTypeLike], Array]


class Parameter(Tensor):
    """A leaf of the tape that belongs to a Module. Its array exists once the Module is built.

    init(rng, shape, dtype) -> its first values, such as `lambda rng, shape, dtype: 0.02 * rng.normal(shape, dtype=dtype)`
    """

    __slots__ = ("declared", "init")

    def __init__(self, shape: tuple[int, ...], init: Init) -> None:
        self.declared, self.init = shape, init
        self.data, self.grad, self.k = None, None, 0
        self.node = LEAF


class Flat:
    """The layout of many arrays in one: each starts at a multiple of 16 elements, a cache line of float32."""

    def __init__(self, shapes: Sequence[tuple[int, ...]]) -> None:
        self.shapes = [tuple(s) for s in shapes]
        self.starts: list[int] = []
        self.size = 0
        for shape in self.shapes:
            self.starts.append(self.size)
            self.size += -(-math.prod(shape) // 16) * 16

    def views(self, buffer: Array) -> list[Array]:
        """buffer : (size,)  ->  its views, one per shape of the layout, in this order."""
        spans = zip(self.starts, self.shapes, strict=True)
        return [buffer[start : start + math.prod(shape)].reshape(shape) for start, shape in spans]


class Trainable(Protocol):
    """The interface that an optimiser needs: all weights in one flat buffer. Every built Module has it."""

    flat: Array
    layout: Flat

    @property
    def device(self) -> str: ...

    @property
    def dtype(self) -> Any: ...

    def parameters(self) -> list[Parameter]: ...

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]: ...

    def views(self, buffer: Array) -> list[Array]:
        """The arrays in a flat buffer of this network: one per parameter, as in parameters()."""


def lost_layers(holder: Any) -> bool:
    """Whether a list, tuple, set or dictionary has Modules or Parameters anywhere inside."""
    if isinstance(holder, (Module, Parameter)):
        return True
    inside = holder.values() if isinstance(holder, dict) else holder if isinstance(holder, (list, tuple, set)) else ()
    return any(map(lost_layers, inside))


class Module:
    """A network or a part of one. Its children: attributes that are Parameters, Modules, or lists or tuples of Modules."""

    flat: Array  # all parameters, after build
    layout: Flat

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if (watch := watcher()) is None:
            return self.forward(*args, **kwargs)
        with watch.inside(self):
            return self.forward(*args, **kwargs)

    def register_buffer(self, name: str, array: Array) -> None:
        """Makes `array` an attribute that is saved, loaded and moved like a parameter and never trained."""
        self.__dict__.setdefault("_buffers", []).append(name)
        setattr(self, name, array)

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(dotted name, module) for this module ("") and every module below it, parents first."""
        yield prefix.removesuffix("."), self
        for name, child in self.named_children():
            yield from child.named_modules(f"{prefix}{name}.")

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) of the modules directly below this one."""
        for name, child in vars(self).items():
            if isinstance(child, Module):
                yield name, child
            elif isinstance(child, (list, tuple)):
                yield from ((f"{name}.{i}", entry) for i, entry in enumerate(child) if isinstance(entry, Module))

    def check_children(self) -> None:
        """Raises TypeError for layers in dictionaries, nested lists and the like: they would never be trained or saved."""
        for path, module in self.named_modules():
            for name, child in vars(module).items():
                entries = child if isinstance(child, (list, tuple)) else [child] if isinstance(child, (dict, set)) else ()
                if any(lost_layers(entry) for entry in entries if not isinstance(entry, Module)):
                    where = f"{path}.{name}" if path else name
                    raise TypeError(f"the layers in {where} would not be trained: a Module finds Modules that are attributes "
                                    "or in a list there, and Parameters that are attributes")  # fmt: skip

    def own_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of the parameters that belong to no module below this one."""
        return {name: child.declared for name, child in vars(self).items() if isinstance(child, Parameter)}

    def facts(self) -> dict[str, str]:
        """Name -> value, of what is worth knowing of a network besides its parts."""
        return {"parameters": f"{self.count_parameters():,}"}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name} {value}' for name, value in self.facts().items())})"

    def __str__(self) -> str:
        """All parts, one per line."""
        return f"{self!r}\n{tree.text_of(self)}"

    def _repr_html_(self) -> str:
        parts = shown.folded("parts", tree.html_of(self), unfolded=True)
        return shown.card(type(self).__name__, shown.facts(self.facts()), parts)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(dotted name, Parameter), in the order in which they were declared."""
        for path, module in self.named_modules():
            for name, child in vars(module).items():
                if isinstance(child, Parameter):
                    yield f"{path}.{name}" if path else name, child

    def parameters(self) -> list[Parameter]:
        return [p for _, p in self.named_parameters()]

    def named_buffers(self) -> Iterator[tuple[str, Array]]:
        """(dotted name, array) of every buffer."""
        for path, module in self.named_modules():
            for name in vars(module).get("_buffers", ()):
                yield f"{path}.{name}" if path else name, getattr(module, name)

    def layout_order(self, parameters: dict[str, Parameter]) -> list[Parameter]:
        """The order of the parameters in the flat buffer. A model may put some next to each other, to use them as one array."""
        return list(parameters.values())

    def views(self, buffer: Array) -> list[Array]:
        """The arrays in a flat buffer of this model (gradients, moments, an average): one per parameter, as in parameters()."""
        order = self.layout_order(dict(self.named_parameters()))
        if len(order) != len(self.layout.shapes):
            late = ", ".join(name for name, p in self.named_parameters() if p.data is None)
            raise ValueError(f"the weights {late} of {type(self).__name__} were declared after build: call self.build(rng) last")
        view_of = {id(p): view for p, view in zip(order, self.layout.views(buffer), strict=True)}
        return [view_of[id(p)] for p in self.parameters()]

    def count_parameters(self) -> int:
        """The number of trained numbers (buffers not counted)."""
        return sum(math.prod(p.declared) for p in self.parameters())

    def build(self, rng: Philox | None = None, *, device: str = "cpu", dtype: DTypeLike = np.float32) -> Self:
        """Allocates all parameters in one flat buffer on the device and, if an rng is given, initialises them in order.

        Every value is drawn on the host, so a model is the same on every device.
        Raises TypeError for an rng that is no Philox, and for layers where a Module does not look for them.
        """
        if rng is not None and not isinstance(rng, Philox):
            raise TypeError(f"weights are drawn by a Philox, such as md.Philox(0), not by {rng!r}")
        self.check_children()
        self.layout = Flat([p.declared for p in self.layout_order(dict(self.named_parameters()))])
        self.flat = flat_buffer(self.layout.size, dtype, device)
        for p, view in zip(self.parameters(), self.views(self.flat), strict=True):
            p.data = view
            if rng is not None:
                view[...] = to_device(p.init(rng, p.declared, dtype), device)
        for _, module in self.named_modules():
            for name in vars(module).get("_buffers", ()):
                setattr(module, name, module_of(device).asarray(np.asarray(getattr(module, name)).astype(dtype)))
        return self

    @property
    def device(self) -> str:
        return device_of(self.flat)

    @property
    def dtype(self) -> Any:
        return self.flat.dtype

    def state_dict(self) -> dict[str, Array]:
        """Name -> array, parameters and buffers. The arrays are the model's own, not copies."""
        return {name: p.data for name, p in self.named_parameters()} | dict(self.named_buffers())

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError with every name that does not fit: missing, unexpected, or of another shape."""
        arrays = self.state_dict()
        missing, unexpected = [n for n in arrays if n not in state], [n for n in state if n not in arrays]
        shapes = [
            f"{n} is {tuple(state[n].shape)}, expected {tuple(a.shape)}"
            for n, a in arrays.items()
            if n in state and tuple(state[n].shape) != tuple(a.shape)
        ]
        mistakes = (("missing", missing), ("unexpected", unexpected), ("mis-shaped", shapes))
        problems = [f"{kind}: {', '.join(names)}" for kind, names in mistakes if names]
        if problems:
            raise ValueError("the state does not fit the model; " + "; ".join(problems))

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Copies arrays into the model, cast to its dtype. Raises ValueError with every name that does not fit."""
        self.check_state(state)
        for name, array in self.state_dict().items():
            array[...] = to_device(state[name], device_of(array)).astype(array.dtype)
