"""Training and using the small classifier that judges samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from minidit import ops
from minidit.autograd import Tensor, value
from minidit.backend import Array, to_device, to_host
from minidit.models.classifier import Classifier
from minidit.training.draws import Draws
from minidit.training.forward import forward
from minidit.training.loop import Loop, ShortRecipe
from minidit.training.source import source_of


@dataclass(frozen=True)
class ClassifyConfig(ShortRecipe):
    """The training of the judge."""

    lr: float = 2e-3
    weight_decay: float = 0.01
    batch_size: int = 64


@dataclass(frozen=True)
class Classification:
    """The loss of a classifier."""

    stream: ClassVar[int] = 0x636C
    per: ClassVar[int] = 2

    def loss(self, network: Any, x_0: Array, y: Array | None, draws: Draws) -> tuple[Tensor, dict[str, Array]]:
        logits, _ = network(x_0)
        return ops.cross_entropy(logits, labels=y), {"accuracy": logits.data.argmax(axis=1) == y}


def classify(model: Classifier, data: Any, config: ClassifyConfig, *, kind: str | None = None) -> Loop:
    """The Loop of a classifier. Raises ValueError if the data have no labels."""
    source = source_of(data, model.device, model.dtype)
    if source.labels is None:
        raise ValueError("a classifier needs labels: these data have none")
    return Loop(model, Classification(), source, config, kind=kind)


def judge(model: Classifier, x: Array) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """x : (N, C, H, W) in [-1, 1]  ->  (logits (N, K), features (N, F)) on the host."""
    shapes = [(model.config.num_classes,), (model.config.features,)]
    logits, features = forward(model, len(x), shapes, lambda part: [value(a) for a in model(to_device(x[part], model.device))])
    return to_host(logits), to_host(features)
