"""Chapter D, thresholding: x̂_0 stays a picture, and ε̂ follows it or does not."""

import numpy as np
from diffusion.draws import pictures, steps
from hypothesis import given
from hypothesis import strategies as st
from support import agree, host, spec

from minidit.diffusion.ddpm import posterior, q_sample
from minidit.diffusion.prediction import EPS
from minidit.diffusion.step import step
from minidit.diffusion.threshold import dynamic, kept, rederived, static
from minidit.diffusion.variance import small


@spec("D.31", "D.32")
def test_five_pixels_by_hand():
    x = np.array([[-4.0, -0.5, 0.0, 0.5, 2.0]])
    agree(static(x), [[-1, -0.5, 0, 0.5, 1]], bound=0, of="D.31")
    agree(dynamic(x, p=0.75), [[-1, -0.25, 0, 0.25, 1]], bound=1e-15, of="D.32")  # the 75 % quantile of |x| is 2


@spec("D.32")
@given(pictures(1, (3, 2, 4, 4)), st.floats(0.1, 6))
def test_dynamic_thresholding_acts_on_each_sample_alone(xp, xs, size):
    x = xp.asarray(xs[0]) * xp.asarray([0.1, 1.0, size])[:, None, None, None]
    out = dynamic(x)
    assert np.abs(host(out)).max() <= 1
    for i in range(3):
        agree(out[i], dynamic(x[i : i + 1])[0], bound=1e-15, of="D.32")
    agree(out[0], static(x)[0], bound=0, of="D.32")  # a picture inside the range is not touched
    agree(dynamic(x, most=1.0), static(x), bound=0, of="D.32")


@spec("D.33")
@given(steps(), pictures(2))
def test_a_rederived_pair_still_explains_the_picture_and_a_kept_one_does_not(ladder, xs):
    (sch, t, s), (x_t, eps_hat) = ladder, xs
    at = sch.level(t)
    x_0_hat, _ = EPS.pair(eps_hat, x_t, at)
    x_0, eps = rederived(x_0_hat, x_t, at)
    agree(q_sample(x_0, t, eps, sch), x_t, bound=1e-10, of="D.33")
    mean, _ = posterior(x_t, x_0, t, s, sch)  # OpenAI's clipped posterior mean
    agree(step(x_0, eps, sch.level(s), c=small(t, s, sch) ** 0.5), mean, bound=1e-10, of="D.33")
    x_0_kept, eps_kept = kept(x_0_hat, eps_hat)
    agree(x_0_kept, x_0, bound=0, of="D.33")
    assert eps_kept is eps_hat


@spec("D.33")
@given(steps(), pictures(2))
def test_without_clipping_nothing_changes(ladder, xs):
    (sch, t, _), (x_0, eps) = ladder, xs
    x_0 = np.tanh(x_0)
    _, again = rederived(x_0, q_sample(x_0, t, eps, sch), sch.level(t))
    agree(again, eps, bound=1e-10, of="D.33")
