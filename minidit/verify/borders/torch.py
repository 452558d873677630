"""Torch at the border: tensors in and out of questions, official weights into modules, hooks as taps, gradients by its autograd.

    print(md.verify.check(md.verify.torch.functions({"ddim_step": my_ddim_step})))        # callables on tensors

PyTorch is imported only here and in diffusers.py, when somebody asks for it.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidit.backend import Array
from minidit.verify.cases import functions_of
from minidit.verify.core.calls import called
from minidit.verify.core.finding import Declared
from minidit.verify.core.forms import PRECISIONS, owned, precision_of
from minidit.verify.core.reference import Reference
from minidit.verify.topics import TOPICS, parameters
from minidit.verify.topics.network import depth_of

Place = str | tuple[str, ...]  # a parameter of the module, or several whose arrays lie one below the other in the official one
Names = Mapping[str, Place] | Callable[[str], Place]
Taps = dict[str, Array]  # name of a layer -> its output


def torch() -> Any:
    """The package; ValueError that says how to get it."""
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise ValueError("PyTorch is not installed (pip install 'minidit[peers]')") from error


def to_torch(value: Any, *, dtype: Any = None, device: Any = None) -> Any:
    """NumPy arrays as tensors, without a copy where memory can be shared (DLPack), also inside lists, tuples and mappings.

    dtype: what floating arrays are cast to. Functions are handed over so that they speak tensors too.
    """
    t = torch()
    if isinstance(value, np.ndarray):
        shared = value if value.flags.writeable and value.flags.c_contiguous else value.copy(order="C")
        tensor = t.from_dlpack(shared) if shared.size else t.from_numpy(shared)
        cast = dtype if dtype is not None and tensor.dtype.is_floating_point else None
        return tensor.to(device=device, dtype=cast) if device is not None or cast is not None else tensor
    if isinstance(value, Mapping):
        return {k: to_torch(v, dtype=dtype, device=device) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(to_torch(v, dtype=dtype, device=device) for v in value)
    if callable(value):
        return lambda *args: to_torch(value(*(to_numpy(a) for a in args)), dtype=dtype, device=device)
    return value


def to_numpy(value: Any) -> Any:
    """Tensors of any device as NumPy arrays (bfloat16, which NumPy lacks, as float32), also inside lists, tuples and mappings."""
    if hasattr(value, "detach") and hasattr(value, "numpy"):
        tensor = value.detach().cpu().resolve_conj().resolve_neg()
        return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
    if isinstance(value, Mapping):
        return {k: to_numpy(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(to_numpy(v) for v in value) if type(value) in (list, tuple) else [to_numpy(v) for v in value]
    return value


def function(f: Callable[..., Any], *, dtype: Any = None, device: Any = None, names: Sequence[str] = ()) -> Callable[..., Any]:
    """A callable on tensors as one on NumPy arrays: what the kit asks. names: what the topic calls its arguments."""

    def on_arrays(*args: Any, **by_name: Any) -> Any:
        tensors, named = (to_torch(a, dtype=dtype, device=device) for a in (list(args), by_name))
        answer = f(**named) if named else called(f, names, tensors)
        return answer if precision_of(answer) == "bfloat16" else to_numpy(answer)  # NumPy lacks that type; the kit must see it

    return declared(functools.update_wrapper(on_arrays, f, (), ()), dtype)  # its arguments are called as those of f


def declared(f: Callable[..., Any], dtype: Any) -> Callable[..., Any]:
    """The same function, which says that it computes in this type where that is coarser than float64."""
    precision = str(dtype).removeprefix("torch.")
    return Declared(f, precision) if precision in PRECISIONS else f


def functions(target: Any, *, dtype: Any = None, device: Any = None) -> dict[str, Callable[..., Any]]:
    """A mapping, module or object with callables on tensors as a target for `check`.

    dtype: what floating arguments are cast to (None: the kit's float64; choose torch.float32 for code that has float32 inside).
    """
    asked = functions_of(target)
    return {name: function(f, dtype=dtype, device=device, names=TOPICS[name].parameters) for name, f in asked.items()}


# ------------------------------------------------------------------------------------------------ modules


def renaming(names: Names | None) -> Callable[[str], Place]:
    """official name -> the module's."""
    return names if callable(names) else lambda name: (names or {}).get(name, name)


def places(place: Place) -> tuple[str, ...]:
    return (place,) if isinstance(place, str) else tuple(place)


def load_weights(module: Any, weights: Mapping[str, Array], names: Names | None = None) -> None:
    """Copies arrays into a module's parameters and buffers.

    names: official name -> the module's name, as a mapping (names that it lacks stay as they are) or a function; a tuple of names
    for parameters that lie one below the other in the official array (q, k and v of a qkv). What a module froze by itself, such
    as a table of places, it keeps. Raises ValueError that lists what is left over on either side, or a shape that differs.
    """
    t = torch()
    rename = renaming(names)
    trained = {n for n, p in module.named_parameters() if p.requires_grad}
    mine = dict(module.named_parameters()) | dict(module.named_buffers())
    renamed = {place: (n, a) for n, whole in weights.items() for place, a in _shared_out(n, whole, rename(n))}
    lacking = [n for n, _ in module.named_parameters() if n not in renamed and (n in trained or not trained)]
    extra = [n for n in renamed if n not in mine and n not in places(rename("pos_embed"))]
    if lacking or extra:
        sides = (("the weights lack", lacking), ("the module lacks", extra))
        problem = "; ".join(f"{side} {', '.join(left[:4])}" for side, left in sides if left)
        hint = "give a map of names: official -> yours"
        joined = any(n.endswith(("qkv.weight", "qkv.bias")) for n in extra)
        raise ValueError(f"{problem} ({hint}{JOINED if joined else ''})")
    with t.no_grad():
        for place, (_, array) in renamed.items():
            if place in mine:
                if tuple(mine[place].shape) != array.shape:
                    raise ValueError(f"{place} has shape {tuple(mine[place].shape)}, the weights {array.shape}")
                mine[place].copy_(t.from_numpy(np.array(array)))


JOINED = "; where q, k and v are parameters of their own, a tuple of three: 'attn.qkv.weight' -> ('attn.q.weight', …)"


def _shared_out(name: str, whole: Array, place: Place) -> list[tuple[str, Array]]:
    """An official array as the module's: whole, or in as many equal parts as there are places."""
    mine = places(place)
    if whole.shape[:1] and whole.shape[0] % len(mine):
        raise ValueError(f"{name} has {whole.shape[0]} rows, which {len(mine)} parameters cannot share")
    return list(zip(mine, np.split(whole, len(mine)) if len(mine) > 1 else [whole], strict=True))


def with_taps(module: Any, taps: Mapping[str, str], into: Taps) -> list[Any]:
    """Forward hooks that note the outputs of sub-modules: tap name -> the sub-module's name. Returns the handles."""
    inside = dict(module.named_modules())
    absent = [n for n in taps.values() if n not in inside]
    if absent:
        raise ValueError(f"the module has no part {absent[0]!r}")

    def hook(name: str) -> Callable[..., None]:
        def note(_module: Any, _args: Any, output: Any) -> None:
            into[name] = owned(to_numpy(output))  # what follows may work in place

        return note

    return [inside[place].register_forward_hook(hook(name)) for name, place in taps.items()]


def gradients(loss: Callable[..., Any], *args: Array) -> list[Array]:
    """∂loss/∂arg for each array, by torch.autograd; loss takes tensors and returns a scalar tensor."""
    t = torch()
    leaves = [t.from_numpy(np.array(a)).requires_grad_(True) for a in args]
    bars = t.autograd.grad(loss(*leaves), leaves, allow_unused=True)
    return [np.zeros_like(a) if bar is None else to_numpy(bar) for a, bar in zip(args, bars, strict=True)]


def target(what: Any) -> dict[str, Callable[..., Any]]:
    """What `minidit verify torch module:object` asks: functions on tensors, or a DiT class of the official parameter names."""
    t = torch()
    if inspect.isclass(what) and issubclass(what, t.nn.Module):
        return network(what)
    if isinstance(what, t.nn.Module):
        raise ValueError("name the class of the network, not an instance: the kit builds it in several sizes")
    return functions(what() if inspect.isclass(what) else what)


def network(
    build: Callable[..., Any], *, names: Names | None = None, call: Callable[..., Any] | None = None, dtype: str = "float64"
) -> dict[str, Callable[..., Any]]:
    """A DiT module class as a target: the whole network with its layers as taps, its gradients, its shapes and how it begins.

    build(**config) makes a module; of the config (names and meanings of `md.DiTConfig`) it gets what its signature names.
    input_size is an int where the grid is square. names: official parameter name -> the module's, or a tuple of them, as in
    `load_weights`. call(module, x, t, y) -> out, where it is not module(x, t, y). dtype: what the module computes in.
    """
    net = _Network(build, names, call or (lambda module, *args: module(*args)), getattr(torch(), dtype))
    out: dict[str, Callable[..., Any]] = {"dit": net.dit, "dit_gradients": net.dit_gradients}
    try:
        net.made(**config_of(TOPICS["dit"].probes()[0].args[0], (4, 6), 2, 2))
    except Exception:  # whatever a class raises that knows square grids only
        out = {"dit_square": net.dit}
    out = {name: declared(f, net.dtype) for name, f in out.items()}
    return out | {"parameter_shapes": net.parameter_shapes, "initial_weights": net.initial_weights}


@dataclass(frozen=True)
class _Network:
    """A DiT module class, built in the size of each question."""

    build: Callable[..., Any]
    names: Names | None
    call: Callable[..., Any]
    dtype: Any

    def places_of(self, official: str) -> tuple[str, ...]:
        return places(renaming(self.names)(official))

    def made(self, **config: Any) -> Any:
        """A module with as much of the configuration as its signature names."""
        known = inspect.signature(self.build).parameters
        everything = any(p.kind is p.VAR_KEYWORD for p in known.values())
        return self.build(**{k: v for k, v in config.items() if everything or k in known}).to(self.dtype).eval()

    def loaded(self, weights: Mapping[str, Array], x: Array, heads: int, patch_size: int) -> Any:
        module = self.made(**config_of(weights, x.shape[2:], heads, patch_size))
        load_weights(module, weights, self.names)
        return module

    def run(self, module: Any, x: Any, t: Array, y: Array) -> Any:
        return self.call(module, x, torch().tensor(t), torch().tensor(y))

    def dit(self, weights: Mapping[str, Array], x: Array, t: Array, y: Array, heads: int, patch_size: int) -> tuple[Array, Taps]:
        """The output and those layers that the module has under their official names."""
        module = self.loaded(weights, x, heads, patch_size)
        taps: Taps = {}
        inside = dict(module.named_modules())
        wanted = {n: self.places_of(n + ".weight")[0].removesuffix(".weight") for n in layers_of(weights)}
        with_taps(module, {n: place for n, place in wanted.items() if place in inside}, taps)
        with torch().no_grad():
            out = self.run(module, torch().tensor(x, dtype=self.dtype), t, y)
        return to_numpy(out), taps

    def dit_gradients(
        self, weights: Mapping[str, Array], x: Array, t: Array, y: Array, heads: int, patch_size: int, out_bar: Array
    ) -> dict[str, Array]:
        """The gradients by torch.autograd; zeros where a parameter has none."""
        module = self.loaded(weights, x, heads, patch_size)
        pixels = torch().tensor(x, dtype=self.dtype).requires_grad_(True)
        (self.run(module, pixels, t, y) * torch().tensor(out_bar, dtype=self.dtype)).sum().backward()
        mine = dict(module.named_parameters())
        grads = {n: np.zeros(tuple(p.shape)) if p.grad is None else to_numpy(p.grad) for n, p in mine.items()}
        bars = {n: np.concatenate([grads[place] for place in self.places_of(n)]) for n in weights}
        return bars | {"x": to_numpy(pixels.grad)}

    def fresh(self, D: int, L: int, heads: int, patch_size: int, C: int, K: int, learn_sigma: bool) -> dict[str, Array]:
        """The trained parameters of a new module by the official names; those that have none keep their own."""
        module = self.made(
            input_size=4 * patch_size, patch_size=patch_size, in_channels=C, hidden_size=D, depth=L, num_heads=heads,
            mlp_ratio=4.0, class_dropout_prob=0.1, num_classes=K, learn_sigma=learn_sigma,
        )  # fmt: skip
        official = parameters.parameter_shapes(Reference(), D, L, heads, patch_size, C, K, learn_sigma)
        mine = {n: to_numpy(p) for n, p in module.named_parameters() if p.requires_grad}
        out = {}
        for n in official:
            parts = self.places_of(n)
            if all(place in mine for place in parts):
                out[n] = np.concatenate([mine.pop(place) for place in parts])
        return out | mine

    def parameter_shapes(self, *sizes: Any) -> dict[str, tuple[int, ...]]:
        """name -> shape."""
        return {n: a.shape for n, a in self.fresh(*sizes).items()}

    def initial_weights(self, *sizes_and_seed: Any) -> dict[str, Array]:
        """name -> how the weight begins."""
        *sizes, seed = sizes_and_seed
        torch().manual_seed(seed)
        return self.fresh(*sizes)


def config_of(weights: Mapping[str, Array], size: tuple[int, int], heads: int, patch_size: int) -> dict[str, Any]:
    """The configuration of the network that these official weights belong to."""
    D, C = weights["x_embedder.proj.weight"].shape[:2]
    return {
        "input_size": size[0] if size[0] == size[1] else tuple(size), "patch_size": patch_size, "in_channels": C,
        "hidden_size": D, "depth": depth_of(weights),
        "num_heads": heads, "mlp_ratio": weights["blocks.0.mlp.fc1.bias"].size / D, "class_dropout_prob": 0.1,
        "num_classes": len(weights["y_embedder.embedding_table.weight"]) - 1,
        "learn_sigma": weights["final_layer.linear.bias"].size // patch_size**2 == 2 * C,
    }  # fmt: skip


MODULATION = "adaLN_modulation.1"


def layers_of(weights: Mapping[str, Array]) -> list[str]:
    """The layers whose outputs the reference notes, in the order of computation."""
    blocks = [f"blocks.{i}{part}" for i in range(depth_of(weights)) for part in (f".{MODULATION}", ".attn", ".mlp", "")]
    return ["x_embedder", "t_embedder", "y_embedder", *blocks, f"final_layer.{MODULATION}", "final_layer"]
