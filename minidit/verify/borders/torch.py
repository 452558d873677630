"""Torch at the border: tensors in and out of questions, official weights into modules, hooks as taps, gradients by its autograd.

    print(md.verify.check(md.verify.torch.functions({"ddim_step": my_ddim_step})))        # callables on tensors

PyTorch is imported only here and in diffusers.py, when somebody asks for it.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidit.backend import Array
from minidit.verify.cases import functions_of
from minidit.verify.core.reference import Reference
from minidit.verify.topics import TOPICS, parameters
from minidit.verify.topics.network import depth_of

Names = Mapping[str, str] | Callable[[str], str]
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


def function(f: Callable[..., Any], *, dtype: Any = None, device: Any = None) -> Callable[..., Any]:
    """A callable on tensors as one on NumPy arrays: what the kit asks."""

    def on_arrays(*args: Any) -> Any:
        return to_numpy(f(*(to_torch(a, dtype=dtype, device=device) for a in args)))

    return on_arrays


def functions(target: Any, *, dtype: Any = None, device: Any = None) -> dict[str, Callable[..., Any]]:
    """A mapping, module or object with callables on tensors as a target for `check`.

    dtype: what floating arguments are cast to (None: the kit's float64; choose torch.float32 for code that has float32 inside).
    """
    return {name: function(f, dtype=dtype, device=device) for name, f in functions_of(target).items()}


# ------------------------------------------------------------------------------------------------ modules


def renaming(names: Names | None) -> Callable[[str], str]:
    """official name -> the module's."""
    return names if callable(names) else lambda name: (names or {}).get(name, name)


def load_weights(module: Any, weights: Mapping[str, Array], names: Names | None = None) -> None:
    """Copies arrays into a module's parameters and buffers.

    names: official name -> the module's name, as a mapping (names that it lacks stay as they are) or a function. Raises
    ValueError that lists what is left over on either side, or the first shape that differs.
    """
    t = torch()
    rename = renaming(names)
    mine = dict(module.named_parameters()) | dict(module.named_buffers())
    renamed = {rename(n): a for n, a in weights.items()}
    lacking = [n for n, p in module.named_parameters() if n not in renamed]
    extra = [n for n in renamed if n not in mine and n != rename("pos_embed")]
    if lacking or extra:
        sides = (("the weights lack", lacking), ("the module lacks", extra))
        problem = "; ".join(f"{side} {', '.join(left[:4])}" for side, left in sides if left)
        raise ValueError(f"{problem} (give a map of names: official -> yours)")
    with t.no_grad():
        for name, array in renamed.items():
            if name in mine:
                if tuple(mine[name].shape) != array.shape:
                    raise ValueError(f"{name} has shape {tuple(mine[name].shape)}, the weights {array.shape}")
                mine[name].copy_(t.from_numpy(np.ascontiguousarray(array)))


def with_taps(module: Any, taps: Mapping[str, str], into: Taps) -> list[Any]:
    """Forward hooks that note the outputs of sub-modules: tap name -> the sub-module's name. Returns the handles."""
    inside = dict(module.named_modules())
    absent = [n for n in taps.values() if n not in inside]
    if absent:
        raise ValueError(f"the module has no part {absent[0]!r}")

    def hook(name: str) -> Callable[..., None]:
        def note(_module: Any, _args: Any, output: Any) -> None:
            into[name] = to_numpy(output)

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
    input_size is an int where the grid is square. names: official parameter name -> the module's, as in `load_weights`.
    call(module, x, t, y) -> out, where it is not module(x, t, y). dtype: what the module computes in.
    """
    net = _Network(build, names, call or (lambda module, *args: module(*args)), getattr(torch(), dtype))
    out: dict[str, Callable[..., Any]] = {"dit": net.dit, "dit_gradients": net.dit_gradients}
    try:
        net.made(**config_of(TOPICS["dit"].probes()[0].args[0], (4, 6), 2, 2))
    except Exception:  # whatever a class raises that knows square grids only
        out = {"dit_square": net.dit}
    return out | {"parameter_shapes": net.parameter_shapes, "initial_weights": net.initial_weights}


@dataclass(frozen=True)
class _Network:
    """A DiT module class, built in the size of each question."""

    build: Callable[..., Any]
    names: Names | None
    call: Callable[..., Any]
    dtype: Any

    def name_of(self, official: str) -> str:
        return renaming(self.names)(official)

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
        wanted = {n: self.name_of(n + ".weight").removesuffix(".weight") for n in layers_of(weights)}
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
        bars = {n: mine[self.name_of(n)].grad for n in weights}
        zeros = {n: np.zeros(w.shape) for n, w in weights.items()}
        return {n: zeros[n] if b is None else to_numpy(b) for n, b in bars.items()} | {"x": to_numpy(pixels.grad)}

    def fresh(self, D: int, L: int, heads: int, patch_size: int, C: int, K: int, learn_sigma: bool) -> dict[str, Any]:
        """The trained parameters of a new module by the official names; those that have none keep their own."""
        module = self.made(
            input_size=4 * patch_size, patch_size=patch_size, in_channels=C, hidden_size=D, depth=L, num_heads=heads,
            mlp_ratio=4.0, class_dropout_prob=0.1, num_classes=K, learn_sigma=learn_sigma,
        )  # fmt: skip
        official = parameters.parameter_shapes(Reference(), D, L, heads, patch_size, C, K, learn_sigma)
        back = {self.name_of(n): n for n in official}
        return {back.get(n, n): p for n, p in module.named_parameters() if p.requires_grad}

    def parameter_shapes(self, *sizes: Any) -> dict[str, tuple[int, ...]]:
        """name -> shape."""
        return {n: tuple(p.shape) for n, p in self.fresh(*sizes).items()}

    def initial_weights(self, *sizes_and_seed: Any) -> dict[str, Array]:
        """name -> how the weight begins."""
        *sizes, seed = sizes_and_seed
        torch().manual_seed(seed)
        return {n: to_numpy(p) for n, p in self.fresh(*sizes).items()}


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


def layers_of(weights: Mapping[str, Array]) -> list[str]:
    """The layers whose outputs the reference notes, in the order of computation."""
    blocks = [f"blocks.{i}{part}" for i in range(depth_of(weights)) for part in (".attn", ".mlp", "")]
    return ["x_embedder", "t_embedder", "y_embedder", *blocks, "final_layer"]
