"""The other recipes: autoencoder, classifier, evaluation, and a trained run as one call from labels to pictures."""

import json
from dataclasses import replace

import numpy as np
import pytest
from small import DIT, awake, run_config
from support import agree, host, spec

from minidit import metrics
from minidit.backend import to_device
from minidit.checkpoint import CheckpointError, save_model
from minidit.data import digits
from minidit.diffusion import variance
from minidit.diffusion.prediction import V
from minidit.diffusion.schedule import Schedule
from minidit.models.autoencoder import Autoencoder, AutoencoderConfig
from minidit.models.classifier import Classifier, ClassifierConfig
from minidit.processes import sample as recipe
from minidit.processes.autoencode import (
    AutoencodeConfig,
    Reconstruction,
    autoencode,
    decode,
    latents_of,
    measure_scale,
    posterior_of,
    reconstruct,
)
from minidit.processes.classify import ClassifyConfig, classify, judge
from minidit.random import Philox
from minidit.runs.evaluate import Evaluation, train_classifier
from minidit.runs.gallery import measure, show_run
from minidit.runs.pipeline import Pipeline, load
from minidit.runs.run import Run, moments, silent
from minidit.runs.show import class_grid
from minidit.training.source import source_of

AUTOENCODER = AutoencoderConfig(channels=1, latent_channels=2, widths=(8, 8, 16), size=8)
CLASSIFIER = ClassifierConfig(channels=1, size=8, num_classes=10, widths=(8, 8, 16), features=16)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run in latents: the job, its pipeline, the data."""
    job = Run(tmp_path_factory.mktemp("runs") / "tiny", run_config(pixels=False))
    train, held_out = job.data()
    job.fit_to(train)
    job.create()
    pipeline = job.train_denoiser(*job.source(train))
    return job, pipeline, train, held_out


# ------------------------------------------------------------------------------------------------ autoencoder


@spec("L.2")
def test_the_autoencoders_loss_sums_over_any_split():
    model = Autoencoder(AUTOENCODER, Philox(0), dtype=np.float64)
    config = AutoencodeConfig(steps=2, batch_size=10, kl_weight=0.1)
    f = Reconstruction(model, source_of(digits(), "cpu", np.float64), config)
    whole, told = f(1, np.arange(10))
    parts = [f(1, samples)[0] for samples in np.split(np.arange(10), [3, 4])]
    agree(sum(map(float, parts)), float(whole), bound=1e-12, of="L.2")
    agree(float(told["mse"]) + 0.1 * float(told["kl"]), float(whole), bound=1e-12, of="L.2")


def test_the_autoencoder_learns():
    model = Autoencoder(AUTOENCODER, Philox(0))
    told = [r["mse"] for r in autoencode(model, digits(), AutoencodeConfig(steps=40, shards=2)).run()]
    assert np.mean(told[-5:]) < 0.7 * np.mean(told[:2])


@spec("L.3")
def test_scaled_latents_have_unit_variance():
    model, data = Autoencoder(AUTOENCODER, Philox(0)), digits()
    latents = latents_of(model, data)
    assert float(model.scale) == np.float32(latents.scale) and len(latents) == 1500
    z = latents.draw(np.arange(1500), Philox(5), np.arange(1500))
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
    data = digits()
    model = train_classifier(data, ClassifyConfig(steps=60, shards=2), silent)
    logits, features = judge(model, data.x_0())
    assert logits.shape == (1500, 10) and features.shape == (1500, 64)
    assert metrics.accuracy(logits, data.labels) > 0.5


def test_a_classifiers_loss_and_hits_sum_over_any_split():
    data = source_of(digits(), "cpu", np.float64)
    loop = classify(Classifier(CLASSIFIER, Philox(0), dtype=np.float64), data, ClassifyConfig(batch_size=10, shards=1))
    whole, told = loop.loss_of(3, np.arange(10))
    parts = [loop.loss_of(3, samples) for samples in np.split(np.arange(10), [3, 4])]
    agree(sum(float(value) for value, _ in parts), float(whole), bound=1e-12)
    agree(sum(float(more["accuracy"]) for _, more in parts), float(told["accuracy"]), bound=1e-12)


def test_a_classifier_needs_labels():
    with pytest.raises(ValueError, match="a classifier needs labels"):
        classify(Classifier(CLASSIFIER, Philox(0)), digits().x_0(), ClassifyConfig())


# ------------------------------------------------------------------------------------------------ evaluation


def test_an_evaluation_frames_samples_with_references(run):
    job, pipeline, train, held_out = run
    job.config = replace(job.config, sample=replace(job.config.sample, steps=2))
    notes = []
    evaluation = Evaluation(train_classifier(train, job.config.classify, silent), train, held_out, n=20)
    found = measure(job, pipeline, evaluation, notes.append, ddpm_steps=3, ddpm_n=10)
    names = [row["name"] for row in found["rows"]]
    assert names == ["held-out real images", "their reconstructions", "noise", "DDIM 2, w = 2", "DDIM 2, w = 1",
                     "DDIM 2, w = 3", "DDPM 3, w = 2"]  # fmt: skip
    assert found["rows"][1]["multiple"] == 1 and "psnr" in found["rows"][1] and len(notes) == 7
    assert [row["n"] for row in found["rows"]] == [20] * 6 + [10] and "bias" in found["rows"][-1]["note"]
    assert json.loads((job.folder / "eval.json").read_text())["rows"] == found["rows"]
    assert len(found["neighbours"]["index"]) == 20 and (job.folder / "pictures" / "neighbours.png").exists()


def test_a_copy_is_found_by_its_distance(run):
    _, _, train, held_out = run
    evaluation = Evaluation(Classifier(CLASSIFIER, Philox(0)), train, held_out, n=20)
    near = evaluation.neighbours(train.x_0(np.array([7, 3])))
    assert near["index"] == [7, 3] and near["sample_distance"]["q95"] == 0 < near["held_out_distance"]["q05"]


# ------------------------------------------------------------------------------------------------ pipeline


def test_a_run_folder_is_one_call_from_labels_to_pictures(run):
    job, pipeline, _, _ = run
    again = load(job.folder)
    x = again.sample("3,1", steps=3, seed=5)
    assert x.shape == (2, 1, 8, 8) and np.abs(x).max() <= 1
    agree(x, pipeline.sample([3, 1], steps=3, seed=5), bound=1e-6)
    assert again.schedule.T == 20 and again.prediction is V


def test_a_network_alone_is_loaded_from_its_file(run):
    assert load(run[0].folder / "dit.safetensors").config == run[1].model.config
    assert isinstance(load(run[0].folder / "autoencoder.safetensors"), Autoencoder)


def test_labels_are_read_repeated_and_refused(run):
    pipeline = run[1]
    assert pipeline.labels(None, 12) == [*range(10), 0, 1] and len(pipeline.labels(None)) == 16
    assert pipeline.labels("2,7") == [2, 7] and pipeline.labels("2,7", 3) == [2, 7, 2]
    assert pipeline.labels(np.array([1, 1])) == [1, 1]
    with pytest.raises(ValueError, match=r"no class 'shirt'.*0 0, 1 1"):
        pipeline.labels("shirt")
    free = replace(pipeline, model=awake(replace(DIT, num_classes=0)))
    assert free.labels(None, 5) is None
    with pytest.raises(ValueError, match="unconditional"):
        free.labels("0")


def pixels(model, **more):
    return Pipeline(model, None, Schedule.cosine(20), V, **more)


def test_padding_is_cut_off_and_values_are_kept_in_range():
    x_0 = np.arange(32, dtype=np.float32).reshape(2, 1, 4, 4) / 10 - 1
    assert np.array_equal(pixels(awake(), crop=1).pictures(x_0), np.clip(x_0[..., 1:3, 1:3], -1, 1))


@pytest.mark.parametrize("num_classes, dropout", [(0, 0.1), (3, 0.0)])
def test_a_model_without_a_null_label_is_sampled_without_guidance(num_classes, dropout):
    pipeline = pixels(awake(replace(DIT, num_classes=num_classes, class_dropout_prob=dropout)))
    assert np.array_equal(pipeline.sample(n=3, steps=2, guidance=2.0), pipeline.sample(n=3, steps=2, guidance=1.0))


def test_ddpm_uses_the_variance_that_a_network_has_learned():
    model = awake(replace(DIT, learn_sigma=True))
    pairs = [(20, 11), (11, 1), (1, 0)]
    x = recipe.sample(model, Schedule.cosine(20), [0, 1], pairs=pairs, step=recipe.ddpm(variance.learned_range), prediction=V,
                      clip=True)  # fmt: skip
    agree(pixels(model).sample([0, 1], steps=3, sampler="ddpm", guidance=1.0), np.clip(x, -1, 1), bound=1e-6)


def test_the_moments_of_a_walk_begin_with_noise_and_end_with_the_pictures(run):
    steps = list(moments(run[1], [0, 1], steps=6, frames=4))
    assert [t for t, _, _ in steps][-1] == 0 and len(steps) == 5
    agree(steps[-1][1], run[1].sample([0, 1], steps=6), bound=1e-5)


# ------------------------------------------------------------------------------------------------ damage


def test_a_folder_that_holds_no_finished_run_is_told(tmp_path):
    with pytest.raises(CheckpointError, match="holds no dit"):
        load(tmp_path)
    with pytest.raises(CheckpointError, match="there is no such file"):
        load(tmp_path / "nothing")


@pytest.mark.parametrize("meta, message", [
    ({"train": {"schedule": "square"}, "data": {"pixels": True}}, "'square' is not known here"),
    ({"train": {"prediction": "noise"}, "data": {"pixels": True}}, "'noise' is not known here"),
    ({"data": {}}, r"autoencoder\.safetensors: there is no such file"),
])  # fmt: skip
def test_a_run_folder_with_parts_missing_or_strange_is_told(tmp_path, meta, message):
    save_model(tmp_path / "dit.safetensors", awake(), **meta)
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path)


def test_without_shipped_weights_loading_nothing_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr("minidit.runs.pipeline.SHIPPED", tmp_path)
    with pytest.raises(CheckpointError, match="name a run folder"):
        load()


# ------------------------------------------------------------------------------------------------ pictures


def test_classes_of_equal_number_stand_in_rows():
    x, labels = np.zeros((6, 1, 4, 4)), [1, 0, 1, 0, 1, 0]
    by_class = class_grid(x, labels, ("a", "b"))
    assert by_class.height < by_class.width  # two rows of three
    assert class_grid(x, None).width > 0 and class_grid(x, [*labels[:5], 1], ("a", "b")).size == class_grid(x, None).size


def test_a_finished_run_shows_itself(run):
    job, pipeline, _, held_out = run
    job.config = replace(job.config, sample=replace(job.config.sample, steps=2))
    show_run(job, pipeline, held_out, lambda text: None, each=2)
    names = {p.name for p in (job.folder / "pictures").iterdir()}
    assert {"ddim.png", "ddpm.png", "denoising.gif", "loss.png", "reconstructions.png", "x0_strip.png"} <= names
    with np.load(job.folder / "trace.npz") as trace:
        assert trace["x_t"].shape == trace["x_0_hat"].shape == (3, 10, 1, 8, 8) and trace["rungs"][-1] == 0
