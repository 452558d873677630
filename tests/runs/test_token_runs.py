"""Runs that write codes: trained, stopped, resumed, sampled, measured and shown like any other."""

from dataclasses import replace

import numpy as np
import pytest
from small import begun, interrupted, lines, resumed, run_config, whole

from minidit.checkpoint import CheckpointError
from minidit.data import digits
from minidit.html.report import report_of
from minidit.models.gpt import GPTConfig
from minidit.models.var import VARConfig
from minidit.models.vq import FSQConfig, MultiScaleVQConfig, VQConfig
from minidit.processes.autoencode import AutoencodeConfig
from minidit.processes.codes import numbers_of
from minidit.processes.tokens import Writing, write
from minidit.runs.evaluate import Evaluation
from minidit.runs.folder import metrics_of
from minidit.runs.gallery import measure, show_run
from minidit.runs.loading import load
from minidit.runs.token_kinds import RasterConfig, ScalesConfig
from minidit.runs.writer import Writer

NARROW = {"widths": (8, 8, 8)}
SIZES = {"hidden_size": 16, "depth": 1, "num_heads": 2}


def config(kind, **data):
    """A whole run in a second."""
    tokenizer, model, process = {
        "vq": (VQConfig(codes=16, **NARROW), GPTConfig(inner=32, **SIZES), RasterConfig()),
        "fsq": (FSQConfig(levels=(3, 5), **NARROW), GPTConfig(inner=32, **SIZES), RasterConfig()),
        "scales": (MultiScaleVQConfig(codes=16, sizes=(1, 2), **NARROW), VARConfig(**SIZES), ScalesConfig()),
    }[kind]
    base = run_config(pixels=False, **data)
    fast = AutoencodeConfig(lr=1e-2, steps=8, warm=3, revive=2, batch_size=8, shards=2)
    return replace(base, tokenizer=tokenizer, model=model, process=process, tokenizer_train=fast)


@pytest.mark.parametrize("phase", ["tokenizer", "model"])
@pytest.mark.parametrize("kind", ["vq", "fsq", "scales"])
def test_a_run_that_is_stopped_and_resumed_has_the_bits_of_one_that_is_not(kind, phase, tmp_path):
    job, pipeline = whole(tmp_path / "whole", config(kind))
    interrupted(tmp_path / "parts", config(kind), 3, phase)
    resumed(tmp_path / "parts")
    again = load(tmp_path / "parts")
    assert isinstance(again, Writer) and np.array_equal(again.model.flat, pipeline.model.flat)
    assert np.array_equal(again.tokenizer.network.flat, pipeline.tokenizer.network.flat)
    assert lines(tmp_path / "parts") == lines(job.folder)
    x = again.sample("0-9", n=10, seed=3)
    assert x.shape == (10, 1, 8, 8) and np.array_equal(x, pipeline.sample("0-9", n=10, seed=3))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(job, pipeline) of each kind."""
    place = tmp_path_factory.mktemp("tokens")
    return {kind: whole(place / kind, config(kind)) for kind in ("vq", "fsq", "scales")}


@pytest.mark.parametrize("kind", ["vq", "fsq", "scales"])
def test_a_writer_shows_itself_and_suggests_options(kind, runs):
    pipeline = runs[kind][1]
    order = pipeline.writes.order
    assert repr(pipeline).startswith("Writer(") and "0x" not in repr(pipeline) and len(repr(pipeline)) < 300
    assert f"{order.tokens} codes in {order.passes} passes" in pipeline._repr_html_()
    with pytest.raises(TypeError, match="has no option 'temprature', did you mean 'temperature'"):
        pipeline.latents(None, temprature=2)
    with pytest.raises(TypeError, match="has no option 'temprature', did you mean 'temperature'"):
        pipeline.sample("0-9", temprature=2)


@pytest.mark.parametrize("kind", ["vq", "scales"])
def test_what_is_asked_of_a_choice_reaches_it(kind, runs):
    """On its own, and in parallel parts: the codes of a sample depend on its number and the seed alone."""
    pipeline = runs[kind][1]
    y, usual = np.arange(10), Writing(guidance=pipeline.guidance, rises=kind == "scales")
    for options in ({}, {"guidance": 3.0}, {"guidance": 3.0, "rising": kind == "vq"}, {"temperature": 0.5, "top_k": 3},
                    {"top_p": 0.6, "seed": 4}):  # fmt: skip
        how = replace(usual, **{"rises" if name == "rising" else name: value for name, value in options.items()})
        assert pipeline.writing(**options) == how
        index = write(pipeline.model, pipeline.writes, y, how)
        for shards in (1, 2, 3):
            assert np.array_equal(pipeline.latents(y, shards=shards, **options), index)
    best = pipeline.latents(y, top_k=1, guidance=1.0)
    assert np.array_equal(best, pipeline.latents(y, top_k=1, guidance=1.0, seed=9))  # nothing is left to chance


@pytest.mark.parametrize("kind", ["vq", "scales"])
def test_a_trace_shows_the_groups_that_are_written_and_ends_with_all(kind, runs):
    pipeline = runs[kind][1]
    *moments, x_0 = pipeline.latents([1, 2], trace=True, seed=5)
    assert np.array_equal(x_0, pipeline.latents([1, 2], seed=5))
    ends = [m.x_t.shape[1] for m in moments]
    assert tuple(ends) == pipeline.writes.order.ends and all(np.array_equal(m.x_t, x_0[:, : m.x_t.shape[1]]) for m in moments)
    assert [m.s for m in moments[:-1]] == [m.t for m in moments[1:]] and (moments[0].t, moments[-1].s) == (1, 0)


@pytest.mark.parametrize(
    "options",
    [{"steps": 3}, {"sampler": "ddim"}, {"solver": "heun"}, {"eta": 1.0}, {"path": "vp"}, {"spacing": "linspace"},
     {"shift": 2.0}, {"interval": (0.2, 0.7)}, {"top_k": -1}, {"top_p": 0.0}, {"temperature": 0.0}],
)  # fmt: skip
def test_settings_that_mean_nothing_to_codes_are_refused(options, runs):
    with pytest.raises(ValueError, match=r"this model writes|(temperature|top_k|top_p) .* must be"):
        runs["vq"][1].sample("0", **options)


def test_settings_of_a_choice_are_refused_where_a_walk_is_made(tmp_path):
    _, pipeline = whole(tmp_path / "run", run_config())
    for name in ("temperature", "top_k", "top_p", "rising"):
        with pytest.raises(ValueError, match="are of models that write codes; this one denoises"):
            pipeline.sample("0", **{name: 1})


@pytest.mark.parametrize("kind", ["vq", "scales"])
def test_a_finished_run_is_shown_measured_and_reported(kind, runs):
    job, pipeline = runs[kind]
    train, held_out = job.data()
    show_run(job, pipeline, held_out, each=2)
    measures = measure(job, pipeline, Evaluation(job.judge(train), train, held_out, n=20), lambda line: None, ddpm_steps=None)
    word = {"vq": "raster 4", "scales": "scales 2"}[kind]
    names = [row["name"] for row in measures["rows"]]
    assert names[3] == f"{word}, w = 2" and names[4:] == [f"{word}, w = 1", f"{word}, w = 3"]
    second = measures["rows"][1]
    assert 1 <= second["used"] <= 16 and 1 <= second["perplexity"] <= second["used"] and "straightness" not in measures
    source = pipeline.tokenizer.held_out(held_out)
    assert measures["nats_per_token"] == pytest.approx(pipeline.nats(source)) and measures["nats_per_token"] < 4
    page = report_of(job.folder).decode()
    assert "transformer that writes codes" in page and "nats per code" in page and "codes in use" in page
    assert (job.folder / "pictures" / "x0_strip.png").exists() and "Sampling starts from noise" not in page


def test_codes_in_use_are_among_the_metrics_of_a_tokenizer(runs):
    for kind, (job, _) in runs.items():
        looks = [line for line in metrics_of(job.folder) if "codes_in_use" in line]
        assert [line["step"] for line in looks] == list(range(1, 9)), kind
        assert all(1 <= line["perplexity"] <= line["codes_in_use"] <= 16 for line in looks)


@pytest.mark.parametrize(
    ("process", "tokenizer", "words"),
    [
        (RasterConfig(), "scales", "--process raster goes with --tokenizer vq or fsq; this run has the tokenizer multiscale_vq"),
        (ScalesConfig(), "fsq", "--process scales goes with --tokenizer multiscale_vq; this run has the tokenizer fsq"),
        (None, "vq", "the tokenizer vq is of codes, which --process ddpm does not write: add --process raster or scales"),
    ],
)
def test_a_tokenizer_of_another_process_is_refused_before_any_work(process, tokenizer, words, runs, tmp_path):
    base = config("scales" if isinstance(process, ScalesConfig) else "vq") if process else run_config(pixels=False)
    asked = replace(base, data=replace(base.data, tokenizer=str(runs[tokenizer][0].folder)))
    with pytest.raises(ValueError, match=words):
        begun(tmp_path / "run", asked)
    assert not (tmp_path / "run").exists()


def test_a_run_without_a_tokenizer_and_scales_of_another_grid_are_refused(tmp_path):
    whole(tmp_path / "pixels", run_config())
    named = replace(config("vq"), data=replace(config("vq").data, tokenizer=str(tmp_path / "pixels")))
    with pytest.raises(CheckpointError, match=r"pixels: holds no tokenizer\.safetensors and no state of the tokenizer"):
        begun(tmp_path / "run", named)
    other = config("scales")
    with pytest.raises(ValueError, match=r"a map of 2 x 2, which is not the last of the scales \(1, 4\): give --ae-sizes"):
        begun(tmp_path / "run", replace(other, tokenizer=replace(other.tokenizer, sizes=(1, 4))))


def test_a_named_tokenizer_decides_the_sizes_of_the_model(runs, tmp_path):
    base = config("vq")
    job, pipeline = whole(tmp_path / "run", replace(base, data=replace(base.data, tokenizer=str(runs["fsq"][0].folder))))
    assert job.config.tokenizer == runs["fsq"][0].config.tokenizer and job.config.model.vocabulary == 15
    x = digits("test").x_0(slice(5))
    assert np.array_equal(pipeline.encode(x), numbers_of(runs["fsq"][1].tokenizer.network, x))
