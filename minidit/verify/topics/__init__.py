"""What an implementation can be asked for: the topics, in the order of the kit.

A family of topics is one file. Its parts are functions of a Reference (core/reference.py); what another family needs of them it
imports by name. Time is as most projects count it: t in 0..T-1, tables of T entries, -1 for the data.
"""

from __future__ import annotations

from minidit.verify.core.reference import AnyTopic
from minidit.verify.topics import (
    block,
    chains,
    checkpoints,
    conversions,
    ddim,
    ddpm,
    embeddings,
    guidance,
    latents,
    layers,
    likelihood,
    losses,
    network,
    parameters,
    posterior,
    schedules,
    squares,
    timesteps,
    training,
)  # fmt: skip

_ORDER: tuple[AnyTopic, ...] = (
    # schedules
    schedules.linear_betas, schedules.scaled_linear_betas, schedules.cosine_betas, schedules.cosine_alpha_bar,
    schedules.alpha_bar, schedules.zero_snr_betas, timesteps.leading_timesteps, timesteps.linspace_timesteps,
    timesteps.trailing_timesteps, timesteps.sampling_timesteps, timesteps.space_timesteps, timesteps.respaced_betas,
    timesteps.network_time, timesteps.step_pairs,
    # conversions
    conversions.q_sample, conversions.x_0_from_eps, conversions.eps_from_x_0, conversions.v_from_pair, conversions.x_0_from_v,
    conversions.eps_from_v, conversions.score_from_eps, conversions.eps_from_score,
    # samplers
    posterior.posterior_variance, posterior.posterior_log_variance, posterior.fixed_large_variance, posterior.posterior_mean,
    posterior.learned_range_variance, ddpm.ddpm_step, ddpm.ddpm_step_large, ddpm.ddpm_step_clipped, ddpm.ddpm_step_learned,
    ddim.ddim_step, ddim.ddim_step_clipped, ddim.ddim_step_v, ddim.ddim_invert_step,
    # chains
    chains.ddim_sample, chains.ddpm_sample, chains.ddim_invert, chains.ddim_scheduler, chains.ddpm_scheduler,
    chains.ddpm_gaussian,
    # layers
    layers.linear, layers.gelu, layers.silu, layers.softmax, layers.layer_norm, layers.modulate, layers.gated_residual,
    layers.attention, layers.self_attention, layers.mlp,
    # embeddings
    embeddings.timestep_embedding, embeddings.timestep_embedder, embeddings.null_label, embeddings.label_embedding,
    embeddings.position_embedding, embeddings.patch_embed, embeddings.unpatchify,
    # network
    block.block, block.final_layer, network.dit, network.dit_gradients,
    # checkpoints
    checkpoints.dit_from_diffusers, checkpoints.dit_to_diffusers,
    # guidance
    guidance.guide, guidance.guide_omega, guidance.guide_uncond_first, guidance.guide_cond_first, guidance.rescale_guided,
    guidance.guidance_interval, guidance.clip_static, guidance.clip_dynamic,
    # latents
    latents.latent_sample, latents.latent_to_decoder, latents.measured_scale, latents.halve, latents.pixels_in,
    latents.pixels_out,
    # likelihood
    likelihood.normal_kl, likelihood.discretised_nll, likelihood.continuous_nll, likelihood.bits_per_dim,
    likelihood.prior_bits, likelihood.vb_term, likelihood.vb_term_latents, likelihood.bound_total,
    # losses
    losses.simple_loss, losses.hybrid_loss, losses.hybrid_gradient, losses.bound_weight, losses.min_snr_x_0,
    losses.min_snr_eps, losses.min_snr_v, losses.importance_probabilities, losses.importance_weights, losses.draw_timesteps,
    losses.noise,
    # parameters
    parameters.parameter_shapes, parameters.initial_weights,
    # squares
    squares.dit_square,
    # training
    training.label_dropout, training.ema_decay, training.ema_update, training.ema_run, training.adamw_update,
    training.weight_decays, training.clip_gradients, training.warmup_rate,
)  # fmt: skip
TOPICS: dict[str, AnyTopic] = {t.name: t for t in _ORDER}
if len(TOPICS) < len(_ORDER):
    raise ValueError("two topics have one name")
