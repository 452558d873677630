"""Recorded walks are kept with their network: the next one that is alike is replayed, bit for bit as without a recording."""

import gc
import sys
import weakref
from dataclasses import replace

import numpy as np
import pytest
import standin
from small import awake
from standin.cublas import imitated_cublas
from standin.device import COUNTS
from support import host

from minidit.diffusion.fresh import DDPM
from minidit.diffusion.prediction import EPS, X_0, V
from minidit.diffusion.schedule import Schedule
from minidit.diffusion.solver import AB2, EULER, HEUN
from minidit.processes import recordings
from minidit.processes.diffusion import Diffusion
from minidit.processes.sample import Sampling, sample

LADDER = Diffusion.on_ladder(Schedule.cosine(40), V)
LABELS = np.array([0, 2, 1])


@pytest.fixture(autouse=True)
def gpu():
    if not getattr(standin.install(), "__standin__", False) or standin.raw.compiler() is None:
        pytest.skip("the stand-in, and g++ to run kernels on the CPU")
    with standin.kernels(), imitated_cublas():
        yield


@pytest.fixture
def made(monkeypatch):
    """The recordings that are made, one entry each."""
    all_made, make = [], recordings.Recording.__init__
    monkeypatch.setattr(recordings.Recording, "__init__", lambda self, *args: all_made.append(1) or make(self, *args))
    return all_made


def same(network, settings, labels=LABELS, **how):
    """Whether the walk is the one that is not recorded."""
    walk = lambda graph: host(sample(network, LADDER, labels, settings, graph=graph, **how))
    recorded = walk(True)
    return np.isfinite(recorded).all() and np.array_equal(recorded, walk(False))


def test_walks_of_other_kinds_are_not_replayed_as_the_last_one():
    network = awake(device="cuda")
    for guidance, clip in ((1.0, True), (2.0, True), (2.0, False)):
        for solver in (EULER, HEUN, AB2):
            for answer in (EPS, V, X_0):  # each walk differs from the last one in little
                assert same(network, Sampling(steps=3, prediction=answer, solver=solver, guidance=guidance, clip=clip))


@pytest.mark.parametrize("settings", [
    Sampling(steps=4, guidance=2.0, interval=(0.2, 0.7)), Sampling(steps=5, solver=AB2, precision="bf16"),
], ids=["guided in an interval", "AB2 in bf16"])  # fmt: skip
def test_a_kept_recording_sees_other_noise_other_labels_and_weights_that_were_changed(settings, made):
    if settings.precision == "bf16":
        pytest.importorskip("ml_dtypes")
    network = awake(device="cuda")
    assert same(network, settings)
    uploads = COUNTS.uploads
    host(sample(network, LADDER, LABELS, settings, seed=1))
    assert COUNTS.uploads - uploads == 1  # the labels
    assert same(network, settings, LABELS[::-1], seed=1)
    network.flat[...] *= 1.5
    assert same(network, settings, seed=2) and len(made) == 1


@pytest.mark.parametrize("name", ["MINIDIT_CUBLASLT", "MINIDIT_CUDNN"])
def test_a_walk_by_other_libraries_is_recorded_anew(name, made, monkeypatch):
    network, settings, library = awake(device="cuda"), Sampling(steps=3), sys.modules["cupy"].imitated_cublas
    asked = lambda: bool(library.epilogues) if name == "MINIDIT_CUBLASLT" else None
    sample(network, LADDER, LABELS, settings)
    assert not asked()
    monkeypatch.setenv(name, "on")
    sample(network, LADDER, LABELS, settings)
    assert len(made) == 2 and asked() is not False
    sample(network, LADDER, LABELS, settings)
    monkeypatch.setenv(name, "off")
    sample(network, LADDER, LABELS, settings)
    assert len(made) == 3  # alike: as the one before, but not as a walk by the library


def test_what_a_walk_returned_is_not_overwritten_by_the_next():
    network = awake(device="cuda")
    first = sample(network, LADDER, LABELS, steps=3)
    before = host(first).copy()
    sample(network, LADDER, LABELS, steps=3, seed=1)
    assert np.array_equal(host(first), before)


def test_another_walk_is_recorded_anew_and_takes_the_place_of_the_last(made):
    network, settings = awake(device="cuda"), Sampling(steps=3)
    others = [replace(settings, steps=4), replace(settings, clip=True), replace(settings, guidance=2.0)]
    others += [replace(settings, fresh=DDPM, seed=s) for s in (0, 1)]  # a seed counts where steps draw noise
    for count, other in enumerate([settings, *others, settings], 1):
        assert same(network, other) and len(made) == count
        assert [kept for kept in recordings._kept if kept is network] == [network]
    assert same(network, settings, LABELS[:2]) and len(made) == count + 1


def test_a_recording_goes_with_its_network():
    network = awake(device="cuda")
    sample(network, LADDER, LABELS, steps=3)
    gone, held = weakref.ref(network), weakref.ref(recordings._kept[network][1])
    del network
    gc.collect()
    assert gone() is None and held() is None


def test_a_recording_that_holds_much_of_the_memory_is_not_kept(monkeypatch):
    network = awake(device="cuda")
    monkeypatch.setattr(recordings, "memory_of", lambda _: 1000)
    sample(network, LADDER, LABELS, steps=3)
    assert network not in recordings._kept


def test_weights_in_another_place_are_not_those_that_were_recorded(made):
    network = awake(device="cuda")
    assert same(network, Sampling(steps=3))
    before, network.flat = network.flat, network.flat * 1.5
    for parameter, view in zip(network.parameters(), network.views(network.flat), strict=True):
        parameter.data = view
    before[...] = np.nan
    assert same(network, Sampling(steps=3)) and len(made) == 2
