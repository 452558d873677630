"""Training a denoiser: draw a rung, add the noise, ask for the noise, compare.

    x_t = √ᾱ_t x_0 + √(1-ᾱ_t) ε                       t uniform in 1..T, ε ~ N(0, 1)            (D.1)
    loss = mean w(t) (target(x_0, ε, ᾱ_t) - model(x_t, time[t], y))²                          (D.34)
    y = null with probability p                        so that the model also learns "any class"   (G.7)

With learn_sigma the second half of the channels is trained by λ T times one term of the bound (D.36), whose decoder is that of
grey levels where the data are a Dataset's pixels, and the continuous one for latents and other numbers (K.11).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from minidit import ops
from minidit.backend import Array, resident, to_host, xp_of
from minidit.diffusion import likelihood, loss, variance
from minidit.diffusion.ddpm import q_sample
from minidit.diffusion.prediction import EPS, PREDICTIONS, Prediction
from minidit.diffusion.schedule import Schedule, at
from minidit.kernels import cuda_laws
from minidit.models.dit import DiT
from minidit.training.clock import Clock, batch_of, stream_of
from minidit.training.loop import Loop, LoopConfig
from minidit.training.memory import explained
from minidit.training.source import Source, source_of

TRAIN_STREAM, DRAWS = 0x74726E, 8  # the stream of this recipe, and how many draws a step may make

SCHEDULES = {"linear": Schedule.linear, "cosine": Schedule.cosine, "scaled_linear": Schedule.scaled_linear}
LOSS_WEIGHTS = {
    ("min_snr", "eps"): loss.min_snr_eps,
    ("min_snr", "x_0"): loss.min_snr_x_0,
    ("min_snr", "v"): loss.min_snr_v,
}


@dataclass(frozen=True)
class TrainConfig(LoopConfig):
    """Defaults are the paper's: ε-prediction, linear schedule, T = 1000, AdamW 1e-4, EMA 0.9999."""

    prediction: str = "eps"  # eps, x_0 or v
    schedule: str = "linear"  # linear, cosine or scaled_linear
    T: int = 1000
    loss_weight: str = "uniform"  # uniform or min_snr
    vb_weight: float = 1e-3  # λ of the hybrid loss, where the model has learn_sigma

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("prediction", PREDICTIONS), ("schedule", SCHEDULES), ("loss_weight", ("uniform", "min_snr"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} {getattr(self, name)!r} is not one of {', '.join(known)}")

    def make_schedule(self) -> Schedule:
        return SCHEDULES[self.schedule](self.T)

    def make_prediction(self) -> Prediction:
        return PREDICTIONS[self.prediction]


def drop_labels(y: Array, u: Array, p: float, null_label: int) -> Array:
    """y : (B,) ints, u : (B,) uniform  ->  y, with the null label where u < p: one decision a sample."""
    return xp_of(y, u).where(u < p, null_label, y)  # (G.7)


class Denoising:
    """The loss of a DiT at (step, samples): callable for Loop, and a function of its arguments only."""

    clocked = True

    def __init__(self, model: DiT, source: Source, config: TrainConfig) -> None:
        self.model, self.source, self.config = model, source, config
        self.schedule, self.prediction = config.make_schedule(), config.make_prediction()
        self.weight = LOSS_WEIGHTS.get((config.loss_weight, config.prediction))
        self.decoder = likelihood.trained_decoder(source.levels)

    def __call__(self, step: int | Clock, samples: Array) -> tuple[Any, dict[str, Any]]:
        config, model, sch, b = self.config, self.model, self.schedule, len(samples)
        rng, device = stream_of(step, config.seed, TRAIN_STREAM, DRAWS), model.device
        index = batch_of(step, samples, len(self.source), config, device)
        t = rng.integers(1, sch.T + 1, (b,), samples, device)
        u = rng.uniform((b,), samples, device)
        x_0 = self.source.draw(index, rng, samples)
        eps = rng.normal(x_0.shape, samples, device, x_0.dtype)
        y = self.source.labels
        if y is not None and model.config.num_classes:
            y = drop_labels(y[index], u, model.config.class_dropout_prob, model.null_label)
        else:
            y = None
        a_t = at(sch.alpha_bar, t)
        x_t = cuda_laws.either(cuda_laws.q_sample, q_sample)(x_0, t, eps, sch)
        out = model(x_t, at_time(sch, t), y)
        vb = 0.0
        if model.config.learn_sigma:
            out, v = ops.split(out, parts=2, axis=1)
            vb = self._bound(x_0, x_t, out.data, v, t, a_t)
        target = self.prediction.target(x_0, eps, a_t)
        weight = None if self.weight is None else xp_of(x_0).asarray(self.weight(a_t), dtype=x_0.dtype)
        simple = ops.mse(out, target, weight, n=config.batch_size * x_0[0].size)
        if not model.config.learn_sigma:
            return simple, {}
        share = b / config.batch_size
        return loss.hybrid(simple, vb * share, sch.T, config.vb_weight), {"simple": simple.data}

    def _bound(self, x_0: Array, x_t: Array, out: Array, v: Any, t: Array, a_t: Array) -> Any:
        """One term of the bound, mean over samples; the network's guess of x_0 comes as a plain array: the stop-gradient."""
        x_0_hat, _ = self.prediction.pair(out, x_t, a_t)
        log_variance = variance.log_learned_range(v, t, t - 1, self.schedule)
        return likelihood.bound_term(x_0, x_t, x_0_hat, log_variance, t, self.schedule, decoder=self.decoder).mean()


def at_time(sch: Schedule, t: Array) -> Array:
    """What the network is told at the rungs t : (B,), in the home of t."""
    return resident(sch.time, t)[t]


def train(model: DiT, data: Any, config: TrainConfig | None = None, **overrides: Any) -> Iterator[dict[str, Any]]:
    """Trains model on data; yields a record a step: `for record in train(model, data, steps=1000, lr=1e-3): …`

    data : a Dataset, (x_0, labels), x_0 alone, or any Source.  overrides : fields of TrainConfig, over those of config.
    The model is left with its raw weights; `loop_for` gives the Loop itself, with the EMA in loop.optimiser.average.
    """
    config = replace(config or TrainConfig(), **overrides)
    with explained(model.config, config, model.device):
        yield from loop_for(model, data, config).run()


def loop_for(model: DiT, data: Any, config: TrainConfig, *, kind: str | None = None) -> Loop:
    """The Loop of a denoiser. Raises ValueError where data and model do not fit."""
    source = source_of(data, model.device, model.dtype)
    if model.config.num_classes and source.labels is None:
        raise ValueError(f"the model has {model.config.num_classes} classes but the data have no labels")
    if source.labels is not None and model.config.num_classes:
        labels = to_host(source.labels)
        outside = labels[(labels < 0) | (labels >= model.config.num_classes)]
        if len(outside):
            raise ValueError(f"label {outside[0]} is out of range for a model of {model.config.num_classes} classes")
    return Loop(model, Denoising(model, source, config), config, kind=kind)


__all__ = ["EPS", "Denoising", "TrainConfig", "drop_labels", "loop_for", "train"]
