"""Reads a network from a file in any grammar: the names of its arrays tell which, and the arrays are read one at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from minidit.backend import device_of, to_device
from minidit.checkpoint import names_dit, names_kl, semantics, settings, settings_streams, settings_unet
from minidit.checkpoint.files import CheckpointError, Lazy, lazy
from minidit.checkpoint.grammar import FORMAT, config_from
from minidit.checkpoint.names_streams import Streams, ours_from
from minidit.checkpoint.plausible import check_declared
from minidit.checkpoint.semantics import Difference
from minidit.checkpoint.states import without_prefix
from minidit.checkpoint.weights import Weights, open_weights
from minidit.incoming import printable, reading
from minidit.models.autoencoder_kl import AutoencoderKLConfig
from minidit.models.dit import DiT, DiTConfig
from minidit.models.kinds import NETWORKS
from minidit.models.unet_config import UNetConfig
from minidit.nn import Module, sincos_2d

Config = DiTConfig | UNetConfig | AutoencoderKLConfig | Streams
Foreign = tuple[Config, dict[str, Lazy], tuple[Difference, ...]]  # configuration, arrays under our names
Reader = Callable[[Weights, str, int | None, str], Foreign]  # of the grammar, with so many heads; the last is where, for messages
CLASSES = {
    "dit": ("DiTTransformer2DModel", "Transformer2DModel"), "autoencoder_kl": ("AutoencoderKL",), "unet": ("UNet2DModel",),
    "mmdit": ("SD3Transformer2DModel",), "flux": ("FluxTransformer2DModel",),
}  # fmt: skip
# a name that only this grammar has -> the grammar and the network
MARKS = {
    "transformer_blocks.0.norm1.emb.timestep_embedder.linear_1.weight": ("diffusers", "dit"),
    "blocks.0.adaLN_modulation.1.weight": ("official", "dit"),
    "encoder.mid_block.attentions.0.to_q.weight": ("diffusers", "autoencoder_kl"),
    "encoder.mid_block.attentions.0.query.weight": ("diffusers-old", "autoencoder_kl"),
    "encoder.mid.attn_1.q.weight": ("ldm", "autoencoder_kl"),
    "time_embedding.linear_1.weight": ("diffusers", "unet"),
    "joint_blocks.0.x_block.adaLN_modulation.1.weight": ("official", "mmdit"),
    "double_blocks.0.img_mod.lin.weight": ("official", "flux"),
    "pos_embed.pos_embed": ("diffusers", "mmdit"),  # after DiT, some of whose files hold the table too
    "time_text_embed.timestep_embedder.linear_1.weight": ("diffusers", "flux"),
}


@dataclass(frozen=True)
class Contents:
    """What a file holds; its arrays, under our names, are not read yet.

    container: the kind of file; grammar: whose names it has; kind: which network; differences: what that project computes
    differently; aside: names of what else the file holds; size: bytes of the files.
    """

    path: Path
    container: str
    grammar: str
    kind: str
    config: Any
    arrays: Mapping[str, Lazy]
    meta: Mapping[str, Any]
    size: int
    differences: tuple[Difference, ...] = ()
    aside: tuple[str, ...] = ()

    @property
    def dtype(self) -> np.dtype[Any]:
        """The widest type of its floating arrays; bfloat16 is read as float32."""
        floats = [np.dtype(a.dtype) for a in self.arrays.values() if np.dtype(a.dtype).kind == "f"]
        return max(floats, key=lambda d: d.itemsize, default=np.dtype(np.float32))

    def __str__(self) -> str:
        numbers = sum(int(np.prod(a.shape)) for a in self.arrays.values())
        lines = [f"{self.path}: {self.kind} in the grammar {self.grammar}"]
        lines += [f"  {self.container}, {self.dtype}, {numbers:,} numbers", f"  {self.config}"]
        lines += semantics.explained(self.differences)
        if self.aside:
            names = printable(", ".join(self.aside[:5]))
            lines.append(f"  not read: {names}" + (f" and {len(self.aside) - 5} more" if len(self.aside) > 5 else ""))
        return "\n".join(lines)


def describe(path: str | Path, *, dialect: str | None = None, num_heads: int | None = None) -> Contents:
    """What a file or folder holds, before its arrays are read: print it, or look at `differences`.

    Arguments and errors are those of `load`.
    """
    semantics.check_dialect(dialect)
    with reading(path, CheckpointError):
        weights = open_weights(path)
        contents = _ours(weights, num_heads) if "kind" in weights.meta else _foreign(weights, num_heads)
        return contents if contents.kind != "dit" else _run_as(contents, dialect)


def _run_as(contents: Contents, dialect: str | None) -> Contents:
    """A DiT with its differences, as a project runs it."""
    config, differences = semantics.in_dialect(contents.config, dialect), contents.differences
    if contents.grammar != "minidit":
        project = "official" if contents.grammar == "official" else "diffusers"
        differences += semantics.of_dit(project, config, eps=contents.config.mlp_norm_eps)
    return replace(contents, config=config, differences=differences)


def _ours(weights: Weights, heads: int | None) -> Contents:
    path, meta = weights.path, weights.meta
    if str(meta["kind"]) not in NETWORKS:
        raise CheckpointError(f"{path}: not a minidit model (its header names the kind {meta['kind']!r})")
    if meta.get("format") != FORMAT:
        raise CheckpointError(f"{path}: format {meta.get('format')}, this version reads {FORMAT}")
    if not isinstance(meta.get("config"), dict):
        raise CheckpointError(f"{path}: its header holds no configuration")
    config = config_from(NETWORKS[meta["kind"]].config, meta["config"], str(path))
    _same_heads(heads, getattr(config, "num_heads", None), path)
    return Contents(path, weights.container, "minidit", meta["kind"], config, weights.arrays, meta, weights.size)


def _same_heads(heads: int | None, stated: Any, where: object) -> None:
    """Raises CheckpointError where the caller and the file name different numbers of heads."""
    if heads is not None and type(stated) is int and heads != stated:
        raise CheckpointError(f"{where}: num_heads = {heads} was asked for, the file states {stated}")


def recognised(weights: Weights) -> tuple[str, str]:
    """(grammar, kind) from the names of the arrays. Raises CheckpointError, with some of the names, if none is recognised."""
    plain = names_dit.from_official(weights.arrays)
    for mark, answer in MARKS.items():
        if mark in plain or names_kl.FIRST_STAGE + mark in plain:
            return answer
    some = ", ".join(list(weights.arrays)[:3])
    raise CheckpointError(f"{weights.path}: not a minidit model, and no network that is known here has its names ({some}, …)")


def _foreign(weights: Weights, heads: int | None) -> Contents:
    """Contents in another project's grammar."""
    arrays, others = without_prefix(weights.arrays, MARKS, weights.path)
    weights = replace(weights, arrays=arrays, aside=(*weights.aside, *others))
    grammar, kind = recognised(weights)
    path, config_json = weights.path, weights.settings
    if config_json is not None and config_json.get("_class_name", CLASSES[kind][0]) not in CLASSES[kind]:
        classes = f"its config.json is of a {config_json['_class_name']}, its arrays are those of a {CLASSES[kind][0]}"
        raise CheckpointError(f"{path}: {classes}")
    where = str(path if config_json is None else path.with_name("config.json"))
    readers: dict[str, Reader] = {"dit": _dit, "unet": _unet, "autoencoder_kl": _kl, "mmdit": _mmdit, "flux": _flux}
    try:
        config, arrays, differences = readers[kind](weights, grammar, heads, where)
    except ValueError as error:
        raise CheckpointError(str(error) if str(path.parent) in str(error) else f"{path}: {error}") from error
    if config_json is not None and config_json.get("_class_name") == "Transformer2DModel":
        grammar = "diffusers-old"
    aside = (*weights.aside, *(names_kl.beside(weights.arrays) if grammar == "ldm" else ()))
    return Contents(path, weights.container, grammar, kind, config, arrays, weights.meta, weights.size, differences, aside)


def _dit(weights: Weights, grammar: str, heads: int | None, where: str) -> Foreign:
    if grammar == "official":
        arrays, num_heads = names_dit.from_official(weights.arrays), weights.meta.get("num_heads")
        _same_heads(heads, num_heads, where)
        heads = heads or (num_heads if type(num_heads) is int else None)
        config = settings.dit_from_shapes(arrays, heads, where)
        return config, arrays, semantics.of_size(config, stated="pos_embed" in arrays)
    arrays = names_dit.from_diffusers(weights.arrays)
    if weights.settings is None:
        config = semantics.in_dialect(settings.dit_from_shapes(arrays, heads, where), "diffusers")
        return config, arrays, semantics.of_size(config, stated=False)
    config, unknown = settings.dit_from_settings(weights.settings, where)
    return config, arrays, semantics.of_settings(unknown, weights.settings)


def _unet(weights: Weights, grammar: str, _: int | None, where: str) -> Foreign:
    if weights.settings is None:
        raise CheckpointError(f"{where}: no array shows a U-Net's groups and heads: put its config.json beside it")
    config, differences = settings_unet.unet_from_settings(weights.settings, where)
    return config, settings_unet.from_diffusers(weights.arrays), differences + semantics.of_unet(config)


def _streams(weights: Weights, grammar: str, heads: int | None, where: str, *, from_settings: Any, from_shapes: Any) -> Foreign:
    """MM-DiT or FLUX."""
    if grammar == "diffusers":
        if weights.settings is None:
            raise CheckpointError(f"{where}: no array shows the heads and the size of the picture: put its config.json beside it")
        config, open_ones = from_settings(weights.settings, where)
    else:
        config, open_ones = from_shapes(weights.arrays, heads, where)
    return config, ours_from(weights.arrays, config, grammar), open_ones + settings_streams.differences_of(config, grammar)


_mmdit = partial(_streams, from_settings=settings_streams.mmdit_from_settings, from_shapes=settings_streams.mmdit_from_shapes)
_flux = partial(_streams, from_settings=settings_streams.flux_from_settings, from_shapes=settings_streams.flux_from_shapes)


def _kl(weights: Weights, grammar: str, _: int | None, where: str) -> Foreign:
    arrays = names_kl.from_ldm(weights.arrays) if grammar == "ldm" else names_kl.from_diffusers(weights.arrays)
    unknown: list[str] = []
    if weights.settings:
        config, unknown = settings.kl_from_settings(weights.settings, where)
    else:
        config = settings.kl_from_shapes(arrays, weights.meta, where)
    complete = weights.settings is not None or {"norm_num_groups", "scaling_factor"} <= weights.meta.keys()
    differences = semantics.of_settings(unknown, weights.settings or {})
    return config, arrays, differences + semantics.of_kl(grammar, config, complete=complete)


def load_model(
    path: str | Path,
    *,
    device: str = "cpu",
    dtype: DTypeLike = np.float32,
    dialect: str | None = None,
    num_heads: int | None = None,
) -> tuple[Any, dict[str, Any]]:
    """(model, metadata) from a file or folder in any grammar. Memory holds the model and at most one array more.

    dialect: "official" or "diffusers", how a DiT is run; None: as the project of its grammar runs it. num_heads: of an official
    DiT whose size is no preset's. The metadata of a foreign file are its grammar and its differences, as text.
    Raises CheckpointError, naming the file, if it holds no network or its parts do not fit together.
    """
    contents = describe(path, dialect=dialect, num_heads=num_heads)
    network = NETWORKS[contents.kind].network
    with reading(contents.path, CheckpointError, ""):
        check_declared(network, contents.config, contents.arrays, contents.size)
    model = network(contents.config, None, device=device, dtype=dtype)
    with reading(contents.path, CheckpointError, ""):
        fill(model, contents.arrays)
    if contents.grammar == "minidit":
        return model, dict(contents.meta)
    return model, {"grammar": contents.grammar, "kind": contents.kind, "differences": [str(d) for d in contents.differences]}


def fill(model: Module, arrays: Mapping[str, Lazy]) -> None:
    """Reads arrays into a model one by one. Raises ValueError with every name that does not fit.

    Two buffers that some files do not hold are filled in: the position table, computed and rounded to float32 as in training,
    and the scale of latents, as it is in the model.
    """
    buffers = dict(model.named_buffers())
    computed: dict[str, Lazy] = {}
    if isinstance(model, DiT) and "pos_embed" not in arrays:
        c = model.config
        table = sincos_2d(c.hidden_size, *(n // c.patch_size for n in c.size))
        computed["pos_embed"] = lazy(table.astype(np.float32)[None])
    if "scale" in buffers and "scale" not in arrays:
        computed["scale"] = lazy(buffers["scale"])
    whole = {**arrays, **computed}
    model.check_state(whole)
    for name, array in model.state_dict().items():
        array[...] = to_device(whole[name].read(), device_of(array))
