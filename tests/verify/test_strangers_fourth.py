"""Mistakes and unusual habits of strangers, the fourth group: each mistake is seen and said, nothing right is called wrong.

What must be said of each was judged by hand; where the kit only says where an answer is wrong, that is what stands here.
"""

import importlib

import pytest
from verify.strange_fourth import MISTAKES, UNUSUAL

import minidit as md

pytest.importorskip("torch", reason="PyTorch is not installed (pip install 'minidit[peers]')")
for room in ("around", "laws", "later", "networks", "right", "tokens"):
    importlib.import_module(f"verify.strange_fourth_{room}")  # which lists its functions

SAID = {
    "linear_without_end": "it is linear from 0.0004 to 0.0796816, expected 0.0004 to 0.08",
    "never_squared": "the answer is the root of the right one",
    "cosine_without_square": "equals D.14 with the root of cosine_f (topics/schedules.py)",
    "offset_outside": "equals D.14 with (i + s)/T for i/T + s under the cosine",
    "cosine_from_zero": "equals D.14 with f/f[0] at T places from 0 to 1",
    "previous_product": "moved by one entry: entry 0 is 1, entry 1 what entry 0 should be",
    "continuous": "equals D.2 with e^-Σβ, the limit of small β, for the product",
    "stretched_square": "M17b",
    "strided_range": "M06b",
    "trailing_from_one": "the answer is the right one plus 1",
    "multistep_spacing": "equals D.25 with N + 1 places of which the lowest is left out",
    "betas_of_the_full_ladder": "M03",
    "fixed_stride": "every step goes down by 100, whatever the next timestep is",
    "stretched_index": "166, 500, 999 are missing; 142.857, 428.571, 857.143 do not belong there",
    "noised": "the coefficient of ε is (1-√ᾱ_t) for √(1-ᾱ_t)",
    "recipm1": "the coefficient of ε is 1 - 1/√ᾱ_t for -√(1-ᾱ_t) / √ᾱ_t",
    "unscaled_difference": "the coefficient of x_t is √ᾱ_t times the right one: √ᾱ_t / √(1-ᾱ_t) for 1/√(1-ᾱ_t)",
    "exchanged_velocity": "equals D.10 with x_0 and ε exchanged",
    "angle_of_the_square": "equals D.10 with the square of ᾱ",
    "score_by_karras_sigma": "the coefficient of ε is √ᾱ_t times the right one: -√ᾱ_t / √(1-ᾱ_t) for -1/√(1-ᾱ_t)",
    "padded_with_zero": "only the first of T is wrong",
    "log_std": "the answer is ½ times the right one",
    "wrong_root": "the coefficient of x_0 is √α times the right one: √ᾱ_t β / (1-ᾱ_t) for √ᾱ_s β / (1-ᾱ_t)",
    "linear_between": "M26 LEARNED_RANGE_LINEAR explains 6 of 7 questions; not 't20-s-1'",
    "variance_as_std": "M22",
    "quiet_too_early": "the coefficient of z is left out",
    "marginal_noise": "the coefficient of z is √(1-ᾱ_t) for √β",
    "clipped_to_unit": "equals D.31 with x̂_0 between 0 and 1",
    "learned_without_root": "M22",
    "eta_under_the_root": "equals D.7 with the root of η",
    "difference_of_roots": "the root ends too early: before ε̂ stands √(1-ᾱ_s)-σ for √(1-ᾱ_s-σ²)",
    "clipped_afterwards": "equals D.33 with M32 CLIP_MISSING, and the answer is that of M32, cut to be at most 1 and at least -1",
    "inverted_with_the_target": "M36c",
    "zip_forgets_the_last": "M08 or M08b",
    "asked_one_late": "equals D.9 with the network asked at the timestep of arrival",
    "ddim_with_a_kept_list": "timesteps(12) gives 4 timesteps, those of timesteps(4)",
    "lerp_backwards": "M84",
    "still_doubled": "the answer has shape (6, 4, 2, 3), expected (3, 4, 2, 3)",
    "std_of_the_batch": "it depends on its neighbours in the batch: one sample alone is answered rightly",
    "closed_interval": "equals G.4 with high + 1",
    "clamped_only": "equals D.32 with values cut at q and not divided by it",
    "scaled_mean": "equals L.5 with ε divided by scale",
    "by_variance": "X17",
    "by_128": "equals E.8 with 128 (x+1) cut off",
    "one_number": "the answer is its mean over everything for all",
    "kl_by_the_first": "equals K.1 with e^-λ₁ for e^-λ₂ behind (μ₁-μ₂)²",
    "bins_of_256": "M48b",
    "prior_in_nats": "M51b",
    "as_for_v": "equals D.35 with the law of min_snr_v (D.35)",
    "normalised_weights": "X227",
    "reciprocal": "M45b",
    "noise_whatever_is_asked": "equals D.34 with ε as the target where v is asked for",
    "warm_from_zero": "equals O.4 with n - 1",
    "corrected_average": "equals O.4 with an average from zero, divided by 1 - dⁿ",
    "eps_inside": "X03",
    "undamped_decay": "X07",
    "tensor_by_tensor": "X15",
    "from_zero": "X16",
    "with_sigma_min": "the coefficient of ε is 0.001 + 0.999 t for t",
    "noise_first": "C10",
    "by_the_other_end": "X104",
    "shift_without_minus": "equals P.17 with 1 + a t below",
    "mu_itself": "M175",
    "root_of_std": "X163",
    "late_time": "X141",
    "sum_of_two": "X122",
    "summed": "X144",
    "equal_steps": "X125",
    "c_out_without_root": "X109",
    "scaled_twice": "the coefficient of x is 1/√(sigma²+sigma_data²) times the right one",
    "product_not_squared": "X112",
    "uniform_as_normal": "equals P.16 with u for Φ⁻¹(u)",
    "ramp_of_n_plus_one": "X174",
    "root_of_the_difference": "the coefficient of z is √|raised-sigma| for √|raised²-sigma²|",
    "first_level_twice": "X136",
    "unlimited": "X138",
    "without_boundary": "M107",
    "from_zero_noise": "X183",
    "huber_of_the_mean": "M112b",
    "linear_constant": "X187",
    "reciprocal_level": "equals S.16 with 1/t_i",
    "linear_levels": "equals S.4 with a linear curriculum: s_0 + k/K (s_1 - s_0)",
    "quick_gelu": "M59b",
    "hard_swish": "equals A.4 with hard swish for every SiLU",
    "softmax_one": "equals A.13 with one more in the denominator of the softmax",
    "unbiased": "equals A.14 with the unbiased deviation, ε beside it and not under a root",
    "root_mean_square": "X27",
    "one_plus_gate": "X47",
    "over_queries": "M56",
    "scaled_by_width": "M55",
    "head_major": "M57",
    "squared_relu": "equals N.5 with the squared ReLU for GELU",
    "interleaved": "M75b",
    "activated_twice": "the answer is SiLU of the right one",
    "relative_places": "equals N.7 with places divided by the side of the grid",
    "channels_last_patches": "X41",
    "turned_patches": "M79",
    "dropped_to_zero": "M81b",
    "parallel_block": "M70c",
    "tanh_gates": "X49",
    "without_silu": "X50",
    "mean_condition": "equals T.6 with half of condition (topics/network.py)",
    "interleaved_groups": "M126c",
    "time_after_norm": "M127+X201",
    "normalised_residual": "",
    "bilinear": "X209",
    "activated_first": "X203",
    "largest_product": "X240",
    "without_detach": "X242",
    "decay_exchanged": "X285",
    "plain_triangle": "M137",
    "crossing_dropped": "M142",
    "place_in_the_list": "equals Q.22 with p in falling order along its last axis",
    "places_start_again": "M146",
    "one_plus_weight": "X277",
    "other_gate": "X278",
    "shifted_again": "M138",
    "other_way": "X301",
    "frequencies_of_the_head": "equals N.12 with the frequencies of the whole head, shared out to the axes",
    "words_alone": "equals N.14 with words that see words only",
    "norm_after_rope": "M155",
    "block_of_the_old_h": "equals T.23 with an MLP that sees the h from before the attention",
    "quiet_guidance": "M160",
    "swapped_roots": "equals D.10 with x_t and v exchanged",
    "by_variance_of_noise": "the coefficient of score is √(1-ᾱ_t) times the right one: -(1-ᾱ_t) for -√(1-ᾱ_t)",
    "marginal_variance": "the answer is 1 - ᾱ",
    "ceil_stride": "a fixed stride of 84, from 999 to 75; right: 999 to 0",
    "omega_as_w": "M85b",
    "strided_halves": "equals G.1 with every other out first",
    "multiplied": "M89d",
    "by_256": "M93c",
    "closed_above": "X232",
    "gaussian_nll": "the answer is the right one minus 0.918939",
    "log_deviation": "X234",
    "maximum": "",
    "minus_one": "",
    "without_half": "the answer is 2 times the right one",
    "all_decay": "X08",
    "towards_data": "the coefficient of x_0 is 1 for -1",
    "score_of_data": "X106",
    "target_without_skip": "equals P.2 with 0 for c_skip (topics/paths.py)",
    "sigma_as_time": "X116",
    "not_rescaled": "X117",
    "plain_ratio": "X170",
    "whole_turn": "equals P.15 with twice u",
    "downhill": "M102b or X132",
    "noise_on_top": "X130",
    "half_exponent": "the answer is the root of the right one",
    "mixed_bases": "X251",
    "half_of_a_sphere": "",
    "cosine_ramp": "X267 NEVER_RISES_TO_W explains 3 of 4 questions; not '3-of-4'",
    "over_tokens": "",
    "pixels_first": "M163",
    "cosine_first": "C19+X322",
    "tiled": "M165",
    "remembered_first": "X211",
    "next_level": "the coefficient of x_t is wrong",
    "halved_gate": "the answer is ½ times the right one",
    "density": "X195",
    "from_the_data": "",
    "logistic_bins": "equals K.4 with the logistic function for Φ",
}  # fmt: skip


def finding(topic, f, speaks_torch):
    target = {topic: f}
    (found,) = md.verify.check(md.verify.torch.functions(target) if speaks_torch else target).findings
    return found


def words(found):
    names = " or ".join("+".join(d.id for d in together) for together in found.candidates)
    return names or next(iter(found.sentences), found.layer)


@pytest.mark.parametrize("topic, fault, f, speaks_torch", MISTAKES, ids=[f.__name__ for _, _, f, _ in MISTAKES])
def test_a_strangers_mistake_is_seen_and_said(topic, fault, f, speaks_torch):
    found = finding(topic, f, speaks_torch)
    assert not found.passed and words(found).startswith(SAID[f.__name__])


@pytest.mark.parametrize("topic, habit, f, speaks_torch", UNUSUAL, ids=[habit for _, habit, _, _ in UNUSUAL])
def test_an_unusual_right_function_passes(topic, habit, f, speaks_torch):
    assert finding(topic, f, speaks_torch).passed


def test_every_mistake_has_its_words_but_a_few_of_which_only_the_difference_is_shown():
    assert SAID.keys() == {f.__name__ for _, _, f, _ in MISTAKES}
    shown = {"normalised_residual", "maximum", "minus_one", "half_of_a_sphere", "over_tokens", "from_the_data"}
    assert {name for name, said in SAID.items() if not said} == shown
