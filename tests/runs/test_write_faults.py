"""Writes that fail, wherever they are: what was saved stays, one line says what to do, and the run ends with the same bits."""

import errno
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from small import begun, lines, resumed, run_config, whole

from benchmarks.faulty.runs import scenarios
from benchmarks.faulty.writes import change_plans, damage_plans, place_plans
from minidit import outgoing
from minidit.checkpoint import read_arrays
from minidit.runs.phases import resume
from minidit.runs.presets import SampleConfig
from minidit.runs.state import latest
from minidit.training.loop import RunError

OFTEN = replace(run_config(pixels=False, steps=4), sample=SampleConfig(steps=3, save_every=2))


class Failing:
    """fsync and replace, of which the k-th call fails once, or fails and all after it."""

    def __init__(self, monkeypatch, k, number, for_good):
        self.count, self.k, self.number, self.for_good = 0, k, number, for_good
        for name in ("fsync", "replace"):
            monkeypatch.setattr(outgoing.os, name, self.failing(getattr(os, name)))

    def failing(self, real):
        def call(*arguments):
            self.count += 1
            if self.count == self.k or (self.for_good and self.count > self.k):
                raise OSError(self.number, os.strerror(self.number))
            return real(*arguments)

        return call


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    job, _ = whole(tmp_path_factory.mktemp("runs") / "whole", OFTEN)
    return job.folder


FAULTS = [(errno.EIO, False), (errno.ENOSPC, True), (errno.EDQUOT, True)]  # one call fails; or the disk is full from then on


@pytest.mark.parametrize("first", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2))])
def test_a_write_that_fails_loses_nothing_wherever_it_is(tmp_path, monkeypatch, reference, first):
    """Every call of fsync and replace fails in turn, by another fault each; `first` lets every call meet every fault."""
    k, failed = 0, 0
    while True:
        k += 1
        number, for_good = FAULTS[(first + k) % 3]
        folder = tmp_path / f"run {k}"
        job, _ = begun(folder, OFTEN)
        with monkeypatch.context() as patch:
            fault = Failing(patch, k, number, for_good)
            try:
                job.train(*job.data())
            except RunError as error:
                failed += 1
                text = str(error)
                assert str(folder) in text and os.strerror(number) in text and ".tmp" not in text and "\n" not in text
                assert "--resume" in text or "was saved before" in text
        if fault.count < k:
            break
        if not (folder / "config.toml").exists():  # it failed before its first update, and left nothing behind
            assert not folder.exists()
            job, _ = begun(folder, OFTEN)
        for phase in ("tokenizer", "model"):
            assert latest(folder, phase)[1] == []
        job = resume(folder)
        job.fit_to(job.data()[0])
        job.train(*job.data())
        assert lines(folder) == lines(reference), k
        for path in reference.rglob("*.safetensors"):
            assert (folder / path.relative_to(reference)).read_bytes() == path.read_bytes(), (k, path.name)
        assert not list(folder.rglob(".*")), k
    assert failed >= 10 and k > 20


def test_what_is_read_back_after_a_failed_write_is_the_state_before(tmp_path, monkeypatch):
    job, _ = begun(tmp_path / "run", replace(run_config(), sample=SampleConfig(steps=3, save_every=2)))

    def tell(phase, record, steps):
        if record["step"] == 3:
            Failing(monkeypatch, 1, errno.EIO, True)

    job.tell = tell
    with pytest.raises(RunError, match=r"model-00000004\.safetensors: .*model-00000002\.safetensors is safe"):
        job.train(*job.data())
    monkeypatch.undo()
    state, faults = latest(job.folder, "model")
    assert (state.done, faults) == (2, []) and read_arrays(state.path)[1]["step"] == 2
    resumed(job.folder)


# ------------------------------------------------------------------------------------------------ the real command


@pytest.fixture(scope="module")
def found():
    with tempfile.TemporaryDirectory(prefix="faults-") as place:  # not pytest's, which no other user may look into
        os.chmod(place, 0o755)
        yield Path(place), scenarios(Path(place), "train", "more steps", "overwrite")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="processes")
@pytest.mark.parametrize("k", range(30))
def test_the_command_says_in_one_line_what_could_not_be_written_and_how_to_go_on(found, k):
    place, known = found
    plans = [*change_plans(known, 12), *damage_plans(known[0]), *place_plans(known)]
    if k >= len(plans):
        pytest.skip("root may read everything, and only root may mount a file system")
    work, scenario, *more = plans[k]
    trial = work(scenario, place / f"trial {k}", *more)
    assert trial.faults == [], trial.what
