"""Mistakes in reading and writing other projects' weights (their grammars; facts of C4 that show in files)."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from minidit.backend import Array
from minidit.checkpoint.names_dit import block_of
from minidit.verify.bank.wrap import then
from minidit.verify.core.reference import Change, Deviation
from minidit.verify.topics import checkpoints


def _each(match: str, f: Any) -> Change:
    """f of every array whose name matches the expression."""
    return then(lambda weights: {name: f(a) if re.search(match, name) else a for name, a in weights.items()})


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
    Deviation("X70", "CONVERT_COPIES_UNCHECKED", "T.9", "takes block 0's embedders for all without a look at the other copies",
        _COPIES, {checkpoints.foreign: then(_first_copies)}, "scripts that convert back from diffusers"),
    Deviation("X71", "CONVERT_QKV_ORDER", "T.9", "joins q, k, v as [k; q; v]", _QKV,
        {checkpoints.converted: _each("qkv", _thirds(1, 0, 2))}),
    Deviation("X71b", "CONVERT_QKV_VALUES_FIRST", "T.9", "joins q, k, v as [v; k; q]", _QKV,
        {checkpoints.converted: _each("qkv", _thirds(2, 1, 0))}),
    Deviation("X72", "CONVERT_SCALE_SHIFT", "T.9", "exchanges shift and scale in the last modulation", _AS_IT_LIES,
        {checkpoints.converted: _each("final_layer.adaLN", _swapped(2))},
        "diffusers' scripts for SD3 and Flux do so, where it is needed"),
    Deviation("X72b", "CONVERT_SCALE_SHIFT_BLOCKS", "T.9", "exchanges shift and scale in the blocks' modulations", _AS_IT_LIES,
        {checkpoints.converted: _each(r"^blocks\..*adaLN", _swapped(6))}),
    Deviation("X73", "CONVERT_TRANSPOSED", "T.9", "turns the weights of linears round", "both keep (out, in)",
        {checkpoints.converted: _each("^(?!.*table)", lambda a: a.T if a.ndim == 2 else a)},
        "converters from TensorFlow or Flax"),
    Deviation("X74", "CONVERT_IN_HALF", "T.9", "rounds the weights to float16 on the way", "numbers are moved, not computed",
        {checkpoints.converted: _each("", lambda a: a.astype(np.float16).astype(a.dtype))}),
    Deviation("X75", "EXPORT_BLOCK_0_ONLY", "T.9", "gives block 0 alone the embedders", "every block has its copy",
        {checkpoints.exported: then(lambda s: {n: a for n, a in s.items() if ".norm1.emb." not in n or block_of(n) == 0})}),
    Deviation("X76", "EXPORT_QKV_ORDER", "T.9", "cuts qkv as [k; q; v]", _QKV,
        {checkpoints.exported: then(lambda s:
            {re.sub("to_[qk]", lambda m: {"to_q": "to_k", "to_k": "to_q"}[m[0]], n): a for n, a in s.items()})}),
]  # fmt: skip
