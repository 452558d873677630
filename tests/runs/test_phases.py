"""Every phase of a run is interrupted and goes on to the same bits: stopped, killed, thrown out by an exception."""

import shutil
from dataclasses import replace

import pytest
from small import PROCESSES, begun, interrupted, lines, resumed, run_config, states, whole

from minidit.checkpoint import CheckpointError, read_arrays
from minidit.runs.phases import Run, Stopped, resume
from minidit.runs.presets import SampleConfig
from minidit.runs.state import paths_of

PHASES = ("tokenizer", "model", "judge")
LATENT = replace(run_config(pixels=False), sample=SampleConfig(steps=3, save_every=2))


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The folder of a run that nothing interrupted."""
    job, _ = begun(tmp_path_factory.mktemp("runs") / "whole", LATENT)
    job.train(*job.data())
    job.judge(*job.data())
    return job.folder


def assert_the_same(folder, reference):
    """All weights, all states and all numbers, bit for bit."""
    for file in sorted(str(p.relative_to(reference)) for p in reference.rglob("*.safetensors")):
        assert (folder / file).read_bytes() == (reference / file).read_bytes(), file
    assert {p.name for p in folder.rglob("*")} == {p.name for p in reference.rglob("*")}
    assert lines(folder) == lines(reference)


def to_the_end(folder):
    """Tokenizer, model and judge, each from where it was left."""
    job = resumed(folder)
    job.judge(*job.data())
    return job


@pytest.mark.parametrize("step", [1, 4, 6])
@pytest.mark.parametrize("phase", PHASES)
def test_a_phase_that_was_stopped_ends_with_the_bits_of_one_that_was_not(tmp_path, reference, phase, step):
    job = interrupted(tmp_path / "run", LATENT, step, phase)
    assert not (job.folder / f"{phase}.safetensors").exists() and job.loop is None
    meta = read_arrays(paths_of(job.folder, phase)[0])[1]
    assert (meta["phase"], meta["step"]) == (phase, step) and states(job.folder, phase)[0] == step
    to_the_end(job.folder)
    assert_the_same(job.folder, reference)


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("phase", PHASES)
def test_a_phase_that_an_exception_ended_goes_on_from_its_last_saved_state(tmp_path, reference, phase, step):
    job, _ = begun(tmp_path / "run", LATENT)

    def tell(name, record, steps):
        if (name, record["step"]) == (phase, step):
            raise MemoryError("as if")

    job.tell = tell
    with pytest.raises((MemoryError, RuntimeError), match=r"as if|out of memory"):
        job.train(*job.data())
        job.judge(*job.data())
    assert (states(job.folder, phase) != []) == (step > 2)  # saved after 2, 4, …
    to_the_end(job.folder)
    assert_the_same(job.folder, reference)


def test_a_phase_may_be_stopped_again_and_again(tmp_path, reference):
    job = interrupted(tmp_path / "run", LATENT, 1, "tokenizer")
    for phase, step in (("tokenizer", 2), ("tokenizer", 5), ("model", 2), ("model", 3)):
        again = resume(job.folder)

        def tell(name, record, steps, run=again, stop=(phase, step)):
            run.loop.stop = (name, record["step"]) == stop

        again.tell = tell
        with pytest.raises(Exception, match=f"stopped at update {step} of the {phase}"):
            again.fit_to(again.data()[0])
            again.train(*again.data())
    to_the_end(job.folder)
    assert_the_same(job.folder, reference)


@pytest.mark.parametrize("phase", PHASES)
def test_a_stop_while_a_phase_writes_its_weights_ends_the_run_there(tmp_path, reference, monkeypatch, phase):
    job, _ = begun(tmp_path / "run", LATENT)
    save = Run.save

    def asked(run, name, network):
        if name == phase and run.loop is not None:
            run.loop.stop = True
        save(run, name, network)

    with monkeypatch.context() as patch, pytest.raises(Stopped, match=f"stopped at update 6 of the {phase}"):
        patch.setattr(Run, "save", asked)
        job.train(*job.data())
        job.judge(*job.data())
    to_the_end(job.folder)
    assert_the_same(job.folder, reference)


@pytest.mark.parametrize("process", PROCESSES)
def test_pixels_need_no_tokenizer(tmp_path, process):
    config = run_config(process=process)
    job, _ = whole(tmp_path / "whole", config)
    interrupted(tmp_path / "cut", config, 3)
    resumed(tmp_path / "cut")
    assert (tmp_path / "cut" / "model.safetensors").read_bytes() == (job.folder / "model.safetensors").read_bytes()
    assert lines(tmp_path / "cut") == lines(job.folder) and not (job.folder / "tokenizer.safetensors").exists()


@pytest.mark.parametrize("process", PROCESSES)
def test_a_run_that_was_killed_goes_on_from_its_last_saved_state(tmp_path, process):
    """Saved at step 20, killed at 21 in the middle of a line: what comes after 20 is done again and told once."""
    config = replace(run_config(steps=22, process=process), sample=SampleConfig(steps=3, save_every=20))
    whole(tmp_path / "whole", config)
    job = interrupted(tmp_path / "cut", config, 20)
    with open(job.folder / "metrics.jsonl", "a") as f:
        f.write('{"phase": "model", "step": 21, "loss": 0.5}\n{"phase": "model", "st')
    resumed(job.folder)
    assert lines(job.folder) == lines(tmp_path / "whole")
    assert (job.folder / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def test_a_phase_that_left_no_state_begins_anew(tmp_path):
    config = run_config(pixels=False)
    whole(tmp_path / "whole", config)
    job, _ = begun(tmp_path / "cut", config)
    (job.folder / "metrics.jsonl").write_text('{"phase": "tokenizer", "step": 1, "loss": 0.5}\n')
    resumed(job.folder)
    assert lines(job.folder) == lines(tmp_path / "whole")


@pytest.mark.parametrize("process", PROCESSES)
def test_a_finished_run_that_is_resumed_stays_as_it_is(tmp_path, process):
    job, _ = whole(tmp_path / "run", run_config(process=process))
    before = (job.folder / "model.safetensors").read_bytes(), lines(job.folder)
    resumed(job.folder)
    assert ((job.folder / "model.safetensors").read_bytes(), lines(job.folder)) == before


@pytest.mark.parametrize("phase, old, new, message", [
    ("tokenizer", "widths = [8, 8, 16]", "widths = [8, 8, 8]", r"widths is \[8, 8, 8\], was \[8, 8, 16\]"),
    ("tokenizer", "kl_weight = 0.0001", "kl_weight = 0.1", r"kl_weight is 0\.1, was 0\.0001"),
    ("model", "ema = 0.9\n", "ema = 0.8\n", r"ema is 0\.8, was 0\.9"),
    ("model", 'prediction = "v"', 'prediction = "eps"', "prediction is eps, was v"),
    ("model", "depth = 1", "depth = 2", "depth is 2, was 1"),
])  # fmt: skip
@pytest.mark.parametrize("finished", [False, True])
def test_another_configuration_is_refused_with_what_differs(tmp_path, reference, phase, old, new, message, finished):
    folder = tmp_path / "run"
    shutil.copytree(reference, folder) if finished else interrupted(folder, LATENT, 3, phase)
    path = folder / "config.toml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(CheckpointError, match=f"another configuration: {message}$"):
        resumed(folder)


@pytest.mark.parametrize("process, old, new, message", [
    ("rectified_flow", 'times = "logit_normal"', 'times = "uniform"', "times is uniform, was logit_normal"),
    ("rectified_flow", "shift = 2.0", "shift = 1.0", r"shift is 1\.0, was 2\.0"),
    ("edm", "sigma_max = 20.0", "sigma_max = 80.0", r"sigma_max is 80\.0, was 20\.0"),
    ("edm", "sigma_data = ", "sigma_data = 1", r"sigma_data is 10\.\d+, was 0\.\d+"),
])  # fmt: skip
def test_another_process_is_refused_with_what_differs(tmp_path, process, old, new, message):
    job = interrupted(tmp_path / "run", run_config(process=process), 3)
    path = job.folder / "config.toml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(CheckpointError, match=f"another configuration: {message}$"):
        resumed(job.folder)


def test_in_how_many_pieces_a_batch_is_computed_may_change(tmp_path):
    job = interrupted(tmp_path / "run", LATENT, 3, "tokenizer")
    path = job.folder / "config.toml"
    path.write_text(path.read_text().replace("shards = 2", "shards = 1").replace("accumulate = 1", "accumulate = 2"))
    assert resumed(job.folder).config.tokenizer_train.shards == 1


def test_a_damaged_state_is_named(tmp_path):
    job = interrupted(tmp_path / "run", run_config(), 3)
    state = paths_of(job.folder, "model")[0]
    state.write_bytes(state.read_bytes()[:200])
    with pytest.raises(CheckpointError, match=r"model-00000003\.safetensors: not a readable.*no other state is whole"):
        resumed(job.folder)


@pytest.mark.parametrize("text, message", [(None, "no run there"), ("a = ", "config.toml: not TOML"), ("\xff", "not TOML")])
def test_a_folder_that_is_no_run_is_told(tmp_path, text, message):
    if text is not None:
        (tmp_path / "config.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=message):
        resume(tmp_path)
