"""Networks and training states in files, in our own grammar and in those of other projects."""

from minidit.checkpoint.files import CheckpointError, read_arrays, write_arrays
from minidit.checkpoint.grammar import SPOKEN, config_from
from minidit.checkpoint.reading import Contents, describe, load_model
from minidit.checkpoint.semantics import DIALECTS, Difference
from minidit.checkpoint.weights import CONFIG, read_json
from minidit.checkpoint.writing import save, save_model
from minidit.outgoing import write_atomically

__all__ = [
    "CONFIG", "DIALECTS", "SPOKEN", "CheckpointError", "Contents", "Difference", "config_from", "describe", "load_model",
    "read_arrays", "read_json", "save", "save_model", "write_arrays", "write_atomically",
]  # fmt: skip
