"""What a finished run is measured by, and what it shows."""

import json
from dataclasses import replace

import numpy as np
import pytest
from small import PROCESSES, awake, begun, run_config, whole
from support import agree, spec

from minidit.diffusion.step import step
from minidit.html.report import write_report
from minidit.models.classifier import Classifier, ClassifierConfig
from minidit.outgoing import silent
from minidit.processes.sample import SAMPLE_STREAM
from minidit.processes.tokenizer import Pixels
from minidit.random import Philox
from minidit.runs.evaluate import Evaluation, straightness
from minidit.runs.gallery import measure, show_run, shown_steps
from minidit.runs.pipeline import Pipeline
from minidit.runs.show import class_grid, save_grid
from minidit.training.draws import Draws

CLASSIFIER = ClassifierConfig(channels=1, size=8, num_classes=10, widths=(8, 8, 16), features=16)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run in latents: the job, its pipeline, the data."""
    job, train = begun(tmp_path_factory.mktemp("runs") / "tiny", run_config(pixels=False))
    return job, job.train(train), *job.data()


# ------------------------------------------------------------------------------------------------ evaluation


def test_an_evaluation_frames_samples_with_references(run):
    job, pipeline, train, held_out = run
    job.config = replace(job.config, sample=replace(job.config.sample, steps=2))
    notes = []
    evaluation = Evaluation(job.judge(train), train, held_out, n=20)
    found = measure(job, pipeline, evaluation, notes.append, ddpm_steps=3, ddpm_n=10)
    names = [row["name"] for row in found["rows"]]
    assert names == ["held-out real images", "their reconstructions", "noise", "DDIM 2, w = 2", "DDIM 2, w = 1",
                     "DDIM 2, w = 3", "DDPM 3, w = 2"]  # fmt: skip
    assert found["rows"][1]["multiple"] == 1 and "psnr" in found["rows"][1] and len(notes) == 8
    assert notes[-1].startswith("  straightness of trajectories, S = ") and 0 < found["straightness"] < 10
    assert [row["n"] for row in found["rows"]] == [20] * 6 + [10] and "bias" in found["rows"][-1]["note"]
    assert json.loads((job.folder / "eval.json").read_text())["rows"] == found["rows"]
    assert len(found["neighbours"]["index"]) == 20 and (job.folder / "pictures" / "neighbours.png").exists()


@pytest.mark.parametrize("process, method, files", [
    ("rectified_flow", "Euler", {"samples.png"}), ("edm", "Heun", {"samples.png"}), ("ddpm", "DDIM", {"ddim.png", "ddpm.png"}),
])  # fmt: skip
def test_a_run_of_any_process_is_measured_and_shown_in_its_own_words(tmp_path, process, method, files):
    job, pipeline = whole(tmp_path / "run", run_config(process=process))
    train, held_out = job.data()
    evaluation = Evaluation(job.judge(train), train, held_out, n=8)
    measured = measure(job, pipeline, evaluation, silent, ddpm_steps=None if pipeline.ladder is None else 3)
    assert measured["rows"][2]["name"] == f"{method} 3, w = 2" and measured["straightness"] > 0
    show_run(job, pipeline, held_out, each=2)
    names = {p.name for p in (job.folder / "pictures").iterdir()}
    assert names == {"loss.png", "denoising.gif", "x0_strip.png", "neighbours.png", *files}
    page = write_report(job.folder).read_text("utf-8")
    best = min(measured["rows"][2:], key=lambda row: row["frechet"])
    assert f"Fréchet distance, {best['name']}" in page and "Straightness of the trajectories: S = " in page
    with np.load(job.folder / "trace.npz") as trace:
        times = trace["rungs"]
    assert times[-1] == 0 and (np.diff(times) < 0).all() and (times.dtype.kind == "f") == (process != "ddpm")


@spec("F.3")
@pytest.mark.parametrize("process", PROCESSES)
def test_straightness_is_measured_on_the_trajectories_in_straight_coordinates(process):
    """Of a network that answers 0 the trajectories are known: the states of the walk, and S of them by its integral."""
    model = awake()
    model.flat[...] = 0
    pipeline = Pipeline(model, Pixels(limit=None), PROCESSES[process].diffusion())
    path, answer = pipeline.process.path, pipeline.process.answer
    grid = path.grid(pipeline.steps(None, usual=16))
    levels = [path.level(t) for t, _ in grid]
    x, states = path.start(np.ones((1, 1))), []
    for (_, s), at in zip(grid, levels, strict=True):
        states.append(x / (at.alpha + at.sigma))
        x = step(*answer.pair(0 * x, x, at), path.level(s))
    tau, states = np.array([*(at.sigma / (at.alpha + at.sigma) for at in levels), 0.0]), np.array([*states, x])
    slopes, chord = np.diff(states, axis=0)[:, 0, 0] / np.diff(tau), (states[-1] - states[0]) / (tau[-1] - tau[0])
    per_unit = float((np.diff(tau) * (slopes - chord) ** 2).sum() / (tau[-1] - tau[0]))
    z = Draws(0, SAMPLE_STREAM, np.arange(128)).at(0).normal((128, *model.shape))
    agree(straightness(pipeline), per_unit * float((z.astype(np.float64) ** 2).mean()), bound=1e-5, of="F.3")


def test_a_copy_is_found_by_its_distance(run):
    _, _, train, held_out = run
    evaluation = Evaluation(Classifier(CLASSIFIER, Philox(0)), train, held_out, n=20)
    near = evaluation.neighbours(train.x_0(np.array([7, 3])))
    assert near["index"] == [7, 3] and near["sample_distance"]["q95"] == 0 < near["held_out_distance"]["q05"]


# ------------------------------------------------------------------------------------------------ pictures


def test_classes_of_equal_number_stand_in_rows():
    x, labels = np.zeros((6, 1, 4, 4)), [1, 0, 1, 0, 1, 0]
    by_class = class_grid(x, labels, ("a", "b"))
    assert by_class.height < by_class.width  # two rows of three
    assert class_grid(x, None).width > 0 and class_grid(x, [*labels[:5], 1], ("a", "b")).size == class_grid(x, None).size


def test_a_finished_run_shows_itself(run, monkeypatch):
    """Each class as often as the others, in the pictures at the end and in the small grid during training."""
    job, pipeline, _, held_out = run
    job.config, drawn, usual = replace(job.config, sample=replace(job.config.sample, steps=2)), [], Pipeline.latents
    monkeypatch.setattr(Pipeline, "latents", lambda self, y, **more: drawn.append(y) or usual(self, y, **more))
    show_run(job, pipeline, held_out, each=2)
    save_grid(job.folder, pipeline, job.config.sample, 1)
    K = pipeline.model.condition.count
    assert len(drawn) >= 4 and all(len(set(np.bincount(y, minlength=K))) == 1 for y in drawn)
    names = {p.name for p in (job.folder / "pictures").iterdir()}
    assert {"ddim.png", "ddpm.png", "denoising.gif", "loss.png", "reconstructions.png", "x0_strip.png"} <= names
    with np.load(job.folder / "trace.npz") as trace:
        assert trace["x_t"].shape == trace["x_0_hat"].shape == (3, 10, 1, 8, 8) and trace["rungs"][-1] == 0


def test_the_pictures_of_a_short_run_take_a_step_for_ten_updates(run):
    """At least eight, and never more than the run asks for."""
    job, pipeline, *_ = run

    def walked(updates, steps, of=pipeline):
        train, sample = replace(job.config.train, steps=updates), replace(job.config.sample, steps=steps)
        return shown_steps(replace(job.config, train=train, sample=sample), of)

    assert [walked(updates, 50) for updates in (1, 80, 81, 200, 499, 500, 9000)] == [8, 8, 8, 20, 49, 50, 50]
    assert [walked(updates, 4) for updates in (1, 500)] == [4, 4]
