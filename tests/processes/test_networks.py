"""The autoencoder and the classifier: their losses, their training, and what they are used for."""

import numpy as np
import pytest
from support import agree, host, spec

from minidit import metrics
from minidit.backend import to_device
from minidit.data import digits
from minidit.models.autoencoder import Autoencoder, AutoencoderConfig
from minidit.models.classifier import Classifier, ClassifierConfig
from minidit.processes.autoencode import AutoencodeConfig, Reconstruction, autoencode
from minidit.processes.classify import Classification, ClassifyConfig, classify, judge
from minidit.processes.tokenizer import decode, latents_of, measure_scale, posterior_of, reconstruct
from minidit.random import Philox
from minidit.training.draws import Draws
from minidit.training.source import source_of

AUTOENCODER = AutoencoderConfig(channels=1, latent_channels=2, widths=(8, 8, 16), size=8)
CLASSIFIER = ClassifierConfig(channels=1, size=8, num_classes=10, widths=(8, 8, 16), features=16)


# ------------------------------------------------------------------------------------------------ autoencoder


def losses(process, network, data, samples):
    """The losses of these samples of one update, and the other numbers."""
    draws = Draws(0, process.stream, samples, dtype=np.float64, per=process.per, when=1)
    return process.loss(network, *data.draw(samples, draws), draws)


@spec("L.2")
def test_the_autoencoders_loss_of_a_sample_is_the_same_in_any_batch():
    model, process = Autoencoder(AUTOENCODER, Philox(0), dtype=np.float64), Reconstruction(0.1)
    data = source_of(digits(), "cpu", np.float64)
    loss, numbers = losses(process, model, data, np.arange(10))
    parts = [losses(process, model, data, samples)[0].data for samples in np.split(np.arange(10), [3, 4])]
    agree(np.concatenate(parts), loss.data, bound=1e-12, of="L.2")
    agree(numbers["mse"] + 0.1 * numbers["kl"], loss.data, bound=1e-12, of="L.2")


def test_the_autoencoder_learns():
    model = Autoencoder(AUTOENCODER, Philox(0))
    told = [r["mse"] for r in autoencode(model, digits(), AutoencodeConfig(steps=40, shards=2)).run()]
    assert np.mean(told[-5:]) < 0.7 * np.mean(told[:2])


@spec("L.3")
def test_scaled_latents_have_unit_variance():
    model, data = Autoencoder(AUTOENCODER, Philox(0)), digits()
    latents = latents_of(model, data)
    assert float(model.scale) == np.float32(latents.scale) and len(latents) == 1500
    z, _ = latents.draw(np.arange(1500), Draws(5, 0, np.arange(1500), per=8))
    agree(z.std(), 1.0, bound=0.02, of="L.3")


@spec("L.3")
def test_the_scale_is_one_number_for_all_channels():
    std = np.array([1.0, 3.0]).reshape(1, 2, 1, 1) * np.ones((4000, 1, 2, 2))
    agree(measure_scale(np.zeros_like(std), std), 1 / 5**0.5, bound=0.02, of="L.3")


def test_encoding_in_chunks_is_encoding(monkeypatch):
    model, x = Autoencoder(AUTOENCODER, Philox(0)), digits().x_0(slice(7))
    whole = posterior_of(model, x)
    picture = decode(model, whole[0] * float(model.scale))
    monkeypatch.setattr("minidit.training.forward.CHUNK", 3)
    for a, b in zip(posterior_of(model, x), whole, strict=True):
        agree(a, b, bound=1e-6)
    agree(reconstruct(model, x), picture, bound=1e-6)


def test_the_autoencoder_on_the_device_is_that_of_the_host():
    x, found = digits().x_0(slice(9)), []
    for device in ("cpu", "cuda"):
        model = Autoencoder(AUTOENCODER, Philox(0), device=device)
        config = AutoencodeConfig(steps=1, batch_size=8, shards=1, eps=1e-3)
        record = next(autoencode(model, to_device(x, device), config).run())
        latents = latents_of(model, digits().take(slice(20)))
        found.append((float(host(record["loss"])), host(latents.mean), latents.scale, reconstruct(model, x)))
    for here, there in zip(*found, strict=True):
        agree(there, here, bound=1e-4)


# ------------------------------------------------------------------------------------------------ classifier


def test_the_classifier_learns_and_judges():
    data, model = digits(), Classifier(ClassifierConfig(1, 8, 10), Philox(0, 3))
    assert len(list(classify(model, data, ClassifyConfig(steps=60, shards=2)).run())) == 60
    logits, features = judge(model, data.x_0())
    assert logits.shape == (1500, 10) and features.shape == (1500, 64)
    assert metrics.accuracy(logits, data.labels) > 0.5


def test_a_classifiers_loss_and_hits_of_a_sample_are_the_same_in_any_batch():
    data, model = source_of(digits(), "cpu", np.float64), Classifier(CLASSIFIER, Philox(0), dtype=np.float64)
    loss, numbers = losses(Classification(), model, data, np.arange(10))
    parts = [losses(Classification(), model, data, samples) for samples in np.split(np.arange(10), [3, 4])]
    agree(np.concatenate([part.data for part, _ in parts]), loss.data, bound=1e-12)
    assert np.array_equal(np.concatenate([hits["accuracy"] for _, hits in parts]), numbers["accuracy"])


def test_a_classifier_needs_labels():
    with pytest.raises(ValueError, match="a classifier needs labels"):
        classify(Classifier(CLASSIFIER, Philox(0)), digits().x_0(), ClassifyConfig())
