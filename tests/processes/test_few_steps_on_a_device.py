"""Losses of few-step networks recorded on a device, and their walks: the same numbers, bit for bit."""

from dataclasses import replace

import numpy as np
import pytest
from small import DIT, awake, pictures
from support import agree, host

from minidit.diffusion.path import Straight
from minidit.diffusion.prediction import U, V
from minidit.diffusion.schedule import Schedule
from minidit.diffusion.solver import AB2, AB2_ARC, HEUN
from minidit.models.flow_map import FlowMapConfig, FlowMapDiT
from minidit.processes.consistency import Consistency, fixed
from minidit.processes.denoise import Denoiser
from minidit.processes.diffusion import Diffusion
from minidit.processes.distil import Distillation, Trajectories, in_steps, trajectories
from minidit.processes.flow_map import MeanVelocity
from minidit.processes.sample import Sampling, sample
from minidit.random import Philox
from minidit.training.loop import Loop, LoopConfig
from minidit.training.source import source_of

pytestmark = pytest.mark.usefixtures("gpu")
LADDER = Diffusion.on_ladder(Schedule.cosine(40), V)
LABELS = np.arange(6) % 3


def student(device):
    """A flow map all of whose weights matter."""
    made = FlowMapDiT(FlowMapConfig(**{name: getattr(DIT, name) for name in DIT.__dataclass_fields__}), Philox(1))
    for k, p in enumerate(made.parameters()):
        p.data[...] += 0.1 * Philox(1, 7, state=k).normal(p.shape)
    there = FlowMapDiT(made.config, None, device=device)
    there.load_state_dict(made.state_dict())
    return there


def work(name, device):
    """(network, process, source) of a training."""
    teacher, x = awake(device=device, seed=3), source_of(pictures(), device)
    straight = Denoiser(teacher, Straight(), U, guidance=2.0, low=0.2, high=0.7)
    if name == "trajectories":
        kept = Trajectories(Philox(4).normal((11, 5, *teacher.shape)), None)
        kept.labels = source_of(pictures(), device).labels
        return student(device), Distillation(LADDER.path, V), kept
    if name == "mean velocity":
        return student(device), MeanVelocity(straight), x
    if name == "iCT":  # its grid has 3, 5 and 9 times
        return awake(device=device), Consistency.improved(4, 2, 8, mean=1.0), x
    return awake(device=device), Consistency(Straight(), U, fixed(np.linspace(0, 1, 9)), teacher=straight, solver=HEUN), x


@pytest.mark.parametrize("name", ["trajectories", "mean velocity", "consistency", "iCT"])
def test_a_recorded_update_is_the_update_bit_for_bit(name, caplog):
    losses = {}
    for how, device, graph in (("recorded", "cuda", True), ("eager", "cuda", False), ("host", "cpu", False)):
        network, process, source = work(name, device)
        config = LoopConfig(steps=4, batch_size=6, lr=1e-3, warmup=2, seed=3, graph=graph)
        losses[how] = np.array([float(host(r["loss"])) for r in Loop(network, process, source, config).run()])
    assert caplog.messages == [] and np.array_equal(losses["recorded"], losses["eager"])
    agree(losses["recorded"], losses["host"], bound=2e-3)


def test_a_recorded_walk_of_a_flow_map_is_its_walk_bit_for_bit(caplog):
    networks = {device: student(device) for device in ("cuda", "cpu")}
    for steps in (1, 2, 4):
        walk = lambda device, n=steps, **more: host(sample(in_steps(networks[device], n), LADDER, LABELS, steps=n, **more))
        recorded = walk("cuda")
        assert caplog.messages == [] and np.array_equal(recorded, walk("cuda", graph=False))
        agree(recorded, walk("cpu"), bound=3e-4)


def test_trajectories_are_walked_on_the_device_and_kept_on_the_host():
    settings = Sampling(4, solver=AB2, guidance=2.0, seed=1)
    here, there = (trajectories(awake(device=d), LADDER, LABELS, settings, n=6, keep=2) for d in ("cpu", "cuda"))
    assert isinstance(there.x, np.ndarray)
    agree(there.x, here.x, bound=3e-4)
    assert replace(there, x=here.x).labels is LABELS


@pytest.mark.parametrize("solver", [AB2, AB2_ARC, HEUN], ids=["ab2", "ab2_arc", "heun"])
def test_a_recorded_walk_of_any_solver_is_its_walk_bit_for_bit(solver, caplog):
    networks = {device: awake(device=device) for device in ("cuda", "cpu")}
    walk = lambda device, **more: host(sample(networks[device], LADDER, LABELS, steps=5, solver=solver, guidance=2.0, **more))
    recorded = walk("cuda")
    assert caplog.messages == [] and np.array_equal(recorded, walk("cuda", graph=False))
    agree(recorded, walk("cpu"), bound=3e-4)
