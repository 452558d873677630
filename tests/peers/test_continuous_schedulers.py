"""diffusers' schedulers for flows, EDM and consistency models over their options: what is right is right, the rest has a name."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="PyTorch is not installed (pip install 'minidit[peers]')")
diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (pip install 'minidit[peers]')")

from minidit import verify  # noqa: E402
from minidit.verify.borders.continuous import Continuous  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")  # theirs, not ours

FLOWS = {"shift": st.sampled_from([1.0, 3.0, 0.5])}
EDM = {
    "sigma_data": st.floats(0.1, 1.0), "sigma_min": st.floats(0.001, 0.01), "sigma_max": st.floats(20.0, 90.0),
    "rho": st.floats(3.0, 8.0), "prediction_type": st.sampled_from(["epsilon", "v_prediction"]),
    "final_sigmas_type": st.sampled_from(["zero", "sigma_min"]),
}  # fmt: skip
CONSISTENCY = {"sigma_data": st.floats(0.1, 1.0), "clip_denoised": st.booleans()}
KINDS = [
    ("FlowMatchEulerDiscreteScheduler", FLOWS, {"C13", "C21", "M104", "M104b"}),
    ("FlowMatchHeunDiscreteScheduler", FLOWS, {"C13", "M104", "M104b", "M122"}),
    ("EDMEulerScheduler", EDM, {"C12", "X177"}),
    ("CMStochasticIterativeScheduler", CONSISTENCY, {"C17", "M108"}),
]


@pytest.mark.parametrize(("kind", "options", "known"), KINDS, ids=[k for k, *_ in KINDS])
def test_every_disagreement_has_a_name_that_the_page_of_findings_knows(kind, options, known):
    @settings(max_examples=5)
    @given(st.fixed_dictionaries(options))
    def check(drawn):
        report = verify.check(verify.diffusers.scheduler(getattr(diffusers, kind)(**drawn)))
        assert set(report.mistakes) <= known, f"{drawn}\n{report}"
        assert all(f.passed or f.candidates for f in report.findings), f"{drawn}\n{report}"

    check()


@pytest.mark.parametrize(
    ("kind", "options", "mistake"),
    [
        ("FlowMatchEulerDiscreteScheduler", {}, "M104b"),
        ("FlowMatchHeunDiscreteScheduler", {}, "M104b"),
        ("FlowMatchHeunDiscreteScheduler", {}, "M122"),
        ("EDMEulerScheduler", {"final_sigmas_type": "sigma_min"}, "X177"),
    ],
)
def test_an_error_of_the_released_version_is_named(kind, options, mistake):
    """If one of these fails, a new version has corrected it: the page of findings says until when it was there."""
    report = verify.check(verify.diffusers.scheduler(getattr(diffusers, kind)(**options)), dialect="diffusers")
    assert mistake in report.mistakes


@pytest.mark.parametrize(
    ("kind", "topics"),
    [
        ("FlowMatchEulerDiscreteScheduler", ["straight_sample", "straight_time", "shift_time", "flow_euler_step"]),
        ("FlowMatchHeunDiscreteScheduler", ["straight_sample", "straight_time", "flow_heun_step"]),
        ("EDMEulerScheduler", ["edm_scalings", "edm_denoised", "edm_grid", "edm_euler_step", "edm_churn"]),
        (
            "CMStochasticIterativeScheduler",
            [f"consistency_{name}" for name in ("scalings", "inputs", "step", "sample")],
        ),
    ],
)
def test_what_is_right_is_right(kind, topics):
    report = verify.check(verify.diffusers.scheduler(getattr(diffusers, kind)()), topics=topics)
    assert report.ok, str(report)


def test_its_own_grid_is_right_by_its_own_conventions():
    target = verify.diffusers.scheduler(diffusers.FlowMatchEulerDiscreteScheduler())
    assert verify.check(target, topics=["linear_grid"], dialect="diffusers").ok
    assert not verify.check(target, topics=["linear_grid"]).ok


def test_a_walk_down_levels_of_the_user_is_right():
    made = Continuous(diffusers.FlowMatchEulerDiscreteScheduler())
    report = verify.check({"flow_euler": lambda net, x, N, a: made.walk(net, x, N, a, own_grid=False)})
    assert report.ok, str(report)


def test_in_its_dialect_the_whole_version_differs_by_what_the_page_of_findings_says_only():
    groups = ("paths", "times", "flows", "consistency")
    target = {k: f for k, f in verify.diffusers.target().items() if verify.TOPICS[k].group in groups}
    report = verify.check(target, dialect="diffusers")
    assert set(report.mistakes) == {"M104b", "M120", "M122"} and all(f.passed or f.candidates for f in report.findings)


def test_the_lowest_time_is_the_one_that_is_shifted_twice():
    """shift = 3: 0.001 becomes 0.00299 in the constructor, and 0.00893 when the grid is made."""
    made = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    made.set_timesteps(4)
    once = 3 * 0.001 / (1 + 2 * 0.001)
    np.testing.assert_allclose(float(made.sigmas[-2]), 3 * once / (1 + 2 * once), rtol=1e-5)


def test_the_blocks_of_its_u_net_are_ddpm_s_with_ddpm_s_options_and_a_dit_s_otherwise():
    from minidit.verify.borders.unet import blocks

    as_in_ddpm = {"norm_eps": 1e-6, "flip_sin_to_cos": False, "freq_shift": 1, "downsample_padding": 0}
    assert verify.check(blocks(diffusers.UNet2DModel, **as_in_ddpm)).ok
    report = verify.check(blocks(diffusers.UNet2DModel))
    assert set(report.mistakes) == {"M91", "M125", "M127"} and all(f.passed or f.candidates for f in report.findings)
