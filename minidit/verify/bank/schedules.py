"""Mistakes of ladders and timestep lists (C1), and habits that are no mistake anywhere (ids C..)."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidit.verify.bank.wrap import given, instead, then
from minidit.verify.core.reference import Deviation


def _f_ratio(R: Any, T: int) -> Any:
    f = R.cosine_f(T)
    return f[1:] / f[0]


def _shrunk(R: Any, alpha_bar: Any) -> Any:
    return (alpha_bar - alpha_bar[-1]) * alpha_bar[0] / (alpha_bar[0] - alpha_bar[-1])


def _by_stride(R: Any, timesteps: Any, k: int, T: int) -> int:
    return max(int(timesteps[k]) - T // len(timesteps), -1)


def _leading(R: Any, T: int, N: int) -> Any:
    return (np.arange(N) * (T // N))[::-1]


def _even(R: Any, T: int, N: int) -> Any:
    return np.array(range(0, T, max(T // N, 1)))


def _by_range(R: Any, T: int, N: int, offset: int) -> Any:
    return R.inside((np.array(range(0, T, T // N)) + offset)[::-1], T)


BANK = [
    Deviation(
        "M01", "TIMESTEP_OFF_BY_ONE_TRAIN", "D.34",
        wrong="draws training timesteps from 1..T",
        right="t uniform in 0..T-1",
        seen="T2I-Adapter#126, LDM#136",
        patches={"draw_timesteps": then(lambda t: t + 1)},
    ),
    Deviation(
        "M01b", "ALPHA_BAR_INDEX_BELOW", "D.1",
        wrong="takes ᾱ[t-1] for timestep t: papers count from 1, tables from 0",
        right="ᾱ[t] for t in 0..T-1; ᾱ[0] is after one step of noise",
        seen="T2I-Adapter#126, LDM#136",
        patches={"level": given(lambda alpha_bar, t: (alpha_bar, np.asarray(t) - 1))},
    ),
    Deviation(
        "M01c", "ALPHA_BAR_INDEX_ABOVE", "D.1",
        wrong="takes ᾱ[t+1] for timestep t",
        right="ᾱ[t] for t in 0..T-1; ᾱ[0] is after one step of noise",
        seen="LDM#136 (IndexError 1000)",
        patches={"level": given(lambda alpha_bar, t: (alpha_bar, np.asarray(t) + 1))},
    ),
    Deviation(
        "M01d", "NETWORK_TOLD_T_PLUS_ONE", "T.3",
        wrong="tells the network t + 1",
        right="the network hears the timestep it was trained with, 0..T-1",
        seen="LDM#136",
        patches={"network_time": then(lambda t: t + 1)},
    ),
    Deviation(
        "M01e", "TIMESTEP_RANGE_TOO_LONG", "D.34",
        wrong="draws training timesteps from 0..T, T included",
        right="t uniform in 0..T-1",
        seen="LDM#136 (IndexError 1000)",
        patches={"draw_timesteps": lambda original: lambda R, B, T: original(R, B, T + 1)},
    ),
    Deviation(
        "M02", "ALPHA_PREV_INDEX", "D.7",
        wrong="takes ᾱ of t - 1 on the full ladder when rungs are skipped",
        right="ᾱ_s of the next kept rung, 1 past the last",
        seen="diffusers PR#2076, PR#9384, lucidrains#81, PR#83",
        patches={"alpha_below": instead(lambda R, alpha_bar, t, s: float(alpha_bar[t - 1]) if t > 0 else 1.0),
                 "log_small_variance": given(lambda alpha_bar, t, s: (alpha_bar, t, t - 1)),
                 "large_variance": given(lambda alpha_bar, t, s: (alpha_bar, t, t - 1))},
    ),
    Deviation(
        "M03", "RESPACED_BETAS_FROM_FULL_CHAIN", "D.15",
        wrong="takes β_t of the training ladder for a step that skips rungs",
        right="β' = 1 - ᾱ_t/ᾱ_s",
        seen="diffusers PR#3006, PR#2076",
        patches={"jump_beta": instead(lambda R, alpha_bar, t, a_s: 1 - alpha_bar[t] / np.append(1.0, alpha_bar)[t])},
    ),
    Deviation(
        "M04", "DDIM_PREV_BY_STRIDE", "D.30",
        wrong="steps to t - T//N whatever the list of timesteps says",
        right="s is the next entry of the list, the data past the last",
        seen="diffusers 0.42.1 (DDIM), diffusers#11347, #12633",
        patches={"below": instead(_by_stride)},
    ),
    Deviation(
        "M05", "LEADING_SPACING_MISSES_T", "D.24",
        wrong="starts at T - T/N (leading spacing) though the noise is that of T",
        right="the first timestep is T-1: linspace or trailing spacing",
        seen="diffusers#2585, #5921, #7401, SD#686; default of diffusers and LDM",
        patches={"sampling_timesteps": instead(_leading)},
    ),
    Deviation(
        "M05b", "LEADING_OFFSET_MISSES_T", "D.24",
        wrong="starts at T - T/N + 1 (leading spacing with an offset of 1) though the noise is that of T, and ends at 1",
        right="the first timestep is T-1 and the last 0: linspace spacing",
        seen="diffusers with steps_offset=1, as in the configurations of Stable Diffusion",
        patches={"sampling_timesteps": instead(lambda R, T, N: _leading(R, T, N) + 1)},
    ),
    Deviation(
        "M05c", "LEADING_RANGE_MISSES_T", "D.24",
        wrong="range(0, T, T//N): starts below T-1, and more than N timesteps where N does not divide T",
        right="the first timestep is T-1 and the last 0: linspace spacing, N timesteps",
        seen="diffusers up to 0.11 (DDPMScheduler), a habit of tutorials",
        patches={"sampling_timesteps": instead(lambda R, T, N: np.array(range(0, T, max(T // N, 1)))[::-1])},
    ),
    Deviation(
        "M06", "STEPS_OFFSET_OVERFLOW", "D.24",
        wrong="adds an offset and leaves the ladder (index T) where N divides T",
        right="k ⌊T/N⌋ + offset only while it stays below T",
        seen="diffusers#10003, SD#111, webui PR#3917, InvokeAI#415",
        patches={"inside": instead(lambda R, timesteps, T: np.asarray(timesteps))},
    ),
    Deviation(
        "M06b", "LEADING_BY_RANGE", "D.24",
        wrong="range(0, T, T//N): more than N timesteps where N does not divide T",
        right="k ⌊T/N⌋ + offset, k = 0..N-1",
        seen="LDM make_ddim_timesteps, labml DDIM",
        patches={"leading_timesteps": instead(_by_range)},
    ),
    Deviation(
        "M08", "FINAL_ALPHA_NOT_ONE", "D.7",
        wrong="uses ᾱ[0] past the last rung: noise of variance 1-ᾱ[0] stays",
        right="ᾱ = 1 at the data (or declare set_alpha_to_one=False)",
        seen="LDM, Stable Diffusion, labml DDIM",
        patches={"alpha_below": lambda f: lambda R, alpha_bar, t, s: f(R, alpha_bar, t, s) if s >= 0 else float(alpha_bar[0])},
    ),
    Deviation(
        "M08b", "STOPS_AT_T_0", "D.30",
        wrong="ends the walk at timestep 0, one step short of the data",
        right="the last step goes from the last rung to the data, ᾱ = 1",
        seen="smalldiffusion (ends at σ_0 ≠ 0), ai-engineering PR#43",
        patches={"step_pairs": then(lambda pairs: pairs[:-1])},
    ),
    Deviation(
        "M09", "RESPACED_INDEX_AS_T", "T.3",
        wrong="tells the network the index on the shorter ladder",
        right="the original timestep",
        seen="SD PR#226",
        patches={"network_time": instead(lambda R, timesteps, i, T: np.asarray(i))},
    ),
    Deviation(
        "M10", "T_UNIT_SCALE", "T.3",
        wrong="tells the network t/T where it expects 0..T-1",
        right="the network hears t in the unit it was trained with, 0..T-1",
        seen="REPA#40, SiT#24, Just-a-DiT PR#9, Step1X-Edit#91",
        patches={"network_time": lambda f: lambda R, timesteps, i, T: f(R, timesteps, i, T) / T},
    ),
    Deviation(
        "M10b", "T_SCALED_TWICE", "T.3",
        wrong="multiplies t by 1000 where it is an integer timestep already",
        right="the network hears t in the unit it was trained with, 0..T-1",
        seen="Step1X-Edit#91",
        patches={"network_time": then(lambda t: t * 1000)},
    ),
    Deviation(
        "M12", "COSINE_LINSPACE", "D.14",
        wrong="u = linspace(0, T+1, T+1)/T: a grid that runs past 1",
        right="u = i/T, i = 0..T",
        seen="lucidrains#19, jannerm/diffuser#68, USD3#1",
        patches={"cosine_grid": instead(lambda R, T: np.linspace(0, T + 1, T + 1) / T)},
    ),
    Deviation(
        "M12b", "COSINE_GRID_TOO_SHORT", "D.14",
        wrong="u = i/(T+1): a grid that ends before 1",
        right="u = i/T, i = 0..T",
        seen="lucidrains#19, jannerm/diffuser#68, USD3#1",
        patches={"cosine_grid": instead(lambda R, T: np.arange(T + 1) / (T + 1))},
    ),
    Deviation(
        "M14", "COSINE_NO_CLIP", "D.14",
        wrong="lets β reach 1 at T: 1/√ᾱ_T explodes",
        right="β = min(1 - f_i/f_{i-1}, 0.999)",
        seen="guided-diffusion#42, mar#70",
        patches={"cosine_cap": instead(lambda R, betas: betas)},
    ),
    Deviation(
        "M14b", "ABAR_FROM_F", "D.14",
        wrong="takes ᾱ = f/f(0), not the product of the clipped 1-β",
        right="ᾱ = Π (1-β), β capped at 0.999",
        seen="guided-diffusion#42, mar#70",
        patches={"cosine_alpha_bar": instead(_f_ratio)},
    ),
    Deviation(
        "M15", "LINEAR_T_NOT_SCALED", "D.12",
        wrong="keeps the ends of β that were made for T = 1000",
        right="both ends times 1000/T (or declare it, and look at ᾱ_T)",
        seen="diffusers (all versions), LDM; diffusers PR#12341",
        patches={"ends": instead(lambda R, T, start, end: (start, end))},
    ),
    Deviation(
        "M15b", "BETA_ABOVE_ONE", "D.12",
        wrong="scales β beyond 1 for a short ladder, and ᾱ turns negative",
        right="refuse T ≤ 20 (0 < β < 1)",
        seen="imagen-pytorch#161, openai (named schedules)",
        patches={"possible": instead(lambda R, betas: betas)},
    ),
    Deviation(
        "M17", "TERMINAL_SNR_NONZERO", "D.16",
        wrong="leaves the ladder as it is: ᾱ_T > 0 shows the network the mean brightness",
        right="√ᾱ shifted and stretched so that ᾱ_T = 0",
        seen="Stable Diffusion, arXiv 2305.08891, diffusers#2585, webui#13052",
        patches={"zero_snr": instead(lambda R, alpha_bar: alpha_bar)},
    ),
    Deviation(
        "M17b", "ZERO_SNR_ON_ALPHA_BAR", "D.16",
        wrong="shifts and stretches ᾱ instead of √ᾱ",
        right="r = √ᾱ: r' = (r - r_T) r_1/(r_1 - r_T), ᾱ' = r'²",
        patches={"zero_snr": instead(_shrunk)},
    ),
    Deviation(
        "M46", "RESPACE_DDIM_STRING", "D.29",
        wrong="'ddimN' with T//N where no stride gives N: a list of another length",
        right="the least stride that gives exactly N timesteps, else a refusal",
        seen="class (what OpenAI's code refuses)",
        patches={"stride": instead(_even)},
    ),
    Deviation(
        "M46b", "DDIM_STRING_REACHES_T", "D.29",
        wrong="'ddimN' spread to T-1 (linspace): another list than published results used",
        right="0, i, 2i, …: ddim50 ends at 980",
        seen="class",
        patches={"stride": instead(lambda R, T, N: np.round(np.linspace(0, T - 1, N)).astype(int))},
    ),
    Deviation(
        "C01", "TRAILING_SPACING", "D.26",
        wrong="trailing spacing where nothing else is asked: a convention",
        right="linspace and trailing both start at T-1",
        seen="smalldiffusion; the right one for zero terminal SNR",
        patches={"sampling_timesteps": instead(lambda R, T, N: R.trailing_timesteps(T, N))},
    ),
    Deviation(
        "C02", "LEADING_OFFSET_ONE", "D.24",
        wrong="leading spacing plus 1 where nothing else is asked: a convention that misses T",
        right="the first timestep is T-1: linspace or trailing spacing",
        seen="LDM, Stable Diffusion (steps_offset=1)",
        patches={"sampling_timesteps": instead(lambda R, T, N: np.array(range(0, T, T // N))[::-1] + 1)},
    ),
    Deviation(
        "C03", "LEADING_REFUSES_LATER", "D.24",
        wrong="clips an offset timestep to T-1 instead of refusing it: a convention",
        right="k ⌊T/N⌋ + offset only while it stays below T",
        seen="class",
        patches={"inside": instead(lambda R, timesteps, T: np.minimum(np.asarray(timesteps), T - 1))},
    ),
    Deviation(
        "C04", "LARGE_KEEPS_BETA_0", "D.19",
        wrong="keeps β in entry 0 of the large variance: a convention, that entry adds no noise in a sampler",
        right="entry 0 is β̃ of t = 1, which a likelihood needs",
        seen="Ho's DDPM, diffusers fixed_large",
        patches={"large_at_data": instead(lambda R, alpha_bar, t: R.step_beta(alpha_bar, t, 1.0))},
    ),
]  # fmt: skip
