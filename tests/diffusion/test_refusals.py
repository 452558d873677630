"""What the laws refuse, in one clear line each, with the numbers that were wrong."""

import dataclasses

import numpy as np
import pytest
from diffusion.draws import LINEAR

from minidit.diffusion import rungs
from minidit.diffusion.ddim import ddim_invert_step, ddim_step
from minidit.diffusion.ddpm import core_formula, ddpm_step, posterior, q_climb, q_sample
from minidit.diffusion.exact import Gaussian, Mixture, Oracle
from minidit.diffusion.guidance import guide
from minidit.diffusion.level import check_shapes, enter
from minidit.diffusion.loss import per_sample
from minidit.diffusion.prediction import EPS, eps_of_score, predict_eps, predict_score, predict_v, predict_x_0
from minidit.diffusion.schedule import Schedule, check_rungs, zero_terminal_snr

x, wide = np.zeros((2, 3)), np.zeros((2, 4))
TWO = np.array([1.0, 2.0])

REFUSED = [
    (lambda: Schedule.from_betas([[0.1]]), "betas must be a vector; got shape (1, 1)"),
    (lambda: Schedule.from_betas([]), "betas must be a vector; got shape (0,)"),
    (lambda: Schedule.from_betas([0.1, 0.2, 1.5]), "betas must lie in (0, 1), only the last may be 1; got β_3 = 1.5"),
    (lambda: Schedule.from_betas([1.0, 0.5]), "betas must lie in (0, 1), only the last may be 1; got β_1 = 1.0"),
    (lambda: Schedule.from_betas([0.5, 0.0]), "betas must lie in (0, 1), only the last may be 1; got β_2 = 0.0"),
    (lambda: Schedule.linear(20), "T = 20 is too short: β_T = 0.02 · 1000/T = 1 must stay below 1 (use cosine)"),
    (lambda: Schedule.linear(8), "T = 8 is too short: β_T = 0.02 · 1000/T = 2.5 must stay below 1 (use cosine)"),
    (lambda: LINEAR.respace([]), "rungs to keep must lie in 1..1000; got [] to []"),
    (lambda: LINEAR.respace([7, 0, 3]), "rungs to keep must lie in 1..1000; got [0] to [7]"),
    (lambda: LINEAR.respace([1001, 5]), "rungs to keep must lie in 1..1000; got [5] to [1001]"),
    (lambda: check_rungs(3, 3, 10), "rungs must satisfy 0 ≤ s < t ≤ T = 10; got t = 3, s = 3"),
    (lambda: check_rungs(11, 3, 10), "rungs must satisfy 0 ≤ s < t ≤ T = 10; got t = 11, s = 3"),
    (lambda: check_rungs(3, -1, 10), "rungs must satisfy 0 ≤ s < t ≤ T = 10; got t = 3, s = -1"),
    (lambda: check_rungs([3, 4], 0, 10), "a rung is an int or an array of ints, one per sample; got [3, 4]"),
    (lambda: check_rungs(3, (1,), 10), "a rung is an int or an array of ints, one per sample; got (1,)"),
    (
        lambda: check_rungs(np.array([3, 4, 5]), 0, 10, batch=x),
        "one rung for each sample: t has shape (3,), the batch (2, 3)",
    ),
    (lambda: check_shapes(a=x, b=wide), "shapes must agree: {'a': (2, 3), 'b': (2, 4)}"),
    (lambda: check_shapes(a=x, b=None), "shapes must agree: {'a': (2, 3), 'b': None}"),
    (lambda: predict_x_0(x, x, 5, zero_terminal_snr(Schedule.linear(21)).respace([1, 2, 3, 4, 21])),
     "ᾱ_5 = 0: ε does not determine x_0 there; let the network predict v or x_0"),
    (lambda: ddim_step(x, x, 3, 2, LINEAR, eta=-0.5, z=x), "η = -0.5 asks for variance 2.14e-05 at rung 2, which has 0.00022"),
    (lambda: ddim_step(x, x, 900, 300, LINEAR, eta=1.5, z=x),
     "η = 1.5 asks for variance 1.36 at rung 300, which has 0.604"),
    (lambda: zero_terminal_snr(Schedule.from_betas([0.5])), "a ladder of one rung cannot keep ᾱ_1 and reach ᾱ_T = 0"),
    (lambda: rungs.leading(10, 0), "the number of steps must lie in 1..T = 10; got 0"),
    (lambda: rungs.leading(10, 11), "the number of steps must lie in 1..T = 10; got 11"),
    (lambda: rungs.leading(10, 3, 4), "leading spacing with offset 4 leaves the ladder: rungs 5 to 11, T = 10"),
    (lambda: rungs.leading(10, 3, -1), "leading spacing with offset -1 leaves the ladder: rungs 0 to 6, T = 10"),
    (lambda: rungs.sections(10, [3, 6]), "cannot take 6 rungs from a section of 5"),
    (lambda: rungs.sections(10, [3, 0]), "cannot take 0 rungs from a section of 5"),
    (lambda: rungs.stride(10, 6), "no integer stride takes exactly 6 of 10 rungs"),
    (lambda: rungs.pairs([3, 0]), "rungs must be distinct and at least 1; got [3, 0]"),
    (lambda: rungs.pairs([2, 3, 3]), "rungs must be distinct and at least 1; got [3, 3, 2]"),
]  # fmt: skip


@pytest.mark.parametrize("call, words", REFUSED)
def test_a_refusal_names_what_was_wrong(call, words):
    with pytest.raises(ValueError) as caught:
        call()
    assert str(caught.value) == words


@pytest.mark.parametrize("law", [
    lambda a, b: q_sample(a, 5, b, LINEAR), lambda a, b: q_climb(a, 3, 5, b, LINEAR), lambda a, b: posterior(a, b, 5, 3, LINEAR),
    lambda a, b: core_formula(a, b, 5, 3, LINEAR, sigma=0.0, z=a), lambda a, b: core_formula(a, a, 5, 3, LINEAR, sigma=0.0, z=b),
    lambda a, b: ddpm_step(a, b, 5, 3, LINEAR, z=a), lambda a, b: ddpm_step(a, a, 5, 3, LINEAR, z=b),
    lambda a, b: ddim_step(a, b, 5, 3, LINEAR), lambda a, b: ddim_step(a, a, 5, 3, LINEAR, eta=0.5, z=b),
    lambda a, b: ddim_invert_step(a, b, 3, 5, LINEAR), lambda a, b: predict_x_0(a, b, 5, LINEAR),
    lambda a, b: predict_eps(a, b, 5, LINEAR), lambda a, b: predict_v(a, b, 5, LINEAR), lambda a, b: guide(a, b, 2.0), per_sample,
])  # fmt: skip
def test_every_law_of_two_pictures_wants_one_shape(law):
    law(x, x)
    with pytest.raises(ValueError, match=r"shapes must agree: .*\(2, 3\).*\(2, 1\)"):
        law(x, np.zeros((2, 1)))


@pytest.mark.parametrize("law", [
    lambda t: q_sample(x, t, x, LINEAR), lambda t: q_climb(x, 0, t, x, LINEAR), lambda t: posterior(x, x, t, 0, LINEAR),
    lambda t: core_formula(x, x, t, 0, LINEAR, sigma=0.0, z=x), lambda t: ddpm_step(x, x, t, 0, LINEAR, z=x),
    lambda t: ddim_step(x, x, t, 0, LINEAR), lambda t: ddim_invert_step(x, x, 0, t, LINEAR),
    lambda t: predict_x_0(x, x, t, LINEAR), lambda t: predict_eps(x, x, t, LINEAR), lambda t: predict_v(x, x, t, LINEAR),
    lambda t: predict_score(x, t, LINEAR), lambda t: eps_of_score(x, t, LINEAR),
])  # fmt: skip
def test_every_law_at_a_rung_takes_the_first_and_the_last_and_none_outside(law):
    law(1), law(1000), law(np.array([1, 1000]))
    for t in (0, -1, 1001, np.array([1, 1001]), np.array([0, 1])):
        with pytest.raises(ValueError, match="rungs must satisfy 0 ≤ s < t ≤ T = 1000"):
            law(t)
    with pytest.raises(ValueError, match="one rung for each sample"):
        law(np.array([1, 2, 3]))


def test_a_network_of_no_kind_has_no_guess():
    with pytest.raises(NotImplementedError):
        Oracle(path=LINEAR)(x, 5)


def test_ladders_predictions_and_perfect_networks_are_what_they_are_and_equal_themselves_only():
    """Frozen: a table that everybody shares cannot be exchanged. Compared by identity: arrays have no truth value."""
    for thing, name in ((LINEAR, "alpha_bar"), (EPS, "name"), (Gaussian(0.0, 1.0, path=LINEAR), "mean"),
                        (Mixture.of_points(x, path=LINEAR), "means"), (Oracle(path=LINEAR), "path")):  # fmt: skip
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(thing, name, None)
        assert len({thing, thing}) == 1
    for make in (lambda: Schedule.linear(30), lambda: Gaussian(x, TWO, path=LINEAR), lambda: Mixture.of_points(x, path=LINEAR),
                 lambda: Oracle(path=LINEAR)):  # fmt: skip
        assert make() != make()


def test_no_coefficients_come_back_as_none_and_one_comes_back_alone():
    assert enter(like=x) == () and enter(0.5, like=x) == 0.5 and enter(0.5, 1.5, like=x) == (0.5, 1.5)


def test_the_last_step_needs_no_noise_whatever_eta_and_variance_say():
    one = np.ones((2, 3))
    for step in (lambda **k: ddim_step(one, x, 2, 0, LINEAR, eta=1.0, **k), lambda **k: ddpm_step(one, x, 2, 0, LINEAR, **k)):
        assert np.array_equal(step(z=None), step(z=5 * one))
