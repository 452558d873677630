"""Reverse-mode differentiation: a primitive returns its value and its adjoint, a tape runs the adjoints backwards.

    y = f(x₁, x₂, …)   ->   x̄ᵢ = (∂y/∂xᵢ)ᵀ ȳ            a primitive: (y, vjp)                   (A.1)
    x̄ = Σ over all uses of x of the bar that the use sends back     shared values add up          (A.2)

Gradients are of first order only. In reading order: tape, tensor, primitives, gradients, switches, watch.
"""

from minidit.autograd.gradients import Gradients, home_of_gradient
from minidit.autograd.primitives import PRIMITIVES, NoTwin, Primitive, primitive
from minidit.autograd.switches import kernels_on, no_grad, plain_text, recording
from minidit.autograd.tape import LEAF, Node, Onto, Vjp
from minidit.autograd.tensor import Tensor, Value, backward, source_of, value
from minidit.autograd.watch import Anomaly, watcher, watching

__all__ = [
    "LEAF",
    "PRIMITIVES",
    "Anomaly",
    "Gradients",
    "NoTwin",
    "Node",
    "Onto",
    "Primitive",
    "Tensor",
    "Value",
    "Vjp",
    "backward",
    "home_of_gradient",
    "kernels_on",
    "no_grad",
    "plain_text",
    "primitive",
    "recording",
    "source_of",
    "value",
    "watcher",
    "watching",
]  # fmt: skip
