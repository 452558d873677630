"""Trained models from the disk: run folders, the shipped weights, and files of other projects, recognised by their content."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import DTypeLike

from minidit.checkpoint import CONFIG, CheckpointError, load_model
from minidit.checkpoint.grammar import is_a
from minidit.data.captions import Vocabulary
from minidit.incoming import UNPRINTABLE, reading
from minidit.keywords import meant, spelled_out
from minidit.models.backbone import TrainedBackbone
from minidit.models.classifier import Classifier
from minidit.models.condition import Condition, Tokens
from minidit.runs import diffusers_folder, former
from minidit.runs.config import run_config_from
from minidit.runs.kinds import PixelsConfig, TokenizerNetwork, assembled, check_partners
from minidit.runs.pipeline import Pipeline
from minidit.runs.presets import SHIPPED, RunConfig
from minidit.runs.token_kinds import TokensConfig
from minidit.runs.weights import weights_of
from minidit.runs.writer import Writer

WORDS = "words"  # their folder of a model that reads captions
FEW_STEPS = "few_steps.safetensors"  # beside the shipped weights, from which it was distilled


T = TypeVar("T")


@overload
def load(
    path: None = None, *, device: str = "cpu", dtype: DTypeLike = np.float32, captions: bool = False, weights: str = ""
) -> Pipeline: ...  # fmt: skip


@overload
def load(path: str | Path, kind: type[T], *, device: str = "cpu", dtype: DTypeLike = np.float32, dialect: str | None = None,
         num_heads: int | None = None, state: str = "") -> T: ...  # fmt: skip


@overload
def load(path: str | Path | None, *, device: str = "cpu", dtype: DTypeLike = np.float32, dialect: str | None = None,
         num_heads: int | None = None, state: str = "", captions: bool = False,
         weights: str = "") -> Pipeline | Any: ...  # fmt: skip


@spelled_out()
def load(
    path: str | Path | None = None,
    kind: type | None = None,
    *,
    device: str = "cpu",
    dtype: DTypeLike = np.float32,
    dialect: str | None = None,
    num_heads: int | None = None,
    state: str = "",
    captions: bool = False,
    weights: str = "",
) -> Any:
    """A network from a file, a Pipeline from a run folder; the shipped weights if there is no path.

    weights : which of them: "fashion" (a DiT), "raster" or "scales" (the same pictures, written as codes), "words" (a model that
    reads them; also captions=True)

    Also from other projects' files, recognised by their content: an official DiT, a DiT or AutoencoderKL of diffusers (its
    folder, or a whole pipeline's with model_index.json), an autoencoder of latent-diffusion; `describe` shows what is in a file
    and how that project's own code differs. dialect, num_heads: see `checkpoint.load_model`.

    kind : what it must be: load("dit.safetensors", md.DiT) is a DiT, to a type checker too.
    state : of a run folder, a saved state instead of the trained weights: "latest" (also what a run that has not ended answers
    with), "best" (the lowest held-out loss), or its number of updates.

    Raises CheckpointError, with the path, for anything else, and for another kind.
    """
    loaded = _loaded(path, device, dtype, dialect, num_heads, state, weights or (WORDS if captions else ""))
    if kind is not None and not isinstance(loaded, kind):
        raise CheckpointError(f"{path}: holds a {type(loaded).__name__}, not a {kind.__name__}")
    return loaded


def check_readable(path: Path) -> None:
    """Raises CheckpointError for a file or folder that may not be looked at."""
    try:
        if path.is_dir():
            next(path.iterdir(), None)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror} (mend its permissions)") from error


def _loaded(
    path: str | Path | None, device: str, dtype: DTypeLike, dialect: str | None, num_heads: int | None, state: str, weights: str
) -> Any:
    """What `load` returns, of any kind."""
    name = weights or "fashion"
    if path is None and not (SHIPPED / name).is_dir():
        there = sorted(place.name for place in SHIPPED.glob("*") if place.is_dir())
        known = f"there are {', '.join(there)}{meant(name, there)}" if there else "name a run folder (minidit train makes one)"
        raise CheckpointError(f"no weights {name!r} are shipped with this installation: {known}")
    if path is not None and weights:
        raise ValueError(f"{path} and the shipped weights {weights!r} are both named: leave out one of them")
    path = SHIPPED / name if path is None else Path(path)
    check_readable(path)
    if not path.exists() and str(path) in (place.name for place in SHIPPED.glob("*")):
        raise CheckpointError(f"{path}: there is no such file; the shipped weights are md.load(weights={str(path)!r})")
    if (path / diffusers_folder.INDEX).exists():
        model, tokenizer, process, names, meta = diffusers_folder.load(path, device=device, dtype=dtype, dialect=dialect)
        return Pipeline(model, tokenizer, process, names, meta=meta)
    if path.is_dir() and not (path / CONFIG).exists():
        return load_pipeline(path, device=device, dtype=dtype, state=state)
    if state:
        raise CheckpointError(f"{path}: is no run folder: it has no states")
    return load_model(path, device=device, dtype=dtype, dialect=dialect, num_heads=num_heads)[0]


def load_few_steps(*, device: str = "cpu", dtype: DTypeLike = np.float32) -> Pipeline:
    """The shipped flow map, for one, two or four steps. Raises CheckpointError if it is not there."""
    return pipeline_from(SHIPPED / "fashion", *load_model(SHIPPED / "fashion" / FEW_STEPS, device=device, dtype=dtype))


def load_pipeline(folder: Path, *, device: str = "cpu", dtype: DTypeLike = np.float32, state: str = "") -> Pipeline:
    """The Pipeline of a run folder; state: "" or one of the model's saved states, as in runs/weights.py."""
    return pipeline_from(folder, *weights_of(folder, "model", device, state=state, dtype=dtype))


def pipeline_from(folder: Path, model: Any, meta: dict[str, Any]) -> Pipeline:
    """The Pipeline of a model and its header, with the tokenizer of a folder."""
    file = former.file_of(folder, "model")
    if isinstance(model, TokenizerNetwork | Classifier):
        raise CheckpointError(f"{file}: a {type(model).__name__}, not a model that makes pictures")
    with reading(file, CheckpointError, ""):
        config = run_config_from(former.header(meta), str(file))
        check_partners(config.process, config.model, config.tokenizer)
        network = None
        if not isinstance(config.tokenizer, PixelsConfig):
            network, _ = load_model(former.file_of(folder, "tokenizer"), device=model.device, dtype=model.dtype)
        return pipeline_of(config, model, network, meta)


def pipeline_of(config: RunConfig, model: TrainedBackbone, network: TokenizerNetwork | None, meta: dict[str, Any]) -> Pipeline:
    """The Pipeline of a run with these networks. meta: the header of the model's file, with the facts of the data."""
    parts, data, s = assembled(config.process, network, model.device), meta.get("data", {}), config.sample
    names, crop = data.get("class_names", ()), data.get("crop", 0)
    if not is_a(names, tuple[str, ...]) or not is_a(crop, int) or any(map(UNPRINTABLE.search, names)):
        raise ValueError(f"class_names or crop of its data are damaged: {names!r:.200}, {crop!r:.20}")
    words = vocabulary_of(model.condition, data.get("words"))
    facts: Any = (model, *parts, tuple(names), crop, meta, s.guidance, s.interval, config.process.usual, words)
    if not isinstance(config.process, TokensConfig):
        return Pipeline(*facts)
    writer = Writer(*facts)
    writer.rises = config.process.rises
    return writer


def vocabulary_of(condition: Condition, words: Any) -> Vocabulary | None:
    """The vocabulary that a header gives for a model of captions. Raises ValueError if it is missing or another model's."""
    if not isinstance(condition, Tokens):
        return None
    if not is_a(words, list[str]):
        raise ValueError("the words of its captions are missing or damaged")
    vocabulary = Vocabulary(tuple(words), condition.length)
    if len(vocabulary) != condition.count:
        raise ValueError(f"its vocabulary has {len(vocabulary)} words, its network {condition.count}")
    return vocabulary
