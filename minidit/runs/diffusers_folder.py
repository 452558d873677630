"""A whole pipeline as diffusers saves it: a folder with model_index.json, denoiser, autoencoder and schedule."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from minidit.checkpoint import CheckpointError, load_model, read_json
from minidit.checkpoint.settings import of_scheduler, whole
from minidit.incoming import printable
from minidit.models.autoencoder_kl import AutoencoderKL
from minidit.models.dit import DiT
from minidit.processes.sample import Trained
from minidit.processes.tokenizer import Latent, Tokenizer
from minidit.runs.process_kinds import MOST_RUNGS, Betas, DDPMConfig

INDEX = "model_index.json"
PREDICTIONS = {"epsilon": "eps", "sample": "x_0", "v_prediction": "v"}


def load(
    folder: Path, *, device: str = "cpu", dtype: DTypeLike = np.float32, dialect: str | None = None
) -> tuple[DiT, Tokenizer, Trained, tuple[str, ...], dict[str, Any]]:
    """(model, tokenizer, process, class names, differences) of a DiT pipeline. Raises CheckpointError."""
    index = read_json(folder / INDEX)
    if index.get("_class_name") != "DiTPipeline":
        raise CheckpointError(f"{folder / INDEX}: a {index.get('_class_name')}, only DiTPipeline is supported")
    model, meta = load_model(folder / "transformer", device=device, dtype=dtype, dialect=dialect)
    autoencoder, more = load_model(folder / "vae", device=device, dtype=dtype)
    if not isinstance(model, DiT) or not isinstance(autoencoder, AutoencoderKL):
        raise CheckpointError(f"{folder}: its transformer and vae are not a DiT and an AutoencoderKL")
    latent, expected = autoencoder.config.latent_channels, model.shape[0]
    if latent != expected:
        raise CheckpointError(f"{folder}: latents have {latent} channels, the denoiser works on {expected}")
    where = folder / "scheduler" / "scheduler_config.json"
    scheduler = read_json(where)
    dropped = of_scheduler(scheduler, str(where))
    try:
        parts = Latent(autoencoder), process_from(scheduler, str(where)).diffusion()
    except CheckpointError:
        raise
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{where}: {error}") from error
    labels = index.get("id2label")
    names = [] if not isinstance(labels, Mapping) else [labels.get(str(k), str(k)) for k in range(model.condition.count)]
    visited = "spacing: rungs are visited as in minidit (D.26)"
    differences = [*meta["differences"], *more["differences"], *map(str, dropped), visited]
    class_names = tuple(printable(n).partition(",")[0].strip() for n in names)
    return model, *parts, class_names, {"grammar": meta["grammar"], "differences": differences}


def process_from(settings: Mapping[str, Any], where: str) -> DDPMConfig:
    """The process of a scheduler of diffusers. Raises CheckpointError for unsupported settings."""
    of_scheduler(settings, where)  # raises for a scheduler without a ladder
    T, law = whole(settings, "num_train_timesteps", 1000, where), settings.get("beta_schedule", "linear")
    if T > MOST_RUNGS:
        raise CheckpointError(f"{where}: num_train_timesteps = {T}, at most {MOST_RUNGS} are walked")
    start, end = settings.get("beta_start", 1e-4), settings.get("beta_end", 0.02)
    word = settings.get("prediction_type", "epsilon")
    if not isinstance(word, str) or word not in PREDICTIONS:
        raise CheckpointError(f"{where}: prediction_type = {word!r} is not one of {', '.join(PREDICTIONS)}")
    if settings.get("rescale_betas_zero_snr"):
        raise CheckpointError(f"{where}: rescale_betas_zero_snr is not supported")
    prediction = PREDICTIONS[word]
    try:
        if settings.get("trained_betas") is not None:
            betas = np.asarray(settings["trained_betas"], np.float64)
        elif law == "linear":
            betas = np.linspace(start, end, T)
        elif law == "scaled_linear":
            betas = np.linspace(start**0.5, end**0.5, T) ** 2
        elif law == "squaredcos_cap_v2":
            return DDPMConfig(prediction=prediction, schedule="cosine", T=T)
        else:
            raise CheckpointError(f"{where}: beta_schedule = {law!r} is not supported")
        return Betas(prediction=prediction, T=len(betas), betas=tuple(betas.tolist()))
    except (TypeError, ValueError) as error:
        raise CheckpointError(str(error) if where in str(error) else f"{where}: {error}") from error
