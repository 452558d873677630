"""Deliberate conventions of known projects: records, not errors.

A dialect is a set of deviations that a project made on purpose or keeps for its published weights, and what it does in each of
the ASPECTS where projects differ. A verdict is relative to the declared dialect; where none is declared, a deviation is reported
together with the dialects that share it.
"""

from __future__ import annotations

from dataclasses import dataclass

from minidit.verify.bank import DEVIATIONS
from minidit.verify.core.reference import Deviation

ASPECTS = (
    "spacing", "ᾱ past the last rung", "ε̂ after clipping", "clipping of x̂_0", "variance at t = 0", "time embedding",
    "ε of LayerNorm", "guidance: batch", "guidance: scale", "guidance: channels", "null label", "label dropout", "Φ", "bytes",
    "tables",
)  # fmt: skip
CONTINUOUS_ASPECTS = (
    "time", "velocity", "time of the network", "grid of a flow", "shift", "noise number of EDM", "order of noise levels",
    "f at the data end", "μ(k)",
)  # fmt: skip
TOKEN_ASPECTS = (
    "turn of the class token", "guidance of logits", "one scale alone", "weights of the loss of codes",
    "halves of the last modulation", "place of the first frame",
)  # fmt: skip


@dataclass(frozen=True)
class Dialect:
    """A project (and its versions): its habits, which count as right where it is declared, and what it does in each aspect.

    also: deviations behind one of its options or doors; reports name them with it, and they do not count as right.
    """

    name: str
    versions: str
    says: str
    habits: tuple[str, ...]
    also: tuple[str, ...]
    does: tuple[str, ...] = ()  # as ASPECTS; empty for a project without a ladder
    continuously: tuple[str, ...] = ()  # as CONTINUOUS_ASPECTS; empty for a project without continuous time
    with_tokens: tuple[str, ...] = ()  # as TOKEN_ASPECTS; empty for a project of one stream of pixels

    @property
    def deviations(self) -> tuple[Deviation, ...]:
        return tuple(DEVIATIONS[i] for i in self.habits)

    @property
    def conventions(self) -> dict[str, str]:
        """aspect -> what it does."""
        tables = ((ASPECTS, self.does), (CONTINUOUS_ASPECTS, self.continuously), (TOKEN_ASPECTS, self.with_tokens))
        return {aspect: does for aspects, words in tables if words for aspect, does in zip(aspects, words, strict=True)}


# ------------------------------------------------------------------------------------------------ in continuous time
# Which end is the data is a dialect; a sign that turns alone is a mistake (M101, M102).

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

# ------------------------------------------------------------------------------------------------ all of them

TANH, CUT = "tanh form (M54)", "255 (x+1)/2 cut off (M94b)"
COSINE_FIRST, NO_GUIDANCE = "cos first, exponents i/half", "none: guided by a classifier"
PLAIN_SCALE, NO_TOKENS = "w = 1 is conditional", "none"

DIALECTS: dict[str, Dialect] = {
    d.name: d
    for d in (
        Dialect(
            "openai", "improved-diffusion 1bc7bbb, guided-diffusion 22e0df8",
            "the tanh form of Φ; inversion takes the data for the lowest rung; bytes cut off, not rounded",
            ("M54", "M36b", "M94b"), ("M17", "M32b"),
            ("sections with both ends, or the stride of 'ddimN'", "1", "derived anew", "to ±1 unless asked otherwise (M32b)",
             "ln β̃ of t = 1", COSINE_FIRST, "none: group norms, 1e-5", NO_GUIDANCE, NO_GUIDANCE, NO_GUIDANCE, "none", "none",
             TANH, CUT, "float64, entries cast to float32"),
        ),
        Dialect(
            "dit-official", "ed81ce2",
            "OpenAI's laws; three of four channels guided; grey-level likelihood on latents; the bound with factor 1; an average "
            "of constant decay",
            ("M54", "M36b", "M50", "M86", "M94", "C05", "M95b"), ("M17", "M81", "M99"),
            ("sections with both ends", "1", "derived anew", "none in its samplers", "ln β̃ of t = 1", COSINE_FIRST, "1e-6",
             "[cond; uncond]", PLAIN_SCALE, "the first three of four (M86)", "num_classes; its samplers write 1000 (M81)",
             "one decision per sample, in training", TANH, "127.5 x + 128 cut off (M94)", "float64, entries cast to float32"),
        ),
        Dialect(
            "diffusers",
            "0.42 (its schedulers of DDPM, DDIM, flow matching, EDM and consistency, DiT; VQModel, SD3, FLUX)",
            "leading spacing, a fixed stride down, β as given for any T, ln 1e-20 at t = 0, ε̂ kept beside a clipped x̂_0; DiT "
            "with the time frequencies of DDPM, ε = 1e-5 before the MLP, and labels dropped anew in every block; flows end with "
            "a step from 1/1000, consistency models clip their answer; U-Nets with a DiT's time and paddings on all sides; the "
            "halves of the last modulation of SD3 and FLUX exchanged, those of SD3's last words too; a user's own times "
            "shifted; β on the codes' way in VQModel",
            ("M04", "M05", "M06", "M15", "M25", "C04", "M21b", "M31", "M61b", "M76", "M83", "M91", "M108", "M125", "M127", "C13",
             "C17", "M130", "M159", "M169", "C21"),
            ("M05b", "M08c", "M17", "M24", "M29", "M32b", "M33", "M36", "M81", "M99", "M104b", "M120", "M122", "C12", "M174",
             "X177"),
            ("leading (M05); offset 1 in Stable Diffusion's settings (M05b)", "1; ᾱ[0] in Stable Diffusion's settings (M08c)",
             "kept (M31)", "to ±1 unless asked otherwise (M32b); DiT's settings do", "ln 1e-20 (M25)",
             "DiT: cos first, exponents i/(half-1) (M76); U-Nets: i/half (M125)",
             "DiT: 1e-6, before the MLP 1e-5 (M61b); group norms of U-Nets: 1e-5 (M127)",
             "[uncond; cond]; DiTPipeline [cond; uncond]", f"{PLAIN_SCALE}; no unconditional pass for w ≤ 1", "all",
             "num_classes; DiTPipeline writes 1000 (M81)", "anew in every block (M83)", "none", "rounded", "float32"),
            OF_DIFFUSERS,
            (NO_TOKENS, NO_TOKENS, NO_TOKENS, "β on the codes, 1 on the commitment (M130)", "scale, shift (M159, M169)",
             NO_TOKENS),
        ),
        Dialect(
            "diffusers-0.11-ddpm", "0.2.4 and 0.11.1 (DDPMScheduler)",
            "ᾱ and β of the training ladder in every step, whichever rungs are skipped; leading spacing, β as given for any T",
            ("M02", "M03", "M05c", "M06", "M15", "M21b", "M25", "M26", "C04"), ("M17", "M24", "M32b"),
            ("range(0, T, T//N) (M05c)", "ᾱ of t-1, 1 at t = 0 (M02)", "no ε̂: the posterior's mean of x̂_0",
             "to ±1 unless asked otherwise (M32b)", "ln 1e-20 (M25)", COSINE_FIRST, "none: group norms", "[uncond; cond]",
             PLAIN_SCALE, "all", "none", "none", "none", "rounded", "float32"),
        ),
        Dialect(
            "ldm", "latent-diffusion, stable-diffusion 1.x",
            "range(0, T, T//N) plus 1, ᾱ[0] past the last rung and noise there, β as given for any T, ln 1e-20 at t = 0",
            ("M06", "M06b", "C02", "M08c", "M15", "M25", "M94b"), ("M05b", "M17", "M81c"),
            ("range(0, T, T//N) + 1 (C02)", "ᾱ[0], with noise where η > 0 (M08c)", "not clipped", "none on latents",
             "ln 1e-20 (M25)", COSINE_FIRST, "1e-5, with weights, in its U-Net's transformers", "[uncond; cond]", PLAIN_SCALE,
             "all", "the last of n_classes, which counts it (M81c); the empty prompt", "one decision per sample, in training",
             "none", CUT, "float64, kept as float32"),
        ),
        *CONTINUOUS,
        Dialect(
            "llamagen", "LlamaGen ce98ec4",
            "the class token's query and key are multiplied by zero: every token sees it with logit 0",
            ("M147",), (),
            with_tokens=("zeroed (M147)", PLAIN_SCALE, NO_TOKENS, "1 and β", NO_TOKENS, NO_TOKENS),
        ),
        Dialect(
            "latte", "Latte b27c24a",
            "places of time as they are, added to the tokens once: a clip of one frame is no picture",
            ("C19", "C20"), ("M86", "M172"),
            with_tokens=(NO_TOKENS, NO_TOKENS, NO_TOKENS, NO_TOKENS, "shift, scale", "p(0), as it is (C19), added once (C20)"),
        ),
        Dialect(
            "var", "VAR 78b9539",
            "guidance with 0 for the conditional network; one scale alone divides by zero",
            ("C18", "M134b", "M140"), (),
            with_tokens=(NO_TOKENS, "w = 0 is conditional (C18)", "divides by zero (M134b, M140)", "1 and β", "scale, shift",
                         NO_TOKENS),
        ),
    )
}  # fmt: skip


def sharing(identifier: str) -> list[str]:
    """The dialects that have this habit, and those that have it in some of their options."""
    return [d.name for d in DIALECTS.values() if identifier in d.habits] + [
        f"{d.name} in some options" for d in DIALECTS.values() if identifier in d.also
    ]
