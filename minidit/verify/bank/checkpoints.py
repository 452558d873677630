"""Mistakes in reading and writing other projects' weights (their grammars; facts of C4 that show in files)."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidit.backend import Array
from minidit.checkpoint.names_dit import block_of
from minidit.verify.bank.wrap import then
from minidit.verify.core.reference import Deviation


def _each(match: str, f: Any) -> Any:
    """f of every array whose name contains `match`."""
    return then(lambda found: {name: f(a) if match in name else a for name, a in found.items()})


def _thirds(*order: int) -> Any:
    return lambda a: np.concatenate([np.split(a, 3)[i] for i in order])


def _swapped(parts: int) -> Any:
    """Shift and scale exchanged in a modulation of so many pieces."""
    order = (1, 0) if parts == 2 else (1, 0, 2, 4, 3, 5)
    return lambda a: np.concatenate([np.split(a, parts)[i] for i in order])


def _first_copies(state: Any) -> dict[str, Array]:
    at_0: Any = lambda name: name.replace(f"transformer_blocks.{block_of(name)}.", "transformer_blocks.0.")
    return {name: state[at_0(name)] if ".norm1.emb." in name else a for name, a in state.items()}


_COPIES = "diffusers keeps a copy of the embedders in every block; where they differ no official DiT says the same: refuse"
_QKV = "qkv = [to_q; to_k; to_v]"
_AS_IT_LIES = "shift and scale keep their order: both projects put shift first"

BANK = [
    Deviation(
        "X70", "CONVERT_COPIES_UNCHECKED", "T.9", wrong="takes block 0's embedders for all without a look at the other copies",
        right=_COPIES, seen="scripts that convert back from diffusers", patches={"foreign": then(_first_copies)},
    ),
    Deviation(
        "X71", "CONVERT_QKV_ORDER", "T.9", wrong="joins q, k, v as [k; q; v]", right=_QKV,
        patches={"converted": _each("qkv", _thirds(1, 0, 2))},
    ),
    Deviation(
        "X71b", "CONVERT_QKV_VALUES_FIRST", "T.9", wrong="joins q, k, v as [v; k; q]", right=_QKV,
        patches={"converted": _each("qkv", _thirds(2, 1, 0))},
    ),
    Deviation(
        "X72", "CONVERT_SCALE_SHIFT", "T.9", wrong="exchanges shift and scale in the last modulation", right=_AS_IT_LIES,
        seen="diffusers' scripts for SD3 and Flux do so, where it is needed",
        patches={"converted": _each("final_layer.adaLN", _swapped(2))},
    ),
    Deviation(
        "X72b", "CONVERT_SCALE_SHIFT_BLOCKS", "T.9", wrong="exchanges shift and scale in the blocks' modulations",
        right=_AS_IT_LIES,
        patches={"converted": lambda f: lambda R, found: {
            n: _swapped(6)(a) if n.startswith("blocks.") and "adaLN" in n else a for n, a in f(R, found).items()}},
    ),
    Deviation(
        "X73", "CONVERT_TRANSPOSED", "T.9", wrong="turns the weights of linears round", right="both keep (out, in)",
        seen="converters from TensorFlow or Flax",
        patches={"converted": then(lambda found: {n: a.T if a.ndim == 2 and "table" not in n else a for n, a in found.items()})},
    ),
    Deviation(
        "X74", "CONVERT_IN_HALF", "T.9", wrong="rounds the weights to float16 on the way",
        right="numbers are moved, not computed",
        patches={"converted": then(lambda found: {n: a.astype(np.float16).astype(a.dtype) for n, a in found.items()})},
    ),
    Deviation(
        "X75", "EXPORT_BLOCK_0_ONLY", "T.9", wrong="gives block 0 alone the embedders", right="every block has its copy",
        patches={"exported": then(lambda s: {n: a for n, a in s.items() if ".norm1.emb." not in n or block_of(n) == 0})},
    ),
    Deviation(
        "X76", "EXPORT_QKV_ORDER", "T.9", wrong="cuts qkv as [k; q; v]", right=_QKV,
        patches={"exported": then(lambda s: {
            n.replace("to_q", "to_?").replace("to_k", "to_q").replace("to_?", "to_k"): a for n, a in s.items()})},
    ),
]  # fmt: skip
