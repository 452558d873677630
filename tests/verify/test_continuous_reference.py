"""Where a topic of continuous time spells an equation out, it equals the package's own law, path, grid or walk."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidit import ops
from minidit.diffusion import consistency as C
from minidit.diffusion import flow, level, loss, solver, step, times
from minidit.diffusion.level import Level
from minidit.diffusion.path import Exploding, Straight
from minidit.diffusion.prediction import EPS, X_0, U, edm
from minidit.models.unet import ResBlock
from minidit.models.unet_config import Place, UNetConfig
from minidit.nn.position import timestep_embedding
from minidit.random import Philox
from minidit.verify.core.denoiser import Linear
from minidit.verify.core.finding import ask
from minidit.verify.core.judge import Judge
from minidit.verify.core.reference import Reference
from minidit.verify.topics import TOPICS, consistency, flows, paths, unet
from minidit.verify.topics import times as laws
from tests.support import spec

R = Reference()
GROUPS = ("paths", "times", "flows", "consistency", "unet")
unit = st.floats(0.01, 0.99)
sigmas = st.floats(0.01, 50.0)


def drawn(number, *shape):
    rng = Philox(7)
    return [rng.normal(shape or (2, 3), dtype=np.float64) for _ in range(number)]


def near(a, b, tol=1e-12):
    np.testing.assert_allclose(a, b, rtol=tol, atol=tol * max(1.0, float(np.max(abs(np.asarray(b))))))


@pytest.mark.parametrize("name", [t.name for t in TOPICS.values() if t.group in GROUPS])
def test_the_reference_answers_its_own_questions_and_passes(name):
    topic = TOPICS[name]
    assert len({p.name for p in topic.probes()}) == len(topic.probes())
    finding = Judge().judge(topic, ask(topic.by(Reference()), topic), [])
    assert finding.passed and finding.verdict == "equal"


@spec("P.4", "P.9")
@given(unit, unit)
def test_a_flow_s_euler_step_is_the_one_line_of_all_samplers(t, s):
    x, u = drawn(2)
    pair = U.pair(u, x, Straight().level(t))
    near(flows.flow_euler_step(R, x, u, t, s), step.step(*pair, Straight().level(s)), 1e-10)
    x_0, eps = paths.pair_from_velocity(R, x, u, np.array([t, t]))
    near(paths.straight_sample(R, x_0, eps, np.array([t, t])), x)
    near(paths.straight_velocity(R, x_0, eps), u, 1e-10)
    near(paths.velocity_from_x_0(R, x, x_0, np.array([t, t])), u, 1e-9)
    near(paths.score_from_velocity(R, x, u, np.array([t, t])), -eps / t, 1e-10)


@spec("P.6", "P.22")
@given(st.floats(0.6, 0.99), st.floats(0.31, 0.55), st.floats(0.01, 0.3))
def test_steps_of_order_two_are_those_of_the_solvers(before, t, s):
    x, u, other = drawn(3)
    mean = solver.heun(u, other)
    near(flows.flow_heun_step(R, x, u, other, t, s), step.step(*U.pair(mean, x, Straight().level(t)), Straight().level(s)), 1e-10)
    levels = [Straight().level(a) for a in (before, t, s)]
    ahead = solver.adams(u, other, solver.AB2.weights(*levels))
    near(flows.flow_ab2_step(R, x, u, other, before, t, s), step.step(*U.pair(ahead, x, levels[1]), levels[2]), 1e-10)


@spec("P.4", "P.6")
@given(st.floats(1.0, 50.0), st.floats(0.01, 0.9))
def test_edm_s_steps_are_the_same_line_on_the_exploding_path(sigma, lower):
    x, D, D_next = drawn(3)
    t, s = Level(1.0, sigma), Level(1.0, lower)
    pair = X_0.pair(D, x, t)
    end = step.step(*pair, s)
    near(flows.edm_euler_step(R, x, D, sigma, lower), end, 1e-10)
    mean = solver.heun(pair[1], X_0.pair(D_next, end, s)[1])
    near(flows.edm_heun_step(R, x, D, D_next, sigma, lower), step.step(*EPS.pair(mean, x, t), s), 1e-9)
    near(flows.edm_heun_step(R, x, D, D_next, sigma, 0.0), D, 1e-10)


@spec("P.4", "P.7", "P.20")
@given(unit, st.floats(1.0, 1.4), st.floats(0.0, 60.0))
def test_fresh_noise_climbs_and_churn_are_those_of_the_levels(s, factor, churn):
    x, z, eps = drawn(3)
    t = s * factor if s * factor < 1 else (1 + s) / 2
    near(flows.straight_climb(R, x, z, s, t), level.climb(x, Level(1 - s, s), Level(1 - t, t), z), 1e-10)
    near(flows.edm_churn(R, x, z, s, t), level.climb(x, Level(1.0, s), Level(1.0, t), z), 1e-10)
    near(flows.fresh_step(R, x, eps, z, 0.7, t, s), step.step(x, eps, Level(0.7, t), c=s, z=z), 1e-10)
    (raised,) = times.churned([(s, 0.0)] * 1, churn, 0.05, 50.0)
    near(flows.churned_sigma(R, s, churn, 1, 0.05, 50.0), raised[0])


@spec("P.3", "P.10", "P.23")
@given(sigmas, st.floats(0.1, 2.0))
def test_edm_s_four_numbers_are_its_row_of_the_answers(sigma, sigma_data):
    x_0, eps = drawn(2, 1, 3)
    at, noise = Level(np.ones(1), np.array([sigma])), np.array([sigma])
    x = level.mix(x_0, eps, at)
    F = edm(sigma_data).target(x_0, eps, at)
    near(paths.edm_target(R, x_0, eps, noise, sigma_data), F, 1e-7)
    near(paths.edm_denoised(R, F, x, noise, sigma_data), edm(sigma_data).pair(F, x, at)[0], 1e-10)
    near(paths.edm_weight(R, noise, sigma_data), loss.edm_weight(sigma_data)(X_0, at))
    scaled, time = Exploding(sigma_data, unit=0.25).inputs(x, noise)
    *_, c_in, c_noise = paths.edm_scalings(R, noise, sigma_data)
    near(x * c_in, scaled)
    near(c_noise, time)
    skip, out = C.scalings(noise, 0.0, sigma_data)
    near(paths.edm_scalings(R, noise, sigma_data)[:2], (skip, out))


@spec("P.11")
@given(unit, sigmas)
def test_a_sample_in_other_coordinates_goes_there_and_back(alpha, sigma):
    (x,) = drawn(1, 1, 3)
    on_line, t = paths.to_straight(R, x, np.array([alpha]), np.array([sigma]))
    free, noise = paths.to_exploding(R, on_line, 1 - t, t)
    near(free, x / alpha, 1e-9)
    near(noise, sigma / alpha, 1e-9)


@spec("P.17", "P.18", "P.19")
@given(st.integers(1, 30), st.floats(0.2, 5.0), st.floats(1.0, 9.0))
def test_grids_are_those_of_the_samplers(n, a, rho):
    near(laws.linear_grid(R, n), [t for t, _ in times.linear(n)] + [0.0])
    near(laws.shifted_grid(R, n, a), [t for t, _ in times.linear(n, a)] + [0.0])
    near(laws.edm_grid(R, n + 1, 0.002, 80.0, rho), [*times.karras(n + 1, 0.002, 80.0, rho), 0.0], 1e-10)
    near(consistency.consistency_grid(R, n + 1, 0.002, 80.0, rho), C.rising_grid(n + 1, 0.002, 80.0, rho), 1e-10)
    near(flows.walk_times(R, n, a), times.linear(n, a))


@spec("P.17")
@given(st.integers(1, 40), st.integers(1, 9), st.floats(0.05, 0.95))
def test_shifts_of_larger_pictures_and_clips_make_one_another(frames, k, t):
    a = laws.clip_shift(R, frames, 100 * k, 100)
    near(times.shift(times.shift(t, frames**0.5), k**0.5), times.shift(t, a))
    assert laws.clip_shift(R, 1, 100 * k, 100) == laws.resolution_shift(R, 100 * k, 100)
    near([laws.flux_shift(R, n) for n in (256, 4096)], [1.6487212707001282, 3.158192909689768])
    half = laws.flux_shift(R, (256 + 4096) // 2)
    near(half**2, laws.flux_shift(R, 256) * laws.flux_shift(R, 4096))


@spec("P.8", "F.2")
@given(unit)
def test_a_weighted_loss_of_the_denoised_guess_is_the_loss_of_the_velocity(t):
    x_0, eps, v = drawn(3, 1, 2, 3)
    x_t = level.mix(x_0, eps, Straight().level(t))
    x_0_hat, _ = U.pair(v, x_t, Straight().level(t))
    mine = flows.denoised_flow_loss(R, x_0_hat, x_0, np.array([t]))
    near(mine, flows.flow_loss(R, v, x_0, eps), 1e-9)
    near(flows.denoised_weight(R, t), U.gain(Straight().level(t)))


@spec("S.1", "S.2", "S.3")
@given(st.floats(0.01, 50.0), st.floats(0.001, 0.3))
def test_consistency_is_that_of_the_law(above, end):
    F, x, z = drawn(3, 1, 4)
    t = np.array([end + above])
    near(consistency.consistency_scalings(R, t, end, 0.5), C.scalings(t, end, 0.5))
    near(consistency.consistency_end(R, F, x, t, end, 0.5), C.end_of(F, x, t, end, 0.5))
    assert np.array_equal(consistency.consistency_end(R, F, x, np.array([end]), end, 0.5), x)
    at = Exploding(end=end).level(float(t[0]))
    near(consistency.consistency_step(R, x, z, float(t[0]), end), step.step(x, F, at, c=at.sigma, z=z), 1e-10)
    near(consistency.pseudo_huber(R, x, z, end), C.pseudo_huber(x, z, end), 1e-9)
    near(consistency.pseudo_huber(R, x, z, consistency.huber_constant(R, 4)), C.pseudo_huber(x, z), 1e-9)


@spec("S.4", "S.5", "S.6")
@given(st.integers(0, 799), st.integers(800, 4000), st.integers(2, 20), st.integers(40, 1280))
def test_curricula_are_those_of_the_law(k, K, s_0, s_1):
    assert consistency.training_levels(R, k, K, s_0, s_1) == C.levels_at(k, K, s_0, s_1)
    near(consistency.target_decay(R, k, K, s_0, s_1, 0.9), C.target_decay(k, K, s_0, s_1, 0.9))
    assert consistency.ict_levels(R, k, K, s_0, s_1) == C.doubled_levels_at(k, K, s_0, s_1)
    grid = C.rising_grid(s_0 + 1)
    near(consistency.ict_probabilities(R, grid), C.index_masses(grid))


@spec("N.10", "A.17", "L.8")
@given(st.integers(0, 999))
def test_the_u_net_s_blocks_are_made_of_the_package_s_laws(t):
    sine_last = timestep_embedding(np.array([t]), 8, np.float64, shift=1)
    near(unet.unet_time_embedding(R, np.array([t]), 8), np.concatenate((sine_last[:, 4:], sine_last[:, :4]), axis=1))
    weights, x, groups = TOPICS["unet_attention"].probes()[0].args
    n = ops.group_norm(x, weights["group_norm.weight"], weights["group_norm.bias"], groups=groups)
    tokens = n.reshape(2, 4, 6).transpose(0, 2, 1)
    q, k, v = (ops.linear(tokens, weights[f"{name}.weight"], weights[f"{name}.bias"]) for name in ("to_q", "to_k", "to_v"))
    y = ops.linear(ops.attention(q, k, v), weights["to_out.0.weight"], weights["to_out.0.bias"])
    near(unet.unet_attention(R, weights, x, groups), x + y.transpose(0, 2, 1).reshape(x.shape), 1e-10)


@pytest.mark.parametrize("probe", TOPICS["unet_block"].probes(), ids=lambda p: p.name)
def test_a_block_is_that_of_the_package_s_u_net(probe):
    weights, x, c, groups = probe.args
    O = len(weights["conv1.weight"])
    config = UNetConfig(widths=(4,), groups=groups, attention=())
    block = ResBlock(Place(0, x.shape[1], O, False), config).build(dtype=np.float64)
    m = ops.linear(ops.silu(c), weights["time_emb_proj.weight"], weights["time_emb_proj.bias"])
    own = {"time_emb_proj.weight": np.zeros((O, config.condition_width))}
    block.load_state_dict(dict(weights) | own)
    near(unet.unet_block(R, weights, x, c, groups), block(x, m).data, 1e-10)


def test_a_block_of_the_u_net_whose_last_convolution_is_zero_is_its_shortcut():
    for probe in TOPICS["unet_block"].probes():
        weights, x, c, groups = probe.args
        nothing = {name: 0 * w if name.startswith("conv2") else w for name, w in weights.items()}
        near(unet.unet_block(R, nothing, x, c, groups), unet.shortcut(R, x, weights))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 3))
def test_the_way_up_takes_everything_that_the_way_down_remembers(widths, blocks):
    kept = unet.remembered(R, tuple(widths), blocks)
    got = unet.unet_channels(R, tuple(widths), blocks)
    assert len(got) == len(kept) == len(widths) * (blocks + 1)
    before = [widths[-1], *(w for w in reversed(widths) for _ in range(blocks + 1))][: len(got)]
    assert [int(g) - b for g, b in zip(got, before, strict=True)] == kept[::-1]


@spec("F.3")
def test_straightness_is_that_of_the_law():
    t, x = TOPICS["straightness"].probes()[0].args
    near(flows.straightness(R, t, x), flow.straightness(t, x), 1e-10)


def test_samplers_of_order_two_end_nearer_to_the_exact_flow_than_euler_s():
    """dx/dt = x/2 from t = 1 to 0 ends at x e^-½; AB2's error falls with n² (P.22), Euler's with n."""
    net, x = Linear(np.full(1001, 0.5), np.zeros(1001)), np.ones((1, 1, 1))
    exact = np.exp(-0.5)

    def error(sampler, n, *more):
        return abs(float(sampler(R, net, x, n, *more).squeeze()) - exact)

    assert 1.9 < error(flows.flow_euler, 32, 1.0) / error(flows.flow_euler, 64, 1.0) < 2.1
    for sampler in (flows.flow_ab2, flows.flow_heun):
        assert 3.6 < error(sampler, 32) / error(sampler, 64) < 4.4, sampler.name
