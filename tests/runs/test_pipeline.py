"""A trained run as one call from labels to pictures."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small import DIT, PROCESSES, awake, run_config, whole
from support import agree

from minidit.checkpoint import CheckpointError, save_model
from minidit.data import embedded
from minidit.diffusion import rungs, times
from minidit.diffusion.fresh import DDPM_LEARNED
from minidit.diffusion.prediction import V
from minidit.diffusion.schedule import Schedule
from minidit.diffusion.solver import AB2, AB2_ARC, DPM_2M, EULER, HEUN, HEUN_EDM
from minidit.models.autoencoder import Autoencoder
from minidit.processes.diffusion import Diffusion
from minidit.processes.sample import sample
from minidit.processes.tokenizer import Pixels
from minidit.runs.loading import load
from minidit.runs.pipeline import Pipeline
from minidit.runs.process_kinds import RectifiedFlowConfig
from minidit.runs.show import moments
from minidit.runs.words import PATHS, SOLVERS, SPACINGS


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run in latents, and its pipeline."""
    return whole(tmp_path_factory.mktemp("runs") / "tiny", run_config(pixels=False))


def test_a_run_folder_is_one_call_from_labels_to_pictures(run):
    job, pipeline = run
    again = load(job.folder)
    x = again.sample("3,1", steps=3, seed=5)
    assert x.shape == (2, 1, 8, 8) and np.abs(x).max() <= 1
    agree(x, pipeline.sample([3, 1], steps=3, seed=5), bound=1e-6)
    assert again.ladder.T == 20 and again.prediction is V


def test_a_network_alone_is_loaded_from_its_file(run):
    assert load(run[0].folder / "model.safetensors").config == run[1].model.config
    assert isinstance(load(run[0].folder / "tokenizer.safetensors"), Autoencoder)


def test_a_folder_that_may_not_be_looked_at_is_named(tmp_path, monkeypatch):
    def refused(self):
        raise PermissionError(13, "Permission denied", str(self / "model_index.json"))

    monkeypatch.setattr(Path, "is_dir", refused)
    with pytest.raises(CheckpointError, match=r"closed: cannot be read: Permission denied \(mend its permissions\)"):
        load(tmp_path / "closed")


def test_labels_are_read_repeated_and_refused(run):
    pipeline = run[1]
    assert pipeline.labels(None, 12) == [*range(10), 0, 1] and len(pipeline.labels(None)) == 16
    assert pipeline.labels("2,7") == [2, 7] and pipeline.labels("2,7", 3) == [2, 7, 2]
    assert pipeline.labels(np.array([1, 1])) == [1, 1]
    assert pipeline.labels(7) == pipeline.labels(np.int64(7)) == [7] and pipeline.labels(7, 3) == [7, 7, 7]
    assert pipeline.labels([2, 7], 3) == [2, 7, 2] and pipeline.labels(["2", "7-9"]) == [2, 7, 8, 9]
    with pytest.raises(ValueError, match=r"no class 'shirt'.*0, 1, 2"):
        pipeline.labels("shirt")
    with pytest.raises(ValueError, match=r"no class 'shirt'.*0, 1, 2"):
        pipeline.labels(["1", "shirt"])
    free = replace(pipeline, model=awake(replace(DIT, num_classes=0)))
    assert free.labels(None, 5) is None
    with pytest.raises(ValueError, match="unconditional"):
        free.labels("0")


def test_pictures_come_back_to_latents_with_their_padding_and_without():
    """`sample` cuts the padding off: without it latents would lie on another grid."""
    pipeline, fashion = load(weights="fashion"), embedded.fashion("test").take(slice(3))
    x = fashion.x_0()
    x_0 = pipeline.encode(x)
    assert x_0.shape == (3, *pipeline.model.shape)
    assert np.array_equal(pipeline.encode(fashion.inner(x)), x_0)
    assert pipeline.encode(np.zeros((1, 1, 64, 64), np.float32)).shape == (1, 4, 16, 16)  # other sizes are the tokenizer's


def pixels(model, **more):
    return Pipeline(model, Pixels(), Diffusion.on_ladder(Schedule.cosine(20), V), **more)


def test_padding_is_cut_off_and_values_are_kept_in_range():
    x_0 = np.arange(32, dtype=np.float32).reshape(2, 1, 4, 4) / 10 - 1
    assert np.array_equal(pixels(awake(), crop=1).pictures(x_0), np.clip(x_0[..., 1:3, 1:3], -1, 1))


@pytest.mark.parametrize("num_classes, dropout", [(0, 0.1), (3, 0.0)])
def test_a_model_without_a_null_label_is_sampled_without_guidance(num_classes, dropout):
    pipeline = pixels(awake(replace(DIT, num_classes=num_classes, class_dropout_prob=dropout)))
    assert np.array_equal(pipeline.sample(n=3, steps=2, guidance=2.0), pipeline.sample(n=3, steps=2, guidance=1.0))


def test_ddpm_uses_the_variance_that_a_network_has_learned():
    model = awake(replace(DIT, learn_sigma=True))
    grid = [(20, 13), (13, 7), (7, 0)]
    x = sample(model, Schedule.cosine(20), [0, 1], grid=grid, fresh=DDPM_LEARNED, prediction=V, clip=True)
    agree(pixels(model).sample([0, 1], steps=3, sampler="ddpm", guidance=1.0), np.clip(x, -1, 1), bound=1e-6)


def test_the_moments_of_a_walk_begin_with_noise_and_end_with_the_pictures(run):
    steps = list(moments(run[1], [0, 1], steps=6, frames=4))
    assert [t for t, _, _ in steps][-1] == 0 and len(steps) == 5
    agree(steps[-1][1], run[1].sample([0, 1], steps=6), bound=1e-5)


def test_moments_that_are_decoded_together_are_those_decoded_one_by_one(run, monkeypatch):
    """In passes of three moments of two pictures, of which the last is not full; all are told of."""
    monkeypatch.setattr("minidit.runs.show.TOGETHER", 6)
    told = []
    walk = moments(run[1], [0, 1], steps=7, work=lambda what: lambda done, total: told.append((what, done, total)))
    *traced, x_0 = run[1].latents([0, 1], steps=7, trace=True)
    for (t, *both), m in zip(walk, traced, strict=False):
        assert t == m.t
        for shown, x in zip(both, (m.x_t, m.x_0_hat), strict=True):
            agree(shown, run[1].pictures(x), bound=1e-5)
    agree(walk[-1][1], run[1].pictures(x_0), bound=1e-5)
    assert told == [("from noise to picture", k, 7) for k in range(1, 8)] + [
        ("pictures of the walk", k, 15) for k in (3, 6, 9, 12, 15)
    ]


# ------------------------------------------------------------------------------------------------ damage


def test_a_folder_that_holds_no_finished_run_is_told(tmp_path):
    with pytest.raises(CheckpointError, match="holds no model"):
        load(tmp_path)
    with pytest.raises(CheckpointError, match="there is no such file"):
        load(tmp_path / "nothing")


@pytest.mark.parametrize("meta, message", [
    ({"train": {"schedule": "square"}, "data": {"pixels": True}}, r"model\.safetensors, section .process.: schedule 'square'"),
    ({"train": {"prediction": "noise"}, "data": {"pixels": True}}, "prediction 'noise' is not one of eps, x_0, v"),
    ({"data": {}}, r"tokenizer\.safetensors: there is no such file"),
    ({"run": {"process": {"kind": "flow"}}}, r"model\.safetensors, section .process.: kind 'flow' is not one of ddpm, rectif"),
])  # fmt: skip
def test_a_run_folder_with_parts_missing_or_strange_is_told(tmp_path, meta, message):
    save_model(tmp_path / "model.safetensors", awake(), **meta)
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path)


def test_without_shipped_weights_loading_nothing_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr("minidit.runs.loading.SHIPPED", tmp_path)
    with pytest.raises(CheckpointError, match="name a run folder"):
        load()


# ------------------------------------------------------------------------------------------------ grids


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_spacing_chooses_the_rungs(spacing):
    pipeline = pixels(awake())
    *steps, _ = pipeline.latents([0, 1], steps=5, spacing=spacing, trace=True)
    assert [(m.t, m.s) for m in steps] == rungs.pairs(SPACINGS[spacing](pipeline.process.path, 5))


def test_a_single_step_shows_noise_as_noise():
    """Trailing, the default, visits the top: one step is asked of the network at T, where x_T is noise."""
    moment, _ = pixels(awake()).latents([0, 1], steps=1, trace=True)
    assert (moment.t, moment.s) == (20, 0)


@pytest.mark.parametrize("name, solver", [
    ("euler", EULER), ("heun", HEUN), ("heun_edm", HEUN_EDM), ("ab2", AB2), ("ab2_arc", AB2_ARC), ("dpm_2m", DPM_2M),
])  # fmt: skip
def test_the_word_of_a_solver_is_that_solver(name, solver):
    pipeline = pixels(awake())
    x = pipeline.sample([0, 1], steps=5, solver=name, guidance=2.0)
    same = sample(pipeline.model, pipeline.process, np.array([0, 1]), steps=5, solver=solver, guidance=2.0, clip=True)
    assert np.array_equal(x, np.clip(same, -1, 1))


@pytest.mark.parametrize("process, sampler, solver, calls", [
    ("ddpm", "ddim", "euler", 20), ("rectified_flow", "ddim", "euler", 50), ("edm", "ddim", "heun_edm", 18),
])  # fmt: skip
def test_what_is_usual_depends_on_the_process(process, sampler, solver, calls):
    pipeline = Pipeline(awake(), Pixels(), PROCESSES[process].diffusion(), usual=PROCESSES[process].usual)
    assert pipeline.walk_words("", "", 0.0) == (sampler, solver) and pipeline.steps(None) == calls
    assert pipeline.walk_words("", "", 0.5) == ("ddim", "euler")
    assert pipeline.walk_words("ddpm", "", 0.0) == ("ddpm", "euler") and pipeline.walk_words("", "ab2", 0.0)[1] == "ab2"
    *steps, _ = pipeline.latents([0, 1], trace=True, guidance=1.0)
    same = sample(pipeline.model, pipeline.process, [0, 1], steps=calls, solver=SOLVERS[solver], clip=True)
    assert len(steps) == calls and np.array_equal(pipeline.latents([0, 1], guidance=1.0), same)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("word", PATHS)
def test_a_word_names_the_path_whose_coordinates_are_walked(process, word):
    pipeline = Pipeline(awake(), Pixels(), PROCESSES[process].diffusion(), guidance=1.0, usual=PROCESSES[process].usual)
    own = type(PATHS[word]()) is type(pipeline.process.path)
    x = pipeline.latents([0, 1], path=word, steps=6, solver="ab2")
    walked = sample(pipeline.model, pipeline.process, [0, 1], path=None if own else PATHS[word](), steps=6, solver=AB2, clip=True)
    assert np.array_equal(x, walked) and np.isfinite(x).all()
    assert own == np.array_equal(x, pipeline.latents([0, 1], steps=6, solver="ab2"))


def test_a_shift_moves_the_times_of_a_walk_on_the_straight_path():
    pipeline = Pipeline(awake(), Pixels(), RectifiedFlowConfig().diffusion(), guidance=1.0)
    for options in ({}, {"path": "straight"}):
        *steps, _ = pipeline.latents([0], steps=4, shift=3.0, trace=True, **options)
        assert [(m.t, m.s) for m in steps] == times.linear(4, 3.0)


@pytest.mark.parametrize("options, message", [
    ({"steps": 21}, "steps must lie in 1..T = 20; got 21"),
    ({"sampler": "dpm"}, "sampler 'dpm' is not one of ddim, ddpm, consistency, did you mean 'ddpm'"),
    ({"solver": "heum"}, "solver 'heum' is not one of euler, heun, heun_edm, ab2, ab2_arc, dpm_2m, did you mean 'heun'"),
    ({"solver": "ab2", "sampler": "ddpm"}, "a solver of order 2 takes no fresh noise"),
    ({"path": "vq"}, "path 'vq' is not one of vp, straight, ve"),
    ({"shift": 2.0}, "only the times of the straight path are shifted: add --path straight"),
    ({"path": "ve", "spacing": "leading"}, "only a ladder has rungs to space"),
    ({"spacing": "trail"}, "spacing 'trail' is not one of trailing, linspace, .*, did you mean 'trailing'"),
])  # fmt: skip
def test_a_drawing_that_cannot_be_is_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        pixels(awake()).sample([0], **options)


def test_without_a_number_of_steps_a_short_ladder_is_walked_whole():
    *steps, _ = pixels(awake()).latents([0], trace=True)
    assert len(steps) == 20
