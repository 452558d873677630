"""What a training step needs at its fullest: when the last block's adjoint runs and all the others still keep what they need.

    weights    (5 + [decay]) P            θ, m, v, EMA and the gradient, float32; on a CPU one gradient per shard
    kept       B · kept                   what the adjoints of all blocks hold of one sample, `step_memory` of the config
    working    B · working                the adjoint that runs, the ends of the network, the noise and the noisy pictures

P parameters, B samples of a piece. With recomputation every block keeps its input only, and the one that runs keeps its own.
Counted for the fast twins, which a test holds to what is measured; the data set comes on top.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from minidit.backend import memory_of
from minidit.models.backbone import BackboneConfig
from minidit.nn.memory import TILES
from minidit.training.loop import LoopConfig, RunError

LIBRARIES = 33 << 20  # bytes on a GPU: the workspace of cuBLAS, and counters


@dataclass(frozen=True)
class StepMemory:
    """Bytes."""

    weights: int
    kept: int
    working: int

    @property
    def total(self) -> int:
        return self.weights + self.kept + self.working


def memory_of_step(config: BackboneConfig, train: LoopConfig, device: str = "cpu") -> StepMemory:
    """The bytes that a step of this network needs on "cpu" or "cuda"."""
    home, shards, P = "cpu" if device == "cpu" else "cuda", train.pieces(device), config.parameters()
    B = shards * math.ceil(train.batch_size / shards / train.accumulate)
    sample = config.step_memory(home, train.precision)
    kept, working = sample.kept, sample.working
    if train.checkpoint_blocks:
        kept, working = sample.inputs, working + sample.block
    vectors = 4 + shards + (train.weight_decay > 0)
    weights = 4 * vectors * P + (LIBRARIES if home == "cuda" else 0)
    casts = 2 * P if sample.size == 2 else 0  # the weights, rounded once per step
    tiles = TILES * shards if home == "cpu" else 0
    return StepMemory(weights, int(B * kept), int(B * working) + casts + tiles)


def largest_batch(config: BackboneConfig, train: LoopConfig, device: str, budget: float) -> int:
    """The largest batch, up to train.batch_size, whose step fits into so many bytes; 0 if not even one sample does."""
    low, high = 0, train.batch_size
    while low < high:
        B = (low + high + 1) // 2
        low, high = (B, high) if memory_of_step(config, replace(train, batch_size=B), device).total <= budget else (low, B - 1)
    return low


def out_of_memory(config: BackboneConfig, train: LoopConfig, device: str) -> str:
    """One line: what a step needs, what there is, and what would fit."""
    budget = memory_of(device)
    need, batch = memory_of_step(config, train, device).total, largest_batch(config, train, device, 0.9 * budget)
    fits = [f"--batch-size {min(batch, train.batch_size - 1)}"] if batch and train.batch_size > 1 else []
    pieces = next((k for k in (2, 4, 8, 16, 32) if k > train.accumulate and train.batch_size >= k and memory_of_step(
        config, replace(train, accumulate=k), device).total <= 0.9 * budget), None)  # fmt: skip
    fits += [f"--accumulate {pieces} (the same batch in {pieces} pieces)"] if pieces else []
    again = replace(train, checkpoint_blocks=True)
    if not train.checkpoint_blocks and memory_of_step(config, again, device).total <= 0.9 * budget:
        fits.append("--recompute (a third more work)")
    message = f"out of memory on {device}: a step of batch {train.batch_size} needs about {gb(need)}, there are {gb(budget)}; "
    return message + (f"what would fit: {', or '.join(fits)}" if fits else "no batch would fit: a smaller network would")


def gb(n: float) -> str:
    return f"{n / 1e9:.2f} GB"


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether this is the host's or the device's way to say so."""
    return isinstance(error, MemoryError) or "cudaErrorMemoryAllocation" in str(error)


@contextmanager
def explained(config: BackboneConfig | None, train: LoopConfig, device: str) -> Iterator[None]:
    """`with explained(…):` what runs out of memory inside is a RunError that says which batch would fit."""
    try:
        yield
    except Exception as error:
        if config is None or not ran_out_of_memory(error):
            raise
        raise RunError(out_of_memory(config, train, device)) from error
