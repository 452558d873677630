"""A whole pipeline as diffusers saves it: a folder with model_index.json, and in it denoiser, autoencoder and schedule."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minidit.checkpoint import CheckpointError, load_model, read_json
from minidit.diffusion.prediction import PREDICTIONS, Prediction
from minidit.diffusion.schedule import Schedule
from minidit.models.autoencoder_kl import AutoencoderKL
from minidit.models.dit import DiT

INDEX = "model_index.json"
SAID = {"epsilon": "eps", "sample": "x_0", "v_prediction": "v"}


def load(
    folder: Path, *, device: str = "cpu", dtype: Any = np.float32, dialect: str | None = None
) -> tuple[DiT, AutoencoderKL, Schedule, Prediction, tuple[str, ...], dict[str, Any]]:
    """(denoiser, autoencoder, schedule, prediction, class names, differences) of a DiT pipeline. Raises CheckpointError."""
    index = read_json(folder / INDEX)
    if index.get("_class_name") != "DiTPipeline":
        raise CheckpointError(f"{folder / INDEX}: a {index.get('_class_name')}, only a DiTPipeline is known here")
    model, meta = load_model(folder / "transformer", device=device, dtype=dtype, dialect=dialect)
    autoencoder, more = load_model(folder / "vae", device=device, dtype=dtype)
    if not isinstance(model, DiT) or not isinstance(autoencoder, AutoencoderKL):
        raise CheckpointError(f"{folder}: its transformer and vae are not a DiT and an AutoencoderKL")
    if autoencoder.config.latent_channels != model.config.in_channels:
        latent, wanted = autoencoder.config.latent_channels, model.config.in_channels
        raise CheckpointError(f"{folder}: latents have {latent} channels, the denoiser works on {wanted}")
    where = folder / "scheduler" / "scheduler_config.json"
    schedule, prediction = schedule_from(read_json(where), str(where))
    labels = index.get("id2label")
    names = [] if not isinstance(labels, Mapping) else [labels.get(str(k), str(k)) for k in range(model.config.num_classes)]
    differences = [*meta["differences"], *more["differences"], "spacing: rungs are walked as minidit does (D.25)"]
    told = {"grammar": meta["grammar"], "differences": differences}
    return model, autoencoder, schedule, prediction, tuple(str(n).partition(",")[0].strip() for n in names), told


def schedule_from(settings: Mapping[str, Any], where: str) -> tuple[Schedule, Prediction]:
    """The ladder and the prediction of a scheduler of diffusers. Raises CheckpointError for what is not known here."""
    T, law = settings.get("num_train_timesteps", 1000), settings.get("beta_schedule", "linear")
    start, end = settings.get("beta_start", 1e-4), settings.get("beta_end", 0.02)
    said = settings.get("prediction_type", "epsilon")
    if said not in SAID:
        raise CheckpointError(f"{where}: prediction_type = {said!r} is not one of {', '.join(SAID)}")
    if settings.get("rescale_betas_zero_snr"):
        raise CheckpointError(f"{where}: rescale_betas_zero_snr is not read here")
    try:
        if settings.get("trained_betas") is not None:
            beta = np.asarray(settings["trained_betas"], np.float64)
        elif law == "linear":
            beta = np.linspace(start, end, T)
        elif law == "scaled_linear":
            beta = np.linspace(start**0.5, end**0.5, T) ** 2
        elif law == "squaredcos_cap_v2":
            return Schedule.cosine(T), PREDICTIONS[SAID[said]]
        else:
            raise CheckpointError(f"{where}: beta_schedule = {law!r} is not known here")
        return Schedule.from_betas(beta), PREDICTIONS[SAID[said]]
    except (TypeError, ValueError) as error:
        raise CheckpointError(str(error) if where in str(error) else f"{where}: {error}") from error
