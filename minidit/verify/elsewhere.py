"""What other projects and tutorials call the functions that the topics ask for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from minidit.verify.core.calls import bare
from minidit.verify.topics import TOPICS

CALLED = {  # topic -> names elsewhere, in small letters without underscores
    "alpha_bar": "alphascumprod getalphabar alphabars computealphabar",
    "linear_betas": "linearbetaschedule linearschedule makebetaschedule getbetaschedule getbetas betaschedule",
    "cosine_betas": "cosinebetaschedule betasforalphabar cosineschedule",
    "zero_snr_betas": "rescalezeroterminalsnr enforcezeroterminalsnr",
    "q_sample": "addnoise forwarddiffusion forwardprocess forwarddiffusionsample diffuse noiseimage noiseimages noising "
                "perturb forwardnoise applynoise",
    "x_0_from_eps": "predictstartfromnoise predictxstartfromeps predictx0 predictx0fromeps predx0 predictoriginalsample denoise",
    "eps_from_x_0": "predictnoisefromstart predictepsfromxstart",
    "v_from_pair": "getvelocity predictv getv",
    "x_0_from_v": "predictstartfromv",
    "posterior_mean": "qposterior qposteriormean qposteriormeanvariance",
    "ddpm_step": "psample ddpm denoisestep reversestep backwardstep sampletimestep removenoise reversediffusionstep",
    "ddim_step": "ddim ddimpstep ddimupdate ddimsamplestep",
    "ddim_invert_step": "ddimreversesample ddimreversestep ddiminversestep",
    "ddim_sample": "ddimsampleloop sampleddim ddimsampling",
    "ddpm_sample": "psampleloop sampleddpm ddpmsampling",
    "ddim_invert": "ddiminversion ddimreversesampleloop",
    "timestep_embedding": "gettimestepembedding sinusoidalembedding sinusoidalposemb timeembedding sinusoidalpositionembedding",
    "position_embedding": "get2dsincosposembed posembed",
    "patch_embed": "patchify patchembedding",
    "guide": "guidance cfg classifierfreeguidance applycfg applyguidance guidednoise forwardwithcfg",
    "rescale_guided": "rescalenoisecfg",
    "clip_dynamic": "dynamicthreshold dynamicthresholding thresholdsample",
    "discretised_nll": "discretizedgaussianloglikelihood",
    "simple_loss": "plosses traininglosses trainingloss diffusionloss mseloss",
    "draw_timesteps": "sampletimesteps drawtimestep randomtimesteps",
    "ema_update": "ema updateema emastep updateaverage",
    "adamw_update": "adamw adamwstep",
    "clip_gradients": "clipgradnorm clipgrad",
    "straight_sample": "scalenoise interpolate flowsample",
    "shift_time": "timeshift shifttimestep",
    "flow_euler_step": "eulerstep",
    "nearest_code": "quantize quantise vectorquantize",
    "rope": "rotaryembedding applyrotaryemb applyrotary",
}  # fmt: skip


def topics_meant(names: Iterable[str]) -> dict[str, str]:
    """name -> the topic that it probably is, where it is written otherwise, called so elsewhere, or misspelt."""
    known = {bare(t): t for t in TOPICS} | {word: t for t, words in CALLED.items() for word in words.split()}
    out = {}
    for name in names:
        near = difflib.get_close_matches(name, TOPICS, 1, 0.8)
        if topic := known.get(bare(name), near[0] if near else ""):
            out[name] = topic
    return out
