"""Continuous time and the U-Net: every mistake is seen and named; directions and units are dialects."""

import numpy as np
import pytest
from verify.test_bank import bench

import minidit as md
from minidit.verify.bank import DEVIATIONS
from minidit.verify.bank.dialects import DIALECTS
from minidit.verify.core.reference import Reference
from minidit.verify.topics import TOPICS

GROUPS = ("paths", "times", "flows", "consistency", "unet")
TRAPS = {  # what implementations were seen to do, and where it has to show
    "M101": "straight_sample", "M102": "straight_velocity", "M102b": "flow_euler_step", "M103": "straight_embedding",
    "M103b": "straight_embedding", "M103c": "straight_time", "M104": "shifted_grid", "M104b": "shifted_grid",
    "M105": "logit_normal_weight", "M106": "consistency_scalings", "M107": "consistency_end", "M108": "consistency_end",
    "M109": "consistency_inputs", "M110": "consistency_sample", "M111": "target_decay", "M112": "pseudo_huber",
    "M113": "ict_probabilities", "M114": "training_pair", "M119": "edm_scalings", "M120": "mode_times", "M121": "shift_time",
    "M122": "straight_climb", "M123": "coupled_batch", "C17": "consistency_grid", "M125": "unet_time_embedding",
    "M126": "group_norm", "M127": "unet_block", "M128": "group_norm", "M129": "unet_stage",
}  # fmt: skip


def target(*ids):
    R = Reference(DEVIATIONS[i] for i in ids)
    return {t.name: t.by(R) for t in bench("continuous").topics}


@pytest.mark.parametrize("identifier", TRAPS)
def test_each_trap_of_continuous_time_shows_where_it_belongs(identifier):
    assert TRAPS[identifier] in bench("continuous").row((DEVIATIONS[identifier],)).detected


@pytest.mark.parametrize("name", ["torchcfm", "sit"])
@pytest.mark.parametrize("identifier", ["M101", "M102", "M102b"])
def test_a_path_that_runs_the_other_way_is_a_dialect_and_one_more_sign_is_a_mistake(name, identifier):
    report = md.verify.check(target(*DIALECTS[name].habits, identifier), dialect=name)
    assert report.mistakes == [identifier]


def column(t):
    return np.asarray(t).reshape(-1, 1, 1)


WRITTEN = {  # as these projects write it
    "torchcfm": {
        "straight_sample": lambda x_0, eps, t: column(t) * x_0 + (1 - column(t)) * eps,
        "straight_velocity": lambda x_0, eps: x_0 - eps,
        "straight_time": lambda t: t, "linear_grid": lambda n: np.linspace(0, 1, n + 1),
    },
    "sit": {
        "straight_sample": lambda x_0, eps, t: column(t) * x_0 + (1 - column(t)) * eps,
        "straight_velocity": lambda x_0, eps: x_0 - eps,
        "straight_time": lambda t: t, "linear_grid": lambda n: np.linspace(0, 1, n),
    },
    "edm": {
        "consistency_inputs": lambda x, t, d: (x / np.sqrt(column(t) ** 2 + d**2), np.log(t) / 4),
        "consistency_grid": lambda N, low, high, rho: (
            high ** (1 / rho) + np.arange(N) / (N - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho,
    },
    "consistency_models": {
        "target_decay": lambda k, K, s_0, s_1, mu: mu ** (s_0 / np.ceil(np.sqrt(k / K * ((s_1 + 1) ** 2 - s_0**2) + s_0**2) - 1)),
        "edm_scalings": lambda s, d: (
            d**2 / (s**2 + d**2), s * d / np.sqrt(s**2 + d**2), 1 / np.sqrt(s**2 + d**2), 1000 * 0.25 * np.log(s)),
    },
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_what_a_project_writes_is_right_in_its_dialect_and_known_by_it(name):
    assert md.verify.check(WRITTEN[name], dialect=name).ok
    assert name in md.verify.check(WRITTEN[name]).fits


def test_the_reversed_path_asks_no_other_step():
    """x + (s-t) u holds in both directions: only what names an end of the path differs."""
    R = Reference((DEVIATIONS["C10"],))
    differing = {t.name for t in TOPICS.values() if t.group in GROUPS and not md.verify.check({t.name: t.by(R)}).ok}
    assert differing == {
        "straight_sample", "straight_velocity", "pair_from_velocity", "velocity_from_x_0", "score_from_velocity", "to_straight",
        "shift_time", "linear_grid", "shifted_grid", "flow_euler", "flow_heun", "flow_ab2", "flow_loss",
        "denoised_flow_loss",
    }  # fmt: skip


def test_a_mistake_in_one_step_of_a_sampler_is_told_by_its_coefficients():
    report = md.verify.check({"flow_euler": TOPICS["flow_euler"].by(Reference((DEVIATIONS["X141"],)))})
    (finding,) = report.findings
    assert "step 1" in finding.layer and [d.id for (d,) in finding.candidates] == ["X141"]


FRESH = {  # in no bank: (what is wrong, topic, function)
    "signal squared": ("straight_sample", lambda x_0, eps, t: (1 - column(t)) ** 2 * x_0 + column(t) * eps),
    "velocity of half the noise": ("straight_velocity", lambda x_0, eps: eps / 2 - x_0),
    "one end of the pair twice": ("pair_from_velocity", lambda x, u, t: (x - column(t) * u, x - column(t) * u)),
    "sigma for its square": ("edm_weight", lambda sigma, d: (sigma + d) / (sigma * d) ** 2),
    "another root": ("edm_denoised", lambda F, x, s, d: x / (1 + column(s) / d) + F * column(s) * d / (column(s) + d)),
    "one too many": ("shift_time", lambda t, a: a * t / (1 + a * t)),
    "a pixel's side": ("resolution_shift", lambda m, n: (m / n) ** 0.25),
    "twice as fine": ("linear_grid", lambda n: np.linspace(1, 0, 2 * n + 1)),
    "three parts to one": ("flow_heun_step", lambda x, u, v, t, s: x + (s - t) * (3 * u + v) / 4),
    "noise of the whole": ("straight_climb", lambda x, z, s, t: (1 - t) / (1 - s) * x + t * z),
    "data for noise": ("consistency_scalings", lambda t, end, d: (d / ((t - end) + d), (t - end) * d / (t + d))),
    "c twice": ("pseudo_huber", lambda x, y, c: np.sqrt(((x - y) ** 2).sum(axis=(1, 2)) + c**2) - 2 * c),
    "half the levels": ("training_levels", lambda k, K, s_0, s_1: s_0 + (s_1 - s_0) * k // K),
    "a third curve": ("target_decay", lambda k, K, s_0, s_1, mu: mu ** (1 + k / K)),
    "no bias": ("unet_double", lambda x, w, b: TOPICS["unet_double"](Reference(), x, w, 0 * b)),
}


@pytest.mark.parametrize("what", FRESH)
def test_a_mistake_of_no_bank_is_seen_and_nothing_is_blamed(what):
    topic, function = FRESH[what]
    (finding,) = md.verify.check({topic: function}).findings
    assert not finding.passed and finding.verdict == "unknown" and not finding.candidates
