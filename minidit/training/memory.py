"""The peak memory of an update: the last block's adjoint runs, and all other blocks still keep what theirs need.

    weights    (5 + [decay]) P            θ, m, v, EMA and the gradient, float32; on a CPU one gradient per shard
    kept       B · kept                   kept by the adjoints of all blocks per sample, `step_memory` of the config
    working    B · working                the adjoint that runs, the ends of the network, the noise and the noisy pictures
               + apart                    on a GPU, in pieces: gradients before they are added to those of the pieces before

P parameters, B samples of a piece. With recomputation every block keeps only its input, and the running one all it needs.
Counted for the fast twins, and compared with measurements by a test; the data set is not included.
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
    """The bytes that an update of this network needs on "cpu" or "cuda"."""
    home, shards, P = "cpu" if device == "cpu" else "cuda", train.pieces(device), config.parameters()
    B = shards * math.ceil(train.batch_size / shards / train.accumulate)
    sample = config.step_memory(home, train.precision)
    kept, working = sample.kept, sample.working
    if train.checkpoint_blocks:
        kept, working = sample.inputs, working + sample.block
    vectors = 4 + shards + (train.weight_decay > 0)
    rounded = 2 * P if sample.size == 2 else 0  # the weights in bfloat16, which the optimiser keeps
    weights = 4 * vectors * P + rounded + (LIBRARIES if home == "cuda" else 0)
    tiles = TILES * shards if home == "cpu" else 0
    apart = sample.apart if home == "cuda" and train.accumulate > 1 else 0
    return StepMemory(weights, int(B * kept), int(B * working + apart) + tiles)


def largest_batch(config: BackboneConfig, train: LoopConfig, device: str, budget: float) -> int:
    """The largest batch, up to train.batch_size, whose update fits into `budget` bytes; 0 if not even one sample does."""
    low, high = 0, train.batch_size
    while low < high:
        B = (low + high + 1) // 2
        low, high = (B, high) if memory_of_step(config, replace(train, batch_size=B), device).total <= budget else (low, B - 1)
    return low


def out_of_memory(config: BackboneConfig, train: LoopConfig, device: str) -> str:
    """One line: the memory needed, the memory available, and settings that would fit."""
    budget = memory_of(device)
    need, batch = memory_of_step(config, train, device).total, largest_batch(config, train, device, 0.9 * budget)
    fits = [f"--batch-size {min(batch, train.batch_size - 1)}"] if batch and train.batch_size > 1 else []
    pieces = next((k for k in (2, 4, 8, 16, 32) if k > train.accumulate and train.batch_size >= k and memory_of_step(
        config, replace(train, accumulate=k), device).total <= 0.9 * budget), None)  # fmt: skip
    fits += [f"--accumulate {pieces} (the same batch in {pieces} pieces)"] if pieces else []
    recomputing = replace(train, checkpoint_blocks=True)
    if not train.checkpoint_blocks and memory_of_step(config, recomputing, device).total <= 0.9 * budget:
        fits.append("--recompute (a third more work)")
    message = f"out of memory on {device}: a batch of {train.batch_size} needs about {gb(need)}, {gb(budget)} are available; "
    return message + (f"what would fit: {', or '.join(fits)}" if fits else "no batch would fit: a smaller network would")


def gb(n: float) -> str:
    """So many bytes, in words: "1.23 GB"."""
    return f"{n / 1e9:.2f} GB"


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether this is an out-of-memory error of the host or the device."""
    return isinstance(error, MemoryError) or "cudaErrorMemoryAllocation" in str(error)


@contextmanager
def explained(config: BackboneConfig | None, train: LoopConfig, device: str) -> Iterator[None]:
    """`with explained(…):` an out-of-memory error inside becomes a RunError that says which batch would fit."""
    try:
        yield
    except Exception as error:
        if config is None or not ran_out_of_memory(error):
            raise
        raise RunError(out_of_memory(config, train, device)) from error
