"""The bound of a perfect model of Gaussian data is the closed form's, term by term."""

import math

import numpy as np
import pytest
from support import spec

from minidit.diffusion import gaussian
from minidit.diffusion.exact import Gaussian
from minidit.diffusion.prediction import EPS, X_0, V
from minidit.diffusion.schedule import Schedule
from minidit.diffusion.step import posterior_coefficients
from minidit.processes.bits import bits_per_dim
from minidit.processes.denoise import Denoiser
from minidit.random import Philox

MEAN, VARIANCE, T = 0.3, 0.25, 50


class Perfect:
    """An oracle where a network is expected."""

    device, dtype, second_half = "cpu", np.float64, False

    def __init__(self, oracle):
        self.oracle = oracle

    def __call__(self, x, t, y):
        return self.oracle(x, t, y)


def measured(prediction, n=400):
    sch = Schedule.linear(T)
    oracle = Gaussian(MEAN, VARIANCE, path=sch, prediction=prediction)
    x_0 = MEAN + math.sqrt(VARIANCE) * Philox(3).normal((n, 1, 4, 4), dtype=np.float64)
    return sch, bits_per_dim(Denoiser(Perfect(oracle), sch, prediction), sch, x_0, None, levels=None)


@spec("K.7", "K.8", "K.9")
@pytest.mark.parametrize("prediction", [EPS, X_0, V], ids=lambda p: p.name)
def test_a_perfect_model_pays_the_closed_forms_bits_term_by_term(prediction):
    sch, bounds = measured(prediction)
    a = sch.alpha_bar
    for law in ("small", "large"):
        bound = bounds[law]
        assert bound.terms.shape == (T, 400)
        prior = gaussian.prior_nats(sch.level(T), MEAN, VARIANCE) / math.log(2)
        assert abs(bound.prior.mean() - prior) < 5 * bound.prior.std() / 20 + 1e-9
        for t in range(2, T + 1):
            _, _, small = posterior_coefficients(a[t], a[t - 1])
            model = small if law == "small" else 1 - a[t] / a[t - 1]
            exact = gaussian.kl_nats(sch.level(t), sch.level(t - 1), VARIANCE, model) / math.log(2)
            term = bound.terms[t - 1]
            assert abs(term.mean() - exact) < 5 * term.std() / 20 + 1e-9, f"term {t}: {term.mean()} is not {exact}"
        assert np.allclose(bound.total, bound.prior + bound.terms.sum(axis=0))


def test_noise_of_a_picture_is_its_own():
    _, few = measured(EPS, n=2)
    _, many = measured(EPS, n=5)
    assert np.array_equal(few["small"].terms, many["small"].terms[:, :2])
