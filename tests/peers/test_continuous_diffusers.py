"""diffusers' samplers of continuous time beside ours: flow matching, EDM, consistency models, DPM-Solver++(2M)."""

from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install 'minidit[peers]')")
diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (pip install 'minidit[peers]')")

from support import agree, host, spec  # noqa: E402

from minidit.diffusion import consistency, times  # noqa: E402
from minidit.diffusion.exact import Mixture  # noqa: E402
from minidit.diffusion.fresh import EVERYTHING, ddim  # noqa: E402
from minidit.diffusion.level import Level  # noqa: E402
from minidit.diffusion.path import Exploding, Straight  # noqa: E402
from minidit.diffusion.prediction import EPS, X_0, U, edm  # noqa: E402
from minidit.diffusion.schedule import Schedule  # noqa: E402
from minidit.diffusion.solver import AB2, DPM_2M, EULER, HEUN  # noqa: E402
from minidit.processes.denoise import Denoiser  # noqa: E402
from minidit.processes.walk import Walk  # noqa: E402
from minidit.training.draws import Draws  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")  # theirs, not ours


class Network:
    """A mixture of three that answers where a network is expected."""

    second_half = False

    def __init__(self, law):
        self.law = law

    def __call__(self, x, time, y=None):
        return self.law(x, time)


def mixture(path, answer):
    rng = np.random.default_rng(1)
    weights, variances = np.array([0.2, 0.5, 0.3]), np.array([0.1, 0.2, 0.3])
    return Mixture(weights, rng.normal(size=(3, 1, 2, 2)), variances, path=path, prediction=answer)


def x_T(n=3):
    return np.random.default_rng(0).normal(size=(n, 1, 2, 2))


def ours(law, path, answer, grid, x, solver=EULER, fresh=None):
    draws = Draws(0, 0, np.arange(len(x)), dtype=np.float64)
    *_, x_0 = Walk(Denoiser(Network(law), path, answer), grid, fresh or ddim(), draws, None, solver).moments(x)
    return x_0


def tensor(x):
    return torch.from_numpy(np.asarray(x, np.float64))


@spec("P.4", "P.9", "P.18")
@pytest.mark.parametrize("steps", [1, 5, 12])
def test_flow_match_euler_with_its_sigmas_given_is_euler_on_the_straight_path(steps):
    scheduler, law = diffusers.FlowMatchEulerDiscreteScheduler(), mixture(Straight(), U)
    grid, x = times.linear(steps), tensor(x_T())
    scheduler.set_timesteps(sigmas=[t for t, _ in grid])
    for time in scheduler.timesteps:
        v = law(x.numpy(), float(time))  # its network sees 1000 t, as ours does
        x = scheduler.step(tensor(v), time, x).prev_sample
    agree(ours(law, Straight(), U, grid, x_T()), host(x.numpy()), bound=2e-5, of="P.4")  # it keeps its sigmas in float32


@spec("P.17")
def test_flow_match_eulers_shift_is_ours_once():
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=[t for t, _ in times.linear(6)])
    agree(scheduler.sigmas.numpy(), [t for t, _ in times.linear(6, 3.0)] + [0.0], bound=1e-6, of="P.17")


@spec("P.6")
def test_flow_match_heun_is_heun_on_u():
    scheduler, law, x = diffusers.FlowMatchHeunDiscreteScheduler(), mixture(Straight(), U), tensor(x_T())
    scheduler.set_timesteps(6)
    stops = list(dict.fromkeys(scheduler.sigmas.tolist()))
    for time in scheduler.timesteps:
        x = scheduler.step(tensor(law(x.numpy(), float(time))), time, x).prev_sample
    agree(ours(law, Straight(), U, times.down(stops), x_T(), HEUN), x.numpy(), bound=2e-5, of="P.6")


@spec("P.19", "P.10", "P.2")
def test_edm_euler_has_the_grid_the_inputs_and_the_answer_of_edm():
    scheduler, path = diffusers.EDMEulerScheduler(), Exploding(0.5, unit=0.25)
    scheduler.set_timesteps(9)
    law, x = mixture(path, edm(0.5)), tensor(80.0 * x_T())
    agree(scheduler.sigmas.numpy(), [*times.karras(9), 0.0], bound=1e-6, of="P.19")
    for time in scheduler.timesteps:
        seen = scheduler.scale_model_input(x, time)
        x = scheduler.step(tensor(law(seen.numpy(), float(time))), time, x).prev_sample
    agree(ours(law, path, edm(0.5), path.grid(9), 80.0 * x_T()), x.numpy(), bound=1e-4, of=("P.10", "P.2"))


@spec("S.1", "S.2")
def test_the_stochastic_iterative_scheduler_is_several_steps_of_a_consistency_model():
    scheduler = diffusers.CMStochasticIterativeScheduler(clip_denoised=False)
    for t in (0.002, 0.0021, 0.5, 80.0):
        agree(scheduler.get_scalings_for_boundary_condition(tensor(t)), consistency.scalings(t), bound=1e-14, of="S.1")
    scheduler.set_timesteps(timesteps=[22, 0])  # it reads them backwards: σ_max, then the level of index 22
    path, answer = Exploding(0.5, end=0.002), consistency.consistency()
    stops, noise = scheduler.sigmas.double().tolist(), np.random.default_rng(3).normal(size=(3, 3, 1, 2, 2))
    network = lambda seen, time: 0.3 * seen + np.sin(time).reshape(-1, 1, 1, 1)

    class Drawn(torch.overrides.TorchFunctionMode):
        """Deals out our noise where the scheduler asks for its own."""

        k = 0

        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function is torch.randn:
                self.k += 1
                return tensor(noise[self.k - 1])
            return function(*args, **(kwargs or {}))

    assert stops[0] > stops[1] > stops[2] and abs(stops[2] - 0.002) < 1e-8
    x, mine = tensor(stops[0] * x_T()), stops[0] * x_T()
    with Drawn():
        for time in scheduler.timesteps:
            seen = scheduler.scale_model_input(x, time).numpy()
            x = scheduler.step(tensor(network(seen, np.full(3, float(time)))), time, x).prev_sample
    for k, (t, s) in enumerate(pairwise([*stops[:-1], 0.002])):
        f = answer.pair(network(*path.inputs(mine, t)), mine, path.level(t))[0]
        mine = f + EVERYTHING.c(path.level(t), path.level(s)) * noise[k]
    agree(mine, x.numpy(), bound=1e-4, of="S.2")  # it keeps its sigmas and times in float32


@spec("P.22")
@pytest.mark.parametrize("steps", [4, 9, 20])
def test_dpm_solver_plus_plus_2m_is_our_solver_on_x_0(steps):
    """On the ladder, with the rungs of trailing spacing; the last step, to clean data, is Euler's on both sides."""
    ladder = Schedule.linear(1000)
    scheduler = diffusers.DPMSolverMultistepScheduler(beta_schedule="linear", timestep_spacing="trailing",
                                                      lower_order_final=False)  # fmt: skip
    scheduler.set_timesteps(steps)
    law, x = mixture(ladder, EPS), tensor(x_T())
    assert [int(t) + 1 for t in scheduler.timesteps] == [t for t, _ in ladder.grid(steps)]
    for time in scheduler.timesteps:
        x = scheduler.step(tensor(law(x.numpy(), int(time))), time, x).prev_sample
    mine = {name: ours(law, ladder, EPS, ladder.grid(steps), x_T(), solver) for name, solver in (("2M", DPM_2M), ("AB2", AB2))}
    agree(mine["2M"], x.numpy(), bound=3e-5, of="P.22")
    assert np.abs(mine["AB2"] - x.numpy()).max() > 1e-3  # another method of the same order


@spec("P.22")
def test_edms_own_multistep_solver_is_ours_on_the_exploding_path():
    """It forces one first-order step at the end of short walks; the grid here ends above the data instead."""
    scheduler, path = diffusers.EDMDPMSolverMultistepScheduler(), Exploding(0.5, unit=0.25)
    scheduler.set_timesteps(16)
    law, x = mixture(path, edm(0.5)), tensor(80.0 * x_T())
    for time in scheduler.timesteps:
        seen = scheduler.scale_model_input(x, time)
        x = scheduler.step(tensor(law(seen.numpy(), float(time))), time, x).prev_sample
    agree(ours(law, path, edm(0.5), path.grid(16), 80.0 * x_T(), DPM_2M), x.numpy(), bound=3e-4, of="P.22")


@spec("P.22")
def test_the_loop_of_k_diffusion_written_out_is_the_same_solver():
    """sample_dpmpp_2m: t = -ln σ, h = t_next - t, r = h_last/h, D = (1 + 1/2r) D_n - D_(n-1)/2r, Euler where σ_next = 0."""
    path, x, before, sigmas = Exploding(0.5), 80.0 * x_T(), None, [*times.karras(10), 0.0]
    law = mixture(path, X_0)
    for i in range(10):
        D = law.denoise(x, Level(1.0, sigmas[i]))
        t, t_next = (-np.log(s) if s > 0 else np.inf for s in sigmas[i : i + 2])
        mixed = D
        if before is not None and sigmas[i + 1] > 0:
            r = (t + np.log(sigmas[i - 1])) / (t_next - t)
            mixed = (1 + 1 / (2 * r)) * D - before / (2 * r)
        x, before = sigmas[i + 1] / sigmas[i] * x - np.expm1(t - t_next) * mixed, D
    agree(ours(law, path, X_0, path.grid(10), 80.0 * x_T(), DPM_2M), x, bound=1e-11, of="P.22")
