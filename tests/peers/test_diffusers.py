"""diffusers' schedulers over their whole option space: every disagreement with the equations has a name."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="PyTorch is not installed (pip install 'minidit[peers]')")
diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (pip install 'minidit[peers]')")

from minidit import verify  # noqa: E402
from minidit.cli import main  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")  # theirs, not ours

SHARED = {
    "beta_schedule": st.sampled_from(
        [("linear", 1e-4, 0.02), ("scaled_linear", 8.5e-4, 0.012), ("squaredcos_cap_v2", 1e-4, 0.02)]
    ),
    "prediction_type": st.sampled_from(["epsilon", "sample", "v_prediction"]),
    "timestep_spacing": st.sampled_from(["leading", "linspace", "trailing"]),
    "steps_offset": st.sampled_from([0, 1]),
    "clip_sample": st.booleans(),
    "clip_sample_range": st.sampled_from([1.0, 1.0, 2.5]),
    "dynamic_thresholding_ratio": st.sampled_from([0.995, 0.8]),
    "sample_max_value": st.sampled_from([1.0, 1.5]),
    "num_train_timesteps": st.sampled_from([1000, 100]),
    "thresholding": st.booleans(),
    "rescale_betas_zero_snr": st.booleans(),
}
VARIANCES = ["fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned", "learned_range"]
DDPM = {"variance_type": st.sampled_from(VARIANCES)}
DDIM = {"set_alpha_to_one": st.booleans()}
HABITS = set(verify.DIALECTS["diffusers"].habits) if "diffusers" in verify.DIALECTS else set()
ERRORS = {  # live in the released version
    "M04": "DDIM steps by T//N whatever its list of timesteps says",
    "M06": "leading spacing with an offset leaves the ladder where N divides T",
    "M18": "predicts ε where nothing of the picture is left",
    "M21b": "noise in the last step of a list that does not end at 0",
    "M24": "fixed_large_log takes the logarithm for the variance",
    "M25": "ln 1e-20 where the variance vanishes",
}


def options(own):
    def spread(drawn):
        schedule, start, end = drawn.pop("beta_schedule")
        return drawn | {"beta_schedule": schedule, "beta_start": start, "beta_end": end}

    return st.fixed_dictionaries(SHARED | own).map(spread)


def judged(kind, drawn, **asked):
    report = verify.check(verify.diffusers.scheduler(kind(**drawn), **asked))
    unnamed = [f.topic.name for f in report.findings if not f.passed and not f.candidates]
    assert not unnamed, f"{drawn} disagrees without a name in {unnamed}\n{report}"
    return report


@settings(max_examples=6)
@given(options(DDPM))
def test_every_disagreement_of_ddpm_has_a_name(drawn):
    judged(diffusers.DDPMScheduler, drawn)


@settings(max_examples=6)
@given(options(DDIM), st.booleans())
def test_every_disagreement_of_ddim_has_a_name(drawn, rederive):
    judged(diffusers.DDIMScheduler, drawn, use_clipped_model_output=rederive)


@pytest.mark.parametrize(
    ("kind", "drawn", "mistake"),
    [
        ("DDIMScheduler", {"timestep_spacing": "linspace"}, "M04"),
        ("DDIMScheduler", {"timestep_spacing": "trailing"}, "M04"),
        ("DDIMScheduler", {"set_alpha_to_one": False}, "M08c"),
        ("DDPMScheduler", {"steps_offset": 1}, "M06"),
        ("DDPMScheduler", {"variance_type": "fixed_large"}, "M21b"),
        ("DDPMScheduler", {"variance_type": "fixed_large_log"}, "M24"),
        ("DDPMScheduler", {"variance_type": "fixed_small_log"}, "M25"),
    ],
)
def test_an_error_of_the_released_version_is_named(kind, drawn, mistake):
    """If one of these fails, a new version has corrected it: the page of findings says until when it was there."""
    assert mistake in judged(getattr(diffusers, kind), {"clip_sample": False, **drawn}).mistakes


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_what_is_right_is_right(spacing):
    """DDPM with the small variance: noising, conversions, spacings and steps are the equations."""
    topics = ["q_sample", "v_from_pair", "posterior_variance", "step_pairs", "ddpm_step", "cosine_betas", "alpha_bar"]
    given_ = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", timestep_spacing=spacing, clip_sample=False)
    report = verify.check(verify.diffusers.scheduler(given_), topics=topics)
    assert report.ok, str(report)


def test_the_whole_version_is_named_by_one_command(capsys):
    assert main(["verify", "diffusers"]) == 1
    out = capsys.readouterr().out
    assert out.startswith(f"diffusers {diffusers.__version__}: ") and "no known mistake explains" not in out
    for mistake in (
        "M76 TEMB_HALF_MINUS_1", "M83 LABEL_DROPOUT_PER_BLOCK", "M61b LN_EPS_MLP", "M04 DDIM_PREV_BY_STRIDE",
        "M31 CLIP_NOT_REDERIVED",
    ):
        assert mistake in out


def test_one_scheduler_is_asked_with_its_options(capsys):
    words = ["DDPMScheduler", "variance_type=fixed_large_log", "clip_sample=false", "--topics", "ddpm_step_large"]
    assert main(["verify", "diffusers", *words]) == 1
    assert "M24 LOGVAR_TREATED_AS_VAR" in capsys.readouterr().out
    for wrong, says in (
        (["DDIMScheduler", "timestep_spacin=trailing"], "no option 'timestep_spacin=trailing', did you mean timestep_spacing=…?"),
        (["DDIMSchedule"], "diffusers has no scheduler 'DDIMSchedule'"),
        (["DiTPipeline"], "diffusers has no scheduler 'DiTPipeline'"),
    ):
        assert main(["verify", "diffusers", *wrong]) == 2 and says in capsys.readouterr().err


def test_a_rectangle_comes_back_as_something_else():
    """M99, told on the page of findings."""
    from tools.findings import rectangle

    assert rectangle() == "DiTTransformer2DModel: (2, 3, 4, 6) goes in, (3, 3, 4, 4) comes out"


def test_a_scheduler_that_is_not_known_is_told():
    with pytest.raises(ValueError, match="EulerDiscreteScheduler is not one of DDPMScheduler, DDIMScheduler"):
        verify.diffusers.scheduler(diffusers.EulerDiscreteScheduler())
