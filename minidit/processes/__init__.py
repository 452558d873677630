"""Combines the diffusion equations with a network: training losses and sampling."""
