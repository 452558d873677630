"""Dialects of projects in continuous time: which end is the data, what the network hears, where grids end.

A time direction is a dialect; a sign that turns alone is a mistake (M101, M102).
"""

from __future__ import annotations

from minidit.verify.bank.dialect import Dialect

DATA_AT_ONE, TO_DATA = "0 noise, 1 data (C10)", "x_0 - ε (C10)"
ITSELF = "t itself (C11)"
NONE = "none"

OF_DIFFUSERS = (
    "0 data, 1 noise", "ε - x_0", "1000 t", "n times from 1 to 1/1000, then 0 (C13)",
    "once, also of given times (C21); its lowest time twice (M104b)",
    "¼ ln σ; with v_prediction F is negated (C12)", "falls (C17)", "x, clipped to ±1 unless asked otherwise (M108)", NONE,
)  # fmt: skip
CONTINUOUS = (
    Dialect(
        "sd3", "sd3-ref 883b836",
        "n times end above the data, and the lowest of them is shifted twice",
        ("C13", "M104b"), (), (),
        ("0 data, 1 noise", "ε - x_0", "1000 t", "n times from 1 to 1/1000, then 0 (C13)", "once; its lowest time twice (M104b)",
         NONE, NONE, NONE, NONE),
    ),
    Dialect(
        "flux", "flux 802fb47",
        "the network is told t itself, and multiplies it by 1000",
        ("C11",), ("M121", "X316"), (),
        ("0 data, 1 noise", "ε - x_0", f"{ITSELF}, which it multiplies", "n + 1 times, from 1 to 0",
         "e^μ, μ a line in the number of tokens",
         NONE, NONE, NONE, NONE),
    ),
    Dialect(
        "torchcfm", "1.0.7",
        "data at t = 1, u = x_0 - ε, and the network is told t itself",
        ("C10", "C11"), ("M103", "M123"), (),
        (DATA_AT_ONE, TO_DATA, f"{ITSELF}; its U-Net embeds that (M103)", "left to torchdyn", NONE, NONE, NONE, NONE, NONE),
    ),
    Dialect(
        "flow_matching", "1.0.10",
        "data at t = 1, u = x_0 - ε, and the network is told t itself",
        ("C10", "C11"), (), (),
        (DATA_AT_ONE, TO_DATA, ITSELF, "the user's, or steps of one size", NONE, NONE, NONE, NONE, NONE),
    ),
    Dialect(
        "sit", "947f95b",
        "data at t = 1, u = x_0 - ε, t itself in the sinusoids, and n times for n - 1 steps",
        ("C10", "C11", "C14", "M103"), (), (),
        (DATA_AT_ONE, TO_DATA, f"{ITSELF}, also in the sinusoids (M103)", "n times, n - 1 steps (C14)", NONE, NONE, NONE, NONE,
         NONE),
    ),
    Dialect(
        "edm", "NVlabs/edm 008a4e5",
        "¼ ln σ for the network; noise levels are counted from high to low",
        ("C15", "C17"), (), (),
        ("σ", NONE, "¼ ln σ (C15)", NONE, NONE, "¼ ln σ", "falls (C17)", NONE, NONE),
    ),
    Dialect(
        "consistency_models", "openai/consistency_models e32b69e",
        "250 ln σ for EDM's network too; noise levels are counted from high to low; μ(k) of N(k) - 1",
        ("C16", "C17", "M111"), ("M108", "M110"), (),
        ("σ", NONE, "250 ln σ", NONE, NONE, "250 ln σ (C16)", "falls (C17)", "x; clipped in its samplers (M108)",
         "of N(k) - 1 (M111)"),
    ),
)  # fmt: skip
