"""Writes a network to a file, in our grammar or in another project's."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from minidit.backend import to_host
from minidit.checkpoint import names_dit, names_kl, names_streams, semantics, settings, settings_streams, settings_unet
from minidit.checkpoint.files import BF16, Lazy, lazy, write_arrays, write_lazy
from minidit.checkpoint.grammar import FORMAT, SPOKEN, kind_of
from minidit.checkpoint.semantics import Difference
from minidit.checkpoint.weights import CONFIG, WEIGHTS
from minidit.models.autoencoder_kl import AutoencoderKL
from minidit.models.dit import DiT
from minidit.models.flux import Flux
from minidit.models.kinds import Network
from minidit.models.mmdit import MMDiT
from minidit.models.unet import UNet
from minidit.nn import sincos_2d
from minidit.outgoing import write_atomically

Arrays = dict[str, Lazy]
META = {"format": "pt"}  # other projects' readers ask for this entry


def save_model(path: str | Path, model: Network, *, dtype: DTypeLike | None = None, **meta: object) -> None:
    """Writes a network with its configuration in our grammar; meta: more JSON values for the file's header."""
    header = {"format": FORMAT, "kind": kind_of(model), "config": asdict(model.config), **meta}
    write_arrays(path, model.state_dict(), header, dtype=dtype)


def save(
    path: str | Path, model: Network, *, grammar: str = "minidit", dtype: DTypeLike | None = None, shard_bytes: int | None = None
) -> tuple[Difference, ...]:
    """Writes a network in a grammar; returns what the project that this grammar belongs to computes differently.

    grammar: "minidit"; "official" (DiT); "diffusers" (U-Net too) and "diffusers-old" (DiT, AutoencoderKL), which write a folder;
    "ldm" (AutoencoderKL). dtype: floats are cast to it. shard_bytes: for folders, files of about so many bytes, and an index.
    Raises ValueError for a network that the grammar cannot express, and OSError if a file cannot be written.
    """
    if not isinstance(path, str | Path):
        raise TypeError(f"save takes the path first, then the network; got a {type(path).__name__} as the path (pictures: "
                        "md.pictures.save_png)")  # fmt: skip
    if not hasattr(model, "state_dict"):
        raise TypeError(f"save writes networks, and this is of the type {type(model).__name__}; pictures: md.pictures.save_png"
                        '("x.png", md.pictures.grid(x, 4))')  # fmt: skip
    path = Path(path)
    check_place(path, kind_of(model), grammar, shard_bytes)
    if grammar == "minidit":
        save_model(path, model, dtype=dtype)
        return ()
    arrays = {name: lazy(a, dtype) for name, a in model.state_dict().items()}
    if isinstance(model, DiT):
        return _save_dit(path, model, arrays, grammar, shard_bytes)
    if isinstance(model, UNet):
        write_folder(path, arrays, settings_unet.unet_settings(model.config), shard_bytes)
        return semantics.of_unet(model.config)
    if isinstance(model, MMDiT | Flux):
        return _save_streams(path, model, arrays, grammar, shard_bytes)
    assert isinstance(model, AutoencoderKL)  # SPOKEN has no other
    return _save_kl(path, model, arrays, grammar, shard_bytes)


def check_place(path: Path, kind: str, grammar: str, shard_bytes: int | None = None) -> None:
    """Raises ValueError for a grammar that a kind of network cannot be written in, and for a place that it cannot be written to.

    Nothing is said of what is at the place already, if it is of the right kind: a file, or a folder.
    """
    if grammar not in SPOKEN:
        raise ValueError(f"grammar {grammar!r} is not known: use {', '.join(repr(g) for g in SPOKEN)}")
    if kind not in SPOKEN[grammar]:
        raise ValueError(f"a network of the kind {kind} cannot be written in the grammar {grammar!r}")
    folder = grammar.startswith("diffusers")
    if folder and (path.suffix in (".safetensors", ".pt", ".pth", ".bin", ".ckpt") or path.is_file()):
        raise ValueError(f"{path}: the grammar {grammar!r} is a folder, weights and config.json: name one")
    if not folder and path.suffix in (".pt", ".pth", ".bin", ".ckpt"):
        raise ValueError(f"{path}: networks are written as safetensors, never as a pickle: end the name in .safetensors")
    if not folder and path.is_dir():
        raise ValueError(f"{path}: is a folder, and the grammar {grammar!r} is one file: {path}/NAME.safetensors, say")
    if shard_bytes is not None and (not folder or shard_bytes < 1):
        raise ValueError("shard_bytes is a positive number, for the grammars that are folders")


def _save_dit(path: Path, model: DiT, arrays: Arrays, grammar: str, shard_bytes: int | None) -> tuple[Difference, ...]:
    c = model.config
    reasons = {
        f"conditioning {c.conditioning!r}": c.conditioning != "adaln_zero",
        f"a picture of {c.size[0]} × {c.size[1]}": c.size[0] != c.size[1],
        "captions": bool(c.vocabulary),
        "no classes": not c.num_classes and not c.vocabulary,
        "no null label (class_dropout_prob = 0)": bool(c.num_classes) and not c.class_dropout_prob,
        f"mlp_ratio {c.mlp_ratio}": grammar != "official" and c.mlp_ratio != 4,
        "a position table of its own": grammar != "official" and not _usual_table(model),
    }
    for reason, true in reasons.items():
        if true:
            raise ValueError(f"{path}: the grammar {grammar!r} cannot express a DiT with {reason}")
    if grammar == "official":
        write_lazy(path, arrays, {**META, "num_heads": str(c.num_heads)})
        return semantics.of_dit("official", c, eps=semantics.OFFICIAL_EPS)
    legacy = grammar == "diffusers-old"
    write_folder(path, names_dit.to_diffusers(arrays), settings.dit_settings(c, legacy=legacy), shard_bytes)
    return semantics.of_dit("diffusers", c, eps=semantics.DIFFUSERS_EPS if legacy else c.mlp_norm_eps)


def _save_streams(
    path: Path, model: MMDiT | Flux, arrays: Arrays, grammar: str, shard_bytes: int | None
) -> tuple[Difference, ...]:
    for reason in settings_streams.reasons_against(model.config):
        raise ValueError(f"{path}: the grammar {grammar!r} cannot express a {type(model).__name__} with {reason}")
    theirs = names_streams.theirs_from(arrays, model.config, grammar)
    if grammar == "official":
        write_lazy(path, theirs, META)
    else:
        write_folder(path, theirs, settings_streams.settings_of(model.config), shard_bytes)
    return settings_streams.differences_of(model.config, grammar)


def _usual_table(model: DiT) -> bool:
    c = model.config
    table = sincos_2d(c.hidden_size, *(n // c.patch_size for n in c.size))
    ours = to_host(model.pos_embed)[0].astype(np.float64)
    stored = np.array_equal(ours, table.astype(np.float16))  # of a file in half precision, whatever it is computed in now
    return stored or bool(np.abs(ours - table).max() <= max(1e-6, np.finfo(model.dtype).eps))


def _save_kl(path: Path, model: AutoencoderKL, arrays: Arrays, grammar: str, shard_bytes: int | None) -> tuple[Difference, ...]:
    c = model.config
    del arrays["scale"]
    scale = to_host(model.scale)
    exact = c.scale if scale == scale.dtype.type(c.scale) else float(str(scale[()]))
    if grammar == "ldm":  # other readers assume the published groups and scale; the header tells ours
        stated = {"norm_num_groups": json.dumps(c.groups), "scaling_factor": json.dumps(exact)}
        write_lazy(path, names_kl.to_ldm(arrays), {**META, **stated})
        return semantics.of_kl("ldm", c, complete=False)
    arrays = names_kl.to_old(arrays) if grammar == "diffusers-old" else arrays
    write_folder(path, arrays, settings.kl_settings(c, exact), shard_bytes)
    return semantics.of_kl("diffusers", c, complete=True)


def write_folder(folder: Path, arrays: Mapping[str, Lazy], config: Mapping[str, object], shard_bytes: int | None) -> None:
    """Weights and config.json as diffusers writes them. An older file of weights that diffusers would read first is removed."""
    name, index = folder / WEIGHTS[0], folder / WEIGHTS[1]
    if shard_bytes is None:
        write_lazy(name, arrays, META)
        index.unlink(missing_ok=True)
    else:
        shards = split(arrays, shard_bytes)
        places: dict[str, str] = {}
        for i, names in enumerate(shards):
            file = f"{name.stem}-{i + 1:05d}-of-{len(shards):05d}{name.suffix}"
            write_lazy(folder / file, {n: arrays[n] for n in names}, META)
            places |= dict.fromkeys(names, file)
        total = sum(nbytes(a) for a in arrays.values())
        contents = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
        write_atomically(index, (json.dumps(contents, indent=2, sort_keys=True) + "\n").encode())
        name.unlink(missing_ok=True)
    write_atomically(folder / CONFIG, (json.dumps(config, indent=2, sort_keys=True) + "\n").encode())


def nbytes(a: Lazy) -> int:
    """The bytes of an array in a file."""
    return math.prod(a.shape) * (2 if a.dtype == BF16 else int(np.dtype(a.dtype).itemsize))


def split(arrays: Mapping[str, Lazy], limit: int) -> list[list[str]]:
    """The names of the arrays of each file: a new file begins where the limit would be exceeded; no array is cut."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, a in arrays.items():
        if shards[-1] and size + nbytes(a) > limit:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += nbytes(a)
    return shards
