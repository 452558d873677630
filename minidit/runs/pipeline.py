"""A trained denoiser with all that it needs to make pictures: from labels to images in one call.

    pictures = load("runs/mine").sample("shirt,bag", steps=50, guidance=2)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minidit.backend import Array, to_device, to_host
from minidit.checkpoint import CONFIG, CheckpointError, load_model
from minidit.data import parse_labels
from minidit.diffusion import rungs as spacing
from minidit.diffusion import variance
from minidit.diffusion.prediction import PREDICTIONS, Prediction
from minidit.diffusion.schedule import Schedule
from minidit.models.autoencoder import Autoencoder
from minidit.models.autoencoder_kl import AutoencoderKL
from minidit.models.dit import DiT
from minidit.processes import sample as recipe
from minidit.processes.autoencode import decode, posterior_of
from minidit.processes.train import SCHEDULES
from minidit.runs import diffusers_folder

SHIPPED = Path(__file__).parent.parent / "weights"


@dataclass
class Pipeline:
    """A denoiser, its schedule and prediction, and the autoencoder (None: pixels)."""

    model: DiT
    autoencoder: Autoencoder | AutoencoderKL | None
    schedule: Schedule
    prediction: Prediction
    class_names: tuple[str, ...] = ()
    crop: int = 0
    meta: dict[str, Any] | None = None
    guidance: float = 2.0  # where a call says nothing else
    interval: tuple[float, float] = (0.0, 1.0)

    def labels(self, wanted: str | Sequence[int] | None, n: int | None = None) -> list[int] | None:
        """Labels from numbers, or from text ("0-9", "shirt,bag"; None: all) repeated in turn to n of them.

        None for an unconditional model, which knows no labels: ValueError if some are wanted.
        """
        K = self.model.config.num_classes
        if not K:
            if wanted is not None:
                raise ValueError(f"labels {wanted!r}: the model is unconditional and knows none")
            return None
        if wanted is not None and not isinstance(wanted, str):
            return [int(k) for k in wanted]
        if wanted is None:
            found, n = list(range(K)), n or 16
        else:
            found = parse_labels(wanted, self.class_names or tuple(map(str, range(K))))
        return found if n is None else [found[i % len(found)] for i in range(n)]

    def latents(
        self,
        labels: Sequence[int] | None,
        *,
        n: int = 16,
        steps: int = 50,
        guidance: float | None = None,
        interval: tuple[float, float] | None = None,
        sampler: str = "ddim",
        eta: float = 0.0,
        seed: int = 0,
        **more: Any,
    ) -> Any:
        """What `sample` decodes: x_0 of the denoiser, or with trace=True an iterator over its Moments.

        guidance None: the pipeline's own scale, in its own interval; a scale that is given holds on the whole ladder.
        """
        sch = self.schedule
        interval = interval or (self.interval if guidance is None else (0.0, 1.0))
        guidance = self.guidance if guidance is None else guidance
        guided = labels is not None and self.model.config.class_dropout_prob > 0  # else there is no null label to walk from
        pairs = spacing.pairs(spacing.linspace(sch.T, min(steps, sch.T)))
        law = variance.learned_range if self.model.config.learn_sigma else variance.small
        step = recipe.ddpm(law) if sampler == "ddpm" else recipe.ddim(eta)
        return recipe.sample(
            self.model, sch, None if labels is None else np.asarray(labels), n=None if labels is not None else n, pairs=pairs,
            step=step, prediction=self.prediction, guidance=guidance if guided else 1.0,
            interval=interval, clip=self.autoencoder is None, seed=seed, **more,
        )  # fmt: skip

    def pictures(self, x_0: Array) -> np.ndarray[Any, Any]:
        """Pictures (B, C, H, W) in [-1, 1] on the host from what the denoiser made, padding cut off."""
        x = to_host(x_0) if self.autoencoder is None else decode(self.autoencoder, x_0)
        c = self.crop
        return np.asarray(np.clip(x[..., c : x.shape[2] - c, c : x.shape[3] - c], -1, 1))

    def encode(self, x: Array) -> Array:
        """What the denoiser works on: pictures (B, C, H, W) in [-1, 1], padding included  ->  scaled latents, or the same."""
        x = to_device(x, self.model.device)
        return x if self.autoencoder is None else posterior_of(self.autoencoder, x)[0] * float(self.autoencoder.scale)

    def sample(self, labels: str | Sequence[int] | None = None, **options: Any) -> np.ndarray[Any, Any]:
        """Pictures (B, C, H, W) in [-1, 1]. Options: n, steps, guidance, interval, sampler ("ddim", "ddpm"), eta, seed."""
        return self.pictures(self.latents(self.labels(labels, options.get("n")), **options))


def load(
    path: str | Path | None = None,
    *,
    device: str = "cpu",
    dtype: Any = np.float32,
    dialect: str | None = None,
    num_heads: int | None = None,
) -> Any:
    """A network from a file, a Pipeline from a run folder; the shipped weights when no path is given.

    Also from other projects' files, recognised by what is in them: an official DiT, a DiT or AutoencoderKL of diffusers (its
    folder, or a whole pipeline's with model_index.json), an autoencoder of latent-diffusion; `describe` tells what is in a file
    and how that project's own code differs. dialect, num_heads: see `checkpoint.load_model`.

    Raises CheckpointError, with the path, for anything else.
    """
    if path is None and not (SHIPPED / "fashion").is_dir():
        raise CheckpointError("no weights are shipped with this installation: name a run folder (minidit train makes one)")
    path = SHIPPED / "fashion" if path is None else Path(path)
    options: dict[str, Any] = {"device": device, "dtype": dtype}
    foreign: dict[str, Any] = {"dialect": dialect, "num_heads": num_heads}
    if (path / diffusers_folder.INDEX).exists():
        model, autoencoder, schedule, prediction, names, meta = diffusers_folder.load(path, dialect=dialect, **options)
        return Pipeline(model, autoencoder, schedule, prediction, names, meta=meta)
    if path.is_dir() and not (path / CONFIG).exists():
        return load_pipeline(path, **options)
    return load_model(path, **options, **foreign)[0]


def load_pipeline(folder: Path, *, device: str = "cpu", dtype: Any = np.float32) -> Pipeline:
    """The Pipeline of a run folder."""
    if not (folder / "dit.safetensors").exists():
        raise CheckpointError(f"{folder}: holds no dit.safetensors: not the folder of a finished run")
    model, meta = load_model(folder / "dit.safetensors", device=device, dtype=dtype)
    train, data, drawn = meta.get("train", {}), meta.get("data", {}), meta.get("sample", {})
    autoencoder = None
    if not data.get("pixels", False):
        autoencoder, _ = load_model(folder / "autoencoder.safetensors", device=device, dtype=dtype)
    try:
        schedule = SCHEDULES[train.get("schedule", "linear")](train.get("T", 1000))
        prediction = PREDICTIONS[train.get("prediction", "eps")]
    except KeyError as error:
        raise CheckpointError(f"{folder / 'dit.safetensors'}: schedule or prediction {error} is not known here") from error
    names, crop = tuple(data.get("class_names", ())), data.get("crop", 0)
    guidance, interval = drawn.get("guidance", 2.0), tuple(drawn.get("interval", (0.0, 1.0)))
    return Pipeline(model, autoencoder, schedule, prediction, names, crop, meta, guidance, interval)
