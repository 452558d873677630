"""Mistakes of steps and samplers of continuous time, and of what a velocity network is trained on."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidit.backend import Array
from minidit.verify.bank.wrap import instead, then
from minidit.verify.core.reference import Deviation, Reference
from minidit.verify.topics import flows

EULER = "x_t + (s-t) u, where s - t < 0"
HEUN = "x_t + (s-t) (u_t + u_s)/2"
HEUN_EDM = "x + (σ'-σ) (d + d')/2, d = (x-D)/σ, d' = (x_e-D')/σ'; Euler's step into σ' = 0"
ADAMS = "(1+r/2) u - (r/2) u_before, r = (s-t)/(t-before)"
CLIMB = "(1-t)/(1-s) x_s + √(t² - ((1-t)/(1-s) s)²) z"
FRESH = "α x̂_0 + √(σ²-c²) ε̂ + c z"
CHURN = "min(1 + S/n, √2) σ where low ≤ σ ≤ high, then x + √(σ̂²-σ²) z"
CHURNED = "x + √(σ̂²-σ²) z is a sample of the level σ̂: there the network is asked, and from there the step leads"
STRAIGHT = "S = Σ h_k mean ((x_end-x_start) - (x_{k+1}-x_k)/h_k)²"
CALLS = "the network is asked at t, and by Heun again at s"


def _signal(s: float, t: float) -> float:
    return (1 - t) / (1 - s)


def _from_eulers_end(R: Reference, x: Array, u: Array, t: float, s: float) -> Array:
    return x + flows.span(R, t, s) * u


def _slope_of_start(R: Reference, end: Array, x: Array, D: Array, sigma: float, next: float) -> Any:
    return flows.edm_slope(R, x, D, next)


BANK = [
    Deviation("M102b", "STEP_SIGN", "P.4", "x_t + (t-s) u: steps away from the data", EULER,
        {flows.span: then(lambda h: -h)}, "Open-Sora#628, tau-0-vla#7"),
    Deviation("X121", "STEP_WITHOUT_SPAN", "P.4", "adds s u, whatever t is", EULER, {flows.span: instead(lambda R, t, s: s)}),
    Deviation("X122", "HEUN_ADDS_SLOPES", "P.6", "u_t + u_s without the half", HEUN, {flows.slope: then(lambda u: 2 * u)}),
    Deviation("X123", "HEUN_TAKES_SECOND_SLOPE", "P.6", "u_s alone", HEUN, {flows.slope: instead(lambda R, u_t, u_s: u_s)}),
    Deviation("X124", "HEUN_FROM_EULERS_END", "P.6", "corrects from the end of Euler's step, so that two steps are taken", HEUN,
        {flows.heun_start: instead(_from_eulers_end)}),
    Deviation("X125", "ADAMS_OF_EQUAL_STEPS", "P.22", "(3/2, -1/2), whatever the steps are", ADAMS,
        {flows.ab2_weights: instead(lambda R, before, t, s: (1.5, -0.5))}),
    Deviation("X126", "ADAMS_RATIO_INVERTED", "P.22", "r = (t-before)/(s-t)", ADAMS,
        {flows.ab2_weights: instead(lambda R, before, t, s: (1 + (t - before) / (s - t) / 2, -(t - before) / (s - t) / 2))}),
    Deviation("X127", "ADAMS_SIGN", "P.22", "(1-r/2) u + (r/2) u_before: a mean with the past", ADAMS,
        {flows.ab2_weights: then(lambda w: (2 - w[0], -w[1]))}),
    Deviation("M122", "CHURN_OF_EDM_ON_STRAIGHT_PATH", "P.7", "x + √(t²-s²) z, as on the exploding path: too much signal", CLIMB,
        {flows.climb: instead(lambda R, x, s, t, z: x + (t**2 - s**2) ** 0.5 * z)},
        "diffusers FlowMatchHeunDiscreteScheduler (s_churn)"),
    Deviation("X128", "CLIMB_NOISE_OF_TWO_LEVELS", "P.7", "√(t²-s²) z beside the shrunk sample", CLIMB,
        {flows.climb: instead(lambda R, x, s, t, z: _signal(s, t) * x + (t**2 - s**2) ** 0.5 * z)}),
    Deviation("X129", "CLIMB_ADDS_VARIANCE", "P.7", "multiplies z by the variance", CLIMB, {flows.climb: instead(
        lambda R, x, s, t, z: _signal(s, t) * x + (t**2 - (_signal(s, t) * s) ** 2) * z)}),
    Deviation("X130", "FRESH_NOISE_LEFT_IN", "P.4", "σ ε̂, whatever noise is added", FRESH,
        {flows.remaining: instead(lambda R, sigma, c: sigma)}),
    Deviation("X131", "FRESH_NOISE_SUBTRACTED", "P.4", "(σ-c) ε̂: standard deviations do not add", FRESH,
        {flows.remaining: instead(lambda R, sigma, c: sigma - c)}),
    Deviation("X132", "EDM_SLOPE_SIGN", "P.4", "d = (D-x)/σ", "d = (x-D)/σ", {flows.edm_slope: then(lambda d: -d)}),
    Deviation("X133", "EDM_SLOPE_WITHOUT_SIGMA", "P.4", "d = x - D", "d = (x-D)/σ",
        {flows.edm_slope: instead(lambda R, x, D, sigma: x - D)}),
    Deviation("X134", "EDM_HEUN_INTO_DATA", "P.6", "asks for a second slope at σ' = 0: 0/0", HEUN_EDM,
        {flows.into_data: instead(lambda R, sigma: False)}),
    Deviation("X135", "EDM_SECOND_SLOPE_OF_START", "P.6", "d' = (x-D')/σ': the sample of the start beside the guess of the end",
        HEUN_EDM, {flows.second_slope: instead(_slope_of_start)}),
    Deviation("X136", "EDM_SECOND_SLOPE_AT_SIGMA", "P.6", "d' = (x_e-D')/σ: the noise level of the start", HEUN_EDM,
        {flows.second_slope: instead(lambda R, end, x, D, sigma, next: flows.edm_slope(R, end, D, sigma))}),
    Deviation("X137", "CHURN_OF_EVERY_STEP", "P.20", "1 + S: not divided by the number of steps", CHURN,
        {flows.churn_share: instead(lambda R, churn, n: churn)}),
    Deviation("X138", "CHURN_WITHOUT_CAP", "P.20", "raises σ by any factor", CHURN, {flows.churn_cap: instead(lambda R: np.inf)}),
    Deviation("X139", "CHURN_EVERYWHERE", "P.20", "raises σ outside the interval too", CHURN,
        {flows.in_interval: instead(lambda R, sigma, low, high: True)}),
    Deviation("X140", "CHURN_NOISE_IS_DIFFERENCE", "P.7", "adds (σ̂-σ) z: standard deviations do not add", CHURN,
        {flows.exploding_climb: instead(lambda R, x, s, t, z: x + (t - s) * z)}),
    Deviation("X342", "CHURN_NOT_HEARD", "P.20", "asks the network at σ, though the sample was raised to σ̂", CHURNED,
        {flows.heard_level: instead(lambda R, sigma, raised: sigma)}),
    Deviation("X343", "CHURN_NOT_LEFT", "P.20", "steps from σ, though the sample was raised to σ̂: its noise stays", CHURNED,
        {flows.left_level: instead(lambda R, sigma, raised: sigma)}),
    Deviation("X141", "CALLED_AT_ARRIVAL", "P.18", "asks the network at s in a step from t", CALLS,
        {flows.call_time: instead(lambda R, t, s: s)}),
    Deviation("X142", "SECOND_CALL_AT_START", "P.6", "asks the network at t again for the slope at s", CALLS,
        {flows.second_time: instead(lambda R, t, s: t)}),
    Deviation("X143", "LAST_STEP_FORGOTTEN", "P.18", "ends one step short of the data", "the last step leads to t = 0",
        {flows.walk_times: then(lambda pairs: pairs[:-1])}),
    Deviation("M179", "DENOISED_LOSS_NOT_WEIGHTED", "P.8", "mean (x̂_0 - x_0)²: small times hardly count", "mean (x̂_0 - x_0)²/t²",
        {flows.denoised_weight: instead(lambda R, t: np.ones_like(t))}, "diffusers#8917"),
    Deviation("X330", "DENOISED_LOSS_OVER_TIME", "P.8", "divides by t, not by its square", "mean (x̂_0 - x_0)²/t²",
        {flows.denoised_weight: instead(lambda R, t: 1 / t)}),
    Deviation("X144", "FLOW_LOSS_SUMMED", "F.2", "sums over the entries: it grows with the picture", "mean (v - (ε - x_0))²",
        {flows.reduced: instead(lambda R, squares: squares.sum(axis=tuple(range(1, squares.ndim))))}),
    Deviation("M123", "LABELS_LEFT_BEHIND", "F.5", "pairs x_0 with another noise and leaves the labels where they were",
        "(x_0[i], y[i], z[j])", {flows.labels_of_plan: instead(lambda R, y, i, j: y)}, "torchcfm#117, #120"),
    Deviation("M123b", "LABELS_GO_WITH_NOISE", "F.5", "permutes the labels with the noise", "(x_0[i], y[i], z[j])",
        {flows.labels_of_plan: instead(lambda R, y, i, j: y[j])}, "class"),
    Deviation("X145", "STRAIGHTNESS_OF_EQUAL_STEPS", "F.3", "gives every step the same weight", STRAIGHT,
        {flows.step_weights: instead(lambda R, lengths: np.full(len(lengths), 1 / len(lengths)))}),
    Deviation("X146", "STRAIGHTNESS_SUMMED", "F.3", "sums over the entries: S grows with the picture", STRAIGHT,
        {flows.over_entries: instead(lambda R, squares: squares.sum(axis=tuple(range(2, squares.ndim))).mean(axis=1))}),
]  # fmt: skip
