"""A network from a file: what it holds is recognised by its names, read one array at a time, and told with its differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minidit.backend import device_of, to_device
from minidit.checkpoint import names_dit, names_kl, semantics, settings
from minidit.checkpoint.files import CheckpointError, Lazy, lazy
from minidit.checkpoint.grammar import FORMAT, MODELS, config_from
from minidit.checkpoint.semantics import Difference
from minidit.checkpoint.weights import Weights, open_weights
from minidit.nn import Module, sincos_2d

CLASSES = {"dit": ("DiTTransformer2DModel", "Transformer2DModel"), "autoencoder_kl": ("AutoencoderKL",)}
# one name that only this grammar has -> the grammar and the network
MARKS = {
    "transformer_blocks.0.norm1.emb.timestep_embedder.linear_1.weight": ("diffusers", "dit"),
    "blocks.0.adaLN_modulation.1.weight": ("official", "dit"),
    "encoder.mid_block.attentions.0.to_q.weight": ("diffusers", "autoencoder_kl"),
    "encoder.mid_block.attentions.0.query.weight": ("diffusers-old", "autoencoder_kl"),
    "encoder.mid.attn_1.q.weight": ("ldm", "autoencoder_kl"),
}


@dataclass(frozen=True)
class Contents:
    """What a file holds; its arrays, under our names, are still in it.

    container: the kind of file; grammar: whose names; kind: which network; differences: what that grammar's project computes
    otherwise; aside: what the file holds besides.
    """

    path: Path
    container: str
    grammar: str
    kind: str
    config: Any
    arrays: Mapping[str, Lazy]
    meta: Mapping[str, Any]
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
        lines += [f"  {d}" for d in self.differences]
        if self.aside:
            shown = ", ".join(self.aside[:5])
            lines.append(f"  left aside: {shown}" + (f" and {len(self.aside) - 5} more" if len(self.aside) > 5 else ""))
        return "\n".join(lines)


def describe(path: str | Path, *, dialect: str | None = None, num_heads: int | None = None) -> Contents:
    """What a file or folder holds, before its arrays are read: print it, or look at `differences`.

    Arguments and errors are those of `load`.
    """
    weights = open_weights(path)
    found = _ours(weights) if "kind" in weights.meta else _foreign(weights, num_heads)
    if found.kind != "dit":
        return found
    config = semantics.in_dialect(found.config, dialect)
    return _told(found, config, weights.settings)


def _ours(weights: Weights) -> Contents:
    path, meta = weights.path, weights.meta
    if str(meta["kind"]) not in MODELS:
        raise CheckpointError(f"{path}: not a minidit model (its header names the kind {meta['kind']!r})")
    if meta.get("format") != FORMAT:
        raise CheckpointError(f"{path}: format {meta.get('format')}, this version reads {FORMAT}")
    if not isinstance(meta.get("config"), dict):
        raise CheckpointError(f"{path}: its header holds no configuration")
    config = config_from(MODELS[meta["kind"]][1], meta["config"], str(path))
    return Contents(path, weights.container, "minidit", meta["kind"], config, weights.arrays, meta)


def recognised(weights: Weights) -> tuple[str, str]:
    """(grammar, kind) from the names of the arrays. Raises CheckpointError with some of the names if nobody's."""
    plain = names_dit.from_official(weights.arrays)
    for mark, answer in MARKS.items():
        if mark in plain or names_kl.FIRST_STAGE + mark in plain:
            return answer
    some = ", ".join(list(weights.arrays)[:3])
    raise CheckpointError(f"{weights.path}: not a minidit model, and no network that is known here has its names ({some}, …)")


def _foreign(weights: Weights, heads: int | None) -> Contents:
    grammar, kind = recognised(weights)
    path, told, arrays = weights.path, weights.settings, weights.arrays
    if told is not None and told.get("_class_name", CLASSES[kind][0]) not in CLASSES[kind]:
        meant = f"its config.json is of a {told['_class_name']}, its arrays are those of a {CLASSES[kind][0]}"
        raise CheckpointError(f"{path}: {meant}")
    where = str(path if told is None else path.with_name("config.json"))
    config: Any
    unknown: list[str] = []
    try:
        if kind == "dit":
            own = names_dit.from_official(arrays) if grammar == "official" else names_dit.from_diffusers(arrays)
            if grammar == "official" or told is None:
                said = weights.meta.get("num_heads")
                config = settings.dit_from_shapes(own, heads or (said if type(said) is int else None), where)
            else:
                config, unknown = settings.dit_from_settings(told, where)
            if grammar != "official" and told is None:
                config = semantics.in_dialect(config, "diffusers")
            if told is not None and told.get("_class_name") == "Transformer2DModel":
                grammar = "diffusers-old"
        else:
            own = names_kl.from_ldm(arrays) if grammar == "ldm" else names_kl.from_diffusers(arrays)
            config, unknown = settings.kl_from_settings(told, where) if told else (settings.kl_from_shapes(own, where), [])
    except ValueError as error:
        raise CheckpointError(str(error) if str(path.parent) in str(error) else f"{path}: {error}") from error
    left = names_kl.beside(arrays) if grammar == "ldm" else []
    found = semantics.of_settings(unknown, told or {})
    if kind == "autoencoder_kl":
        found += semantics.of_kl(grammar, config, told=told is not None)
    return Contents(path, weights.container, grammar, kind, config, own, weights.meta, found, (*weights.aside, *left))


def _told(found: Contents, config: Any, told: dict[str, Any] | None) -> Contents:
    """The contents with the differences of a DiT's project from the network that will run."""
    differences = found.differences
    if found.grammar != "minidit":
        project = "official" if found.grammar == "official" else "diffusers"
        differences += semantics.of_dit(project, config, eps=found.config.mlp_norm_eps)
    return Contents(
        found.path, found.container, found.grammar, found.kind, config, found.arrays, found.meta, differences, found.aside
    )


def load_model(
    path: str | Path, *, device: str = "cpu", dtype: Any = np.float32, dialect: str | None = None, num_heads: int | None = None
) -> tuple[Any, dict[str, Any]]:
    """(model, metadata) from a file or folder in any grammar; one array more than the model itself is in memory at most.

    dialect: "official" or "diffusers", how a DiT is run; None: as the project of its grammar runs it. num_heads: for an official
    DiT of no preset's size. The metadata of a foreign file are its grammar and its differences, as text.
    Raises CheckpointError, naming the file, for what is no network or does not fit together.
    """
    found = describe(path, dialect=dialect, num_heads=num_heads)
    try:
        model = MODELS[found.kind][0](found.config, None, device=device, dtype=dtype)
        fill(model, found.arrays)
    except ValueError as error:
        raise CheckpointError(f"{found.path}: {error}") from error
    if found.grammar == "minidit":
        return model, dict(found.meta)
    return model, {"grammar": found.grammar, "kind": found.kind, "differences": [str(d) for d in found.differences]}


def fill(model: Module, arrays: Mapping[str, Lazy]) -> None:
    """Reads arrays into a model one by one. Raises ValueError with every name that does not fit.

    What is not trained and what some files do not hold is computed: the position table, rounded to float32 as everywhere
    that computes it, and the scale of latents.
    """
    buffers = dict(model.named_buffers())
    computed: dict[str, Lazy] = {}
    if "pos_embed" in buffers and "pos_embed" not in arrays:
        c: Any = model.config  # type: ignore[attr-defined]
        table = sincos_2d(c.hidden_size, *(n // c.patch_size for n in c.size))
        computed["pos_embed"] = lazy(table.astype(np.float32)[None])
    if "scale" in buffers and "scale" not in arrays:
        computed["scale"] = lazy(buffers["scale"])
    whole = {**arrays, **computed}
    model.check_state(whole)
    for name, array in model.state_dict().items():
        array[...] = to_device(whole[name].read(), device_of(array))
