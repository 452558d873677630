"""Settings of a run that the data determine: the held-out part, and the shapes and the condition of the networks."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from minidit.checkpoint import CheckpointError
from minidit.checkpoint.files import open_safetensors
from minidit.data import Dataset, load
from minidit.data.cache import Cache
from minidit.data.checks import DataError, NoPart
from minidit.data.counts import class_lines
from minidit.models.condition import Tokens
from minidit.models.gpt import GPTConfig
from minidit.models.var import VARConfig
from minidit.models.vq import MultiScaleVQConfig
from minidit.runs.former import file_of, header
from minidit.runs.kinds import CodesConfig, PixelsConfig, check_partners, shape_of
from minidit.runs.presets import DataConfig, RunConfig
from minidit.runs.process_kinds import DDPMConfig, EDMConfig, RectifiedFlowConfig
from minidit.runs.token_kinds import TokensConfig
from minidit.training.augment import Augment

SHARE, MOST = 10, 1000  # one picture in ten is held out, at most 1,000
FEWEST = 3  # pictures of which one is held out
EXAMPLES = 16  # captions that are kept with a model


@dataclass(frozen=True)
class Parts:
    """The pictures of a run. No picture is in both parts; held_out None: all are trained on.

    about : what the held-out part is, one sentence
    """

    train: Dataset
    held_out: Dataset | None
    about: str

    @cached_property
    def digest(self) -> str:
        """Of all pictures and labels, each part for itself."""
        return digest_of(self.train) + ("" if self.held_out is None else digest_of(self.held_out))


def parts_of(config: DataConfig, cache: Cache | None = None, leave_out: Collection[str] | None = None) -> Parts:
    """The set's own parts, or one picture in ten (at most 1,000) held out, at least one of three.

    leave_out : the files that the run skipped when it began. Raises DataError for data that cannot be used.
    """

    def part(name: str | None) -> Dataset:
        return load(config.source, size=config.size, channels=config.channels, frames=config.frames, part=name,
                    skip_bad=config.skip_bad, leave_out=leave_out, cache=cache)  # fmt: skip

    try:  # a set may have its own test part
        train, held_out = part("train"), part("test")
    except NoPart:
        return split(part(None), config.held_out)
    if config.held_out is not None:
        raise DataError(f"{config.source}: has its own test part of {counted(len(held_out), held_out)}: leave out --held-out")
    copies = int(np.isin(held_out.prints, train.prints).sum())
    about = f"held out: the set's own test part, {counted(len(held_out), held_out)}"
    return Parts(train, held_out, about + (f"; {copies} of them are exact copies of training {train.noun}s" if copies else ""))


def digest_of(data: Dataset) -> str:
    """Of pictures and labels in their order; 16 characters."""
    labels = b"" if data.labels is None else np.ascontiguousarray(data.labels).tobytes()
    return hashlib.sha256(np.ascontiguousarray(data.prints).tobytes() + labels).hexdigest()[:16]


def refuse_other_pictures(path: object, header: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Raises CheckpointError unless what was trained and recorded in a header saw the pictures that these facts describe.

    Other pictures are split anew, so that some of the held-out ones may have been trained on.
    """
    recorded = header.get("data")
    then = recorded if isinstance(recorded, dict) else {}
    if then.get("teacher") != facts.get("teacher", then.get("teacher")):
        raise CheckpointError(f"{path}: learned from a network whose weights are others now: bring them back, or begin a new run")
    if facts and then.get("digest", facts["digest"]) != facts["digest"]:
        now = f"{facts['images']} pictures are trained on now, {then.get('images')} were"
        raise CheckpointError(f"{path}: was trained on other pictures ({now}): bring them back, or begin a new run with --init")


def split(whole: Dataset, count: int | None) -> Parts:
    """Parts of a set that has none of its own; count None: as many as is usual."""
    n = len(whole)
    chosen = max(min(MOST, n // SHARE), int(n >= FEWEST)) if count is None else count
    alike = n - len(np.unique(whole.prints))
    if chosen and count is None and alike == n - 1:
        chosen = 0
    if not chosen:
        few = "there are too few" if n < FEWEST else "they are all the same"
        why = "as --held-out 0 asks" if count == 0 else few
        every = counted(n, whole)
        return Parts(whole, None, f"held out: nothing, {why}; the model is trained on all ({every}) and cannot be measured")
    train, held_out = known_words(*whole.split(chosen))
    how = "drawn from all classes alike" if whole.vocabulary is None else "whatever their captions"
    about = f"held out: {len(held_out)} of {counted(n, whole)}, {how}, never trained on"
    return Parts(train, held_out, about + (f"; exact copies ({alike} in the set) stay on one side" if alike else ""))


def known_words(train: Dataset, held_out: Dataset) -> tuple[Dataset, Dataset]:
    """Both parts with the words of the training captions alone: others in the held-out part become unknown, as for a prompt."""
    if train.vocabulary is None:
        return train, held_out
    kept = [k for k in np.unique(train.captions) if k > Tokens.unknown]
    numbers = np.full(len(train.vocabulary), Tokens.unknown)
    numbers[0], numbers[kept] = 0, np.arange(len(kept)) + Tokens.unknown + 1
    words = replace(train.vocabulary, words=tuple(train.vocabulary.words[k - Tokens.unknown - 1] for k in kept))
    first, second = (replace(part, labels=numbers[part.captions], vocabulary=words) for part in (train, held_out))
    return first, second


def counted(n: int, data: Dataset) -> str:
    """So many pictures or clips, in words."""
    return f"{n:,} {data.noun}{'s' * (n != 1)}"


def augment_of(config: DataConfig) -> Augment:
    """How training pictures are changed each time they are used."""
    return Augment(config.flip, config.crop)


def about_augmentation(config: RunConfig) -> str:
    """What augmentation does in this run, one line; "" without any."""
    data = config.data
    if not augment_of(data):
        return ""
    what = " and ".join(
        ["mirrored with probability 1/2"] * data.flip + [f"shifted by up to {data.crop} pixels"] * bool(data.crop)
    )
    if isinstance(config.tokenizer, PixelsConfig):
        return f"augmentation: training pictures are {what}"
    latents = "latents of pictures and of their mirror images" if data.flip else "latents of unshifted pictures"
    trained = "" if data.tokenizer else f"the autoencoder is trained on pictures {what}; "
    return f"augmentation: {trained}the model is trained on {latents}"


def fitted(config: RunConfig, data: Dataset) -> RunConfig:
    """The configuration with channels, sizes and classes filled in. Raises ValueError if settings conflict."""
    (H, W), tokenizer, model = data.size, config.tokenizer, config.model
    check_partners(config.process, model, tokenizer)
    factor, patch = tokenizer.factor, model.multiple
    if H % (factor * patch) or W % (factor * patch):
        raise ValueError(f"pictures of {H} x {W} do not fit " + fitting_sizes(H, W, factor, patch))
    most = config.process.most_steps
    if most is not None and config.sample.steps > most:
        raise ValueError(f"--sample-steps {config.sample.steps}: the ladder has {most} rungs")
    check_share(config, data)
    if most is None and model.learn_sigma:
        raise ValueError("a model with learn_sigma is trained on a ladder of rungs only, where its bound is defined")
    augment_of(config.data).check(data.size)
    if config.data.crop and config.data.tokenizer and not isinstance(tokenizer, PixelsConfig):
        raise ValueError(f"--crop acts on pixels while an autoencoder is trained, and {config.data.tokenizer} is trained already")
    model = model.fitted(shape_of(tokenizer, *data.shape), data.num_classes)
    if data.vocabulary is not None:
        model = model.captioned(len(data.vocabulary), data.vocabulary.length)
    if isinstance(tokenizer, CodesConfig) and isinstance(model, GPTConfig | VARConfig):
        sizes = tokenizer.sizes if isinstance(tokenizer, MultiScaleVQConfig) else ()
        if sizes and (H // factor, W // factor) != 2 * sizes[-1:]:
            raise ValueError(f"pictures of {H} x {W} have a map of {H // factor} x {W // factor}, which is not the last of the "
                             f"scales {sizes}: give --ae-sizes")  # fmt: skip
        model = model.of_codes(tokenizer.vocabulary, sizes)
    if not isinstance(tokenizer, PixelsConfig):
        tokenizer = replace(tokenizer, channels=data.channels, size=(H, W))
    latents = not isinstance(tokenizer, PixelsConfig)  # whose scale makes their variance 1
    process = config.process.fitted(lambda: 1.0 if latents else spread_of(data))
    usual = process.usual
    if isinstance(process, TokensConfig) and isinstance(model, GPTConfig | VARConfig):
        config = replace(config, sample=replace(config.sample, steps=model.passes, interval=(0.0, 1.0)))
    sample = config.sample if process.guided else replace(config.sample, guidance=1.0, interval=(0.0, 1.0))
    if usual.few:
        sample = replace(sample, steps=min(sample.steps, usual.steps))
    return replace(config, tokenizer=tokenizer, model=model, process=process, sample=sample)


def check_share(config: RunConfig, data: Dataset) -> None:
    """Raises ValueError for a share of pictures where there are no clips, or where a teacher or pairs say what is learned."""
    share = config.data.pictures
    if share and len(data.shape) == 3:
        raise ValueError(f"--pictures {share:g}: the data are pictures; leave it out, it is a share of the loss on clips")
    if share and (config.process.teacher() or not isinstance(config.process, DDPMConfig | RectifiedFlowConfig | EDMConfig)):
        raise ValueError(f"--pictures {share:g}: only a process that learns from clips alone learns their frames, too: "
                         "--process ddpm, rectified_flow or edm, without a teacher or pairs")  # fmt: skip


def fitting_sizes(H: int, W: int, factor: int, patch: int) -> str:
    """What pictures of a size do not fit, and the nearest sizes that do."""
    unit, latents = factor * patch, factor > 1
    below = min(H, W) // unit * unit
    sizes = " or ".join(f"--size {size}" for size in (below, below + unit) if size)
    pixels = ", or --pixels, which needs no autoencoder" if latents and H % patch == W % patch == 0 else ""
    what = f"an autoencoder of factor {factor} and patches of {patch}" if latents else f"patches of {patch}"
    return f"{what}: give {sizes} (a multiple of {unit}){pixels}"


def spread_of(data: Dataset) -> float:
    """The root of the mean square of x_0, over at most 1,000 pictures: for EDM the standard deviation around 0."""
    x_0 = data.x_0(slice(MOST), dtype=np.float64)
    return float((x_0**2).mean() ** 0.5)


def with_tokenizer_of_init(config: RunConfig) -> RunConfig:
    """A denoiser that is fine-tuned, or learns from another, keeps the tokenizer of its run: it understands no other latents.

    Raises ValueError if one of the two works on pixels and the other on latents, or if its tokenizer is not beside its file.
    """
    name, flag = (config.data.init, "--init") if config.data.init else (config.process.teacher(), "the teacher")
    place = Path(name)
    if not name or not place.exists() or config.data.tokenizer:
        return config
    if not place.is_dir():
        kind = kind_in(place)
        if kind is None:  # a file that tells nothing of a tokenizer
            return config
        if kind != "pixels" and not file_of(place.parent, "tokenizer").exists():
            raise ValueError(f"{flag} {place}: the tokenizer of its model is not beside it: name it with --autoencoder")
        theirs, place = kind != "pixels", file_of(place.parent, "tokenizer")
    else:
        theirs = file_of(place, "tokenizer").exists()
    if theirs == isinstance(config.tokenizer, PixelsConfig):
        there, here = ("latents", "pixels") if theirs else ("pixels", "latents")
        raise ValueError(f"{flag} {name}: its model works on {there}, this run on {here}: add its --tokenizer")
    return replace(config, data=replace(config.data, tokenizer=str(place))) if theirs else config


def kind_in(path: Path) -> str | None:
    """The kind of tokenizer that the header of a file of weights names."""
    try:
        meta = open_safetensors(path, verify=False)[1]
    except CheckpointError:
        return None
    section = header(meta).get("tokenizer") if isinstance(meta.get("run"), dict) else None
    return str(section.get("kind")) if isinstance(section, dict) else None


def facts_of(data: Dataset, parts: Parts | None = None) -> dict[str, Any]:
    """Facts about the data that are saved with a trained model. parts: what else is held out."""
    about = {"held_out": "", "digest": digest_of(data)} if parts is None else {"held_out": parts.about, "digest": parts.digest}
    return {
        "name": data.name, "noun": data.noun, "class_names": list(data.class_names), "crop": data.crop, "levels": data.levels,
        "channels": data.channels, "size": list(data.size), "images": len(data), "skipped": len(data.skipped), **about,
        "classes": class_lines(data)[:1],
        **facts_of_captions(data, parts),
    }  # fmt: skip


def facts_of_captions(data: Dataset, parts: Parts | None) -> dict[str, Any]:
    """The words of captions, the most of one, and some captions, held-out ones if there are any."""
    if data.vocabulary is None:
        return {}
    shown = data if parts is None or parts.held_out is None else parts.held_out
    return {"words": list(data.vocabulary.words), "length": data.vocabulary.length, "captions": examples(shown)}


def examples(data: Dataset) -> list[str]:
    """Some captions of a set, from all over it: what a model of captions draws where nothing is asked for."""
    assert data.vocabulary is not None
    rows = np.unique(np.linspace(0, len(data) - 1, EXAMPLES).round().astype(int))
    return data.vocabulary.texts(data.captions[rows])
