"""The kernels of a DiT block as the model of time sees them: shapes, bytes, FLOPs, and how often each loop runs.

A `Part` is a loop of a kernel, chosen by what stands in it, and the number of its marker instructions that all warps together
execute: stores of a row, products of tensor cores. The machine code says what else a turn of that loop costs. Loops without a
part run a few times at the end of a launch, for sums over blocks, and are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from minidit.kernels.cuda_attention_bf16 import keys_of, owners_of, strips_of, tile_of
from minidit.kernels.cuda_launch import STREAMING, SUMMING, ceil
from minidit.kernels.cuda_normalise import held_in_registers, threads_of
from minidit.kernels.cuda_rows import without_idle_lanes

ADAMW_BYTES = 36  # per parameter: θ, m, v and their average are read and written, the gradient is read
MMA = 4096  # FLOPs of mma.m16n8k16
WHOLE_ROWS = 256  # columns of a warp's load


@dataclass(frozen=True)
class Part:
    has: str  # an instruction of the loop; "" stands for what lies outside of all loops
    marker: str  # the instruction that is counted
    total: float  # over all warps
    lacks: str = "-"


@dataclass(frozen=True)
class Kernel:
    file: str
    name: str
    defines: dict[str, Any]
    warps: float  # that are launched
    parts: tuple[Part, ...]
    bytes: float  # to and from the device's memory, each array once
    flops: float = 0.0
    shortest: bool = False  # goes the shortest way through its loops: there is nothing that it adds first
    conflicts: dict[str, float] = field(default_factory=dict)  # how often a shared access is repeated: LDS, STS
    per_block: float = 1.0  # launches per block, forward and backward
    commit: str = ""


@dataclass(frozen=True)
class Shape:
    """B samples of N tokens, D wide, by heads of K numbers; and what the launches ask of a device."""

    B: int
    N: int
    D: int
    heads: int
    multiprocessors: int = 132
    shared: int = 227 << 10  # bytes that a block may ask for

    @property
    def K(self) -> int:
        return self.D // self.heads

    @property
    def rows(self) -> int:
        return self.B * self.N

    @property
    def T(self) -> float:
        """Bytes of one array of tokens in bfloat16."""
        return 2.0 * self.rows * self.D


def attention(s: Shape) -> list[Kernel]:
    """Forward and adjoint of attention_bf16*.cu, with a bias, without a mask."""
    heads, high = s.B * s.heads, strips_of(s.K, s.N)
    width, products = ceil(s.K, 16) * 16, 2.0 * s.N * s.N * s.B * s.heads
    warps = 4 * ceil(s.N, 64 * high) * heads
    forward = Kernel(
        "attention_bf16", "attention_bf16", {"HEAD": s.K, "HIGH": high, "MASK": 0}, warps,
        (Part("MUFU.EX2", "HMMA", products * (width + s.K) / MMA),), 4 * s.T, 2 * products * s.K,
    )  # fmt: skip
    owners, own_high = owners_of(s.K, s.N, s.shared)
    blocks = ceil(s.N, keys_of(owners, own_high))
    launched = owners * blocks * heads
    tile = tile_of(s.K, s.N, owners, own_high, s.shared)
    turns = ceil(s.N, tile)
    rounded, summed = width / s.K, s.rows * s.D / 256 if blocks == 1 else 0.0  # the bars that are read again
    backward = Kernel(
        "attention_bf16_backward", "attention_bf16_backward",
        {"HEAD": s.K, "HIGH": own_high, "WARPS": owners, "TILE": tile, "MASK": 0}, launched,
        (
            Part("BAR", "BAR", 2 * turns * launched),
            Part("MUFU.EX2", "HMMA", 2 * products * (width + s.K) / MMA),
            Part("HMMA", "HMMA", products * s.K / MMA * rounded, lacks="MUFU"),
            *(Part("LDG.E.128", "LDG.E.128", summed, lacks="BAR"), Part("LDS.128", "LDS.128", summed, lacks="STS")),
        ),
        (9 if blocks == 1 else 8) * s.T + (8 * blocks * products / s.N if blocks > 1 else 0), 5 * products * s.K,
    )  # fmt: skip
    if blocks == 1:  # it sums the bars of queries and values over the rows of a sample
        return [forward, backward, bias_sums(s, 2 * s.D)]
    return [forward, backward, columns(s, "column_sum", 3 * s.D, 2 / 3, 1, sums=True, store=False, share=2 / 3)]


def columns(s: Shape, name: str, width: int, arrays: float, samples: int, sums: bool, store: bool, **more: Any) -> Kernel:
    """A kernel of elementwise.cu that walks over columns `width` wide; arrays : how often such an array is read or written."""
    v = without_idle_lanes(width, 8)
    across, blocks = ceil(width, 32 * v), (SUMMING if sums else STREAMING) * s.multiprocessors
    beside = across * samples
    launched = 8 * max(beside, min(blocks, beside * ceil(s.rows // samples, 32)))
    words = s.rows * ceil(width, 32 * v)
    marker = ("STG.E.128" if v == 8 else "STG.E.64") if store else ("LDG.E.128.CONSTANT" if v == 8 else "LDG.E.64.CONSTANT")
    part = Part(marker, marker, words * more.pop("share", 1.0))
    return Kernel("elementwise", name, {"STORAGE": "bf16", "VEC": v}, launched, (part,), arrays * 2 * s.rows * width, **more)


def norms(s: Shape, *, residual: bool) -> list[Kernel]:
    """Layer norm with its modulation and its adjoint: alone, or joined with the residual before it."""
    variant = {**held_in_registers(s.D, 8), "STORAGE": "bf16", "RESIDUAL": int(residual)}
    store, steps, across = {8: "STG.E.128", 4: "STG.E.64"}[variant["VEC"]], variant["STEPS"], variant["ROW_WARPS"]
    wide, part = threads_of(variant) // 32, (Part(store, store, (1 + residual) * s.rows * steps * across),)

    def norm(name: str, per_multiprocessor: int, arrays: int) -> Kernel:
        launched = wide * max(s.B, per_multiprocessor * s.multiprocessors)
        return Kernel("normalise", name, variant, launched, part, arrays * s.T)

    alone = [norm("layer_norm", STREAMING, 2 + 2 * residual), norm("layer_norm_backward", SUMMING, 4 + 2 * residual)]
    return [*alone, bias_sums(s, s.D)] if residual else alone


def bias_sums(s: Shape, width: int) -> Kernel:
    """The sum over the samples of what another kernel has summed over their rows."""
    load, blocks = "LDG.E.128.CONSTANT", ceil(width, 128) * ceil(s.B, 32)
    part = Part(load, load, s.B * ceil(width, 128))
    return Kernel("elementwise", "column_sum", {"STORAGE": "float", "VEC": 4}, 8 * blocks, (part,), 4 * s.B * width)


def block(s: Shape) -> list[Kernel]:
    """All kernels between the products of one DiT block whose end is joined with the next one's norm."""
    return [
        *(replace(kernel, per_block=2.0) for kernel in norms(s, residual=True)),
        *attention(s),
        columns(s, "bias_gelu", 4 * s.D, 2, 1, sums=False, store=True),
        columns(s, "gelu_backward", 4 * s.D, 3, 1, sums=True, store=True),
    ]


def ends(s: Shape) -> list[Kernel]:
    """Once in a network: the first block's norm and the last one's residual are alone, which `block` counts as joined."""
    alone = columns(s, "gated_residual", s.D, 3, s.B, sums=False, store=True)
    adjoint = columns(s, "gated_residual_backward", s.D, 3, s.B, sums=True, store=True)
    return [*norms(s, residual=False), alone, adjoint, *(replace(k, per_block=-1.0) for k in norms(s, residual=True))]


def optimiser(parameters: int) -> Kernel:
    """AdamW, the average, and the copy of the weights in bfloat16."""
    part = Part("STG.E.128", "STG.E.128", 4 * parameters / 128)
    return Kernel("update", "adamw_ema", {"VEC": 4}, 8 * STREAMING * 132, (part,), (ADAMW_BYTES + 2) * parameters)


MEASURED_AT = "8705cff"  # the commit whose kernels an H200 ran
S2_PARAMETERS = 32_962_832


def measured_kernels(s: Shape) -> list[tuple[Kernel, float, str]]:
    """(kernel, µs on an H200 on 27 November 2026, where it was read) for S/2, batch 256: the kernels of that day.

    "step": within a training step, by PyTorch's profiler (results/gpu-2026-11-27-a-part2-S2.json). "alone": by Nsight Compute,
    which also counted the bank conflicts.
    """
    words, tiles = s.rows * s.D / 128, 4 * 4 * s.B * s.heads * 8  # STG.64 per array; (warp, tile of 32 keys)
    products = 2.0 * s.N * s.N * s.B * s.heads * s.K / MMA  # HMMA of one product of attention
    bf16: dict[str, Any] = {"STORAGE": "bf16", "VEC": 4}
    heads: dict[str, Any] = {"defines": {**bf16, "HEAD": s.K, "FACTORS": 2}, "conflicts": {"LDS": 1.4, "STS": 4}}
    updated = (Part("STG.E.128", "STG.E.128", 4 * S2_PARAMETERS / 128),)

    def old(file: str, name: str, parts: tuple[Part, ...], size: float, warps: float = 12 * 43 * 8, **more: Any) -> Kernel:
        return Kernel(file, name, more.pop("defines", bf16), warps, parts, size, commit=MEASURED_AT, **more)

    def stored(total: float) -> tuple[Part, ...]:
        return (Part("STG.E.64", "STG.E.64", total),)

    T, width = s.T, "LDG.E.64"
    norm = (Part(width, width, 2 * words, lacks="STG"), Part("STG", "STG.E.64", words, lacks="LDG.E.128"))
    backward_norm = (
        Part("MUFU", "MUFU.RCP", s.rows), Part("LDS", width, 3 * words, lacks="MUFU"), Part("STG.E.64", "STG.E.64", words),
    )  # fmt: skip
    inner, copied = Part("LDS.64", "HMMA", products, lacks="BAR"), Part("STS", "LDG.E.64", 4 * tiles, lacks="BAR")
    forward = (Part("BAR", "BAR", 2 * tiles), inner, copied)
    adjoint = (Part("MUFU", "BAR", 3 * tiles), replace(inner, total=5 * products), replace(copied, total=16 * tiles))
    return [
        (old("elementwise", "bias_gelu", stored(8 * words), 12 * T), 268.4, "step"),
        (old("elementwise", "gelu_backward", stored(4 * words), 12 * T), 186.8, "step"),
        (old("elementwise", "gated_residual", stored(words), 3 * T, 768 * 8), 39.5, "step"),
        (old("elementwise", "gated_residual_backward", stored(words), 3 * T, 768 * 8), 60.7, "step"),
        (old("elementwise", "column_sum", (Part("LDG.E.64", "LDG.E.64", 3 * words),), 3 * T), 51.3, "step"),
        (old("normalise", "layer_norm", norm, 2 * T, 65536, shortest=True), 57.6, "step"),
        (old("normalise", "layer_norm_backward", backward_norm, 4 * T, 2048, conflicts={"LDS": 4, "STS": 4}), 138.1, "step"),
        (old("attention", "attention", forward, 4 * T, tiles / 8, **heads), 532.1, "alone"),
        (old("attention", "attention_backward", adjoint, 8 * T, tiles / 4, **heads), 1630.0, "alone"),
        (old("update", "adamw_ema", updated, ADAMW_BYTES * S2_PARAMETERS, defines={"VEC": 4}), 293.5, "step"),
    ]
