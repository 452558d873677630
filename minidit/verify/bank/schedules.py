"""Mistakes of ladders and timestep lists (C1), and habits that are no mistake anywhere (ids C..)."""

from __future__ import annotations

import numpy as np

from minidit.backend import Array
from minidit.verify.bank.wrap import arguments, instead, then
from minidit.verify.core.reference import Deviation, Form, Reference
from minidit.verify.topics import conversions, ddim, losses, posterior, schedules, timesteps


def _leading(R: Reference, T: int, N: int) -> Array:
    return (np.arange(N) * (T // N))[::-1]


def _first_past_the_last(original: Form) -> Form:
    """ᾱ[0] where ᾱ = 1 belongs."""
    return lambda R, alpha_bar, t, s: original(R, alpha_bar, t, s) if s >= 0 else float(alpha_bar[0])


BANK = [
    Deviation("M01", "TIMESTEP_OFF_BY_ONE_TRAIN", "D.34", "draws training timesteps from 1..T", "t uniform in 0..T-1",
        {losses.draw_timesteps: then(lambda t: t + 1)}, "T2I-Adapter#126, LDM#136"),
    Deviation("M01b", "ALPHA_BAR_INDEX_BELOW", "D.1", "takes ᾱ[t-1] for timestep t: papers count from 1, tables from 0",
        "ᾱ[t] for t in 0..T-1; ᾱ[0] is after one step of noise",
        {conversions.level: arguments(lambda alpha_bar, t: (alpha_bar, np.asarray(t) - 1))}, "T2I-Adapter#126, LDM#136"),
    Deviation("M01c", "ALPHA_BAR_INDEX_ABOVE", "D.1", "takes ᾱ[t+1] for timestep t",
        "ᾱ[t] for t in 0..T-1; ᾱ[0] is after one step of noise",
        {conversions.level: arguments(lambda alpha_bar, t: (alpha_bar, np.asarray(t) + 1))}, "LDM#136 (IndexError 1000)"),
    Deviation("M01d", "NETWORK_TOLD_T_PLUS_ONE", "T.3", "tells the network t + 1",
        "the network hears the timestep it was trained with, 0..T-1", {timesteps.network_time: then(lambda t: t + 1)}, "LDM#136"),
    Deviation("M01e", "TIMESTEP_RANGE_TOO_LONG", "D.34", "draws training timesteps from 0..T, T included", "t uniform in 0..T-1",
        {losses.draw_timesteps: lambda original: lambda R, B, T: original(R, B, T + 1)}, "LDM#136 (IndexError 1000)"),
    Deviation("M02", "ALPHA_PREV_INDEX", "D.7", "takes ᾱ of t - 1 on the full ladder when rungs are skipped",
        "ᾱ_s of the next kept rung, 1 past the last",
        {posterior.alpha_below: instead(lambda R, alpha_bar, t, s: float(alpha_bar[t - 1]) if t > 0 else 1.0),
        posterior.log_small_variance: arguments(lambda alpha_bar, t, s: (alpha_bar, t, t - 1)),
        posterior.large_variance: arguments(lambda alpha_bar, t, s: (alpha_bar, t, t - 1))},
        "diffusers PR#2076, PR#9384, lucidrains#81, PR#83"),
    Deviation("M03", "RESPACED_BETAS_FROM_FULL_CHAIN", "D.15", "takes β_t of the training ladder for a step that skips rungs",
        "β' = 1 - ᾱ_t/ᾱ_s",
        {timesteps.jump_beta: instead(lambda R, alpha_bar, t, a_s: 1 - alpha_bar[t] / np.append(1.0, alpha_bar)[t])},
        "diffusers PR#3006, PR#2076"),
    Deviation("M04", "DDIM_PREV_BY_STRIDE", "D.30", "steps to t - T//N whatever the list of timesteps says",
        "s is the next entry of the list, the data past the last",
        {timesteps.below: instead(lambda R, timesteps, k, T: max(int(timesteps[k]) - T // len(timesteps), -1))},
        "diffusers 0.42.1 (DDIM), diffusers#11347, #12633"),
    Deviation("M05", "LEADING_SPACING_MISSES_T", "D.24", "starts at T - T/N (leading spacing) though the noise is that of T",
        "the first timestep is T-1: linspace or trailing spacing", {timesteps.sampling_timesteps: instead(_leading)},
        "diffusers#2585, #5921, #7401, SD#686; default of diffusers and LDM"),
    Deviation("M05b", "LEADING_OFFSET_MISSES_T", "D.24",
        "starts at T - T/N + 1 (leading spacing with an offset of 1) though the noise is that of T, and ends at 1",
        "the first timestep is T-1 and the last 0: linspace spacing",
        {timesteps.sampling_timesteps: instead(lambda R, T, N: _leading(R, T, N) + 1)},
        "diffusers with steps_offset=1, as in the configurations of Stable Diffusion"),
    Deviation("M05c", "LEADING_RANGE_MISSES_T", "D.24",
        "range(0, T, T//N): starts below T-1, and more than N timesteps where N does not divide T",
        "the first timestep is T-1 and the last 0: linspace spacing, N timesteps",
        {timesteps.sampling_timesteps: instead(lambda R, T, N: np.array(range(0, T, max(T // N, 1)))[::-1])},
        "diffusers up to 0.11 (DDPMScheduler), a habit of tutorials"),
    Deviation("M06", "STEPS_OFFSET_OVERFLOW", "D.24", "adds an offset and leaves the ladder (index T) where N divides T",
        "k ⌊T/N⌋ + offset only while it stays below T",
        {timesteps.inside: instead(lambda R, timesteps, T: np.asarray(timesteps))},
        "diffusers#10003, SD#111, webui PR#3917, InvokeAI#415"),
    Deviation("M06b", "LEADING_BY_RANGE", "D.24", "range(0, T, T//N): more than N timesteps where N does not divide T",
        "k ⌊T/N⌋ + offset, k = 0..N-1", {timesteps.leading_timesteps: instead(lambda R, T, N, offset:
            timesteps.inside(R, (np.array(range(0, T, T // N)) + offset)[::-1], T))}, "LDM make_ddim_timesteps, labml DDIM"),
    Deviation("M08", "FINAL_ALPHA_NOT_ONE", "D.7", "uses ᾱ[0] past the last rung: noise of variance 1-ᾱ[0] stays",
        "ᾱ = 1 at the data (or declare set_alpha_to_one=False)",
        {posterior.alpha_below: _first_past_the_last},
        "LDM, Stable Diffusion, labml DDIM"),
    Deviation("M08c", "NOISE_BEHIND_THE_LAST_STEP", "D.7", "ends at ᾱ[0], and adds fresh noise there, which no step takes away",
        "the last step leads to ᾱ = 1 without noise", {posterior.alpha_below: _first_past_the_last, ddim.ddim_from_pair:
            arguments(lambda x_0, eps, a_t, a_s, s, eta, z: (x_0, eps, a_t, a_s, max(s, 0), eta, z))},
        "LDM, Stable Diffusion; diffusers' DDIM with set_alpha_to_one=False (η > 0)"),
    Deviation("C22", "LAST_ALPHA_WITHOUT_NOISE", "D.7", "ends at ᾱ[0] without fresh noise, whatever η is: a convention",
        "the last step leads to ᾱ = 1 without noise", {posterior.alpha_below: _first_past_the_last, ddim.ddim_from_pair:
            arguments(lambda x_0, eps, a_t, a_s, s, eta, z: (x_0, eps, a_t, a_s, s, eta if s >= 0 else 0.0, z))}, "class"),
    Deviation("M08b", "STOPS_AT_T_0", "D.30", "ends the walk at timestep 0, one step short of the data",
        "the last step goes from the last rung to the data, ᾱ = 1", {timesteps.step_pairs: then(lambda pairs: pairs[:-1])},
        "smalldiffusion (ends at σ_0 ≠ 0), ai-engineering PR#43"),
    Deviation("X341", "DATA_FROM_BEHIND", "D.7", "reads ᾱ[-1] for s = -1: that is the last entry of the table, all noise",
        "s = -1 means the data: ᾱ = 1 there, alpha_bar[s] if s >= 0 else 1.0",
        {posterior.alpha_below: instead(lambda R, alpha_bar, t, s: np.float64(alpha_bar[s]))}),  # √-1 is no error
    Deviation("M09", "RESPACED_INDEX_AS_T", "T.3", "tells the network the index on the shorter ladder", "the original timestep",
        {timesteps.network_time: instead(lambda R, timesteps, i, T: np.asarray(i))}, "SD PR#226"),
    Deviation("M10", "T_UNIT_SCALE", "T.3", "tells the network t/T where it expects 0..T-1",
        "the network hears t in the unit it was trained with, 0..T-1",
        {timesteps.network_time: lambda f: lambda R, timesteps, i, T: f(R, timesteps, i, T) / T},
        "REPA#40, SiT#24, Just-a-DiT PR#9, Step1X-Edit#91"),
    Deviation("M10b", "T_SCALED_TWICE", "T.3", "multiplies t by 1000 where it is an integer timestep already",
        "the network hears t in the unit it was trained with, 0..T-1", {timesteps.network_time: then(lambda t: t * 1000)},
        "Step1X-Edit#91"),
    Deviation("M12", "COSINE_LINSPACE", "D.14", "u = linspace(0, T+1, T+1)/T: a grid that runs past 1", "u = i/T, i = 0..T",
        {schedules.cosine_grid: instead(lambda R, T: np.linspace(0, T + 1, T + 1) / T)},
        "lucidrains#19, jannerm/diffuser#68, USD3#1"),
    Deviation("M12b", "COSINE_GRID_TOO_SHORT", "D.14", "u = i/(T+1): a grid that ends before 1", "u = i/T, i = 0..T",
        {schedules.cosine_grid: instead(lambda R, T: np.arange(T + 1) / (T + 1))}, "lucidrains#19, jannerm/diffuser#68, USD3#1"),
    Deviation("M14", "COSINE_NO_CLIP", "D.14", "lets β reach 1 at T: 1/√ᾱ_T explodes", "β = min(1 - f_i/f_{i-1}, 0.999)",
        {schedules.cosine_cap: instead(lambda R, betas: betas)}, "guided-diffusion#42, mar#70"),
    Deviation("M14b", "ABAR_FROM_F", "D.14", "takes ᾱ = f/f(0), not the product of the clipped 1-β",
        "ᾱ = Π (1-β), β capped at 0.999",
        {schedules.cosine_alpha_bar: instead(lambda R, T: schedules.cosine_f(R, T)[1:] / schedules.cosine_f(R, T)[0])},
        "guided-diffusion#42, mar#70"),
    Deviation("M15", "LINEAR_T_NOT_SCALED", "D.12", "keeps the ends of β that were made for T = 1000",
        "both ends times 1000/T (or declare it, and look at ᾱ_T)",
        {schedules.ends: instead(lambda R, T, start, end: (start, end))}, "diffusers (all versions), LDM; diffusers PR#12341"),
    Deviation("M15b", "BETA_ABOVE_ONE", "D.12", "scales β beyond 1 for a short ladder, and ᾱ turns negative",
        "refuse T ≤ 20 (0 < β < 1)", {schedules.possible: instead(lambda R, betas: betas)},
        "imagen-pytorch#161, openai (named schedules)"),
    Deviation("M17", "TERMINAL_SNR_NONZERO", "D.16", "leaves the ladder as it is: ᾱ_T > 0 shows the network the mean brightness",
        "√ᾱ shifted and stretched so that ᾱ_T = 0", {schedules.zero_snr: instead(lambda R, alpha_bar: alpha_bar)},
        "Stable Diffusion, arXiv 2305.08891, diffusers#2585, webui#13052"),
    Deviation("M17b", "ZERO_SNR_ON_ALPHA_BAR", "D.16", "shifts and stretches ᾱ instead of √ᾱ",
        "r = √ᾱ: r' = (r - r_T) r_1/(r_1 - r_T), ᾱ' = r'²", {schedules.zero_snr: instead(lambda R, alpha_bar:
            (alpha_bar - alpha_bar[-1]) * alpha_bar[0] / (alpha_bar[0] - alpha_bar[-1]))}),
    Deviation("M46", "RESPACE_DDIM_STRING", "D.29", "'ddimN' with T//N where no stride gives N: a list of another length",
        "the least stride that gives exactly N timesteps, else a refusal",
        {timesteps.stride: instead(lambda R, T, N: np.array(range(0, T, max(T // N, 1))))}, "class (what OpenAI's code refuses)"),
    Deviation("M46b", "DDIM_STRING_REACHES_T", "D.29",
        "'ddimN' spread to T-1 (linspace): another list than published results used", "0, i, 2i, …: ddim50 ends at 980",
        {timesteps.stride: instead(lambda R, T, N: np.round(np.linspace(0, T - 1, N)).astype(int))}, "class"),
    Deviation("C01", "TRAILING_SPACING", "D.26", "trailing spacing where nothing else is asked: a convention",
        "linspace and trailing both start at T-1",
        {timesteps.sampling_timesteps: instead(lambda R, T, N: timesteps.trailing_timesteps(R, T, N))},
        "smalldiffusion; the right one for zero terminal SNR"),
    Deviation("C02", "LEADING_OFFSET_ONE", "D.24",
        "leading spacing plus 1 where nothing else is asked: a convention that misses T",
        "the first timestep is T-1: linspace or trailing spacing",
        {timesteps.sampling_timesteps: instead(lambda R, T, N: np.array(range(0, T, T // N))[::-1] + 1)},
        "LDM, Stable Diffusion (steps_offset=1)"),
    Deviation("C03", "LEADING_REFUSES_LATER", "D.24", "clips an offset timestep to T-1 instead of refusing it: a convention",
        "k ⌊T/N⌋ + offset only while it stays below T",
        {timesteps.inside: instead(lambda R, timesteps, T: np.minimum(np.asarray(timesteps), T - 1))}, "class"),
    Deviation("C04", "LARGE_KEEPS_BETA_0", "D.19",
        "keeps β in entry 0 of the large variance: a convention, that entry adds no noise in a sampler",
        "entry 0 is β̃ of t = 1, which a likelihood needs",
        {posterior.large_at_data: instead(lambda R, alpha_bar, t: posterior.step_beta(R, alpha_bar, t, 1.0))},
        "Ho's DDPM, diffusers fixed_large"),
]  # fmt: skip
