"""Networks and training states in files."""

from minidit.checkpoint.files import CheckpointError, read_arrays, write_arrays, write_atomically
from minidit.checkpoint.grammar import config_from, load_model, save_model

__all__ = ["CheckpointError", "config_from", "load_model", "read_arrays", "save_model", "write_arrays", "write_atomically"]
