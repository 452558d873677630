"""Chapter S, flow maps: a step as a function of the answer, the answer as a function of the step, and the mean velocity."""

import itertools

import numpy as np
import pytest
from diffusion.draws import pictures
from finite import slope
from hypothesis import given
from hypothesis import strategies as st
from support import agree, host, spec

from minidit.diffusion.exact import Gaussian, Mixture
from minidit.diffusion.flow_map import answer_to, bracket, difference, jump, mean_velocity, moved
from minidit.diffusion.level import Level
from minidit.diffusion.path import Straight
from minidit.diffusion.prediction import EPS, U, V, edm
from minidit.diffusion.step import step

STRAIGHT = Straight()
ANSWERS = st.sampled_from([EPS, V, U, edm(0.5)])
parts = st.floats(0.02, 0.98)
RING = Mixture([0.3, 0.7], np.array([[0.8, 0.1], [-0.5, 0.4]]), np.array([0.04, 0.09]), path=STRAIGHT)


def angle(a):
    return Level(np.cos(a), np.sin(a))


def oracle(law, x, t):
    """The velocity of a perfect network on the straight path."""
    at = STRAIGHT.level(t)
    x_0 = law.denoise(x, at)
    return (x - at.alpha * x_0) / at.sigma - x_0


# ------------------------------------------------------------------------------------------------ one step


@spec("S.9", "P.4")
@given(pictures(2), ANSWERS, parts, parts)
def test_a_jump_is_the_step_of_all_samplers_without_fresh_noise(xp, xs, answer, t, s):
    x_t, F = map(xp.asarray, xs)
    at, below = angle(max(t, s) * 1.5), angle(min(t, s) * 1.5)
    agree(host(moved(x_t, F, jump(answer, at, below))), host(step(*answer.pair(F, x_t, at), below)), bound=1e-11, of="S.9")


@spec("S.9")
@given(pictures(2), ANSWERS, parts)
def test_a_jump_of_no_length_stays_whatever_the_answer(xs, answer, t):
    x_t, F = xs
    agree(moved(x_t, F, jump(answer, angle(t), angle(t))), x_t, bound=1e-12, of="S.9")


@spec("S.9")
@given(parts, parts)
def test_a_jump_is_a_line_on_the_straight_path_and_a_turn_on_the_circle(t, s):
    agree(jump(U, STRAIGHT.level(t), STRAIGHT.level(s)), (1.0, s - t), bound=1e-12, of="S.9")
    agree(jump(V, angle(t), angle(s)), (np.cos(t - s), -np.sin(t - s)), bound=1e-14, of="S.9")


@spec("S.9")
@given(pictures(2, (2, 3)), ANSWERS)
def test_one_pair_of_times_per_sample_is_one_at_a_time(xp, xs, answer):
    x_t, F = map(xp.asarray, xs)
    t, s = np.array([0.9, 0.5]), np.array([0.1, 0.4])
    both = host(moved(x_t, F, jump(answer, Level(*map(xp.asarray, angle(t))), Level(*map(xp.asarray, angle(s))))))
    for i in range(2):
        one = moved(x_t[i : i + 1], F[i : i + 1], jump(answer, angle(float(t[i])), angle(float(s[i]))))
        agree(both[i : i + 1], host(one), bound=1e-12, of="S.9")


# ------------------------------------------------------------------------------------------------ the answer to a known point


@spec("S.10", "S.9")
@given(pictures(2), ANSWERS, parts, st.floats(0.05, 0.9))
def test_the_answer_that_leads_to_a_point_leads_there(xs, answer, t, share):
    x_t, x_s = xs
    way = jump(answer, angle(1.5 * t), angle(1.5 * t * share))
    agree(moved(x_t, answer_to(x_s, x_t, way), way), x_s, bound=1e-9, of="S.10")


@spec("S.10", "D.40")
@given(pictures(1, (3, 1)), ANSWERS, st.floats(0.3, 1.4))
def test_over_short_spans_it_is_the_answer_of_the_perfect_denoiser(xs, answer, t):
    """F* of the exact flow of a Gaussian tends to the network's target: its distance falls with the span."""
    law, x, at, gaps = Gaussian(0.2, 0.3, path=STRAIGHT), xs[0], angle(t), []
    x_0 = law.denoise(x, at)
    F = answer.target(x_0, (x - at.alpha * x_0) / at.sigma, at)
    for h in (1e-2, 1e-3):
        below = angle(t - h)
        gaps.append(np.abs(answer_to(law.flow(x, at, below), x, jump(answer, at, below)) - F).max())
    assert gaps[1] < 0.2 * gaps[0] + 1e-9, gaps


# ------------------------------------------------------------------------------------------------ mean velocity


@spec("S.11")
@given(pictures(1, (3, 2)), st.floats(0.3, 0.95), st.floats(0.0, 0.9))
def test_the_mean_velocity_of_an_exact_flow_is_its_own_target(xs, t, share):
    """u = (x_t - x_s)/(t - s); its derivative along the trajectory is taken by differences that know their error."""
    law, s = Gaussian(0.3, 0.25, path=STRAIGHT), t * share
    at = STRAIGHT.level(t)
    x_t = xs[0]
    u = lambda tau: (law.flow(x_t, at, STRAIGHT.level(tau)) - law.flow(x_t, at, STRAIGHT.level(s))) / (tau - s)
    du = slope(lambda h: u(t + (t - s) * h)).value / (t - s)
    one = np.ones(3)
    agree(mean_velocity(oracle(law, x_t, t), du, t * one, s * one), u(t), bound=1e-7, of="S.11")


@spec("S.11")
@given(pictures(2))
def test_over_no_span_the_mean_velocity_is_the_velocity(xs):
    v, du = xs
    assert np.array_equal(mean_velocity(v, du, np.full(2, 0.4), np.full(2, 0.4)), v)


@spec("S.12")
@pytest.mark.parametrize("law", [Gaussian(0.3, 0.25, path=STRAIGHT), RING], ids=["a Gaussian", "a mixture"])
def test_two_answers_on_the_tangent_give_the_derivative_with_an_error_of_second_order(law):
    """A field u(x, τ) = v(x, τ): its derivative along its own trajectory, compared on ever shorter tangents."""
    x, t = np.array([[0.3, -0.6], [0.9, 0.2], [-0.4, 0.1]]), np.full(3, 0.6)
    v, slopes = oracle(law, x, 0.6), []
    for delta in (0.08, 0.04, 0.02, 0.01, 0.005):
        low, high = bracket(t, delta)
        below, above = (oracle(law, x + (tau - t)[:, None] * v, tau[0]) for tau in (low, high))
        slopes.append(difference(above, below, high - low))
    falls = [np.abs(a - b).max() for a, b in itertools.pairwise(slopes)]
    assert abs(np.log2(falls[-2] / falls[-1]) - 2) < 0.1, falls


@spec("S.12")
def test_at_the_ends_of_the_path_the_difference_is_one_sided():
    low, high = bracket(np.array([0.0, 0.004, 0.5, 0.997, 1.0]), 0.01)
    agree(low, [0, 0, 0.49, 0.987, 0.99], bound=1e-12, of="S.12")
    agree(high, [0.01, 0.014, 0.51, 1.0, 1.0], bound=1e-12, of="S.12")
    agree(difference(np.array([[3.0]]), np.array([[1.0]]), np.array([0.5])), [[4.0]], bound=0, of="S.12")
