"""Training on every path through `Diffusion`; updates and walks of continuous paths recorded on a device."""

from dataclasses import replace

import numpy as np
import pytest
from small import DIT, UNCONDITIONAL, awake, pictures
from support import agree, host, spec

from minidit.autograd import plain_text
from minidit.data import digits
from minidit.diffusion import consistency, loss, times
from minidit.diffusion.fresh import DDPM, EVERYTHING
from minidit.diffusion.path import Exploding, Straight
from minidit.diffusion.prediction import EPS, X_0, U, V, edm
from minidit.diffusion.schedule import Schedule
from minidit.diffusion.solver import AB2, HEUN_EDM
from minidit.models.dit import DiT
from minidit.processes.diffusion import Diffusion, drawn
from minidit.processes.sample import sample
from minidit.processes.train import loop_for, train
from minidit.random import Philox
from minidit.training.loop import LoopConfig

STRAIGHT = Straight()
FLOW = Diffusion(STRAIGHT, U, drawn(times.uniform))
EDM = Diffusion(Exploding(0.5), edm(0.5), drawn(times.lognormal()))


# ------------------------------------------------------------------------------------------------ training


@spec("P.2", "P.9", "P.12")
def test_the_loss_of_a_flow_is_that_of_its_sentence():
    """u, t from one float64 uniform, x_t = (1-t) x_0 + t ε, the network sees 1000 t, the target is ε - x_0."""
    seen, data = [], pictures(6, dtype=np.float64)

    def network(x, time, y):
        seen.append((x, time))
        return 0.5 * x

    loop = loop_for(awake(dtype=np.float64), data, FLOW, LoopConfig(steps=1, batch_size=6))
    draws = loop.draws.at(3, loop.samples)
    x_0, y = loop.source.draw(draws.pictures(6), draws)
    losses, _ = FLOW.loss(network, x_0, y, draws)
    again = loop.draws.at(3, loop.samples)
    t, eps = again.uniform(dtype=np.float64), again.normal(x_0.shape)
    x_t = (1 - t)[:, None, None, None] * x_0 + t[:, None, None, None] * eps
    agree(seen[0][0], x_t, bound=1e-15, of="P.9")
    agree(seen[0][1], 1000 * t, bound=1e-12, of=("P.9", "P.12"))
    agree(losses, ((0.5 * x_t - (eps - x_0)) ** 2).mean(axis=(1, 2, 3)), bound=1e-14, of="P.2")


@spec("P.23", "P.16")
def test_edm_trains_the_plain_loss_of_its_answer_and_another_answer_is_weighted_alike():
    x_0 = pictures(8, dtype=np.float64)[0]
    loop = loop_for(awake(UNCONDITIONAL, dtype=np.float64), (x_0, None), EDM, LoopConfig(steps=1, batch_size=8))
    draw = lambda: loop.draws.at(0, loop.samples)
    t, eps, x_t, at = EDM.question(x_0, draw())
    guess = 0.7 * x_t, 0.3 * x_t / at.sigma[:, None, None, None]  # x̂_0 and the ε̂ that goes with it
    own = EDM.error(EDM.answer.target(*guess, at), x_0, eps, t, at)
    for answer in (X_0, EPS, U, V):  # the gain of X_0 is 1 here, those of the others are not
        weighted = replace(EDM, answer=answer, weight=loss.edm_weight(0.5))
        agree(weighted.error(answer.target(*guess, at), x_0, eps, t, at), own, bound=1e-10, of="P.23")
    of_x_0 = replace(EDM, answer=X_0, weight=loss.edm_weight(0.5)).weights(t)
    agree(of_x_0, (t**2 + 0.25) / (t * 0.5) ** 2, bound=1e-12, of="P.23")
    assert EDM.weights is None and (t > 0).all()


@pytest.mark.parametrize("process", [FLOW, Diffusion(STRAIGHT, U, drawn(times.shifted_law(times.logit_normal(), 2.0))), EDM],
                         ids=["uniform", "shifted logit-normal", "edm"])  # fmt: skip
def test_todays_network_learns_any_process_on_digits(process):
    """The loss of the last twenty of a hundred updates lies far below that of the first five."""
    config = replace(DIT, input_size=8, hidden_size=32, depth=1, num_classes=10)
    model = DiT(config, Philox(0))
    losses = [float(r["loss"]) for r in train(model, digits("train"), process, steps=100, batch_size=32, lr=5e-3)]
    assert np.mean(losses[-20:]) < 0.75 * np.mean(losses[:5]), losses
    x = sample(model, process, np.arange(10), steps=4, solver=AB2)
    assert x.shape == (10, 1, 8, 8) and np.isfinite(x).all()


# ------------------------------------------------------------------------------------------------ on a device


WALKS = {
    "flow": (FLOW, {}),
    "flow, guided, AB2": (FLOW, {"solver": AB2, "guidance": 2.0, "interval": (0.2, 0.7)}),
    "flow with noise": (FLOW, {"fresh": DDPM, "guidance": 1.5}),
    "EDM, clipped, AB2": (EDM, {"solver": AB2, "clip": True}),
    "ladder, AB2": (Diffusion.on_ladder(Schedule.cosine(50), V), {"solver": AB2, "guidance": 2.0}),
    "consistency": (Exploding(0.5, end=0.002), {"prediction": consistency.consistency(), "fresh": EVERYTHING}),
}


@spec("P.22", "P.21")
@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("name", WALKS)
def test_a_recorded_walk_is_the_walk_bit_for_bit_on_every_path(name, caplog):
    """In six steps, so that also guided ones of an interval are replayed at another time than the one that was recorded."""
    process, how = WALKS[name]
    model, labels = awake(device="cuda"), np.array([0, 1, 2])
    walk = lambda **more: host(sample(model, process, labels, steps=6, **how, **more))
    recorded, eager = walk(), walk(graph=False)
    assert caplog.messages == [] and np.isfinite(recorded).all()
    assert np.array_equal(recorded, eager)
    with plain_text():
        agree(recorded, walk(graph=False), bound=3e-4)
    here = sample(awake(), process, labels, steps=6, **how)
    agree(recorded, here, bound=3e-4)


@pytest.mark.usefixtures("gpu")
def test_walks_that_are_not_one_function_of_the_counter_are_not_recorded_and_run_all_the_same():
    model, labels = awake(device="cuda"), np.array([0, 1])
    grid = times.churned(EDM.path.grid(4), 1.0)
    for how in ({"solver": HEUN_EDM, "steps": 4}, {"grid": grid}):
        agree(host(sample(model, EDM, labels, **how)), sample(awake(), EDM, labels, **how), bound=1e-3)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("process", [FLOW, EDM, replace(FLOW, answer=X_0, weight=loss.min_snr,
                                                        times=drawn(times.mode()))], ids=["flow", "edm", "weighted"])  # fmt: skip
def test_a_recorded_update_of_any_process_is_the_update_bit_for_bit(process, caplog):
    config = LoopConfig(steps=4, batch_size=6, lr=1e-2, warmup=2, seed=3)
    losses = {}
    for name, device, graph in (("recorded", "cuda", True), ("eager", "cuda", False), ("host", "cpu", False)):
        loop = loop_for(awake(device=device), pictures(), process, replace(config, graph=graph))
        losses[name] = np.array([float(host(r["loss"])) for r in loop.run()])
    assert caplog.messages == [] and np.array_equal(losses["recorded"], losses["eager"])
    agree(losses["recorded"], losses["host"], bound=1e-4)
