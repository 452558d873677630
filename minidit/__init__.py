"""minidit: diffusion transformers from scratch on NumPy and CuPy arrays."""

__version__ = "0.1.0"
