"""Chapter D, the ladder: what the tables hold, and that respacing changes no level."""

import mpmath
import numpy as np
import pytest
from diffusion.draws import LINEAR, ladders, pictures, rungs_of_batch, subsets
from hypothesis import given
from hypothesis import strategies as st
from support import agree, spec

from minidit.diffusion import rungs as spacing
from minidit.diffusion.ddpm import q_sample
from minidit.diffusion.level import at, enter
from minidit.diffusion.prediction import V
from minidit.diffusion.schedule import Schedule, zero_terminal_snr
from minidit.diffusion.step import posterior_coefficients
from minidit.diffusion.variance import log_small


@spec("D.2")
def test_three_betas_by_hand():
    sch = Schedule.from_betas([0.1, 0.2, 0.5])
    agree(sch.alpha_bar, [1, 0.9, 0.72, 0.36], bound=1e-15, of="D.2")
    agree(sch.beta, [0, 0.1, 0.2, 0.5], bound=1e-15, of="D.2")
    assert sch.time.tolist() == [-1, 0, 1, 2] and sch.T == 3


@spec("D.12")
def test_the_linear_ladder_has_its_published_numbers():
    assert LINEAR.alpha_bar[0] == 1.0 and LINEAR.alpha_bar.dtype == np.float64 and LINEAR.alpha_bar.shape == (1001,)
    agree(LINEAR.alpha_bar[[1, 500, 1000]], [0.9999, 0.07858724288177824, 4.035829765375676e-05], bound=1e-14, of="D.12")
    agree(LINEAR.alpha_bar[1000] ** 0.5 / 0.00635282, 1.0, bound=1e-6)
    agree(LINEAR.beta[[1, 1000]], [1e-4, 0.02], bound=1e-14, of="D.12")
    agree(LINEAR.alpha_bar[1000] / 4.035829765375676e-05, 1.0, bound=1e-10, of="D.12")  # relative: the value is small


@spec("D.13")
def test_the_scaled_linear_ladder_leaves_seven_percent_of_the_signal():
    a_T = Schedule.scaled_linear().alpha_bar[-1]
    agree([a_T, a_T**0.5, a_T / (1 - a_T)], [0.0046600985, 0.0682649, 0.00468192], bound=1e-7)


@spec("D.14")
def test_the_cosine_ladder_has_its_published_numbers_and_one_capped_beta():
    sch = Schedule.cosine(1000)
    agree(sch.beta[1] / 4.128422482196914e-05, 1.0, bound=1e-10, of="D.14")
    agree(sch.beta[[999, 1000]], [0.7499993929, 0.999], bound=1e-10, of="D.14")
    agree(sch.alpha_bar[[999, 1000]] / [2.4288e-06, 2.4288e-09], [1.0, 1.0], bound=1e-4)
    assert np.sum(sch.beta > 0.99899) == 1


@spec("D.14")
@given(st.integers(1, 400))
def test_the_cosine_ladder_is_f_until_the_cap(T):
    f = np.cos((np.arange(T + 1) / T + 0.008) / 1.008 * np.pi / 2) ** 2
    capped = 1 - f[1:] / f[:-1] > 0.999
    end = int(np.argmax(capped)) if capped.any() else T
    agree(Schedule.cosine(T).alpha_bar[: end + 1], f[: end + 1] / f[0], bound=1e-12, of="D.14")


@spec("D.12", "D.13")
@given(st.integers(21, 3000))
def test_both_ends_scale_with_the_length_of_the_ladder(T):
    for sch, low, high in ((Schedule.linear(T), 0.1, 20.0), (Schedule.scaled_linear(T), 0.85, 12.0)):
        agree(sch.beta[[1, T]], [low / T, high / T], bound=1e-12, of=("D.12", "D.13"))
        assert np.all(np.diff(sch.alpha_bar) < 0)


def test_a_ladder_too_short_for_linear_is_refused():
    Schedule.linear(21)
    for T in (1, 5, 20):
        with pytest.raises(ValueError, match=f"T = {T} "):
            Schedule.linear(T)
    with pytest.raises(ValueError, match="T = 12 "):
        Schedule.scaled_linear(12)


@pytest.mark.parametrize("bad", [[], [[0.1]], [0.1, 0.0], [0.1, 1.5], [1.0, 0.5], [0.1, float("nan")], [-0.1]])
def test_betas_outside_the_unit_interval_are_refused(bad):
    with pytest.raises(ValueError, match="betas must"):
        Schedule.from_betas(bad)


@spec("D.2", "D.21")
def test_float64_tables_lose_nothing_that_matters_to_cancellation():
    """1 - ᾱ and ln β̃ at small t, against 50 digits."""
    with mpmath.workdps(50):
        betas = [mpmath.mpf(float(b)) for b in np.linspace(1e-4, 0.02, 1000)]
        a = [mpmath.mpf(1)]
        for b in betas:
            a.append(a[-1] * (1 - b))
        for t in (2, 3, 10, 500, 1000):
            agree(float((1 - mpmath.mpf(float(LINEAR.alpha_bar[t]))) / (1 - a[t])), 1.0, bound=1e-11, of="D.2")
            small = betas[t - 1] * (1 - a[t - 1]) / (1 - a[t])
            agree(log_small(t, t - 1, LINEAR) / float(mpmath.log(small)), 1.0, bound=1e-11, of="D.21")


@spec("D.15")
@given(st.data(), ladders())
def test_respacing_keeps_the_levels_and_the_times_and_composes(data, sch):
    kept = data.draw(subsets(sch.T))
    once = sch.respace(kept)
    assert np.array_equal(once.alpha_bar[1:], sch.alpha_bar[kept]) and once.alpha_bar[0] == 1
    assert np.array_equal(once.time[1:], sch.time[kept])
    again = data.draw(subsets(once.T))
    twice, direct = once.respace(again), sch.respace([kept[r - 1] for r in again])
    assert np.array_equal(twice.alpha_bar, direct.alpha_bar) and np.array_equal(twice.time, direct.time)


@spec("D.15")
@given(ladders())
def test_respacing_to_all_rungs_is_the_identity(sch):
    same = sch.respace(range(1, sch.T + 1))
    agree(same.beta, sch.beta, bound=1e-15, of="D.15")
    assert np.array_equal(same.time, sch.time)


@spec("D.15")
@given(st.data(), ladders())
def test_respaced_betas_rebuild_the_kept_levels(data, sch):
    short = sch.respace(data.draw(subsets(sch.T)))
    agree(Schedule.from_betas(short.beta[1:]).alpha_bar, short.alpha_bar, bound=1e-12, of="D.15")


@spec("D.15")
@given(st.data(), ladders())
def test_a_time_finds_its_rung_again(data, sch):
    short = sch.respace(data.draw(subsets(sch.T)))
    t = np.arange(1, short.T + 1)
    assert np.array_equal(short.rung(short.time[t]), t)
    assert [short.rung(int(short.time[r])) for r in t] == t.tolist()


@pytest.mark.parametrize("bad", [[], [0, 3], [1001]])
def test_rungs_off_the_ladder_cannot_be_kept(bad):
    with pytest.raises(ValueError, match="rungs to keep"):
        LINEAR.respace(bad)


def test_tables_cannot_be_written():
    for sch in (LINEAR, Schedule.cosine(30), LINEAR.respace([3, 9]), Schedule(np.array([1.0, 0.5]), np.array([-1, 0]))):
        for table in (sch.alpha_bar, sch.time):
            with pytest.raises(ValueError, match="read-only"):
                table[0] = 2


def test_the_door_knows_a_number_a_row_of_numbers_and_a_full_array():
    x = np.zeros((2, 3, 4, 4), np.float32)
    assert type(at(LINEAR.alpha_bar, 3)) is float and type(enter(np.float32(0.5), like=x)) is float
    assert at(LINEAR.alpha_bar, np.array([3, 5])).dtype == np.float64  # exact, for the arithmetic between coefficients
    for shape, column in (((), (1, 1, 1, 1)), ((2,), (2, 1, 1, 1)), ((4, 4), (4, 4)), ((2, 1, 1, 1), (2, 1, 1, 1))):
        assert enter(np.ones(shape), like=x).shape == column and enter(np.ones(shape), like=x).dtype == np.float32


@given(st.data(), ladders(), pictures(1, (3, 1, 2, 2)))
def test_the_door_gives_a_float_or_a_column_in_the_pictures_precision(data, sch, xs):
    t = data.draw(rungs_of_batch(sch, 3, low=0))
    for dtype in (np.float32, np.float64):
        x = xs[0].astype(dtype)
        column = at(sch.alpha_bar, t, like=x)
        assert column.shape == (3, 1, 1, 1) and column.dtype == dtype and (column * x).dtype == dtype
        agree(column[:, 0, 0, 0], sch.alpha_bar[t], bound=6e-8)
        one = at(sch.alpha_bar, int(t[0]), like=x)
        assert type(one) is float and (one * x).dtype == dtype
        assert type(enter(np.float64(0.5), like=x)) is float
        assert enter(np.ones((3, 1, 2, 2)), like=x).shape == (3, 1, 2, 2)


@spec("D.16")
@given(st.integers(21, 100))
def test_zero_terminal_snr_keeps_the_first_level_and_empties_the_last(T):
    sch = Schedule.scaled_linear(T)
    zero = zero_terminal_snr(sch)
    assert zero.alpha_bar[-1] == 0 and zero.beta[-1] == 1 and zero.alpha_bar[0] == 1
    agree(zero.alpha_bar[1], sch.alpha_bar[1], bound=1e-15, of="D.16")
    assert np.all(np.diff(zero.alpha_bar) < 0)
    r, z = sch.alpha_bar[1:] ** 0.5, zero.alpha_bar[1:] ** 0.5  # the map is affine: it keeps ratios of distances
    agree((z - z[-1]) / (z[0] - z[-1]), (r - r[-1]) / (r[0] - r[-1]), bound=1e-12, of="D.16")
    agree(Schedule.from_betas(zero.beta[1:]).alpha_bar, zero.alpha_bar, bound=1e-12, of="D.16")


@spec("D.16", "D.10")
@given(pictures(2))
def test_at_zero_snr_the_picture_is_noise_and_v_is_minus_the_picture(xs):
    x_0, eps = xs
    sch = zero_terminal_snr(Schedule.scaled_linear())
    agree(q_sample(x_0, sch.T, eps, sch), eps, bound=1e-15, of="D.16")
    x_0_hat, eps_hat = V.pair(-x_0, eps, sch.level(sch.T))
    agree(x_0_hat, x_0, bound=1e-15, of="D.10")
    agree(eps_hat, eps, bound=1e-15, of="D.10")


def test_a_ladder_of_one_rung_cannot_reach_zero_snr():
    with pytest.raises(ValueError, match="one rung"):
        zero_terminal_snr(Schedule.from_betas([0.5]))


@spec("D.8")
def test_the_posterior_of_the_first_official_entry_by_hand():
    """β̃ of rung 2: -9.8167 is the number that posterior_log_variance_clipped repeats in its first entry."""
    _, _, small = posterior_coefficients(LINEAR.alpha_bar[2], LINEAR.alpha_bar[1])
    agree(small / 5.4531876613021935e-05, 1.0, bound=1e-10, of="D.8")
    agree([log_small(1, 0, LINEAR), log_small(2, 1, LINEAR)], [-9.81672513529567] * 2, bound=1e-11, of="D.21")


def test_the_vocabulary_names_each_step_in_four_dialects():
    rows = spacing.vocabulary(spacing.stride(1000, 50), LINEAR)
    first, last = rows[0], rows[-1]
    assert (first.t, first.s, first.time) == (981, 961, 980) and (last.t, last.s, last.time) == (1, 0, 0)
    assert first.diffusers == "timestep=980, prev_timestep=960" and last.diffusers == "timestep=0, prev_timestep=-1"
    assert first.openai == "t=49, timestep_map[49]=980"
    assert last.ldm == "index=0, ddim_timesteps[0]=0, alphas_prev=alphas_cumprod[0]"
    assert last.alpha_bar_s == 1 and first.alpha_bar_t == LINEAR.alpha_bar[981]


def test_a_ladder_from_its_signal_and_the_callers_array_stays_the_callers():
    alpha_bar = np.linspace(1, 0.1, 11)
    sch = Schedule.from_alpha_bar(alpha_bar)
    alpha_bar[0] = 7
    assert sch.T == 10 and sch.alpha_bar[0] == 1 and sch.time[1] == 0
    for bad in ([0.9, 0.5], [1, 0.5, 0.6], [1, 0.5, -0.1], [1.0], [[1, 0.5]], [1, 0.5, 0.5], []):
        with pytest.raises(ValueError, match="ᾱ must fall"):
            Schedule.from_alpha_bar(bad)
    with pytest.raises(ValueError, match=r"got \[1\. +0\.5 +0\.6\] … \[0\.1\]"):
        Schedule.from_alpha_bar([1, 0.5, 0.6, 0.1])
    with pytest.raises(ValueError, match="each"):
        Schedule(np.linspace(1, 0, 4), np.arange(3))
