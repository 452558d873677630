"""Settings of a run that the data determine: the held-out part, and the shapes and classes of the networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from minidit.data import Dataset, load
from minidit.runs.former import file_of
from minidit.runs.kinds import PixelsConfig, shape_of
from minidit.runs.presets import DataConfig, RunConfig


def data_of(config: DataConfig) -> tuple[Dataset, Dataset]:
    """(training set, held-out set): the set's own parts, or a tenth of its pictures (at most 1,000)."""

    def part(name: str | None) -> Dataset:
        return load(config.source, size=config.size, channels=config.channels, part=name)

    if config.source in ("digits", "fashion"):
        return part("train"), part("test")
    try:  # a set may have its own test part
        return part("train"), part("test")
    except ValueError:
        whole = part(None)
    held_out = min(1000, len(whole) // 10)
    return whole.split(held_out) if held_out else (whole, whole)


def fitted(config: RunConfig, data: Dataset) -> RunConfig:
    """The configuration with channels, sizes and classes filled in. Raises ValueError if settings conflict."""
    (H, W), tokenizer, model = data.size, config.tokenizer, config.model
    factor, patch = tokenizer.factor, model.multiple
    if H % (factor * patch) or W % (factor * patch):
        what = f"{'' if factor == 1 else f'an autoencoder of factor {factor} and '}patches of {patch}"
        raise ValueError(f"pictures of {H} x {W} do not fit {what}: give --size, a multiple of {factor * patch}")
    if config.sample.steps > config.process.T:
        raise ValueError(f"--sample-steps {config.sample.steps}: the ladder has {config.process.T} rungs")
    model = model.fitted(shape_of(tokenizer, data.channels, H, W), data.num_classes)
    if not isinstance(tokenizer, PixelsConfig):
        tokenizer = replace(tokenizer, channels=data.channels, size=(H, W))
    return replace(config, tokenizer=tokenizer, model=model)


def with_tokenizer_of_init(config: RunConfig) -> RunConfig:
    """A denoiser that is fine-tuned keeps the tokenizer of its run: it understands no other latents.

    Raises ValueError if one of the two works on pixels and the other on latents.
    """
    place = Path(config.data.init)
    if not config.data.init or not place.is_dir() or config.data.tokenizer:
        return config
    theirs = file_of(place, "tokenizer").exists()
    if theirs == isinstance(config.tokenizer, PixelsConfig):
        there, here = ("latents", "pixels") if theirs else ("pixels", "latents")
        raise ValueError(f"--init {place}: its model works on {there}, this run on {here}: add --tokenizer with its kind")
    return replace(config, data=replace(config.data, tokenizer=str(place))) if theirs else config


def facts_of(data: Dataset) -> dict[str, Any]:
    """Facts about the data that are saved with a trained model."""
    return {
        "name": data.name, "class_names": list(data.class_names), "crop": data.crop, "levels": data.levels,
        "channels": data.channels, "size": list(data.size), "images": len(data),
    }  # fmt: skip
