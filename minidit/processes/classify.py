"""Training the small classifier whose eyes judge samples, and using it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minidit import ops
from minidit.autograd import value
from minidit.backend import Array, to_device, to_host
from minidit.models.classifier import Classifier
from minidit.training.clock import Clock, batch_of, stream_of
from minidit.training.forward import forward
from minidit.training.loop import Loop, LoopConfig
from minidit.training.source import Source, source_of

CLASSIFY_STREAM, DRAWS = 0x636C, 2


@dataclass(frozen=True)
class ClassifyConfig(LoopConfig):
    lr: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    warmup: int = 20
    final_lr: float = 0.02
    clip: float = 1.0
    ema: float = 0.99
    batch_size: int = 64


class Classification:
    """The classifier's loss at (step, samples)."""

    clocked = True

    def __init__(self, model: Classifier, source: Source, config: ClassifyConfig) -> None:
        self.model, self.source, self.config = model, source, config

    def __call__(self, step: int | Clock, samples: Array) -> tuple[Any, dict[str, Any]]:
        rng = stream_of(step, self.config.seed, CLASSIFY_STREAM, DRAWS)
        index = batch_of(step, samples, len(self.source), self.config, self.model.device)
        assert self.source.labels is not None
        labels = self.source.labels[index]
        logits, _ = self.model(self.source.draw(index, rng, samples))
        hits = (logits.data.argmax(axis=1) == labels).sum() / self.config.batch_size
        return ops.cross_entropy(logits, labels=labels, n=self.config.batch_size), {"accuracy": hits}


def classify(model: Classifier, data: Any, config: ClassifyConfig, *, kind: str | None = None) -> Loop:
    """The Loop of a classifier. Raises ValueError if the data have no labels."""
    source = source_of(data, model.device, model.dtype)
    if source.labels is None:
        raise ValueError("a classifier needs labels: these data have none")
    return Loop(model, Classification(model, source, config), config, kind=kind)


def judge(model: Classifier, x: Array) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """x : (N, C, H, W) in [-1, 1]  ->  (logits (N, K), features (N, F)) on the host."""
    shapes = [(model.config.num_classes,), (model.config.features,)]
    logits, features = forward(model, len(x), shapes, lambda part: [value(a) for a in model(to_device(x[part], model.device))])
    return to_host(logits), to_host(features)
