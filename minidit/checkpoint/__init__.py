"""Networks and training states in files."""

from minidit.checkpoint.files import CheckpointError, read_arrays, write_arrays, write_atomically
from minidit.checkpoint.grammar import config_from, load_model, save, save_model

__all__ = [
    "CheckpointError", "config_from", "load_model", "read_arrays", "save", "save_model", "write_arrays", "write_atomically",
]  # fmt: skip
